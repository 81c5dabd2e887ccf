"""PrecisionRecallExplorer: which detections are right, and what average precision makes of them."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import traitlets
from PIL import Image
from torch import Tensor
from torchvision.ops import batched_nms

from minivis.boxes import cxcywh_to_xyxy
from minivis.detr import postprocess
from minivis.detr.targets import explain_broken_targets, pad_targets
from minivis.evaluation.precision_recall import (
    IOU_THRESHOLDS,
    ImageDetections,
    match_detections,
    mean_average_precision,
)
from minivis.widgets.base import Widget
from minivis.widgets.precision_recall_picture import draw_explorer

ALL_CLASSES = -1
NMS_IOU = 0.7  # as in the paper's figure on duplicates
LONGEST_SIDE = 384  # pixels; the widget shows no picture larger


class PrecisionRecallExplorer(Widget):
    """Pictures with right, wrong and missed boxes, beside the curve of precision over recall, to be played with.

    In the browser one moves the thresholds, and boxes, counts, curve and AP follow in the same frame. What was chosen
    is in `score`, `iou`, `source` (which predictions), `suppress` (non-maximum suppression), `label` (a class, or −1
    for all) and `shown` (the picture); all of them can be set from Python as well.

        explorer = PrecisionRecallExplorer(pictures, {"last layer": outputs}, targets, model.class_names)
        explorer.iou = 0.75
        explorer.counts()
    """

    parts = ("average_precision.js", "judged_boxes.js", "precision_recall_chart.js")

    pictures = traitlets.List().tag(sync=True)  # PNG or JPEG, as bytes
    class_names = traitlets.List().tag(sync=True)
    truths = traitlets.List().tag(
        sync=True
    )  # of each picture {labels, boxes}; boxes are corners, as fractions
    predictions = traitlets.Dict().tag(
        sync=True
    )  # source → of each picture {labels, scores, boxes}, surest first
    source = traitlets.Unicode().tag(sync=True)
    suppress = traitlets.Bool(False).tag(sync=True)
    score = traitlets.Float(0.5, min=0, max=1).tag(sync=True)
    iou = traitlets.Float(0.5).tag(sync=True)
    label = traitlets.Int(ALL_CLASSES).tag(sync=True)
    shown = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        pictures: Sequence[Image.Image],
        sources: Mapping[str, dict[str, Any]],
        targets: Sequence[dict[str, Any]],
        class_names: Sequence[str],
        shown: int = 0,
    ):
        """A widget for some pictures.

        Args:
            pictures: what the boxes lie on.
            sources: name → DETR's `pred_logits` (B, Q, K + 1) and `pred_boxes` (B, Q, 4) for these pictures. The last
                one is shown at first.
            targets: for each picture `labels` (N,) int64 and `boxes` (N, 4) as (cx, cy, w, h) in 0..1.
            class_names: the names of the K classes.
            shown: the picture that is seen at first.

        Raises:
            ValueError: if pictures, predictions, targets and classes do not fit together.
        """
        if not pictures or not sources:
            raise ValueError("expected at least one picture and one source of predictions")
        if len(pictures) != len(targets):
            raise ValueError(f"{len(pictures)} pictures, but {len(targets)} targets")
        pad_targets(list(targets), len(class_names), torch.device("cpu"))  # raises where shapes do not fit
        explain_broken_targets(list(targets), len(class_names))
        super().__init__(
            pictures=[_encoded(picture) for picture in pictures],
            class_names=list(class_names),
            truths=[
                {
                    "labels": target["labels"].tolist(),
                    "boxes": _rounded(cxcywh_to_xyxy(target["boxes"].cpu())),
                }
                for target in targets
            ],
            predictions={
                name: _detections(name, outputs, len(pictures), len(class_names))
                for name, outputs in sources.items()
            },
            source=list(sources)[-1],
            shown=shown,
        )

    @traitlets.validate("source", "label", "shown", "iou")
    def _check_choice(self, proposal: dict[str, Any]) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        allowed: Sequence[Any] = {
            "source": list(self.predictions),
            "label": range(ALL_CLASSES, len(self.class_names)),
            "shown": range(len(self.pictures)),
            "iou": IOU_THRESHOLDS,
        }[name]
        nearest = next((each for each in allowed if each == value), None)
        if name == "iou":  # a slider's 0.65 may be another float
            nearest = next((each for each in allowed if math.isclose(each, value, abs_tol=1e-6)), None)
        if nearest is None:
            raise ValueError(f"{name}: expected one of {', '.join(map(str, allowed))}; got {value!r}")
        return nearest

    def images(self) -> list[ImageDetections]:
        """What is judged: the chosen predictions, after suppression if that is switched on."""
        return [
            ImageDetections(
                _suppressed(_tensors(found)) if self.suppress else _tensors(found), _tensors(truth)
            )
            for found, truth in zip(self.predictions[self.source], self.truths)
        ]

    def wanted(self) -> list[int]:
        """The classes that count."""
        return list(range(len(self.class_names))) if self.label == ALL_CLASSES else [self.label]

    def counts(self, image: int | None = None) -> dict[str, int]:
        """`right`, `wrong` and `missed` of the wanted classes at both thresholds, in one picture or in all."""
        wanted, right, found, objects = self.wanted(), 0, 0, 0
        for each in self.images() if image is None else [self.images()[image]]:
            objects += sum(label in wanted for label in each.truth["labels"].tolist())
            judged = zip(
                match_detections(each, self.iou), each.found["labels"].tolist(), each.found["scores"].tolist()
            )
            counted = [partner for partner, label, score in judged if label in wanted and score >= self.score]
            found += len(counted)
            right += sum(partner >= 0 for partner in counted)
        return {"right": right, "wrong": found - right, "missed": objects - right}

    def average_precision(self, ious: Sequence[float] = IOU_THRESHOLDS) -> float:
        """Over the wanted classes."""
        return mean_average_precision(self.images(), ious, self.wanted())

    def describe(self) -> str:
        counts, which = (
            self.counts(),
            "all classes" if self.label == ALL_CLASSES else self.class_names[self.label],
        )
        right, found = counts["right"], counts["right"] + counts["wrong"]
        objects = right + counts["missed"]
        return (
            f"Detections in {len(self.pictures)} picture{'s' * (len(self.pictures) > 1)} ({self.source}"
            f"{', after NMS' * self.suppress}; {which}), score at least {self.score:.2f}, IoU at least {self.iou:.2f}: "
            f"{right} right, {counts['wrong']} wrong, {counts['missed']} missed; precision {_share(right, found)}, "
            f"recall {_share(right, objects)}. AP at this IoU {self.average_precision([self.iou]):.2f}, AP over ten "
            f"thresholds {self.average_precision():.2f}."
        )

    def draw(self) -> Image.Image:
        return draw_explorer(self)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "–"


def _detections(name: str, outputs: dict[str, Any], images: int, classes: int) -> list[dict[str, Any]]:
    """DETR's outputs as lists, boxes as corners in fractions of the picture."""
    logits, boxes = outputs["pred_logits"].detach(), outputs["pred_boxes"].detach()
    if logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4) or len(logits) != images:
        raise ValueError(
            f"{name}: expected pred_logits ({images}, queries, {classes + 1}) and pred_boxes ({images}, queries, 4), "
            f"got {tuple(logits.shape)} and {tuple(boxes.shape)}"
        )
    if logits.shape[2] != classes + 1:
        raise ValueError(
            f"{name}: expected pred_logits of {classes + 1} columns ({classes} class names and 'no object'), "
            f"got {logits.shape[2]}"
        )
    if not (logits.isfinite().all() and boxes.isfinite().all()):
        raise ValueError(f"{name}: the predictions are not finite")
    return [
        {
            "labels": found["labels"].tolist(),
            "scores": [round(score, 5) for score in found["scores"].tolist()],
            "boxes": _rounded(found["boxes"].cpu()),
        }
        for found in postprocess(outputs, [(1, 1)] * images)
    ]


def _tensors(lists: dict[str, Any]) -> dict[str, Tensor]:
    tensors = {
        "labels": torch.tensor(lists["labels"], dtype=torch.int64),
        "boxes": torch.tensor(lists["boxes"], dtype=torch.float64).reshape(-1, 4),
    }
    if "scores" in lists:
        tensors["scores"] = torch.tensor(lists["scores"], dtype=torch.float64)
    return tensors


def _suppressed(found: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = batched_nms(found["boxes"], found["scores"], found["labels"], NMS_IOU)
    return {name: values[kept] for name, values in found.items()}


def _rounded(boxes: Tensor) -> list[list[float]]:
    return [[round(value, 5) for value in box] for box in boxes.tolist()]


def _encoded(picture: Image.Image) -> bytes:
    picture = picture.convert("RGB")
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    data = io.BytesIO()
    picture.save(data, format="jpeg", quality=90)  # a photograph as PNG would be ten times as large
    return data.getvalue()
