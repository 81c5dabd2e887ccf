"""Pictures with boxes, segments and labels on them, readable at 128 pixels as well as at 1333."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from minivis.boxes import cxcywh_to_xyxy
from minivis.detr.merge import Panoptic, Segment

# Okabe and Ito's colours without black: told apart by every kind of vision (https://jfly.uni-koeln.de/color/).
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")
# Paul Tol's pale colours: grounds that things stand out from (https://sronpersonalpages.nl/~pault/).
PALE = ("#CCDDAA", "#FFCCCC", "#DDDDDD", "#BBCCEE", "#EEEEBB", "#CCEEFF")
WHITE, BLACK = "#FFFFFF", "#000000"
TINT = {True: 0.65, False: 0.4}  # how much of a segment's colour covers the picture: of a thing, of stuff
ROOM = 0.8  # of a name that lies on its own segment, for it to be written there

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


def draw_panoptic(image: Image.Image | Tensor, panoptic: Panoptic, class_names: Sequence[str]) -> Image.Image:
    """The picture with every segment in a colour and with its name: things strong, stuff pale, void as it was.

    Small pictures are enlarged by a whole number. A stuff class keeps its colour; things of one class have colours of
    their own while there are enough, and neighbours never share one they need not.

    Args:
        image: a picture, or a `(3, H, W)` tensor (uint8, or floats in 0..1).
        panoptic: a map of the picture's size, and its segments.
        class_names: the name of each label.

    Raises:
        ValueError: if map and picture differ in size.
    """
    picture, scale = _enlarged(image)
    ids = panoptic.segment_ids.cpu().numpy()
    if (ids.shape[1] * scale, ids.shape[0] * scale) != picture.size:
        raise ValueError(
            f"the map is {ids.shape[1]} × {ids.shape[0]}, the picture "
            f"{picture.width // scale} × {picture.height // scale}"
        )
    colour_of = _segment_colours(ids, panoptic.segments)
    ids = ids.repeat(scale, axis=0).repeat(scale, axis=1)
    pixels = np.asarray(picture, dtype=np.float32).copy()
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[
        ..., None
    ]  # whose colours would change the segments'
    for segment in panoptic.segments:
        tint, inside = TINT[segment.is_thing], ids == segment.id
        pixels[inside] = (1 - tint) * grey[inside] + tint * np.array(ImageColor.getrgb(colour_of[segment.id]))
    pixels[_borders(ids, _line_width(picture))] = ImageColor.getrgb(WHITE)
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    _name_segments(picture, ids, panoptic.segments, class_names, colour_of)
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
    boxes: Sequence[Box],
    sizes: Sequence[tuple[int, int]],
    picture: tuple[int, int],
    centres: Sequence[tuple[int, int] | None] | None = None,
) -> list[tuple[int, int]]:
    """The (left, top) of each box's label: inside the picture, and covering earlier labels least.

    Args:
        boxes: the most important first.
        sizes: (width, height) of each label.
        picture: (width, height).
        centres: (x, y) where the middle of a label would best be; None: at its box's sides.
    """
    taken: list[Box] = []
    centres = [None] * len(boxes) if centres is None else centres
    for (left, top, right, bottom), (w, h), centre in zip(boxes, sizes, centres, strict=True):
        # Rather above the box than below it, rather there than in its corners.
        wishes = [(left, top - h), (left, bottom), (right - w, top - h), (right - w, bottom)]
        wishes += [(left, top), (left, bottom - h), (right - w, top), (right - w, bottom - h)]
        if centre is not None:
            wishes.insert(0, (centre[0] - w / 2, centre[1] - h / 2))
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


def _segment_colours(ids: Int[np.ndarray, "height width"], segments: Sequence[Segment]) -> dict[int, str]:
    """Stuff by its class. A thing: the least used, by its neighbours and then at all, from its class's colour on."""
    beside = _neighbours(ids)
    colour_of: dict[int, str] = {s.id: PALE[s.label % len(PALE)] for s in segments if not s.is_thing}
    things = [segment for segment in segments if segment.is_thing]
    for thing in things:
        around = [colour_of.get(other) for other in beside.get(thing.id, ())]
        used = [colour_of.get(other.id) for other in things]
        first = thing.label % len(PALETTE)
        order = PALETTE[first:] + PALETTE[:first]
        colour_of[thing.id] = min(order, key=lambda colour: (around.count(colour), used.count(colour)))
    return colour_of


