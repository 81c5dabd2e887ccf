"""FeatureExplorer in JupyterLab: Python hears what is chosen, and the maps outlive the kernel."""

import json
from pathlib import Path

import pytest
from lab import python, run_all_cells, shut_down_kernel, wait_for_python, write_notebook
from pages import area, dataset

pytestmark = pytest.mark.slow

CODE = """
import torch
from PIL import Image
from minivis.detr import DETRConfig, build_detr
from minivis.images import ImageTransform
from minivis.widgets import FeatureExplorer

torch.manual_seed(0)
config = DETRConfig(
    num_classes=2, num_queries=3, backbone="small", backbone_channels=(8, 12, 16), d_model=16, num_heads=2,
    encoder_layers=1, decoder_layers=1, dim_feedforward=16,
)
model = build_detr(config).eval()
model.image_transform = ImageTransform()
explorer = FeatureExplorer(model, Image.effect_noise((56, 40), 60).convert("RGB"), cell=(0, 0))
explorer
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "features.ipynb", CODE)


def test_python_hears_what_is_chosen_and_the_maps_outlive_the_kernel(open_notebook, notebook):
    page = open_notebook(notebook)
    run_all_cells(page)
    page.wait_for_selector("[data-widget]")

    # From the browser to Python: by keys that JupyterLab has other uses for, by a click, by a choice.
    page.locator(".picture").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    wait_for_python(page, "explorer.cell", [2, 1])
    page.get_by_label("how far they stand out").check()
    page.get_by_label("4 (10×14 cells)").check()
    wait_for_python(page, "[explorer.level, explorer.ranking]", [1, "stands out"])
    picture = area(page, ".picture")
    page.mouse.click(picture["x"] + 0.95 * picture["width"], picture["y"] + 0.95 * picture["height"])
    wait_for_python(page, "explorer.cell", [9, 13])
    assert json.loads(dataset(page)["channels"]) == python(page, "explorer.top_channels()")
    assert page.locator(".jp-Notebook-cell").count() == 1, "no key was a command of JupyterLab"

    # From Python to the browser.
    python(page, "[setattr(explorer, 'level', 2), setattr(explorer, 'cell', (4, 0))]")
    page.mouse.move(0, 0)  # what is pointed at would be shown before what is chosen
    page.wait_for_selector("[data-widget][data-level='2'][data-cell='4,0'][data-ranking='stands out']")

    # Without a kernel.
    shut_down_kernel(page)
    page.wait_for_function("!jupyterapp.shell.currentWidget.sessionContext.session?.kernel")
    before = dataset(page)["channels"]
    page.locator(".picture").focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_selector("[data-widget][data-cell='3,0']")
    page.get_by_label("highest value").check()
    page.wait_for_selector("[data-widget][data-ranking='highest']")
    assert dataset(page)["channels"] != before
