"""Every exercise of every notebook: its stub is there to be filled in, and it has a check of its own.

What a check says of solutions and mistakes is held in tests/checks/test_each_check.py.
"""

import importlib

import course
import make_notebooks
import pytest

EXERCISES = [
    pytest.param(exercise, id=f"{path.stem}-{exercise.name}")
    for path in sorted((make_notebooks.ROOT / "notebooks").glob("*.ipynb"))
    for exercise in course.exercises(make_notebooks.read(path))
]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_stub_is_not_attempted_and_its_check_knows_three_mistakes(exercise: course.Exercise):
    check = getattr(importlib.import_module(exercise.module), exercise.check)
    assert check.name == exercise.name
    names = {}
    exec(exercise.stub, names)
    assert check.verdict(names[exercise.name]).status == "not attempted"
    assert len(set(check.mistakes.values())) >= 3
