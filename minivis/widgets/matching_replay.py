"""`MatchingReplay`: which query owns which object, step by step of a recorded training."""

import base64
import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from minivis.widgets.base import Widget
from minivis.widgets.matching_recorder import GREY, NOBODY, ImageHistory, MatchingHistory, MatchingRecorder

__all__ = ["MatchingHistory", "MatchingRecorder", "MatchingReplay"]

LARGEST = 800  # pixels of a picture that the browser gets: twice what it shows, for sharp screens
INK = "#666666"  # of what belongs to no query


class MatchingReplay(Widget):
    """Replays a recorded training: the boxes that own the objects, and a timeline of who owned what.

    Args:
        record: a `MatchingRecorder`, or its history.
        image: which of the recorded images is seen first.
    """

    parts = ("owned_boxes.js", "owner_timeline.js")

    step_index = traitlets.Int(0, help="which record is seen, from 0").tag(sync=True)
    image = traitlets.Int(0, help="which image is seen, from 0").tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    speed = traitlets.Int(8, min=1, help="records a second").tag(sync=True)
    record = traitlets.Dict(help="the history, as the browser reads it").tag(sync=True)

    def __init__(self, record: MatchingRecorder | MatchingHistory, image: int = 0, **traits: Any) -> None:
        self.history = record.history if isinstance(record, MatchingRecorder) else record
        super().__init__(record=as_plain_values(self.history), image=image, **traits)

    @traitlets.validate("step_index", "image")
    def _in_range(self, proposal: dict[str, Any]) -> int:
        name = proposal["trait"].name
        count = len(self.history.steps if name == "step_index" else self.history.images)
        if not 0 <= proposal["value"] < count:
            raise traitlets.TraitError(f"{name} is {proposal['value']}; expected 0 to {count - 1}")
        return proposal["value"]

    def describe(self) -> str:
        steps, image = self.history.steps, self.history.images[self.image]
        objects = ", ".join(f"{i} {name}" for i, name in enumerate(image.names, start=1))
        return (
            f"Replay of a training, step {steps[0]} to {steps[-1]} in {len(steps)} records, now at step "
            f"{steps[self.step_index]}. Image {self.image + 1} of {len(self.history.images)}: a line joins each object "
            f"({objects}) to the box of the one query out of {image.boxes.shape[1]} that owns it. Below, time runs to "
            "the right: the owner of each object, how many objects changed owner, and the cost of the matching."
        )

    def draw(self) -> Image.Image:
        history, image, index = self.history, self.history.images[self.image], self.step_index
        records, rows = range(len(history.steps)), len(image.names)
        figure = Figure(figsize=(9, 5.4 + 0.24 * rows), dpi=100, layout="constrained")
        heights = (3.6, 0.24 * rows + 0.3, 0.6, 0.7)
        axes = figure.subplot_mosaic("ps;oo;nn;cc", height_ratios=heights, width_ratios=(1, 1.3))
        draw_picture(axes["p"], image, index)
        draw_table(axes["s"], image, index)
        axes["s"].set_title(f"step {history.steps[index]}", fontsize=11, loc="left")
        draw_owners(axes["o"], image)
        axes["n"].bar(records, image.changed, width=0.9, color=INK)
        axes["n"].set_yticks([0, rows])
        axes["c"].plot(records, image.cost, color=INK)
        axes["c"].set_xlabel("training step", fontsize=9)
        ticks = roomy_ticks(history.steps, least=len(records) / 16)
        titles = {
            "o": "Who owns each object, record by record (the number is the query).",
            "n": "How many objects changed owner since the record before",
            "c": "Total cost of the matching",
        }
        for name, title in titles.items():
            axes[name].set_title(title, fontsize=9, loc="left")
            axes[name].set_xlim(-0.5, len(records) - 0.5)
            axes[name].set_xticks(ticks, [history.steps[i] for i in ticks] if name == "c" else [])
            axes[name].axvline(index, color="black", linewidth=1)
            axes[name].tick_params(labelsize=8)
            axes[name].spines[:].set_visible(False)
        png = io.BytesIO()
        figure.savefig(png, format="png")
        return Image.open(png)


def as_plain_values(history: MatchingHistory) -> dict[str, Any]:
    """The history as JSON and bytes, with what follows from it, so that the browser has only to show it."""
    images = []
    for image in history.images:
        picture = image.picture.convert("RGB")
        picture.thumbnail((LARGEST, LARGEST))
        png = io.BytesIO()
        picture.save(png, format="png", optimize=True)
        images.append(
            {
                "picture": "data:image/png;base64," + base64.b64encode(png.getvalue()).decode(),
                "size": list(image.picture.size),
                "names": list(image.names),
                "true_boxes": image.true_boxes.tolist(),
                "queries": image.boxes.shape[1],
                "boxes": image.boxes.astype("<f4").tobytes(),
                "owners": image.owners.tolist(),
                "probability": image.probability.tolist(),
                "cost": image.cost.tolist(),
                "changed": image.changed.tolist(),
                "colours": {str(query): colour for query, colour in image.colours.items()},
            }
        )
    steps = list(history.steps)
    return {"steps": steps, "losses": list(history.losses), "images": images, "tick_order": tick_order(steps)}


