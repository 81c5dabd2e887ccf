"""The cell of each notebook that shows a released model works: run by itself, with random weights in its place."""

import builtins
from pathlib import Path
from typing import Any

import make_notebooks
import one_cell
import pytest
import torch
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

import minivis
from minivis.data.items import Categories
from minivis.detr import DETR, detr_resnet50
from minivis.images import ImageTransform
from minivis.pretrained.checkpoint import with_use

NOTEBOOKS = sorted(make_notebooks.NOTEBOOKS.glob("0[1-5]_detr_*.py"))  # those that show the released detector


@pytest.fixture(scope="module")
def released() -> DETR:
    """A DETR with the sizes, categories and preprocessing of the released one, except for small pictures."""
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    pairs = [(id_, name) for id_, name in enumerate(names) if id_ and name != "N/A"]
    torch.manual_seed(0)
    model = detr_resnet50()
    for name, buffer in model.backbone.named_buffers():
        if name.endswith("running_var"):  # under a frozen norm of ones the features of fresh weights grow
            buffer.fill_(2.0)
    transform = ImageTransform(shortest_edge=96, longest_edge=160)
    return with_use(model, Categories.by_id(pairs), transform)


def test_the_course_has_them():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cell_with_real_weights_runs_by_itself(
    path: Path, released: DETR, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = one_cell.code_cells(path)
    chosen = [number for number, source in enumerate(cells) if "load_released(" in source]
    assert chosen, f"{path.stem} has no cell with minivis.load_released"
    shown: list[Any] = []

    def display(*objects: Any, **options: Any) -> None:
        shown.extend(objects)

    def load_released(repo_id: str, wanted: bool = False) -> DETR:
        assert repo_id == "facebook/detr-resnet-50" and wanted is False, "a reader decides to download"
        return released

    monkeypatch.setattr(minivis, "load_released", load_released)
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("minivis.widgets.pictures.display", display)
    monkeypatch.setattr(builtins, "display", display, raising=False)  # as in a notebook
    for number in chosen:
        shown.clear()
        names = one_cell.run_cell(cells, number)
        assert names["released"] is released and shown, "nothing is displayed"
        for each in shown:
            data = each if isinstance(each, dict) else each._repr_mimebundle_()[0]
            assert data["image/png"] and data["text/plain"]
