"""The checks on the encoder: against the solutions, and against wrong answers as students write them."""

import pytest
import torch
import torch.nn.functional as F

from minivis.checks import encoder
from minivis.checks.base import Check


def masked(scores, padding):
    weights = torch.softmax(scores, dim=1)
    weights[:, padding] = 0
    return weights


def masked_and_divided(scores, padding):
    """The long way round, which is right as well."""
    weights = masked(scores, padding)
    return weights / weights.sum(1, keepdim=True)


def hidden(scores, padding):
    scores = scores.clone()
    scores[:, ~padding] = float("-inf")
    return F.softmax(scores, dim=-1)


def small_scores(scores, padding):
    scores = scores.clone()
    scores[:, padding] = 0
    return F.softmax(scores, dim=-1)


def layer(values_too=False, keys=True, queries=True, afterwards=False, scale=None):
    def self_attention(x, pos, w_q, w_k, w_v):
        if afterwards:
            q, k = F.linear(x, w_q) + pos, F.linear(x, w_k) + pos
        else:
            q = F.linear(x + pos if queries else x, w_q)
            k = F.linear(x + pos if keys else x, w_k)
        v = F.linear(x + pos if values_too else x, w_v)
        return F.scaled_dot_product_attention(q[None], k[None], v[None], scale=scale)[0]

    return self_attention


def rectangle(swap=False, forget_extra=False, clip=True, as_sides=False):
    def pixels_of_token(token, columns, stride, size, extra):
        cell = token if forget_extra else token - extra
        row, column = cell // columns, cell % columns
        if swap:
            row, column = column, row
        left, top = column * stride, row * stride
        right, bottom = left + stride, top + stride
        if clip:
            right, bottom = min(right, size[1]), min(bottom, size[0])
        return [left, top, right - left, bottom - top] if as_sides else [left, top, right, bottom]

    return pixels_of_token


def loop_over_cells(near):
    def neighbours(rows, columns, reach):
        allowed = torch.zeros(rows * columns, rows * columns, dtype=torch.bool)
        for i in range(rows * columns):
            for j in range(rows * columns):
                allowed[i, j] = near(i, j, columns, reach)
        return allowed

    return neighbours


