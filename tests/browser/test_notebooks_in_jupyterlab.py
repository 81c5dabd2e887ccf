"""Every notebook in JupyterLab, from first cell to last: no cell fails, the console is clean, each widget is alive."""

import json
from pathlib import Path

import make_notebooks
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.lab, pytest.mark.timeout(1800)]

NOTEBOOKS = sorted((make_notebooks.ROOT / "notebooks").glob("*.ipynb"))
WAIT = 1_500_000  # milliseconds

# What became of each code cell: its tags, the kinds of its outputs, and the errors among them.
CELLS = """() => jupyterapp.shell.currentWidget.content.model.toJSON().cells
    .filter(({ cell_type }) => cell_type === "code")
    .map(({ metadata, outputs }) => ({
        tags: metadata.tags ?? [],
        widgets: outputs.filter(({ data }) => data?.["application/vnd.jupyter.widget-view+json"]).length,
        errors: outputs.filter(({ output_type }) => output_type === "error").map((o) => o.traceback.join("\\n")),
    }))"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_in_jupyterlab(open_notebook, path: Path):
    page = open_notebook(path)
    page.set_default_timeout(WAIT)
    page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        "() => jupyterapp.shell.currentWidget.content.model.toJSON().cells"
        ".filter((cell) => cell.cell_type === 'code' && cell.source).every((cell) => cell.execution_count)"
    )
    cells = page.evaluate(CELLS)
    failed = [cell["errors"] for cell in cells if cell["errors"] and "raises-exception" not in cell["tags"]]
    assert failed == []
    widgets = sum(cell["widgets"] for cell in cells)
    page.wait_for_function(f"() => document.querySelectorAll('[data-widget]').length === {widgets}")
    kinds = page.eval_on_selector_all("[data-widget]", "all => all.map((widget) => widget.dataset.widget)")
    assert all(kinds), "each widget says what it is"
    shown = page.eval_on_selector_all(
        "[data-widget]", "all => all.map((widget) => widget.getBoundingClientRect().height)"
    )
    assert all(height > 50 for height in shown), json.dumps(dict(zip(kinds, shown)))
