"""Writing files that are there whole or not at all."""

import os
from pathlib import Path


def write_atomically(file: Path, content: bytes) -> None:
    """Whoever reads `file`, at whatever moment, finds the old content or the new, never a part."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        with open(partial, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
