"""The picture that stands for a PrecisionRecallExplorer where there is no JavaScript: it looks as the widget does."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from minivis.evaluation.precision_recall import (
    IOU_THRESHOLDS,
    RECALLS,
    at_recalls,
    match_detections,
    precision_recall,
)
from minivis.widgets.named_boxes import draw_box

# As in judged_boxes.js.
RIGHT, WRONG, MISSED, CURVE = "#0072B2", "#D55E00", "#E69F00", "#0072B2"
NAMED = 0.05


def draw_explorer(explorer: Any) -> Image.Image:
    """Draw a `PrecisionRecallExplorer` (whose module imports this one)."""
    figure = Figure(figsize=(9, 4.2), dpi=100, layout="constrained")
    picture, curve, bars = figure.subplots(1, 3, width_ratios=(1.25, 1.25, 0.8))
    draw_boxes(picture, explorer)
    draw_curve(curve, explorer)
    draw_bars(bars, explorer)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def draw_boxes(axes: Axes, explorer: Any) -> None:
    """Right and wrong detections above the score, and what they missed."""
    picture = Image.open(io.BytesIO(explorer.pictures[explorer.shown]))
    axes.imshow(picture, extent=(0, 1, 1, 0), aspect=picture.height / picture.width)
    image, wanted = explorer.images()[explorer.shown], explorer.wanted()
    partners = match_detections(image, explorer.iou)
    shown = [
        i
        for i, (score, label) in enumerate(
            zip(image.found["scores"].tolist(), image.found["labels"].tolist())
        )
        if score >= explorer.score and label in wanted
    ]
    found = {partners[i] for i in shown}
    for number, (label, box) in enumerate(zip(image.truth["labels"].tolist(), image.truth["boxes"].tolist())):
        if label in wanted and number not in found:
            draw_box(axes, box, MISSED, "missed", style=(0, (3, 2)), below=True)
    for i in reversed(shown):  # the surest on top
        mark, colour = ("✓", RIGHT) if partners[i] >= 0 else ("✗", WRONG)
        name = explorer.class_names[int(image.found["labels"][i])]
        score = image.found["scores"][i].item()
        text = f"{mark} {name} {score:.2f}" if score >= NAMED else ""
        draw_box(axes, image.found["boxes"][i].tolist(), colour, text, ink="white")
    counts = explorer.counts(explorer.shown)
    axes.set_title(", ".join(f"{number} {what}" for what, number in counts.items()), fontsize=10)
    axes.axis("off")


def draw_curve(axes: Axes, explorer: Any) -> None:
    """The mean over classes of the precision left at each recall; on the pooled curve the score threshold."""
    images, curves = explorer.images(), []
    present = {label for image in images for label in image.truth["labels"].tolist()}
    for label in sorted(present.intersection(explorer.wanted())):
        curves.append(at_recalls(precision_recall(images, label, explorer.iou)))
    if curves:
        mean = np.mean(curves, axis=0)
        for each in curves if len(curves) > 1 else []:
            axes.plot(RECALLS, each, color="#999999", linewidth=0.7)
        axes.plot(RECALLS, mean, color=CURVE, linewidth=2)
        axes.fill_between(RECALLS, mean, color=CURVE, alpha=0.15)
    recall, precision = pooled_curve(explorer)
    axes.plot(recall, precision, color=WRONG, linewidth=0.8)
    counts = explorer.counts()
    found, objects = counts["right"] + counts["wrong"], counts["right"] + counts["missed"]
    if found and objects:
        axes.plot(counts["right"] / objects, counts["right"] / found, "o", color="black", markersize=7)
    axes.set(xlim=(0, 1.03), ylim=(0, 1.05), xlabel="recall", ylabel="precision")
    axes.set_title(f"IoU at least {explorer.iou:.2f}", fontsize=10)


def pooled_curve(explorer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of the wanted classes' detections in one list, the surest first."""
    wanted, scores, right, objects = explorer.wanted(), [], [], 0
    for image in explorer.images():
        objects += sum(label in wanted for label in image.truth["labels"].tolist())
        judged = zip(
            match_detections(image, explorer.iou),
            image.found["labels"].tolist(),
            image.found["scores"].tolist(),
        )
        for partner, label, score in judged:
            if label in wanted:
                scores.append(score)
                right.append(partner >= 0)
    hits = np.array(right, dtype=float)[np.argsort(-np.array(scores), kind="stable")].cumsum()
    return hits / max(objects, 1), hits / np.arange(1, len(hits) + 1)


def draw_bars(axes: Axes, explorer: Any) -> None:
    values = [explorer.average_precision([iou]) for iou in IOU_THRESHOLDS]
    colours = [CURVE if iou == explorer.iou else "#B3CFE0" for iou in IOU_THRESHOLDS]
    axes.barh(range(len(values)), np.nan_to_num(values), color=colours)
    axes.set_yticks(range(len(values)), [f"{iou:.2f}" for iou in IOU_THRESHOLDS], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="AP at this IoU")
    axes.set_title(f"AP, their mean: {explorer.average_precision():.2f}", fontsize=10)
