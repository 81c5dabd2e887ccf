"""Exercises on DETR's encoder: padding, where positions go, maps on pixels, neighbours only, what arrives.

Mistakes are variants of a solution that can be bent: `partial(_weights, put=0.0)` hides padding with the wrong score.
"""

# Below, a mistake stands on one line, and the message that then helps under it: no formatter knows this form.
# fmt: off

from functools import partial

import torch
from torch import Tensor

from minivis.checks.base import Check, Verdict


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# 1. Padding


def _weights(scores, padding, put=-torch.inf, mask=lambda p: p[None, :]):
    return scores.masked_fill(mask(padding), put).softmax(-1)


def _zeroed_after(scores, padding):
    return scores.softmax(-1).masked_fill(padding, 0)


def _times_infinity(scores, padding):
    return (scores + padding * -torch.inf).softmax(-1)


def _by_rows(scores, padding):
    return scores.masked_fill(padding[: len(scores), None], 0).softmax(-1)


check_weights_with_padding = Check(
    "weights_with_padding",
    solution=_weights,
    cases=[
        {"scores": torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 2.0, 3.0]]),
         "padding": torch.tensor([False, False, True, True])},
        {"scores": 3 * _random(4, 6, seed=3), "padding": torch.tensor([True, False, False, True, False, False])},
        {"scores": 3 * _random(3, 3, seed=4) - 20, "padding": torch.tensor([False, True, False])},
    ],
    mistakes={
        lambda scores, padding: scores.softmax(-1):
            "The padding still gets weight: `padding` has no part in your result.",
        _zeroed_after:
            "You take the padding's weight away after the softmax, so what is left no longer sums to "
            "1. Take it out of the scores before.",
        partial(_weights, put=0.0):
            "You set the padding's scores to 0, and e⁰ is 1, not 0. Which score has the weight 0?",
        partial(_weights, put=-1.0):
            "A score of −1 is small, and its weight is not 0. Which score has the weight 0, whatever "
            "the others are?",
        partial(_weights, mask=lambda p: ~p[None, :]):
            "You keep the padding and hide the picture: `padding` is True where a key is padding.",
        lambda scores, padding: (scores * ~padding).softmax(-1):
            "You set the padding's scores to 0, and e⁰ is 1, not 0. Which score has the weight 0?",
        _by_rows:
            "You hide rows, which are queries. Keys are the columns: `padding` belongs to the last "
            "dimension.",
        partial(_weights, put=-10.0):
            "A score of −10 is small only beside large ones; the others may be −20. Which score has the "
            "weight 0, whatever the others are?",
        _times_infinity:
            "False · ∞ is 0 · ∞, which is no number (nan). Put −∞ where `padding` is True, and leave the "
            "others alone: `masked_fill`, or `torch.where`.",
        lambda scores, padding: scores.masked_fill(padding, -torch.inf):
            "These are still scores; the softmax is missing, which makes weights of them.",
        lambda scores, padding: scores.masked_fill(padding, -torch.inf).exp():
            "The weights of a row have to sum to 1: divide by their sum, or take the softmax.",
        lambda scores, padding: scores.masked_fill(padding, -torch.inf).softmax(0):
            "Your softmax runs down the columns. A row is what one query makes of all keys, so it runs "
            "along the last dimension.",
        lambda scores, padding: scores[:, ~padding].softmax(-1):
            "You leave the padded keys out. They keep their columns, with the weight 0.",
    },
    why="A padded key gets exactly 0 in every head of every layer, so a picture's answer does not "
    "depend on what it was batched with (as far as the transformer goes).",
)


# 2. Where the positions go


def _softmax(scores):
    return scores.softmax(-1)


def _self_attention(x, pos, w_q, w_k, w_v, to=("q", "k"), after=False, scale=1.0, weigh=_softmax):
    def project(name, w):
        if name not in to:
            return x @ w.mT
        return x @ w.mT + pos if after else (x + pos) @ w.mT

    q, k, v = project("q", w_q), project("k", w_k), project("v", w_v)
    return weigh(scale * q @ k.mT / q.shape[-1] ** 0.5) @ v


