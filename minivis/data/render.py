"""Pixels of scenes: batches of descriptions become images on the CPU or a GPU, alike within 1/255.

Every shape is a signed distance function, so an edge is antialiased by one clamp: a pixel's cover is 1/2 - distance.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from minivis.data.world import COLOURS, MATERIALS, SHAPES, Region, Scene, boundary, signed_distance

PLAIN = (128, 128, 128)  # the colour of plain ground
SHADOW = 3.0  # pixels around an object over which its soft shadow fades


class Rendered(NamedTuple):
    """Images, and for every pixel what is seen there: the index of an object in its scene, and of a material.

    -1 in `object_map` is ground. `stuff_map` tells the ground's material under objects too; -1 is plain ground.
    """

    pixels: UInt8[Tensor, "batch 3 height width"]
    object_map: Int[Tensor, "batch height width"]
    stuff_map: Int[Tensor, "batch height width"]


@torch.no_grad()
def render(scenes: Sequence[Scene], device: torch.device | str = "cpu") -> Rendered:
    """Render scenes of one size."""
    sizes = {scene.world.size for scene in scenes}
    if len(sizes) != 1:
        raise ValueError(f"expected scenes of one size, got {len(scenes)} scenes of sizes {sorted(sizes)}")
    colour, stuff_map = _ground(scenes, sizes.pop(), torch.device(device))
    colour, object_map = _paint_objects(scenes, colour)
    pixels = (colour * 255).round_().clamp_(0, 255).to(torch.uint8)
    return Rendered(pixels.movedim(1, 0).contiguous(), object_map, stuff_map)


@functools.cache
def _textures(device: torch.device) -> Float[Tensor, "materials side side"]:
    tiles = np.asarray(Image.open(Path(__file__).with_name("textures.png")), dtype=np.float32)
    return torch.from_numpy((tiles - 128) / 120).reshape(len(MATERIALS), -1, tiles.shape[1]).to(device)


def _table(rows: list, device: torch.device) -> Float[Tensor, "columns rows"]:
    """Parameters of many things as columns, moved to the device at once."""
    return torch.from_numpy(np.asarray(rows, dtype=np.float32).T.copy()).to(device, non_blocking=True)


def _ground(
    scenes: Sequence[Scene], size: int, device: torch.device
) -> tuple[Float[Tensor, "3 batch size size"], Int[Tensor, "batch size size"]]:
    """The ground's colour, channels first, and its materials."""
    plain = torch.tensor(PLAIN, device=device)[:, None, None, None] / 255
    colour = plain.expand(3, len(scenes), size, size).clone()
    stuff_map = torch.full((len(scenes), size, size), -1, dtype=torch.int64, device=device)
    names, textures = list(MATERIALS), _textures(device)
    steps = torch.arange(size, device=device)
    centres = steps + 0.5
    for layer in range(max(len(scene.regions) for scene in scenes)):
        here = [number for number, scene in enumerate(scenes) if len(scene.regions) > layer]
        regions = [scenes[number].regions[layer] for number in here]
        rows = [(number, names.index(region.material), *region[1:]) for number, region in zip(here, regions)]
        number, material, *columns = _table(rows, device)[:, :, None, None]
        number, material = number.flatten().long(), material.long()
        region = Region("", *columns)

        distance = boundary(region, centres, centres[:, None], torch)
        cover = (distance + 0.5).clamp(0, 1)
        room = max(textures.shape[-1] - size, 0)
        texture = textures[material, _mirrored((region.texture_y * room).long() + steps[:, None], textures.shape[-1]),
                           _mirrored((region.texture_x * room).long() + steps, textures.shape[-1])]  # fmt: skip
        tint = torch.tensor([tint for tint, _ in MATERIALS.values()], device=device) / 255
        contrast = torch.tensor([contrast for _, contrast in MATERIALS.values()], device=device)
        light = region.brightness * (1 + contrast[material] * texture)
        new = tint[material.flatten()].T[:, :, None, None] * light
        if layer == 0:
            colour[:, number] = new
            stuff_map[number] = material.expand(-1, size, size)
        else:
            colour[:, number] = torch.lerp(colour[:, number], new, cover)
            stuff_map[number] = torch.where(distance > 0, material, stuff_map[number])
    return colour, stuff_map


