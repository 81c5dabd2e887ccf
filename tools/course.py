"""The form of the course's notebooks: their minutes, the parts they are made of, their quiz and their exercises.

Each function says what is missing, in words for the author; tests/notebooks wants nothing missing.
"""

import ast
import re
from typing import NamedTuple

from nbformat import NotebookNode

# What a notebook has a heading for, or a paragraph that begins in bold, and the words one knows it by.
PARTS = {
    "Setup": "setup",
    "The question": "question",
    "Predict before you run": "predict",
    "Symbols and shapes": "symbols?|shapes",
    "By hand": "by hand",
    "Build it": "build",
    "What the document says": "document|claims?",
    "Train it": "train",
    "Break it": "break|broken",
    "Look inside": "inside",
    "Real weights": "real weights",
    "Exercises": "exercises",
    "In short": "in short|recap",
    "Quiz": "quiz",
    "References": "references?",
    "Next": "next",
}

# What the title's cell says. `make notebooks` writes the minutes anew when they are no longer true.
HEADER = {
    "a badge that opens it in Colab": r"colab\.research\.google\.com/github/\S+/notebooks/{name}\.ipynb",
    "**Time:** ...": r"\*\*Time:\*\*",
    "**You need:** ...": r"\*\*You need:\*\*",
    "where the document treats it": r"\bdocument\b",
    "3 to 5 objectives, numbered": r"(?s)\n1\. .*\n3\. (?!.*\n6\. )",
}
MINUTES = re.compile(r"cells run in (under a minute|about a minute|about ([\d.]+) minutes) on two CPU cores")

WIDEST = 105  # characters of a code cell that JupyterLab shows beside its file browser

RIGHT, WRONG = "**Right.**", "**Not quite.**"
QUESTION = re.compile(r"^\*\*(\d+)\. .+\*\*$", re.MULTILINE)
ANSWER = re.compile(r"<details><summary>(\w)\) (.+)</summary>\n\n((?:.|\n)+?)\n</details>")


def complaints(notebook: NotebookNode, name: str) -> list[str]:
    """What the form asks for and this notebook does not have."""
    header = notebook.cells[0].source
    found = [
        f"the title's cell lacks {what}"
        for what, pattern in HEADER.items()
        if not re.search(pattern.format(name=name), header)
    ]
    if stated_seconds(notebook) is None:
        found.append("the title's cell does not say: the cells run in about N minutes on two CPU cores")
    signposts = " / ".join(
        line.lower()
        for cell in _texts(notebook)
        for line in re.findall(r"^(?:#+ .+|\*\*.+?\*\*)", cell, re.MULTILINE)
    )
    found += [
        f"there is no heading {part!r}, nor one with its words ({words})"
        for part, words in PARTS.items()
        if not re.search(rf"\b(?:{words})\b", signposts)
    ]
    return found + wide_lines(notebook) + quiz_complaints(notebook) + exercise_complaints(notebook)


def wide_lines(notebook: NotebookNode) -> list[str]:
    """Lines of code that a reader would have to scroll for."""
    return [
        f"cell {number}: a line of {len(line)} characters, expected at most {WIDEST}: {line.strip()[:50]}..."
        for number, cell in enumerate(notebook.cells, start=1)
        for line in (cell.source.splitlines() if cell.cell_type == "code" else [])
        if len(line) > WIDEST
    ]


