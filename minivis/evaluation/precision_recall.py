"""COCO's average precision in the open: what `detection_metrics` leaves to a compiled library, step by step.

For reading, for small numbers of pictures, and for what wants to know *which* detections are right. Crowds and
limits on the size of objects are left to `detection_metrics`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from minivis.boxes import box_iou

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
RECALLS = np.linspace(0, 1, 101)  # where COCO reads the precision
MOST = 100  # detections of an image and class that count


class ImageDetections(NamedTuple):
    """What was found in an image and what is there, in any one unit of length.

    `found`: `scores` (N,), `labels` (N,), `boxes` (N, 4) as (left, top, right, bottom), as `postprocess` gives it.
    `truth`: `labels` (M,), `boxes` (M, 4) likewise.
    """

    found: dict[str, Tensor]
    truth: dict[str, Tensor]


class Curve(NamedTuple):
    """Precision and recall of one class if all detections with at least this score count, the surest first."""

    scores: Float[np.ndarray, " detections"]
    right: Bool[np.ndarray, " detections"]
    precision: Float[np.ndarray, " detections"]
    recall: Float[np.ndarray, " detections"]


def match_detections(image: ImageDetections, iou: float = 0.5) -> list[int]:
    """For each detection the object that it has found, or −1.

    The surest chooses first: the object of its class that it overlaps most, of those that nobody has found before and
    whose IoU is at least `iou`. So a second box on an object is wrong, however well it lies.
    """
    found, truth = image
    overlap = box_iou(found["boxes"].double(), truth["boxes"].double()).tolist()
    object_of, free = [-1] * len(overlap), [True] * len(truth["labels"])
    labels = truth["labels"].tolist()
    for i in found["scores"].argsort(descending=True, stable=True).tolist():
        label = int(found["labels"][i])
        candidates = [
            j for j in range(len(labels)) if free[j] and labels[j] == label and overlap[i][j] >= iou
        ]
        if candidates:
            object_of[i] = max(candidates, key=lambda j: (overlap[i][j], j))
            free[object_of[i]] = False
    return object_of


def precision_recall(
    images: Sequence[ImageDetections],
    label: int,
    iou: float = 0.5,
    partners: Sequence[list[int]] | None = None,
) -> Curve:
    """The curve of one class over all images: precision = right / found so far, recall = right / objects there.

    Args:
        partners: what `match_detections` gives for each image, where it is known already: it is one for all classes.
    """
    partners = [match_detections(image, iou) for image in images] if partners is None else partners
    scores, right, objects = [], [], 0
    for image, objects_found in zip(images, partners, strict=True):
        objects += int((image.truth["labels"] == label).sum())
        own = image.found["labels"] == label
        best = image.found["scores"][own].argsort(descending=True, stable=True)[:MOST]
        matched = torch.tensor(objects_found, dtype=torch.int64)[own.cpu()] >= 0
        scores += image.found["scores"][own][best].tolist()
        right += matched[best.cpu()].tolist()
    order = np.argsort(-np.array(scores, dtype=float), kind="stable")
    scores, right = np.array(scores, dtype=float)[order], np.array(right, dtype=bool)[order]
    so_far = right.cumsum()
    return Curve(scores, right, so_far / np.arange(1.0, len(right) + 1), so_far / max(objects, 1))


def at_recalls(curve: Curve) -> Float[np.ndarray, "101"]:
    """The best precision that is still to be had at each of `RECALLS` or beyond it; 0 where none reaches so far."""
    best = np.maximum.accumulate(curve.precision[::-1])[::-1]
    place = np.searchsorted(curve.recall, RECALLS, side="left")
    return np.append(best, 0.0)[place]


def mean_average_precision(
    images: Sequence[ImageDetections],
    ious: Sequence[float] = IOU_THRESHOLDS,
    labels: Sequence[int] | None = None,
) -> float:
    """COCO's AP as a fraction: the mean of `at_recalls` over IoU thresholds and over the classes that occur.

    Args:
        labels: only these classes; None: all that there are objects of.
    """
    present = sorted({label for image in images for label in image.truth["labels"].tolist()})
    wanted = present if labels is None else [label for label in labels if label in present]
    if not wanted:
        return float("nan")
    return float(
        np.mean([at_recalls(precision_recall(images, c, iou)).mean() for c in wanted for iou in ious])
    )
