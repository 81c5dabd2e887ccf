"""What panoptic data sets give: masks of things and stuff, and the truth to be measured against."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from minivis.data.items import Categories, DetectionDataset
from minivis.detr.merge import VOID, Panoptic, Segment


@runtime_checkable
class PanopticDataset(DetectionDataset, Protocol):
    """A `DetectionDataset` whose categories are things and stuff, and whose targets have `masks`.

    A target's objects are an image's segments: each thing by itself, and of each stuff class all there is of it. Its
    `annotation_ids` are the segments' ids. `ground_truth` names all images, and things only.
    """

    def truth(self, target: dict[str, Any]) -> Panoptic:
        """The segments of an image, of which the target is given, in its original size; with crowds, if there are."""


def segments_of(target: Mapping[str, Any], categories: Categories) -> Panoptic:
    """A target's masks as one map. They do not overlap; pixels in none of them are void."""
    masks, labels = target["masks"].cpu(), target["labels"].tolist()
    ids = target["annotation_ids"]
    segment_ids = torch.full(masks.shape[1:], VOID, dtype=torch.int64)
    for mask, segment_id in zip(masks, ids, strict=True):
        segment_ids[mask] = segment_id
    things = categories.things
    segments = [Segment(id_, label, label in things) for id_, label in zip(ids, labels, strict=True)]
    return Panoptic(segment_ids, segments)
