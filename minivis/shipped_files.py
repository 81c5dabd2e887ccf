"""Where the files are that ship with minivis: its trained models and its validation scenes."""

from difflib import get_close_matches
from pathlib import Path

import minivis


def shipped_folder() -> Path:
    """Inside the package in an installed wheel, beside it in a clone."""
    package = Path(minivis.__file__).parent
    inside = package / "shipped"
    return inside if inside.is_dir() else package.parent / "data"


def shipped(name: str) -> Path:
    """The path of something that ships with minivis: "detr-mini", "scenes/val.parquet", …

    Raises:
        FileNotFoundError: if there is no such thing; the message names what there is.
    """
    root = shipped_folder()
    path = root / name
    if not path.exists() or not name:
        there = sorted(p.name for p in root.iterdir() if not p.name.startswith(".")) if root.is_dir() else []
        raise FileNotFoundError(
            f"nothing called {name!r} ships with minivis; {root} has {', '.join(there)}{near(name, there)}"
        )
    return path


def near(name: str, known: list[str]) -> str:
    """The end of an error message: which of the known names may have been meant."""
    matches = get_close_matches(name, known)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
