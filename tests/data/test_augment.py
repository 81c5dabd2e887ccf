"""The paper's augmentation: sizes as the paper has them, and boxes and masks that stay on their objects."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.data import DetrAugment

SMALL = DetrAugment(short_sides=(48, 64, 80), longest=120, crop_short_sides=(60, 80), crop_sizes=(40, 70))
COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)


def scene(height: int, width: int, boxes: list[tuple[int, int, int, int]]):
    """Black, with one rectangle of pure colour an object (xyxy in whole pixels), in rows that do not overlap."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for i, (left, top, right, bottom) in enumerate(boxes):
        image[:, top:bottom, left:right] = COLOURS[i][:, None, None]
        masks[i, top:bottom, left:right] = True
    target = {
        "labels": torch.arange(len(boxes)),
        "boxes": torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        "masks": masks,
        "annotation_ids": [100 + i for i in range(len(boxes))],
        "image_id": 1,
    }
    return image, target


@st.composite
def scenes(draw):
    height, width = draw(st.integers(60, 140)), draw(st.integers(60, 140))
    boxes = []
    for row in range(draw(st.integers(0, 3))):  # one object in each third of the height
        low, high = row * height // 3, (row + 1) * height // 3
        left = draw(st.integers(0, width - 12))
        top = draw(st.integers(low, high - 12))
        boxes.append((left, top, draw(st.integers(left + 12, width)), draw(st.integers(top + 12, high))))
    return scene(height, width, boxes)


def found_by_colour(image: torch.Tensor, colour: torch.Tensor) -> torch.Tensor | None:
    """The box around the pixels that are more this colour than black."""
    ys, xs = torch.nonzero(image[colour.bool()][0] > 127, as_tuple=True)
    if len(xs) == 0:
        return None
    return torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).double()


@settings(max_examples=80, deadline=None)
@given(scenes(), st.integers(0, 2**32 - 1))
def test_boxes_and_masks_stay_on_their_objects(sample, seed):
    image, target = SMALL(*sample, np.random.default_rng(seed))
    assert image.dtype == torch.uint8
    height, width = image.shape[-2:]
    assert target["masks"].shape == (len(target["labels"]), height, width)
    kept = target["labels"].tolist()
    assert target["annotation_ids"] == [100 + label for label in kept]
    for label, colour in enumerate(COLOURS):
        seen = found_by_colour(image, colour)
        if label in kept:
            box = target["boxes"][kept.index(label)]
            assert (box[2:] > box[:2]).all()
            assert (box >= 0).all() and (box[[0, 2]] <= width).all() and (box[[1, 3]] <= height).all()
            if seen is not None:  # else a sliver, thinner than what resizing can show
                assert (box - seen).abs().max() <= 2
                outline = found_by_colour(
                    target["masks"][kept.index(label)].byte().expand(3, -1, -1) * 255, colour
                )
                # Masks are resized to the nearest pixel, twice: a pixel of the smaller picture is several of this.
                assert (outline - seen).abs().max() <= 5
            else:
                assert (box[2:] - box[:2]).min() < 2
        else:
            assert seen is None or (seen[2:] - seen[:2]).min() <= 1


@settings(max_examples=25, deadline=None)
@given(scenes(), st.integers(0, 2**32 - 1))
def test_a_seed_gives_the_same_pixels(sample, seed):
    augment = DetrAugment(**{**vars(SMALL), "colour": 0.4})
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    first, first_target = augment(*sample, np.random.default_rng(seed))
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    second, second_target = augment(*sample, np.random.default_rng(seed))
    assert torch.equal(first, second)
    assert torch.equal(first_target["boxes"], second_target["boxes"])
    assert torch.equal(first_target["masks"], second_target["masks"])


def test_other_seeds_give_other_pixels():
    sample = scene(100, 90, [(10, 10, 50, 30)])
    results = {SMALL(*sample, np.random.default_rng(seed))[0].numpy().tobytes() for seed in range(20)}
    assert len(results) > 15


@settings(max_examples=25, deadline=None)
@given(scenes())
def test_flipping_twice_changes_nothing(sample):
    image, target = sample
    flip = DetrAugment(
        short_sides=(min(image.shape[1:]),),
        longest=1000,
        crop_short_sides=(1,),
        flip_chance=1.0,
        crop_chance=0.0,
    )
    once, flipped = flip(image, target, np.random.default_rng(0))
    assert torch.equal(once, image.flip(-1))
    twice, back = flip(once, flipped, np.random.default_rng(0))
    assert torch.equal(twice, image)
    assert torch.allclose(back["boxes"], target["boxes"])
    assert torch.equal(back["masks"], target["masks"])


