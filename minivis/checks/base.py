"""The machinery of exercises: run a student's function, and say what would help.

A check knows the right answer, inputs to try it on, and typical mistakes as functions that make them. Whoever computes
what such a function computes has made its mistake, however their own code looks; then its message is what helps.
"""

import textwrap
import traceback
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-4  # absolute and relative
LINE = 100  # characters
LARGEST_SHOWN = 16  # numbers; of a larger tensor only the shape is shown


class Verdict(NamedTuple):
    """What came out of a check."""

    status: str  # "not attempted", "wrong" or "right"
    message: str = ""
    case: str = ""  # the input that shows it, with what came out

    @property
    def right(self) -> bool:
        """Whether the exercise is solved."""
        return self.status == "right"


@dataclass(frozen=True)
class Check:
    """An exercise's check. Called with the student's function, it prints one of: not attempted, wrong, right.

    Args:
        name: what the function is called in the exercise.
        solution: a function that is right. An untouched stub, which is neither right nor wrong, ends in a bare
            `raise NotImplementedError`, or returns `...`.
        cases: inputs by name, passed in this order; the simplest first, since it is the one that is shown.
        mistakes: for each function that makes a typical mistake, the message that then helps.
        why: one sentence for those who got it right: what it is good for.
    """

    name: str
    solution: Callable[..., Any]
    cases: Sequence[dict[str, Any]]
    mistakes: dict[Callable[..., Any], str]
    why: str

    def __call__(self, answer: Any) -> None:
        """Print the verdict on a student's function."""
        verdict = self.verdict(answer)
        told = ". ".join(filter(None, [f"{self.name}: {verdict.status}", verdict.message]))
        print(*textwrap.wrap(told, LINE, break_on_hyphens=False), *verdict.case.splitlines(), sep="\n")

    def verdict(self, answer: Any) -> Verdict:
        """The verdict as a value, for those who grade with it."""
        if not callable(answer):
            return Verdict("wrong", "Give the check your function itself, without brackets after its name.")
        results, changed = [], []
        for case in self.cases:
            inputs = deepcopy(case)
            try:
                result = answer(*inputs.values())
            except Exception as error:
                if isinstance(error, NotImplementedError) and not error.args:  # torch's own say more
                    return Verdict("not attempted")
                message = f"It stops with {type(error).__name__}: {str(error).rstrip('.')}."
                return Verdict("wrong", message, _where_it_stops(error, answer) + _as_lines(case))
            if result is ...:
                return Verdict("not attempted")
            if result is None:
                return Verdict("wrong", "Your function returns nothing: is there a `return` at its end?")
            results.append(result)
            changed += [name for name in case if not _same(inputs[name], case[name])]

        if not self._agrees(results, self.solution):
            return self._what_is_wrong(results)
        if changed:
            return Verdict(
                "wrong",
                f"The answer is right, but your function changes its input `{changed[0]}`, which others still need: "
                f"work on a copy (`{changed[0]} = {changed[0]}.clone()`).",
            )
        return Verdict("right", self.why)

    def _agrees(self, results: list, function: Callable[..., Any]) -> bool:
        return all(
            _same(result, function(*deepcopy(case).values())) for result, case in zip(results, self.cases)
        )

    def _only_the_form(self, results: list) -> Verdict | None:
        """The verdict where all numbers are right, one by one, but are not given as they should be."""
        for result, case in zip(results, self.cases):
            expected = self.solution(*deepcopy(case).values())
            if not _same(_flat(result), _flat(expected)):
                return None
        given, wanted = _form(results[0]), _form(self.solution(*deepcopy(self.cases[0]).values()))
        if given == wanted:
            return None
        return Verdict(
            "wrong", f"The numbers are right, but not their form: you give {given}, expected is {wanted}."
        )

    def _what_is_wrong(self, results: list) -> Verdict:
        """The message of the mistake that was made, if it is a known one, and the first case that shows it."""
        known = (message for mistake, message in self.mistakes.items() if self._agrees(results, mistake))
        message = next(known, None)
        if message is None and (form := self._only_the_form(results)) is not None:
            return form
        message = message or "Work this case out by hand, and compare."
        for result, case in zip(results, self.cases):
            expected = self.solution(*deepcopy(case).values())
            if not _same(result, expected):
                return Verdict("wrong", message, _as_lines(case | {"yours": result, "expected": expected}))
        raise AssertionError("nothing is wrong")


def _same(a: Any, b: Any) -> bool:
    """Equal in structure, and in numbers up to a tolerance; lists, tuples and tensors are all alike."""
    if isinstance(b, tuple):
        return isinstance(a, tuple | list) and len(a) == len(b) and all(map(_same, a, b))
    try:
        a, b = _as_tensor(a), _as_tensor(b)
    except (TypeError, ValueError, RuntimeError):
        return False
    return a.shape == b.shape and torch.allclose(a, b, TOLERANCE, TOLERANCE, equal_nan=True)


def _flat(value: Any) -> Any:
    """All numbers of a value in a row; the value itself where it holds something else."""
    try:
        parts = [
            _as_tensor(part).flatten() for part in (value if isinstance(value, tuple | list) else (value,))
        ]
    except (TypeError, ValueError, RuntimeError):
        return value
    return torch.cat(parts) if parts else torch.zeros(0)


def _form(value: Any) -> str:
    """In words: a number, a tensor of some shape, or several of them."""
    if isinstance(value, tuple):
        return f"{len(value)} values ({', '.join(map(_form, value))})"
    try:
        shape = tuple(_as_tensor(value).shape)
    except (TypeError, ValueError, RuntimeError):
        return f"a {type(value).__name__}"
    return f"numbers of shape {shape}" if shape else "one number"


def _as_tensor(value: Any) -> Tensor:
    return torch.as_tensor(value).detach().cpu().double()


def _where_it_stops(error: Exception, answer: Callable[..., Any]) -> str:
    """The last of the student's own lines that ran."""
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"  in your line: {lines[-1]}\n" if lines and lines[-1] else ""


def _as_lines(values: dict[str, Any]) -> str:
    width = max(map(len, values))
    return "\n".join(f"  {name:{width}} = {_in_small(value, width + 6)}" for name, value in values.items())


def _in_small(value: Any, indent: int) -> str:
    """A value on one line; a matrix on one line a row; of what is large, its shape."""
    if isinstance(value, tuple):
        return "(" + ", ".join(_in_small(item, indent) for item in value) + ")"
    try:
        tensor = _as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return repr(value)[:100]
    if tensor.numel() > LARGEST_SHOWN:
        return f"numbers of shape {tuple(tensor.shape)}"
    if tensor.ndim == 2:
        rows = [_in_small(row, indent) for row in tensor]
        return "[" + (",\n" + " " * indent).join(rows) + "]"
    return _rounded(tensor.tolist())


def _rounded(numbers: Any) -> str:
    if isinstance(numbers, list):
        return "[" + ", ".join(map(_rounded, numbers)) + "]"
    return f"{numbers:.4g}"
