"""Pixels of scenes: batches of descriptions become images on the CPU or a GPU, alike within 1/255.

Every shape is a signed distance function, so one clamp antialiases an edge: cover = 1/2 - distance.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int16, UInt8
from PIL import Image
from torch import Tensor

from minivis.boxes import boxes_around
from minivis.data.world import (
    COLOURS,
    MATERIALS,
    SHAPES,
    SIZES,
    Region,
    Scene,
    SceneObject,
    boundary,
    signed_distance,
)

PLAIN = (128, 128, 128)  # the colour of plain ground
NOWHERE = Region("grass", 1.0, 0.0, 0.0, offset=1e4)  # a region that covers nothing
SHADOW = 3.0  # pixels around an object over which its soft shadow fades


class Rendered(NamedTuple):
    """Images, and for every pixel what is seen there: the index of an object in its scene, and of a material.

    -1 in `object_map` is ground; -1 in `stuff_map`, which tells the material under objects too, is plain ground.
    """

    pixels: UInt8[Tensor, "batch 3 height width"]
    object_map: Int16[Tensor, "batch height width"]
    stuff_map: Int16[Tensor, "batch height width"]


@torch.no_grad()
def render(scenes: Sequence[Scene], device: torch.device | str = "cpu") -> Rendered:
    """Render scenes of one size and one kind of ground."""
    kinds = {(scene.world.size, scene.world.ground) for scene in scenes}
    if len(kinds) != 1:
        raise ValueError(f"expected scenes of one size and one kind of ground, got {sorted(kinds)}")
    colour, stuff_map = _ground(scenes, torch.device(device))
    object_map = _paint_objects(scenes, colour)
    return Rendered(
        colour.round_().clamp_(0, 255).to(torch.uint8).movedim(1, 0).contiguous(), object_map, stuff_map
    )


@functools.cache
def _textures(size: int, device: torch.device) -> Float[Tensor, "materials height width"]:
    """The materials' textures in -1..1, reflected at their borders to be at least `size` high and wide."""
    tiles = np.asarray(Image.open(Path(__file__).with_name("textures.png")), dtype=np.float32)
    tiles = (tiles.reshape(len(MATERIALS), -1, tiles.shape[1]) - 128) / 120
    missing = max(size - tiles.shape[-1], 0)
    return torch.from_numpy(np.pad(tiles, ((0, 0), (0, missing), (0, missing)), mode="symmetric")).to(device)


def _columns(
    rows: list[tuple[float | int, ...]], device: torch.device
) -> Float[Tensor, "columns things 1 1"]:
    """Parameters of many things, a row each, brought to the device at once to broadcast over pixels."""
    columns = np.asarray(rows, dtype=np.float32).T[..., None, None]
    return torch.from_numpy(np.ascontiguousarray(columns)).to(device, non_blocking=True)


def _ground(
    scenes: Sequence[Scene], device: torch.device
) -> tuple[Float[Tensor, "3 batch size size"], Int16[Tensor, "batch size size"]]:
    """The ground's colour in 0..255, channels first, and its materials."""
    size, names = scenes[0].world.size, list(MATERIALS)
    shape = (len(scenes), size, size)
    colour = torch.tensor(PLAIN, dtype=torch.float32, device=device)[:, None, None, None].repeat(1, *shape)
    stuff_map = torch.full(shape, -1, dtype=torch.int16, device=device)
    textures = _textures(size, device)
    room = textures.shape[-1] - size
    centres = torch.arange(size, device=device) + 0.5
    for layer in range(max(len(scene.regions) for scene in scenes)):
        regions = [scene.regions[layer] if layer < len(scene.regions) else NOWHERE for scene in scenes]
        rows, crops = [], []
        for region in regions:
            number, (tint, contrast) = names.index(region.material), MATERIALS[region.material]
            rows.append((number, *(region.brightness * part for part in tint), contrast, *region[4:]))
            top, left = int(region.texture_y * room), int(region.texture_x * room)
            crops.append(textures[number, top : top + size, left : left + size])
        number, red, green, blue, contrast, *line = _columns(rows, device)

        new = torch.stack([red, green, blue]) * torch.stack(crops).mul_(contrast).add_(1)
        if layer == 0:  # covers everything
            colour, stuff_map = new, number.short().repeat(1, size, size)
        else:
            distance = boundary(Region("", 0, 0, 0, *line), centres, centres[:, None], torch)
            colour.lerp_(new, (distance + 0.5).clamp_(0, 1))
            stuff_map = torch.where(distance > 0, number.short(), stuff_map)
    return colour, stuff_map


