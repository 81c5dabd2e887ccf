"""Average precision step by step: what one can work out by hand, and the same numbers as the compiled library's."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert

from minivis.data.items import Categories
from minivis.evaluation import detection_metrics, results_of
from minivis.evaluation.precision_recall import (
    IOU_THRESHOLDS,
    RECALLS,
    ImageDetections,
    at_recalls,
    match_detections,
    mean_average_precision,
    precision_recall,
)

CATEGORIES = Categories(names=("a", "b", "c"), ids=(0, 1, 2))


def image_of(found, truth):
    """From rows (score, label, left, top, right, bottom) and (label, left, top, right, bottom)."""
    found, truth = torch.tensor(found).reshape(-1, 6), torch.tensor(truth).reshape(-1, 5)
    return ImageDetections(
        {"scores": found[:, 0], "labels": found[:, 1].long(), "boxes": found[:, 2:]},
        {"labels": truth[:, 0].long(), "boxes": truth[:, 1:]},
    )


def random_images(seed, images=6, classes=3):
    """Detections near random objects, in no order, some of a wrong class."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(images):
        count = int(torch.randint(0, 7, (), generator=generator))
        corner = 300 * torch.rand(count, 2, generator=generator)
        boxes = torch.cat([corner, corner + 20 + 150 * torch.rand(count, 2, generator=generator)], dim=1)
        labels = torch.randint(0, classes, (count,), generator=generator)
        noise = 8 * torch.randn(4 * count, 4, generator=generator)
        scores = torch.rand(4 * count, generator=generator)
        wrong = torch.rand(4 * count, generator=generator) < 0.2
        found = torch.where(wrong, (labels.repeat(4) + 1) % classes, labels.repeat(4))
        made.append(
            ImageDetections(
                {"scores": scores, "labels": found, "boxes": boxes.repeat(4, 1) + noise},
                {"labels": labels, "boxes": boxes},
            )
        )
    return made


def library_metrics(images):
    truth = {"images": [], "annotations": []}
    for i, (_, target) in enumerate(images):
        truth["images"].append({"id": i, "height": 600, "width": 600})
        boxes = box_convert(target["boxes"], "xyxy", "xywh").tolist()
        for label, box in zip(target["labels"].tolist(), boxes):
            area = box[2] * box[3]
            truth["annotations"].append(
                {"image_id": i, "category_id": label, "bbox": box, "area": area, "iscrowd": 0}
            )
    found = results_of([image.found for image in images], range(len(images)), CATEGORIES)
    return detection_metrics(truth, found, CATEGORIES)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_librarys_average_precision(seed):
    """With scores that differ: among equal ones of several images the library has an order of its own."""
    images = random_images(seed)
    expected = library_metrics(images)
    assert mean_average_precision(images) == pytest.approx(expected["AP"], abs=1e-6)
    assert mean_average_precision(images, [0.5]) == pytest.approx(expected["AP50"], abs=1e-6)
    assert mean_average_precision(images, [0.75]) == pytest.approx(expected["AP75"], abs=1e-6)
    for label, name in enumerate(CATEGORIES.names):
        value = mean_average_precision(images, labels=[label])
        assert value == pytest.approx(expected["by_class"][name], abs=1e-6, nan_ok=True)


def test_more_than_a_hundred_detections_of_an_image_and_class_do_not_count():
    rows = [(0.9 - i / 1000, 0, 50, 50, 60, 60) for i in range(100)] + [(0.1, 0, 0, 0, 10, 10)]
    image = image_of(rows, [(0, 0, 0, 10, 10)])
    assert mean_average_precision([image]) == library_metrics([image])["AP"] == 0
    assert len(precision_recall([image], 0).scores) == 100


def test_the_surest_chooses_first_and_nobody_twice():
    truth = [(0, 0, 0, 10, 10), (0, 20, 0, 30, 10), (1, 40, 0, 50, 10)]
    found = [
        (0.5, 0, 0, 0, 10, 10),  # lies best, but a surer one was there before
        (0.9, 0, 0, 0, 10, 9),
        (0.8, 1, 20, 0, 30, 10),  # the wrong class
        (0.7, 1, 40, 0, 50, 6),
        (0.6, 0, 70, 0, 80, 10),  # there is nothing
    ]
    image = image_of(found, truth)
    assert match_detections(image, 0.5) == [-1, 0, -1, 2, -1]
    assert match_detections(image, 0.6) == [-1, 0, -1, 2, -1], "the threshold itself is enough"
    assert match_detections(image, 0.95) == [0, -1, -1, -1, -1]


def test_a_curve_worked_out_by_hand():
    # right, wrong, right, right, wrong; one of four objects is never found
    truth = [(0, 20.0 * i, 0, 20.0 * i + 10, 10) for i in range(4)]
    found = [(0.9 - 0.1 * i, 0, left, 0, left + 10, 10) for i, left in enumerate([0.0, 200, 20, 40, 200])]
    image = image_of(found, truth)
    curve = precision_recall([image], 0)
    assert curve.right.tolist() == [True, False, True, True, False]
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4, 3 / 5])
    assert curve.recall.tolist() == [0.25, 0.25, 0.5, 0.75, 0.75]
    # 26 recalls (0 to 0.25) at 1, 50 more (to 0.75) at 3/4, the rest at 0
    assert at_recalls(curve).mean() == pytest.approx((26 + 50 * 3 / 4) / 101)
    assert at_recalls(curve)[RECALLS > 0.75].max() == 0


def test_nothing_found_and_nothing_to_find():
    nothing_found = image_of([], [(1, 0, 0, 10, 10)])
    assert mean_average_precision([nothing_found]) == 0
    nothing_there = image_of([(0.9, 1, 0, 0, 10, 10)], [])
    assert math.isnan(mean_average_precision([nothing_there]))
    assert math.isnan(mean_average_precision([]))
    both = [image_of([(0.8, 1, 0, 0, 10, 10)], [(1, 0, 0, 10, 10)]), nothing_there]
    assert mean_average_precision(both) == pytest.approx(0.5), (
        "what is found where nothing is costs precision"
    )


def test_thresholds_are_cocos():
    assert pytest.approx(np.linspace(0.5, 0.95, 10)) == IOU_THRESHOLDS
