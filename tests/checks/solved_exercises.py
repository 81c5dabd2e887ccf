"""The files of solutions, run."""

import contextlib
import io
import runpy
from functools import cache
from pathlib import Path
from typing import Any

SOLUTIONS = Path(__file__).parents[2] / "solutions"


@cache
def solved(name: str) -> tuple[dict[str, Any], str]:
    """The functions of a file, and what it prints when it is run."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        names = runpy.run_path(str(SOLUTIONS / f"{name}.py"))
    return names, printed.getvalue()
