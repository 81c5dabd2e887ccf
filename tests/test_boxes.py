"""Boxes: formats there and back, and GIoU against torchvision's, against numbers by hand, and by its properties."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.boxes import (
    box_area,
    box_iou,
    cxcywh_to_xyxy,
    generalized_box_iou,
    paired_generalized_box_iou,
    xyxy_to_cxcywh,
)


def random_boxes(*shape, seed=0, scale=1.0):
    """xyxy with positive width and height."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator)
    size = torch.rand(*shape, 2, generator=generator) * 0.5 + 0.01
    return torch.cat([corner, corner + size], dim=-1) * scale


# Whole numbers of 1/16 now and then coincide, touch and have no width: the cases that go wrong.
side = st.integers(0, 16).map(lambda n: n / 16) | st.floats(0, 1, width=32)


@st.composite
def boxes(draw):
    (left, right), (top, bottom) = (sorted([draw(side), draw(side)]) for _ in range(2))
    return torch.tensor([left, top, right, bottom], dtype=torch.float32)


anything = settings(deadline=None, max_examples=150)


def test_formats_by_hand():
    assert cxcywh_to_xyxy(torch.tensor([0.5, 0.4, 0.2, 0.6])).tolist() == pytest.approx([0.4, 0.1, 0.6, 0.7])
    assert xyxy_to_cxcywh(torch.tensor([1.0, 2, 5, 10])).tolist() == [3, 6, 4, 8]


@anything
@given(boxes())
def test_formats_there_and_back(box):
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(box)), box, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 5)])
def test_formats_take_any_leading_axes(shape):
    assert cxcywh_to_xyxy(torch.rand(*shape, 4)).shape == (*shape, 4)
    assert xyxy_to_cxcywh(torch.rand(*shape, 4)).shape == (*shape, 4)


@pytest.mark.parametrize("scale", [1.0, 640.0, 1e-3])
def test_giou_equals_torchvisions(scale):
    a, b = random_boxes(20, seed=1, scale=scale), random_boxes(30, seed=2, scale=scale)
    expected = torchvision.ops.generalized_box_iou(a, b)
    torch.testing.assert_close(generalized_box_iou(a, b), expected, atol=1e-5, rtol=1e-5)
    paired = paired_generalized_box_iou(a, b[:20])
    torch.testing.assert_close(paired, expected[:, :20].diagonal(), atol=1e-5, rtol=1e-5)


def test_giou_gradients_equal_torchvisions():
    a, b = random_boxes(20, seed=1).requires_grad_(), random_boxes(20, seed=2)
    (ours,) = torch.autograd.grad(paired_generalized_box_iou(a, b).sum(), a)
    (theirs,) = torch.autograd.grad(torchvision.ops.generalized_box_iou_loss(a, b, reduction="sum"), a)
    torch.testing.assert_close(ours, -theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "giou"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7 - 2 / 9),  # I 1, U 7, C 9
        ([0, 0, 4, 4], [1, 1, 3, 3], 4 / 16),  # one inside the other: C = U
        ([0, 0, 1, 1], [1, 0, 2, 1], 0),  # they touch and fill their hull
        ([0, 0, 1, 1], [3, 0, 4, 1], -2 / 4),  # half of the hull is empty
        ([0, 0, 1, 1], [9, 9, 10, 10], -98 / 100),
        ([0, 0, 2, 2], [1, 1, 1, 1], 0),  # a point inside
        ([0, 0, 1, 1], [3, 1, 3, 1], -2 / 3),  # a point outside
        ([0, 0, 0, 2], [0, 0, 0, 2], 0),  # two lines: no area anywhere
    ],
)
def test_giou_by_hand(a, b, giou):
    a, b = torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)
    assert float(paired_generalized_box_iou(a, b)) == pytest.approx(giou, abs=1e-6)


@anything
@given(boxes(), boxes())
def test_giou_is_symmetric_and_between_minus_one_and_one_and_never_above_iou(a, b):
    giou = paired_generalized_box_iou(a, b)
    assert torch.equal(giou, paired_generalized_box_iou(b, a))
    assert -1 - 1e-6 <= giou <= 1 + 1e-6
    if min(box_area(a[None]), box_area(b[None])) > 1e-6:
        assert giou <= box_iou(a[None], b[None]).item() + 1e-5


@anything
@given(boxes(), boxes())
def test_giou_is_iou_where_one_box_holds_the_other(a, b):
    hull = torch.cat([torch.minimum(a, b)[:2], torch.maximum(a, b)[2:]])
    if box_area(hull[None]) > 1e-6:
        giou, iou = paired_generalized_box_iou(hull, a), box_iou(hull[None], a[None])[0, 0]
        torch.testing.assert_close(giou, iou, atol=1e-5, rtol=0)


@anything
@given(boxes(), boxes(), st.sampled_from([1.0, 1333.0]), st.sampled_from(["as drawn", "a line", "a point"]))
def test_values_and_gradients_are_finite_even_without_area(a, b, scale, shape):
    if shape != "as drawn":
        a = torch.stack([a[0], a[1], a[0], a[3] if shape == "a line" else a[1]])
    a = (a * scale).requires_grad_()
    for other in (b * scale, a.detach()):
        giou = paired_generalized_box_iou(a, other)
        (gradient,) = torch.autograd.grad(giou, a)
        assert giou.isfinite()
        assert gradient.isfinite().all()


def test_giou_pulls_boxes_that_do_not_touch_together():
    a = torch.tensor([0.0, 0, 1, 1], requires_grad=True)
    b = torch.tensor([3.0, 0, 4, 1])
    (gradient,) = torch.autograd.grad(paired_generalized_box_iou(a, b), a)
    assert gradient[2] > 0, "moving the right side towards b helps; IoU alone would give no gradient"


def test_giou_broadcasts_leading_axes():
    a, b = random_boxes(3, 2, 5), random_boxes(2, 4, seed=1)
    pairs = generalized_box_iou(a, b[None])
    assert pairs.shape == (3, 2, 5, 4)
    for layer in range(3):
        for image in range(2):
            expected = torchvision.ops.generalized_box_iou(a[layer, image], b[image])
            torch.testing.assert_close(pairs[layer, image], expected, atol=1e-5, rtol=1e-5)
    assert paired_generalized_box_iou(a[:, :, :1], b).shape == (3, 2, 4)


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_giou_of_no_boxes(n, m):
    assert generalized_box_iou(torch.rand(n, 4), torch.rand(m, 4)).shape == (n, m)