def _texts(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


# Minutes


def stated_seconds(notebook: NotebookNode) -> float | None:
    """What the header says the cells take."""
    match = MINUTES.search(notebook.cells[0].source)
    if match is None:
        return None
    return 60 * float(match[2]) if match[2] else {"under a minute": 30.0, "about a minute": 60.0}[match[1]]


def times_off(stated: float, measured: float) -> float:
    """How many times one is the other, at least 1. Under a minute is right for all that is under a minute."""
    if stated < 60 and measured < 60:
        return 1.0
    stated = max(stated, 60) if measured > stated else stated
    return max(stated / measured, measured / stated)


def state_seconds(notebook: NotebookNode, measured: float) -> bool:
    """Writes a measured time into the header, unless what stands there is near enough. Returns whether it did."""
    stated = stated_seconds(notebook)
    if stated is None or times_off(stated, measured) < 1.5:  # well before it is wrong by a factor of two
        return False
    minutes = round(2 * measured / 60) / 2
    words = (
        "under a minute"
        if measured < 50
        else "about a minute"
        if minutes <= 1
        else f"about {minutes:g} minutes"
    )
    cell = notebook.cells[0]
    cell.source = MINUTES.sub(f"cells run in {words} on two CPU cores", cell.source)
    return True


# Quiz


def quiz_complaints(notebook: NotebookNode) -> list[str]:
    """A quiz is text, so that it works everywhere: each answer unfolds what is right or wrong with it.

    **1. Two queries lie on one object. What does the loss ask of the second?**

    <details><summary>a) The object as well</summary>

    **Not quite.** Each object is matched once.
    </details>
    <details><summary>b) "No object"</summary>

    **Right.** That is what keeps duplicates away.
    </details>
    """
    found, rights = [], []
    text = "\n".join(_texts(notebook))
    questions = list(QUESTION.finditer(text))
    if not 3 <= len(questions) <= 8:
        found.append(f"the quiz has {len(questions)} questions (**1. ...?**), expected 3 to 8")
    if (numbers := [int(question[1]) for question in questions]) != list(range(1, len(questions) + 1)):
        found.append(f"the quiz's questions are numbered {numbers}")
    ends = [question.start() for question in questions[1:]] + [len(text)]
    for question, end in zip(questions, ends):
        answers = ANSWER.findall(text[question.end() : end])
        letters = "".join(letter for letter, _, _ in answers)
        if letters not in ("ab", "abc", "abcd", "abcde"):
            found.append(f"question {question[1]} has the answers {letters!r}, expected a) to e) or fewer")
        right = [letter for letter, _, why in answers if why.startswith(RIGHT)]
        rights += right[:1]
        if len(right) != 1:
            found.append(
                f"question {question[1]} has {len(right)} answers that begin with {RIGHT}, expected one"
            )
        for letter, _, why in answers:
            said = why.removeprefix(RIGHT).removeprefix(WRONG).strip()
            if said == why or len(said) < 20:
                found.append(
                    f"question {question[1]}, answer {letter}: begin with {RIGHT} or {WRONG}, and say why"
                )
    if len(rights) > 2 and len(set(rights)) == 1:
        found.append(f"the right answer is always {rights[0]}")
    return found


# Exercises


class Exercise(NamedTuple):
    """A cell with a function to write, the cell that checks it, and what that one printed."""

    name: str
    check: str
    module: str
    stub: str
    minutes: bool
    printed: str


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """All cells like `from minivis.checks.matching import check_giou` and `check_giou(giou)`, each with its stub."""
    found, stubs, text = [], {}, ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = cell.source
        elif cell.cell_type == "code":
            stubs |= dict.fromkeys(re.findall(r"^def (\w+)\(", cell.source, re.MULTILINE), cell.source)
            for module, check in re.findall(
                r"^from (minivis\.checks\.\w+) import (check_\w+)$", cell.source, re.MULTILINE
            ):
                [name] = re.findall(rf"^{check}\((\w+)\)$", cell.source, re.MULTILINE) or [""]
                printed = "".join(output.get("text", "") for output in cell.outputs)
                minutes = re.search(r"^#+ .*\(\d+ minutes?\)", text, re.MULTILINE) is not None
                found.append(Exercise(name, check, module, stubs.get(name, ""), minutes, printed))
    return found


def exercise_complaints(notebook: NotebookNode) -> list[str]:
    found = []
    for exercise in (given := exercises(notebook)):
        if not exercise.stub:
            found.append(f"{exercise.check} has no call with a function that is defined above it")
        elif not _is_stub(exercise):
            found.append(f"the exercise {exercise.name} is no stub: it ends in `raise NotImplementedError`")
        if not exercise.minutes:
            found.append(f"the heading above the exercise {exercise.name} gives no minutes: (10 minutes)")
        if exercise.printed != f"{exercise.name}: not attempted\n":
            found.append(
                f"the committed check of {exercise.name} says {exercise.printed!r}, expected: not attempted"
            )
    return (
        found if given else ["there is no exercise with a check: from minivis.checks.TOPIC import check_NAME"]
    )


def _is_stub(exercise: Exercise) -> bool:
    for statement in ast.parse(exercise.stub).body:
        if isinstance(statement, ast.FunctionDef) and statement.name == exercise.name:
            return ast.unparse(statement.body[-1]) == "raise NotImplementedError"
    return False
