"""QueryExplorer in JupyterLab: Python hears what is chosen, and average precision outlives the kernel."""

from pathlib import Path

import pytest
from lab import python, run_all_cells, shut_down_kernel, wait_for_python, write_notebook

pytestmark = pytest.mark.slow

CODE = """
import minivis
from minivis.data.scenes import load_shipped_scenes
from minivis.widgets import QueryExplorer

explorer = QueryExplorer(minivis.load("detr-mini"), load_shipped_scenes(), scenes=[7, 24], evaluated=20, query=3)
explorer
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "queries.ipynb", CODE)


def precisions(page) -> list[float]:
    """What the page says: AP after each layer."""
    return page.eval_on_selector_all(".ap", "all => all.map((row) => Number(row.dataset.ap))")


def test_python_hears_what_is_chosen_and_precision_outlives_the_kernel(open_notebook, notebook):
    page = open_notebook(notebook)
    run_all_cells(page)
    page.wait_for_selector("[data-ap]")

    # From the browser to Python, also with keys that JupyterLab has other uses for.
    page.locator("[data-widget]").focus()
    for key in ("ArrowRight", "ArrowUp", "h", "x"):
        page.keyboard.press(key)
    wait_for_python(page, "[explorer.query, explorer.layer, explorer.head, explorer.dropped]", [4, 2, 0, [4]])
    page.get_by_label("scene", exact=True).select_option("1")
    wait_for_python(page, "explorer.scene", 1)
    assert page.locator(".jp-Notebook-cell").count() == 1, "no key was a command of JupyterLab"
    asked = "[explorer.average_precision(layer) for layer in (1, 2, 3)]"
    assert precisions(page) == pytest.approx(python(page, asked), abs=1e-6)

    # From Python to the browser.
    python(page, "[setattr(explorer, 'dropped', [3, 23]), setattr(explorer, 'layer', 3)]")
    page.wait_for_selector("[data-widget][data-dropped='3 23'][data-layer='3']")
    with_two_dropped = python(page, asked)
    assert precisions(page) == pytest.approx(with_two_dropped, abs=1e-6)

    # Without a kernel.
    shut_down_kernel(page)
    page.wait_for_function("!jupyterapp.shell.currentWidget.sessionContext.session?.kernel")
    page.locator("[data-widget]").focus()
    page.keyboard.press("x")
    page.wait_for_selector("[data-widget][data-dropped='3 4 23']")
    assert precisions(page) != pytest.approx(with_two_dropped, abs=1e-6)
    page.keyboard.press("x")
    page.wait_for_selector("[data-widget][data-dropped='3 23']")
    assert precisions(page) == pytest.approx(with_two_dropped, abs=1e-6)
