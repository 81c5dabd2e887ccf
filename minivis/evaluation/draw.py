"""Pictures with boxes and labels on them, readable at 128 pixels as well as at 1333."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from minivis.boxes import cxcywh_to_xyxy

# Okabe and Ito's colours without black: told apart by every kind of vision (https://jfly.uni-koeln.de/color/).
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")
WHITE, BLACK = "#FFFFFF", "#000000"

Box = tuple[int | float, ...]  # left, top, right, bottom in pixels


def draw_detections(
    image: Image.Image | Tensor,
    detections: dict[str, Tensor],
    class_names: Sequence[str],
    threshold: float = 0.5,
    target: dict[str, Any] | None = None,
) -> Image.Image:
    """The picture with a box, a class name and a score for every detection above the threshold.

    Small pictures are enlarged by a whole number; each class keeps its colour.

    Args:
        image: a picture, or a `(3, H, W)` tensor (uint8, or floats in 0..1).
        detections: `scores` (N,), `labels` (N,), `boxes` (N, 4) xyxy in pixels of `image`.
        class_names: the name of each label.
        threshold: detections with a lower score are left out.
        target: ground truth to draw below the detections, as `draw_targets` does, but without names.
    """
    picture, scale = _enlarged(image)
    if target is not None:
        _draw_dashed(picture, _target_boxes(target, picture.size))
    order = detections["scores"].argsort(descending=True)
    order = order[detections["scores"][order] >= threshold]
    scores, labels = detections["scores"][order].tolist(), detections["labels"][order].tolist()
    boxes = [tuple(box) for box in (detections["boxes"][order].float() * scale).tolist()]
    texts = [f"{class_names[label]} {math.floor(100 * score)}%" for label, score in zip(labels, scores)]
    colours = [PALETTE[label % len(PALETTE)] for label in labels]

    draw, width = ImageDraw.Draw(picture), _line_width(picture)
    for box, colour in reversed(list(zip(boxes, colours))):  # the best are drawn last, above the others
        inside = _inside(box, picture.size)
        draw.rectangle(inside, outline=BLACK, width=width + 2)
        draw.rectangle((inside[0] + 1, inside[1] + 1, *_corner(inside, 1)), outline=colour, width=width)
    _draw_labels(picture, boxes, texts, colours)
    return picture


def draw_targets(
    image: Image.Image | Tensor, target: dict[str, Any], class_names: Sequence[str]
) -> Image.Image:
    """The picture with its ground truth: thin dashed white boxes with class names.

    Args:
        image: a picture, or a `(3, H, W)` tensor (uint8, or floats in 0..1).
        target: `labels` (N,) and `boxes` (N, 4) cxcywh in 0..1, as a data set gives them.
        class_names: the name of each label.
    """
    picture, _ = _enlarged(image)
    boxes = _target_boxes(target, picture.size)
    _draw_dashed(picture, boxes)
    names = [class_names[label] for label in target["labels"].tolist()]
    _draw_labels(picture, boxes, names, [WHITE] * len(boxes))
    return picture


def draw_grid(images: Sequence[Image.Image], columns: int = 4, gap: int = 8) -> Image.Image:
    """Pictures side by side on white, in rows of `columns`, each amid a cell as large as the largest."""
    if not images:
        raise ValueError("expected at least one picture, got none")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    grid = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), WHITE)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        left = column * (width + gap) + (width - image.width) // 2
        top = row * (height + gap) + (height - image.height) // 2
        grid.paste(image, (left, top))
    return grid


def place_labels(
    boxes: Sequence[Box], sizes: Sequence[tuple[int, int]], picture: tuple[int, int]
) -> list[tuple[int, int]]:
    """The (left, top) of each box's label: inside the picture, and covering earlier labels least.

    Args:
        boxes: the most important first.
        sizes: (width, height) of each label.
        picture: (width, height).
    """
    taken: list[Box] = []
    for (left, top, right, bottom), (w, h) in zip(boxes, sizes, strict=True):
        # Rather above the box than below it, rather there than in its corners.
        wishes = [(left, top - h), (left, bottom), (right - w, top - h), (right - w, bottom)]
        wishes += [(left, top), (left, bottom - h), (right - w, top), (right - w, bottom - h)]
        spots = []
        for x, y in wishes:
            x, y = max(0, min(round(x), picture[0] - w)), max(0, min(round(y), picture[1] - h))
            spots.append((x, y, x + w, y + h))
        taken.append(min(spots, key=lambda spot: sum(_overlap(spot, other) for other in taken)))
    return [(x, y) for x, y, _, _ in taken]


def _overlap(a: Box, b: Box) -> int | float:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _enlarged(image: Image.Image | Tensor) -> tuple[Image.Image, int]:
    """A copy to draw on, and how many times larger it is: its long side has about 512 pixels or more."""
    picture = to_pil_image(image) if isinstance(image, Tensor) else image
    scale = max(1, round(512 / max(picture.size)))
    size = picture.width * scale, picture.height * scale
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), scale


def _line_width(picture: Image.Image) -> int:
    return max(2, round(max(picture.size) / 300))


def _inside(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels inside the picture; a box of no size still has one."""
    left, right = (max(0, min(round(x), size[0] - 1)) for x in (box[0], box[2]))
    top, bottom = (max(0, min(round(y), size[1] - 1)) for y in (box[1], box[3]))
    return left, top, max(left, right), max(top, bottom)


def _corner(box: tuple[int, int, int, int], inset: int) -> tuple[int, int]:
    return max(box[0] + inset, box[2] - inset), max(box[1] + inset, box[3] - inset)


def _target_boxes(target: dict[str, Any], size: tuple[int, int]) -> list[Box]:
    scale = torch.tensor([*size, *size], dtype=torch.float32)
    return [tuple(box) for box in (cxcywh_to_xyxy(target["boxes"].float().cpu()) * scale).tolist()]


def _draw_dashed(picture: Image.Image, boxes: Sequence[Box]) -> None:
    """White dashes on a dark line, which show on any ground."""
    draw, width = ImageDraw.Draw(picture), max(2, _line_width(picture) * 2 // 3)
    dash = 3 * width
    for box in boxes:
        left, top, right, bottom = _inside(box, picture.size)
        draw.rectangle((left, top, right, bottom), outline=BLACK, width=width)
        for x in range(left, right + 1, 2 * dash):
            for y in (top, bottom - width + 1):
                draw.rectangle((x, y, min(x + dash, right), y + width - 1), fill=WHITE)
        for y in range(top, bottom + 1, 2 * dash):
            for x in (left, right - width + 1):
                draw.rectangle((x, y, x + width - 1, min(y + dash, bottom)), fill=WHITE)


def _draw_labels(
    picture: Image.Image, boxes: Sequence[Box], texts: Sequence[str], colours: Sequence[str]
) -> None:
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(14, round(max(picture.size) / 45)))
    pad = max(2, round(font.size / 6))
    height = sum(font.getmetrics()) + 2 * pad
    sizes = [(math.ceil(draw.textlength(text, font)) + 2 * pad, height) for text in texts]
    for (x, y), (w, h), text, colour in zip(place_labels(boxes, sizes, picture.size), sizes, texts, colours):
        draw.rectangle((x, y, x + w - 1, y + h - 1), fill=colour)
        draw.text((x + pad, y + pad), text, fill=_text_colour(colour), font=font)


def _text_colour(colour: str) -> str:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else WHITE
