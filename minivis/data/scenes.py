"""`Scenes`: a generated world of coloured shapes as a detection data set.

A scene is drawn from its seed (`world.py`) and painted in batches on the training device (`rendering.py`); its
boxes and masks are read off the pixels, so they are exact.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int16, UInt8
from PIL import Image
from torch import Tensor

from minivis.boxes import boxes_around, xyxy_to_cxcywh
from minivis.data.items import Categories, DetectionBatch
from minivis.data.panoptic import segments_of
from minivis.data.rendering import Rendered, render, visible_boxes
from minivis.data.world import MATERIALS, STANDARD, Scene, SceneObject, Split, World, captions, describe
from minivis.detr.merge import Panoptic
from minivis.images import ImageTransform, as_image_batch
from minivis.shipped_files import shipped

__all__ = ["STANDARD", "Rendered", "Scene", "SceneBatch", "SceneObject", "Scenes", "ShippedScenes", "Split",
           "World", "captions", "describe", "load_shipped_scenes", "render", "scene_targets"]  # fmt: skip

OBJECT_VALUE, STUFF_VALUE = 1, 101  # of object 0 and of material 0 in a panoptic map
LENGTHS = {"train": 100_000, "val": 500, "novel": 500}  # of the splits


class SceneBatch(NamedTuple):
    """Scenes that are not rendered yet, and the ids of their images."""

    scenes: list[Scene]
    image_ids: list[int]


class Scenes:
    """A split of a world as a `DetectionDataset`; the categories are the world's shapes, with ids from 1.

    `train` never ends: `dataset[index, seed]` is the scene of the seed whatever the index, and
    `dataset[index]` the one whose seed is the index; `len` (`size`, or 100,000) only says what an epoch is.
    `val` and `novel` are 500 fixed scenes (or `size`), and a seed in the key changes nothing. `masks` adds
    the objects' masks to the targets; `stuff` adds, behind the objects, what the ground is made of: a category for
    each material, and for each that is seen a box and a mask around all of it. Then every pixel is in one mask.
    """

    def __init__(
        self,
        split: Split = "train",
        world: World = STANDARD,
        size: int | None = None,
        masks: bool = False,
        image_transform: ImageTransform = ImageTransform(),
        stuff: bool = False,
    ) -> None:
        world.pairs(split)  # raises where the split is empty
        if image_transform.shortest_edge is not None or image_transform.longest_edge is not None:
            raise ValueError(f"scenes are not resized: set World.size instead, in place of {image_transform}")
        self.split, self.world, self.masks, self.stuff = split, world, masks or stuff, stuff
        self.size = LENGTHS[split] if size is None else size
        self.image_transform = image_transform
        self.categories = scene_categories(world.shapes, stuff)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Scene, int]:
        """A scene and the id of its image, which is its seed."""
        if self.split == "train" and isinstance(key, tuple):
            seed = int(key[1])
        else:
            seed = checked_index(key, len(self))
        return describe(seed, self.world, self.split), seed

    def collate(self, items: Sequence[tuple[Scene, int]]) -> SceneBatch:
        return SceneBatch([scene for scene, _ in items], [image_id for _, image_id in items])

    def prepare(self, batch: SceneBatch, device: torch.device | str = "cpu") -> DetectionBatch:
        """Render the batch on the device. All images have one size, so there is no padding."""
        rendered = render(batch.scenes, device)
        pixels = self.image_transform.normalise(rendered.pixels)
        stuff_map = rendered.stuff_map if self.stuff else None
        targets = scene_targets(rendered.object_map, batch.scenes, batch.image_ids, self.masks, stuff_map)
        return DetectionBatch(as_image_batch(pixels), targets, [])

    def truth(self, target: dict[str, Any]) -> Panoptic:
        """The segments of an image, from its target."""
        return segments_of(target, self.categories)

    def scene_image(self, index: int) -> Image.Image:
        """One scene as a picture to look at."""
        scene, _ = self[index]
        return to_picture(render([scene]).pixels[0])

    def ground_truth(self) -> dict[str, Any]:
        """The split in COCO's format; `area` is the number of visible pixels, boxes are in pixels."""
        return coco_ground_truth(self.objects_of_images(), self.categories)

    def objects_of_images(self) -> Iterable["ImageObjects"]:
        for start in range(0, len(self), 50):
            scenes, image_ids = self.collate([self[i] for i in range(start, min(start + 50, len(self)))])
            object_map = render(scenes).object_map
            corners, masks = visible_boxes(object_map, max(len(scene.objects) for scene in scenes))
            corners[..., 2:] -= corners[..., :2]
            boxes, areas = corners.tolist(), masks.sum((2, 3)).tolist()
            for i, (scene, image_id) in enumerate(zip(scenes, image_ids)):
                count, size = len(scene.objects), (self.world.size, self.world.size)
                ids, labels = annotation_ids(scene, image_id), shape_labels(scene)
                yield ImageObjects(image_id, size, ids, labels, boxes[i][:count], areas[i][:count])