def test_the_papers_sizes():
    augment = DetrAugment(flip_chance=0.0, crop_chance=0.0)
    assert augment.short_sides == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    image, target = scene(240, 320, [(0, 0, 40, 40)])
    sizes = {tuple(augment(image, target, np.random.default_rng(seed))[0].shape[1:]) for seed in range(60)}
    assert {height for height, _ in sizes} == set(augment.short_sides)
    assert all(abs(width - height * 4 / 3) < 1 for height, width in sizes)
    wide, target = scene(60, 300, [])
    assert all(augment(wide, target, np.random.default_rng(seed))[0].shape[2] <= 1333 for seed in range(10))


def test_half_of_the_pictures_are_flipped_and_half_are_cropped():
    image, target = scene(64, 64, [(0, 0, 6, 64)])  # a bar at the left edge
    augment = DetrAugment(short_sides=(64,), longest=200, crop_short_sides=(128,), crop_sizes=(40, 50))
    whole = flipped = 0
    for seed in range(200):
        _, after = augment(image, target, np.random.default_rng(seed))
        is_whole = len(after["boxes"]) == 1 and bool(
            (after["boxes"][0, 2] - after["boxes"][0, 0]).round() == 6
        )
        whole += is_whole
        flipped += is_whole and bool(after["boxes"][0, 0] > 32)
    assert 75 < whole < 125
    assert 0.35 < flipped / whole < 0.65


def test_a_crop_cuts_boxes_and_drops_what_is_outside():
    image, target = scene(100, 100, [(0, 0, 100, 33), (2, 40, 20, 60), (80, 70, 100, 100)])
    augment = DetrAugment(
        short_sides=(50,),
        longest=100,
        crop_short_sides=(100,),
        crop_sizes=(50, 50),
        flip_chance=0.0,
        crop_chance=1.0,
    )
    seen = set()
    for seed in range(40):
        after_image, after = augment(image, target, np.random.default_rng(seed))
        assert after_image.shape == (3, 50, 50)
        seen.add(tuple(after["annotation_ids"]))
        if after["annotation_ids"][:1] == [100]:
            assert after["boxes"][0, [0, 2]].tolist() == [0, 50]
    assert len(seen) > 3 and any(len(ids) < 3 for ids in seen)
    assert target["annotation_ids"] == [100, 101, 102]  # the target given is not changed


def test_pictures_smaller_than_a_crop_and_without_objects_work():
    image, target = scene(20, 300, [])
    augment = DetrAugment(
        short_sides=(20,), longest=400, crop_short_sides=(20,), crop_sizes=(100, 150), crop_chance=1.0
    )
    after_image, after = augment(image, target, np.random.default_rng(0))
    assert min(after_image.shape[1:]) >= 1
    assert after["boxes"].shape == (0, 4) and after["masks"].shape == (0, *after_image.shape[1:])


def test_scaling_scales_every_length():
    half = DetrAugment().scaled(0.5)
    assert half.short_sides == tuple(range(240, 401, 16))
    assert (half.longest, half.crop_short_sides, half.crop_sizes) == (666, (200, 250, 300), (192, 300))
    assert half.flip_chance == 0.5


def test_colours_change_only_where_asked():
    image = torch.arange(3 * 32 * 32).reshape(3, 32, 32).remainder(256).to(torch.uint8)
    _, target = scene(32, 32, [(0, 0, 16, 10)])
    still = DetrAugment(short_sides=(32,), longest=64, flip_chance=0.0, crop_chance=0.0)
    after, boxes = still(image, target, np.random.default_rng(0))
    assert torch.equal(after, image) and torch.equal(boxes["boxes"], target["boxes"])
    coloured, boxes = DetrAugment(**{**vars(still), "colour": 0.5})(image, target, np.random.default_rng(0))
    assert not torch.equal(coloured, image) and torch.equal(boxes["boxes"], target["boxes"])
    assert coloured.shape == image.shape and coloured.dtype == torch.uint8


def test_without_masks_there_are_none():
    image, target = scene(64, 64, [(0, 0, 30, 20)])
    del target["masks"]
    _, after = SMALL(image, target, np.random.default_rng(1))
    assert "masks" not in after and after["image_id"] == 1
