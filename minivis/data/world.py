"""The world of `Scenes`: what is in a picture, drawn from a seed with NumPy alone.

A `Scene` is a description: a few coloured shapes, painted one over the other, on ground of two or three
materials. Nothing here makes pixels (`rendering.py` does), so a description is the same on every machine.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

Split = Literal["train", "val", "novel"]
SPLITS: tuple[Split, ...] = ("train", "val", "novel")  # the position of a split enters its seeds: only append

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")

# After Okabe and Ito's palette, distinct for the colour-blind too; red is redder, and white replaces black.
COLOURS = {
    "red": (206, 48, 36),
    "orange": (236, 150, 10),
    "yellow": (244, 228, 66),
    "green": (0, 150, 100),
    "cyan": (92, 190, 238),
    "blue": (20, 90, 190),
    "pink": (214, 118, 176),
    "white": (246, 246, 246),
}

# Radii in pixels of a scene of 128 pixels; a scene of another size scales them.
SIZES = {"small": (9.0, 12.0), "medium": (14.0, 19.0), "large": (22.0, 30.0)}

# What the ground is made of: its mean colour, and by how much the texture (in -1..1) lightens and darkens it.
MATERIALS = {
    "grass": ((96, 122, 82), 0.26),
    "brick": ((142, 104, 90), 0.22),
    "gravel": ((138, 134, 128), 0.24),
    "water": ((86, 112, 132), 0.20),
}

# Pairs that never occur in `train` and `val`, and are all there is in `novel`. Every shape and every colour
# is seen in training, so a model that has understood both can name the pair.
HELD_OUT = (("circle", "green"), ("square", "yellow"), ("triangle", "red"),
            ("star", "blue"), ("cross", "orange"), ("ring", "pink"))  # fmt: skip


@dataclass(frozen=True)
class World:
    """The distribution that scenes are drawn from.

    `size`: width and height in pixels. `sizes`: the size words that occur (their radii are in `SIZES`).
    `min_objects`, `max_objects`: a scene has fewer only where no more find room. `max_hidden`: the largest
    fraction of an object's pixels that other objects or the frame may hide. `tilt`: objects are turned by up
    to so many degrees either way. `ground`: `textured` materials, or one `plain` grey. `held_out`: the
    (shape, colour) pairs of the split `novel`.
    """

    size: int = 128
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = tuple(COLOURS)
    sizes: tuple[str, ...] = tuple(SIZES)
    min_objects: int = 1
    max_objects: int = 8
    max_hidden: float = 0.4
    tilt: float = 30.0
    ground: Literal["textured", "plain"] = "textured"
    held_out: tuple[tuple[str, str], ...] = HELD_OUT

    def __post_init__(self) -> None:
        for field, known in (("shapes", SHAPES), ("colours", COLOURS), ("sizes", SIZES)):
            names = getattr(self, field)
            if not names or not set(names) <= set(known):
                raise ValueError(f"World.{field} is {names}; expected one or more of {tuple(known)}")
        if not 1 <= self.min_objects <= self.max_objects:
            bounds = f"{self.min_objects} and {self.max_objects}"
            raise ValueError(f"World has {bounds} objects; expected 1 <= min_objects <= max_objects")
        if not 0 <= self.max_hidden < 1:
            raise ValueError(f"World.max_hidden is {self.max_hidden}; expected a fraction in 0 <= f < 1")
        if self.size < 64:
            raise ValueError(f"World.size is {self.size}; expected at least 64 pixels")
        if self.ground not in ("textured", "plain"):
            raise ValueError(f"World.ground is {self.ground!r}; expected 'textured' or 'plain'")

    def pairs(self, split: Split) -> list[tuple[str, str]]:
        """The (shape, colour) pairs that objects of a split have."""
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; expected one of {SPLITS}")
        novel = split == "novel"
        pairs = [(s, c) for s in self.shapes for c in self.colours if ((s, c) in self.held_out) == novel]
        if not pairs:
            raise ValueError(f"split {split!r} has no (shape, colour) pairs: held out are {self.held_out}")
        return pairs


STANDARD = World()


class SceneObject(NamedTuple):
    """One shape: centre and circumradius in pixels, turned clockwise by an angle in radians."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    angle: float


