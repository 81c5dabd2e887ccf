"""Pictures: what is drawn is where it should be, inside the picture, in the class's colour."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageColor

from minivis.detr import Panoptic, Segment
from minivis.evaluation import draw_detections, draw_grid, draw_panoptic, draw_targets
from minivis.evaluation.draw import PALE, PALETTE, TINT, place_labels

GREY = (128, 128, 128)
NAMES = ["circle", "star", "ring"]


def found(*rows: tuple[float, int, list[float]]) -> dict:
    scores, labels, boxes = zip(*rows) if rows else ((), (), ())
    return {
        "scores": torch.tensor(scores, dtype=torch.float32),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
    }


def colours(picture: Image.Image) -> set:
    return {colour for _, colour in picture.getcolors(maxcolors=2**24)}


@pytest.mark.parametrize(
    ("size", "scale"), [((128, 96), 4), ((320, 240), 2), ((640, 480), 1), ((1333, 800), 1)]
)
def test_boxes_are_drawn_at_their_place_in_the_colour_of_their_class(size, scale):
    image = Image.new("RGB", size, GREY)
    left, top, right, bottom = size[0] // 4, size[1] // 2, size[0] // 2, 3 * size[1] // 4
    picture = draw_detections(image, found((0.9, 1, [left, top, right, bottom])), NAMES)
    assert picture.size == (size[0] * scale, size[1] * scale)
    colour = ImageColor.getrgb(PALETTE[1])
    inset = 2  # the line is inside the box, and has a dark edge
    assert picture.getpixel((scale * right - inset, scale * bottom - inset)) == colour
    assert picture.getpixel((scale * (left + right) // 2, scale * (top + bottom) // 2)) == GREY
    changed = ImageChops.difference(picture, Image.new("RGB", picture.size, GREY)).getbbox()
    assert changed[2] <= scale * right + 1 and changed[3] <= scale * bottom + 1
    assert image.getcolors() == [(size[0] * size[1], GREY)]  # the picture that was given stays as it is


def test_detections_below_the_threshold_are_left_out():
    image, boxes = (
        Image.new("RGB", (200, 200), GREY),
        [[10, 40, 60, 90], [100, 40, 150, 90], [100, 120, 150, 190]],
    )
    detections = found(*zip([0.2, 0.6, 0.8], [0, 1, 2], boxes))
    used = [ImageColor.getrgb(colour) for colour in PALETTE[:3]]
    assert set(used) & colours(draw_detections(image, detections, NAMES)) == set(used[1:])
    assert set(used) & colours(draw_detections(image, detections, NAMES, threshold=0.1)) == set(used)
    assert colours(draw_detections(image, detections, NAMES, threshold=0.9)) == {GREY}
    assert colours(draw_detections(image, found(), NAMES)) == {GREY}


@pytest.mark.parametrize(
    "box", [[-50, -50, 500, 500], [199, 199, 200, 200], [20, 20, 20, 20], [300, 300, 310, 310]]
)
def test_boxes_at_and_beyond_the_border_are_drawn(box):
    image = Image.new("RGB", (200, 200), GREY)
    assert colours(draw_detections(image, found((0.9, 0, box)), NAMES)) > {
        GREY,
        ImageColor.getrgb(PALETTE[0]),
    }


def test_targets_are_dashed_in_white():
    target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]])}
    picture = draw_targets(Image.new("RGB", (640, 640), GREY), target, NAMES)
    lower_edge = {picture.getpixel((x, 479)) for x in range(170, 470)}
    assert lower_edge == {(0, 0, 0), (255, 255, 255)}
    assert picture.getpixel((320, 320)) == GREY
    below = draw_detections(Image.new("RGB", (640, 640), GREY), found(), NAMES, target=target)
    assert {below.getpixel((x, 479)) for x in range(170, 470)} == lower_edge
    nothing = {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
    assert colours(draw_targets(Image.new("RGB", (64, 64), GREY), nothing, NAMES)) == {GREY}


def test_tensors_are_pictures_too():
    pixels = torch.full((3, 50, 80), 128, dtype=torch.uint8)
    assert draw_detections(pixels, found(), NAMES).size == (480, 300)
    assert colours(draw_detections(pixels / 255, found(), NAMES)) == {GREY}


def test_grid():
    images = [Image.new("RGB", size, GREY) for size in [(10, 20), (30, 10), (30, 20)]]
    grid = draw_grid(images, columns=2, gap=4)
    assert grid.size == (30 + 4 + 30, 20 + 4 + 20)
    assert grid.getpixel((10, 0)) == GREY and grid.getpixel((9, 0)) == (
        255,
        255,
        255,
    )  # in the middle of its cell
    assert draw_grid(images[:1], columns=4).size == (10, 20)
    with pytest.raises(ValueError, match="at least one picture"):
        draw_grid([])


sides = st.tuples(st.integers(-50, 700), st.integers(-50, 500), st.integers(0, 400), st.integers(0, 400))


@settings(deadline=None)
@given(st.lists(st.tuples(sides, st.integers(20, 200)), max_size=12))
def test_labels_stay_inside_the_picture(rows):
    boxes = [(x, y, x + w, y + h) for (x, y, w, h), _ in rows]
    sizes = [(width, 18) for _, width in rows]
    for (x, y), (w, h) in zip(place_labels(boxes, sizes, (640, 480)), sizes):
        assert x >= 0 and y >= 0 and x + w <= 640 and y + h <= 480


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 490), st.integers(20, 470))
def test_labels_of_boxes_at_the_same_place_do_not_cover_each_other(count, x, y):
    places = place_labels([(x, y, x + 150, y + 150)] * count, [(60, 18)] * count, (640, 640))
    covered = {(a, b) for x, y in places for a in range(x, x + 60) for b in range(y, y + 18)}
    assert len(covered) == count * 60 * 18


# Panoptic maps

KINDS = ["star", "ring", "grass", "water"]  # two things, two kinds of stuff


def segments_of_strips(*strips: tuple[int, int], height: int = 300) -> Panoptic:
    """Strips from left to right, with ids from 1 on, each of a label (-1: void) and a width."""
    row, segments = [], []
    for number, (label, width) in enumerate(strips, start=1):
        row += [number if label >= 0 else 0] * width
        if label >= 0:
            segments.append(Segment(number, label, label < 2))
    return Panoptic(torch.tensor([row] * height), segments)


def tinted(colour: str, is_thing: bool, grey: int = 128) -> tuple:
    return tuple(
        round((1 - TINT[is_thing]) * grey + TINT[is_thing] * c + 1e-4) for c in ImageColor.getrgb(colour)
    )


def test_segments_are_tinted_where_they_are_and_void_is_not():
    panoptic = segments_of_strips((0, 200), (-1, 200), (2, 200))
    image = Image.new("RGB", (600, 300), (200, 100, 90))
    picture = draw_panoptic(image, panoptic, KINDS)
    grey = image.convert("L").getpixel((0, 0))
    for x, expected in ((20, tinted(PALETTE[0], True, grey)), (580, tinted(PALE[2], False, grey))):
        assert picture.getpixel((x, 20)) == pytest.approx(expected, abs=1)
    assert picture.getpixel((300, 20)) == picture.getpixel((300, 280)) == (200, 100, 90)
    assert (
        picture.getpixel((200, 20)) == picture.getpixel((400, 20)) == (255, 255, 255)
    )  # where segments meet
    assert image.getcolors() == [(600 * 300, (200, 100, 90))]  # the picture that was given stays as it is


def test_things_of_one_class_and_neighbours_differ_in_colour():
    """Eight stars beside each other: seven colours, then the first that no neighbour has."""
    panoptic = segments_of_strips(*[(0, 80)] * 8)
    picture = draw_panoptic(Image.new("RGB", (640, 300), GREY), panoptic, KINDS)
    seen = [picture.getpixel((80 * i + 8, 20)) for i in range(8)]
    assert len(set(seen[:7])) == 7 and seen[7] in seen[:6]
    alternating = segments_of_strips((0, 60), (1, 60), (0, 60), (1, 60))
    picture = draw_panoptic(Image.new("RGB", (240, 300), GREY), alternating, KINDS)
    assert len({picture.getpixel((scaled, 20)) for scaled in (60, 180, 300, 420)}) == 4
    assert picture.getpixel((60, 20)) == pytest.approx(tinted(PALETTE[0], True), abs=1)  # its class's own


def test_a_stuff_class_keeps_its_colour():
    for strips in ([(2, 300), (3, 300)], [(3, 300), (2, 300)], [(0, 300), (2, 300)]):
        picture = draw_panoptic(Image.new("RGB", (600, 300), GREY), segments_of_strips(*strips), KINDS)
        x = 20 + 300 * [label for label, _ in strips].index(2)
        assert picture.getpixel((x, 20)) == pytest.approx(tinted(PALE[2], False), abs=1)


@pytest.mark.parametrize("label", [0, 2])
def test_a_name_is_written_once_and_in_its_segment(label):
    """A segment of two parts: the name stands in the wider one."""
    ids = torch.zeros(300, 600, dtype=torch.int64)
    ids[:, :90], ids[:, 300:] = 1, 1
    segment = Segment(1, label, label < 2)
    picture = draw_panoptic(Image.new("RGB", (600, 300), GREY), Panoptic(ids, [segment]), KINDS)
    colour = (PALETTE if label < 2 else PALE)[label]
    own = ImageColor.getrgb(colour)  # without the picture in it, it is the label's ground
    where = [(x, y) for y in range(300) for x in range(600) if picture.getpixel((x, y)) == own]
    xs, ys = zip(*where)
    assert min(xs) > 300 and max(xs) < 600, "in the wider part alone"
    assert abs((min(xs) + max(xs)) / 2 - 450) < 10 and max(ys) - min(ys) < 40


def test_the_name_of_a_thing_too_small_for_it_stands_beside_it():
    ids = torch.full((300, 600), 2)
    ids[140:150, 290:300] = 1
    panoptic = Panoptic(ids, [Segment(1, 0, True), Segment(2, 2, False)])
    picture = draw_panoptic(Image.new("RGB", (600, 300), GREY), panoptic, KINDS)
    assert picture.getpixel((295, 145)) == pytest.approx(tinted(PALETTE[0], True), abs=1)
    assert ImageColor.getrgb(PALETTE[0]) in {picture.getpixel((x, 130)) for x in range(280, 340)}


@pytest.mark.parametrize(("size", "scale"), [((128, 96), 4), ((320, 240), 2), ((1333, 800), 1)])
def test_small_panoptic_pictures_are_enlarged(size, scale):
    panoptic = segments_of_strips((0, size[0] // 2), (2, size[0] - size[0] // 2), height=size[1])
    picture = draw_panoptic(Image.new("RGB", size, GREY), panoptic, KINDS)
    assert picture.size == (size[0] * scale, size[1] * scale)
    assert picture.getpixel((scale * (size[0] // 2), 3)) == (255, 255, 255)
    assert picture.getpixel((3, 3)) == pytest.approx(tinted(PALETTE[0], True), abs=1)


def test_panoptic_pictures_without_segments_and_of_another_size():
    nothing = Panoptic(torch.zeros(50, 80, dtype=torch.int64), [])
    assert colours(draw_panoptic(torch.full((3, 50, 80), 128, dtype=torch.uint8), nothing, KINDS)) == {GREY}
    with pytest.raises(ValueError, match="the map is 80 × 50, the picture 50 × 80"):
        draw_panoptic(Image.new("RGB", (50, 80), GREY), nothing, KINDS)
