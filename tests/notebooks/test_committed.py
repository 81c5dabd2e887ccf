"""Every committed notebook: paired with its source, executed, clean, small, and in the course's form."""

import re
import tomllib
from pathlib import Path

import course
import make_notebooks
import pytest

from minivis.experiments import CLAIMS, Printed

ROOT = make_notebooks.ROOT
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


LESSONS = [path for path in NOTEBOOKS if path.stem != make_notebooks.WELCOME]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def test_each_notebook_has_its_source_and_its_name():
    assert [path.stem for path in NOTEBOOKS] == [path.stem for path in SOURCES]
    for path in NOTEBOOKS:
        # numbered, so that notebooks/clip.py cannot stand in front of `import clip`
        assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem), f"{path.name} is not named like 03_matching.ipynb"
    numbers = [path.stem[:2] for path in NOTEBOOKS]
    assert len(numbers) == len(set(numbers)), f"two notebooks share a number: {numbers}"


def test_each_solution_belongs_to_a_notebook():
    solutions = {path.stem for path in (ROOT / "solutions").glob("*") if path.suffix in {".py", ".ipynb"}}
    assert solutions <= {path.stem for path in NOTEBOOKS}
    assert not list((ROOT / "solutions").glob("*.ipynb")), "a solution is a .py"


@each_notebook
def test_paired(path: Path):
    """Compared as text: in a fresh clone file times say nothing of which file is newer."""
    source = path.with_suffix(".py")
    paired = make_notebooks.as_script(make_notebooks.read(path))
    assert paired == source.read_text(), f"run: make notebooks NOTEBOOK={path.stem}"


@each_notebook
def test_executed_and_clean(path: Path):
    assert make_notebooks.complaints(make_notebooks.read(path)) == []


@each_notebook
def test_small(path: Path):
    assert path.stat().st_size <= make_notebooks.LARGEST_NOTEBOOK


@each_notebook
def test_says_what_it_takes(path: Path):
    """The header names its time, what comes before it, and what one can do after it."""
    header = make_notebooks.read(path).cells[0]
    assert header.cell_type == "markdown" and header.source.startswith("# "), "the first cell is the title"
    assert course.stated_seconds(make_notebooks.read(path)) is not None, (
        "the header says: the cells run in about N minutes on two CPU cores"
    )


def test_the_course_runs_in_a_quarter_of_an_hour():
    seconds = [course.stated_seconds(make_notebooks.read(path)) for path in NOTEBOOKS]
    assert max(seconds) <= make_notebooks.LONGEST_RUN and sum(seconds) <= 15 * 60


def test_the_notebooks_on_detr_run_in_eight_minutes():
    detr = [path for path in NOTEBOOKS if path.stem[:2] <= "05"]
    assert sum(course.stated_seconds(make_notebooks.read(path)) for path in detr) <= 8 * 60


@each_lesson
def test_has_the_form_of_the_course(path: Path):
    assert course.complaints(make_notebooks.read(path), path.stem) == []


def setup_cell(path: Path) -> str:
    return next(cell.source for cell in make_notebooks.read(path).cells if cell.cell_type == "code")


@each_notebook
def test_setup_is_the_same_everywhere(path: Path):
    setup = setup_cell(path)
    assert setup == setup_cell(NOTEBOOKS[0])
    assert ADDRESS in setup, "on Colab minivis is installed from the address in pyproject.toml"
    install = next(line for line in setup.splitlines() if ADDRESS in line)
    assert not re.search(r"\b(torch|torchvision|numpy)\b|==|--upgrade|-U\b", install), install


@each_notebook
def test_names_the_repository_alike(path: Path):
    text = path.with_suffix(".py").read_text()
    owner_and_name = ADDRESS.removeprefix("https://github.com/")
    others = set(re.findall(r"github(?:\.com)?/([\w.-]+/minivis)\b", text)) - {owner_and_name}
    assert not others, f"pyproject.toml names {owner_and_name}"


PRINTED = {id: claim for id, claim in CLAIMS.items() if isinstance(claim.evidence, Printed)}


@pytest.mark.parametrize("id", PRINTED)
def test_a_claim_quotes_what_its_notebook_prints(id: str):
    """So a number in the ledger is one that was measured, and `pytest --nbval` measures it again."""
    [path] = [path for path in NOTEBOOKS if path.stem.startswith(PRINTED[id].notebook)]
    cells = [cell for cell in make_notebooks.read(path).cells if cell.cell_type == "code"]
    compared = [cell for cell in cells if "nbval-ignore-output" not in cell.metadata.get("tags", [])]
    outputs = [output.get("text", "") for cell in compared for output in cell.outputs]
    said = " ".join(" ".join(outputs).split())
    for line in PRINTED[id].evidence.lines:
        assert line in said, f"{path.stem} does not print {line!r}, or nbval does not compare it"


def test_each_claim_is_shown_by_its_notebook():
    for path in LESSONS:
        own = {id for id, claim in CLAIMS.items() if path.stem.startswith(claim.notebook)}
        calls = re.findall(r"show_claims\(([^)]*)\)", path.with_suffix(".py").read_text())
        shown = set(re.findall(r'"([A-Z]\d+)"', " ".join(calls)))
        assert own <= shown, f"{path.stem} does not show {sorted(own - shown)} at its end"
