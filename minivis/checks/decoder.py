"""Exercises on DETR's decoder: the first self-attention, cross-attention, attention in a box, parallel decoding.

Mistakes are variants of a solution that can be bent: `partial(_read, scale=1)` forgets to divide by √d.
"""

# Below, a mistake stands on one line, and the message that then helps under it: no formatter knows this form.
# fmt: off

from functools import partial

import torch
from torch import Tensor

from minivis.checks.base import Check


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# 1. What the first self-attention puts out


def _first_words(shift, w_v, b_v, w_o, b_o, num_queries, value=lambda w, x: w @ x, amount=1, rows=True):
    vector = amount * value(w_o, value(w_v, shift) + b_v) + b_o
    return vector.expand(num_queries, -1) if rows else vector


def _not(**changed):
    """The solution as if some inputs were zero."""
    def answer(shift, w_v, b_v, w_o, b_o, num_queries):
        inputs = dict(shift=shift, w_v=w_v, b_v=b_v, w_o=w_o, b_o=b_o)
        inputs |= {name: torch.zeros_like(inputs[name]) for name in changed}
        return _first_words(**inputs, num_queries=num_queries)
    return answer


def _attention_inputs(d: int, queries: int, seed: int) -> dict:
    shapes = {"shift": (d,), "w_v": (d, d), "b_v": (d,), "w_o": (d, d), "b_o": (d,)}
    return {n: _random(*shape, seed=seed + i) for i, (n, shape) in enumerate(shapes.items())} | {"num_queries": queries}


check_first_words = Check(
    "first_words",
    solution=_first_words,
    cases=[
        {
            "shift": torch.tensor([1.0, 2.0]),
            "w_v": torch.tensor([[1.0, 1.0], [0.0, 2.0]]),
            "b_v": torch.tensor([0.5, 0.0]),
            "w_o": torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
            "b_o": torch.tensor([0.0, 1.0]),
            "num_queries": 3,
        },
        _attention_inputs(4, 5, seed=0),
        _attention_inputs(3, 1, seed=10),
    ],
    mistakes={
        partial(_first_words, rows=False):
            "This is the right vector, once. Every query gets it: give one row for each query.",
        partial(_first_words, value=lambda w, x: x @ w):
            "Your matrices are transposed: PyTorch's Linear computes W x + b, with W of shape (out, in).",
        _not(shift=0):
            "You take zeros for the values. A pre-norm layer takes norm(0), and a layer norm of zeros is its shift.",
        _not(b_v=0):
            "The value projection has a bias: W_v x + b_v.",
        _not(b_o=0):
            "The output projection has a bias, which comes last.",
        lambda *inputs: _first_words(*inputs, amount=inputs[-1]):
            "You add the values of all queries up. Attention weights sum to 1: a mean of equal vectors is that vector.",
        lambda shift, w_v, b_v, w_o, b_o, num_queries: (w_v @ (w_o @ shift + b_o) + b_v).expand(num_queries, -1):
            "First the value projection, then the output projection.",
    },
    why="The queries did not occur in it, nor did the picture: a weighted mean of equal vectors is that vector, "
    "whatever the weights. In the first layer self-attention is a constant.",
)


# 2. Cross-attention


def _read(
    content, query, memory, positions, ask=lambda x, q: x + q, key=lambda m, p: m + p, value=lambda m, p: m, scale=None,
    dim=-1,
):
    asked, keys = ask(content, query), key(memory, positions)
    weights = (asked @ keys.T / (asked.shape[-1] ** 0.5 if scale is None else scale)).softmax(dim)
    return weights @ value(memory, positions)


check_read = Check(
    "read",
    solution=_read,
    cases=[
        {
            "content": torch.tensor([[0.0, 0.0]]),
            "query": torch.tensor([[2.0, 0.0]]),
            "memory": torch.tensor([[0.0, 1.0], [0.0, 3.0]]),
            "positions": torch.tensor([[1.0, 0.0], [-1.0, 0.0]]),
        },
        {name: _random(n, 4, seed=i) for i, (name, n) in
         enumerate([("content", 3), ("query", 3), ("memory", 5), ("positions", 5)])},
    ],
    mistakes={
        partial(_read, value=lambda m, p: m + p):
            "Your values hold positions too. Positions say where to look; what is gathered is the memory alone.",
        partial(_read, key=lambda m, p: m):
            "Your keys lack the positions: a query could ask for what is there, but not for where.",
        partial(_read, ask=lambda x, q: x):
            "You ask with the content alone. Before the first layer all contents are equal, so all queries would read "
            "the same: add the query embedding.",
        partial(_read, ask=lambda x, q: q):
            "You ask with the query embedding alone: what has been gathered so far, the content, has a say as well.",
        partial(_read, ask=lambda x, q: q + q):
            "The embedding is added to the content, not to itself.",
        partial(_read, scale=1):
            "Divide the products by √d before the softmax.",
        partial(_read, dim=0):
            "Your weights sum to 1 over the queries. Each query shares it out over the cells: the last axis.",
    },
    why="The whole of cross-attention, but for the heads and their projections: a question made of place and content, "
    "put to all cells at once.",
)


# 3. How much of an attention map lies in a box