class Region(NamedTuple):
    """One material of the ground: its brightness, and where in its texture the picture lies (0..1).

    It covers what came before it where `boundary > 0` (the first one is everywhere):

    boundary(x, y) = nx x + ny y - offset + bend sin(wave (-ny x + nx y) + phase), in pixels.
    """

    material: str
    brightness: float
    texture_x: float
    texture_y: float
    nx: float = 0.0
    ny: float = 0.0
    offset: float = -1e4
    bend: float = 0.0
    wave: float = 0.0
    phase: float = 0.0


class Scene(NamedTuple):
    """A description of one picture. `objects` are in painter's order: later ones hide earlier ones."""

    world: World
    split: Split
    seed: int
    regions: tuple[Region, ...]
    objects: tuple[SceneObject, ...]


def signed_distance(shape: str, x: Any, y: Any, xp: Any) -> Any:
    """How far points lie outside (> 0) or inside (< 0) a shape of circumradius 1 around the origin.

    y points downwards. `xp` is the array library of `x` and `y`: numpy or torch. Polygons give the largest
    distance to the lines of their edges: exact along the edges, and less than the true distance beyond
    corners.
    """
    return _DISTANCES[shape](x, y, xp)


def _circle(x: Any, y: Any, xp: Any) -> Any:
    return xp.hypot(x, y) - 1.0


def _ring(x: Any, y: Any, xp: Any) -> Any:
    return abs(xp.hypot(x, y) - 0.73) - 0.27


def _square(x: Any, y: Any, xp: Any) -> Any:
    return xp.maximum(abs(x), abs(y)) - math.sqrt(0.5)


def _triangle(x: Any, y: Any, xp: Any) -> Any:
    return xp.maximum(math.sqrt(0.75) * abs(x) - 0.5 * y, y) - 0.5


def _cross(x: Any, y: Any, xp: Any) -> Any:
    length, half_width = 0.94, 0.34
    return xp.maximum(xp.maximum(abs(x), abs(y)) - length, xp.minimum(abs(x), abs(y)) - half_width)


def _star(x: Any, y: Any, xp: Any) -> Any:
    inner = 0.48  # radius of the five inner corners
    cos, sin = math.cos(math.pi / 5), math.sin(math.pi / 5)
    x, y = abs(x), -y
    for mx in (cos, -cos):  # two reflections bring every point into the sector of the upper tip
        beyond = (mx * x - sin * y).clip(0)
        x, y = x - 2 * beyond * mx, y + 2 * beyond * sin
    x = abs(x)
    # The edge from the tip (0, 1) to the inner corner.
    nx, ny = 1 - inner * cos, inner * sin
    return (nx * x + ny * (y - 1)) / math.hypot(nx, ny)


_DISTANCES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "circle": _circle, "square": _square, "triangle": _triangle,
    "star": _star, "cross": _cross, "ring": _ring,
}  # fmt: skip


def describe(seed: int, world: World = STANDARD, split: Split = "train") -> Scene:
    """Draw the scene of a seed. The same seed gives other scenes in other splits."""
    pairs = world.pairs(split)
    rng = np.random.default_rng(np.random.SeedSequence((SPLITS.index(split), seed)))
    regions = _draw_ground(rng, world) if world.ground == "textured" else ()
    wanted = int(rng.integers(world.min_objects, world.max_objects + 1))

    # A map of the topmost object of every pixel (0 is ground) tells what a new object would hide.
    topmost = np.zeros((world.size, world.size), dtype=np.int64)
    areas, visible = np.zeros((2, wanted + 1), dtype=np.int64)
    objects: list[SceneObject] = []
    for _ in range(30 * wanted):
        if len(objects) == wanted:
            break
        candidate = _draw_object(rng, world, pairs)
        area, window, inside = _pixels(candidate, world.size)
        number = len(objects) + 1
        now_visible = visible - np.bincount(topmost[window][inside], minlength=wanted + 1)
        areas[number], now_visible[number] = area, np.count_nonzero(inside)
        # Two pixels of slack: a renderer in float32 may see the border of a shape elsewhere.
        allowed = np.maximum(world.max_hidden * areas - 2, 0)
        if (areas - now_visible <= allowed)[1 : number + 1].all():
            visible = now_visible
            topmost[window][inside] = number
            objects.append(candidate)
    return Scene(world, split, seed, regions, tuple(objects))


