"""The picture that stands for a PanopticExplorer where there is no JavaScript."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from minivis.detr import Panoptic
from minivis.evaluation.draw import draw_panoptic

OVERLAY, DEEPEST = np.array([255, 218, 68]) / 255, 0.9  # as in token_grid.js
DIM = np.array([12, 14, 28, 127.5]) / 255
TITLE = dict(fontsize=9.5, loc="left")


def draw_explorer(explorer: Any) -> Image.Image:
    """What is found and what is true, and of the chosen query its attention by head and its mask. Draws a
    `PanopticExplorer` (whose module imports this one).
    """
    figure = Figure(figsize=(9, 7), dpi=100, layout="constrained")
    rows = figure.subfigures(2, 1, height_ratios=(1.6, 1))
    draw_maps(rows[0], explorer)
    if explorer.chosen is not None:
        draw_query(rows[1], explorer, explorer.chosen)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def draw_maps(figure: Any, explorer: Any) -> None:
    truth = explorer.true_segments()
    maps = {f"found, score above {explorer.score:.2f}, overlap {explorer.overlap:.2f}": explorer.merged()}
    if truth is not None:
        maps["true"] = truth
    panels = figure.subplots(1, 2)
    for panel in panels:
        panel.axis("off")
    for panel, (title, panoptic) in zip(panels, maps.items(), strict=False):
        panel.imshow(segments_on(picture_of(explorer), panoptic, explorer.class_names))
        panel.set_title(title, **TITLE)
    scene = explorer.scenes[explorer.scene]["name"]
    if truth is not None:
        here, whole = explorer.quality(explorer.scene)["PQ"], explorer.quality()["PQ"]
        scene += f": PQ {here:.2f}"
        scene += f", of all {len(explorer.scenes)} pictures {whole:.2f}" if len(explorer.scenes) > 1 else ""
    figure.suptitle(scene, fontsize=10.5, ha="left", x=0.01)


def segments_on(picture: Image.Image, panoptic: Panoptic, names: list[str]) -> Image.Image:
    height, width = panoptic.segment_ids.shape
    return draw_panoptic(picture.resize((width, height), Image.Resampling.BICUBIC), panoptic, names)


def draw_query(figure: Any, explorer: Any, query: int) -> None:
    attention, drafts = explorer.attention(query), explorer.drafts(query)
    place = explorer.answers.queries.index(query)
    name = explorer.class_names[explorer.answers.labels[place]]
    figure.suptitle(
        f"query {query}: {name} {explorer.answers.scores[place]:.2f}; its attention by head, and the mask drawn from "
        "maps averaged over cells",
        fontsize=9.5,
        ha="left",
        x=0.01,
    )
    heads, masks = figure.subfigures(1, 2, width_ratios=(1, 1))
    columns = (len(attention) + 1) // 2
    panels = heads.subplots(2, columns, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    for head, weights in enumerate(attention):
        light(panels[head], explorer, weights / attention.max(), explorer.answers.cells[0])
        panels[head].set_title(f"head {head + 1}: {100 * weights.sum():.0f} %", fontsize=8)
    for panel, (cell, shares) in zip(
        masks.subplots(1, len(drafts), squeeze=False)[0], drafts.items(), strict=True
    ):
        light(panel, explorer, shares)
        last = cell == explorer.answers.cells[-1]
        panel.set_title(f"{cell} pixels{': the mask' if last else ''}", fontsize=8)
        box(panel, explorer.answers.boxes[place])


def light(axes: Axes, explorer: Any, shares: np.ndarray, cell: int | None = None) -> None:
    """The picture, dimmed, and on it a light on each cell; the brighter, the larger its share.

    `cell`: its side in pixels of the model's picture, which the last cells may stick out of; None: that of a mask.
    """
    axes.imshow(picture_of(explorer), extent=(0, 1, 1, 0))
    axes.imshow(DIM[None, None], extent=(0, 1, 1, 0))
    paint = np.concatenate(
        [np.broadcast_to(OVERLAY, (*shares.shape, 3)), DEEPEST * shares[..., None]], axis=-1
    )
    answers = explorer.answers
    ratio = 1 if cell is None else cell / answers.cells[-1]
    down, across = (count * ratio / side for count, side in zip(shares.shape, answers.masks.shape[1:]))
    axes.imshow(paint, extent=(0, across, down, 0), interpolation="nearest")
    picture = picture_of(explorer)
    axes.set(xlim=(0, 1), ylim=(1, 0), aspect=picture.height / picture.width)
    axes.axis("off")


def box(axes: Axes, sides: np.ndarray) -> None:
    cx, cy, w, h = sides.tolist()
    axes.add_patch(
        Rectangle((cx - w / 2, cy - h / 2), w, h, fill=False, edgecolor="white", linewidth=1, linestyle="--")
    )


def picture_of(explorer: Any) -> Image.Image:
    return Image.open(io.BytesIO(explorer.scenes[explorer.scene]["picture"])).convert("RGB")