def _layer(n: int, d: int, seed: int) -> dict[str, Tensor]:
    shapes = {"x": (n, d), "pos": (n, d), "w_q": (d, d), "w_k": (d, d), "w_v": (d, d)}
    return {name: _random(*shape, seed=seed + i) for i, (name, shape) in enumerate(shapes.items())}


check_self_attention = Check(
    "self_attention",
    solution=_self_attention,
    cases=[_layer(3, 2, seed=10), _layer(6, 4, seed=20), _layer(5, 8, seed=30)],
    mistakes={
        partial(_self_attention, to=("q", "k", "v")):
            "Your values carry positions too. Where to look depends on places; what is gathered is "
            "content only.",
        partial(_self_attention, to=()):
            "`pos` has no part in your result, so no cell knows where another lies.",
        partial(_self_attention, to=("q",)):
            "Only your queries know where they are; add the positions to what keys are made from, too.",
        partial(_self_attention, to=("k",)):
            "Only your keys know where they are; add the positions to what queries are made from, too.",
        partial(_self_attention, to=("v",)):
            "You add the positions to the values, where DETR leaves them out, and not to queries and "
            "keys, where it needs them.",
        partial(_self_attention, after=True):
            "You project first and add the positions then. DETR adds them before: the projections "
            "learn what to make of content and place together.",
        lambda x, *rest: _self_attention(x, *rest, scale=x.shape[-1] ** 0.5):
            "You do not divide the scores by √d. With wide vectors dot products are large, and the "
            "softmax then gives nearly everything to one key.",
        lambda x, pos, w_q, w_k, w_v: _self_attention(x, pos, w_k, w_q, w_v):
            "Queries and keys have changed places: `w_q` makes the queries, which are the rows.",
        lambda x, pos, w_q, w_k, w_v: _self_attention(x, pos, w_q.mT, w_k.mT, w_v.mT):
            "Your projections are transposed: as in `nn.Linear`, a row of `w` makes one number of the "
            "output. Write `x @ w.mT`.",
        lambda x, *rest: _self_attention(x, *rest, scale=x.shape[-1] ** -0.5):
            "You divide the scores by d; divide by its root.",
        lambda x, *rest: _self_attention(x, *rest, scale=(x.shape[-1] / x.shape[-2]) ** 0.5):
            "You divide by the root of n, the number of cells. It is the length of a query, d, that makes "
            "dot products large.",
        partial(_self_attention, weigh=lambda scores: scores.softmax(-2)):
            "Your softmax runs down the columns. Row i is how cell i spreads its attention, so it runs "
            "along the last dimension.",
        partial(_self_attention, weigh=lambda scores: (powers := scores.exp()) / powers.sum(-1)):
            "You divide by the sums of the rows without `keepdim`, so each *column* is divided by a sum. Rows have to "
            "sum to 1: `sum(-1, keepdim=True)`.",
        partial(_self_attention, weigh=lambda scores: scores):
            "You mix the values with the scores themselves; the softmax is missing, which makes weights of them.",
        lambda x, *rest: _self_attention(
            x, *rest, scale=x.shape[-1] ** 0.5, weigh=lambda scores: scores.softmax(-1) / x.shape[-1] ** 0.5
        ):
            "You divide by √d after the softmax, and so make the mixture smaller. It is the scores that are "
            "divided.",
        lambda x, pos, w_q, w_k, w_v: _self_attention(x, pos, w_q, w_k, torch.eye(len(w_v))):
            "You mix the cells themselves: `w_v` has no part in your result.",
        lambda x, pos, w_q, w_k, w_v: _self_attention(x, pos, w_q, w_q, w_v):
            "You use `w_q` for the keys too. Queries and keys have the same input, not the same projection.",
        lambda x, pos, w_q, w_k, w_v: _softmax((x + pos) @ w_q.mT @ w_k @ (x + pos).mT / x.shape[-1] ** 0.5):
            "These are the weights; what they gather is wanted: mix the values with them.",
        lambda x, *rest: x + _self_attention(x, *rest):
            "You add x to what is gathered. That is the layer's part; here the mixtures alone are wanted.",
    },
    why="The same x and the same positions, in every layer again: so even the last layer can look for "
    'a place ("my left edge"), and still pass on nothing but content.',
)


