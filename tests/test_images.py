"""Images: the three forms a model may be called with, padding and its mask, the transform from a picture."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minivis.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageBatch,
    ImageTransform,
    as_image_batch,
    fitted_size,
    resize_mask,
)


def test_a_list_is_padded_right_and_below():
    images = [torch.randn(3, 4, 7), torch.randn(3, 6, 5), torch.randn(3, 1, 1)]
    batch = as_image_batch(images)
    assert batch.pixels.shape == (3, 3, 6, 7)
    assert batch.padding_mask.shape == (3, 6, 7)
    for i, image in enumerate(images):
        _, h, w = image.shape
        assert torch.equal(batch.pixels[i, :, :h, :w], image)
        assert not batch.padding_mask[i, :h, :w].any()
        assert batch.padding_mask[i].sum() == 6 * 7 - h * w
        assert (batch.pixels[i, :, batch.padding_mask[i]] == 0).all()


def test_a_tensor_has_no_padding_and_is_not_copied():
    pixels = torch.randn(2, 3, 4, 5)
    batch = as_image_batch(pixels)
    assert batch.pixels is pixels
    assert batch.padding_mask.shape == (2, 4, 5)
    assert not batch.padding_mask.any()


def test_images_of_one_size_are_the_same_as_list_and_tensor():
    pixels = torch.randn(2, 3, 4, 5)
    for from_list, from_tensor in zip(as_image_batch(list(pixels)), as_image_batch(pixels), strict=True):
        assert torch.equal(from_list, from_tensor)


def test_a_batch_stays_what_it_is():
    batch = ImageBatch(torch.randn(1, 3, 4, 5), torch.ones(1, 4, 5, dtype=torch.bool))
    assert as_image_batch(batch) is batch
    moved = batch.to("cpu")
    assert isinstance(moved, ImageBatch)
    assert torch.equal(moved.pixels, batch.pixels)


def test_precision_is_kept():
    assert as_image_batch([torch.zeros(3, 2, 2, dtype=torch.bfloat16)]).pixels.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "at least one image"),
        ([torch.zeros(3, 4, 4), torch.zeros(1, 4, 5)], r"image 1 .* \(3, H, W\), got \(1, 4, 5\)"),
        ([torch.zeros(4, 4)], r"image 0 .* got \(4, 4\)"),
        ([torch.zeros(3, 0, 4)], r"image 0 .* got \(3, 0, 4\)"),
        ([torch.zeros(4, 4, 3)], r"image 0 .* got \(4, 4, 3\)"),
        (
            [torch.zeros(3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)],
            "image 1 .* floats, got torch.uint8",
        ),
        ([Image.new("RGB", (4, 4))], "image 0 to be a tensor, got Image"),
        ([np.zeros((3, 4, 4), np.float32)], "image 0 to be a tensor, got ndarray"),
        (torch.zeros(3, 4, 4), r"\(B, 3, H, W\), got \(3, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4), r"\(B, 3, H, W\), got \(2, 1, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "floats, got torch.uint8"),
    ],
)
def test_what_is_not_an_image_is_named(images, words):
    with pytest.raises(ValueError, match=words):
        as_image_batch(images)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([2, 8, 16, 32]))
def test_mask_of_a_feature_map_keeps_at_least_one_cell_of_each_image(height, width, stride):
    mask = torch.ones(1, 70, 70, dtype=torch.bool)
    mask[:, :height, :width] = False
    cells = -(-70 // stride)
    small = resize_mask(mask, (cells, cells))
    assert small.shape == (1, cells, cells)
    assert small.dtype == torch.bool
    assert not small[0, 0, 0], "attention over no key at all would be NaN"
    for row in range(cells):
        for column in range(cells):
            assert small[0, row, column] == mask[0, row * 70 // cells, column * 70 // cells]


@pytest.mark.parametrize(
    ("size", "edges", "fitted"),
    [
        ((480, 640), (800, 1333), (800, 1066)),
        ((640, 480), (800, 1333), (1066, 800)),
        ((300, 900), (800, 1333), (444, 1333)),
        ((100, 200), (None, None), (100, 200)),
        ((100, 200), (None, 300), (100, 200)),
        ((100, 200), (None, 100), (50, 100)),
        ((100, 100), (50, None), (50, 50)),
        ((1, 5000), (None, 1000), (1, 1000)),
    ],
)
def test_fitted_size(size, edges, fitted):
    assert fitted_size(*size, *edges) == fitted


@settings(deadline=None, max_examples=200)
@given(st.integers(20, 2000), st.integers(20, 2000))
def test_fitted_size_is_within_bounds_and_keeps_the_shape(height, width):
    new = fitted_size(height, width, 480, 800)
    assert fitted_size(width, height, 480, 800) == new[::-1]
    assert min(new) <= 480
    if (height, width) != new:  # transformers leaves a picture alone whose short side is right already
        assert max(new) <= 800
        assert min(new) == 480 or max(new) >= 799
        long, short = max(height, width), min(height, width)
        assert max(new) / min(new) == pytest.approx(long / short, rel=0.6 / min(new) + 1.1 / max(new))


def test_transform_normalises_a_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    expected = (pixels / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    for image in (Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1)):
        transformed = ImageTransform()(image)
        assert transformed.dtype == torch.float32
        np.testing.assert_allclose(transformed.permute(1, 2, 0), expected, atol=1e-5)


def test_transform_undone():
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    transform = ImageTransform(mean=(0.2, 0.5, 0.7), std=(0.1, 0.5, 1.0))
    assert torch.equal(transform.denormalise(transform.normalise(pixels)), pixels)
    assert transform.denormalise(torch.full((3, 1, 1), 1e6)).tolist() == [[[255]], [[255]], [[255]]]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_transform_takes_pictures_of_any_mode(mode):
    assert ImageTransform(shortest_edge=8)(Image.new(mode, (20, 10))).shape == (3, 8, 16)


def test_transform_resizes_as_told():
    picture = Image.new("RGB", (640, 480), (124, 116, 104))  # about the mean colour
    resized = ImageTransform(shortest_edge=60, longest_edge=70)(picture)
    assert resized.shape == (3, 52, 70)
    assert resized.abs().max() < 0.02


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(3, 4, 4),
        torch.zeros(1, 4, 4, dtype=torch.uint8),
        torch.zeros(4, 4, dtype=torch.uint8),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
    ],
)
def test_transform_names_what_it_cannot_take(image):
    with pytest.raises(ValueError, match=r"uint8 tensor \(3, H, W\)"):
        ImageTransform()(image)


def test_transform_survives_json():
    transform = ImageTransform(mean=(0.1, 0.2, 0.3), shortest_edge=96)
    assert ImageTransform.from_dict(json.loads(json.dumps(transform.to_dict()))) == transform


def test_transform_keeps_the_shades_of_16_bits():
    shades = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = ImageTransform(mean=(0, 0, 0), std=(1, 1, 1))(Image.fromarray(shades))
    torch.testing.assert_close(pixels[0], torch.from_numpy(shades / 65535).float(), atol=1 / 255, rtol=0)


def test_a_mask_of_another_size_is_refused():
    batch = ImageBatch(torch.zeros(2, 3, 64, 64), torch.zeros(2, 32, 64, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got \(2, 3, 64, 64\) and \(2, 32, 64\)"):
        as_image_batch(batch)


def test_sizes_are_without_the_padding():
    sizes = [(3, 9), (7, 2), (7, 9)]
    assert as_image_batch([torch.zeros(3, *size) for size in sizes]).sizes == sizes


@pytest.mark.parametrize(
    ("edges", "longest_side", "expected"),
    [
        ((None, None), None, (None, 256)),  # nobody says anything of sizes
        ((None, None), 100, (None, 100)),
        ((800, 1333), None, (800, 1333)),
        ((800, 1333), 384, (800, 384)),
        ((None, 300), 384, (None, 300)),
        ((800, None), 384, (800, 384)),
        ((800, None), None, (800, None)),
    ],
)
def test_a_transform_that_makes_no_larger_pictures(edges, longest_side, expected):
    transform = ImageTransform(mean=(0.1, 0.2, 0.3), shortest_edge=edges[0], longest_edge=edges[1])
    smaller = transform.no_larger(longest_side, otherwise=256)
    assert (smaller.shortest_edge, smaller.longest_edge) == expected and smaller.mean == transform.mean
