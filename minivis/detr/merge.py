"""From masks that overlap to one segment for each pixel: the panoptic result (Carion et al. 2020, section 4.4)."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from minivis.detr.panoptic import DETRsegm
from minivis.images import ImageBatch, as_image_batch

VOID = 0  # the id of pixels that belong to no segment
SPECK = 4  # pixels; a segment of at most so many is not kept


class Segment(NamedTuple):
    """One thing, or all of one stuff class, in an image."""

    id: int
    label: int
    is_thing: bool
    score: float = 1.0
    queries: tuple[int, ...] = ()  # whose masks it is made of; several only for stuff
    is_crowd: bool = False  # of annotations: a group whose members nobody told apart


class Panoptic(NamedTuple):
    """Each pixel's segment, by its id (`VOID` where there is none), and what the segments are."""

    segment_ids: Int[Tensor, "height width"]
    segments: list[Segment]


def merge_masks(
    masks: Float[Tensor, "queries height width"],
    labels: Int[Tensor, " queries"],
    scores: Float[Tensor, " queries"],
    things: Collection[int],
    queries: Sequence[int] | None = None,
    speck: int = SPECK,
) -> Panoptic:
    """Every pixel goes to the mask that is surest of it; masks of one stuff class are one segment.

    Segments of at most `speck` pixels are removed and their pixels decided again among the rest. Those only grow by
    it, so that once is enough.

    The paper's code merges stuff once, before that: a mask that was merged into another has then no pixels of its own,
    is removed as a speck, and its pixels may go to a neighbour. Here masks of one stuff class are one segment from
    beginning to end: its size is that of all of them together, and deciding again does not take it apart.

    Args:
        masks: logits, at the resolution of the result, of the queries that are sure enough of their class.
        labels: their classes.
        scores: how sure they are.
        things: the labels whose objects are counted; all others are stuff.
        queries: what their numbers are in the model; None: their places here.
        speck: in pixels; 0 keeps every segment that has a pixel.

    Returns:
        Ids from 1 on, in the order of the queries. A segment's score is the highest of its queries'. No pixel is void,
        unless all are.
    """
    queries = range(len(masks)) if queries is None else queries
    label_of = labels.tolist()
    first: dict[int, int] = {}  # of each stuff class: the place of its first mask, which stands for all
    owner = torch.tensor(
        [i if label in things else first.setdefault(label, i) for i, label in enumerate(label_of)],
        dtype=torch.int64,
        device=masks.device,
    )
    kept = torch.zeros_like(owner, dtype=torch.bool)
    if len(masks):
        area = owner[masks.argmax(0)].flatten().bincount(minlength=len(masks))
        kept = area[owner] > speck
    if not kept.any():
        return Panoptic(torch.full(masks.shape[1:], VOID, dtype=torch.int64, device=masks.device), [])
    winner = masks.masked_fill(~kept[:, None, None], float("-inf")).argmax(0)

    pixels = winner.flatten().bincount(minlength=len(masks)).tolist()
    members: dict[int, list[int]] = {}
    for i, group in enumerate(owner.tolist()):
        if pixels[i]:
            members.setdefault(group, []).append(i)
    segments, id_of = [], torch.full_like(owner, VOID)
    for number, (group, places) in enumerate(sorted(members.items()), start=1):
        id_of[group] = number
        score = max(float(scores[i]) for i in places)
        label = label_of[group]
        segments.append(
            Segment(number, label, label in things, score, tuple(int(queries[i]) for i in places))
        )
    return Panoptic(id_of[owner[winner]], segments)


@torch.no_grad()
def predict_panoptic(
    model: DETRsegm,
    images: ImageBatch | Tensor | list[Tensor],
    things: Collection[int],
    image_sizes: Sequence[tuple[int, int]] | None = None,
    threshold: float = 0.85,
) -> list[Panoptic]:
    """The segments of each image. Masks are made only of queries whose best class is an object with a score above 0.85.

    Args:
        model: in evaluation mode.
        images: as the model takes them.
        things: the labels whose objects are counted; all others are stuff.
        image_sizes: (height, width) in pixels that the result is wanted in; None: of the images as they are given.
        threshold: of the score.
    """
    images = as_image_batch(images)
    outputs, inputs = model.detect(images)
    scores, labels = outputs["pred_logits"].float().softmax(-1).max(-1)
    kept = (labels < model.num_classes) & (scores > threshold)
    image, query = kept.nonzero(as_tuple=True)
    masks = model.masks_of(inputs, image, query).float()
    within = ~images.padding_mask
    own_sizes = torch.stack([within.any(2).sum(1), within.any(1).sum(1)], dim=1).tolist()
    if image_sizes is not None and len(image_sizes) != len(own_sizes):
        raise ValueError(f"expected the sizes of {len(own_sizes)} images, got {len(image_sizes)}")

    results = []
    for i, (height, width) in enumerate(own_sizes):
        own = image == i
        full = F.interpolate(masks[own][:, None], images.pixels.shape[-2:], mode="bilinear")
        full = full[..., :height, :width]  # without the padding
        if image_sizes is not None:
            full = F.interpolate(full, tuple(image_sizes[i]), mode="bilinear")
        numbers = query[own]
        results.append(
            merge_masks(full[:, 0], labels[i, numbers], scores[i, numbers], things, numbers.tolist())
        )
    return results
