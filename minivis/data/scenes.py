"""`Scenes`: a generated world of coloured shapes as a detection data set.

A scene is drawn from its seed (`world.py`), painted in batches on the training device (`render.py`), and its boxes,
masks and labels are read off the pixels, so they are exact.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from minivis.boxes import xyxy_to_cxcywh
from minivis.data.items import Categories, DetectionBatch
from minivis.data.render import Rendered, render, visible_boxes
from minivis.data.world import STANDARD, Scene, SceneObject, Split, World, captions, describe
from minivis.images import ImageBatch, ImageTransform

__all__ = ["STANDARD", "Rendered", "Scene", "SceneBatch", "SceneObject", "Scenes", "Split", "World", "captions",
           "describe", "render"]  # fmt: skip

SIZES_OF_SPLITS = {"train": 100_000, "val": 500, "novel": 500}


class SceneBatch(NamedTuple):
    """Scenes that are not yet rendered, and the ids of their images."""

    scenes: list[Scene]
    image_ids: list[int]


def annotation_ids(image_id: int, world: World, count: int) -> list[int]:
    """The ids of an image's objects, unique over all images, from 1 (COCO's own tools take 0 for none)."""
    return [image_id * world.max_objects + number + 1 for number in range(count)]


def scene_targets(
    object_map: Tensor, scenes: Sequence[Scene], image_ids: Sequence[int], masks: bool = False
) -> list[dict[str, Any]]:
    """Targets of rendered scenes: boxes around what is visible, on the device of `object_map` (batch, height, width)."""
    height, width = object_map.shape[1:]
    counts = [len(scene.objects) for scene in scenes]
    corners, visible = visible_boxes(object_map, max(counts))
    boxes = xyxy_to_cxcywh(corners.float() / torch.tensor([width, height] * 2, device=corners.device))
    labels = [scene.world.shapes.index(thing.shape) for scene in scenes for thing in scene.objects]
    labels = torch.tensor(labels, dtype=torch.int64).to(object_map.device, non_blocking=True).split(counts)
    targets = []
    for number, (scene, image_id, count) in enumerate(zip(scenes, image_ids, counts)):
        target = {
            "labels": labels[number],
            "boxes": boxes[number, :count],
            "image_id": image_id,
            "original_size": (height, width),
            "annotation_ids": annotation_ids(image_id, scene.world, count),
        }
        if masks:
            target["masks"] = visible[number, :count]
        targets.append(target)
    return targets


class Scenes:
    """A split of a world as a `DetectionDataset`; the categories are the world's shapes.

    `train` never ends: `dataset[(index, seed)]` is the scene of the seed, and `dataset[index]` that of the index, so
    `len` (`size`, or 100,000) only says what an epoch is. `val` and `novel` are 500 fixed scenes (or `size`), whose
    keys' seeds are not looked at. `masks` adds what is visible of every object to the targets.
    """

    def __init__(
        self,
        split: Split = "train",
        world: World = STANDARD,
        size: int | None = None,
        masks: bool = False,
        image_transform: ImageTransform = ImageTransform(),
    ) -> None:
        world.pairs(split)  # raises where the split is empty
        if image_transform.shortest_edge is not None or image_transform.longest_edge is not None:
            raise ValueError(f"scenes are rendered at World.size ({world.size}) and not resized, got {image_transform}")
        self.split, self.world, self.masks = split, world, masks
        self.size = SIZES_OF_SPLITS[split] if size is None else size
        self.image_transform = image_transform
        self.categories = Categories(names=world.shapes, ids=tuple(range(1, len(world.shapes) + 1)))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Scene, int]:
        """A scene and the id of its image: its seed."""
        index, seed = key if isinstance(key, tuple) else (key, key)
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        seed = int(seed if self.split == "train" else index)
        return describe(seed, self.world, self.split), seed

    def collate(self, items: Sequence[tuple[Scene, int]]) -> SceneBatch:
        return SceneBatch([scene for scene, _ in items], [image_id for _, image_id in items])

    def prepare(self, batch: SceneBatch, device: torch.device | str = "cpu") -> DetectionBatch:
        """Render the batch on the device; images are all of one size, so there is no padding."""
        rendered = render(batch.scenes, device)
        pixels = self.image_transform.normalise(rendered.pixels)
        padding_mask = torch.zeros_like(rendered.object_map, dtype=torch.bool)
        targets = scene_targets(rendered.object_map, batch.scenes, batch.image_ids, self.masks)
        return DetectionBatch(ImageBatch(pixels, padding_mask), targets, [])

    def scene_image(self, index: int) -> Image.Image:
        """One scene as a picture to look at."""
        scene, _ = self[index]
        return Image.fromarray(render([scene]).pixels[0].permute(1, 2, 0).numpy())

    def ground_truth(self) -> dict[str, Any]:
        """The split in COCO's format; `area` is the number of visible pixels."""
        images, annotations = [], []
        for start in range(0, len(self), 50):
            items = [self[index] for index in range(start, min(start + 50, len(self)))]
            object_map = render([scene for scene, _ in items]).object_map
            corners, visible = visible_boxes(object_map, max(len(scene.objects) for scene, _ in items))
            areas = visible.sum((2, 3))
            for number, (scene, image_id) in enumerate(items):
                name = f"{self.split}_{image_id:06d}.png"
                images.append({"id": image_id, "width": scene.world.size, "height": scene.world.size, "file_name": name})
                ids = annotation_ids(image_id, scene.world, len(scene.objects))
                for i, (thing, annotation_id) in enumerate(zip(scene.objects, ids)):
                    x0, y0, x1, y1 = corners[number, i].tolist()
                    annotations.append({
                        "id": annotation_id, "image_id": image_id, "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "category_id": self.categories.ids[self.world.shapes.index(thing.shape)],
                        "area": int(areas[number, i]), "iscrowd": 0,
                    })  # fmt: skip
        categories = [{"id": id_, "name": name} for id_, name in zip(self.categories.ids, self.categories.names)]
        return {"images": images, "annotations": annotations, "categories": categories}