# 3. A map on its pixels


def _pixels(token, columns, stride, size, extra, offset=lambda t, e: t - e, order=(1, 0), clip=True, corner=0.0):
    row_column = divmod(offset(token, extra), columns)
    x, y = (stride * (row_column[i] + corner) for i in order)
    right, bottom = x + stride, y + stride
    if clip:
        right, bottom = min(right, size[1]), min(bottom, size[0])
    return x, y, right, bottom


check_pixels_of_token = Check(
    "pixels_of_token",
    solution=_pixels,
    cases=[
        {"token": 6, "columns": 5, "stride": 16, "size": (48, 80), "extra": 0},
        {"token": 14, "columns": 5, "stride": 16, "size": (48, 72), "extra": 0},
        {"token": 13, "columns": 4, "stride": 8, "size": (30, 32), "extra": 1},
    ],
    mistakes={
        partial(_pixels, order=(0, 1)):
            "Rows and columns have changed places: x runs along the columns, and the first two "
            "numbers are left (x) and top (y).",
        partial(_pixels, offset=lambda t, e: t):
            "The class token counts among the tokens and has no place in the grid: take `extra` away "
            "before you divide.",
        partial(_pixels, offset=lambda t, e: t + e):
            "You add `extra`; the grid begins after the extra tokens, so take them away.",
        partial(_pixels, clip=False):
            "The last cell of a row or a column may reach beyond the picture. Cut it off at the "
            "picture's width and height.",
        partial(_pixels, corner=-0.5):
            "You centre the cell on its corner: cell i begins at i · stride.",
        lambda token, columns, stride, size, extra: (
            (r := _pixels(token, columns, stride, size, extra))[0], r[1], r[2] - r[0], r[3] - r[1]
        ):
            "These are left, top, width and height; right and bottom are wanted.",
        lambda token, columns, stride, size, extra: _pixels(token, size[0] // stride, stride, size, extra):
            "You count in rows of the picture's height: tokens run along a row, so divide by the "
            "number of columns.",
        lambda token, columns, stride, size, extra: _pixels(token, columns, stride, size[::-1], extra):
            "You cut off x at the height and y at the width: `size` is (height, width).",
        lambda *inputs: ((r := _pixels(*inputs))[0], r[1], r[2] - 1, r[3] - 1):
            "You give the last pixels of the cell; right and bottom lie just outside, one farther.",
        lambda token, columns, stride, size, extra: (
            (r := _pixels(token, columns, stride, size, extra, clip=False))[0], r[1],
            min(r[2] - 1, size[1]), min(r[3] - 1, size[0]),
        ):
            "You give the last pixels of the cell; right and bottom lie just outside, one farther.",
        lambda *inputs: ((r := _pixels(*inputs))[1], r[0], r[3], r[2]):
            "The numbers are right, but not their order: left (x), top (y), right (x), bottom (y).",
        lambda token, columns, stride, size, extra: (
            _pixels(token, columns, stride, (size[0] - 1, size[1] - 1), extra)
        ):
            "You cut off one pixel too early: the right edge of the last pixel is the width itself.",
        lambda token, columns, stride, size, extra: _pixels(token, columns, stride, (10**9, size[1]), extra):
            "You cut off at the width only; the last row may reach beyond the picture's height.",
        lambda token, columns, stride, size, extra: _pixels(token, columns, stride, (size[0], 10**9), extra):
            "You cut off at the height only; the last column may reach beyond the picture's width.",
        lambda token, columns, stride, size, extra: _pixels(token, size[1] // stride, stride, size, extra):
            "You take width // stride for the number of columns; where the last cell reaches beyond the picture "
            "that is one too few. `columns` says how many there are.",
        partial(_pixels, offset=lambda t, e: t - e - 1):
            "You are one cell off: tokens are counted from 0.",
    },
    why="A map that is stretched over the picture by eye is off by up to a cell where the picture's "
    "size is no multiple of the stride. This one is not.",
)


# 4. Neighbours only


def _distances(rows, columns):
    """How many rows and how many columns lie between each two cells, (n, n) each."""
    cells = torch.arange(rows * columns)
    row, column = cells // columns, cells % columns
    return (row[:, None] - row).abs(), (column[:, None] - column).abs()


def _neighbours(rows, columns, reach, near=lambda down, across: torch.maximum(down, across)):
    return near(*_distances(rows, columns)) <= reach


def _one_side(rows, columns, reach):
    cells = torch.arange(rows * columns)
    row, column = cells // columns, cells % columns
    return (row[:, None] - row <= reach) & (column[:, None] - column <= reach)


def _along_the_list(rows, columns, reach):
    cells = torch.arange(rows * columns)
    return (cells[:, None] - cells).abs() <= reach


class _CheckOfBools(Check):
    """A check of masks: zeros and ones are the right numbers, but attention would add them to its scores."""

    def verdict(self, answer):
        verdict = super().verdict(answer)
        dtype = getattr(answer(*self.cases[0].values()), "dtype", torch.bool) if verdict.right else torch.bool
        if dtype is torch.bool:
            return verdict
        return Verdict("wrong", f"The numbers are right, but they are {dtype}; a mask is bool: compare, and give that.")


check_neighbours = _CheckOfBools(
    "neighbours",
    solution=_neighbours,
    cases=[
        {"rows": 1, "columns": 4, "reach": 1},  # small enough to be shown number by number
        {"rows": 2, "columns": 2, "reach": 1},
        {"rows": 4, "columns": 1, "reach": 2},
        {"rows": 2, "columns": 3, "reach": 1},
        {"rows": 3, "columns": 5, "reach": 1},
        {"rows": 4, "columns": 3, "reach": 2},
        {"rows": 5, "columns": 6, "reach": 3},
        {"rows": 3, "columns": 3, "reach": 0},
    ],
    mistakes={
        _along_the_list:
            "You compare the numbers of the cells. The last cell of a row and the first of the next "
            "have neighbouring numbers and lie at opposite ends: turn numbers into rows and columns first.",
        lambda rows, columns, reach: _neighbours(columns, rows, reach):
            "Rows and columns have changed places: tokens run along a row, so the row of token t is "
            "t // columns. In 2 rows of 3 columns, token 3 is the first of the second row.",
        partial(_neighbours, near=lambda down, across: down + across):
            "You count steps along rows and columns together, so the corners of the square are missing. "
            "A cell may be `reach` away in both at once.",
        partial(_neighbours, near=lambda down, across: torch.minimum(down, across)):
            "Near in rows or near in columns is not enough, that gives a cross of whole rows and columns: "
            "it has to be near in both.",
        partial(_neighbours, near=lambda down, across: (down**2 + across**2).float().sqrt()):
            "This is a circle; a square is wanted: at most `reach` rows and at most `reach` columns away.",
        lambda *inputs: ~_neighbours(*inputs):
            "You have True where a cell may not look; True is wanted where it may.",
        lambda *inputs: _neighbours(*inputs) & ~torch.eye(inputs[0] * inputs[1], dtype=torch.bool):
            "A cell may look at itself as well: it is 0 away.",
        lambda rows, columns, reach: _neighbours(rows, columns, reach - 1):
            "A cell that is `reach` away may still be looked at: ≤, not <.",
        _one_side:
            "A difference below 0 is a distance too: take `abs()`. As it is, a cell looks any distance ahead.",
        partial(_neighbours, near=lambda down, across: down):
            "You compare rows only; columns have to be near as well.",
        partial(_neighbours, near=lambda down, across: across):
            "You compare columns only; rows have to be near as well.",
    },
    why="With this mask attention sees what a convolution of 2 · reach + 1 cells sees. DETR's encoder has no "
    "such mask: it sees the whole picture in its first layer.",
)


# 5. What arrives


def _what_arrives(weights, values, out, vectors=lambda v, out: v @ out.mT, size=lambda x: x.norm(dim=-1)):
    return weights * size(vectors(values, out))


def _length_of_all(weights, values, out):
    return (weights @ values @ out.mT).norm(dim=-1)


def _moved(seed: int, n: int, c: int, d: int) -> dict[str, Tensor]:
    return {
        "weights": _random(n, n, seed=seed).softmax(-1), "values": _random(n, c, seed=seed + 1),
        "out": _random(d, c, seed=seed + 2),
    }


check_what_arrives = Check(
    "what_arrives",
    solution=_what_arrives,
    cases=[
        {
            "weights": torch.tensor([[0.5, 0.5], [0.8, 0.2]]),
            "values": torch.tensor([[1.0, 0.0], [0.0, 5.0]]),
            "out": torch.tensor([[3.0, 1.0], [4.0, 0.0]]),
        },
        _moved(40, 4, 3, 3),
        _moved(50, 5, 4, 4),  # `out` is square throughout: so `values @ out` runs, and can be told what it does
    ],
    mistakes={
        lambda weights, values, out: weights:
            "These are the weights. What arrives is each weight times a vector; its length is wanted.",
        partial(_what_arrives, vectors=lambda v, out: v):
            "You take the length of the value itself; it goes through the last matrix first, which makes "
            "some values longer and others shorter.",
        _length_of_all:
            "You add up what arrives from all cells first. Before the sum there is a vector for each pair.",
        partial(_what_arrives, size=lambda x: x.sum(-1)):
            "You add up the numbers of each vector; its length is the root of the sum of their squares.",
        partial(_what_arrives, size=lambda x: x.abs().sum(-1)):
            "You add up absolute numbers; the length is the root of the sum of squares.",
        partial(_what_arrives, size=lambda x: (x**2).sum(-1)):
            "This is the square of the length: take the root.",
        lambda *inputs: _what_arrives(*inputs).T:
            "Yours is transposed: row i is what arrives at cell i.",
        lambda weights, values, out: weights * (values @ out.mT).norm(dim=-1)[:, None]:
            "You multiply row i by the length of cell i's own value. What arrives at i from j is j's value: "
            "it belongs to the column.",
        lambda weights, values, out: weights @ (values @ out.mT):
            "This is the head's output, a sum over all cells. Before the sum there is a vector for each pair, and "
            "its length is wanted.",
        lambda weights, values, out: (values @ out.mT).norm(dim=-1).expand_as(weights):
            "The weights have no part in your result: what arrives is the weight times the vector.",
        partial(_what_arrives, size=lambda x: x.norm()):
            "You take one length for all values together (`norm()` without `dim`): each j has its own.",
        lambda weights, values, out: _what_arrives(weights.mT, values, out):
            "Your weights are transposed: row i holds how much cell i takes from each j.",
        lambda weights, values, out: weights[..., None] * (values @ out.mT):
            "You give the vectors, (n, n, d); wanted is the length of each: `.norm(dim=-1)`.",
        partial(_what_arrives, vectors=lambda v, out: v @ out):
            "Your last matrix is transposed: as in `nn.Linear`, a row of `out` makes one number of the output. "
            "Write `values @ out.mT`.",
        lambda *inputs: (a := _what_arrives(*inputs)) / a.sum(-1, keepdim=True):
            "You divide each row by its sum. Lengths are wanted, not shares: they need not sum to 1.",
    },
    why="Two maps of one head: where it looks, and where what it gathers comes from. They need not agree.",
)
