"""tests/conftest.py checks every annotated call in minivis: a wrong shape or type fails where it is made."""

import jaxtyping
import pytest
import torch

from minivis.boxes import cxcywh_to_xyxy, generalized_box_iou
from minivis.positions import SinePositions


def test_true_annotations_pass():
    assert generalized_box_iou(torch.rand(2, 4), torch.rand(3, 4)).shape == (2, 3)


def test_a_whole_number_is_a_float():
    assert SinePositions(8, temperature=20).temperature == 20


@pytest.mark.parametrize(
    "boxes",
    [torch.zeros(2, 5), torch.ones(2, 4, dtype=torch.int64), torch.zeros(2, 4).numpy(), [[0, 0, 1, 1]]],
)
def test_false_ones_are_caught(boxes):
    with pytest.raises(jaxtyping.TypeCheckError):
        cxcywh_to_xyxy(boxes)
