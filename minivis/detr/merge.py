"""From masks that overlap to one segment for each pixel: the panoptic result (Carion et al. 2020, section 4.4)."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    overlap: float = 0.0,
) -> Panoptic:
    """Every pixel goes to the mask that is surest of it; masks of one stuff class are one segment.

    Segments of at most `speck` pixels are removed and their pixels decided again among the rest. Those only grow by
    it, so that once is enough. With `overlap` the same is done with segments that win too little of their own masks:
    such a mask lies mostly on what others are surer of, and is often a second answer for the same object.

    The overlap threshold is not DETR's. It comes from MaskFormer (Cheng et al. 2021, 0.8 there), and
    Transformers has it for DETR's masks as well. Both leave the pixels of what they remove void; and both count all
    pixels that a mask wins, where here only those count that it says are its own, so that the share is one at most.

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
        overlap: 0..1, the least share that a segment must win of its own pixels: those where its mask, or for stuff
            one of its masks, has a logit above 0. A segment without such pixels stays. 0 asks nothing, as the paper.

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
        owners = owner[masks.argmax(0)]
        kept = (owners.flatten().bincount(minlength=len(masks)) > speck)[owner]
        if overlap > 0:
            own, won = _own_and_won(masks, owner, owners)
            kept &= (won >= overlap * own.double())[owner]
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


def _own_and_won(
    masks: Float[Tensor, "queries height width"],
    owner: Int[Tensor, " queries"],
    owners: Int[Tensor, "height width"],
) -> tuple[Int[Tensor, " queries"], Int[Tensor, " queries"]]:
    """Of each segment, at its first mask's place: how many pixels its masks claim, and how many of those it wins."""
    own, won = torch.zeros_like(owner), torch.zeros_like(owner)
    for i in owner.unique().tolist():
        claimed = (masks[owner == i] > 0).any(0)
        own[i], won[i] = claimed.sum(), (claimed & (owners == i)).sum()
    return own, won
