"""The picture that stands for an AttentionExplorer where there is no JavaScript: it looks as the widget does."""

import io
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

# As in token_grid.js.
OVERLAY, DEEPEST, DIM = np.array([255, 218, 68]) / 255, 0.9, np.array([12, 14, 28, 127.5]) / 255
FROM, ACROSS = "#56B4E9", 3  # the frame of the cell one looks from; maps in a row

WIDTH, PICTURE_WIDTH, TILE_LEFT = 900, 400, 430  # pixels
GAP, LINE = 14, 20  # between maps; of text
TEXT, SMALL = dict(fontsize=9.5, color="#222"), dict(fontsize=8, color="#444")


def draw_attention(explorer: Any) -> Image.Image:
    """Draw an `AttentionExplorer` (whose module imports this one)."""
    height, width = explorer.size
    heads = [-1, *range(explorer.shape[1])]
    tile = (WIDTH - TILE_LEFT - 10 - (ACROSS - 1) * GAP) / ACROSS
    tile_height, picture_height = tile * height / width, PICTURE_WIDTH * height / width
    rows = math.ceil(len(heads) / ACROSS)
    total = round(max(picture_height + 60, rows * (tile_height + 2 * LINE)) + 40)
    figure = Figure(figsize=(WIDTH / 100, total / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(total, 0))
    axes.axis("off")

    area = (10, 30, PICTURE_WIDTH, picture_height)
    layer = explorer.layer_names[explorer.layer]
    laid = "mean of all heads" if explorer.head == -1 else f"head {explorer.head + 1}"
    axes.text(10, 20, f"layer {layer}, {laid}", **TEXT, weight="bold")
    draw_overlay(axes, explorer, area)
    axes.text(10, picture_height + 52, "framed: where one looks from; yellow: where to", **SMALL)
    if any(explorer.padding):
        axes.text(10, picture_height + 70, "hatched: padding, where nobody looks", **SMALL)
    for index, head in enumerate(heads):
        row, column = divmod(index, ACROSS)
        left, top = TILE_LEFT + column * (tile + GAP), 30 + row * (tile_height + 2 * LINE)
        weights = explorer.attention(head=head)
        axes.text(left, top - 6, "mean" if head == -1 else f"head {head + 1}", **TEXT, weight="bold")
        draw_map(axes, explorer, cells_of(explorer, weights), (left, top, tile, tile_height))
        axes.text(left, top + tile_height + 13, numbers(explorer, weights), **SMALL)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def cells_of(explorer: Any, weights: np.ndarray) -> np.ndarray:
    """Weights of the cells, rows by columns."""
    return weights[len(explorer.extra_tokens) :].reshape(explorer.grid)


def numbers(explorer: Any, weights: np.ndarray) -> str:
    from minivis.widgets.attention_explorer import spread

    own = explorer.own_box()
    words = f"{spread(weights):.1f} cells"
    return words if own is None else f"{words}   {100 * explorer.share_inside(weights, own):.0f} % own"


def draw_overlay(axes: Axes, explorer: Any, area: tuple[float, float, float, float]) -> None:
    picture = Image.open(io.BytesIO(explorer.picture))
    left, top, width, height = area
    whole = (left, left + width, top + height, top)
    axes.imshow(picture, extent=whole, interpolation="bicubic", aspect="auto")
    axes.add_patch(Rectangle((left, top), width, height, color=DIM[:3], alpha=DIM[3], linewidth=0))
    cells = cells_of(explorer, explorer.attention())
    for (row, column), weight in np.ndenumerate(cells / (cells.max() or 1)):
        if weight > 0:
            corner, *sides = on_page(explorer, row, column, area)
            axes.add_patch(Rectangle(corner, *sides, color=OVERLAY, alpha=DEEPEST * weight, linewidth=0))
    hatch(axes, explorer, area)
    for box in explorer.boxes:
        x0, y0, x1, y1 = (
            np.array(box).reshape(2, 2) / explorer.size[::-1] * (width, height) + (left, top)
        ).ravel()
        look = dict(fill=False, edgecolor="white", linewidth=1.2, linestyle=(0, (4, 3)))
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **look))
    frame_cell(axes, explorer, area, FROM, 2.2)


def draw_map(axes: Axes, explorer: Any, cells: np.ndarray, area: tuple[float, float, float, float]) -> None:
    left, top, width, height = area
    reach = np.array(cells.shape) * explorer.stride / explorer.size  # of the grid, in pictures
    box = (left, left + width * reach[1], top + height * reach[0], top)
    window = Rectangle((left, top), width, height, transform=axes.transData)
    axes.imshow(cells, extent=box, cmap="viridis", vmin=0, aspect="auto").set_clip_path(window)
    hatch(axes, explorer, area)
    frame_cell(axes, explorer, area, "white", 1)


def frame_cell(axes: Axes, explorer: Any, area: tuple, colour: str, line: float) -> None:
    if explorer.cell is not None:
        corner, *sides = on_page(explorer, *divmod(explorer.cell, explorer.grid[1]), area)
        axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor="black", linewidth=line + 1.4))
        axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=line))


def hatch(axes: Axes, explorer: Any, area: tuple[float, float, float, float]) -> None:
    for cell in np.flatnonzero(explorer.padding):
        corner, *sides = on_page(explorer, *divmod(int(cell), explorer.grid[1]), area)
        axes.add_patch(
            Rectangle(corner, *sides, facecolor="#bdbdbd", edgecolor="#6b6b6b", hatch="////", linewidth=0)
        )


def on_page(explorer: Any, row: int, column: int, area: tuple) -> tuple[tuple[float, float], float, float]:
    """A cell's corner, width and height on the page, as far as the picture goes."""
    left, top, width, height = area
    rows, columns = (np.minimum(np.array([i, i + 1]) * explorer.stride, side) / side
                     for i, side in zip((row, column), explorer.size))  # fmt: skip
    (x0, x1), (y0, y1) = left + columns * width, top + rows * height
    return (x0, y0), x1 - x0, y1 - y0
