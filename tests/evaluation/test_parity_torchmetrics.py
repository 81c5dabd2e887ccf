"""The same numbers as torchmetrics' MeanAveragePrecision."""

import math

import numpy as np
import pytest
import torch

from minivis.data.items import Categories
from minivis.evaluation import detection_metrics, results_of

MeanAveragePrecision = pytest.importorskip("torchmetrics.detection").MeanAveragePrecision
NAMES = {
    "AP": "map", "AP50": "map_50", "AP75": "map_75",
    "AP_small": "map_small", "AP_medium": "map_medium", "AP_large": "map_large",
    "AR_1": "mar_1", "AR_10": "mar_10", "AR_100": "mar_100",
    "AR_small": "mar_small", "AR_medium": "mar_medium", "AR_large": "mar_large",
}  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_torchmetrics(seed):
    generator = torch.Generator().manual_seed(seed)
    categories = Categories(names=("a", "b", "c"), ids=(0, 1, 2))
    truth, detections, targets = {"images": [], "annotations": []}, [], []
    for image_id in range(6):
        count = int(torch.randint(0, 8, (), generator=generator))
        corner = torch.rand(count, 2, generator=generator) * 300
        size = torch.rand(count, 2, generator=generator) * 200 + 4
        boxes = torch.cat([corner, corner + size], dim=1)
        labels = torch.randint(0, 3, (count,), generator=generator)
        crowd = (torch.rand(count, generator=generator) < 0.2).long()
        noisy = boxes.repeat(3, 1) + torch.randn(3 * count, 4, generator=generator) * 6
        noisy = torch.stack([noisy[:, :2], noisy[:, 2:]]).sort(dim=0).values.transpose(0, 1).flatten(1)
        scores = torch.rand(3 * count, generator=generator)
        detections.append({"boxes": noisy, "labels": labels.repeat(3), "scores": scores})
        targets.append({"boxes": boxes, "labels": labels, "iscrowd": crowd})
        truth["images"].append({"id": image_id, "height": 600, "width": 600})
        for (x0, y0, x1, y1), label, iscrowd in zip(boxes.tolist(), labels.tolist(), crowd.tolist()):
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            box |= {"image_id": image_id, "category_id": label, "iscrowd": iscrowd}
            truth["annotations"].append(box)
    # torchmetrics' own thresholds are float32: a recall of exactly 0.3 does not reach its 0.3000000119.
    reference = MeanAveragePrecision(
        backend="faster_coco_eval",
        class_metrics=True,
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    reference.update(detections, targets)
    expected = reference.compute()

    ours = detection_metrics(truth, results_of(detections, range(6), categories), categories)
    for name, theirs in NAMES.items():
        value = -1.0 if math.isnan(ours[name]) else ours[name]
        assert value == pytest.approx(expected[theirs].item(), abs=1e-6), name
    assert list(ours["by_class"].values()) == pytest.approx(expected["map_per_class"].tolist(), abs=1e-6)
