"""Exercises on DETR's decoder: the first self-attention, cross-attention, attention in a box, parallel decoding.

Mistakes are variants of a solution that can be bent: `partial(_read, scale=1)` forgets to divide by √d.
"""

# Below, a mistake stands on one line, and the message that then helps under it: no formatter knows this form.
# fmt: off

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minivis.checks.base import Check, Verdict


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# 1. What the first self-attention puts out


def _times(w, x):
    return w @ x


def _first_words(shift, w_v, b_v, w_o, b_o, num_queries, value_v=_times, value_o=_times, amount=1, rows=True):
    vector = value_o(w_o, amount * (value_v(w_v, shift) + b_v)) + b_o
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
        partial(_first_words, value_v=lambda w, x: x @ w, value_o=lambda w, x: x @ w):
            "Your matrices are transposed: PyTorch's Linear computes W x + b, with W of shape (out, in).",
        lambda *inputs: _first_words(*inputs).T:
            "Your answer lies on its side: a row for each query, (Q, d), please.",
        partial(_first_words, value_v=lambda w, x: x @ w):
            "You transpose W_v, and not W_o: PyTorch's Linear computes W x + b, both times.",
        partial(_first_words, value_o=lambda w, x: x @ w):
            "You transpose W_o, and not W_v: PyTorch's Linear computes W x + b, both times.",
        lambda shift, w_v, b_v, w_o, b_o, num_queries: torch.zeros(num_queries, len(shift)):
            "It says nothing, and yet not zeros: one vector, the same for all. Follow norm(0), the shift, to the end.",
        lambda shift, w_v, b_v, w_o, b_o, num_queries: (w_v @ shift + b_v).expand(num_queries, -1):
            "You stop at the values. The output projection comes after them: W_o y + b_o.",
        lambda shift, *inputs: shift + _first_words(shift, *inputs):
            "You add the normed content again. The layer adds what is heard to x later; asked is what is heard.",
        lambda *inputs: _first_words(*inputs, amount=1 / inputs[-1]):
            "You divide by the number of queries. Weights sum to 1 already: a mean of equal vectors is that vector.",
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


def _normed_ask(content, query):
    return torch.nn.functional.layer_norm(content, content.shape[-1:]) + query


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
        partial(_read, ask=_normed_ask):
            "You norm the content. In a decoder layer that is done before; here `content` is taken as it is.",
        partial(_read, key=lambda m, p: p):
            "Your keys are positions alone: a query could ask for where, but not for what is there.",
        lambda content, *inputs: content + _read(content, *inputs):
            "You add what was gathered to the content. The layer does so afterwards; asked is what is gathered.",
        partial(_read, value=lambda m, p: torch.eye(len(m))):
            "These are the weights. Use them: the values, weighed and summed, are what a query gathers.",
        lambda content, query, memory, positions: _read(content, query, memory, positions, scale=content.shape[-1]):
            "You divide by d. It is √d.",
        lambda content, query, memory, positions: _read(content, query, memory, positions, scale=len(memory) ** 0.5):
            "You divide by the root of the number of cells. d is the width of the vectors.",
        lambda content, query, memory, positions: (content + query) @ (memory + positions).T / 2 @ memory:
            "The softmax is missing: without it a query's weights do not sum to 1.",
        partial(_read, dim=0):
            "Your weights sum to 1 over the queries. Each query shares its attention out over the cells: the softmax "
            "goes over the last axis.",
    },
    why="The whole of cross-attention, but for the heads and their projections: a question made of place and content, "
    "put to all cells at once.",
)


# 3. How much of an attention map lies in a box


def _share_of_sum(inside, all_):
    return inside.sum() / all_.sum()


def _both(down, across):
    return down & across


def _share_inside(attention, box, middle=0.5, half=0.5, swap=False, share=_share_of_sum, combine=_both):
    rows, columns = attention.shape
    y, x = (torch.arange(rows) + middle) / rows, (torch.arange(columns) + middle) / columns
    cx, cy, w, h = box[[1, 0, 3, 2]] if swap else box
    inside = combine(((y - cy).abs() <= half * h)[:, None], ((x - cx).abs() <= half * w)[None])
    return share(attention[inside], attention)


