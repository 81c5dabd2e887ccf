"""Every exercise of every notebook: its stub is not attempted, its solution is right, its mistakes get help."""

import contextlib
import importlib
import io
import runpy

import course
import make_notebooks
import pytest

ROOT = make_notebooks.ROOT
GIVEN = {
    (path.stem, exercise.name): exercise
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    for exercise in course.exercises(make_notebooks.read(path))
}


@pytest.fixture(scope="module")
def solutions():
    """The functions in each file of solutions, which is run once and prints only that all is right."""
    files = {}
    for notebook in sorted({notebook for notebook, _ in GIVEN}):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            files[notebook] = runpy.run_path(str(ROOT / "solutions" / f"{notebook}.py"))
        assert ": wrong" not in printed.getvalue() and ": not attempted" not in printed.getvalue()
    return files


@pytest.mark.parametrize("key", GIVEN, ids=lambda key: f"{key[0]}-{key[1]}")
def test_stub_solution_and_mistakes(key, solutions):
    notebook, name = key
    exercise = GIVEN[key]
    check = getattr(importlib.import_module(exercise.module), exercise.check)
    assert check.name == name

    names = {}
    exec(exercise.stub, names)
    assert check.verdict(names[name]).status == "not attempted"
    assert check.verdict(solutions[notebook][name]).right
    assert len(set(check.mistakes.values())) >= 3
    for mistake, message in check.mistakes.items():
        assert check.verdict(mistake)[:2] == ("wrong", message)