def scene_categories(shapes: Sequence[str], stuff: bool) -> Categories:
    """The shapes, with ids from 1 on, and with `stuff` the materials behind them."""
    names = (*shapes, *MATERIALS) if stuff else tuple(shapes)
    is_thing = tuple(name not in MATERIALS for name in names) if stuff else None
    return Categories(names=names, ids=tuple(range(1, len(names) + 1)), is_thing=is_thing)


def scene_targets(
    object_map: Int16[Tensor, "batch height width"],
    scenes: Sequence[Scene],
    image_ids: Sequence[int],
    masks: bool = False,
    stuff_map: Int16[Tensor, "batch height width"] | None = None,
) -> list[dict[str, Any]]:
    """Targets of rendered scenes, on the device of `object_map`: boxes (cxcywh in 0..1) around what is
    visible. With `stuff_map`, of the materials too, which waits for the device: which of them are seen decides how
    many there are; then ids are those of the segments in a shipped panoptic map.
    """
    height, width = object_map.shape[1:]
    device = object_map.device
    counts = [len(scene.objects) for scene in scenes]
    most = max(counts)
    kept = [list(range(count)) for count in counts]
    labels = [shape_labels(scene) for scene in scenes]
    ids = [annotation_ids(scene, image_id) for scene, image_id in zip(scenes, image_ids, strict=True)]
    segment_map, segments = object_map, most
    if stuff_map is not None:  # segments: the objects' numbers, and behind them the materials'
        segments = most + len(MATERIALS)
        segment_map = torch.where((object_map < 0) & (stuff_map >= 0), most + stuff_map, object_map)
    corners, visible = visible_boxes(segment_map, segments)
    if stuff_map is not None:
        seen = visible[:, most:].any((2, 3)).tolist()
        for i, scene in enumerate(scenes):
            materials = [number for number, there in enumerate(seen[i]) if there]
            kept[i] += [most + number for number in materials]
            labels[i] += [len(scene.world.shapes) + number for number in materials]
            ids[i] = [OBJECT_VALUE + number for number in range(counts[i])]
            ids[i] += [STUFF_VALUE + number for number in materials]
    boxes = xyxy_to_cxcywh(corners / torch.tensor([width, height, width, height], device=device))
    joined = torch.tensor([label for own in labels for label in own], dtype=torch.int64)
    targets = []
    for i, own_labels in enumerate(joined.to(device, non_blocking=True).split([len(own) for own in labels])):
        target = {
            "labels": own_labels,
            "boxes": boxes[i, kept[i]],
            "image_id": image_ids[i],
            "original_size": (height, width),
            "annotation_ids": ids[i],
        }
        targets.append(target | ({"masks": visible[i, kept[i]]} if masks else {}))
    return targets


def shape_labels(scene: Scene) -> list[int]:
    return [scene.world.shapes.index(thing.shape) for thing in scene.objects]


def annotation_ids(scene: Scene, image_id: int) -> list[int]:
    """The ids of an image's objects: unique over all images; from 1, as COCO's tools take 0 for none."""
    return [image_id * scene.world.max_objects + number + 1 for number in range(len(scene.objects))]


def checked_index(key: int | tuple[int, int], length: int) -> int:
    """The index of a key, which is an index or (index, seed)."""
    index = int(key[0] if isinstance(key, tuple) else key)
    if not 0 <= index < length:
        raise IndexError(f"there is no scene {index}: expected 0 to {length - 1}")
    return index


def to_picture(pixels: Tensor) -> Image.Image:
    """uint8 (3, H, W) as a PIL image."""
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


class ImageObjects(NamedTuple):
    """The objects of one image; `size` is (height, width), boxes are xywh in pixels, areas are in pixels."""

    image_id: int
    size: tuple[int, int]
    ids: list[int]
    labels: list[int]
    boxes: list[list[int]]
    areas: list[int]


