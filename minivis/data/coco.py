"""Detection data in COCO's format. A folder has one of two layouts, its own or COCO 2017's:

- `DIR/train/annotations.json` with the pictures beside it, and `DIR/val/` likewise;
- `DIR/annotations/instances_train2017.json` with the pictures in `DIR/train2017/`, and `val2017` likewise.
"""

import operator
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as TF

from minivis.boxes import xyxy_to_cxcywh
from minivis.data.augment import DetrAugment
from minivis.data.coco_json import CocoFile, CocoFormatError, decode_mask, read_coco
from minivis.data.items import BadItem, BadItems, Categories, DetectionBatch
from minivis.data.pictures import open_picture
from minivis.images import ImageBatch, ImageTransform, as_image_batch, fitted_size

__all__ = ["CocoBatch", "CocoDetection", "CocoFormatError", "CocoItem", "find_split"]

PAPER_SIZE = ImageTransform(shortest_edge=800, longest_edge=1333)

Augmentation = Callable[[Tensor, dict[str, Any], np.random.Generator], tuple[Tensor, dict[str, Any]]]


class CocoItem(NamedTuple):
    """A picture, resized but not yet normalised (a quarter of the bytes to move), and its target."""

    image: UInt8[Tensor, "3 height width"]
    target: dict[str, Any]


class CocoBatch(NamedTuple):
    """Items side by side, not yet padded."""

    images: list[Tensor]
    targets: list[dict[str, Any]]
    bad_items: list[BadItem]


def find_split(folder: Path | str, split: str) -> tuple[Path, Path]:
    """The annotation file and the folder of pictures of a split.

    Raises:
        FileNotFoundError: if the folder has neither of the two layouts; the message says what was looked for
            and found.
    """
    folder = Path(folder)
    layouts = [
        (folder / split / "annotations.json", folder / split),
        (folder / "annotations" / f"instances_{split}2017.json", folder / f"{split}2017"),
    ]
    for file, pictures in layouts:
        if file.is_file() and pictures.is_dir():
            return file, pictures
    wanted = " or ".join(f"{file} with the pictures in {pictures}/" for file, pictures in layouts)
    raise no_split(folder, split, "COCO's format", wanted)


def no_split(folder: Path, split: str, form: str, wanted: str) -> FileNotFoundError:
    """The error that says what was looked for, and what the folder has."""
    if folder.is_dir():
        names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        found = f"has {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}" if names else "is empty"
        files = sorted(str(file.relative_to(folder)) for file in folder.glob("*/*.json"))
        found += f", and within them {', '.join(files[:10])}" if files else ""
    else:
        found = "does not exist" if not folder.exists() else "is a file"
    return FileNotFoundError(f"no {split!r} split in {form}: expected {wanted}; {folder} {found}")


