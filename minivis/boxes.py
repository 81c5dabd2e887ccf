"""Box formats and how far two boxes agree: IoU, and the generalised IoU of Rezatofighi et al. (2019).

`xyxy` is (left, top, right, bottom). `cxcywh` is (centre x, centre y, width, height): the format DETR predicts,
in fractions of the image.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_area, box_convert, box_iou

__all__ = [
    "box_area",
    "box_iou",
    "boxes_around",
    "cxcywh_to_xyxy",
    "generalized_box_iou",
    "paired_generalized_box_iou",
    "xyxy_to_cxcywh",
]


def cxcywh_to_xyxy(boxes: Float[Tensor, "*any 4"]) -> Float[Tensor, "*any 4"]:
    return box_convert(boxes, "cxcywh", "xyxy")


def xyxy_to_cxcywh(boxes: Float[Tensor, "*any 4"]) -> Float[Tensor, "*any 4"]:
    return box_convert(boxes, "xyxy", "cxcywh")


def boxes_around(masks: Bool[Tensor, "*objects height width"]) -> Int[Tensor, "*objects 4"]:
    """xyxy in pixels around each mask, the far edges not included; W, H, 0, 0 around one without a pixel."""
    height, width = masks.shape[-2:]
    ends = []
    for seen, side in ((masks.any(-2), width), (masks.any(-1), height)):
        position = torch.arange(side, device=masks.device)
        ends.append((torch.where(seen, position, side).amin(-1), torch.where(seen, position + 1, 0).amax(-1)))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], dim=-1)


def paired_generalized_box_iou(
    a: Float[Tensor, "*#any 4"], b: Float[Tensor, "*#any 4"]
) -> Float[Tensor, "*any"]:
    """GIoU of each box of `a` with the box of `b` at the same place (shapes broadcast), both `xyxy`. In -1..1.

    A box without area is allowed: its IoU is 0, and its GIoU tells how far away it is (0 if the hull has no area
    either). Gradients stay finite.
    """
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.unbind(-1), b.unbind(-1)
    # I = overlap of a and b, U = their union, C = the smallest box around both.
    overlap = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    overlap = overlap * (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - overlap
    hull = torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)
    hull = hull * (torch.maximum(ay1, by1) - torch.minimum(ay0, by0))
    # GIoU = I / U − (C − U) / C; in place of areas of zero, that of a square whose side is lost in rounding
    # (with the smallest float the gradient, of size 1 / tiny, would overflow).
    tiny = torch.finfo(union.dtype).eps ** 2
    return overlap / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)


def generalized_box_iou(
    a: Float[Tensor, "*#any n 4"], b: Float[Tensor, "*#any m 4"]
) -> Float[Tensor, "*any n m"]:
    """GIoU of every box of `a` with every box of `b`, both `xyxy`; what comes before n and m broadcasts."""
    # Each coordinate side by side in memory: on a CPU everything after it is several times as fast.
    a, b = (boxes.movedim(-1, 0).contiguous().movedim(0, -1) for boxes in (a, b))
    return paired_generalized_box_iou(a[..., :, None, :], b[..., None, :, :])
