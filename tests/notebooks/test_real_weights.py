"""The cell of each notebook that shows a released model works: run by itself, with random weights in its place."""

import ast
import builtins
from collections.abc import Iterator
from typing import Any

import make_notebooks
import pytest
import torch
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

import minivis
from minivis.data.items import Categories
from minivis.detr import DETR, detr_resnet50
from minivis.images import ImageTransform
from minivis.pretrained.checkpoint import with_use

NOTEBOOKS = sorted(make_notebooks.NOTEBOOKS.glob("*_detr_*.py"))


def released_cells(cells: list[str]) -> list[int]:
    return [number for number, source in enumerate(cells) if "load_released" in names_in(ast.parse(source))]


def names_in(node: ast.AST) -> set[str]:
    """Every name that is read in it, and every attribute."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def given(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of a cell defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


def is_constant(statement: ast.stmt) -> bool:
    try:
        ast.literal_eval(statement.value)
    except (AttributeError, ValueError):
        return False
    return True


def what_it_uses(cells: list[str], cell: int) -> list[ast.stmt]:
    """The functions of the cells before it that a cell uses, and what these need: functions, imports, constants.

    What the cell itself uses besides functions it must import.
    """
    before = [statement for source in cells[:cell] for statement in ast.parse(source).body]
    functions = [each for each in before if isinstance(each, ast.FunctionDef | ast.ClassDef)]
    taken: list[ast.stmt] = []
    wanted, allowed = names_in(ast.parse(cells[cell])), functions
    while True:
        new = [each for each in allowed if each not in taken and wanted.intersection(given(each))]
        if not new:
            return sorted(taken, key=before.index)
        taken += new
        wanted = set().union(*map(names_in, new))
        imports = [each for each in before if isinstance(each, ast.Import | ast.ImportFrom)]
        allowed = functions + imports + [each for each in before if is_constant(each)]


@pytest.fixture(scope="module")
def released() -> DETR:
    """A DETR with the sizes, categories and preprocessing of the released one, except for small pictures."""
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    pairs = [(id_, name) for id_, name in enumerate(names) if id_ and name != "N/A"]
    torch.manual_seed(0)
    model = detr_resnet50()
    for name, buffer in model.backbone.named_buffers():
        if name.endswith("running_var"):  # under a frozen norm of ones the features of fresh weights grow
            buffer.fill_(2.0)
    transform = ImageTransform(shortest_edge=96, longest_edge=160)
    return with_use(model, Categories.by_id(pairs), transform)


def test_the_course_has_them():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cell_with_real_weights_runs_by_itself(
    path: Any, released: DETR, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [cell.source for cell in make_notebooks.read(path).cells if cell.cell_type == "code"]
    chosen = released_cells(cells)
    assert chosen, f"{path.stem} has no cell with minivis.load_released"
    shown: list[Any] = []

    def display(*objects: Any, **options: Any) -> None:
        shown.extend(objects)

    def load_released(repo_id: str, wanted: bool = False) -> DETR:
        assert repo_id == "facebook/detr-resnet-50" and wanted is False, "a reader decides to download"
        return released

    monkeypatch.setattr(minivis, "load_released", load_released)
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("minivis.widgets.pictures.display", display)
    monkeypatch.setattr(builtins, "display", display, raising=False)  # as in a notebook
    for number in chosen:
        shown.clear()
        names: dict[str, Any] = {}
        exec(cells[0], names)
        needed = ast.Module(what_it_uses(cells, number), type_ignores=[])
        exec(compile(needed, path.stem, "exec"), names)
        exec(compile(cells[number], path.stem, "exec"), names)
        assert names["released"] is released and shown, "nothing is displayed"
        for each in shown:
            data = each if isinstance(each, dict) else each._repr_mimebundle_()[0]
            assert data["image/png"] and data["text/plain"]