def _as_corners(attention, box):
    left, top, right, bottom = box
    return _share_inside(attention, torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]))


def _as_corner_and_size(attention, box):
    left, top, w, h = box
    return _share_inside(attention, torch.stack([left + w / 2, top + h / 2, w, h]))


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
        partial(_share_inside, middle=1):
            "You ask for the right lower corner of each cell. Its middle lies half a cell before: column + 0.5.",
        _as_corner_and_size:
            "You take the first two numbers for a corner. They are the box's centre.",
        partial(_share_inside, combine=lambda down, across: down | across):
            "You take rows inside or columns inside, a cross of cells. A cell is inside if its row and its column are.",
        lambda attention, box: 100 * _share_inside(attention, box):
            "That is in percent. Asked is a number from 0 to 1.",
        lambda attention, box: 1 - _share_inside(attention, box):
            "That is the share outside.",
        partial(_share_inside, share=lambda inside, all_: inside.sum() / all_.numel()):
            "You divide by the number of all cells. The weights sum to 1 already: their sum inside is the share.",
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
    for _ in range(most(guess) if most else 2 * len(guess) + 2):
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


def _not_moved(values, answers):
    return _largest_below(values, answers)


def _short(answers):
    return answers[answers > -torch.inf]


class _Patience(TorchFunctionMode):
    """So many of torch's operations, and then an error: a loop that never ends would stop the notebook."""

    def __init__(self, operations: int):
        super().__init__()
        self.left = operations

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError(
                "this runs and runs. Does your loop ever see that nothing changed? −∞ − (−∞) is nan: "
                "compare by torch.equal(new, old). And `for _ in range(len(guess) + 1)` always ends"
            )
        return function(*args, **(kwargs or {}))


class _Patiently:
    """A student's function that is stopped if it does not come to an end."""

    def __init__(self, answer: Callable[..., Any], operations: int = 5000):
        self.answer, self.operations = answer, operations
        self.__code__ = getattr(answer, "__code__", None)  # by which the check finds the line

    def __call__(self, *inputs: Any) -> Any:
        with _Patience(self.operations):
            return self.answer(*inputs)


class _PatientCheck(Check):
    def verdict(self, answer: Any) -> Verdict:
        return super().verdict(_Patiently(answer) if callable(answer) else answer)


check_refine = _PatientCheck(
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
        partial(_refine, most=lambda guess: 1, idle=-1):
            "You stop after one step. Are old and new one tensor? Whoever changes the answers in place compares a "
            "tensor with itself. Make a new one in each step.",
        partial(_refine, step=_one_after_another, most=lambda guess: 1, idle=-1):
            "All answers are right and no step is counted: you change the guess in place, so that old and new are one "
            "tensor. Make a new one in each step, from the old answers alone.",
        partial(_refine, most=lambda guess: 1):
            "One step is not enough: a place can be right only once the place before it is.",
        partial(_refine, step=partial(_step, below=_or_equal)):
            "Below means smaller, not equal: otherwise the largest value is said again and again.",
        lambda values, guess: _refine(values, guess)[::-1]:
            "Give the answers first, then the number of steps.",
        lambda values, guess: _refine(values, torch.full_like(guess, -torch.inf)):
            "You start from −∞, whatever the guess. Start from the guess: a good one saves steps.",
        partial(_refine, step=_not_moved):
            "You did not move the answers on by one place, or the last one came round to place 0 (that is what roll "
            "does). Place k looks at what stood at place k − 1, and before place 0 stands ∞.",
        lambda values, guess: _refine(values, guess)[0]:
            "Give the number of steps as well: `return answers, steps`.",
        lambda values, guess: (_short(_refine(values, guess)[0]), _refine(values, guess)[1]):
            "Your answer is shorter than the guess. Every place answers; those with nothing to say say −∞.",
        lambda values, guess: (values.sort(descending=True).values, 0):
            "Sorting gives the set, but it is not what is asked: guess, and refine step by step.",
    },
    why="It never takes more steps than there are places, and gives exactly what decoding one after another gives. "
    "That is what k ≤ m guarantees, in translation. DETR's layers guarantee nothing of the kind: under D9 AP fell when "
    "the last of them was run again.",
)
