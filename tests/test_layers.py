"""Imports go one way through minivis, and minivis knows of no notebook: read from its source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minivis

PACKAGE = Path(minivis.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

# From the ground up: a layer knows nothing of those above it here.
SHARED = ["attention", "positions", "boxes", "images"]
MODELS = ["detr", "clip", "dino"]
REST = [
    "shipped_files",
    "data",
    "pretrained",
    "evaluation",
    "training",
    "experiments",
    "widgets",
    "checks",
    "cli",
]


def may_import(layer: str) -> set[str]:
    """The other layers that a module of this one may import."""
    if layer in SHARED:
        return set(SHARED[: SHARED.index(layer)])
    if layer in MODELS:
        return set(SHARED)
    return {*SHARED, *MODELS, *REST[: REST.index(layer)]}


def layer_of(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imported_layers(source: str, module: Path) -> set[str]:
    """The layers of minivis that a module's import statements name, wherever in the module they stand."""
    package = ["minivis", *module.parent.parts]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    layers = {name.split(".")[1] for name in names if name.startswith("minivis.")}
    # `from minivis import load` reaches the layer that load lives in
    return {minivis._LAZY.get(name, f"minivis.{name}").split(".")[1] for name in layers} - {"__version__"}


def imported_packages(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_one_way(module: Path):
    if module.parts == ("__init__.py",):
        return  # it names its layers lazily: test_importing_minivis_is_quick
    layer = layer_of(module)
    assert layer in {*SHARED, *MODELS, *REST}, f"minivis/{module} is in no layer: say above where it belongs"
    forbidden = imported_layers((PACKAGE / module).read_text(), module) - may_import(layer) - {layer}
    assert not forbidden, f"minivis/{module} imports {sorted(forbidden)}, which {layer} must know nothing of"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_minivis_knows_of_no_notebook(module: Path):
    source = (PACKAGE / module).read_text()
    if layer_of(module) != "widgets":
        found = imported_packages(source) & {"IPython", "ipywidgets", "anywidget", "nbformat", "jupytext"}
        assert not found, f"minivis/{module} imports {sorted(found)}; only widgets may"
    assert ".ipynb" not in source and "notebooks/" not in source, f"minivis/{module} names a notebook"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_annotations_stay_objects(module: Path):
    """As strings (`from __future__ import annotations`) jaxtyping's import hook cannot check them."""
    source = (PACKAGE / module).read_text()
    assert "jaxtyping" not in source or "from __future__ import annotations" not in source


@pytest.mark.parametrize(
    ("module", "line", "layers"),
    [
        ("detr/model.py", "from minivis.data.scenes import Scenes", {"data"}),
        ("detr/model.py", "from ..training import loop", {"training"}),
        ("detr/model.py", "from .matcher import HungarianMatcher", {"detr"}),
        ("boxes.py", "from . import images", {"images"}),
        ("boxes.py", "def f():\n    import minivis.images", {"images"}),
        ("detr/__init__.py", "from ..positions import SinePositions", {"positions"}),
        ("data/scenes.py", "from minivis import load, __version__", {"pretrained"}),
        ("data/scenes.py", "import numpy as np\nfrom torch import nn", set()),
    ],
)
def test_the_reader_of_imports_sees_them_all(module: str, line: str, layers: set[str]):
    assert imported_layers(line, Path(module)) == layers


def test_which_layer_may_import_which():
    assert may_import("attention") == set()
    assert may_import("images") == {"attention", "positions", "boxes"}
    assert may_import("detr") == may_import("clip") == {"attention", "positions", "boxes", "images"}
    assert "detr" in may_import("data") and "training" not in may_import("evaluation")
    assert "cli" not in may_import("cli") and "checks" in may_import("cli")


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level packages in a fresh Python after a statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    python = [sys.executable, "-c", code]
    return set(subprocess.run(python, capture_output=True, text=True, check=True).stdout.split())


def test_importing_minivis_is_quick():
    loaded = modules_loaded_by("import minivis; minivis.__version__; dir(minivis)")
    assert not loaded & {"torch", "torchvision", "numpy", "transformers"}


def test_the_models_need_only_what_they_compute_with():
    loaded = modules_loaded_by("import minivis.detr, minivis.images, minivis.boxes")
    assert not loaded & {"datasets", "transformers", "accelerate", "anywidget", "ipywidgets", "matplotlib"}
    assert not loaded & {"faster_coco_eval", "torchmetrics", "skimage", "beartype", "typer"}
