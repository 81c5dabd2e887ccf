"""AttentionExplorer: point at a place of a picture, and see where each head of each layer looks from there."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from minivis.attention import record_attention
from minivis.boxes import cxcywh_to_xyxy
from minivis.detr import DETR
from minivis.images import ImageBatch, resize_mask
from minivis.widgets.attention_picture import draw_attention
from minivis.widgets.base import Widget

MEAN = -1  # in place of a head's number
MOST_CELLS = (
    16  # on the long side of the last map, for a model that does not say how large it wants a picture
)
LONGEST_SIDE = (
    800  # pixels of the picture that the browser gets; weights lie on the model's own pixels all the same
)


class AttentionExplorer(Widget):
    """A picture with the attention of one of its cells laid over it, and a small map for each head beside it.

    One points at a cell (or moves to it with the arrow keys), chooses a layer, and lays a head, or the mean of all,
    over the picture. A map's cell lies exactly on the pixels that it stands for: from column · stride to
    (column + 1) · stride. `token`, `layer`, `head` (−1: the mean) and `one_scale` say what is chosen; all can be set
    from Python as well.

        explorer = AttentionExplorer.of(minivis.load("detr-mini"), Image.open("mine.jpg"))
        explorer.token = explorer.token_at(x=100, y=40)
        explorer.attention(head=3)

    Args:
        picture: what the model saw, with its padding: a picture, or a (3, H, W) uint8 tensor.
        maps: softmaxed weights of each layer, (layers, heads, tokens, tokens): queries, then keys.
        grid: rows and columns of the cells. They are the last rows · columns tokens, row by row.
        stride: pixels from one cell to the next; cells at the edge may reach beyond the picture, or leave a rest of it.
        padding_mask: (rows, columns), True where a cell is padding; None: nowhere.
        extra_tokens: names of the tokens before the grid, such as "class token".
        boxes: objects to look for, as (left, top, right, bottom) in the picture's pixels.
        names: what these objects are called.
        layer_names: what the layers are called; by default 1, 2, ...

    Raises:
        ValueError: if maps, grid, stride and picture do not fit together, or a weight is not finite.
    """

    parts = ("attention_maps.js", "token_grid.js")

    picture = traitlets.Bytes(help="PNG").tag(sync=True)
    weights = traitlets.Bytes(help="uint8, layers × heads × tokens × tokens: shares of a row's largest").tag(
        sync=True
    )
    largest = traitlets.Bytes(help="float32, layers × heads × tokens: the largest weight of each row").tag(
        sync=True
    )
    shape = traitlets.List(help="layers, heads, tokens").tag(sync=True)
    grid = traitlets.List(help="rows, columns").tag(sync=True)
    stride = traitlets.Int(help="pixels").tag(sync=True)
    size = traitlets.List(help="height and width of what the model saw, in pixels").tag(sync=True)
    padding = traitlets.List(help="for each cell, whether it is padding").tag(sync=True)
    extra_tokens = traitlets.List(help="names of the tokens before the grid").tag(sync=True)
    layer_names = traitlets.List().tag(sync=True)
    boxes = traitlets.List(help="left, top, right, bottom in pixels").tag(sync=True)
    names = traitlets.List().tag(sync=True)
    token = traitlets.Int(help="which token one looks from").tag(sync=True)
    layer = traitlets.Int(help="from 0").tag(sync=True)
    head = traitlets.Int(MEAN, help="from 0; −1 is the mean over all").tag(sync=True)
    one_scale = traitlets.Bool(False, help="one scale for the maps of all heads").tag(sync=True)

    def __init__(
        self,
        picture: Image.Image | Tensor,
        maps: Float[Tensor, "layers heads queries keys"] | Sequence[Float[Tensor, "heads queries keys"]],
        grid: tuple[int, int],
        stride: int,
        padding_mask: Bool[Tensor, "rows columns"] | None = None,
        extra_tokens: Sequence[str] = (),
        boxes: Sequence[Sequence[float]] = (),
        names: Sequence[str] = (),
        layer_names: Sequence[str] = (),
        **traits: Any,
    ):
        picture = to_pil_image(picture.cpu()) if isinstance(picture, Tensor) else picture
        maps = torch.stack([layer.detach().float().cpu() for layer in maps])
        layers, heads, tokens, _ = maps.shape
        mask = torch.zeros(grid, dtype=torch.bool) if padding_mask is None else padding_mask.cpu()
        _check(maps, grid, stride, picture, mask, len(extra_tokens))
        if len(names) != len(boxes):
            raise ValueError(f"expected a name for each of {len(boxes)} boxes, got {len(names)}")
        largest = maps.amax(-1)
        inside = (~mask.flatten()).nonzero().flatten()
        super().__init__(
            picture=_png(picture),
            weights=(maps / largest[..., None] * 255).round().to(torch.uint8).numpy().tobytes(),
            largest=largest.numpy().tobytes(),
            shape=[layers, heads, tokens],
            grid=list(grid),
            stride=stride,
            size=[picture.height, picture.width],
            padding=mask.flatten().tolist(),
            extra_tokens=list(extra_tokens),
            layer_names=list(layer_names) or [str(layer + 1) for layer in range(layers)],
            boxes=[[round(float(side), 3) for side in box] for box in boxes],
            names=list(names),
            **{"token": len(extra_tokens) + int(inside[len(inside) // 2])} | traits,
        )

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: DETR,
        image: Image.Image | Tensor,
        target: dict[str, Any] | None = None,
        padded_to: tuple[int, int] | None = None,
        layers: Sequence[int] | None = None,
        longest_side: int | None = None,
        **traits: Any,
    ) -> "AttentionExplorer":
        """What the encoder of a trained DETR looks at in a picture.

        Args:
            model: as `minivis.load` gives it, with its `image_transform`.
            image: a picture of any size, or a uint8 (3, H, W) tensor; it is resized as the model wants it. If the model
                does not say (`detr-mini`), a large one is brought down to 16 cells on its long side.
            target: the picture's objects, if they are known: `boxes` (N, 4) as (cx, cy, w, h) in 0..1, `labels` (N,).
            padded_to: height and width in pixels that the resized picture is padded to, as in a batch with larger ones.
            layers: which encoder layers, from 0; negative numbers count from the last. By default all, which takes a
                byte for each head and each pair of cells: 98 kB for detr-mini's 64 cells, 35 MB for the 850 cells of a
                large photograph.
            longest_side: the picture's long side has at most so many pixels. Twice as many are four times as many
                cells, and sixteen times the bytes.

        Raises:
            ValueError: if the model has no encoder layer, or `padded_to` is smaller than the picture.
        """
        stride = model.backbone.strides[model.feature_level]
        transform = model.image_transform.no_larger(longest_side, MOST_CELLS * stride)
        batch = _batch_of_one(transform(image), padded_to)
        device = next(model.parameters()).device
        with record_attention(model) as maps:
            model(batch.to(device))
        encoder = [maps[name][0] for name in maps if ".encoder.layers." in name]
        if not encoder:
            raise ValueError("the model has no encoder layer, so there is no self-attention of cells to show")
        chosen = range(len(encoder)) if layers is None else [range(len(encoder))[layer] for layer in layers]
        grid = tuple(math.ceil(side / stride) for side in batch.pixels.shape[-2:])
        height, width = (~batch.padding_mask[0]).any(1).sum(), (~batch.padding_mask[0]).any(0).sum()
        objects: dict[str, Any] = {}
        if target is not None:
            corners = cxcywh_to_xyxy(target["boxes"].cpu()) * torch.tensor([width, height, width, height])
            names = [model.class_names[label] for label in target["labels"].tolist()]
            objects = {"boxes": corners.tolist(), "names": names}
        return cls(
            transform.denormalise(batch.pixels[0]),
            [encoder[layer] for layer in chosen],
            grid,
            stride,
            resize_mask(batch.padding_mask, grid)[0],
            layer_names=[str(layer + 1) for layer in chosen],
            **objects | traits,
        )

    @traitlets.validate("token", "layer", "head")
    def _in_range(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        layers, heads, tokens = self.shape
        least, beyond = {"token": (0, tokens), "layer": (0, layers), "head": (MEAN, heads)}[name]
        if not least <= value < beyond:
            raise traitlets.TraitError(f"{name} is {value}; expected {least} to {beyond - 1}")
        return value

    @property
    def cell(self) -> int | None:
        """The number of the cell one looks from, row by row; None for an extra token."""
        extra = len(self.extra_tokens)
        return self.token - extra if self.token >= extra else None

    def token_at(self, x: float, y: float) -> int:
        """The token whose cell holds a pixel of the picture that the model saw."""
        row, column = int(y // self.stride), int(x // self.stride)
        if not (0 <= row < self.grid[0] and 0 <= column < self.grid[1]):
            raise ValueError(
                f"no cell holds pixel ({x}, {y}): there are {self.grid[0]} × {self.grid[1]} of {self.stride}"
            )
        return len(self.extra_tokens) + row * self.grid[1] + column

    def attention(
        self, token: int | None = None, layer: int | None = None, head: int | None = None
    ) -> Float[np.ndarray, " tokens"]:
        """Where a token looks, as the browser shows it: in steps of 1/255 of the row's largest weight."""
        token, layer, head = (
            chosen if given is None else given
            for given, chosen in ((token, self.token), (layer, self.layer), (head, self.head))
        )
        layers, heads, tokens = self.shape
        steps = np.frombuffer(self.weights, np.uint8).reshape(layers, heads, tokens, tokens)[layer, :, token]
        largest = np.frombuffer(self.largest, np.float32).reshape(layers, heads, tokens)[layer, :, token]
        weights = steps * (largest[:, None].astype(float) / 255)
        return weights.mean(0) if head == MEAN else weights[head]

    def own_box(self, token: int | None = None) -> int | None:
        """Which box a cell belongs to: the smallest that its middle lies in."""
        cell = (self.token if token is None else token) - len(self.extra_tokens)
        if cell < 0 or self.padding[cell]:
            return None
        y, x = (np.array(divmod(cell, self.grid[1])) + 0.5) * self.stride
        around = [
            (area(box), i)
            for i, box in enumerate(self.boxes)
            if box[0] <= x < box[2] and box[1] <= y < box[3]
        ]
        return min(around)[1] if around else None

    def share_inside(self, weights: Float[np.ndarray, " tokens"], box: int) -> float:
        """The share of the weight on cells that lies in a box; of a cell that it covers in part, that part."""
        cells = weights[len(self.extra_tokens) :].reshape(self.grid)
        left, top, right, bottom = self.boxes[box]
        parts = [
            np.clip(np.minimum(end, edges + self.stride) - np.maximum(start, edges), 0, None) / self.stride
            for start, end, edges in (
                (top, bottom, np.arange(self.grid[0]) * self.stride),
                (left, right, np.arange(self.grid[1]) * self.stride),
            )
        ]
        return float((cells * np.outer(*parts)).sum() / (cells.sum() or 1))

    def describe(self) -> str:
        height, width = self.size
        rows, columns = self.grid
        words = f"Attention on a picture of {width} × {height} pixels, in {rows} rows and {columns} columns of cells"
        if any(self.padding):
            words += f", {sum(self.padding)} of them padding"
        place = (
            self.extra_tokens[self.token]
            if self.cell is None
            else "row {}, column {}".format(*(number + 1 for number in divmod(self.cell, columns)))
        )
        head = "the mean of its heads" if self.head == MEAN else f"head {self.head + 1}"
        layer = f"layer {self.layer_names[self.layer]} (of {', '.join(self.layer_names)})"
        words += f". Seen from {place}, in {layer}: {head}"
        own = self.own_box()
        if own is not None:
            words += f" has {100 * self.share_inside(self.attention(), own):.0f} % of its weight in the box of its "
            words += self.names[own]
        return f"{words}. Beside it a small map for each of {self.shape[1]} heads."

    def draw(self) -> Image.Image:
        return draw_attention(self)


