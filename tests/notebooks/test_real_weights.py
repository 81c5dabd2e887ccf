"""The cell of each notebook that shows a released model works: run by itself, with random weights in its place."""

from pathlib import Path

import make_notebooks
import one_cell
import pytest
import torch
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from minivis.data.items import Categories
from minivis.detr import DETR, detr_resnet50, detr_resnet50_panoptic

NOTEBOOKS = sorted(make_notebooks.NOTEBOOKS.glob("0[1-5]_detr_*.py"))  # those that show the released detector


@pytest.fixture(scope="module")
def released() -> DETR:
    """A DETR with the sizes and categories of the released one."""
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    pairs = [(id_, name) for id_, name in enumerate(names) if id_ and name != "N/A"]
    torch.manual_seed(0)
    return one_cell.random_released(detr_resnet50(), Categories.by_id(pairs))


def test_the_course_has_them():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cell_with_real_weights_runs_by_itself(
    path: Path, released: DETR, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(one_cell.run_released(monkeypatch, path, "facebook/detr-resnet-50", released))


def test_the_cell_with_the_released_masks_runs_by_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    categories = Categories(names=("cat", "sky", "sand"), ids=(1, 2, 3), is_thing=(True, False, False))
    model = one_cell.random_released(detr_resnet50_panoptic(num_classes=3), categories)
    model.score_threshold = 0.0  # which random scores reach
    path = make_notebooks.NOTEBOOKS / "06_detr_panoptic.py"
    (names,) = one_cell.run_released(monkeypatch, path, "facebook/detr-resnet-50-panoptic", model)
    segments = names["found"].segments
    assert segments, "a random model finds something"
    printed = capsys.readouterr().out
    assert all(f"{model.class_names[segment.label]} (" in printed for segment in segments)
