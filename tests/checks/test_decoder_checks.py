"""The checks on DETR's decoder: against the solutions, and against wrong answers written as students write them."""

import math

import pytest
import torch

from minivis.checks import decoder
from minivis.checks.base import Check


def test_the_first_words_are_those_of_an_attention():
    """Of PyTorch's own, with any queries and keys."""
    torch.manual_seed(0)
    block = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    block.in_proj_bias.data.normal_()
    shift, asked = torch.randn(8), torch.randn(1, 5, 8)
    heard, _ = block(asked, asked, shift.expand(1, 5, -1))
    w_v, b_v = block.in_proj_weight[16:], block.in_proj_bias[16:]
    ours = decoder.check_first_words.solution(shift, w_v, b_v, block.out_proj.weight, block.out_proj.bias, 5)
    assert torch.allclose(heard[0], ours, atol=1e-5)


def computed_with_an_attention(shift, w_v, b_v, w_o, b_o, num_queries):
    """Right, and long: values of all queries, weights by chance, a loop."""
    values = torch.stack([w_v.matmul(shift) + b_v] * num_queries)
    weights = torch.rand(num_queries, num_queries).softmax(-1)
    return torch.stack([w_o.matmul(row @ values) + b_o for row in weights])


def read_query_by_query(content, query, memory, positions):
    out = []
    for x, q in zip(content, query):
        scores = [float((x + q) @ (m + p)) / math.sqrt(len(q)) for m, p in zip(memory, positions)]
        weights = torch.tensor(scores).softmax(0)
        out.append(sum(w * m for w, m in zip(weights, memory)))
    return torch.stack(out)


def share_cell_by_cell(attention, box, middle=0.5):
    total, (cx, cy, w, h) = 0.0, box.tolist()
    for i in range(attention.shape[0]):
        for j in range(attention.shape[1]):
            x, y = (j + middle) / attention.shape[1], (i + middle) / attention.shape[0]
            if cx - w / 2 <= x <= cx + w / 2 and cy - h / 2 <= y <= cy + h / 2:
                total += attention[i, j].item()
    return total / attention.sum().item()


def refine_with(below, at_once=True, count_idle=False):
    def refine(values, guess):
        answers, steps = guess.tolist(), 0
        while True:
            new = list(answers)
            for k in range(len(new)):
                limit = math.inf if k == 0 else (answers if at_once else new)[k - 1]
                new[k] = max((v for v in values.tolist() if below(v, limit)), default=-math.inf)
            if new == answers:
                return torch.tensor(new), steps + count_idle
            answers, steps = new, steps + 1

    return refine


def smaller(value, limit):
    return value < limit


def read_as(q=None, v=None, k=None):
    def read(content, query, memory, positions):
        asked = content + query if q is None else q(content, query)
        keys = memory + positions if k is None else k(memory, positions)
        return (asked @ keys.mT / math.sqrt(asked.shape[1])).softmax(1) @ (
            memory if v is None else v(memory, positions)
        )

    return read


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (decoder.check_first_words, computed_with_an_attention),
        (decoder.check_read, read_query_by_query),
        (decoder.check_share_inside, share_cell_by_cell),
        (decoder.check_refine, refine_with(smaller)),
    ],
)
def test_other_ways_are_right_as_well(check: Check, answer):
    assert check.verdict(answer).right, check.verdict(answer)


@pytest.mark.parametrize(
    ("check", "answer", "help_"),
    [
        (
            decoder.check_first_words,
            lambda shift, w_v, b_v, w_o, b_o, n: (shift @ w_v @ w_o + b_v @ w_o + b_o).repeat(n, 1),
            "Your matrices are transposed",
        ),
        (
            decoder.check_first_words,
            lambda shift, w_v, b_v, w_o, b_o, n: (w_o @ b_v + b_o).repeat(n, 1),
            "a layer norm of zeros is its shift",
        ),
        (
            decoder.check_first_words,
            lambda shift, w_v, b_v, w_o, b_o, n: w_o @ (w_v @ shift + b_v) + b_o,
            "one row for each query",
        ),
        (decoder.check_read, read_as(v=lambda m, p: m + p), "Your values hold positions"),
        (decoder.check_read, read_as(k=lambda m, p: m), "Your keys lack the positions"),
        (decoder.check_read, read_as(q=lambda x, e: x), "all queries would read the same"),
        (decoder.check_read, read_as(q=lambda x, e: 2 * e), "not to itself"),
        (decoder.check_share_inside, lambda a, b: share_cell_by_cell(a, b, 0.0), "left upper corner"),
        (decoder.check_share_inside, lambda a, b: share_cell_by_cell(a.mT, b), "x and y are swapped"),
        (decoder.check_refine, refine_with(smaller, at_once=False), "one after another"),
        (decoder.check_refine, refine_with(smaller, count_idle=True), "which changed nothing"),
    ],
)
def test_a_typical_wrong_answer_gets_the_message_that_helps(check: Check, answer, help_: str):
    verdict = check.verdict(answer)
    assert verdict.status == "wrong" and help_ in verdict.message, verdict
    assert "expected" in verdict.case