def _draw_object(rng: np.random.Generator, world: World, pairs: list[tuple[str, str]]) -> SceneObject:
    shape, colour = pairs[rng.integers(len(pairs))]
    size = world.sizes[rng.integers(len(world.sizes))]
    smallest, largest = SIZES[size]
    u = rng.random(4)
    radius = (smallest + (largest - smallest) * u[0]) * world.size / 128
    edge = radius * (0.8 if world.max_hidden > 0 else 1.0)  # nearest to the frame that a centre may lie
    x, y = edge + (world.size - 2 * edge) * u[1:3]
    angle = math.radians(world.tilt) * (2 * u[3] - 1)
    return SceneObject(shape, colour, size, float(x), float(y), float(radius), float(angle))


def _pixels(thing: SceneObject, size: int) -> tuple[int, tuple[slice, slice], np.ndarray]:
    """An object's area in pixels, frame or not, a window of the frame, and which of its pixels are the object's."""
    left, top = math.floor(thing.x - thing.radius), math.floor(thing.y - thing.radius)
    steps = np.arange(2 * math.ceil(thing.radius) + 2)
    dx = (left + steps + 0.5 - thing.x) / thing.radius
    dy = ((top + steps + 0.5 - thing.y) / thing.radius)[:, None]
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    inside = signed_distance(thing.shape, cos * dx + sin * dy, cos * dy - sin * dx, np) < 0
    rows, columns = (slice(max(start, 0), min(start + len(steps), size)) for start in (top, left))
    in_frame = inside[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return int(np.count_nonzero(inside)), (rows, columns), in_frame


def _draw_ground(rng: np.random.Generator, world: World) -> tuple[Region, ...]:
    """Two or three regions of different materials, each covering at least a seventh of the picture."""
    size = world.size
    materials = rng.permutation(list(MATERIALS))[: rng.integers(2, 4)]
    grid = (np.arange(16) + 0.5) * size / 16
    while True:
        cover = np.zeros((16, 16), dtype=np.int64)
        regions = []
        for number, material in enumerate(materials):
            u = rng.random(7)
            place_x, place_y = rng.random(2)
            region = Region(str(material), float(0.88 + 0.24 * u[0]), float(place_x), float(place_y))
            if number > 0:
                direction = 2 * math.pi * u[1]
                nx, ny = math.cos(direction), math.sin(direction)
                offset = size * (nx * (0.2 + 0.6 * u[2]) + ny * (0.2 + 0.6 * u[3]))
                bend = size * max(0.0, 0.1 * u[4] - 0.03)  # about a third of the boundaries are straight
                wave = 2 * math.pi / size * (0.6 + u[5])
                region = region._replace(nx=nx, ny=ny, offset=float(offset), bend=float(bend),
                                         wave=float(wave), phase=float(2 * math.pi * u[6]))  # fmt: skip
            cover[boundary(region, grid, grid[:, None], np) > 0] = number
            regions.append(region)
        if np.bincount(cover.ravel(), minlength=len(regions)).min() >= cover.size / 7:
            return tuple(regions)


def boundary(region: Any, x: Any, y: Any, xp: Any) -> Any:
    """How many pixels a point is inside the region (> 0) or outside; `xp` is the library of `x` and `y`."""
    across, along = region.nx * x + region.ny * y, region.nx * y - region.ny * x
    return across - region.offset + region.bend * xp.sin(region.wave * along + region.phase)


def captions(scene: Scene) -> list[str]:
    """A few true sentences about a scene: one on each object, then relations of pairs that hold clearly."""
    names = [f"{thing.size} {thing.colour} {thing.shape}" for thing in scene.objects]
    sentences = [f"a {name}" for name in names]
    for i, one in enumerate(scene.objects):
        for j, other in enumerate(scene.objects[:i]):
            relation = _relation(one, other)
            # Two objects of one name would leave open which is meant.
            if relation is not None and names.count(names[i]) == names.count(names[j]) == 1:
                sentences.append(f"a {names[i]} {relation} a {names[j]}")
    return sentences[: len(names) + 3]


def _relation(one: SceneObject, other: SceneObject) -> str | None:
    """Where `one` lies from `other`, if one direction is twice the other and the centres are well apart."""
    dx, dy = one.x - other.x, one.y - other.y
    if max(abs(dx), abs(dy)) < max(2 * min(abs(dx), abs(dy)), one.radius + other.radius):
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"
