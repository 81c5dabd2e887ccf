"""The cell of notebook 06 that shows the released panoptic model works by itself, with random weights in its place."""

from typing import Any

import make_notebooks
import one_cell
import pytest
import torch

import minivis
from minivis.data.items import Categories
from minivis.detr import DETRsegm, detr_resnet50_panoptic
from minivis.images import ImageTransform
from minivis.pretrained.checkpoint import with_use


def random_model() -> DETRsegm:
    """The released model's shapes, with three classes, small pictures, and a threshold that random scores reach."""
    torch.manual_seed(0)
    model = detr_resnet50_panoptic(num_classes=3)
    model.score_threshold = 0.0
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):  # under a frozen norm of ones the features of fresh weights grow
            buffer.fill_(2.0)
    categories = Categories(names=("cat", "sky", "sand"), ids=(1, 2, 3), is_thing=(True, False, False))
    return with_use(model, categories, ImageTransform(shortest_edge=96, longest_edge=160))


def test_the_cell_with_the_released_model_runs_by_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = one_cell.code_cells(make_notebooks.NOTEBOOKS / "06_detr_panoptic.py")
    (number,) = [number for number, source in enumerate(cells) if "load_released(" in source]
    released, shown = random_model(), []

    def load_released(repo_id: str, wanted: bool = False) -> DETRsegm:
        assert repo_id == "facebook/detr-resnet-50-panoptic" and wanted is False, (
            "a reader decides to download"
        )
        return released

    def display(data: dict[str, Any], **options: Any) -> None:
        shown.append(data)

    monkeypatch.setattr(minivis, "load_released", load_released)
    monkeypatch.setattr("minivis.widgets.pictures.display", display)
    names = one_cell.run_cell(cells, number)
    assert names["released"] is released
    segments = names["found"].segments
    assert segments, "a random model finds something"
    printed = capsys.readouterr().out
    assert all(f"{released.class_names[segment.label]} (" in printed for segment in segments)
    (data,) = shown
    assert data["image/png"] and data["text/plain"]
