"""FeatureExplorer: a picture under its feature maps; of any cell, the pixels it sees and the channels that fire."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from minivis.detr.receptive_field import (
    ReceptiveField,
    effective_field,
    pixels_with_half,
    receptive_fields,
    share_outside,
)
from minivis.images import as_image_batch
from minivis.widgets.base import Widget
from minivis.widgets.feature_picture import draw_features

SHOWN = 8  # channels, those that rank highest at a cell
MEASURED_SIDE = 16  # cells
MEASURED_CELLS = MEASURED_SIDE**2  # a map of more cells has no measured fields: it would take too long
SHOWN_SIDE = (
    800  # pixels of the picture that the browser gets; cells lie on the model's own pixels all the same
)
FIELD_SIDE = 32  # blocks on the long side of a measured field
AT_ONCE = 32  # backward passes that share memory


class FeatureExplorer(Widget):
    """The picture with the grid of a feature map over it.

    In the browser one points at a cell. It shows the cell's own patch, its receptive field, what of it moves the cell
    in fact (the rest of the picture is dimmed), and the channels that rank highest there, each as a small map of its
    own. What was chosen is in `level` (which map), `point` ([x, y] in pixels of the picture; the cell is the one whose
    patch it lies in) and `ranking` ("highest", by value, or "stands out", by standard deviations above the channel's
    mean over this picture). All of them can be set from Python as well, and so can `cell`, [row, column].

        explorer = FeatureExplorer(minivis.load("detr-mini"), picture)
        explorer.cell = [3, 4]
        explorer.top_channels()
    """

    parts = ("feature_maps.js",)

    picture = traitlets.Bytes().tag(sync=True)  # PNG
    size = traitlets.Tuple().tag(sync=True)  # of the picture as the model gets it: (height, width) in pixels
    stages = traitlets.List().tag(sync=True)  # dicts, see `_stage`
    level = traitlets.Int().tag(sync=True)
    point = traitlets.List().tag(sync=True)
    ranking = traitlets.Enum(["highest", "stands out"], "highest").tag(sync=True)

    def __init__(
        self,
        model: nn.Module,
        picture: Image.Image | Tensor,
        levels: Sequence[int] | None = None,
        cell: Sequence[int] | None = None,
        measured_cells: int = MEASURED_CELLS,
        longest_side: int | None = None,
    ):
        """A widget for one picture, which may be of any size. The last of its maps is seen first.

        Args:
            model: a DETR with its `image_transform`, as `minivis.load` gives it.
            picture: a picture, or a uint8 (3, H, W) tensor. It is resized as the model wants it; if the model does not
                say (`detr-mini`), a large one is brought down to 16 cells of the last map on its long side.
            levels: which of the backbone's maps, from fine to coarse; all by default. The fine maps of a large
                picture are large.
            cell: (row, column) of the last map that is seen first; the middle by default.
            measured_cells: what moves a cell is measured in maps of at most so many cells, one backward pass for each.
                Of larger ones the widget says that it was not.
            longest_side: the picture's long side has at most so many pixels. A small number makes a large model quick.

        Raises:
            ValueError: if the model has no `image_transform`, or there is no such level or cell.
        """
        if not hasattr(model, "image_transform"):
            raise ValueError("the model has no image_transform: load it with minivis.load, or set it")
        count = len(model.backbone.channels)
        if levels is not None and not all(-count <= level < count for level in levels):
            raise ValueError(f"levels: expected {-count} to {count - 1}, got {list(levels)}")
        levels = range(count) if levels is None else sorted(level % count for level in levels)
        transform = model.image_transform.no_larger(longest_side, MEASURED_SIDE * model.backbone.strides[-1])
        pixels = transform(picture).to(next(model.parameters()).device)
        batch = as_image_batch([pixels])
        with torch.inference_mode():
            maps = model.backbone(batch)
        fields = receptive_fields(model.backbone)
        stages = []
        for level in levels:
            height, width = maps[level].features.shape[-2:]
            cells = [(row, column) for row in range(height) for column in range(width)]
            measured = None
            if len(cells) <= measured_cells:
                chunks = [cells[i : i + AT_ONCE] for i in range(0, len(cells), AT_ONCE)]
                measured = torch.cat(
                    [effective_field(model.backbone, batch, level, chunk).cpu() for chunk in chunks]
                )
            stages.append(_stage(maps[level].features[0].cpu(), fields[level], measured))
        height, width = pixels.shape[1:]
        super().__init__(
            picture=_png(to_pil_image(transform.denormalise(pixels).cpu())),
            size=(height, width),
            stages=stages,
            level=len(stages) - 1,
            point=[width // 2, height // 2],
        )
        if cell is not None:
            self.cell = cell

    @property
    def stage(self) -> dict[str, Any]:
        """The map that is seen."""
        return self.stages[self.level]

    @property
    def cell(self) -> tuple[int, int]:
        """Row and column of the cell whose patch holds the point."""
        x, y = self.point
        return int(y // self.stage["stride"]), int(x // self.stage["stride"])

    @cell.setter
    def cell(self, cell: Sequence[int]) -> None:
        (row, column), (height, width) = cell, (self.stage["height"], self.stage["width"])
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(
                f"cell: expected (row, column) in a map of {height} × {width} cells, got {(row, column)}"
            )
        stride, (bottom, right) = self.stage["stride"], self.size
        middle = column * stride + stride // 2, row * stride + stride // 2
        self.point = [min(middle[0], right - 1), min(middle[1], bottom - 1)]

    def values(self) -> Float[np.ndarray, "channels height width"]:
        """The map that is seen, as precise as the browser has it: 255 steps up to each channel's maximum."""
        stage = self.stage
        steps = np.frombuffer(stage["values"], np.uint8).reshape(-1, stage["height"], stage["width"])
        return steps / np.float64(255) * np.array(stage["maxima"])[:, None, None]

    def ranks(self) -> Float[np.ndarray, " channels"]:
        """What channels are ranked by at the cell, the highest first."""
        values, (row, column) = self.values(), self.cell
        here = values[:, row, column]
        if self.ranking == "highest":
            return here
        spread = values.std((1, 2))
        return np.where(spread > 0, (here - values.mean((1, 2))) / np.where(spread > 0, spread, 1), 0)

    def top_channels(self) -> list[int]:
        """Those that rank highest at the cell; of equals the one with the smaller number."""
        return np.argsort(-self.ranks(), kind="stable")[:SHOWN].tolist()

    def field(self) -> Float[np.ndarray, "rows columns"] | None:
        """How much each block of the picture moves the cell, from 0 to 1; None where that was not measured."""
        stage = self.stage
        if stage["moved"] is None:
            return None
        blocks = np.frombuffer(stage["moved"], np.uint8).reshape(-1, *stage["blocks"])
        return blocks[self.cell[0] * stage["width"] + self.cell[1]] / 255

    def window(self) -> tuple[int, int, int, int]:
        """The receptive field: left, top, right, bottom in pixels, which may lie outside of the picture."""
        return ReceptiveField(self.stage["field"], self.stage["stride"]).window(*self.cell)

    @traitlets.validate("level")
    def _check_level(self, proposal: dict[str, Any]) -> int:
        if not 0 <= proposal["value"] < len(self.stages):
            raise ValueError(f"level: expected 0 to {len(self.stages) - 1}, got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("point")
    def _check_point(self, proposal: dict[str, Any]) -> list[float]:
        point, (height, width) = proposal["value"], self.size
        if not (len(point) == 2 and 0 <= point[0] < width and 0 <= point[1] < height):
            raise ValueError(
                f"point: expected [x, y] in a picture {width} wide and {height} high, got {point}"
            )
        return point

    def describe(self) -> str:
        stage, (row, column), (height, width) = self.stage, self.cell, self.size
        words = (
            f"A picture of {height} × {width} pixels under the feature map of stride {stage['stride']}: "
            f"{stage['height']} × {stage['width']} cells of {len(stage['maxima'])} channels. "
            f"The cell in row {row}, column {column} (from 0) has a receptive field of {stage['field']} × "
            f"{stage['field']} pixels"
        )
        if stage["moved"] is not None:
            half = stage["half"][row * stage["width"] + column]
            words += f"; half of what moves it lies in about {float(f'{half:.2g}'):.0f} pixels"
        else:
            words += "; what moves it was not measured, since the map has so many cells"
        return f"{words}. Channels that rank highest there: {', '.join(map(str, self.top_channels()[:3]))}."

    def draw(self) -> Image.Image:
        return draw_features(self)


def _png(picture: Image.Image) -> bytes:
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    png = io.BytesIO()
    picture.save(png, format="png", optimize=True)
    return png.getvalue()


def _stage(
    features: Float[Tensor, "channels height width"],
    field: ReceptiveField,
    measured: Float[Tensor, "cells image_height image_width"] | None,
) -> dict[str, Any]:
    """A map as the browser gets it: 8 bits a value, and what a channel's (a cell's) 255 stands for.

    `half` is in how few pixels half of the squared gradient lies, `outside` the share of it that lies outside of the
    receptive field: of each cell, in rows.
    """
    values = features.clamp(min=0)  # after a ReLU nothing is below
    maxima = values.amax((1, 2))
    stage = {
        "stride": field.stride,
        "field": field.size,
        "height": values.shape[1],
        "width": values.shape[2],
        "values": _as_bytes(values, maxima),
        "maxima": maxima.tolist(),
        "moved": None,
    }
    if measured is None:
        return stage
    height, width = measured.shape[-2:]
    scale = FIELD_SIDE / max(height, width)
    blocks = [max(1, round(height * scale)), max(1, round(width * scale))]
    coarse = F.adaptive_avg_pool2d(measured[:, None], blocks)[:, 0]
    places = [divmod(cell, values.shape[2]) for cell in range(len(measured))]
    outside = [
        share_outside(moved, field.window(*place)) for moved, place in zip(measured, places, strict=True)
    ]
    return stage | {
        "moved": _as_bytes(coarse, coarse.amax((1, 2))),
        "blocks": blocks,
        "half": pixels_with_half(measured).tolist(),
        "outside": [round(share, 4) for share in outside],
    }


def _as_bytes(rows: Float[Tensor, "rows height width"], maxima: Float[Tensor, " rows"]) -> bytes:
    steps = rows / maxima.clamp(min=1e-30)[:, None, None] * 255
    return steps.round().to(torch.uint8).numpy().tobytes()
