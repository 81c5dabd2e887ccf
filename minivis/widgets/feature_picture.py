"""The picture that stands for a FeatureExplorer where there is no JavaScript: it looks as the widget does."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

# As in the browser: the field's colour, and how dark what does not move the cell becomes.
SEEN, DIMMED = "#E69F00", 0.6
RANKINGS = {"highest": "highest value", "stands out": "how far they stand out"}
SMALL = dict(fontsize=8.5, color="#333")


def draw_features(explorer: Any) -> Image.Image:
    """Draw a `FeatureExplorer` (whose module imports this one)."""
    figure = Figure(figsize=(9, 4.5), dpi=100)
    picture = figure.add_axes((0.02, 0.1, 0.46, 0.84))
    draw_cell(picture, explorer)
    stage = explorer.stage
    (row, column), values = explorer.cell, explorer.values()
    lines = [
        f"stride {stage['stride']}: {stage['height']} × {stage['width']} cells of {len(stage['maxima'])} channels",
        f"cell in row {row}, column {column}; its field {stage['field']} × {stage['field']} pixels",
        f"its channels by {RANKINGS[explorer.ranking]}:",
    ]
    for i, line in enumerate(lines):
        figure.text(0.52, 0.93 - 0.055 * i, line, **SMALL)
    for i, channel in enumerate(explorer.top_channels()):
        axes = figure.add_axes((0.52 + 0.118 * (i % 4), 0.46 - 0.3 * (i // 4), 0.11, 0.22))
        axes.imshow(values[channel], cmap="viridis", vmin=0, interpolation="nearest")
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1.5)
        )
        axes.set_title(f"{channel}: {values[channel, row, column]:.1f}", fontsize=8.5, pad=3)
        axes.set_axis_off()
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def draw_cell(axes: Axes, explorer: Any) -> None:
    """The picture, dimmed where nothing moves the cell; the grid, the cell's own patch and its receptive field."""
    height, width = explorer.size
    extent = (0, width, height, 0)
    axes.imshow(Image.open(io.BytesIO(explorer.picture)), extent=extent, interpolation="nearest")
    stage, field, window = explorer.stage, explorer.field(), explorer.window()
    if field is None:  # not measured: what the convolutions reach
        y, x = np.mgrid[:height, :width]
        field = ((x >= window[0]) & (x < window[2]) & (y >= window[1]) & (y < window[3])).astype(float)
    dim = np.zeros((*field.shape, 4))
    dim[..., 3] = DIMMED * (1 - np.sqrt(field))
    axes.imshow(dim, extent=extent, interpolation="bilinear")

    stride = stage["stride"]
    lines = dict(colors="white", linewidth=0.4, alpha=0.6)
    axes.vlines(np.arange(stride, width, stride), 0, height, **lines)
    axes.hlines(np.arange(stride, height, stride), 0, width, **lines)
    row, column = explorer.cell
    draw_frame(axes, (column * stride, row * stride, (column + 1) * stride, (row + 1) * stride), "white", "-")
    clipped = (max(window[0], 0), max(window[1], 0), min(window[2], width), min(window[3], height))
    draw_frame(axes, clipped, SEEN, (0, (4, 2)))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    dim_is = "out of its reach (what moves it: not measured)" if stage["moved"] is None else "moves it less"
    note = f"white: the cell's patch; dashed: receptive field; dim: {dim_is}"
    axes.text(0, -0.03, note, transform=axes.transAxes, va="top", **SMALL)


def draw_frame(axes: Axes, box: tuple[float, float, float, float], colour: str, style: Any) -> None:
    left, top, right, bottom = box
    for paint, line, dashes in (("black", 3.2, "-"), (colour, 1.6, style)):
        look = dict(fill=False, edgecolor=paint, linewidth=line, linestyle=dashes, clip_on=False)
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, **look))