def coco_ground_truth(images: Iterable[ImageObjects], categories: Categories) -> dict[str, Any]:
    """COCO's format of annotations."""
    truth: dict[str, Any] = {"images": [], "annotations": []}
    for image in images:
        height, width = image.size
        truth["images"].append({"id": image.image_id, "height": height, "width": width})
        for id_, label, box, area in zip(image.ids, image.labels, image.boxes, image.areas):
            annotation = {"id": id_, "image_id": image.image_id, "category_id": categories.ids[label]}
            truth["annotations"].append(annotation | {"bbox": box, "area": area, "iscrowd": 0})
    truth["categories"] = [{"id": id_, "name": name} for id_, name in zip(categories.ids, categories.names)]
    return truth


# The shipped split


class ShippedScenes:
    """The `val` split of the standard world as a `DetectionDataset` that reads pixels from a parquet file."""

    def __init__(
        self,
        file: Path,
        masks: bool = False,
        image_transform: ImageTransform = ImageTransform(),
        stuff: bool = False,
    ) -> None:
        import datasets  # takes seconds, and only this class needs it
        import pyarrow.parquet

        # As `load_dataset("parquet", ...)` gives it, without a copy in the user's cache or a bar that says so.
        self.rows = datasets.Dataset(pyarrow.parquet.read_table(file))
        self.masks, self.image_transform, self.stuff = masks or stuff, image_transform, stuff
        self.shapes = self.rows.features["objects"]["category"].feature.names
        self.categories = scene_categories(self.shapes, stuff)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, dict[str, Any]]:
        """Normalised pixels (3, H, W) and the target."""
        row = self.rows[checked_index(key, len(self))]
        picture, objects = row["image"], row["objects"]
        corners = torch.tensor(objects["bbox"], dtype=torch.float32)
        corners[:, 2:] += corners[:, :2]
        target = {
            "labels": torch.tensor(objects["category"], dtype=torch.int64),
            "boxes": xyxy_to_cxcywh(corners / torch.tensor(picture.size * 2)),
            "image_id": row["image_id"],
            "original_size": (picture.height, picture.width),
            "annotation_ids": objects["id"],
        }
        if self.masks:
            panoptic = torch.from_numpy(np.array(row["panoptic"]))
            target["masks"] = panoptic == OBJECT_VALUE + torch.arange(len(corners))[:, None, None]
            if self.stuff:
                add_stuff(target, panoptic, len(self.shapes))
        return self.image_transform(picture), target

    def truth(self, target: dict[str, Any]) -> Panoptic:
        """The segments of an image, from its target."""
        return segments_of(target, self.categories)

    def collate(self, items: Sequence[tuple[Tensor, dict[str, Any]]]) -> DetectionBatch:
        pixels, targets = zip(*items)
        return DetectionBatch(as_image_batch(pixels), list(targets), [])

    def prepare(self, batch: DetectionBatch, device: torch.device | str = "cpu") -> DetectionBatch:
        return batch.to(device)

    def scene_image(self, index: int) -> Image.Image:
        """One scene as a picture to look at."""
        return self.rows[checked_index(index, len(self))]["image"]

    def ground_truth(self) -> dict[str, Any]:
        """The split in COCO's format; `area` is the number of visible pixels, boxes are in pixels."""
        rows = self.rows.select_columns(["image_id", "height", "width", "objects"])
        columns = ("id", "category", "bbox", "area")
        images = (
            ImageObjects(row["image_id"], (row["height"], row["width"]), *map(row["objects"].get, columns))
            for row in rows
        )
        return coco_ground_truth(images, self.categories)


def add_stuff(target: dict[str, Any], panoptic: UInt8[Tensor, "height width"], shapes: int) -> None:
    """To an image's target, the materials that its panoptic map shows."""
    values = panoptic.unique()
    values = values[values >= STUFF_VALUE].long()
    masks = panoptic == values[:, None, None]
    boxes = xyxy_to_cxcywh(boxes_around(masks) / torch.tensor(panoptic.shape[::-1] * 2))
    added = {"labels": shapes + values - STUFF_VALUE, "boxes": boxes, "masks": masks}
    for name, tensor in added.items():
        target[name] = torch.cat([target[name], tensor])
    objects = len(target["annotation_ids"])
    target["annotation_ids"] = [OBJECT_VALUE + number for number in range(objects)] + values.tolist()


def load_shipped_scenes(
    masks: bool = False, image_transform: ImageTransform = ImageTransform(), stuff: bool = False
) -> ShippedScenes:
    """The 500 validation scenes that ship with minivis: `Scenes("val")` with its pixels from a file."""
    return ShippedScenes(shipped("scenes/val.parquet"), masks, image_transform, stuff)