def _neighbours(ids: Int[np.ndarray, "height width"]) -> dict[int, set[int]]:
    """Of each segment, those that touch it, or lie a few pixels beside it."""
    beside: dict[int, set[int]] = {}
    for step in (1, 4):
        for a, b in ((ids[step:], ids[:-step]), (ids[:, step:], ids[:, :-step])):
            pairs = np.stack([a[a != b], b[a != b]], axis=1)
            for one, other in np.unique(pairs, axis=0).tolist():
                beside.setdefault(one, set()).add(other)
                beside.setdefault(other, set()).add(one)
    return beside


def _borders(ids: Int[np.ndarray, "height width"], width: int) -> Bool[np.ndarray, "height width"]:
    """A line of about `width` pixels along which segments meet."""
    return ndimage.maximum_filter(ids, width + 1) != ndimage.minimum_filter(ids, width + 1)


def _name_segments(
    picture: Image.Image,
    ids: Int[np.ndarray, "height width"],
    segments: Sequence[Segment],
    class_names: Sequence[str],
    colour_of: dict[int, str],
) -> None:
    """Each name once: within its segment if it has room there, else beside it. Those of the smallest go first."""
    area = {segment.id: (ids == segment.id).sum() for segment in segments}
    seen = [segment for segment in segments if area[segment.id]]
    sized = sorted(seen, key=lambda segment: (not segment.is_thing, area[segment.id]))
    texts = [class_names[segment.label] for segment in sized]
    boxes, centres = [], []
    for segment, (w, h) in zip(sized, _label_sizes(picture, texts), strict=True):
        inside = ids == segment.id
        (x, y), box = _widest_part(inside)
        boxes.append(box)
        room = inside[max(0, y - h // 2) : y + h // 2, max(0, x - w // 2) : x + w // 2].mean()
        centres.append((x, y) if room > ROOM or not segment.is_thing else None)
    _draw_labels(picture, boxes, texts, [colour_of[segment.id] for segment in sized], centres)


def _widest_part(inside: Bool[np.ndarray, "height width"]) -> tuple[tuple[int, int], Box]:
    """Of a mask the (x, y) furthest from all that is not inside, amid a C's stroke, and the box of its part there."""
    left, top, right, bottom = Image.fromarray(inside).getbbox()
    whole = inside[top:bottom, left:right]
    step = max(1, max(whole.shape) // 256)  # of a large segment, coarsely is enough
    if not whole[::step, ::step].any():
        step = 1
    part = whole[::step, ::step]
    depth = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    numbers, _ = ndimage.label(part)
    box = Image.fromarray(numbers == numbers[y, x]).getbbox()
    middle = (left + step * int(x), top + step * int(y))
    return middle, tuple(start + step * side for start, side in zip((left, top) * 2, box, strict=True))


def _draw_labels(
    picture: Image.Image,
    boxes: Sequence[Box],
    texts: Sequence[str],
    colours: Sequence[str],
    centres: Sequence[tuple[int, int] | None] | None = None,
) -> None:
    draw, font, pad = ImageDraw.Draw(picture), _font(picture), _pad(picture)
    sizes = _label_sizes(picture, texts)
    places = place_labels(boxes, sizes, picture.size, centres)
    for (x, y), (w, h), text, colour in zip(places, sizes, texts, colours):
        draw.rectangle((x, y, x + w - 1, y + h - 1), fill=colour)
        draw.text((x + pad, y + pad), text, fill=_text_colour(colour), font=font)


def _label_sizes(picture: Image.Image, texts: Sequence[str]) -> list[tuple[int, int]]:
    """(width, height) of each label in pixels."""
    draw, font, pad = ImageDraw.Draw(picture), _font(picture), _pad(picture)
    height = sum(font.getmetrics()) + 2 * pad
    return [(math.ceil(draw.textlength(text, font)) + 2 * pad, height) for text in texts]


def _font(picture: Image.Image) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(14, round(max(picture.size) / 45)))


def _pad(picture: Image.Image) -> int:
    return max(2, round(_font(picture).size / 6))


def _text_colour(colour: str) -> str:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else WHITE
