"""Exercises on the backbone: sizes of maps, the reach of padding, frozen batch norm, coordinates, dot products.

Mistakes are variants of a solution that can be bent: `partial(_untouched, first=0)` forgets the first cell.
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
        lambda pixels, stages: (pixels - 1) // 2**stages:
            "This is the number of the last cell, counted from 0. There is one cell more: add 1.",
        lambda pixels, stages: round(pixels / 2**stages):
            "You round to the nearest. Any rest, however small, still gets a cell of its own: round up.",
        lambda pixels, stages: -(-pixels // (2 * stages)):
            "You divide by 2 · stages. Every stage halves what the one before left: divide by 2 ** stages.",
        lambda pixels, stages: -(-pixels // 2):
            "You divide by 2 once. Every stage halves again what the one before left: divide by 2 ** stages.",
        lambda pixels, stages: -(-pixels // max(stages, 1) ** 2):
            "You take the square of the number of stages. Halving s times divides by 2 ** s, and not by s ** 2.",
        lambda pixels, stages: _cells(pixels, stages - 1):
            "You are one stage short: the first one halves the picture already.",
        partial(_cells, halve=lambda n: n // 2 + 1):
            "You add a cell to even sides as well: 128 pixels become 64 cells, not 65.",
    },
    why="So a picture of 800 × 1066 pixels becomes 25 × 34 cells at stride 32, and not 33.3.",
)


# 2. Which cells the padding does not reach


def _receptive_field(layers, widen=lambda kernel: kernel - 1, reach="stride", longer=lambda s, step: s * step):
    size, stride = 1, 1
    for kernel, step in layers:
        after = longer(stride, step)
        size += widen(kernel) * {"stride": stride, "too early": after, "own": step, "pixels": 1}[reach]
        stride = after
    return size


def _untouched(
    pixels, layers, field=_receptive_field, side=lambda size: size // 2, apart=math.prod, first=1, last=1, least=0,
    centre=lambda stride: 0,
):
    stride = apart(step for _, step in layers)
    return max(least, (pixels - last - side(field(layers)) - centre(stride)) // stride + first)


def _with_field(**variant):
    return partial(_untouched, field=partial(_receptive_field, **variant))


check_untouched = Check(
    "untouched",
    solution=_untouched,
    cases=[
        {"pixels": 9, "layers": [(3, 2), (3, 2)]},  # "By hand"
        {"pixels": 20, "layers": [(3, 1), (3, 1)]},
        {"pixels": 46, "layers": [(3, 2), (3, 1), (5, 2)]},
        {"pixels": 128, "layers": [(3, 2), (3, 2), (3, 1), (3, 1)]},  # detr-mini up to its second stage
        {"pixels": 128, "layers": [(3, 2), (3, 2), (5, 1), (7, 2)]},
        {"pixels": 101, "layers": [(7, 2), (3, 2), (1, 1), (3, 1), (1, 1)]},
        {"pixels": 4, "layers": [(7, 2), (3, 2), (3, 1)]},  # its field reaches 9 pixels to the right
        {"pixels": 7, "layers": [(1, 1)]},
    ],
    mistakes={
        _with_field(reach="pixels"):
            "You count every kernel in pixels. After a layer of stride 2 neighbouring cells are two pixels apart, so a "
            "kernel upon them reaches twice as far: multiply by the stride so far.",
        _with_field(reach="too early"):
            "You multiply the stride before you use it. A layer's kernel lies on the map *before* it, so its own "
            "stride counts only for the layers after it.",
        _with_field(reach="own"):
            "You multiply a kernel by its own layer's stride. It lies on the map before that layer, whose cells are as "
            "far apart as the strides of all *earlier* layers say, multiplied.",
        _with_field(longer=lambda stride, step: step):
            "You keep only the last layer's stride for the field. Strides multiply: after two layers of stride 2, "
            "neighbours are 4 pixels apart.",
        _with_field(longer=lambda stride, step: stride + step):
            "You add up strides. They multiply: after two layers of stride 2 neighbours are 4 pixels apart, after "
            "three they are 8.",
        partial(_untouched, field=lambda layers: _receptive_field(layers[::-1])):
            "You go through the layers from the last to the first with a rule that starts at the picture: take them in "
            "the order given.",
        _with_field(widen=lambda kernel: kernel // 2):
            "You halve twice: a kernel adds k − 1 steps to the whole field, and half of the whole lies to the right.",
        _with_field(widen=lambda kernel: kernel):
            "A kernel of k reaches over k − 1 steps: the first of its cells is already counted.",
        partial(_untouched, side=lambda size: size - 1):
            "You let the whole field lie to the right of its cell. Half of it lies to the left.",
        partial(_untouched, side=lambda size: size // 2, last=0):
            "You are one pixel off: of n pixels, counted from 0, the last one is n − 1.",
        partial(_untouched, side=lambda size: 0):
            "This is how many cells have their centre in the picture. Their fields reach beyond it.",
        partial(_untouched, first=0):
            "You leave out one: the first cell, on pixel 0, counts as well.",
        partial(_untouched, least=-math.inf):
            "There are no fewer than none: where even the first cell reads padding, the answer is 0.",
        partial(_untouched, centre=lambda stride: stride // 2):
            "You put a cell on the middle of its patch. It is centred on the *first* pixel of it, i · stride.",
        partial(_untouched, apart=lambda steps: 1):
            "You count pixels. Cells are as far apart as all strides multiplied: divide by that.",
        partial(_untouched, apart=lambda steps: list(steps)[-1]):
            "You divide by the last layer's stride. Cells are as far apart as all strides multiplied.",
        lambda pixels, layers: -(-pixels // math.prod(step for _, step in layers)) - _untouched(pixels, layers):
            "These are the cells that *do* read padding. Count the others.",
        lambda pixels, layers: _receptive_field(layers):
            "This is how many pixels a cell sees. Which is the last cell whose field ends inside of the picture?",
    },
    why="In the last map of DETR's ResNet-50 a field reaches 213 pixels to the right: small pictures have none.",
)


# 3. Batch norm that has stopped learning


def _frozen(x, mean, var, weight, bias, deviation=lambda var: (var + 1e-5).sqrt(), axis=1, own=False, order=None):
    shape = [1, -1, 1, 1] if axis == 1 else [1, 1, 1, -1]
    if own:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    mean, var, weight, bias = (values.view(shape) for values in (mean, var, weight, bias))
    if order == "weight first":
        return (x * weight - mean) / deviation(var) + bias
    if order == "no parentheses":
        return x - mean / deviation(var) * weight + bias
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
        partial(_frozen, deviation=lambda var: (var + 1e-6).sqrt()):
            "Your ε is 1e-6. Here it is 1e-5, and for a channel that hardly moved that makes a difference.",
        partial(_frozen, axis=3):
            "The numbers of the channels lie along the last axis, the picture's width. Channels are the second: give "
            "every one of the four the shape (C, 1, 1).",
        partial(_frozen, order="weight first"):
            "You multiply by the weight before you subtract the mean. The weight scales what is already normalised.",
        partial(_frozen, order="bias first"):
            "You multiply the bias by the weight as well: scale first, then shift.",
        partial(_frozen, order="no parentheses"):
            "Only the mean is divided by the root: put parentheses around x − mean.",
        lambda x, mean, var, weight, bias: _frozen(x, mean, var, bias, weight):
            "Weight and bias are swapped: the weight (γ) multiplies, the bias (β) is added.",
        lambda x, mean, var, weight, bias: _frozen(x, mean, var, weight, torch.zeros_like(bias)):
            "You leave out the bias: add it at the end.",
        lambda x, mean, var, weight, bias: _frozen(x, mean, var, torch.ones_like(weight), bias):
            "You leave out the weight: multiply by it before you add the bias.",
        lambda x, mean, var, weight, bias: _frozen(x, mean, var, torch.ones_like(weight), torch.zeros_like(bias)):
            "This is normalised, but not yet scaled and shifted by weight and bias.",
    },
    why="All four are constants, so this is one multiplication and one addition a channel, the same for every batch.",
)


# 4. Where a cell lies in its own picture


def _coordinates(
    padding_mask, start=0, swap=False, inside=None, whole=False, scale=2 * math.pi, tiny=1e-6, less_one=False,
    blank=False, across=False, divide=True,
):
    inside = (~padding_mask).float() if inside is None else inside(padding_mask)
    counted = [inside.cumsum(axis) - start * inside for axis in (0, 1)]
    last = [inside.sum(0, keepdim=True), inside.sum(1, keepdim=True)]
    if less_one:  # counted from 0, and the last one still at 2π
        counted, last = ([values - 1 for values in both] for both in (counted, last))
    if whole:
        last = [torch.full_like(values, side) for values, side in zip(last, padding_mask.shape)]
    y, x = (values / (largest + tiny) * scale for values, largest in zip(counted, last))
    if across:  # the last count of the other axis
        largest = counted[0][:, -1:], counted[1][-1:]
        y, x = (values / (count + tiny) * scale for values, count in zip(counted, largest))
    if not divide:
        y, x = (values * scale for values in counted)
    if blank:
        y, x = y * inside, x * inside
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
        partial(_coordinates, across=True):
            "You take the last counts along the wrong axes: y counts down, and its last count is in the last *row*, "
            "y[-1:]; that of x is in the last column, x[:, -1:].",
        partial(_coordinates, divide=False, scale=1):
            "You only count. Divide by the last count, and multiply by 2π.",
        partial(_coordinates, divide=False):
            "You do not divide: divide by the last count, so that the last cell inside is at 2π.",
        partial(_coordinates, less_one=True):
            "You count from 0, so the first cell is at 0. DETR counts from 1: of n cells the first is at 2π / n.",
        partial(_coordinates, tiny=0):
            "A column or row that is all padding has a last count of 0, and 0 / 0 is nan: add 1e-6 to the divisor.",
        lambda padding_mask: torch.stack(_coordinates(padding_mask)):
            "The numbers are right. Return them as two tensors, `return y, x`, and not as a single one.",
        partial(_coordinates, blank=True):
            "You set padded cells to 0. Leave them as they come out: nobody reads them, but the check compares all.",
        partial(_coordinates, scale=math.pi):
            "Your coordinates run to π. Multiply by 2π, the period of the fastest wave.",
        partial(_coordinates, scale=1):
            "Your coordinates run to 1. Multiply by 2π, the period of the fastest wave.",
    },
    why="The same place in a picture gets the same coordinates, however large its neighbours in the batch are.",
)


# 5. The dot product of two cells' positions


def _frequencies(pairs, temperature, power=lambda i, pairs: i / pairs, base=None):
    return (temperature if base is None else base) ** -power(torch.arange(pairs).float(), pairs)


def _dot_product(
    padding_mask, one, other, pairs, temperature, whole=False, swap=False, scale=2 * math.pi, combine=None, divide=2,
    **waves,
):
    inside = (~padding_mask).float()
    sides = padding_mask.shape if whole else (inside[:, 0].sum(), inside[0].sum())
    if swap:
        sides = sides[::-1]
    frequencies = _frequencies(pairs, temperature, **waves)
    y, x = (scale * (a - b) / side * frequencies for a, b, side in zip(one, other, sides))
    total = (y.cos() + x.cos()).sum() if combine is None else combine(y, x)
    return (total / (divide * pairs if divide else 1)).item()


def _sines_alone(padding_mask, one, other, pairs, temperature):
    inside = (~padding_mask).float()
    sides, frequencies = (inside[:, 0].sum(), inside[0].sum()), _frequencies(pairs, temperature)
    angles = [[2 * math.pi * (n + 1) / side * frequencies for n, side in zip(cell, sides)] for cell in (one, other)]
    return (sum((a.sin() * b.sin()).sum() for a, b in zip(*angles)) / (2 * pairs)).item()


def _pair_of_cells(mask, one, other, pairs, temperature):
    return mask | {"one": one, "other": other, "pairs": pairs, "temperature": temperature}


check_dot_product = Check(
    "dot_product",
    solution=_dot_product,
    cases=[
        _pair_of_cells(_mask(1, 4), (0, 0), (0, 1), 1, 20.0),  # a quarter of the picture along, one pair
        _pair_of_cells(_mask(4, 6), (0, 1), (2, 5), 2, 100.0),
        _pair_of_cells(_mask(6, 6, padded_below=1, padded_right=2), (4, 0), (1, 3), 8, 20.0),
        _pair_of_cells(_mask(5, 8), (3, 2), (3, 2), 4, 10_000.0),
    ],
    mistakes={
        partial(_dot_product, whole=True):
            "You divide by the map's full height and width. A difference counts in fractions of the picture: divide by "
            "how many rows and columns are not padded.",
        partial(_dot_product, swap=True):
            "Height and width are swapped: a difference of rows is divided by the number of rows.",
        partial(_dot_product, scale=1):
            "Your differences are fractions of the picture, up to 1. Coordinates run to 2π: multiply by it.",
        partial(_dot_product, scale=math.pi):
            "Your coordinates run to π. Multiply by 2π.",
        partial(_dot_product, combine=lambda y, x: (y.cos() * x.cos()).sum(), divide=1):
            "You multiply the cosine of y by that of x. The codes stand side by side, so their products add up.",
        partial(_dot_product, combine=lambda y, x: (y.square() + x.square()).sqrt().cos().sum(), divide=1):
            "You take the cosine of the straight distance. There is a cosine for y and another for x, and their sum is "
            "no function of the distance.",
        partial(_dot_product, combine=lambda y, x: (y + x).cos().sum(), divide=1):
            "You add y's difference to x's before the cosine. Take the cosine of each by itself, then add.",
        partial(_dot_product, divide=None):
            "You do not divide: with d/2 = 2P a cell's product with itself becomes 1.",
        partial(_dot_product, divide=1):
            "You divide by P. There are P pairs for y and P for x: divide by 2P.",
        partial(_dot_product, divide=4):
            "You divide by d = 4P numbers. Of each pair remains one cosine, so there are 2P terms.",
        partial(_dot_product, power=lambda i, pairs: -i / pairs):
            "You multiply by T^(i/P), so later pairs turn faster. Divide: pair 0 is the fastest.",
        partial(_dot_product, power=lambda i, pairs: 2 * i / pairs):
            "Your exponents are 2i/P. Here i counts pairs and not channels: i/P.",
        partial(_dot_product, power=lambda i, pairs: i / (4 * pairs)):
            "Your exponents are i/d. There are P = d/4 pairs, so the exponent 4i/d is i/P.",
        partial(_dot_product, power=lambda i, pairs: i / (2 * pairs)):
            "Your exponents are 2i/d, as for words in a sentence. Here each of the two coordinates has half of "
            "the d numbers, so the exponent is 4i/d = i/P.",
        partial(_dot_product, power=lambda i, pairs: i / max(pairs - 1, 1)):
            "Your exponents reach 1 at the last pair. Divide i by P, not by P − 1.",
        partial(_dot_product, power=lambda i, pairs: (i + 1) / pairs):
            "Your pairs count from 1. Pair 0 turns once over the whole picture: begin with exponent 0.",
        partial(_dot_product, base=10_000.0):
            "T is 10,000 in your function, whatever is asked for: use the argument `temperature`.",
        partial(_dot_product, base=20.0):
            "T is 20 in your function, whatever is asked for: use the argument `temperature`.",
        _sines_alone:
            "These are the sines alone. Without cos a · cos b the product depends on where the cells lie, and not on "
            "their difference.",
        partial(_dot_product, combine=lambda y, x: (y.sin() + x.sin()).sum()):
            "sin a · sin b + cos a · cos b is the *cosine* of a − b.",
    },
    why="It depends on where two cells lie in their own picture, and not on the padding beside it.",
)
