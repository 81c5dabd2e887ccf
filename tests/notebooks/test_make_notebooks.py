"""What `make notebooks` does, on small notebooks, and that its complaints find what they are for."""

from pathlib import Path

import make_notebooks
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="

DIVISION = new_output("error", ename="ZeroDivisionError", evalue="by zero")


def notebook_of(*cells):
    """A notebook whose code cells were executed in order."""
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return new_notebook(cells=list(cells))


def code(source: str, *outputs, **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


def printed(text: str, name: str = "stdout"):
    return new_output("stream", name=name, text=text)


def shown(data: dict, **metadata):
    return new_output("display_data", data=data, metadata=metadata)


def test_a_good_notebook_has_no_complaints():
    notebook = notebook_of(
        new_markdown_cell("# Title\n![a street](street.png) <img src='a.png' alt='a cat'>"),
        code("%matplotlib inline\nx = 3"),
        code("print(x)", printed("3\n")),
        code("figure", shown({"image/png": PNG, "text/plain": "<Figure>"}, **{"image/png": {"alt": "line"}})),
        code("widget", shown({"image/png": PNG, "text/plain": "Matching of 3 queries to 2 objects"})),
        code("1 / 0", DIVISION, tags=["raises-exception"]),
        code("%%time\nprint(1)"),
        code("if False:\n    print(1)"),
    )
    assert make_notebooks.complaints(notebook) == []


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (new_markdown_cell("![](a.png)"), "no alt text"),
        (new_markdown_cell("![ ](a.png)"), "no alt text"),
        (new_markdown_cell('<img src="a.png">'), "no alt text"),
        (new_markdown_cell('<img src="a.png" alt="">'), "no alt text"),
        (code("print(1)"), "output is missing"),
        (code("%pip list\nx = 1\nx"), "output is missing"),
        (code("display(figure)"), "output is missing"),
        (code("show(figure, 'a line')"), "output is missing"),
        (code("drawing.show()"), "output is missing"),
        (code("show_source(f)"), "output is missing"),
        (code("check_giou(giou)"), "output is missing"),
        (code("MatchingExplorer(model)"), "output is missing"),
        (code("f()", printed("no", "stderr")), "stderr"),
        (code("1 / 0", DIVISION), "ZeroDivisionError"),
        (code("f()", shown({"text/html": "<b>", "text/plain": "b"})), "text/html"),
        (code("f()", shown({"image/png": PNG, "text/plain": "<Figure size 2x2>"})), "no alt text"),
        (code("f()", shown({"image/png": PNG})), "no alt text"),
        (code("f()", printed("saved /home/ann/x.png")), "a machine's path: /home/"),
        (code("f()", printed("C:\\Users")), "a machine's path"),
        (code("f()", shown({"text/plain": "<A at 0x7f00aa11bb22>"})), "a memory address"),
        (code("f()", printed("UserWarning: beware")), "a warning"),
        (code("f()", printed(" 50%|####    | 1/2 [00:01<00:01, 1.0it/s]")), "a progress bar"),
    ],
)
def test_complaints_find(cell, complaint: str):
    found = make_notebooks.complaints(notebook_of(new_markdown_cell("# Title"), cell))
    assert len(found) == 1 and complaint in found[0] and found[0].startswith("cell 2: ")


def test_complaints_find_what_was_not_executed_in_order():
    notebook = notebook_of(code("x = 1"), code("y = 2"))
    for counts in ([None, None], [2, 1], [1, 3]):
        for cell, count in zip(notebook.cells, counts, strict=True):
            cell.execution_count = count
        assert "not executed" in make_notebooks.complaints(notebook)[0]


def test_complaints_find_widget_state():
    notebook = notebook_of(code("x = 1"))
    notebook.metadata["widgets"] = {"state": {}}
    assert "widget state" in make_notebooks.complaints(notebook)[0]


SOURCE = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A title

# %%
import sys

if "google.colab" in sys.modules:
    # %pip install --quiet something
    pass


class Widget:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": "a widget", "application/vnd.jupyter.widget-view+json": {"model_id": "1"}}


# %%
Widget()

# %% tags=["raises-exception"]
raise ValueError("no such shape")
"""


def test_make_executes_cleans_and_pairs(tmp_path: Path):
    source = tmp_path / "01_title.py"
    source.write_text(SOURCE)

    assert make_notebooks.make(source) == []

    assert source.read_text() == SOURCE
    notebook = make_notebooks.read(source.with_suffix(".ipynb"))
    assert make_notebooks.as_script(notebook) == SOURCE
    assert "\n    %pip install" in notebook.cells[1].source  # a magic again, where it runs
    assert notebook.cells[2].outputs[0].data == {"text/plain": "a widget"}
    assert notebook.cells[3].outputs[0].traceback == []
    assert notebook.cells[3].metadata == {"tags": ["raises-exception"]}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}

    first = source.with_suffix(".ipynb").read_bytes()
    assert make_notebooks.make(source) == []
    assert source.with_suffix(".ipynb").read_bytes() == first  # nothing changes where nothing changed


def test_make_brings_the_source_into_one_form(tmp_path: Path):
    source = tmp_path / "01_title.py"
    source.write_text("# %% [markdown]\n# # A title\n# %%\nx = 1\n# %% extra=3\ny = 2\n")
    assert make_notebooks.make(source) == []
    notebook = make_notebooks.read(source.with_suffix(".ipynb"))
    assert make_notebooks.as_script(notebook) == source.read_text()
    assert "\n\n# %%\nx = 1\n\n# %%\ny = 2\n" in source.read_text()
    assert [cell.metadata for cell in notebook.cells] == [{}, {}, {}]


def test_make_states_the_time_it_took(tmp_path: Path, capsys):
    source = tmp_path / "01_title.py"
    source.write_text(
        "# %% [markdown]\n# # A title\n#\n# The cells run in about 3 minutes on two CPU cores.\n"
    )
    assert make_notebooks.make(source) == []
    assert "The cells run in under a minute on two CPU cores." in source.read_text()
    assert "its header now says" in capsys.readouterr().out


def test_make_writes_no_notebook_that_does_not_run(tmp_path: Path):
    source = tmp_path / "01_title.py"
    source.write_text("# %%\nprint(undefined)\n")
    [complaint] = make_notebooks.make(source)
    assert "NameError" in complaint and "not written" in complaint
    assert not source.with_suffix(".ipynb").exists()
