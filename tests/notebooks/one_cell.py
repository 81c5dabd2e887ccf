"""One cell of a notebook run by itself, with the functions of the cells before it that it uses.

What else it uses it must import. So a reader who comes back to such a cell need not run the whole notebook.
"""

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_notebooks
import pytest
from torch import nn

import minivis
from minivis.data.items import Categories
from minivis.images import ImageTransform
from minivis.pretrained.checkpoint import with_use


def code_cells(path: Path) -> list[str]:
    return [cell.source for cell in make_notebooks.read(path).cells if cell.cell_type == "code"]


def run_cell(cells: list[str], number: int, changed: str | None = None) -> dict[str, Any]:
    """Runs the setup cell, what the cell uses, and the cell, or `changed` in its place. Returns all names."""
    names: dict[str, Any] = {}
    needed = ast.Module(what_it_uses(cells, number), type_ignores=[])
    for code in (cells[0], needed, cells[number] if changed is None else changed):
        exec(compile(code, f"cell {number}", "exec"), names)
    return names


def random_released(model: nn.Module, categories: Categories) -> nn.Module:
    """Fresh weights in place of released ones, for small pictures."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):  # under a frozen norm of ones the features of fresh weights grow
            buffer.fill_(2.0)
    return with_use(model, categories, ImageTransform(shortest_edge=96, longest_edge=160))


def run_released(
    monkeypatch: pytest.MonkeyPatch, path: Path, repo_id: str, model: nn.Module
) -> Iterator[dict[str, Any]]:
    """Runs each cell of a notebook that loads a released model, with this one in its place. Gives the cells' names."""
    cells = code_cells(path)
    chosen = [number for number, source in enumerate(cells) if "load_released(" in source]
    assert chosen, f"{path.stem} has no cell with minivis.load_released"
    shown: list[Any] = []

    def display(*objects: Any, **options: Any) -> None:
        shown.extend(objects)

    def load_released(asked: str, wanted: bool = False) -> nn.Module:
        assert asked == repo_id and wanted is False, "a reader decides to download"
        return model

    monkeypatch.setattr(minivis, "load_released", load_released)
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("minivis.widgets.pictures.display", display)
    monkeypatch.setattr(builtins, "display", display, raising=False)  # as in a notebook
    for number in chosen:
        shown.clear()
        names = run_cell(cells, number)
        assert names["released"] is model and shown, "nothing is displayed"
        for each in shown:
            data = each if isinstance(each, dict) else each._repr_mimebundle_()[0]
            assert data["image/png"] and data["text/plain"]
        yield names


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
