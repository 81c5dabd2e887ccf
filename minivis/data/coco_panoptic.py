"""Panoptic data in COCO's format (see `panoptic_json`). A folder has one of two layouts, its own or COCO 2017's:

- `DIR/train/panoptic.json` with the pictures beside it and the PNGs in `DIR/train/panoptic/`; `DIR/val/` likewise;
- `DIR/annotations/panoptic_train2017.json` with the pictures in `DIR/train2017/` and the PNGs in
  `DIR/annotations/panoptic_train2017/` or `DIR/panoptic_train2017/`; `val2017` likewise.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from minivis.boxes import boxes_around
from minivis.data.augment import without_vanished
from minivis.data.coco import PAPER_SIZE, Augmentation, CocoPictures, choose_categories, no_split
from minivis.data.items import BadItem, BadItems, Categories
from minivis.data.panoptic_json import PanopticFile, disagreement, read_map, read_panoptic
from minivis.detr.merge import VOID, Panoptic, Segment
from minivis.images import ImageTransform


class CocoPanoptic(CocoPictures):
    """A split of a folder in COCO's panoptic format: a `PanopticDataset`.

    A target's objects are the segments of things and of stuff, crowds left out; `truth` has crowds too. Boxes are
    around the masks at the size the model is given; segments of which nothing is left at that size are left out.
    An image without segments, or all void, is an image without objects. `ground_truth` has the things alone, with boxes
    and areas as in the JSON, crowds among them; its annotation ids number the segments of the whole file.

    What is broken in the JSON is reported when the data set is made, what is broken in a picture or a PNG when it is
    read.

    Args:
        folder: with one of the two layouts above.
        split: "train", "val", or the name of another split.
        categories: see `CocoDetection`. Of a `Categories` that does not say what is stuff, the data says it.
        augment: see `CocoDetection`.
        transform: see `CocoDetection`.
        bad_items: "skip" what is broken or "stop" at it, or the registry of a run, which says so.
        masks: targets have `masks`; without, they are much less to move.

    Raises:
        FileNotFoundError: if the folder has not the layout.
        CocoFormatError: if the JSON is not COCO's panoptic format.
        ValueError: if `categories` lacks a category of the data, by name, or says otherwise whether it is a thing.
        BadItemError: if `bad_items` says "stop" and an image or segment is broken in the JSON.
    """

    file: PanopticFile

    def __init__(
        self,
        folder: Path | str,
        split: str = "train",
        categories: str | Categories = "dense",
        augment: str | Augmentation | None = None,
        transform: ImageTransform = PAPER_SIZE,
        bad_items: str | BadItems = "skip",
        masks: bool = True,
    ) -> None:
        bad_items = bad_items if isinstance(bad_items, BadItems) else BadItems(bad_items)
        json_file, pictures, self.maps = find_panoptic_split(folder, split)
        file = read_panoptic(json_file, bad_items)
        chosen = with_things(choose_categories(categories, file, file.things), file)
        super().__init__(file, pictures, chosen, augment, transform, bad_items)
        self.masks = masks
        self._index_of = {image_id: index for index, image_id in enumerate(file.image_ids.tolist())}

    def _map(self, index: int) -> Int[np.ndarray, "height width"]:
        """Each pixel's segment id in image number `index`; void where a segment is broken in the JSON.

        Raises:
            FileNotFoundError, ValueError: if the PNG cannot be read, or does not agree with the JSON.
        """
        file = self.file
        name, size = file.maps[index], tuple(file.image_sizes[index].tolist())
        if name is None:
            return np.full(size, VOID, dtype=np.int64)
        ids = read_map(self.maps / name, size)
        left_out = file.left_out.get(int(file.image_ids[index]), frozenset())
        sound = file.segment_ids[file.annotations_of(index)].tolist()
        if (reason := disagreement(ids, sound, left_out)) is not None:
            raise ValueError(reason)
        return np.where(np.isin(ids, list(left_out)), VOID, ids) if left_out else ids

    def _target(self, index: int) -> dict[str, Any] | BadItem:
        """The segments of image number `index` but for crowds, with masks, and boxes xyxy around them, in pixels."""
        file = self.file
        image_id = int(file.image_ids[index])
        try:
            ids = self._map(index)
        except (OSError, ValueError) as error:
            reason = (
                "there is no such file (the map of segments)"
                if isinstance(error, FileNotFoundError)
                else str(error)
            )
            return BadItem(f"{self.maps / file.maps[index]} (image {image_id})", reason)
        rows = file.annotations_of(index)
        rows = rows[~file.crowd[rows]]
        segment_ids = file.segment_ids[rows]
        masks = torch.from_numpy(ids == segment_ids[:, None, None])
        return {
            "labels": torch.from_numpy(self._labels[rows]),
            "boxes": boxes_around(masks).double(),
            "image_id": image_id,
            "original_size": tuple(file.image_sizes[index].tolist()),
            "annotation_ids": segment_ids.tolist(),
            "masks": masks,
        }

    def _as_given(
        self, image: Tensor, target: dict[str, Any], random: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """Resizing and cutting may leave less of a segment, or nothing: its box is around what is left."""
        image, target = super()._as_given(image, target, random)
        target = without_vanished(target)
        target["boxes"] = boxes_around(target["masks"]).double()
        if not self.masks:
            del target["masks"]
        return image, target

    def truth(self, target: dict[str, Any]) -> Panoptic:
        """The segments of an image in its original size, with crowds, read from the PNG.

        Raises:
            FileNotFoundError, ValueError: if the PNG, since the target was made, was moved or changed.
        """
        index, things = self._index_of[target["image_id"]], self.categories.things
        rows = self.file.annotations_of(index)
        columns = (self.file.segment_ids[rows], self._labels[rows], self.file.crowd[rows])
        segments = [
            Segment(id_, label, label in things, is_crowd=crowd)
            for id_, label, crowd in zip(*(column.tolist() for column in columns), strict=True)
        ]
        return Panoptic(torch.from_numpy(self._map(index)), segments)

    def _true_rows(self, index: int) -> np.ndarray:
        rows = self.file.annotations_of(index)
        return rows[np.isin(self.file.category_ids[rows], list(self.file.things))]


def find_panoptic_split(folder: Path | str, split: str) -> tuple[Path, Path, Path]:
    """The JSON file, the folder of pictures and the folder of PNGs of a split.

    Raises:
        FileNotFoundError: if the folder has neither of the two layouts; the message says what was looked for and found.
    """
    folder, name = Path(folder), f"panoptic_{split}2017"
    coco, pictures = folder / "annotations" / f"{name}.json", folder / f"{split}2017"
    layouts = [
        (folder / split / "panoptic.json", folder / split, folder / split / "panoptic"),
        (coco, pictures, folder / "annotations" / name),
        (coco, pictures, folder / name),
    ]
    for layout in layouts:
        if layout[0].is_file() and all(part.is_dir() for part in layout[1:]):
            return layout
    (own, _, own_maps), (_, _, maps), (_, _, beside) = layouts
    wanted = (
        f"{own} with the pictures in {own.parent}/ and the PNGs in {own_maps}/ or {coco} with the pictures in "
        f"{pictures}/ and the PNGs in {maps}/ or {beside}/"
    )
    raise no_split(folder, split, "COCO's panoptic format", wanted)


def with_things(categories: Categories, file: PanopticFile) -> Categories:
    """The categories with what the data says of things and stuff; ValueError if they say otherwise themselves."""
    is_thing = [category_id is not None for category_id in categories.ids]
    for category_id, name in file.categories:
        label, thing = categories.label_named(name), category_id in file.things
        is_thing[label] = thing
        if categories.is_thing is not None and categories.is_thing[label] != thing:
            there, here = ("a thing", "stuff") if thing else ("stuff", "a thing")
            raise ValueError(
                f"category {name!r} is {there} in {file.path}, and {here} for the model (or the training data)"
            )
    if categories.is_thing is not None:
        return categories
    return dataclasses.replace(categories, is_thing=tuple(is_thing))
