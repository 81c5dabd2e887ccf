"""What a backbone's vectors know of the objects they lie on: to be asked by a linear probe (Alain and Bengio 2016)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivis.data.scenes import Scenes, load_shipped_scenes


class ObjectVectors(NamedTuple):
    """For every object the vectors of the cell in its middle, and what is to be read off them."""

    levels: list[Float[Tensor, "objects _"]]  # the pixels themselves, then each of the backbone's maps
    shapes: Int[Tensor, " objects"]
    colours: Int[Tensor, " objects"]  # the position in the world's colours
    scenes: Int[Tensor, " objects"]


@torch.inference_mode()
def vectors_of_objects(backbone: nn.Module, scenes: int = 500, batch_size: int = 50) -> ObjectVectors:
    """Of the first so many shipped scenes. Their descriptions, which know the colours, are those of `Scenes("val")`."""
    pictures, described = load_shipped_scenes(), Scenes("val")
    colour_names = list(described.world.colours)
    levels, shapes, colours, owners = [], [], [], []
    for start in range(0, scenes, batch_size):
        indices = range(start, min(start + batch_size, scenes))
        images, targets, _ = pictures.prepare(pictures.collate([pictures[i] for i in indices]))
        maps = [images.pixels, *(level.features for level in backbone(images))]
        levels = levels or [[] for _ in maps]
        for i, (index, target) in enumerate(zip(indices, targets, strict=True)):
            for vectors, level in zip(levels, maps, strict=True):
                x, y = (target["boxes"][:, :2] * torch.tensor(level.shape[:1:-1])).long().T  # width, height
                vectors.append(level[i, :, y, x].T)
            shapes.append(target["labels"])
            colours += [colour_names.index(thing.colour) for thing in described[index][0].objects]
            owners += [index] * len(target["labels"])
    joined = [torch.cat(vectors) for vectors in levels]
    return ObjectVectors(joined, torch.cat(shapes), torch.tensor(colours), torch.tensor(owners))
