"""The true objects of a batch of images: checked, and padded to one tensor."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minivis.boxes import cxcywh_to_xyxy

OUTSIDE = 1e-3  # how far, as a fraction of the image, rounding may push a box over its edge


class PaddedTargets(NamedTuple):
    """Images with fewer objects than the largest end with objects of class 0 and an empty box, to be ignored."""

    labels: Int[Tensor, "batch objects"]
    boxes: Float[Tensor, "batch objects 4"]
    broken: Bool[Tensor, "batch objects"]


def pad_targets(targets: list[dict], num_classes: int, device: torch.device) -> PaddedTargets:
    """Shapes are checked here; values are only marked as broken, since to read them is to wait for the device."""
    for i, target in enumerate(targets):
        labels, boxes = target.get("labels"), target.get("boxes")
        if not (isinstance(labels, Tensor) and isinstance(boxes, Tensor)):
            raise ValueError(
                f"image {image_name(targets, i)}: expected tensors `labels` (N,) and `boxes` (N, 4), got "
                f"{type(labels).__name__} and {type(boxes).__name__}; the target has {', '.join(target) or 'nothing'}"
            )
        if labels.ndim != 1 or boxes.shape != (len(labels), 4) or labels.dtype != torch.int64:
            raise ValueError(
                f"image {image_name(targets, i)}: expected labels (N,) of int64 and boxes (N, 4), "
                f"got {tuple(labels.shape)} of {labels.dtype} and {tuple(boxes.shape)}"
            )
        if "masks" in target and len(target["masks"]) != len(labels):
            raise ValueError(
                f"image {image_name(targets, i)}: {len(labels)} labels, but masks of shape "
                f"{tuple(target['masks'].shape)}"
            )
    labels = pad_sequence([target["labels"].to(device) for target in targets], batch_first=True)
    boxes = pad_sequence([target["boxes"].to(device) for target in targets], batch_first=True).float()
    counts = torch.tensor([len(target["labels"]) for target in targets]).to(device, non_blocking=True)
    real = torch.arange(labels.shape[1], device=device) < counts[:, None]
    broken = real & (broken_labels(labels, num_classes) | broken_boxes(boxes))
    return PaddedTargets(labels.clamp(0, num_classes - 1), boxes.nan_to_num(), broken)


def broken_labels(labels: Int[Tensor, "*any"], num_classes: int) -> Bool[Tensor, "*any"]:
    return (labels < 0) | (labels >= num_classes)


def broken_boxes(boxes: Float[Tensor, "*any 4"]) -> Bool[Tensor, "*any"]:
    """Not finite, without width or height, or beyond the image."""
    corners = cxcywh_to_xyxy(boxes)
    inside = (corners >= -OUTSIDE) & (corners <= 1 + OUTSIDE)  # False for NaN as well
    return ~inside.all(-1) | (boxes[..., 2:] <= 0).any(-1)


def explain_broken_targets(targets: list[dict], num_classes: int) -> None:
    """Raises a `ValueError` that names the first broken object; does nothing if there is none."""
    for i, target in enumerate(targets):
        labels, boxes = target["labels"].cpu(), target["boxes"].cpu().float()
        bad_label, bad_box = broken_labels(labels, num_classes), broken_boxes(boxes)
        for j in (bad_label | bad_box).nonzero()[:1, 0].tolist():
            what = (
                f"label {int(labels[j])}, expected 0 to {num_classes - 1}"
                if bad_label[j]
                else f"box (cx, cy, w, h) = {[round(v, 4) for v in boxes[j].tolist()]}, expected a box with width and "
                "height, in fractions of the image and within it"
            )
            annotation = target["annotation_ids"][j] if "annotation_ids" in target else f"number {j}"
            raise ValueError(f"image {image_name(targets, i)}, annotation {annotation}: {what}")


def image_name(targets: list[dict], index: int) -> str:
    """How an error calls an image: by its id where it has one, else by its place in the batch."""
    return (
        str(targets[index]["image_id"]) if "image_id" in targets[index] else f"at place {index} of the batch"
    )
