"""The checks on attention and the encoder: against the solutions, and against wrong answers as students write them."""

import contextlib
import io
import math
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from minivis.checks import encoder
from minivis.checks.base import Check

SOLUTIONS = Path(__file__).parents[2] / "solutions/02_detr_encoder.py"
CHECKS = [check for check in vars(encoder).values() if isinstance(check, Check)]

each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)


@pytest.fixture(scope="module")
def solved():
    """The functions of the solutions' file, and what it prints when it is run."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        names = runpy.run_path(str(SOLUTIONS))
    return names, printed.getvalue()


@each_check
def test_solutions_are_right(check: Check, solved):
    names, printed = solved
    assert check.verdict(names[check.name]).right
    assert f"{check.name}: right" in printed


@each_check
def test_its_own_solution_is_right_and_its_mistakes_are_told_apart(check: Check):
    assert check.verdict(check.solution).right
    for mistake, message in check.mistakes.items():
        assert check.verdict(mistake)[:2] == ("wrong", message)


def attention_loop(scale=lambda d, n: 1 / math.sqrt(d), columns=False, softmax=True):
    """As a loop over queries and keys."""

    def attention(q, k, v):
        scores = torch.empty(len(q), len(k))
        for i in range(len(q)):
            for j in range(len(k)):
                scores[i, j] = sum(q[i, c] * k[j, c] for c in range(q.shape[1])) * scale(q.shape[1], len(k))
        weights = torch.exp(scores) if softmax else scores
        if softmax:
            weights = weights / weights.sum(0 if columns else 1, keepdim=True)
        return torch.einsum("ij,jc->ic", weights, v)

    return attention


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


def layer(values_too=False, keys=True, queries=True, afterwards=False):
    def self_attention(x, pos, w_q, w_k, w_v):
        if afterwards:
            q, k = F.linear(x, w_q) + pos, F.linear(x, w_k) + pos
        else:
            q = F.linear(x + pos if queries else x, w_q)
            k = F.linear(x + pos if keys else x, w_k)
        v = F.linear(x + pos if values_too else x, w_v)
        return F.scaled_dot_product_attention(q[None], k[None], v[None])[0]

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


@pytest.mark.parametrize(
    ("check", "answer", "help_"),
    [
        (encoder.check_attention, attention_loop(lambda d, n: 1), "do not divide the scores"),
        (encoder.check_attention, attention_loop(lambda d, n: 1 / d), "You divide by d;"),
        (encoder.check_attention, attention_loop(lambda d, n: d**0.5), "multiply by √d"),
        (encoder.check_attention, attention_loop(lambda d, n: n**-0.5), "number of keys"),
        (encoder.check_attention, attention_loop(columns=True), "runs over the queries"),
        (encoder.check_attention, attention_loop(softmax=False), "raw scores"),
        (encoder.check_weights_with_padding, masked, "no longer sums to 1"),
        (encoder.check_weights_with_padding, hidden, "hide the picture"),
        (encoder.check_weights_with_padding, small_scores, "e⁰ is 1"),
        (encoder.check_weights_with_padding, lambda scores, padding: F.softmax(scores, 1), "no part"),
        (
            encoder.check_split_heads,
            lambda x, heads: x.view(heads, x.shape[0], x.shape[1] // heads),
            "reads on row by row",
        ),
        (
            encoder.check_split_heads,
            lambda x, heads: rearrange(x, "n (h c) -> n h c", h=heads),
            "heads come first",
        ),
        (
            encoder.check_split_heads,
            lambda x, heads: rearrange(x, "n (c h) -> h n c", h=heads),
            "neighbouring channels",
        ),
        (encoder.check_self_attention, layer(values_too=True), "Your values carry positions"),
        (encoder.check_self_attention, layer(keys=False), "Only your queries"),
        (encoder.check_self_attention, layer(queries=False), "Only your keys"),
        (encoder.check_self_attention, layer(keys=False, queries=False), "no part"),
        (encoder.check_self_attention, layer(afterwards=True), "project first"),
        (encoder.check_pixels_of_token, rectangle(swap=True), "changed places"),
        (encoder.check_pixels_of_token, rectangle(forget_extra=True), "has no place in the grid"),
        (encoder.check_pixels_of_token, rectangle(clip=False), "reach beyond the picture"),
        (encoder.check_pixels_of_token, rectangle(as_sides=True), "width and height"),
    ],
)
def test_a_typical_wrong_answer_gets_the_message_that_helps(check: Check, answer, help_: str):
    verdict = check.verdict(answer)
    assert verdict.status == "wrong" and help_ in verdict.message, verdict
    assert "expected" in verdict.case  # and a case that shows it


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (encoder.check_attention, attention_loop()),
        (encoder.check_weights_with_padding, masked_and_divided),
        (encoder.check_split_heads, lambda x, heads: torch.stack(x.chunk(heads, dim=1))),
        (encoder.check_self_attention, layer()),
        (encoder.check_pixels_of_token, rectangle()),
    ],
)
def test_other_ways_are_right_as_well(check: Check, answer):
    assert check.verdict(answer).right
