"""Panoptic quality: how well each pixel's segment is found (Kirillov et al. 2019, section 4).

A predicted and a true segment of one class match if their IoU is above ½; no segment then has two partners. For a class

    PQ = Σ IoU of the matches / (TP + FP/2 + FN/2) = SQ · RQ,
    SQ = the matches' mean IoU,   RQ = TP / (TP + FP/2 + FN/2).
"""

import math
from collections import Counter
from collections.abc import Collection

import numpy as np
from jaxtyping import Float, Int

from minivis.detr.merge import VOID, Panoptic, Segment

IOU, TP, FP, FN = range(4)  # columns of the counts


class PanopticQuality:
    """Counts over images, and what follows from them.

        quality = PanopticQuality(num_classes, things)
        for predicted, truth in ...:
            quality.add(predicted, truth)
        quality.metrics()["PQ"]

    Several processes add up their `counts`.
    """

    def __init__(self, num_classes: int, things: Collection[int]) -> None:
        beyond = [label for label in things if not 0 <= label < num_classes]
        if beyond:
            raise ValueError(f"things are labels from 0 to {num_classes - 1}, got {beyond}")
        self.is_thing = np.isin(np.arange(num_classes), list(things))
        self.counts = np.zeros((num_classes, 4))  # of each class: Σ IoU, TP, FP, FN

    def add(self, predicted: Panoptic, truth: Panoptic, image: int | str = "") -> None:
        """One image; its name is for errors.

        What the truth leaves void, a prediction may call what it likes: such pixels are taken out of the IoU's union,
        and a prediction that has no partner and lies mostly on them, or mostly on a crowd of its class, does not count.
        A crowd itself is nothing to be found.

        Raises:
            ValueError: if the maps differ in size, or a map and its list of segments do not agree.
        """
        if predicted.segment_ids.shape != truth.segment_ids.shape:
            raise ValueError(
                f"image {image}: the predicted map is {tuple(predicted.segment_ids.shape)}, the true one "
                f"{tuple(truth.segment_ids.shape)}"
            )
        num_classes = len(self.counts)
        mine = _places(predicted, f"image {image}, predicted map", num_classes)
        true = _places(truth, f"image {image}, true map", num_classes)
        overlap = _overlap(true, mine, len(truth.segments) + 1, len(predicted.segments) + 1)
        mine_area, true_area = overlap.sum(0), overlap.sum(1)
        on_void = overlap[0]

        matched_mine, matched_true = set(), set()
        for t, target in enumerate(truth.segments, start=1):
            for p, found in enumerate(predicted.segments, start=1):
                if target.is_crowd or target.label != found.label or not overlap[t, p]:
                    continue
                union = true_area[t] + mine_area[p] - overlap[t, p] - on_void[p]
                if overlap[t, p] > 0.5 * union:
                    self.counts[target.label, IOU] += overlap[t, p] / union
                    self.counts[target.label, TP] += 1
                    matched_mine.add(p)
                    matched_true.add(t)
        for t, target in enumerate(truth.segments, start=1):
            if t not in matched_true and not target.is_crowd:
                self.counts[target.label, FN] += 1
        for p, found in enumerate(predicted.segments, start=1):
            crowds = [
                t for t, s in enumerate(truth.segments, start=1) if s.is_crowd and s.label == found.label
            ]
            excused = on_void[p] + overlap[crowds, p].sum()
            if p not in matched_mine and excused <= 0.5 * mine_area[p]:
                self.counts[found.label, FP] += 1

    def by_class(self) -> Float[np.ndarray, "classes 3"]:
        """PQ, SQ, RQ of each class; nan where a class neither is there nor was predicted."""
        iou, tp, fp, fn = self.counts.T
        there = tp + fp + fn > 0
        sq = np.divide(iou, tp, out=np.zeros_like(iou), where=tp > 0)
        rq = np.divide(tp, tp + fp / 2 + fn / 2, out=np.full_like(iou, np.nan), where=there)
        return np.where(there[:, None], np.stack([sq * rq, sq, rq], axis=1), np.nan)

    def metrics(self) -> dict[str, float]:
        """`PQ`, `SQ`, `RQ` as fractions 0..1, means over all classes that occur; `PQ_things`, `PQ_stuff` and so on."""
        of_class = self.by_class()
        groups = {
            "": np.ones_like(self.is_thing),
            "_things": self.is_thing,
            "_stuff": ~self.is_thing,
        }
        metrics = {}
        for ending, group in groups.items():
            rows = of_class[group & ~np.isnan(of_class[:, 0])]
            means = rows.mean(0).tolist() if len(rows) else [math.nan] * 3
            metrics |= {name + ending: value for name, value in zip(("PQ", "SQ", "RQ"), means, strict=True)}
        return metrics


def _places(panoptic: Panoptic, name: str, num_classes: int) -> Int[np.ndarray, "height width"]:
    """The map with each id replaced by its segment's place in the list, from 1 on; void stays 0."""
    segments: list[Segment] = panoptic.segments
    ids = [segment.id for segment in segments]
    twice = [segment_id for segment_id, count in Counter(ids).items() if count > 1]
    if twice or VOID in ids:
        raise ValueError(f"{name}: segment id {(twice or [VOID])[0]} is listed twice, or stands for void")
    for segment in segments:
        if not 0 <= segment.label < num_classes:
            raise ValueError(
                f"{name}, segment {segment.id}: label {segment.label}, expected 0 to {num_classes - 1}"
            )
    present, inverse = np.unique(panoptic.segment_ids.cpu().numpy(), return_inverse=True)
    place_of = {VOID: 0} | {segment_id: i for i, segment_id in enumerate(ids, start=1)}
    unlisted = [int(i) for i in present if int(i) not in place_of]
    empty = sorted(set(ids) - set(present.tolist()))
    if unlisted or empty:
        what = (
            f"{unlisted[0]} has pixels but is not listed"
            if unlisted
            else f"{empty[0]} is listed but has no pixels"
        )
        raise ValueError(f"{name}: segment {what}")
    places = np.array([place_of[int(i)] for i in present], dtype=np.int64)
    return places[inverse].reshape(panoptic.segment_ids.shape)


def _overlap(
    a: Int[np.ndarray, "height width"], b: Int[np.ndarray, "height width"], n: int, m: int
) -> Int[np.ndarray, "n m"]:
    """How many pixels are i in one map and j in the other."""
    return np.bincount((a * m + b).ravel(), minlength=n * m).reshape(n, m)
