"""Descriptions of scenes: the same everywhere, within the world's bounds, and captions that are true."""

import functools
import hashlib
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from scene_strategies import seeds, splits, world_fields

from minivis.data.world import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    SIZES,
    STANDARD,
    Scene,
    SceneObject,
    World,
    captions,
    describe,
)

MANY = range(300)


@functools.cache
def many(split: str) -> list[Scene]:
    return [describe(seed, split=split) for seed in MANY]


FINGERPRINT = """
import hashlib
from minivis.data.world import describe
scenes = [describe(seed, split=split) for split in ("val", "train") for seed in (*range(20), 2**62 + 1)]
print(hashlib.sha256(repr(scenes).encode()).hexdigest())
"""


@given(seed=seeds, fields=world_fields, split=splits)
@settings(max_examples=40, deadline=None)
def test_a_seed_gives_one_scene_within_the_worlds_bounds(seed: int, fields: dict, split: str):
    world = World(**fields)
    scene = describe(seed, world, split)
    assert describe(seed, world, split) == scene
    assert 1 <= len(scene.objects) <= world.max_objects
    pairs = world.pairs(split)
    for thing in scene.objects:
        assert (thing.shape, thing.colour) in pairs
        smallest, largest = SIZES[thing.size]
        assert smallest <= thing.radius * 128 / world.size <= largest
        assert 0 < thing.x < world.size and 0 < thing.y < world.size
    materials = [region.material for region in scene.regions]
    assert len(set(materials)) == len(materials)
    assert len(materials) in ((2, 3) if world.ground == "textured" else (0,))


def test_another_process_draws_the_same_scenes():
    here = [describe(seed, split=split) for split in ("val", "train") for seed in (*range(20), 2**62 + 1)]
    fresh = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == hashlib.sha256(repr(here).encode()).hexdigest()


def test_scenes_stay_what_they_were():
    """Trained models, the shipped split and published figures lean on them."""
    drawn = [(t.size, t.colour, t.shape, round(t.x), round(t.y)) for t in describe(3, split="val").objects]
    assert drawn == [
        ("medium", "yellow", "cross", 48, 100),
        ("medium", "orange", "star", 112, 18),
        ("small", "cyan", "ring", 81, 68),
        ("small", "cyan", "square", 111, 36),
    ]


def test_describing_needs_no_torch():
    code = "import sys; import minivis.data.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_splits_share_no_scene():
    drawn = {split: {scene.objects for scene in many(split)} for split in ("train", "val", "novel")}
    assert all(len(scenes) == len(MANY) for scenes in drawn.values())
    assert not drawn["train"] & drawn["val"] and not drawn["train"] & drawn["novel"]


@pytest.mark.parametrize("split", ["train", "val", "novel"])
def test_held_out_pairs_occur_in_novel_only(split: str):
    pairs = Counter((t.shape, t.colour) for scene in many(split) for t in scene.objects)
    if split == "novel":
        assert set(pairs) == set(HELD_OUT)
    else:
        assert set(pairs) == {(s, c) for s in SHAPES for c in COLOURS} - set(HELD_OUT)


def test_every_shape_and_colour_is_seen_in_training_and_held_out():
    for names, position in ((SHAPES, 0), (tuple(COLOURS), 1)):
        trained = {pair[position] for pair in STANDARD.pairs("train")}
        assert trained == set(names)
    assert {shape for shape, _ in HELD_OUT} == set(SHAPES)
    assert len({colour for _, colour in HELD_OUT}) == len(HELD_OUT)


def test_the_standard_world_is_varied():
    scenes = many("train")
    counts = Counter(len(scene.objects) for scene in scenes)
    assert set(counts) == set(range(1, 9)) and min(counts.values()) > 15
    objects = [thing for scene in scenes for thing in scene.objects]
    for attribute, names in (("shape", SHAPES), ("size", SIZES), ("colour", COLOURS)):
        share = Counter(getattr(thing, attribute) for thing in objects)
        assert all(0.5 < share[name] * len(names) / len(objects) < 1.5 for name in names), share


def test_a_world_of_one_upright_object_on_plain_ground():
    world = World(size=96, min_objects=1, max_objects=1, tilt=0.0, ground="plain")
    for seed in MANY[:50]:
        scene = describe(seed, world)
        assert len(scene.objects) == 1 and scene.objects[0].angle == 0 and scene.regions == ()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"shapes": ("circle", "heptagon")}, "heptagon"),
        ({"colours": ()}, "World.colours"),
        ({"sizes": ("huge",)}, "huge"),
        ({"min_objects": 0}, "0 and 8"),
        ({"min_objects": 5, "max_objects": 4}, "5 and 4"),
        ({"max_hidden": 1.0}, "max_hidden is 1.0"),
        ({"size": 32}, "32"),
    ],
)
def test_impossible_worlds_are_named(fields: dict, named: str):
    with pytest.raises(ValueError, match=named):
        World(**fields)


def test_a_split_without_pairs_is_named():
    with pytest.raises(ValueError, match="novel"):
        describe(0, World(held_out=()), "novel")


def scene_of(*objects: tuple[str, float, float]) -> Scene:
    things = []
    for name, x, y in objects:
        size, colour, shape = name.split()
        things.append(SceneObject(shape, colour, size, x, y, SIZES[size][0], 0.0))
    return Scene(STANDARD, "train", 0, (), tuple(things))


def test_captions_say_where_things_are():
    scene = scene_of(
        ("small red circle", 20, 60), ("large blue star", 100, 62), ("small white ring", 22, 110)
    )
    assert captions(scene) == [
        "a small red circle",
        "a large blue star",
        "a small white ring",
        "a large blue star right of a small red circle",
        "a small white ring below a small red circle",
    ]


def test_captions_leave_out_what_is_not_clear():
    diagonal = scene_of(("small red circle", 20, 20), ("small blue star", 90, 95))
    near = scene_of(("large red circle", 60, 60), ("large blue star", 80, 62))
    twins = scene_of(("small red circle", 20, 60), ("small red circle", 60, 62), ("small blue star", 110, 61))
    assert len(captions(diagonal)) == len(captions(near)) == 2
    assert len(captions(twins)) == 3


def test_captions_of_drawn_scenes_are_true():
    holds = {
        "left of": lambda a, b: a.x < b.x, "right of": lambda a, b: a.x > b.x,
        "above": lambda a, b: a.y < b.y, "below": lambda a, b: a.y > b.y,
    }  # fmt: skip
    told = Counter()
    for scene in many("train"):
        named = {f"a {t.size} {t.colour} {t.shape}": t for t in scene.objects}
        sentences = captions(scene)
        assert sentences == captions(scene) and len(set(sentences) & set(named)) == len(named)
        for sentence in sentences[len(scene.objects) :]:
            relation = next(relation for relation in holds if f" {relation} " in sentence)
            one, other = (named[name] for name in sentence.split(f" {relation} "))
            assert holds[relation](one, other), sentence
            told[relation] += 1
    assert min(told[relation] for relation in holds) > 20
