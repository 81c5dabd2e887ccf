"""A small convolutional detector in the manner of FCOS (Tian et al. 2019), to compare the small DETR with.

Every cell of the feature map predicts one box: classes, the distances from the cell's centre to the four sides, and how
central the cell is in its object ("centre-ness"). No anchors; but cells of one object answer alike, so suppression of
overlapping boxes has to follow. What a cell is to say is decided by where it lies, before the model has said anything.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchvision.ops import batched_nms, sigmoid_focal_loss

from minivis.boxes import cxcywh_to_xyxy, paired_generalized_box_iou
from minivis.detr.backbone import SmallConvBackbone, group_norm
from minivis.images import ImageBatch, as_image_batch

RARE = 0.01  # the probability that every class begins with: nearly all cells show none


class SmallFCOS(nn.Module):
    """The small DETR's backbone, a tower of convolutions in place of its transformer, and three heads.

    Args:
        num_classes: K; there is no output for "no object": each class is a yes or no of its own.
        backbone_channels: of each stage, every one of which halves the resolution.
        depth: convolutions in the tower.
    """

    def __init__(self, num_classes: int, backbone_channels: tuple[int, ...], depth: int = 5):
        super().__init__()
        self.backbone = SmallConvBackbone(backbone_channels)
        channels, self.stride = self.backbone.channels[-1], self.backbone.strides[-1]
        tower = []
        for _ in range(depth):
            tower += [
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                group_norm(channels),
                nn.ReLU(),
            ]
        self.tower = nn.Sequential(*tower)
        self.class_head = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.side_head = nn.Conv2d(channels, 4, 3, padding=1)
        self.centre_head = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.constant_(self.class_head.bias, torch.tensor(RARE).logit().item())

    def forward(self, images: ImageBatch | Tensor | list[Tensor]) -> dict[str, Tensor]:
        """Predictions of every cell, row by row.

        Returns:
            `logits` (B, N, K), `centreness` (B, N) as a logit, `boxes` (B, N, 4) as (left, top, right, bottom) in
            pixels, and `points` (N, 2): the cells' centres (x, y) in pixels.
        """
        x = self.tower(self.backbone(as_image_batch(images))[-1].features)
        points = cell_centres(*x.shape[-2:], self.stride, x.device)
        sides = rearrange(self.side_head(x), "b four h w -> b (h w) four").float().exp() * self.stride
        left_top, right_bottom = sides[..., :2], sides[..., 2:]
        return {
            "logits": rearrange(self.class_head(x), "b k h w -> b (h w) k"),
            "centreness": rearrange(self.centre_head(x), "b 1 h w -> b (h w)"),
            "boxes": torch.cat([points - left_top, points + right_bottom], dim=-1),
            "points": points,
        }


def cell_centres(height: int, width: int, stride: int, device: torch.device) -> Float[Tensor, "cells 2"]:
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return (torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * stride


class Assigned(NamedTuple):
    """What each cell of an image is to say; box and centre-ness mean nothing where there is no object."""

    has_object: Bool[Tensor, " cells"]
    label: Int[Tensor, " cells"]
    box: Float[Tensor, "cells 4"]  # (left, top, right, bottom) in pixels
    centreness: Float[Tensor, " cells"]


def assign(points: Float[Tensor, "cells 2"], target: dict) -> Assigned:
    """A cell whose centre lies in a box answers for it; in several boxes, for the smallest.

    centre-ness = √( min(l, r) / max(l, r) · min(t, b) / max(t, b) ), with l, t, r, b the distances to the sides
    """
    height, width = target["original_size"]
    boxes = cxcywh_to_xyxy(target["boxes"]) * torch.tensor([width, height, width, height])
    left_top, right_bottom = (
        points[:, None] - boxes[:, :2],
        boxes[:, 2:] - points[:, None],
    )  # (cells, objects, 2)
    inside = (torch.minimum(left_top, right_bottom) > 0).all(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    chosen = torch.where(inside, area, torch.inf).argmin(1)

    rows = torch.arange(len(points))
    one, other = left_top[rows, chosen], right_bottom[rows, chosen]
    ratio = torch.minimum(one, other).clamp(min=0) / torch.maximum(one, other)
    return Assigned(inside.any(1), target["labels"][chosen], boxes[chosen], ratio.prod(-1).sqrt())


class FCOSCriterion(nn.Module):
    """Focal loss for the classes of all cells; GIoU and centre-ness for the cells that have an object.

    Sums over the batch are divided by the number of those cells; boxes count by their centre-ness, as in the paper.
    """

    def forward(self, outputs: dict[str, Tensor], targets: list[dict]) -> dict[str, Tensor]:
        assigned = [assign(outputs["points"], target) for target in targets]
        has_object, label, box, centreness = (torch.stack(field) for field in zip(*assigned))
        logits = outputs["logits"]
        yes = F.one_hot(label, logits.shape[-1]) * has_object[..., None]
        focal = sigmoid_focal_loss(logits, yes.to(logits.dtype), alpha=0.25, gamma=2, reduction="sum")

        weight = centreness[has_object]
        giou = paired_generalized_box_iou(outputs["boxes"][has_object], box[has_object])
        centre = F.binary_cross_entropy_with_logits(
            outputs["centreness"][has_object], weight, reduction="sum"
        )
        cells = has_object.sum().clamp(min=1)
        return {
            "loss_ce": focal / cells,
            "loss_giou": ((1 - giou) * weight).sum() / weight.sum().clamp(min=1e-6),
            "loss_centre": centre / cells,
        }

    def weighted_sum(self, losses: dict[str, Tensor]) -> Tensor:
        return sum(losses.values())


@torch.no_grad()
def fcos_detections(
    outputs: dict[str, Tensor], max_overlap: float = 0.6, most: int = 100
) -> list[dict[str, Tensor]]:
    """What was found in each image, the surest first: `scores`, `labels`, `boxes`, as DETR's `postprocess` gives it.

    score = √(p(class) · centre-ness). A box which overlaps with a surer one of its class by more than `max_overlap`
    (IoU) is left out.
    """
    scores = (outputs["logits"].sigmoid() * outputs["centreness"].sigmoid()[..., None]).sqrt()
    cells, classes = scores.shape[1:]
    found = []
    for score, boxes in zip(scores.flatten(1), outputs["boxes"], strict=True):
        label, box = torch.arange(classes).repeat(cells), boxes.repeat_interleave(classes, dim=0)
        kept = batched_nms(box, score, label, max_overlap)[:most]
        found.append({"scores": score[kept], "labels": label[kept], "boxes": box[kept]})
    return found