class CocoPictures(Dataset):
    """What data sets in COCO's formats share: pictures, changed together with their targets, and batches of them.

    A subclass has read the annotation file and says what the target of an image is (`_target`).
    """

    def __init__(
        self,
        file: CocoFile,
        pictures: Path,
        categories: Categories,
        augment: str | Augmentation | None,
        transform: ImageTransform,
        bad_items: BadItems,
    ) -> None:
        if isinstance(augment, str) and augment != "paper":
            raise ValueError(f"augment is None, 'paper' or a callable, not {augment!r}")
        self.file, self.pictures, self.categories, self.bad_items = file, pictures, categories, bad_items
        self.augment = DetrAugment() if augment == "paper" else augment
        self.image_transform = transform
        label_of = {category_id: categories.label_named(name) for category_id, name in file.categories}
        labels = [label_of[category_id] for category_id in file.category_ids.tolist()]
        self._labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.file.file_names)

    @property
    def most_objects(self) -> int:
        """How many objects the picture has that has the most of them, crowds left out."""
        counted = np.concatenate([[0], np.cumsum(~self.file.crowd)])
        return int(np.diff(counted[self.file.first]).max(initial=0))

    def __getitem__(self, key: SupportsIndex | tuple[SupportsIndex, SupportsIndex]) -> CocoItem | BadItem:
        """Item number `index`; the seed in (index, seed) drives its augmentation (0 if there is none)."""
        index, seed = key if isinstance(key, tuple) else (key, 0)
        index = range(len(self))[operator.index(index)]  # IndexError if there is no such item
        path = self.pictures / self.file.file_names[index]
        size = tuple(self.file.image_sizes[index].tolist())
        try:
            image = TF.pil_to_tensor(open_picture(path, size))
        except (OSError, ValueError) as error:
            reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
            return BadItem(f"{path} (image {self.file.image_ids[index]})", reason)

        target = self._target(index)
        if isinstance(target, BadItem):
            return target
        random = np.random.default_rng([operator.index(seed), index])
        image, target = self._as_given(image, target, random)
        height, width = image.shape[-2:]
        boxes = xyxy_to_cxcywh(target["boxes"]) / torch.tensor([width, height, width, height])
        return CocoItem(image, {**target, "boxes": boxes.float()})

    def _target(self, index: int) -> dict[str, Any] | BadItem:
        """The objects of image number `index`, with their boxes xyxy in pixels, inside the image."""
        raise NotImplementedError

    def _as_given(
        self, image: Tensor, target: dict[str, Any], random: np.random.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """A picture and its target as a model is given them."""
        return self._resize(image, target) if self.augment is None else self.augment(image, target, random)

    def _resize(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """To the size that the model wants, as `image_transform` does before it normalises."""
        old = tuple(image.shape[-2:])
        new = fitted_size(*old, self.image_transform.shortest_edge, self.image_transform.longest_edge)
        if new == old:
            return image, target
        scale = torch.tensor([new[1] / old[1], new[0] / old[0]], dtype=torch.float64).repeat(2)
        target = {**target, "boxes": target["boxes"] * scale}
        if "masks" in target:
            target["masks"] = TF.resize_mask(target["masks"], list(new))
        return TF.resize(image, list(new), antialias=True), target

    def collate(self, items: list[CocoItem | BadItem]) -> CocoBatch:
        """Keeps pictures apart, since the device pads them, and broken items aside."""
        good = [item for item in items if isinstance(item, CocoItem)]
        bad = [item for item in items if isinstance(item, BadItem)]
        return CocoBatch([item.image for item in good], [item.target for item in good], bad)

    def prepare(self, batch: CocoBatch, device: torch.device | str) -> DetectionBatch:
        """Moves, normalises and pads a batch on `device`; padding is 0, the mean colour."""
        images = [
            self.image_transform.normalise(image.to(device, non_blocking=True)) for image in batch.images
        ]
        empty = ImageBatch(torch.zeros(0, 3, 1, 1), torch.zeros(0, 1, 1, dtype=torch.bool))
        pixels = as_image_batch(images) if images else empty
        return DetectionBatch(pixels, batch.targets, batch.bad_items).to(device)

    def ground_truth(self, image_ids: Collection[int] | None = None) -> dict[str, Any]:
        """COCO's own form, for the evaluation: sound annotations, with boxes as in the file and with crowds.

        Args:
            image_ids: only these images (such as those that could be read); None: all that are in the file.

        Returns:
            `images`, in the order of this data set, `annotations` and `categories`; category ids are those of
            `self.categories`.
        """
        file, wanted = self.file, None if image_ids is None else set(image_ids)
        images, annotations = [], []
        for index, image_id in enumerate(file.image_ids.tolist()):
            if wanted is not None and image_id not in wanted:
                continue
            height, width = file.image_sizes[index].tolist()
            images.append(
                {"id": image_id, "file_name": file.file_names[index], "height": height, "width": width}
            )
            rows = self._true_rows(index)
            columns = (
                file.ids[rows],
                self._labels[rows],
                file.boxes[rows],
                file.areas[rows],
                file.crowd[rows],
            )
            for id_, label, box, area, crowd in zip(*(column.tolist() for column in columns), strict=True):
                annotations.append(
                    {
                        "id": id_,
                        "image_id": image_id,
                        "category_id": self.categories.ids[label],
                        "bbox": box,
                        "area": area,
                        "iscrowd": int(crowd),
                    }
                )
        named = zip(self.categories.ids, self.categories.names, strict=True)
        categories = [
            {"id": category_id, "name": name} for category_id, name in named if category_id is not None
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _true_rows(self, index: int) -> np.ndarray:
        """Which annotations of image number `index` are the ground truth of boxes."""
        return self.file.annotations_of(index)


class CocoDetection(CocoPictures):
    """A split of a COCO folder: pictures, and the boxes of the objects in them.

    Images without objects are kept: they teach what is not an object. Crowds are left out of the targets and
    stay in `ground_truth()`. What is broken in the annotation file is reported when the data set is made,
    what is broken in a picture when it is read (see `coco_json` and `pictures` for what counts as broken).

    Args:
        folder: with one of the two layouts above.
        split: "train", "val", or the name of another split.
        categories: what the labels are. "dense": 0..K-1 without gaps, in the order of category ids. "coco":
            the category ids. A `Categories` (of a checkpoint, or of the training split): its labels and ids,
            matched by name.
        augment: None, "paper", or what changes a picture and its target, with the signature of `DetrAugment`.
        transform: how the model wants its pictures: size and colours; with `augment`, which decides about
            the size, only the colours.
        bad_items: "skip" what is broken or "stop" at it, or the registry of a run, which says so.
        masks: targets have `masks` too, from polygons or run lengths.

    Raises:
        FileNotFoundError: if the folder has not the layout.
        CocoFormatError: if the annotation file is not COCO.
        ValueError: if `categories` lacks a category of the data, by name.
        BadItemError: if `bad_items` says "stop" and an annotation is broken.
    """

    def __init__(
        self,
        folder: Path | str,
        split: str = "train",
        categories: str | Categories = "dense",
        augment: str | Augmentation | None = None,
        transform: ImageTransform = PAPER_SIZE,
        bad_items: str | BadItems = "skip",
        masks: bool = False,
    ) -> None:
        bad_items = bad_items if isinstance(bad_items, BadItems) else BadItems(bad_items)
        annotation_file, pictures = find_split(folder, split)
        file = read_coco(annotation_file, bad_items, masks)
        super().__init__(file, pictures, choose_categories(categories, file), augment, transform, bad_items)

    def _target(self, index: int) -> dict[str, Any]:
        """The objects of image number `index`, with their boxes xyxy in pixels, clipped to the image."""
        rows = self.file.annotations_of(index)
        rows = rows[~self.file.crowd[rows]]
        height, width = self.file.image_sizes[index].tolist()
        left, top, box_width, box_height = self.file.boxes[rows].T
        corners = [
            left.clip(0),
            top.clip(0),
            (left + box_width).clip(max=width),
            (top + box_height).clip(max=height),
        ]
        target = {
            "labels": torch.from_numpy(self._labels[rows]),
            "boxes": torch.from_numpy(np.stack(corners, axis=1)),
            "image_id": int(self.file.image_ids[index]),
            "original_size": (height, width),
            "annotation_ids": self.file.ids[rows].tolist(),
        }
        if self.file.segmentations is not None:
            masks = [decode_mask(self.file.segmentations[row], height, width) for row in rows]
            target["masks"] = torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, height, width))
        return target


def choose_categories(
    wanted: str | Categories, file: CocoFile, things: Collection[int] | None = None
) -> Categories:
    """The categories that labels stand for; see `CocoDetection`. `things` are the category ids that are no stuff."""
    if wanted == "dense":
        return Categories.dense(file.categories, things)
    if wanted == "coco":
        return Categories.by_id(file.categories, things)
    if not isinstance(wanted, Categories):
        raise ValueError(f"categories are 'dense', 'coco' or a Categories, not {wanted!r}")
    known = {
        name for category_id, name in zip(wanted.ids, wanted.names, strict=True) if category_id is not None
    }
    missing = [name for _, name in file.categories if name not in known]
    if missing:
        raise ValueError(
            f"{file.path} has categories that the model (or the training data) does not know, by name: "
            f"{', '.join(missing)}; it knows {', '.join(sorted(known))}"
        )
    return wanted
