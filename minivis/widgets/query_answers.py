"""What a detector's queries answer, packed for the browser: one scene to look at, and all scenes to measure AP on.

Average precision needs no scores and no boxes once two things are known of every answer: which come before it, and
which objects of its class its box overlaps, and how much. So the answers are sorted here, and the browser can leave
out queries and match what is left anew, by COCO's rule: in the order of their scores, each answer takes the object
that it overlaps most of those that are left.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from minivis.boxes import box_iou, cxcywh_to_xyxy

MOST_QUERIES, MOST_OBJECTS = 2**8, 2**16  # their numbers are bytes, and pairs of bytes
LEAST_IOU = 0.5  # the lowest of COCO's thresholds: an overlap below it counts nowhere

Outputs = dict[str, Tensor]


class SceneAnswers(NamedTuple):
    """What every query answers in one scene after every decoder layer, and where it looks for it."""

    boxes: Float[np.ndarray, "layers queries 4"]  # (cx, cy, w, h) in fractions of the picture
    probabilities: Float[np.ndarray, "layers queries classes"]  # "no object" last
    attention: Float[np.ndarray, "layers queries heads height width"]  # of the cross-attention; sums to 1

    def surest(self) -> int:
        """The query with the highest score after the last layer."""
        return int(self.probabilities[-1, :, :-1].max(-1).argmax())

    def as_plain_values(self) -> dict[str, Any]:
        """For the browser. Attention as bytes, each map with its maximum: value = byte / 255 · maximum."""
        maxima = self.attention.max(axis=(-2, -1))
        maps = (self.attention / maxima[..., None, None] * 255).round().astype(np.uint8)
        return {
            "boxes": _floats(self.boxes),
            "probabilities": _floats(self.probabilities),
            "maps": maps.tobytes(),
            "maxima": _floats(maxima),
            "grid": list(self.attention.shape[-2:]),  # height and width
        }


def ranked(outputs: Outputs, targets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One layer's answers for many images, in the order in which COCO's evaluation goes through them.

    Returns:
        `query` and `label` (n,) uint8 of all answers, class by class, in each the surest first; `start` (n + 1,)
        uint32: answer i overlaps objects `object[start[i]:start[i + 1]]` (uint16, counted over all images) of its
        class, by `iou` (float64). All are bytes.
    """
    scores, labels = outputs["pred_logits"].float().softmax(-1)[..., :-1].max(-1)
    order = np.lexsort(
        (-scores.flatten().double().numpy(), labels.flatten().numpy())
    )  # stable: ties by place

    first = np.cumsum([0, *(len(target["labels"]) for target in targets)])
    if first[-1] > MOST_OBJECTS:
        raise ValueError(
            f"at most {MOST_OBJECTS} objects can be counted, there are {first[-1]}: take fewer images"
        )
    answers, objects, overlaps = [], [], []
    for i, target in enumerate(targets):
        iou = box_iou(*(cxcywh_to_xyxy(x.double()) for x in (outputs["pred_boxes"][i], target["boxes"])))
        meets = (iou >= LEAST_IOU) & (labels[i][:, None] == target["labels"])
        query, thing = meets.nonzero(as_tuple=True)
        answers.append(query.numpy() + i * scores.shape[1])
        objects.append(thing.numpy() + first[i])
        overlaps.append(iou[query, thing].numpy())
    answers, objects, overlaps = map(np.concatenate, (answers, objects, overlaps))

    place = np.empty_like(order)  # of each answer in the order
    place[order] = np.arange(len(order))
    by_place = place[answers].argsort(kind="stable")
    return {
        "query": (order % scores.shape[1]).astype(np.uint8).tobytes(),
        "label": labels.flatten().numpy()[order].astype(np.uint8).tobytes(),
        "start": np.searchsorted(place[answers][by_place], np.arange(len(order) + 1)).astype("<u4").tobytes(),
        "object": objects[by_place].astype("<u2").tobytes(),
        "iou": overlaps[by_place].astype("<f8").tobytes(),
    }


def spots(outputs: Outputs) -> dict[str, bytes]:
    """Every answer's box (images, queries, 4) and score (images, queries) in steps of 1/255, and its class."""
    scores, labels = outputs["pred_logits"].float().softmax(-1)[..., :-1].max(-1)
    steps = {name: _in_steps(values) for name, values in (("box", outputs["pred_boxes"]), ("score", scores))}
    return steps | {"label": labels.to(torch.uint8).numpy().tobytes()}


def objects_per_class(targets: Sequence[dict[str, Any]], classes: int) -> list[int]:
    return torch.cat([target["labels"] for target in targets]).bincount(minlength=classes).tolist()


def _in_steps(values: Tensor) -> bytes:
    return (values.float().clamp(0, 1) * 255).round().to(torch.uint8).numpy().tobytes()


def _floats(values: np.ndarray) -> bytes:
    return values.astype("<f4").tobytes()