def tick_order(steps: Sequence[int]) -> list[int]:
    """Which records an axis should name, the most welcome first: both ends, then the roundest steps."""
    zeros = [len(str(step)) - len(str(step).rstrip("0")) for step in steps]
    inner = sorted(range(1, len(steps) - 1), key=lambda i: (-zeros[i], i))
    return list(dict.fromkeys([0, len(steps) - 1, *inner]))


def roomy_ticks(steps: Sequence[int], least: float) -> list[int]:
    """Those of them that lie `least` records apart."""
    chosen: list[int] = []
    for i in tick_order(steps):
        if all(abs(i - other) >= least for other in chosen):
            chosen.append(i)
    return sorted(chosen)


# The picture for places without JavaScript


def draw_picture(axes: Axes, image: ImageHistory, index: int) -> None:
    """True boxes, dashed; the boxes of their owners, joined to them; and faintly all others."""
    width, height = image.picture.size
    axes.imshow(image.picture, extent=(0, 1, 1, 0), aspect=height / width, interpolation="bilinear")
    axes.set_axis_off()
    boxes = image.boxes[index]
    for box in boxes:
        axes.add_patch(outline(box, edgecolor="white", linewidth=0.6, alpha=0.5))
    for i, (query, true_box) in enumerate(zip(image.owners[index].tolist(), image.true_boxes), start=1):
        axes.add_patch(outline(true_box, edgecolor="black", linewidth=1.6))
        axes.add_patch(outline(true_box, edgecolor="white", linewidth=1.6, linestyle=(0, (3, 3))))
        colour = image.colours.get(query, GREY)
        if query != NOBODY:
            axes.add_patch(outline(boxes[query], edgecolor=colour, linewidth=2.2))
            ends = np.stack([true_box, boxes[query]]).reshape(2, 2, 2).mean(axis=1)  # the two centres
            axes.plot(*ends.T, color=colour, linewidth=2, marker="o", markersize=4, markevery=[0])
        owner = "–" if query == NOBODY else f"q{query}"
        axes.text(*true_box[:2], f"{i}: {owner}", fontsize=8, va="bottom", **on_colour(colour))
    axes.set(xlim=(0, 1), ylim=(1, 0))


def draw_table(axes: Axes, image: ImageHistory, index: int) -> None:
    axes.set_axis_off()
    owners = image.owners[index].tolist()
    for i, (name, query, p) in enumerate(zip(image.names, owners, image.probability[index])):
        y = 0.9 - i * min(0.1, 0.9 / len(owners))
        style = {"fontsize": 9, "va": "center"}
        owner = "no query" if query == NOBODY else f"query {query}"
        axes.text(0.02, y, f"{i + 1} {name}", **style)
        axes.text(0.4, y, owner, **style, **on_colour(image.colours.get(query, GREY)))
        axes.text(0.7, y, f"p({name}) = {p:.2f}", **style)


def draw_owners(axes: Axes, image: ImageHistory) -> None:
    """A row for each object, in the colours of the queries that own it over time."""
    count = len(image.owners)
    for i, owners in enumerate(image.owners.T):
        starts = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), count]
        for start, end in pairwise(starts):
            query = int(owners[start])
            if query == NOBODY:
                continue
            colour = image.colours.get(query, GREY)
            axes.barh(i, end - start - 0.1, left=start - 0.5, height=0.85, color=colour)
            if end - start > count / 40:  # there is room for a number
                style = {"fontsize": 7, "ha": "center", "va": "center", "color": on_colour(colour)["color"]}
                axes.text((start + end) / 2 - 0.5, i, str(query), **style)
    axes.set_yticks(range(len(image.names)), [f"{i} {name}" for i, name in enumerate(image.names, start=1)])
    axes.set_ylim(len(image.names) - 0.5, -0.5)


def outline(box: np.ndarray, **style: Any) -> Rectangle:
    left, top, right, bottom = box.tolist()
    return Rectangle((left, top), right - left, bottom - top, fill=False, **style)


def on_colour(colour: str) -> dict[str, str]:
    """How matplotlib writes on a colour: in black or white, whichever is easier to read."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "backgroundcolor": colour,
        "color": "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 100 else "white",
    }
