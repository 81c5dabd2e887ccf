"""The machinery of checks, on an exercise of one line: what a student reads in each situation."""

import numpy as np
import pytest
import torch

from minivis.checks.base import Check


def mean(numbers, weights):
    return (numbers * weights).sum() / weights.sum()


check_mean = Check(
    "mean",
    solution=mean,
    cases=[
        {"numbers": torch.tensor([1.0, 4.0]), "weights": torch.tensor([1.0, 2.0])},
        {"numbers": torch.arange(20.0), "weights": torch.arange(20.0)},
    ],
    mistakes={
        lambda numbers, weights: numbers.mean(): "Your numbers all count alike.",
        lambda numbers, weights: (numbers * weights).mean(): "Divide by the sum of the weights.",
    },
    why="Weights say what matters.",
)


def said(capsys, answer, check=check_mean) -> str:
    assert check(answer) is None  # so that a cell shows what is printed, and no value below it
    return capsys.readouterr().out


def stub(numbers, weights):
    """The weighted mean."""
    raise NotImplementedError


def test_a_stub_left_alone_is_not_attempted(capsys):
    assert said(capsys, stub) == "mean: not attempted\n"
    assert said(capsys, lambda numbers, weights: ...) == "mean: not attempted\n"
    assert check_mean.verdict(stub).status == "not attempted" and not check_mean.verdict(stub).right


def test_what_is_right_is_told_what_it_is_good_for(capsys):
    assert said(capsys, mean) == "mean: right. Weights say what matters.\n"
    assert check_mean.verdict(mean).right


def test_another_way_to_the_same_numbers_is_right_as_well():
    assert check_mean.verdict(lambda n, w: float(np.average(n.numpy(), weights=w.numpy()))).right
    assert check_mean.verdict(lambda n, w: mean(n.double(), w.double().requires_grad_())).right
    assert check_mean.verdict(lambda n, w: mean(n, w) + 1e-6).right


def test_a_known_mistake_is_recognised_by_what_it_computes(capsys):
    def with_a_loop(numbers, weights):
        total = 0
        for number in numbers.tolist():
            total += number
        return total / len(numbers)

    assert said(capsys, with_a_loop) == (
        "mean: wrong. Your numbers all count alike.\n"
        "  numbers  = [1, 4]\n"
        "  weights  = [1, 2]\n"
        "  yours    = 2.5\n"
        "  expected = 3\n"
    )


def test_an_unknown_mistake_is_shown_on_the_simplest_input_that_shows_it(capsys):
    text = said(capsys, lambda numbers, weights: numbers[:1])
    assert text.startswith("mean: wrong. Work this case out by hand, and compare.\n  numbers  = [1, 4]\n")
    assert "\n  yours    = [1]\n" in text

    text = said(capsys, lambda numbers, weights: torch.tensor(3.0))  # right for the first case alone
    assert "\n  numbers  = numbers of shape (20,)\n" in text


def test_an_error_is_shown_with_its_line_and_its_input(capsys):
    def stops(numbers, weights):
        return numbers @ weights[:1]

    text = said(capsys, stops)
    assert text.startswith("mean: wrong. It stops with RuntimeError: ")
    assert "\n  in your line: return numbers @ weights[:1]\n  numbers = [1, 4]\n  weights = [1, 2]\n" in text


def test_an_operation_that_torch_does_not_have_is_an_error_and_no_stub():
    def not_implemented_in_torch(numbers, weights):
        raise NotImplementedError("\"mean_cpu\" not implemented for 'Bool'")

    assert check_mean.verdict(not_implemented_in_torch).status == "wrong"


@pytest.mark.parametrize(
    ("answer", "help_"),
    [
        (lambda numbers, weights: None, "is there a `return`"),
        (lambda numbers: numbers, "It stops with TypeError"),
        (lambda numbers, weights: "3", "Work this case out"),
        (lambda numbers, weights: torch.tensor(torch.nan), "Work this case out"),
        (
            lambda numbers, weights: mean(numbers, weights)[None],
            "you give numbers of shape (1,), expected is one",
        ),
        (lambda numbers, weights: mean(numbers, weights.div_(2)), "changes its input `weights`"),
        (torch.tensor(3.0), "without brackets"),
    ],
)
def test_what_else_is_wrong(answer, help_: str):
    verdict = check_mean.verdict(answer)
    assert verdict.status == "wrong" and help_ in verdict.message


def test_a_function_that_changes_its_input_gets_the_same_input_as_all_others():
    before = check_mean.cases[0]["weights"].clone()
    check_mean.verdict(lambda numbers, weights: weights.zero_())
    assert torch.equal(check_mean.cases[0]["weights"], before)


def test_matrices_pairs_and_lists(capsys):
    check = Check(
        "split",
        solution=lambda table: (table[0], table[1:]),
        cases=[{"table": torch.tensor([[1.5, 2.0], [3.0, 1 / 3], [5.0, 6.0]])}],
        mistakes={},
        why="It is a pair.",
    )
    assert check.verdict(lambda table: [table[0].tolist(), table[1:].tolist()]).right
    assert not check.verdict(lambda table: (table[0],)).right
    assert not check.verdict(lambda table: table).right
    assert said(capsys, lambda table: (table[1:], table[0]), check) == (
        "split: wrong. Work this case out by hand, and compare.\n"
        "  table    = [[1.5, 2],\n"
        "              [3, 0.3333],\n"
        "              [5, 6]]\n"
        "  yours    = ([[3, 0.3333],\n"
        "              [5, 6]], [1.5, 2])\n"
        "  expected = ([1.5, 2], [[3, 0.3333],\n"
        "              [5, 6]])\n"
    )


def test_long_messages_are_broken_into_lines(capsys):
    check = Check("f", lambda x: x, [{"x": 1}], {}, why="word " * 60)
    text = said(capsys, lambda x: x, check)
    assert max(map(len, text.splitlines())) <= 100 and text.count("word") == 60


def test_right_numbers_in_a_wrong_form_are_told_so():
    half = Check(
        "half", solution=lambda x: x.sum() / 2, cases=[{"x": torch.ones(4)}], mistakes={}, why="Half."
    )
    verdict = half.verdict(lambda x: x.sum()[None] / 2)
    assert verdict.message == (
        "The numbers are right, but not their form: you give numbers of shape (1,), expected is one number."
    )
    pair = Check("pair", solution=lambda x: (x, x + 1), cases=[{"x": torch.ones(4)}], mistakes={}, why="Two.")
    assert "expected is 2 values" in pair.verdict(lambda x: torch.stack([x, x + 1])).message
    assert "form" not in pair.verdict(lambda x: torch.stack([x, x])).message