def in_both(i, j, columns, reach):
    return abs(i // columns - j // columns) <= reach and abs(i % columns - j % columns) <= reach


def in_either(i, j, columns, reach):
    return abs(i // columns - j // columns) <= reach or abs(i % columns - j % columns) <= reach


def in_steps(i, j, columns, reach):
    return abs(i // columns - j // columns) + abs(i % columns - j % columns) <= reach


def arriving(project=True, order=2, own=False):
    def what_arrives(weights, values, out):
        arrives = torch.zeros_like(weights)
        for i in range(len(weights)):
            for j in range(len(weights)):
                value = values[i if own else j]
                vector = weights[i, j] * (out @ value if project else value)
                arrives[i, j] = torch.linalg.vector_norm(vector, ord=order)
        return arrives

    return what_arrives


@pytest.mark.parametrize(
    ("check", "answer", "help_"),
    [
        (encoder.check_weights_with_padding, masked, "no longer sums to 1"),
        (encoder.check_weights_with_padding, hidden, "hide the picture"),
        (encoder.check_weights_with_padding, small_scores, "e⁰ is 1"),
        (encoder.check_weights_with_padding, lambda scores, padding: F.softmax(scores, 1), "no part"),
        (encoder.check_weights_with_padding, lambda s, p: F.softmax(s + p * float("-inf"), 1), "no number"),
        (encoder.check_weights_with_padding, lambda s, p: torch.where(p, -torch.inf, s), "still scores"),
        (encoder.check_weights_with_padding, lambda s, p: F.softmax(s[:, ~p], 1), "keep their columns"),
        (encoder.check_self_attention, layer(scale=1.0), "do not divide the scores"),
        (encoder.check_self_attention, layer(values_too=True), "Your values carry positions"),
        (encoder.check_self_attention, layer(keys=False), "Only your queries"),
        (encoder.check_self_attention, layer(queries=False), "Only your keys"),
        (encoder.check_self_attention, layer(keys=False, queries=False), "no part"),
        (encoder.check_self_attention, layer(afterwards=True), "project first"),
        (encoder.check_self_attention, lambda x, *rest: x + layer()(x, *rest), "add x"),
        (encoder.check_self_attention, lambda x, p, q, k, v: layer()(x, p, q, q, v), "for the keys too"),
        (encoder.check_self_attention, lambda x, *rest: layer(scale=1 / x.shape[1])(x, *rest), "its root"),
        (
            encoder.check_self_attention,
            lambda x, *rest: layer(scale=1 / len(x) ** 0.5)(x, *rest),
            "root of n",
        ),
        (
            encoder.check_pixels_of_token,
            lambda *p: [v - (i > 1) for i, v in enumerate(rectangle()(*p))],
            "outside",
        ),
        (encoder.check_pixels_of_token, lambda *p: [rectangle()(*p)[i] for i in (1, 0, 3, 2)], "order"),
        (encoder.check_pixels_of_token, rectangle(swap=True), "changed places"),
        (encoder.check_pixels_of_token, rectangle(forget_extra=True), "has no place in the grid"),
        (encoder.check_pixels_of_token, rectangle(clip=False), "reach beyond the picture"),
        (encoder.check_pixels_of_token, rectangle(as_sides=True), "width and height"),
        (
            encoder.check_neighbours,
            loop_over_cells(lambda i, j, c, reach: abs(i - j) <= reach),
            "opposite ends",
        ),
        (encoder.check_neighbours, loop_over_cells(in_either), "near in both"),
        (encoder.check_neighbours, loop_over_cells(in_steps), "corners of the square"),
        (
            encoder.check_neighbours,
            loop_over_cells(lambda i, j, c, reach: i // c - j // c <= reach and i % c - j % c <= reach),
            "abs()",
        ),
        (encoder.check_neighbours, loop_over_cells(lambda *p: not in_both(*p)), "may not look"),
        (encoder.check_what_arrives, lambda weights, values, out: weights, "These are the weights"),
        (encoder.check_what_arrives, arriving(project=False), "through the last matrix"),
        (encoder.check_what_arrives, arriving(order=1), "absolute numbers"),
        (encoder.check_what_arrives, arriving(own=True), "belongs to the column"),
        (encoder.check_what_arrives, lambda w, v, o: w * torch.norm(v @ o.T), "without `dim`"),
        (encoder.check_what_arrives, lambda w, v, o: torch.norm(v @ o.T, dim=1).repeat(len(w), 1), "no part"),
        (
            encoder.check_what_arrives,
            lambda w, v, o: w.T * torch.norm(v @ o.T, dim=1),
            "weights are transposed",
        ),
        (encoder.check_what_arrives, lambda w, v, o: w * torch.norm(v @ o, dim=1), "as in `nn.Linear`"),
        (
            encoder.check_what_arrives,
            lambda w, v, o: torch.einsum("ij,jc,dc->ijd", w, v, o),
            "length of each",
        ),
        (
            encoder.check_neighbours,
            lambda r, c, reach: loop_over_cells(in_both)(c, r, reach),
            "token 3 is the first",
        ),
        (
            encoder.check_what_arrives,
            lambda weights, values, out: torch.linalg.norm(weights @ (values @ out.T), dim=1),
            "Before the sum",
        ),
    ],
)
def test_a_typical_wrong_answer_gets_the_message_that_helps(check: Check, answer, help_: str):
    verdict = check.verdict(answer)
    assert verdict.status == "wrong" and help_ in verdict.message, verdict
    assert "expected" in verdict.case  # and a case that shows it


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (encoder.check_weights_with_padding, masked_and_divided),
        (encoder.check_self_attention, layer()),
        (encoder.check_pixels_of_token, rectangle()),
        (encoder.check_neighbours, loop_over_cells(in_both)),
        (encoder.check_what_arrives, arriving()),
    ],
)
def test_other_ways_are_right_as_well(check: Check, answer):
    assert check.verdict(answer).right


def test_a_mask_of_floats_is_told_that_a_mask_is_bool():
    verdict = encoder.check_neighbours.verdict(lambda *p: loop_over_cells(in_both)(*p).float())
    assert verdict.status == "wrong" and "torch.float32; a mask is bool" in verdict.message


def test_a_wrong_mask_of_neighbours_is_shown_number_by_number():
    for answer in (in_either, in_steps, lambda *p: not in_both(*p)):
        case = encoder.check_neighbours.verdict(loop_over_cells(answer)).case
        assert "numbers of shape" not in case
        assert "expected = [[" in case
