"""PanopticExplorer in JupyterLab: Python hears what is chosen, and segments and PQ outlive the kernel."""

from pathlib import Path

import pytest
from lab import python, run_all_cells, shut_down_kernel, wait_for_python, write_notebook
from pages import dataset

pytestmark = pytest.mark.slow

CODE = """
import torch
from minivis.data.scenes import load_shipped_scenes
from minivis.detr.panoptic import detr_mini_panoptic
from minivis.widgets import PanopticExplorer

torch.manual_seed(0)
model = detr_mini_panoptic(10).eval()
with torch.no_grad():
    model.detr.class_embed.bias[-1] = -9.0  # every query is sure of an object
    torch.nn.init.normal_(model.detr.class_embed.weight, std=0.5)
    model.bbox_attention.q_proj.weight *= 10
    model.mask_head.convs[0].weight[:, 128:] *= 200
dataset = load_shipped_scenes(stuff=True)
model.image_transform, model.categories = dataset.image_transform, dataset.categories
explorer = PanopticExplorer.on_scenes(model, 2, dataset=dataset, score=0.2, floor=0.0)
explorer
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "panoptic.ipynb", CODE)


def test_python_hears_what_is_chosen_and_segments_outlive_the_kernel(open_notebook, notebook):
    page = open_notebook(notebook)
    run_all_cells(page)
    page.wait_for_selector("[data-pq]")

    # From the browser to Python, also with keys that JupyterLab has other uses for.
    page.locator("[data-widget]").focus()
    for key in ("ArrowRight", "ArrowRight", "t"):
        page.keyboard.press(key)
    wait_for_python(page, "explorer.truth", True)
    assert python(page, "explorer.query") == int(dataset(page)["query"])
    page.keyboard.press("ArrowDown")
    wait_for_python(page, "[explorer.scene, explorer.query]", [1, -1])
    for label, value in (("score above", "0.25"), ("overlap at least", "0.4")):
        page.locator(f".thresholds input[aria-label='{label}']").fill(value)
    wait_for_python(page, "[explorer.score, explorer.overlap]", [0.25, 0.4])
    assert page.locator(".jp-Notebook-cell").count() == 1, "no key was a command of JupyterLab"
    asked = "explorer.quality()['PQ']"
    assert float(dataset(page)["pq"]) == pytest.approx(python(page, asked), abs=1e-6)

    # From Python to the browser.
    python(page, "[setattr(explorer, 'scene', 0), setattr(explorer, 'overlap', 0.1)]")
    page.wait_for_selector("[data-widget][data-scene='0'][data-overlap='0.1']")
    assert float(dataset(page)["pq"]) == pytest.approx(python(page, asked), abs=1e-6)
    before = dataset(page)["segments"]
    assert before != "[]"

    # Without a kernel.
    shut_down_kernel(page)
    page.wait_for_function("!jupyterapp.shell.currentWidget.sessionContext.session?.kernel")
    page.locator(".thresholds input").first.fill("1")
    assert dataset(page)["segments"] == "[]" and float(dataset(page)["pq"]) == 0
    page.locator(".thresholds input").first.fill("0.25")
    assert dataset(page)["segments"] == before
