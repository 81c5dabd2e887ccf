"""AP by COCO's rules, against a second implementation and in the corners where evaluations go wrong."""

import builtins
import json
import math

import numpy as np
import pytest
import torch
from coco_by_hand import coco_metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.data.items import Categories
from minivis.evaluation import detection_metrics, results_of
from minivis.pretrained.checkpoint import json_safe

CATEGORIES = Categories(names=("cat", "N/A", "dog", "fish"), ids=(7, None, 3, 12))  # gaps, and not in order
NAN = pytest.approx(math.nan, nan_ok=True)


def annotation(image_id, category_id, bbox, iscrowd=0, area=None):
    area = bbox[2] * bbox[3] if area is None else area
    return {
        "id": 0,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": area,
        "iscrowd": iscrowd,
    }


def result(image_id, category_id, bbox, score):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def truth_of(image_ids, annotations):
    images = [{"id": i, "height": 480, "width": 640, "file_name": f"{i}.jpg"} for i in image_ids]
    return {"images": images, "annotations": annotations, "categories": []}


@st.composite
def random_case(draw):
    """Objects of all sizes in a few images, and detections that lie on them, beside them, or anywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    crowds, ties = draw(st.booleans()), draw(st.booleans())
    image_ids = sorted(rng.choice(1000, size=draw(st.integers(1, 5)), replace=False).tolist())
    classes = [3, 7, 12][: draw(st.integers(1, 3))]
    annotations, results = [], []
    for image_id in image_ids:
        for _ in range(rng.integers(0, 6)):
            bbox = [*rng.integers(0, 200, 2).tolist(), *rng.choice([5, 20, 32, 60, 96, 150], 2).tolist()]
            area = int(bbox[2] * bbox[3] * rng.choice([0.6, 1.0]))
            iscrowd = int(crowds and rng.random() < 0.3)
            annotations.append(annotation(image_id, int(rng.choice(classes)), bbox, iscrowd, area))
            for _ in range(rng.integers(0, 4)):
                moved = np.add(bbox, rng.normal(0, 0.08, 4) * bbox[2]).round(3)
                category_id = int(rng.choice([annotations[-1]["category_id"], 12]))
                moved[2:] = np.abs(moved[2:])
                results.append(result(image_id, category_id, moved.tolist(), rng.random()))
        for _ in range(rng.integers(0, 15)):
            bbox = [*(rng.random(2) * 200).tolist(), *(rng.random(2) * 150).tolist()]
            results.append(result(image_id, int(rng.choice([3, 7, 12])), bbox, rng.random()))
    for entry in results:
        entry["score"] = round(entry["score"], 1) if ties else entry["score"]
    rng.shuffle(results)
    return image_ids, annotations, results


@settings(max_examples=60, deadline=None)
@given(random_case())
def test_agrees_with_a_second_implementation(case):
    image_ids, annotations, results = case
    ours = detection_metrics(truth_of(image_ids, annotations), results, CATEGORIES)
    expected = coco_metrics(image_ids, annotations, results, [3, 7, 12])
    by_class = expected.pop("by_class")
    by_class = {"cat": by_class[7], "dog": by_class[3], "fish": by_class[12]}
    assert ours.pop("by_class") == pytest.approx(by_class, nan_ok=True)
    assert ours == pytest.approx(expected, nan_ok=True)


def test_agrees_with_more_than_a_hundred_detections_in_an_image():
    rng = np.random.default_rng(0)
    boxes = [[*(rng.random(2) * 500).tolist(), *(20 + rng.random(2) * 80).tolist()] for _ in range(150)]
    annotations = [annotation(1, 3, box) for box in boxes]
    results = [result(1, 3, box, rng.random()) for box in boxes]
    ours = detection_metrics(truth_of([1], annotations), results, CATEGORIES)
    expected = coco_metrics([1], annotations, results, [3, 7, 12])
    assert ours["AR_100"] == pytest.approx(100 / 150)  # all are right, a hundred are counted
    assert ours["AP"] == pytest.approx(expected["AP"])
    assert ours["AP"] == pytest.approx(67 / 101)  # recall 0.00, 0.01, ... 0.66 is reached


def test_perfect_detections_have_ap_one():
    annotations = [annotation(1, 7, [0, 0, 10, 10]), annotation(2, 3, [5, 5, 50, 50])]
    annotations.append(annotation(2, 12, [0, 0, 200, 200]))
    results = [result(a["image_id"], a["category_id"], a["bbox"], 0.9) for a in annotations]
    metrics = detection_metrics(truth_of([1, 2], annotations), results, CATEGORIES)
    by_class = metrics.pop("by_class")
    assert list(by_class) == ["cat", "dog", "fish"]  # in the order of the labels, without holes
    assert {*metrics.values(), *by_class.values()} == {1.0}


def test_without_predictions_everything_is_missed():
    metrics = detection_metrics(truth_of([1], [annotation(1, 3, [0, 0, 10, 10])]), [], CATEGORIES)
    assert metrics["AP"] == metrics["AP50"] == metrics["AP_small"] == metrics["AR_100"] == 0
    assert metrics["AP_medium"] == NAN and metrics["AR_large"] == NAN
    assert metrics["by_class"] == {"cat": NAN, "dog": 0, "fish": NAN}


@pytest.mark.parametrize("image_ids", [[], [1, 2]])
def test_without_objects_nothing_is_decided(image_ids):
    results = [result(i, 3, [0, 0, 10, 10], 0.5) for i in image_ids]
    metrics = detection_metrics(truth_of(image_ids, []), results, CATEGORIES)
    by_class = metrics.pop("by_class")
    assert all(math.isnan(value) for value in (*metrics.values(), *by_class.values()))
    assert json.dumps(json_safe({"by_class": by_class, **metrics}), allow_nan=False).count("null") == 15


def test_detections_in_images_without_objects_cost_precision():
    truth = truth_of([1, 2], [annotation(1, 3, [0, 0, 50, 50])])
    right, wrong = result(1, 3, [0, 0, 50, 50], 0.5), result(2, 3, [0, 0, 50, 50], 0.9)
    assert detection_metrics(truth, [right], CATEGORIES)["AP"] == 1
    assert detection_metrics(truth, [right, wrong], CATEGORIES)["AP"] == pytest.approx(0.5)


def test_detections_inside_a_crowd_are_neither_right_nor_wrong():
    crowd = annotation(1, 3, [100, 100, 300, 300], iscrowd=1)
    truth = truth_of([1], [annotation(1, 3, [0, 0, 50, 50]), crowd])
    right = result(1, 3, [0, 0, 50, 50], 0.5)
    inside = [result(1, 3, [120 + 30 * i, 150, 20, 40], 0.9) for i in range(5)]
    assert detection_metrics(truth, [right, *inside], CATEGORIES)["AP"] == 1


def test_an_annotation_with_id_zero_counts_like_any_other():
    # pycocotools takes the id 0 for "not matched".
    annotations = [{**annotation(1, 3, [100 * i, 0, 50, 50]), "id": i} for i in range(3)]
    results = [result(1, 3, a["bbox"], 0.5) for a in annotations]
    assert detection_metrics(truth_of([1], annotations), results, CATEGORIES)["AP"] == 1


def test_what_is_given_stays_as_it_is():
    truth, results = truth_of([1], [annotation(1, 3, [0, 0, 10, 10])]), [result(1, 3, [0, 0, 10, 10], 0.5)]
    before = json.dumps([truth, results])
    detection_metrics(truth, results, CATEGORIES)
    assert json.dumps([truth, results]) == before


def test_prints_nothing(capfd):
    truth = truth_of([1], [annotation(1, 3, [0, 0, 10, 10])])
    detection_metrics(truth, [result(1, 3, [0, 0, 9, 10], 0.5)], CATEGORIES)
    assert capfd.readouterr() == ("", "")


def test_unknown_ids_are_named():
    truth = truth_of([1], [])
    with pytest.raises(ValueError, match="results with a image_id that the ground truth does not have: 5, 9"):
        detection_metrics(truth, [result(i, 3, [0, 0, 1, 1], 0.5) for i in (9, 5, 1)], CATEGORIES)
    with pytest.raises(ValueError, match="results with a category_id that the ground truth does not have: 4"):
        detection_metrics(truth, [result(1, 4, [0, 0, 1, 1], 0.5)], CATEGORIES)
    with pytest.raises(ValueError, match=r"annotations with a image_id .*: 2"):
        detection_metrics(truth_of([1], [annotation(2, 3, [0, 0, 1, 1])]), [], CATEGORIES)


@pytest.mark.parametrize("broken", [{"score": math.nan}, {"bbox": [0, 0, math.inf, 1]}])
def test_results_that_are_not_finite_are_named(broken):
    with pytest.raises(ValueError, match="result for image 1 is not finite"):
        detection_metrics(truth_of([1], []), [{**result(1, 3, [0, 0, 1, 1], 0.5), **broken}], CATEGORIES)


def test_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def without_evaluator(name, *args, **kwargs):
        if name.startswith("faster_coco_eval"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_evaluator)
    with pytest.raises(ImportError, match="pip install faster-coco-eval"):
        detection_metrics(truth_of([1], []), [], CATEGORIES)


def test_results_of_translates_labels_and_drops_holes():
    detections = [
        {
            "scores": torch.tensor([0.75, 0.5, 0.25]),
            "labels": torch.tensor([2, 1, 0]),
            "boxes": torch.tensor([[10.0, 20, 30, 50], [0, 0, 1, 1], [1, 2, 3, 4]]),
        },
        {"scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)},
    ]
    assert results_of(detections, [42, 43], CATEGORIES) == [
        {"image_id": 42, "category_id": 3, "bbox": [10, 20, 20, 30], "score": 0.75},
        {"image_id": 42, "category_id": 7, "bbox": [1, 2, 2, 2], "score": 0.25},
    ]
    with pytest.raises(ValueError, match=r"image 42: label 4 is none of 0\.\.3"):
        results_of([{**detections[0], "labels": torch.tensor([4, 0, 0])}], [42], CATEGORIES)
