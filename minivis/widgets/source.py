"""The package's own code, shown where it is talked about: never pasted, so never out of date."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from pygments import lex
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, String

import minivis

PACKAGE = Path(minivis.__file__).parent

# Colours that a terminal, JupyterLab, Colab and GitHub all know in plain text; readable on white and on black.
COLOURS = {
    Keyword: "1",  # bold
    Name.Function: "1;38;5;32",  # blue
    Name.Class: "1;38;5;32",
    Name.Decorator: "38;5;32",
    String: "38;5;132",  # purple
    Comment: "38;5;65",  # green
}


def show_source(
    thing: Callable, docstring: bool = True, first: str | None = None, last: str | None = None
) -> None:
    """Print the code of a function, a class or a method of minivis, in colour, below the name of its file.

    Args:
        thing: for example `HungarianMatcher` or `HungarianMatcher.cost`.
        docstring: False leaves out docstrings.
        first: show only from the first line that contains this text,
        last: to the next line that contains this one, both included.

    Raises:
        ValueError: if `thing` is not minivis's own, or no line contains `first` or `last`.
    """
    print(coloured(source_of(thing, docstring, first, last)))


def source_of(
    thing: Callable, docstring: bool = True, first: str | None = None, last: str | None = None
) -> str:
    """What `show_source` prints, without the colours: the same on every machine."""
    thing = inspect.unwrap(thing)
    file = Path(inspect.getsourcefile(thing))
    if not file.is_relative_to(PACKAGE):
        raise ValueError(f"show_source shows minivis's own code, and {thing.__module__} is not of minivis")
    code = textwrap.dedent(inspect.getsource(thing))
    if not docstring:
        code = without_docstrings(code)
    if first is not None or last is not None:
        code = between(code, first, last, where=thing.__qualname__)
    return f"# {file.relative_to(PACKAGE.parent).as_posix()}\n{code.rstrip()}"


def without_docstrings(code: str) -> str:
    """The code without its docstrings, and without the empty line after each."""
    lines = code.splitlines()
    drop = set()
    for node in ast.walk(ast.parse(code)):
        if (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and ast.get_docstring(node)
            and len(node.body) > 1
        ):
            begin, end = node.body[0].lineno, node.body[0].end_lineno
            drop |= {*range(begin - 1, end)} | ({end} if not lines[end].strip() else set())
    return "\n".join(line for number, line in enumerate(lines) if number not in drop)


def between(code: str, first: str | None, last: str | None, where: str) -> str:
    """The lines from `first` to `last`; `...` stands for those left out before and after."""
    lines = code.splitlines()
    begin = _find(first, lines, 0, where) if first is not None else 0
    end = _find(last, lines, begin, where) if last is not None else len(lines) - 1
    shown = lines[begin : end + 1]
    shown = _dots(shown[0], begin > 0) + shown + _dots(shown[-1], end < len(lines) - 1)
    return textwrap.dedent("\n".join(shown))


def _find(text: str, lines: list[str], start: int, where: str) -> int:
    for number in range(start, len(lines)):
        if text in lines[number]:
            return number
    raise ValueError(
        f"no line of {where} contains {text!r}" + (" after the first line shown" if start else "")
    )


def _dots(beside: str, needed: bool) -> list[str]:
    return [" " * (len(beside) - len(beside.lstrip())) + "..."] * needed


def coloured(code: str) -> str:
    """Python code with ANSI colours."""
    tokens = lex(code, PythonLexer(stripnl=False, ensurenl=False))
    runs = groupby(
        tokens, key=lambda token: next((COLOURS[kind] for kind in COLOURS if token[0] in kind), "")
    )
    text = [(colour, "".join(value for _, value in run)) for colour, run in runs]
    return "".join(f"\x1b[{colour}m{value}\x1b[0m" if colour else value for colour, value in text)