def _mirrored(position: Int[Tensor, "*shape"], side: int) -> Int[Tensor, "*shape"]:
    """Continue a texture without seams by reflecting it at its borders."""
    position = position % (2 * side)
    return torch.minimum(position, 2 * side - 1 - position)


def _paint_objects(
    scenes: Sequence[Scene], ground: Float[Tensor, "3 batch size size"]
) -> tuple[Float[Tensor, "3 batch size size"], Int[Tensor, "batch size size"]]:
    """Paint the objects over the ground in their order: all first objects of the batch, all second ones, and so on.

    An object is computed in a square window around it; a margin around the picture lets windows reach out of it.
    """
    _, batch, size, _ = ground.shape
    device = ground.device
    objects = [thing for scene in scenes for thing in scene.objects]
    half = math.ceil(max((thing.radius for thing in objects), default=0) + SHADOW) + 1
    canvas = torch.nn.functional.pad(ground, (half, half, half, half))
    object_map = torch.full(canvas.shape[1:], -1, dtype=torch.int64, device=device)
    width = canvas.shape[-1]
    colour, owner = canvas.view(3, -1), object_map.view(-1)  # paint on flat views

    steps = torch.arange(-half, half, device=device)
    for layer in range(max(len(scene.objects) for scene in scenes)):
        # By shape, so that every distance function is called once.
        painted = sorted(((number, scene.objects[layer]) for number, scene in enumerate(scenes)
                          if len(scene.objects) > layer), key=lambda pair: SHAPES.index(pair[1].shape))  # fmt: skip
        rows = [(number, thing.x, thing.y, thing.radius, math.cos(thing.angle), math.sin(thing.angle),
                 *(value / 255 for value in COLOURS[thing.colour])) for number, thing in painted]  # fmt: skip
        number, x, y, radius, cos, sin, *tint = _table(rows, device)[:, :, None, None]

        row, column = y.floor().long() + steps[:, None], x.floor().long() + steps
        dx, dy = (column + 0.5 - x) / radius, (row + 0.5 - y) / radius
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        counts = [sum(thing.shape == shape for _, thing in painted) for shape in SHAPES]
        distance = torch.cat([
            signed_distance(shape, us, vs, torch)
            for shape, us, vs in zip(SHAPES, u.split(counts), v.split(counts)) if len(us)
        ]) * radius  # fmt: skip

        index = (number.long() * width + row + half) * width + column + half
        cover = (0.5 - distance).clamp(0, 1)
        shadow = 1 - 0.4 * (1 - distance / SHADOW).clamp(0, 1) ** 2
        light = (1 - 0.13 * (dx + dy)) * (1 - 0.25 * (distance + 2.5).clamp(0, 1))  # from above left; a darker rim
        new = torch.stack(tint) * light
        colour[:, index] = torch.lerp(colour[:, index] * shadow, new, cover)
        owner[index] = torch.where(distance < 0, layer, owner[index])
    inner = slice(half, half + size)
    return canvas[:, :, inner, inner], object_map[:, inner, inner].contiguous()


def visible_boxes(
    object_map: Int[Tensor, "batch height width"], count: int
) -> tuple[Int[Tensor, "batch objects 4"], Bool[Tensor, "batch objects height width"]]:
    """Boxes (x0, y0, x1, y1 in pixels, the last ones not included) around what is visible of the first `count`
    objects of every image, and their masks. An object of which nothing is visible gets (W, H, 0, 0)."""
    masks = object_map[:, None] == torch.arange(count, device=object_map.device)[:, None, None]
    height, width = object_map.shape[1:]
    ends = []
    for seen, side in ((masks.any(2), width), (masks.any(3), height)):
        position = torch.arange(side, device=masks.device)
        ends.append((torch.where(seen, position, side).amin(-1), torch.where(seen, position + 1, 0).amax(-1)))
    (x0, x1), (y0, y1) = ends
    return torch.stack([x0, y0, x1, y1], dim=-1), masks