def test_a_loop_that_never_ends_is_stopped():
    """−∞ − (−∞) is nan, so this one never sees that nothing changed."""

    def endless(values, guess):
        answers, steps = guess.clone(), 0
        while True:
            limits = torch.cat([torch.tensor([torch.inf]), answers[:-1]])
            new = torch.where(values < limits[:, None], values, -torch.inf).amax(1)
            if (new - answers).abs().sum() == 0:
                return answers, steps
            answers, steps = new, steps + 1

    verdict = decoder.check_refine.verdict(endless)
    assert verdict.status == "wrong" and "torch.equal(new, old)" in verdict.message
    assert "in your line" in verdict.case
    assert decoder.check_refine.verdict("refine").message.startswith("Give the check your function itself")


def rolled(values, guess):
    answers = guess
    for steps in range(9):
        new = torch.where(values < answers.roll(1)[:, None], values, -torch.inf).amax(1)
        if torch.equal(new, answers):
            return answers, steps
        answers = new


def changed_in_place(values, guess):
    """Old and new are one tensor, so the first comparison finds them equal."""
    answers = guess.clone()
    for steps in range(len(guess) + 1):
        old = answers
        limits = torch.cat([torch.tensor([torch.inf]), old[:-1]])
        answers[:] = torch.where(values < limits[:, None], values, -torch.inf).amax(1)
        if torch.equal(answers, old):
            return answers, steps


def changed_in_place_one_by_one(values, guess):
    for steps in range(len(guess) + 1):
        new = guess
        for k in range(len(guess)):
            smaller = values if k == 0 else values[values < guess[k - 1]]
            new[k] = smaller.max() if len(smaller) else -torch.inf
        if torch.equal(new, guess):
            return new, steps


@pytest.mark.parametrize(
    ("check", "answer", "help_"),
    [
        (
            decoder.check_first_words,
            lambda shift, w_v, b_v, w_o, b_o, n: (w_o @ (shift @ w_v + b_v) + b_o).repeat(n, 1),
            "You transpose W_v",
        ),
        (
            decoder.check_first_words,
            lambda shift, w_v, b_v, w_o, b_o, n: (w_v @ shift + b_v).repeat(n, 1),
            "You stop at the values",
        ),
        (
            decoder.check_read,
            lambda x, e, m, p: x + read_query_by_query(x, e, m, p),
            "You add what was gathered",
        ),
        (decoder.check_read, read_as(k=lambda m, p: p), "positions alone"),
        (decoder.check_share_inside, lambda a, b: share_cell_by_cell(a, b, 1.0), "right lower corner"),
        (decoder.check_share_inside, lambda a, b: 100 * share_cell_by_cell(a, b), "percent"),
        (decoder.check_refine, rolled, "before place 0 stands ∞"),
        (decoder.check_refine, changed_in_place, "compares a tensor with itself"),
        (decoder.check_refine, changed_in_place_one_by_one, "you change the guess in place"),
        (decoder.check_refine, lambda v, g: refine_with(smaller)(v, g)[0], "number of steps as well"),
        (
            decoder.check_refine,
            lambda v, g: refine_with(smaller)(v, g * 0 - torch.inf),
            "Start from the guess",
        ),
    ],
)
def test_more_wrong_answers_get_the_message_that_helps(check: Check, answer, help_: str):
    verdict = check.verdict(answer)
    assert verdict.status == "wrong" and help_ in verdict.message, verdict
