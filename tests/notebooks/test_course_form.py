"""What tools/course.py finds missing in a notebook: its minutes, its parts, its quiz, its exercises."""

import course
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

HEADER = """\
# Matching

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/\
minivis/minivis/blob/main/notebooks/04_matching.ipynb)

**Time:** about 40 minutes to read; the cells run in about 2 minutes on two CPU cores.
**You need:** notebook 03. The document treats it in its section on the loss.

When you have finished this page you can

1. match by hand;
2. match by scipy;
3. say why.
"""

PARTS = """\
## Setup
## The question
**Predict before you run.** How many?
## Symbols and shapes
## A matching by hand
## Build it: the cost
## What the document says
## Train it
## Break it: no matching
## Look inside
## Real weights
## Exercises
## In short
## A quiz
**References.** Carion et al.
**Next:** notebook 05.
"""

QUIZ = """\
**1. Why is the sky blue?**

<details><summary>a) It is the sea's mirror</summary>

**Not quite.** It is blue above deserts, too.
</details>
<details><summary>b) Short waves scatter more</summary>

**Right.** By the fourth power of the wavelength.
</details>
"""
QUIZ += (
    QUIZ.replace("1. ", "2. ")
    .replace("Right", "Wrong")
    .replace("Not quite", "Right")
    .replace("Wrong", "Not quite")
)
QUIZ += QUIZ.split("**2. ")[0].replace("1. ", "3. ")

STUB = 'def giou(a, b):\n    """Of two boxes."""\n    raise NotImplementedError'
CHECK = "from minivis.checks.matching import check_giou\n\ncheck_giou(giou)"


def lesson(
    header=HEADER, parts=PARTS, quiz=QUIZ, task="### Two boxes (5 minutes)", stub=STUB, check=CHECK, said=None
):
    said = "giou: not attempted\n" if said is None else said
    cells = [new_markdown_cell(text) for text in (header, parts, quiz, task)]
    cells += [
        new_code_cell(stub),
        new_code_cell(check, outputs=[new_output("stream", name="stdout", text=said)]),
    ]
    return new_notebook(cells=cells)


def test_a_lesson_in_the_form_of_the_course_lacks_nothing():
    assert course.complaints(lesson(), "04_matching") == []


def test_headings_may_be_worded_freely():
    parts = PARTS.replace("## A matching by hand", "### Three by three, by hand").replace("In short", "Recap")
    assert course.complaints(lesson(parts=parts), "04_matching") == []


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (dict(header=HEADER.replace("04_matching.ipynb", "05_other.ipynb")), "a badge"),
        (dict(header=HEADER.replace("**You need:**", "Read first:")), "You need"),
        (dict(header=HEADER.replace("document", "paper")), "document"),
        (dict(header=HEADER.replace("3. say why.", "")), "objectives"),
        (dict(header=HEADER.replace("3. say", "3. a\n4. b\n5. c\n6. say")), "objectives"),
        (dict(header=HEADER.replace("about 2 minutes on", "not long on")), "cells run in about N minutes"),
        (dict(parts=PARTS.replace("## Break it: no matching", "")), "'Break it'"),
        (dict(parts=PARTS.replace("**Predict before you run.**", "So,")), "'Predict before you run'"),
        (dict(quiz=QUIZ.split("**2. ")[0]), "the quiz has 1 questions"),
        (dict(quiz=QUIZ.replace("**3. ", "**4. ")), "numbered [1, 2, 4]"),
        (dict(quiz=QUIZ.replace("b) Short", "c) Short", 1)), "question 1 has the answers 'ac'"),
        (dict(quiz=QUIZ.replace("a) It", "It", 1)), "question 1 has the answers 'b'"),
        (
            dict(quiz=QUIZ.replace("mirror</summary>\n\n", "mirror</summary>\n", 1)),
            "question 1 has the answers 'b'",
        ),
        (dict(quiz=QUIZ.replace("**Not quite.**", "**Right.**", 1)), "question 1 has 2 answers that begin"),
        (
            dict(quiz=QUIZ.replace("It is blue above deserts, too.", "No.", 1)),
            "question 1, answer a: begin with",
        ),
        (
            dict(quiz=QUIZ.replace("**Not quite.** It is blue", "It is just as blue", 1)),
            "question 1, answer a: begin",
        ),
        (dict(stub=STUB.replace("boxes.", "boxes" + 100 * "!")), "a line of"),
        (dict(task="### Two boxes"), "giou gives no minutes"),
        (dict(stub="x = 1"), "check_giou has no call with a function that is defined above it"),
        (dict(stub=STUB.replace("raise NotImplementedError", "return 1")), "giou is no stub"),
        (dict(said="giou: right. Good.\n"), "'giou: right. Good.\\n', expected: not attempted"),
        (dict(check="print(giou)", said=""), "there is no exercise"),
    ],
)
def test_what_is_missing_is_named(changed: dict, complaint: str):
    [found] = course.complaints(lesson(**changed), "04_matching")
    assert complaint in found


def test_a_quiz_whose_answer_is_always_b_is_noticed():
    question = QUIZ.split("**2. ")[0]
    quiz = "".join(question.replace("1. ", f"{number}. ") for number in (1, 2, 3))
    assert course.quiz_complaints(lesson(quiz=quiz)) == ["the right answer is always b"]


def in_header(words: str):
    return lesson(header=HEADER.replace("about 2 minutes", words))


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("under a minute", 30), ("about a minute", 60), ("about 2 minutes", 120), ("about 1.5 minutes", 90)],
)
def test_the_header_is_read(words: str, seconds: float):
    assert course.stated_seconds(in_header(words)) == seconds


@pytest.mark.parametrize(
    ("words", "measured", "becomes"),
    [
        ("under a minute", 5, "under a minute"),
        ("under a minute", 80, "under a minute"),
        ("under a minute", 95, "about 1.5 minutes"),
        ("about 2 minutes", 100, "about 2 minutes"),
        ("about 2 minutes", 65, "about a minute"),
        ("about 2 minutes", 20, "under a minute"),
        ("about 1.5 minutes", 170, "about 3 minutes"),
    ],
)
def test_the_header_is_written_anew_before_it_is_wrong_by_a_factor_of_two(
    words: str, measured: float, becomes: str
):
    notebook = in_header(words)
    assert course.state_seconds(notebook, measured) == (becomes != words)
    assert f"the cells run in {becomes} on two CPU cores." in notebook.cells[0].source
    assert not course.state_seconds(notebook, measured)  # and then it stays


def test_a_notebook_that_states_no_time_is_left_alone():
    notebook = new_notebook(cells=[new_markdown_cell("# A title")])
    assert not course.state_seconds(notebook, 100)
    assert notebook.cells[0].source == "# A title"
