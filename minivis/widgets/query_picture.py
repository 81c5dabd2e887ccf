"""The picture that stands for a QueryExplorer where there is no JavaScript."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

OVERLAY, DEEPEST, DIM = (
    np.array([255, 218, 68]) / 255,
    0.9,
    np.array([12, 14, 28, 127.5]) / 255,
)  # as in the browser
COLOURS = [
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
    "#000000",
]  # of classes
UNSURE = "#b9bcc6"
CHOSEN, SURE = "#56B4E9", 0.5
TITLE = dict(fontsize=9.5, loc="left")


def draw_query(explorer: Any) -> Image.Image:
    """The chosen query after every decoder layer, and its answers on all scenes. Draws a `QueryExplorer`."""
    layers = len(explorer.shown.boxes)
    figure = Figure(figsize=(9, 9 / (layers + 1) + 0.75), dpi=100, layout="constrained")
    axes = figure.subplots(1, layers + 1)
    for layer, panel in enumerate(axes[:-1], start=1):
        draw_layer(panel, explorer, layer)
        panel.set_title(f"layer {layer}: {explorer.says(layer)}", **TITLE)
        inside, ap = 100 * explorer.share_inside(layer), explorer.average_precision(layer)
        panel.set_xlabel(
            f"{inside:.0f} % of attention in its box\nAP of all kept queries {ap:.2f}", fontsize=8.5
        )
    draw_answers(axes[-1], explorer)
    figure.suptitle(
        f"{explorer.scenes[explorer.scene]['name']}, query {explorer.query}", fontsize=10, ha="left", x=0.01
    )
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def draw_layer(axes: Axes, explorer: Any, layer: int) -> None:
    """The picture, the attention laid over it, and all boxes that somebody is sure of."""
    shown, attention = explorer.shown, explorer.attention(layer)
    axes.imshow(Image.open(io.BytesIO(explorer.scenes[explorer.scene]["picture"])), extent=(0, 1, 1, 0))
    axes.imshow(DIM[None, None], extent=(0, 1, 1, 0))
    alpha = DEEPEST * attention / attention.max()
    light = np.concatenate([np.broadcast_to(OVERLAY, (*alpha.shape, 3)), alpha[..., None]], axis=-1)
    axes.imshow(light, extent=(0, 1, 1, 0), interpolation="nearest")
    for query, row in enumerate(shown.probabilities[layer - 1]):
        if query not in explorer.dropped and query != explorer.query and row[:-1].max() >= SURE:
            draw_box(axes, shown.boxes[layer - 1, query], "white", 1)
    draw_box(axes, shown.boxes[layer - 1, explorer.query], CHOSEN, 2.2)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")


def draw_box(axes: Axes, box: np.ndarray, colour: str, width: float) -> None:
    cx, cy, w, h = box.tolist()
    for paint, line in (("black", width + 1.2), (colour, width)):
        look = dict(fill=False, edgecolor=paint, linewidth=line)
        axes.add_patch(Rectangle((cx - w / 2, cy - h / 2), w, h, **look))


def draw_answers(axes: Axes, explorer: Any) -> None:
    """A dot for each scene, at the middle of the query's box, the surest on top."""
    boxes, scores, labels = explorer.spots_of(explorer.query)
    order, sure = scores.argsort(kind="stable"), scores >= SURE
    colours = np.where(sure, np.take(COLOURS, labels % len(COLOURS)), UNSURE)[order]
    axes.scatter(*boxes[order, :2].T, s=np.where(sure, 10, 3)[order], c=colours.tolist(), linewidths=0)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal", facecolor="#f6f6f6")
    axes.set_title(f"its boxes' middles, {len(scores)} scenes", **TITLE)
    axes.set_xlabel("coloured by class: sure of an object", fontsize=8.5)
