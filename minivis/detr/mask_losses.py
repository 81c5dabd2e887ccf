"""What a predicted mask is compared with, and by which two losses (DETR, section 4.4)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from minivis.detr.targets import image_name


def sigmoid_focal_loss(
    logits: Float[Tensor, "*any"], targets: Float[Tensor, "*any"], alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*any"]:
    """Cross-entropy that leaves alone what is right already (Lin et al. 2017): −α_t (1 − p_t)^γ log p_t.

    p_t is the probability given to what is true. Most pixels are easy background: their (1 − p_t)^γ is close to 0.
    α_t is α on the object and 1 − α beside it.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")  # −log p_t
    p = logits.sigmoid()
    wrong = p + targets - 2 * p * targets  # 1 − p_t: 1 − p on the object, p beside it
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return balance * wrong**gamma * cross_entropy


def dice_loss(
    logits: Float[Tensor, "masks height width"], targets: Float[Tensor, "masks height width"]
) -> Float[Tensor, " masks"]:
    """1 − (2 Σ p t + 1) / (Σ p + Σ t + 1), over the pixels of each mask (Milletari et al. 2016).

    A measure of overlap: a small object weighs as much as a large one. The 1 keeps an empty mask from dividing 0 by 0.
    """
    p, t = logits.sigmoid().flatten(1), targets.flatten(1)
    return 1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)


def pad_masks(targets: list[dict]) -> Bool[Tensor, "objects height width"]:
    """The true masks of all images, one after another, padded at the right and at the bottom to the largest.

    Raises:
        ValueError: if a target has no masks, or none that fit its labels; the image is named.
    """
    for i, target in enumerate(targets):
        masks, objects = target.get("masks"), len(target["labels"])
        if not isinstance(masks, Tensor):
            raise ValueError(
                f"image {image_name(targets, i)}: expected a tensor `masks` (N, H, W), got {type(masks).__name__}"
            )
        if masks.ndim != 3 or len(masks) != objects or 0 in masks.shape[1:] or masks.dtype != torch.bool:
            raise ValueError(
                f"image {image_name(targets, i)}: expected masks ({objects}, H, W) of bool for its {objects} labels, "
                f"got {tuple(masks.shape)} of {masks.dtype}"
            )
    height = max(target["masks"].shape[1] for target in targets)
    width = max(target["masks"].shape[2] for target in targets)
    return torch.cat(
        [
            F.pad(
                target["masks"], (0, width - target["masks"].shape[2], 0, height - target["masks"].shape[1])
            )
            for target in targets
        ]
    )