def _paint_objects(
    scenes: Sequence[Scene], picture: Float[Tensor, "3 batch size size"]
) -> Int16[Tensor, "batch size size"]:
    """Paint the objects onto the ground in their order: all first ones of the batch, all second ones, and so on.

    An object is computed in a square window around it, moved into the picture where it would reach out.
    """
    size, device = picture.shape[-1], picture.device
    object_map = torch.full(picture.shape[1:], -1, dtype=torch.int16, device=device)
    colour, owner = picture.view(3, -1), object_map.view(-1)  # painted on as flat views

    for layer, painted in _groups(scenes):
        rows = [(number, thing.x, thing.y, thing.radius, math.cos(thing.angle), math.sin(thing.angle),
                 *COLOURS[thing.colour]) for number, thing in painted]  # fmt: skip
        number, x, y, radius, cos, sin, *tint = _columns(rows, device)
        half = _half_window([thing for _, thing in painted])
        steps = torch.arange(2 * half, device=device)
        row = (y.long() - half).clamp_(0, size - 2 * half) + steps[:, None]
        column = (x.long() - half).clamp_(0, size - 2 * half) + steps
        dx, dy = (column + 0.5 - x) / radius, (row + 0.5 - y) / radius
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        counts = [sum(thing.shape == shape for _, thing in painted) for shape in SHAPES]
        distance = torch.cat([
            signed_distance(shape, us, vs, torch)
            for shape, us, vs in zip(SHAPES, u.split(counts), v.split(counts)) if len(us)
        ]).mul_(radius)  # fmt: skip

        # what is below, darkened by a soft shadow, and the object, lit from above left, with a darker rim
        cover = (0.5 - distance).clamp_(0, 1)
        shadow = 1 - 0.4 * (1 - distance / SHADOW).clamp_(0, 1).square_()
        light = (1 - 0.13 * dx - 0.13 * dy) * (1 - 0.25 * (distance + 2.5).clamp_(0, 1))
        below, above = shadow * (1 - cover), light * cover
        index = ((number.long() * size + row) * size + column).flatten()
        new = (torch.stack(tint) * above).flatten(1).addcmul_(colour.index_select(1, index), below.flatten())
        colour.index_copy_(1, index, new)
        owner.index_copy_(0, index, owner.index_select(0, index).masked_fill_(distance.flatten() < 0, layer))
    return object_map


def _half_window(objects: Sequence[SceneObject]) -> int:
    """Half the side of a window for any of the objects; shadows reach furthest at the tips of stars."""
    return math.ceil(max((thing.radius for thing in objects), default=0) + 2.5 * SHADOW)


def _groups(scenes: Sequence[Scene]) -> Iterator[tuple[int, list[tuple[int, SceneObject]]]]:
    """What can be painted at once: at most one object of every scene, of one size so that one window fits.

    Gives each group's place in the painter's order and its objects with their scenes' numbers, sorted by
    shape so that every distance function is called once.
    """
    for layer in range(max(len(scene.objects) for scene in scenes)):
        objects = [(i, scene.objects[layer]) for i, scene in enumerate(scenes) if layer < len(scene.objects)]
        objects.sort(key=lambda pair: SHAPES.index(pair[1].shape))
        for size in SIZES:
            if group := [pair for pair in objects if pair[1].size == size]:
                yield layer, group


def visible_boxes(
    object_map: Int16[Tensor, "batch height width"], count: int
) -> tuple[Int[Tensor, "batch objects 4"], Bool[Tensor, "batch objects height width"]]:
    """Boxes around what is visible of the first `count` objects of every image, and their masks.

    A box is x0, y0, x1, y1 in pixels, x1 and y1 not included; where nothing is visible it is W, H, 0, 0.
    """
    masks = (
        object_map[:, None] == torch.arange(count, dtype=torch.int16, device=object_map.device)[:, None, None]
    )
    return boxes_around(masks), masks
