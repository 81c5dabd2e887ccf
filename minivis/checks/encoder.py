"""Exercises on attention and DETR's encoder: attention, padding, heads, where positions go, maps on pixels.

Mistakes are variants of a solution that can be bent: `partial(_attention, scale=1)` forgets to divide by √d.
"""

# Below, a mistake stands on one line, and the message that then helps under it: no formatter knows this form.
# fmt: off

from functools import partial

import torch
from torch import Tensor

from minivis.checks.base import Check


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# 1. Attention


def _attention(q, k, v, scale=None, over=-1, normal=lambda scores, over: scores.softmax(over)):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return normal(q @ k.mT * scale, over) @ v


def _times_root(q, k, v):
    return _attention(q, k, v, scale=q.shape[-1] ** 0.5)


check_attention = Check(
    "attention",
    solution=_attention,
    cases=[
        {
            "q": torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]),
            "k": torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]),
            "v": torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]]),
        },
        {"q": _random(3, 8, seed=0), "k": _random(5, 8, seed=1), "v": _random(5, 6, seed=2)},
    ],
    mistakes={
        partial(_attention, scale=1):
            "You do not divide the scores by √d. With wide vectors dot products are large, and the "
            "softmax then gives nearly everything to one key.",
        lambda q, k, v: _attention(q, k, v, scale=1 / q.shape[-1]):
            "You divide by d; divide by its square root. The dot product of two random vectors of d "
            "numbers is about √d in size.",
        _times_root:
            "You multiply by √d: divide by it.",
        lambda q, k, v: _attention(q, k, v, scale=len(k) ** -0.5):
            "You divide by the square root of the number of keys. d is the length of a vector.",
        partial(_attention, over=0):
            "Your softmax runs over the queries: each query's weights should sum to 1 over the keys, "
            "which are the last dimension.",
        partial(_attention, normal=lambda scores, over: scores):
            "You mix the values with the raw scores. A softmax over the keys makes weights of them: "
            "none negative, and 1 in all.",
        lambda q, k, v: (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1):
            "These are the weights. Mix the values with them: one product more.",
    },
    why="These two products and a softmax are all there is: no weight in it is learned, and nothing "
    "in it knows where a token stands.",
)


# 2. Padding


def _weights(scores, padding, put=-torch.inf, mask=lambda p: p[None, :]):
    return scores.masked_fill(mask(padding), put).softmax(-1)


def _zeroed_after(scores, padding):
    return scores.softmax(-1).masked_fill(padding, 0)


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
    },
    why="A padded key gets exactly 0 in every head of every layer, so a picture's answer does not "
    "depend on what it was batched with (as far as the transformer goes).",
)


# 3. Heads


def _split(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(0, 1)


check_split_heads = Check(
    "split_heads",
    solution=_split,
    cases=[
        {"x": torch.arange(12.0).view(3, 4), "heads": 2},
        {"x": torch.arange(60.0).view(5, 12), "heads": 3},
        {"x": torch.arange(60.0).view(5, 12), "heads": 4},
    ],
    mistakes={
        lambda x, heads: x.reshape(heads, len(x), -1):
            "The shape is right and the numbers are not: `reshape` reads on row by row, so a head gets "
            "whole tokens in place of a slice of each. Split the last dimension, then swap.",
        lambda x, heads: x.unflatten(-1, (heads, -1)):
            "This is (n, heads, d / heads). The heads come first, so that each is a matrix of its own: "
            "swap two dimensions.",
        lambda x, heads: x.unflatten(-1, (-1, heads)).movedim(-1, 0):
            "Your head takes every so-many-th channel. A head is a slice of neighbouring channels: the "
            "first d / heads belong to head 0.",
        lambda x, heads: torch.stack([x] * heads):
            "Each of your heads has all channels; give each its own slice.",
    },
    why="After this each head does its own attention on d / heads channels, all in one batched "
    "product, for the price of one attention on d.",
)


# 4. Where the positions go


def _self_attention(x, pos, w_q, w_k, w_v, to=("q", "k"), after=False):
    def project(name, w):
        if name not in to:
            return x @ w.mT
        return x @ w.mT + pos if after else (x + pos) @ w.mT

    return _attention(project("q", w_q), project("k", w_k), project("v", w_v))


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
        lambda x, pos, w_q, w_k, w_v: _self_attention(x, pos, w_k, w_q, w_v):
            "Queries and keys have changed places: `w_q` makes the queries, which are the rows.",
        lambda x, pos, w_q, w_k, w_v: _self_attention(x, pos, w_q.mT, w_k.mT, w_v.mT):
            "Your projections are transposed: as in `nn.Linear`, a row of `w` makes one number of the "
            "output. Write `x @ w.mT`.",
    },
    why="The same x and the same positions, in every layer again: so even the last layer can look for "
    'a place ("my left edge"), and still pass on nothing but content.',
)


# 5. A map on its pixels


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
    },
    why="A map that is stretched over the picture by eye is off by up to a cell where the picture's "
    "size is no multiple of the stride. This one is not.",
)
