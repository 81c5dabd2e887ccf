"""An environment like Colab's: torch, numpy and a kernel are there, and `google.colab`; minivis is not."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

# What Colab has already, of what minivis uses. Everything else is the setup cell's to install.
THERE = ("torch", "torchvision", "numpy", "ipykernel", "pip")

WIDGET_MANAGER = "https://example.org/widget-manager.js"  # nobody asks for it here

STAND_IN = f'''
"""A stand-in for Colab's own package, with what widgets ask it for."""
class _widgets:
    _installed_url = None

def enable_custom_widget_manager(url={WIDGET_MANAGER!r}):
    _widgets._installed_url = url
'''


def needed_by(names: tuple[str, ...]) -> dict[str, metadata.Distribution]:
    """These distributions of our own environment and all that they need, by name."""
    found: dict[str, metadata.Distribution] = {}
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        requirements = map(Requirement, found[name].requires or [])
        todo += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def make(folder: Path) -> Path:
    """A new virtual environment with `THERE` and what these need, linked from ours: it takes no gigabytes.

    Returns its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for distribution in needed_by(THERE).values():
        for file in distribution.files or []:
            source = Path(distribution.locate_file(file))
            if ".." in file.parts or not source.is_file():
                continue  # scripts in bin/, and compiled files that were never made
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(source, target)
    colab = site / "google" / "colab"
    colab.mkdir(parents=True)
    (colab / "__init__.py").touch()
    (colab / "output.py").write_text(STAND_IN)
    return python


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        target.write_bytes(source.read_bytes())


def repository(root: Path, folder: Path) -> Path:
    """The project as it lies there, uncommitted changes and all, as a git repository to install from."""
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    listed = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (root / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((root / name).read_bytes())
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--all", "--force"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "as it is"], check=True)
    return folder


def instead_of(address: str, folder: Path) -> dict[str, str]:
    """Environment variables with which git takes a folder for what lies at an address."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }


def state(python: Path) -> str:
    """Where torch and numpy are, in which version, and the time and number of their files' entries."""
    code = """
import importlib.util, os
from importlib import metadata
for name in ("torch", "torchvision", "numpy"):
    file = importlib.util.find_spec(name).origin
    entry = os.stat(file)
    print(name, metadata.version(name), file, entry.st_ino, entry.st_mtime_ns)
"""
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
