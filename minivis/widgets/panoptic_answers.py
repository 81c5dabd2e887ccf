"""What a panoptic model answers for one picture, packed for the browser: masks, where they come from, and the truth.

Mask logits are sent as whole numbers of 16 bits, all of a picture in the same steps, so that they can be compared. (Of
8 bits would not do: logits reach ±180, and where two masks meet, less than one decides.) The browser stretches them as
`F.interpolate(..., mode="bilinear")` does, by a power of two: then all weights are fractions of a power of two, nothing
is rounded, and it finds to the pixel what Python finds from the same numbers.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int16, UInt8
from torch import Tensor

from minivis.detr import DETRsegm, Panoptic, Segment
from minivis.detr.panoptic import MaskInputs

STEPS = 2**15 - 1  # from 0 to the largest logit
MOST_SEGMENTS = 255  # their places are bytes
LARGEST_SIDE = 512  # pixels that masks are merged in


class Answers(NamedTuple):
    """What is answered for one picture by the queries whose best class is a known object."""

    queries: list[int]
    labels: list[int]
    scores: list[float]
    boxes: Float[np.ndarray, "n 4"]  # (cx, cy, w, h) in fractions of the picture
    masks: Int16[Tensor, "n height width"]  # logits in steps
    step: float  # the logit of one
    drafts: UInt8[Tensor, "stages n height width"]  # probabilities in steps of 1/255; see `drafts_of`
    cells: list[int]  # of each stage, in pixels of the model's picture
    attention: Float[np.ndarray, "n heads rows columns"]  # a query's weights sum to 1 over heads and cells
    factor: int  # how many pixels of the result a cell of a mask is wide

    def stretched(self) -> Float[Tensor, "n full_height full_width"]:
        """The masks in pixels of the result, logits in steps."""
        size = [side * self.factor for side in self.masks.shape[1:]]
        if not len(self.masks):
            return torch.zeros(0, *size)
        return F.interpolate(self.masks[:, None].float(), size, mode="bilinear")[:, 0]

    def as_plain_values(self) -> dict[str, Any]:
        """For the browser. Attention as bytes, each head's map with its maximum: value = byte / 255 · maximum."""
        maxima = self.attention.max(axis=(-2, -1))
        shares = self.attention / np.where(maxima > 0, maxima, 1)[..., None, None]
        return {
            "queries": self.queries,
            "labels": self.labels,
            "scores": self.scores,
            "boxes": [[round(side, 6) for side in box] for box in self.boxes.tolist()],
            "masks": self.masks.numpy().astype("<i2").tobytes(),
            "drafts": self.drafts[:-1].numpy().tobytes(),
            "step": self.step,
            "size": list(self.masks.shape[1:]),  # of a mask, in cells
            "factor": self.factor,
            "cells": self.cells,
            "attention": (shares * 255).round().astype(np.uint8).tobytes(),
            "maxima": maxima.astype("<f4").tobytes(),
            "shares": [[round(share, 6) for share in heads] for heads in self.attention.sum((2, 3)).tolist()],
            "grid": list(self.attention.shape[2:]),
        }


def answers_of(
    model: DETRsegm, pixels: Float[Tensor, "3 height width"], known: Collection[int], floor: float
) -> Answers:
    """A model's answers for one picture, whose sides are multiples of the masks' stride.

    Args:
        model: in evaluation mode.
        pixels: as the model wants them, on its device.
        known: the labels that are categories.
        floor: queries with a lower score are left out.
    """
    outputs, inputs = model.detect(pixels[None])
    scores, labels = outputs["pred_logits"][0].float().softmax(-1).max(-1)
    rows = zip(scores.tolist(), labels.tolist(), strict=True)
    queries = [query for query, (score, label) in enumerate(rows) if label in known and score >= floor]
    chosen = torch.tensor(queries, dtype=torch.int64, device=pixels.device)
    cells, drafts = drafts_of(model, inputs, chosen)

    largest = float(drafts[-1].abs().max()) if queries else 0.0
    step = largest / STEPS or 1.0
    in_steps = (drafts[-1] / step).round().clamp(-STEPS, STEPS).to(torch.int16)
    return Answers(
        queries,
        labels[chosen].tolist(),
        [round(score, 6) for score in scores[chosen].tolist()],
        outputs["pred_boxes"][0, chosen].float().cpu().numpy(),
        in_steps.cpu(),
        step,
        (drafts.sigmoid() * 255).round().to(torch.uint8).cpu(),
        cells,
        inputs.attention[0, chosen].float().cpu().numpy(),
        factor_of(drafts.shape[-2:], cells[-1]),
    )


