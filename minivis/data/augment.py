"""The augmentation that DETR is trained with (Carion et al. 2020, section 4, "Technical details")."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as TF

from minivis.images import fitted_size

Sample = dict[str, Tensor]  # "image", "boxes" and, where there are any, "masks": torchvision's own types


@dataclass(frozen=True)
class DetrAugment:
    """Flip; then half the time resize, and half the time resize, crop and resize. Boxes and masks follow the
    pixels.

    Lengths are in pixels; the defaults are the paper's. The random numbers come from the generator that it is
    called with and from nowhere else, so that a seed gives the same picture in every process and on every
    run.
    """

    short_sides: tuple[int, ...] = tuple(range(480, 801, 32))  # the short side of the result is one of these,
    longest: int = 1333  # unless the long side would pass this
    crop_short_sides: tuple[int, ...] = (400, 500, 600)  # before a crop, the short side becomes one of these
    crop_sizes: tuple[int, int] = (384, 600)  # least and greatest width and height of a crop
    flip_chance: float = 0.5
    crop_chance: float = 0.5
    colour: float = 0.0  # brightness, contrast and saturation are each multiplied by 1 - colour .. 1 + colour

    def scaled(self, factor: float) -> "DetrAugment":
        """The same with every length multiplied by `factor`: for smaller models and pictures."""
        return replace(
            self,
            short_sides=tuple(round(side * factor) for side in self.short_sides),
            longest=round(self.longest * factor),
            crop_short_sides=tuple(round(side * factor) for side in self.crop_short_sides),
            crop_sizes=(round(self.crop_sizes[0] * factor), round(self.crop_sizes[1] * factor)),
        )

    def __call__(
        self, image: UInt8[Tensor, "3 height width"], target: dict[str, Any], random: np.random.Generator
    ) -> tuple[UInt8[Tensor, "3 new_height new_width"], dict[str, Any]]:
        """A changed picture and its target.

        Args:
            image: the picture.
            target: `boxes` (N, 4) xyxy in pixels, inside the picture; `labels` (N,), `annotation_ids` (N of
                them), and perhaps `masks` (N, H, W) of bool. What else it has is kept.
            random: where random numbers come from.

        Returns:
            the new picture, and a target without the objects of which nothing is left in it.
        """
        sample: Sample = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(
                target["boxes"], format="XYXY", canvas_size=tuple(image.shape[-2:])
            ),
        }
        if "masks" in target:
            sample["masks"] = tv_tensors.Mask(target["masks"])

        if random.random() < self.flip_chance:
            sample = {name: TF.horizontal_flip(value) for name, value in sample.items()}
        if random.random() < self.crop_chance:
            sample = _crop(_resize(sample, self.crop_short_sides, None, random), self.crop_sizes, random)
        sample = _resize(sample, self.short_sides, self.longest, random)
        if self.colour > 0:
            sample["image"] = _change_colours(sample["image"], self.colour, random)

        # torchvision resizes boxes in float32, whose rounding may push them over the edge.
        sample["boxes"] = TF.clamp_bounding_boxes(sample["boxes"])
        changed = {name: value.as_subclass(Tensor) for name, value in sample.items()}
        image = changed.pop("image")
        return image, without_vanished({**target, **changed})


def _resize(
    sample: Sample, short_sides: tuple[int, ...], longest: int | None, random: np.random.Generator
) -> Sample:
    size = fitted_size(*sample["image"].shape[-2:], int(random.choice(short_sides)), longest)
    return {name: TF.resize(value, list(size), antialias=True) for name, value in sample.items()}


def _crop(sample: Sample, sizes: tuple[int, int], random: np.random.Generator) -> Sample:
    """A rectangle anywhere in the picture, its height and its width each drawn between the two sizes."""
    height, width = sample["image"].shape[-2:]
    least, greatest = sizes
    crop_height = int(random.integers(min(least, height), min(greatest, height), endpoint=True))
    crop_width = int(random.integers(min(least, width), min(greatest, width), endpoint=True))
    top = int(random.integers(0, height - crop_height, endpoint=True))
    left = int(random.integers(0, width - crop_width, endpoint=True))
    # Cutting also clamps the boxes to the new picture; those outside it are left without width or height.
    return {name: TF.crop(value, top, left, crop_height, crop_width) for name, value in sample.items()}


def _change_colours(image: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    for change in (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation):
        image = change(image, float(random.uniform(max(0.0, 1 - strength), 1 + strength)))
    return image


def without_vanished(target: dict[str, Any]) -> dict[str, Any]:
    """A target without the objects whose box has no width or height, or whose mask has no pixel."""
    boxes = target["boxes"]
    left = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if "masks" in target:
        left &= target["masks"].flatten(1).any(dim=1)
    kept = {name: target[name][left] for name in ("boxes", "labels", "masks") if name in target}
    ids = [id_ for id_, is_left in zip(target["annotation_ids"], left.tolist(), strict=True) if is_left]
    return {**target, **kept, "annotation_ids": ids}
