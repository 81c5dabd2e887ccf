"""The picture that stands for a DetectionExplorer where there is no JavaScript: it looks as the widget does."""

import io
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from minivis.boxes import cxcywh_to_xyxy
from minivis.widgets.named_boxes import draw_box

# As in shared.js and detection_explorer.js: a colour for each class.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
BELOW = "#BBBBBB"


def colour_of(label: int) -> str:
    return COLOURS[label % len(COLOURS)]


def draw_answers(explorer: Any) -> Image.Image:
    """Draw a `DetectionExplorer` (whose module imports this one)."""
    figure = Figure(figsize=(9, 4.3), dpi=100)
    left, right = figure.add_axes((0.02, 0.09, 0.43, 0.86)), figure.add_axes((0.54, 0.2, 0.44, 0.7))
    draw_boxes(left, explorer)
    draw_scores(right, explorer)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def draw_boxes(axes: Axes, explorer: Any) -> None:
    picture = Image.open(io.BytesIO(explorer.pictures[explorer.index]))
    axes.imshow(picture, extent=(0, picture.width, picture.height, 0), interpolation="bicubic")
    axes.set_axis_off()

    size = torch.tensor([picture.width, picture.height] * 2)
    for box in explorer.true_boxes[explorer.index]:
        corners = size * cxcywh_to_xyxy(torch.tensor(box))
        draw_box(axes, corners.tolist(), "black", style=(0, (3, 2)))
    guesses = explorer.guesses()
    for query in reversed(explorer.found):  # the surest is drawn last
        score, label = guesses[query]
        corners = size * cxcywh_to_xyxy(torch.tensor(explorer.boxes[explorer.index][query]))
        words = f"{explorer.class_names[label]} {score:.2f}"
        ink = "white" if label % len(COLOURS) == 0 else "black"
        draw_box(axes, corners.tolist(), colour_of(label), words, ink=ink)
    if explorer.has_truth:
        axes.text(0, 1.06 * picture.height, "dashed: true objects", fontsize=8, color="#444")


def draw_scores(axes: Axes, explorer: Any) -> None:
    """A bar for each query, the surest first; the dashed line is the threshold."""
    guesses = sorted(explorer.guesses(), key=lambda guess: -guess[0])
    colours = [colour_of(label) if score >= explorer.threshold else BELOW for score, label in guesses]
    axes.bar(range(len(guesses)), [score for score, _ in guesses], color=colours)
    axes.axhline(explorer.threshold, color="black", linestyle="--", linewidth=1)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([])
    axes.set_xlabel(f"{len(guesses)} queries, the surest first", fontsize=9)
    axes.set_title(f"{len(explorer.found)} are surer than {explorer.threshold:.2f}", fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