def drafts_of(
    model: DETRsegm, inputs: MaskInputs, queries: Int[Tensor, " n"]
) -> tuple[list[int], Float[Tensor, "stages n height width"]]:
    """The masks that the head draws from coarser and coarser maps.

    Inside of the head there is no mask but the last: what it has at stride 16 and 8 are maps of many channels, none of
    them a mask. So the whole head is run again, with each of the backbone's maps that is finer than a cell of so many
    pixels averaged over such cells. In the last stage nothing is averaged: those are the masks.

    Returns:
        The cells' sides in pixels, from coarse to fine, and for each the mask logits.
    """
    strides = [model.detr.backbone.strides[stage] for stage in model.mask_stages]
    coarsest = model.detr.backbone.strides[model.detr.feature_level]
    cells = sorted({coarsest, *strides}, reverse=True)
    image = torch.zeros_like(queries)
    drafts = []
    for cell in cells:
        fpns = [averaged(finer, cell // stride) for finer, stride in zip(inputs.fpns, strides, strict=True)]
        drafts.append(model.masks_of(inputs._replace(fpns=fpns), image, queries).float())
    return cells, torch.stack(drafts)


def averaged(maps: Float[Tensor, "b c height width"], cells: int) -> Float[Tensor, "b c height width"]:
    """Every value becomes the mean of the block of `cells` by `cells` that it lies in, as far as there is a map."""
    if cells <= 1:
        return maps
    means = F.avg_pool2d(maps, cells, ceil_mode=True, count_include_pad=False)
    height, width = maps.shape[-2:]
    return means.repeat_interleave(cells, -2).repeat_interleave(cells, -1)[..., :height, :width]


def factor_of(size: Collection[int], stride: int) -> int:
    """How much masks of so many cells are stretched: by their stride, or half as often as makes them small enough."""
    factor = stride
    while factor % 2 == 0 and max(size) * factor > LARGEST_SIDE:
        factor //= 2
    return factor


# The truth


def resized(truth: Panoptic, size: tuple[int, int]) -> Panoptic:
    """In another number of pixels, each as its nearest; segments that have none left are gone."""
    ids = truth.segment_ids.cpu()
    if tuple(ids.shape) != size:
        ids = F.interpolate(ids[None, None].double(), size, mode="nearest-exact")[0, 0].long()
    left = set(ids.unique().tolist())
    return Panoptic(ids, [segment for segment in truth.segments if segment.id in left])


def packed_truth(truth: Panoptic) -> dict[str, Any]:
    """For the browser: the segments, and the map as runs of pixels in rows, `lengths` uint32 and `places` bytes.

    Place i is that of segments[i − 1]; 0 is void.
    """
    if len(truth.segments) > MOST_SEGMENTS:
        raise ValueError(
            f"at most {MOST_SEGMENTS} true segments can be shown, there are {len(truth.segments)}"
        )
    places = places_of(truth.segments, truth.segment_ids.numpy()).ravel()
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    return {
        "segments": [{"label": s.label, "crowd": s.is_crowd} for s in truth.segments],
        "lengths": np.diff(starts, append=places.size).astype("<u4").tobytes(),
        "places": places[starts].astype(np.uint8).tobytes(),
    }


def places_of(segments: list[Segment], ids: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    places = np.zeros_like(ids)
    for place, segment in enumerate(segments, start=1):
        places[ids == segment.id] = place
    return places
