"""Every check of every topic: against the solutions, and against the mistakes that it knows."""

import pytest
from solved_exercises import SOLUTIONS, solved

from minivis.checks import backbone, decoder, detr_training, encoder, matching, panoptic
from minivis.checks.base import Check

TOPICS = {
    backbone: "01_detr_backbone",
    encoder: "02_detr_encoder",
    decoder: "03_detr_decoder",
    matching: "04_detr_hungarian_loss",
    detr_training: "05_detr_training",
    panoptic: "06_detr_panoptic",
}
CHECKS = [
    pytest.param(check, solutions, id=f"{solutions}-{check.name}")
    for topic, solutions in TOPICS.items()
    for check in vars(topic).values()
    if isinstance(check, Check)
]


def test_no_file_of_solutions_is_left_out():
    assert set(TOPICS.values()) == {path.stem for path in SOLUTIONS.glob("*.py")}


@pytest.mark.parametrize(("check", "solutions"), CHECKS)
def test_solutions_are_right(check: Check, solutions: str):
    names, printed = solved(solutions)
    assert check.verdict(names[check.name]).right
    assert f"{check.name}: right" in printed


@pytest.mark.parametrize(("check", "solutions"), CHECKS)
def test_its_own_solution_is_right_and_its_mistakes_are_told_apart(check: Check, solutions: str):
    assert check.verdict(check.solution).right
    for mistake, message in check.mistakes.items():
        assert check.verdict(mistake)[:2] == ("wrong", message)