def spread(weights: Float[np.ndarray, " tokens"]) -> float:
    """Over how many tokens weights are spread: e to the power of their entropy. n equal weights give n."""
    shares = weights[weights > 0] / weights.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def area(box: Sequence[float]) -> float:
    """Of a box (left, top, right, bottom)."""
    return (box[2] - box[0]) * (box[3] - box[1])


def _check(
    maps: Tensor, grid: tuple[int, int], stride: int, picture: Image.Image, mask: Tensor, extra: int
) -> None:
    rows, columns = grid
    if maps.shape[2] != maps.shape[3] or maps.shape[2] != extra + rows * columns:
        raise ValueError(
            f"expected maps (layers, heads, tokens, tokens) with {extra} + {rows} · {columns} tokens, "
            f"got {tuple(maps.shape)}"
        )
    for name, cells, pixels in (("rows", rows, picture.height), ("columns", columns, picture.width)):
        if abs(cells * stride - pixels) >= stride:
            raise ValueError(f"{cells} {name} of {stride} pixels do not fit a picture of {pixels}")
    if mask.shape != (rows, columns):
        raise ValueError(f"expected a padding mask of shape {(rows, columns)}, got {tuple(mask.shape)}")
    if mask.all():
        raise ValueError("every cell is padding: there is nothing to look from")
    if not maps.isfinite().all() or maps.min() < 0 or (maps.amax(-1) == 0).any():
        raise ValueError("attention weights are finite, none below 0, and a row is not all 0: these are not")


def _batch_of_one(pixels: Float[Tensor, "3 height width"], padded_to: tuple[int, int] | None) -> ImageBatch:
    height, width = pixels.shape[-2:]
    new_height, new_width = padded_to or (height, width)
    if new_height < height or new_width < width:
        raise ValueError(
            f"a picture of {height} × {width} pixels cannot be padded to {new_height} × {new_width}"
        )
    mask = torch.ones(1, new_height, new_width, dtype=torch.bool)
    mask[:, :height, :width] = False
    return ImageBatch(F.pad(pixels, (0, new_width - width, 0, new_height - height))[None], mask)


def _png(picture: Image.Image) -> bytes:
    picture = picture.convert("RGB")
    if max(picture.size) > LONGEST_SIDE:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    png = io.BytesIO()
    picture.save(png, format="png", optimize=True)
    return png.getvalue()
