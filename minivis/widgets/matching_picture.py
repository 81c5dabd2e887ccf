"""The picture that stands for a MatchingExplorer where there is no JavaScript: it looks as the widget does."""

import io
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

# As in shared.js and matching_explorer.js.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
LEFT_OVER = "#5a5a5a"
PARTS = ("− p(class)", "L1 distance", "− GIoU")
NUMBERED_OBJECTS = 9
FURTHER_QUERIES = 4
DEAR, CHEAP = np.array([246, 247, 249]) / 255, np.array([40, 52, 72]) / 255

WIDTH, PICTURE_LEFT, PICTURE_WIDTH, MATRIX_LEFT, MATRIX_TOP = 900, 20, 390, 440, 190  # pixels
TEXT, SMALL = dict(fontsize=9.5, color="#222"), dict(fontsize=8, color="#444")


def draw_matching(explorer: Any) -> Image.Image:
    """Draw a `MatchingExplorer` (whose module imports this one)."""
    picture = Image.open(io.BytesIO(explorer.picture))
    rows = shown_queries(explorer.cost(), explorer.matching)
    cell = (43, 26) if len(explorer.labels) <= NUMBERED_OBJECTS else (17, 18)
    height = max(60 + PICTURE_WIDTH * picture.height // picture.width, MATRIX_TOP + 12 + cell[1] * len(rows))
    width = max(WIDTH, MATRIX_LEFT + 116 + cell[0] * len(explorer.labels))
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_boxes(axes, explorer, picture, rows)
    draw_sums(axes, explorer)
    draw_matrix(axes, explorer, rows, cell)
    axes.set(xlim=(0, width), ylim=(height, 0))  # one unit is one pixel
    axes.axis("off")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return Image.open(png).convert("RGB")


def shown_queries(cost: np.ndarray, matching: list[list[int]]) -> list[int]:
    """The matched queries in the order of their objects, then the cheapest others."""
    matched = [query for query, _ in sorted(matching, key=lambda pair: pair[1])]
    cheapest = cost.min(axis=1, initial=np.inf)
    others = [query for query in cheapest.argsort(kind="stable").tolist() if query not in matched]
    return matched + others[:FURTHER_QUERIES]


def draw_boxes(axes: Axes, explorer: Any, picture: Image.Image, queries: list[int]) -> None:
    left, top = PICTURE_LEFT, 20
    size = np.array([PICTURE_WIDTH, PICTURE_WIDTH * picture.height / picture.width])
    extent = (left, left + size[0], top + size[1], top)
    axes.imshow(picture, extent=extent, interpolation="bicubic", aspect="auto")

    def frame(box: list[float], colour: str, width: float = 1.8, style: Any = "-") -> np.ndarray:
        """Draws a box; its corners: first left and top, then right and bottom."""
        centre, half = np.array(box[:2]) * size + (left, top), np.array(box[2:]) * size / 2
        for paint, line, dashes in [("white", width + 2, "-"), (colour, width, style)]:
            look = dict(fill=False, edgecolor=paint, linewidth=line, linestyle=dashes)
            axes.add_patch(Rectangle(centre - half, *(2 * half), **look))
        return np.array([centre - half, centre + half])

    object_of = dict(explorer.matching)
    for query in queries:
        if query not in object_of:
            frame(explorer.boxes[query], LEFT_OVER, 0.8)
    for query, thing in explorer.matching:
        corners = frame(explorer.boxes[query], colour_of(thing))
        draw_tag(axes, *corners[1], query, colour_of(thing), "round4")
    for thing, box in enumerate(explorer.true_boxes):
        corners = frame(box, colour_of(thing), style=(0, (3, 2)))
        draw_tag(axes, *corners[0], letter(thing), colour_of(thing), "circle")
    for query, thing in explorer.matching:
        x, y = (np.array([explorer.boxes[query][:2], explorer.true_boxes[thing][:2]]) * size + (left, top)).T
        axes.plot(x, y, color="white", linewidth=3.5)
        axes.plot(x, y, color=colour_of(thing), linewidth=1.8)
    axes.text(
        left, top + size[1] + 25, "dashed: true objects; solid: matched queries; thin: left over", **SMALL
    )


def draw_sums(axes: Axes, explorer: Any) -> None:
    """weight × value = part, added up over all pairs."""
    pairs, right = explorer.matching, MATRIX_LEFT + 400
    title = "The one matched pair" if len(pairs) == 1 else f"All {len(pairs)} matched pairs, added up"
    axes.text(MATRIX_LEFT, 32, title, **TEXT, weight="bold")
    values = sum((explorer.cost_parts()[:, query, thing] for query, thing in pairs), torch.zeros(3)).tolist()
    for line, (name, weight, value) in enumerate(zip(PARTS, explorer.weights, values)):
        words = [f"{weight:.1f} ×", f"{number(value)} =", number(weight * value)]
        axes.text(MATRIX_LEFT, 56 + 20 * line, name, **TEXT)
        for x, word in zip((right - 140, right - 65, right), words):
            axes.text(x, 56 + 20 * line, word, **TEXT, ha="right")
    axes.text(right, 118, f"cost {number(explorer.total_cost())}", **TEXT, weight="bold", ha="right")
    totals = [
        f"{method} {number(explorer.total_cost(explorer.solve(method)))}" for method in ("optimal", "greedy")
    ]
    axes.text(MATRIX_LEFT, 142, "; ".join(totals), **SMALL)


def draw_matrix(axes: Axes, explorer: Any, queries: list[int], cell: tuple[int, int]) -> None:
    """Darker is cheaper; matched cells have a frame in their object's colour."""
    cost = explorer.cost()
    if not cost.size:
        return
    depth = ((cost.max() - cost) / (np.ptp(cost) or 1))[queries] ** 1.5
    (width, height), left, has_numbers = cell, MATRIX_LEFT + 110, cost.shape[1] <= NUMBERED_OBJECTS
    xs = left + width * np.arange(cost.shape[1] + 1.0)
    ys = MATRIX_TOP + height * np.arange(len(queries) + 1.0)
    axes.imshow(
        DEAR + depth[..., None] * (CHEAP - DEAR), extent=(xs[0], xs[-1], ys[-1], ys[0]), aspect="auto"
    )
    axes.vlines(xs, ys[0], ys[-1], "white", linewidth=1.5)
    axes.hlines(ys, xs[0], xs[-1], "white", linewidth=1.5)
    for query, thing in explorer.matching:
        corner = (xs[thing] + 2, ys[queries.index(query)] + 2)
        axes.add_patch(
            Rectangle(corner, width - 4, height - 4, fill=False, edgecolor=colour_of(thing), linewidth=2)
        )

    for column, x in enumerate(xs[:-1] + width / 2):
        draw_tag(axes, x, ys[0] - (24 if has_numbers else 10), letter(column), colour_of(column), "circle")
        if has_numbers:
            axes.text(x, ys[0] - 6, explorer.class_names[explorer.labels[column]][:8], **SMALL, ha="center")
    names = [*explorer.class_names, "no object"]
    for row, (query, y) in enumerate(zip(queries, ys[:-1] + height / 2)):
        probability = explorer.probabilities[query]
        guess = f"{query}  {names[int(np.argmax(probability))]} {int(100 * max(probability))}%"
        axes.text(left - 8, y, guess, **SMALL, ha="right", va="center_baseline")
        if has_numbers:
            for x, value, dark in zip(xs[:-1] + width / 2, cost[query], depth[row] > 0.6):
                ink = {"color": "white" if dark else "black"}
                axes.text(x, y, number(value), **SMALL | ink, ha="center", va="center_baseline")


def draw_tag(axes: Axes, x: float, y: float, name: int | str, colour: str, shape: str) -> None:
    ink = "white" if colour == COLOURS[0] else "black"  # of the seven, only blue is dark
    box = dict(boxstyle=f"{shape},pad=0.25", facecolor=colour, edgecolor="white")
    axes.text(x, y, str(name), fontsize=7.5, color=ink, weight="bold", ha="center", va="center", bbox=box)


def colour_of(thing: int) -> str:
    """Of a true object and of the query that is matched to it."""
    return COLOURS[thing % len(COLOURS)]


def letter(index: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def number(value: float) -> str:
    return f"{value:z.2f}".replace("-", "−")
