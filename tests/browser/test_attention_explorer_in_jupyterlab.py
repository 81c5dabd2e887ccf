"""AttentionExplorer in JupyterLab: Python hears what is chosen, and the maps outlive the kernel."""

from pathlib import Path

import pytest
from lab import python, run_all_cells, shut_down_kernel, wait_for_python, write_notebook

pytestmark = pytest.mark.slow

CODE = """
import torch
from PIL import Image
from minivis.widgets import AttentionExplorer

maps = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)).softmax(-1)
explorer = AttentionExplorer(Image.new("RGB", (64, 48), "#345"), maps, (3, 4), 16, token=0)
explorer
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "attention.ipynb", CODE)


def test_python_hears_what_is_chosen_and_the_maps_outlive_the_kernel(open_notebook, notebook):
    page = open_notebook(notebook)
    run_all_cells(page)
    page.wait_for_selector("[data-ready]")

    # From the browser to Python, also with keys that JupyterLab has other uses for.
    page.locator(".holder canvas").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    wait_for_python(page, "explorer.token", 9)
    page.locator(".tile[data-head='2']").click()
    page.get_by_label("layer 2").check()
    wait_for_python(page, "[explorer.layer, explorer.head]", [1, 2])
    assert page.locator(".jp-Notebook-cell").count() == 1, "no key was a command of JupyterLab"

    # From Python to the browser.
    python(page, "[setattr(explorer, 'token', 3), setattr(explorer, 'head', -1)]")
    page.wait_for_selector("[data-widget][data-token='3'][data-head='-1'][data-layer='1']")

    # Without a kernel.
    shut_down_kernel(page)
    page.wait_for_function("!jupyterapp.shell.currentWidget.sessionContext.session?.kernel")
    page.locator(".holder canvas").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[data-widget][data-token='2']")
    largest = page.get_attribute("[data-widget]", "data-largest")
    page.get_by_label("layer 1").check()
    page.wait_for_selector("[data-widget][data-layer='0']")
    assert page.get_attribute("[data-widget]", "data-largest") != largest
