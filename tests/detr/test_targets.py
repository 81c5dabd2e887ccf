"""Targets: padded to one tensor, and each kind of broken object named by image and annotation."""

import pytest
import torch
from detr_problems import random_targets
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.detr.targets import OUTSIDE, broken_boxes, explain_broken_targets, image_name, pad_targets

CPU = torch.device("cpu")


def test_targets_are_padded_to_the_largest():
    targets = random_targets([2, 0, 3])
    padded = pad_targets(targets, 4, CPU)
    assert padded.labels.shape == (3, 3)
    assert padded.boxes.shape == (3, 3, 4)
    assert not padded.broken.any(), "padding is not broken"
    for i, target in enumerate(targets):
        n = len(target["labels"])
        assert torch.equal(padded.labels[i, :n], target["labels"])
        assert torch.equal(padded.boxes[i, :n], target["boxes"])
        assert (padded.labels[i, n:] == 0).all()
        assert (padded.boxes[i, n:] == 0).all()
    explain_broken_targets(targets, 4)


def test_no_objects_at_all():
    padded = pad_targets(random_targets([0, 0]), 4, CPU)
    assert padded.labels.shape == padded.broken.shape == (2, 0)
    assert padded.boxes.shape == (2, 0, 4)


def test_boxes_of_double_precision_are_taken():
    target = random_targets([2])[0]
    target["boxes"] = target["boxes"].double()
    assert pad_targets([target], 4, CPU).boxes.dtype == torch.float32


nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(label=4), "label 4, expected 0 to 3"),
        (dict(label=-1), "label -1, expected 0 to 3"),
        (dict(label=10**12), "label 1000000000000, expected 0 to 3"),
        (dict(box=[0.5, 0.5, 0.0, 0.2]), r"box \(cx, cy, w, h\) = \[0.5, 0.5, 0.0, 0.2\]"),
        (dict(box=[0.5, 0.5, 0.2, 0.0]), "with width and height"),
        (dict(box=[0.5, 0.5, -0.1, 0.2]), "with width and height"),
        (dict(box=[nan, 0.5, 0.1, 0.1]), "nan"),
        (dict(box=[0.5, 0.5, 0.1, nan]), "nan"),
        (dict(box=[0.5, inf, 0.1, 0.1]), "inf"),
        (dict(box=[0.5, 0.5, inf, 0.1]), "inf"),
        (dict(box=[0.95, 0.5, 0.2, 0.1]), "within"),
        (dict(box=[0.05, 0.5, 0.2, 0.1]), "within"),
        (dict(box=[0.5, 1.2, 0.1, 0.1]), "within"),
        (dict(box=[320.0, 240.0, 50.0, 60.0]), "in fractions of the image"),
    ],
    ids=str,
)
def test_a_broken_object_is_marked_and_named(change, words):
    targets = random_targets([2, 3])
    if "label" in change:
        targets[1]["labels"][1] = change["label"]
    else:
        targets[1]["boxes"][1] = torch.tensor(change["box"])
    padded = pad_targets(targets, 4, CPU)
    assert padded.broken.nonzero().tolist() == [[1, 1]]
    assert padded.boxes.isfinite().all(), "what is marked must not spoil the rest"
    assert padded.labels.max() < 4
    with pytest.raises(ValueError, match=f"image 101, annotation 1011: .*{words}"):
        explain_broken_targets(targets, 4)


def test_without_ids_places_are_named():
    target = random_targets([3])[0]
    target["labels"][2] = 9
    bare = {"labels": target["labels"], "boxes": target["boxes"]}
    with pytest.raises(ValueError, match="image at place 0 of the batch, annotation number 2: label 9"):
        explain_broken_targets([bare], 4)
    assert image_name([target], 0) == "100"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(labels=torch.tensor([1.0, 2.0])), r"labels \(N,\) of int64 .* got \(2,\) of torch.float32"),
        (dict(labels=torch.tensor([1, 2], dtype=torch.int32)), "int64 .* got .* torch.int32"),
        (dict(labels=torch.tensor([[1, 2]])), r"got \(1, 2\)"),
        (dict(labels=torch.tensor(1)), r"got \(\) of"),
        (dict(labels=torch.tensor([1])), r"\(1,\) of torch.int64 and \(2, 4\)"),
        (dict(boxes=torch.zeros(2, 5)), r"boxes \(N, 4\), .* \(2, 5\)"),
        (dict(boxes=torch.zeros(8)), r"\(8,\)"),
        (dict(labels=torch.zeros(0, dtype=torch.int64), boxes=torch.zeros(0)), r"\(0,\)"),
        (dict(masks=torch.zeros(3, 8, 8, dtype=torch.bool)), r"2 labels, but masks of shape \(3, 8, 8\)"),
    ],
    ids=str,
)
def test_wrong_shapes_are_named(change, words):
    targets = random_targets([1, 2])
    targets[1] |= change
    with pytest.raises(ValueError, match=f"image 101: .*{words}"):
        pad_targets(targets, 4, CPU)


@settings(deadline=None, max_examples=100)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_box_is_broken_exactly_when_it_leaves_the_image(cx, cy, w, h):
    overhang = max(w / 2 - cx, cx + w / 2 - 1, h / 2 - cy, cy + h / 2 - 1)
    box = torch.tensor([cx, cy, w, h])
    if abs(overhang - OUTSIDE) > 1e-6:
        assert bool(broken_boxes(box)) == (overhang > OUTSIDE)


def test_rounding_over_the_edge_is_allowed():
    assert not broken_boxes(torch.tensor([0.5, 0.5, 1.0005, 1.0]))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"boxes": torch.zeros(0, 4)}, "got NoneType and Tensor; the target has boxes"),
        ({"labels": [1], "boxes": torch.rand(1, 4)}, "got list and Tensor"),
        ({}, "the target has nothing"),
    ],
)
def test_a_target_without_tensors_is_named(target, said):
    good = {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
    with pytest.raises(
        ValueError, match="image at place 1 of the batch: expected tensors `labels`"
    ) as caught:
        pad_targets([good, target], 3, torch.device("cpu"))
    assert said in str(caught.value)
