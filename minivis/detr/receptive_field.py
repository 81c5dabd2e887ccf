"""Which pixels a cell of a feature map sees: by counting kernels, and by measuring gradients (Luo et al. 2016)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivis.images import ImageBatch


class ReceptiveField(NamedTuple):
    """A square around pixel (row · stride, column · stride), for the cell at (row, column), both from 0."""

    size: int  # pixels on a side, an odd number
    stride: int  # pixels from one cell to the next

    def window(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels (right and bottom are the first outside); may leave the picture."""
        x, y, half = column * self.stride, row * self.stride, self.size // 2
        return x - half, y - half, x + half + 1, y + half + 1


def receptive_fields(backbone: nn.Module) -> list[ReceptiveField]:
    """Of each stage: what the convolutions reach. Normalisations are not counted; group norm sees the whole map.

    A kernel of k cells adds k − 1 steps to the field, each as long as the stride so far: r ← r + (k − 1) · s.
    """
    in_stages = {part for stage in backbone.stages for part in stage.modules()}
    path = [part for part in _path(backbone) if part not in in_stages]  # the stem
    fields, size, stride = [], 1, 1
    for stage in backbone.stages:
        for part in (*path, *_path(stage)):
            kernel, step, dilation = (_side(n) for n in (part.kernel_size, part.stride, part.dilation))
            size += (kernel - 1) * dilation * stride
            stride *= step
        fields.append(ReceptiveField(size, stride))
        path = []
    return fields


def effective_field(
    backbone: nn.Module, images: ImageBatch, level: int, cells: Sequence[tuple[int, int]]
) -> Float[Tensor, "cells height width"]:
    """How much each pixel of one image moves a cell: the length of ∂(Σ_c a_c) / ∂(r, g, b), a_c its channels.

    Args:
        images: a batch of one image.
        level: which of the backbone's maps.
        cells: (row, column) in that map.

    Raises:
        ValueError: if the batch holds several images.
    """
    if len(images.pixels) != 1:
        raise ValueError(f"the field is of one image, got a batch of {len(images.pixels)}")
    pixels = images.pixels.detach().requires_grad_(True)
    with torch.enable_grad():
        sums = backbone(ImageBatch(pixels, images.padding_mask))[level].features[0].sum(0)  # (height, width)
    rows, columns = torch.tensor(cells, device=sums.device).reshape(-1, 2).T
    one_hot = torch.zeros(len(rows), *sums.shape, device=sums.device)
    one_hot[torch.arange(len(rows)), rows, columns] = 1
    # One forward pass, and one backward pass for all cells together.
    (gradient,) = torch.autograd.grad(sums, pixels, one_hot, is_grads_batched=True)  # (cells, 1, 3, H, W)
    return gradient[:, 0].norm(dim=1)


def pixels_with_half(
    moved: Float[Tensor, "cells height width"],
) -> Int[Tensor, " cells"]:
    """In how few pixels half of an effective field lies, its squares added up.

    If every pixel trembles by a little, all alike, then half of the cell's variance comes from these.
    """
    energy = moved.square().flatten(1)
    largest_first = energy.sort(dim=1, descending=True).values.cumsum(1)
    return (largest_first < largest_first[:, -1:] / 2).sum(1) + 1


def share_outside(moved: Float[Tensor, "height width"], window: tuple[int, int, int, int]) -> float:
    """What share of an effective field, its squares added up, lies outside of a window of pixels."""
    left, top, right, bottom = window
    energy = moved.square()
    total = energy.sum().clamp(min=1e-30)
    energy[max(top, 0) : bottom, max(left, 0) : right] = 0
    return (energy.sum() / total).item()


def _path(module: nn.Module) -> list[nn.Module]:
    """What widens the field, in order. Shortcuts see no more than the branch beside them."""
    windows = (nn.Conv2d, nn.MaxPool2d)
    return [p for name, p in module.named_modules() if isinstance(p, windows) and "downsample" not in name]


def _side(value: int | tuple[int, int]) -> int:
    return value if isinstance(value, int) else value[0]
