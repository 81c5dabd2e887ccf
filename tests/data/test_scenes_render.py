"""Pixels of scenes: what is visible is what the description says, whatever the batch and the device."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scene_strategies import seeds, splits, world_fields

from minivis.data.rendering import Rendered, render, visible_boxes
from minivis.data.world import COLOURS, MATERIALS, SHAPES, STANDARD, Scene, SceneObject, World, describe

SCENES = [describe(seed) for seed in range(48)]


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    return render(SCENES)


def alone(thing: SceneObject, world: World = STANDARD) -> Scene:
    return Scene(world, "train", 0, (), (thing,))


def whole_areas(scene: Scene) -> list[int]:
    """Pixels of each object when nothing hides it: alone, moved by whole pixels to the middle of the picture."""
    middle = scene.world.size // 2
    centred = [thing._replace(x=thing.x % 1 + middle, y=thing.y % 1 + middle) for thing in scene.objects]
    object_map = render([alone(thing, World(size=scene.world.size)) for thing in centred]).object_map
    return (object_map == 0).sum((1, 2)).tolist()


def assert_alike(one: Rendered, other: Rendered) -> None:
    assert (one.pixels.int() - other.pixels.int()).abs().max() <= 1
    assert torch.equal(one.object_map, other.object_map)
    assert torch.equal(one.stuff_map, other.stuff_map)


def test_shapes_and_types(rendered: Rendered):
    assert rendered.pixels.dtype == torch.uint8 and rendered.pixels.shape == (48, 3, 128, 128)
    assert rendered.object_map.shape == rendered.stuff_map.shape == (48, 128, 128)


def test_one_by_one_and_in_any_order_it_is_the_same(rendered: Rendered):
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    shuffled = render([SCENES[i] for i in order])
    assert_alike(shuffled, Rendered(*(part[order] for part in rendered)))
    for i in range(0, 48, 5):
        assert_alike(render([SCENES[i]]), Rendered(*(part[i : i + 1] for part in rendered)))


@given(seed=seeds, fields=world_fields, split=splits)
@settings(max_examples=30, deadline=None)
def test_at_most_the_allowed_part_of_an_object_is_hidden(seed: int, fields: dict, split: str):
    world = World(**fields)
    scene = describe(seed, world, split)
    object_map = render([scene]).object_map
    slack = 1 if world.max_hidden == 0 else 0  # a pixel on the border itself
    for number, area in enumerate(whole_areas(scene)):
        visible = int((object_map == number).sum())
        assert visible > 0 and visible >= (1 - world.max_hidden) * area - slack


def test_at_most_two_fifths_of_an_object_are_hidden_in_many_scenes():
    hidden = []
    for seed in range(1000, 1200):
        scene = describe(seed)
        counts = torch.bincount(render([scene]).object_map.flatten() + 1, minlength=9)[1:].tolist()
        hidden += [1 - count / area for area, count in zip(whole_areas(scene), counts)]
    assert max(hidden) <= 0.4
    assert max(hidden) > 0.35 and np.mean(np.array(hidden) > 0.05) > 0.15  # and objects do hide each other


@given(seed=seeds, fields=world_fields, split=splits)
@settings(max_examples=30, deadline=None)
def test_boxes_are_tight(seed: int, fields: dict, split: str):
    world = World(**fields)
    scene = describe(seed, world, split)
    object_map = render([scene]).object_map
    boxes, masks = visible_boxes(object_map, len(scene.objects))
    for number, (x0, y0, x1, y1) in enumerate(boxes[0].tolist()):
        rows, columns = np.nonzero(object_map[0].numpy() == number)
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert masks[0, number].sum() == len(rows)


def test_later_objects_hide_earlier_ones():
    below = SceneObject("square", "red", "large", 60.0, 60.0, 25.0, 0.0)
    above = SceneObject("circle", "blue", "small", 65.0, 62.0, 10.0, 0.0)
    scene = Scene(STANDARD, "train", 0, (), (below, above))
    pixels, object_map, _ = render([scene])
    assert object_map[0, 62, 65] == 1 and object_map[0, 50, 50] == 0 and object_map[0, 5, 5] == -1
    red, green, blue = pixels[0, :, 62, 65].tolist()
    assert blue > 2 * red and blue > green


def polygon_area(corners: list[tuple[float, float]]) -> float:
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1]))) / 2


STAR = [(r * math.sin(k * math.pi / 5), r * math.cos(k * math.pi / 5)) for k, r in enumerate([1, 0.48] * 5)]
AREAS = {
    "circle": math.pi, "square": 2, "triangle": math.sqrt(27) / 4, "star": polygon_area(STAR),
    "cross": 4 * 0.34 * (2 * 0.94 - 0.34), "ring": math.pi * (1 - 0.46**2),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 0.3, 2.0])
def test_shapes_have_the_area_of_their_geometry_and_fill_their_circle(shape: str, angle: float):
    radius = 40.0
    thing = SceneObject(shape, "red", "large", 64.3, 63.6, radius, angle)
    object_map = render([alone(thing)]).object_map[0]
    assert int((object_map == 0).sum()) == pytest.approx(AREAS[shape] * radius**2, rel=0.02)
    rows, columns = np.nonzero(object_map.numpy() == 0)
    reach = np.hypot(rows + 0.5 - thing.y, columns + 0.5 - thing.x).max()
    assert radius - 2 < reach <= radius


def test_a_triangle_points_up_and_turns_clockwise():
    upright = SceneObject("triangle", "red", "large", 64.0, 64.0, 30.0, 0.0)
    top = {}
    for angle in (0.0, 0.4):
        rows, columns = np.nonzero(render([alone(upright._replace(angle=angle))]).object_map[0].numpy() == 0)
        top[angle] = columns[rows == rows.min()].mean() + 0.5
    assert top[0.0] == pytest.approx(64) and top[0.4] > 70


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_objects_have_their_colour(shape: str, colour: str):
    thing = SceneObject(shape, colour, "large", 64.0, 64.0, 28.0, 0.2)
    pixels, object_map, _ = render([alone(thing)])
    mean = pixels[0][:, object_map[0] == 0].float().mean(dim=1)
    distances = {
        name: (mean / mean.norm() - torch.tensor(c) / math.hypot(*c)).norm() for name, c in COLOURS.items()
    }
    assert min(distances, key=distances.get) == colour


def test_edges_are_antialiased():
    disc = SceneObject("circle", "white", "large", 64.0, 64.0, 25.0, 0.0)
    levels = render([alone(disc)]).pixels[0, 0, 64, 32:46].unique()
    assert len(levels) > 4


def test_the_materials_cover_the_ground(rendered: Rendered):
    names = list(MATERIALS)
    for scene, stuff_map in zip(SCENES, rendered.stuff_map):
        share = torch.bincount(stuff_map.flatten(), minlength=4) / stuff_map.numel()
        assert {names[i] for i in share.nonzero().flatten()} == {region.material for region in scene.regions}
        assert share[share > 0].min() > 0.1


def test_the_ground_has_its_materials_colour(rendered: Rendered):
    for number, (colour, _) in enumerate(MATERIALS.values()):
        where = (rendered.stuff_map == number) & (rendered.object_map < 0)
        mean = rendered.pixels.movedim(1, 0)[:, where].float().mean(dim=1)
        assert mean.tolist() == pytest.approx(list(colour), rel=0.08)


def test_plain_ground_is_one_grey():
    world = World(ground="plain")
    pixels, object_map, stuff_map = render([describe(seed, world) for seed in range(8)])
    assert (stuff_map == -1).all()
    ground = pixels.movedim(1, 0)[:, object_map == -1]
    assert (ground == 128).float().mean() > 0.8  # the rest is shadow


@pytest.mark.parametrize("size", [64, 96, 128, 300])
def test_any_size_looks_alike(size: int):
    world = World(size=size)
    pixels = render([describe(5, world), describe(6, world)]).pixels
    assert pixels.shape == (2, 3, size, size)
    small = torch.nn.functional.interpolate(pixels.float(), (16, 16), mode="area")
    standard = torch.nn.functional.interpolate(
        render([describe(5), describe(6)]).pixels.float(), (16, 16), mode="area"
    )
    assert (small - standard).abs().mean() < 12


def test_scenes_of_different_sizes_cannot_share_a_batch():
    with pytest.raises(ValueError, match="96"):
        render([describe(0), describe(0, World(size=96))])


@pytest.mark.gpu
def test_a_gpu_gives_the_same_pictures(rendered: Rendered):
    there = render(SCENES, "cuda")
    assert (there.pixels.cpu().int() - rendered.pixels.int()).abs().max() <= 1
    assert (there.object_map.cpu() != rendered.object_map).float().mean() < 1e-5
    assert (there.stuff_map.cpu() != rendered.stuff_map).float().mean() < 1e-5
