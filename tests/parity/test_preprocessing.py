"""Pictures reach the model as Hugging Face's DetrImageProcessor would send them: the same size, the same pixels."""

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from torch.testing import assert_close
from transformers import DetrImageProcessor
from transformers.models.detr.image_processing_detr import get_size_with_aspect_ratio

from minivis.images import ImageTransform, fitted_size

side = st.integers(1, 3000)


@given(height=side, width=side, short=st.integers(16, 1500), extra=st.none() | st.integers(0, 1500))
def test_sizes_are_the_reference_rule(height, width, short, extra):
    longest = None if extra is None else short + extra
    expected = get_size_with_aspect_ratio((height, width), short, longest)
    assert fitted_size(height, width, short, longest) == (max(1, expected[0]), max(1, expected[1]))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),
        ((427, 640), (800, 1199)),
        ((1080, 1920), (750, 1333)),
        ((800, 1333), (800, 1333)),
    ],
)
def test_sizes_of_common_pictures(size, expected):
    assert fitted_size(*size, 800, 1333) == expected
    assert fitted_size(*size[::-1], 800, 1333) == expected[::-1]


@pytest.mark.parametrize("name", ["coffee", "astronaut"])
@pytest.mark.parametrize("edges", [(224, 373), (600, 700)], ids=["smaller", "larger"])
def test_pixels(name, edges):
    picture = Image.fromarray(getattr(data, name)()).crop((0, 0, 413, 290))
    short, long = edges
    processor = DetrImageProcessor(size={"shortest_edge": short, "longest_edge": long})
    expected = processor(picture, return_tensors="pt")["pixel_values"][0]
    ours = ImageTransform(shortest_edge=short, longest_edge=long)(picture)
    # Both resize uint8 with the same antialiased bilinear kernel; what is left is the rounding of the normalisation.
    if int(transformers.__version__.split(".")[0]) >= 5:
        assert_close(ours, expected, rtol=0, atol=1e-5)

    # Pillow, with which the official code (and transformers 4) resizes, rounds some pixels to the next of 256 levels.
    resized = torch.from_numpy(np.array(picture.resize(ours.shape[:0:-1], Image.Resampling.BILINEAR)))
    levels = ImageTransform().denormalise(ours).int() - resized.permute(2, 0, 1).int()
    assert levels.abs().max() <= 1 and levels.abs().float().mean() < 0.1