def _share_of_sum(inside, all_):
    return inside.sum() / all_.sum()


def _share_inside(attention, box, middle=0.5, half=0.5, swap=False, share=_share_of_sum):
    rows, columns = attention.shape
    y, x = (torch.arange(rows) + middle) / rows, (torch.arange(columns) + middle) / columns
    cx, cy, w, h = box[[1, 0, 3, 2]] if swap else box
    inside = ((y - cy).abs() <= half * h)[:, None] & ((x - cx).abs() <= half * w)[None]
    return share(attention[inside], attention)


def _as_corners(attention, box):
    left, top, right, bottom = box
    return _share_inside(attention, torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]))


def _map(rows: int, columns: int, seed: int) -> Tensor:
    return _random(rows * columns, seed=seed).softmax(0).view(rows, columns)


check_share_inside = Check(
    "share_inside",
    solution=_share_inside,
    cases=[
        {
            "attention": torch.tensor([[0.1, 0.2, 0.0, 0.0], [0.3, 0.2, 0.1, 0.1]]),
            "box": torch.tensor([0.25, 0.75, 0.5, 0.5]),
        },
        {"attention": _map(5, 9, seed=1), "box": torch.tensor([0.62, 0.4, 0.42, 0.7])},
        {"attention": _map(6, 4, seed=2), "box": torch.tensor([0.3, 0.5, 0.5, 0.45])},
        {"attention": _map(8, 8, seed=3), "box": torch.tensor([0.7, 0.35, 0.2, 0.6])},
    ],
    mistakes={
        partial(_share_inside, swap=True):
            "x and y are swapped. A map is indexed [row, column], that is [y, x]; a box begins with its x.",
        _as_corners:
            "You take the box for corners. It is (centre x, centre y, width, height).",
        partial(_share_inside, half=1):
            "Your box is twice as wide and high: from its centre it reaches half its width to each side.",
        partial(_share_inside, middle=0):
            "You ask for the left upper corner of each cell. Its middle is half a cell on: (column + 0.5) / columns.",
        partial(_share_inside, share=lambda inside, all_: inside.mean()):
            "You average the weights inside. What share of the attention lies there is their sum.",
        partial(_share_inside, share=lambda inside, all_: torch.tensor(inside.numel() / all_.numel())):
            "This is the share of the cells, which knows nothing of attention: sum the weights of those cells.",
    },
    why="Compare it with the share of the picture that the box covers: only what goes beyond that says anything.",
)


# 4. Guess everything, then refine


def _largest_below(values: Tensor, limit: Tensor) -> Tensor:
    """Of the values below each limit the largest, −inf where there is none."""
    return torch.where(values < limit[:, None], values, -torch.inf).amax(1)


def _step(values, answers, below=_largest_below):
    return below(values, torch.cat([torch.tensor([torch.inf]), answers[:-1]]))


def _refine(values, guess, step=_step, most=None, idle=0):
    answers, count = guess, 0
    while most is None or count < most(guess):
        new = step(values, answers)
        if most is None and torch.equal(new, answers):
            break
        answers, count = new, count + 1
    return answers, count + idle


def _one_after_another(values, answers):
    answers = answers.clone()
    for k in range(len(answers)):
        limit = answers[k - 1] if k else torch.tensor(torch.inf)
        answers[k] = _largest_below(values, limit[None])[0]
    return answers


def _or_equal(values, limit):
    return torch.where(values <= limit[:, None], values, -torch.inf).amax(1)


check_refine = Check(
    "refine",
    solution=_refine,
    cases=[
        {"values": torch.tensor([3.0, 7.0, 1.0]), "guess": torch.full((4,), -torch.inf)},
        {"values": torch.tensor([3.0, 7.0, 1.0]), "guess": torch.tensor([7.0, 3.0, 1.0, -torch.inf])},
        {"values": torch.tensor([5.0, 2.0, 9.0, 4.0, 8.0]), "guess": torch.tensor([9.0, 0.0, 5.0, 4.0])},
        {"values": torch.tensor([2.0, 6.0]), "guess": torch.tensor([0.0, 0.0, 0.0])},
    ],
    mistakes={
        partial(_refine, step=_one_after_another):
            "You use each new answer at once, so one round does it all: that is decoding one after another. Within a "
            "step every place may see only the answers of the step before.",
        partial(_refine, idle=1):
            "Your count holds the last step as well, which changed nothing.",
        partial(_refine, most=len):
            "You always take as many steps as there are places. Stop as soon as a step changes nothing.",
        partial(_refine, most=lambda guess: 1):
            "One step is not enough: a place can be right only once the place before it is.",
        partial(_refine, step=partial(_step, below=_or_equal)):
            "Below means smaller, not equal: otherwise the largest value is said again and again.",
        lambda values, guess: _refine(values, guess)[::-1]:
            "Give the answers first, then the number of steps.",
        lambda values, guess: (values.sort(descending=True).values, 0):
            "Sorting gives the set, but it is not what is asked: guess, and refine step by step.",
    },
    why="It never takes more steps than there are places, and gives exactly what decoding one after another gives. "
    "That is what k ≤ m guarantees, in translation. DETR has no such guarantee, and needs none: see D9.",
)
