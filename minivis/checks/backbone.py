"""Exercises on the backbone: sizes of maps, receptive fields, frozen batch norm, coordinates, sine positions.

Mistakes are variants of a solution that can be bent: `partial(_receptive_field, start=0)` forgets the cell itself.
"""

# Below, a mistake stands on one line, and the message that then helps under it: no formatter knows this form.
# fmt: off

import math
from functools import partial

import torch
from torch import Tensor

from minivis.checks.base import Check


def _random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# 1. How many cells a side of the map has


def _cells(pixels, stages, halve=lambda n: (n + 1) // 2):
    for _ in range(stages):
        pixels = halve(pixels)
    return pixels


FLOORED = (
    "You round down. The kernel's middle stands on the pixels 0, 2, 4, ... (padding lets it stand on the first), so of "
    "5 pixels it meets 3: an odd side keeps the larger half."
)

check_cells = Check(
    "cells",
    solution=_cells,
    cases=[{"pixels": 5, "stages": 1}, {"pixels": 128, "stages": 4}, {"pixels": 1066, "stages": 5},
           {"pixels": 129, "stages": 4}, {"pixels": 1, "stages": 3}, {"pixels": 47, "stages": 4}],
    mistakes={
        lambda pixels, stages: pixels // 2**stages: FLOORED,
        partial(_cells, halve=lambda n: (n - 3) // 2 + 1):
            "You leave out the padding: with one pixel of it on either side, n − 3 becomes n + 2 − 3.",
        lambda pixels, stages: pixels / 2**stages:
            "This is a fraction wherever a side cannot be halved evenly. There are no half cells: which way is it "
            "rounded?",
        lambda pixels, stages: round(pixels / 2**stages):
            "You round to the nearest. Any rest, however small, still gets a cell of its own: round up.",
        lambda pixels, stages: -(-pixels // (2 * stages)):
            "You divide by 2 · stages. Every stage halves what the one before left: divide by 2 ** stages.",
        partial(_cells, halve=lambda n: n // 2 + 1):
            "You add a cell to even sides as well: 128 pixels become 64 cells, not 65.",
    },
    why="So a picture of 800 × 1066 pixels becomes 25 × 34 cells at stride 32, and not 33.3.",
)


# 2. How far a cell sees


def _receptive_field(layers, start=1, widen=lambda kernel: kernel - 1, too_early=False, by_stride=True):
    size, stride = start, 1
    for kernel, step in layers:
        if too_early:
            stride *= step
        size += widen(kernel) * (stride if by_stride else 1)
        if not too_early:
            stride *= step
    return size


check_receptive_field = Check(
    "receptive_field",
    solution=_receptive_field,
    cases=[
        {"layers": [(3, 1), (3, 1)]},
        {"layers": [(3, 2), (3, 1)]},
        {"layers": [(3, 2), (3, 2), (3, 1), (3, 1)]},  # detr-mini up to its second stage
        {"layers": [(7, 2), (3, 2), (1, 1), (3, 1), (1, 1)]},
        {"layers": [(1, 1)]},
    ],
    mistakes={
        partial(_receptive_field, by_stride=False):
            "You count every kernel in pixels. After a layer of stride 2 neighbouring cells are two pixels apart, so a "
            "kernel upon them reaches twice as far: multiply by the stride so far.",
        partial(_receptive_field, too_early=True):
            "You multiply the stride before you use it. A layer's kernel lies on the map *before* it, so its own "
            "stride counts only for the layers after it.",
        partial(_receptive_field, widen=lambda kernel: kernel):
            "A kernel of k reaches over k − 1 steps: the first of its cells is already counted.",
        partial(_receptive_field, start=0):
            "With no layer at all a cell is one pixel: begin with 1.",
        lambda layers: math.prod(kernel for kernel, _ in layers):
            "You multiply the kernels, as if their windows lay side by side. They overlap: each adds to the field.",
        lambda layers: math.prod(step for _, step in layers):
            "This is the stride, how far apart two cells' fields lie, and not how large each is.",
    },
    why="Strides make fields grow: each halving doubles what every later kernel adds.",
)


# 3. Batch norm that has stopped learning


def _frozen(x, mean, var, weight, bias, deviation=lambda var: (var + 1e-5).sqrt(), axis=1, own=False, order=None):
    shape = [1, -1, 1, 1] if axis == 1 else [1, 1, 1, -1]
    if own:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    mean, var, weight, bias = (values.view(shape) for values in (mean, var, weight, bias))
    if order == "weight first":
        return (x * weight - mean) / deviation(var) + bias
    if order == "bias first":
        return ((x - mean) / deviation(var) + bias) * weight
    return (x - mean) / deviation(var) * weight + bias


_ONE_CHANNEL = {
    "x": torch.tensor([1.0, 3.0]).view(1, 1, 1, 2), "mean": torch.tensor([1.0]), "var": torch.tensor([4.0]),
    "weight": torch.tensor([3.0]), "bias": torch.tensor([0.5]),
}

check_frozen_batch_norm = Check(
    "frozen_batch_norm",
    solution=_frozen,
    cases=[
        _ONE_CHANNEL,
        {"x": _random(2, 3, 4, 3, seed=0), "mean": _random(3, seed=1), "var": _random(3, seed=2) + 0.5,
         "weight": _random(3, seed=3) + 0.5, "bias": _random(3, seed=4)},
        _ONE_CHANNEL | {"var": torch.tensor([1e-6])},  # a channel that hardly moved on ImageNet
    ],
    mistakes={
        partial(_frozen, own=True):
            "You take mean and variance of the batch at hand: this is batch norm in training. Frozen, it uses the ones "
            "that are handed in, whatever x is.",
        partial(_frozen, deviation=lambda var: var + 1e-5):
            "You divide by the variance. Divide by its square root, the standard deviation.",
        partial(_frozen, deviation=lambda var: var.sqrt()):
            "You leave out ε, and a channel that hardly moved is blown up: add 1e-5 to the variance before the root.",
        partial(_frozen, deviation=lambda var: var.sqrt() + 1e-5):
            "You add ε to the root. It belongs under it: sqrt(var + 1e-5).",
        partial(_frozen, axis=3):
            "The numbers of the channels lie along the last axis, the picture's width. Channels are the second: give "
            "every one of the four the shape (C, 1, 1).",
        partial(_frozen, order="weight first"):
            "You multiply by the weight before you subtract the mean. The weight scales what is already normalised.",
        partial(_frozen, order="bias first"):
            "You multiply the bias by the weight as well: scale first, then shift.",
        lambda x, mean, var, weight, bias: _frozen(x, mean, var, torch.ones_like(weight), torch.zeros_like(bias)):
            "This is normalised, but not yet scaled and shifted by weight and bias.",
    },
    why="All four are constants, so this is one multiplication and one addition a channel, the same for every batch.",
)


# 4. Where a cell lies in its own picture


def _coordinates(padding_mask, start=0, swap=False, inside=None, whole=False, scale=2 * math.pi):
    inside = (~padding_mask).float() if inside is None else inside(padding_mask)
    counted = [inside.cumsum(axis) - start * inside for axis in (0, 1)]
    last = [counted[0][-1:] + start, counted[1][:, -1:] + start]
    if whole:
        last = [torch.full_like(values, side) for values, side in zip(last, padding_mask.shape)]
    y, x = (values / (largest + 1e-6) * scale for values, largest in zip(counted, last))
    return (x, y) if swap else (y, x)


def _numbered(padding_mask):
    """Every cell counted, padded or not."""
    return torch.ones_like(padding_mask, dtype=torch.float32)


def _mask(height, width, padded_below=0, padded_right=0):
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[height - padded_below:] = True
    mask[:, width - padded_right:] = True
    return {"padding_mask": mask}


check_coordinates = Check(
    "coordinates",
    solution=_coordinates,
    cases=[_mask(2, 4), _mask(3, 4, padded_right=2), _mask(4, 4, padded_below=1, padded_right=1), _mask(1, 3)],
    mistakes={
        partial(_coordinates, swap=True):
            "x and y are swapped: y counts down the rows, along axis 0, and comes first.",
        partial(_coordinates, inside=lambda mask: mask.float()):
            "You count the padded cells: the mask is True where there is *no* picture.",
        partial(_coordinates, inside=_numbered):
            "You count padded cells as well, so the picture's last cell does not reach 2π. Count only those inside.",
        partial(_coordinates, whole=True):
            "You divide by the map's full height and width. Divide by the last count in each column and row: how many "
            "cells are the picture's own.",
        partial(_coordinates, start=1):
            "You count from 0. The first cell is 1, so that the last one is at 2π exactly.",
        partial(_coordinates, scale=1):
            "Your coordinates run to 1. Multiply by 2π, the period of the fastest wave.",
    },
    why="The same place in a picture gets the same coordinates, however large its neighbours in the batch are.",
)


# 5. One coordinate as waves


def _sine_code(coordinate, pairs, temperature, power=lambda i, pairs: i / pairs, turn=torch.div, arrange="interleaved"):
    wavelength = temperature ** power(torch.arange(pairs).float(), pairs)
    angle = turn(coordinate[:, None], wavelength)
    first, second = (angle.cos(), angle.sin()) if arrange == "cosine first" else (angle.sin(), angle.cos())
    return torch.cat([first, second], 1) if arrange == "blocks" else torch.stack([first, second], 2).flatten(1)


check_sine_code = Check(
    "sine_code",
    solution=_sine_code,
    cases=[
        {"coordinate": torch.tensor([1.0, 2.0]), "pairs": 2, "temperature": 100.0},
        {"coordinate": torch.linspace(0.5, 2 * math.pi, 5), "pairs": 8, "temperature": 20.0},
        {"coordinate": torch.tensor([3.0]), "pairs": 1, "temperature": 10_000.0},
    ],
    mistakes={
        partial(_sine_code, arrange="blocks"):
            "All sines come first, then all cosines. Let them alternate: sine and cosine of pair 0, of pair 1, ...",
        partial(_sine_code, arrange="cosine first"):
            "The cosine comes before the sine in each pair: swap them.",
        partial(_sine_code, turn=torch.mul):
            "You multiply by T^(i/P), so later pairs turn faster. Divide: pair 0 is the fastest.",
        partial(_sine_code, power=lambda i, pairs: 2 * i / pairs):
            "Your exponents are 2i/P. Here i counts pairs and not channels: i/P.",
        partial(_sine_code, power=lambda i, pairs: i / max(pairs - 1, 1)):
            "Your exponents reach 1 at the last pair. Divide i by P, not by P − 1.",
        partial(_sine_code, power=lambda i, pairs: (i + 1) / pairs):
            "Your pairs count from 1. Pair 0 has the wavelength 2π: begin with exponent 0.",
        lambda coordinate, pairs, temperature: _sine_code(coordinate, pairs, temperature).T:
            "Your result is transposed: a row for each coordinate, a column for each channel.",
    },
    why="Half of DETR's channels are this code of y, the other half of x. Nothing in it is learned.",
)
