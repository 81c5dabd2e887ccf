"""Reading a COCO annotation file, and checking every image and annotation in it.

A file that is not COCO is an error. In one that is, a broken image or annotation is named and left out, or
stops the run, as the caller chose. Nothing is repaired. A box or a polygon may overstep the image by one pixel,
as rounding makes many do: that counts as sound, and what a model is trained on is clipped to the image.
"""

import gc
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import mask as mask_tools

from minivis.data.items import BadItem, BadItems, Categories

ROUNDING = 1.0  # by how many pixels a box may overstep the image


class CocoFormatError(ValueError):
    """The file is not a COCO annotation file."""


@dataclass(frozen=True)
class CocoFile:
    """What is sound in a COCO annotation file, as arrays: a loader's workers share them without copying.

    Annotations are sorted by image: those of image number i are numbers `first[i]` to `first[i + 1] - 1`.
    """

    path: Path
    categories: list[tuple[int, str]]  # (id, name)
    image_ids: np.ndarray  # (images,) int64
    file_names: list[str]
    image_sizes: np.ndarray  # (images, 2) int64: height, width
    first: np.ndarray  # (images + 1,) int64
    ids: np.ndarray  # (annotations,) int64
    category_ids: np.ndarray  # (annotations,) int64
    boxes: np.ndarray  # (annotations, 4) float64: left, top, width, height in pixels, as in the file
    areas: np.ndarray  # (annotations,) float64: as in the file; of the box, where the file gives none
    crowd: np.ndarray  # (annotations,) bool
    segmentations: list[Any] | None  # (annotations,) polygons or run lengths; None unless asked for

    def annotations_of(self, index: int) -> np.ndarray:
        """The numbers of the annotations of image number `index`."""
        return np.arange(self.first[index], self.first[index + 1])


def read_coco(path: Path, bad_items: BadItems, masks: bool = False) -> CocoFile:
    """Reads and checks a whole annotation file; pictures are not looked at.

    Args:
        path: the JSON file.
        bad_items: where broken images and annotations are reported.
        masks: whether segmentations are needed, and checked.

    Raises:
        CocoFormatError: if the file is not COCO; the message says where, and what was expected.
        BadItemError: at the first broken image or annotation, if `bad_items` says "stop".
    """
    content = read_json(path)
    categories = read_categories(path, content["categories"])
    images = read_images(path, content["images"], bad_items)
    file_names = names_of_images(content["images"])
    annotations = content["annotations"]
    reasons = {}  # place in the file's list → what is wrong
    file = sound_annotations(path, categories, images, file_names, annotations, reasons, masks)
    for place in sorted(reasons):
        bad_items.report(BadItem(_where(path, annotations[place], place, file_names), reasons[place]))
    return file


def sound_annotations(
    path: Path,
    categories: list[tuple[int, str]],
    images: list[dict[str, Any]],
    file_names: dict[int, str],
    annotations: list[Any],
    reasons: dict[int, str],
    masks: bool = False,
) -> CocoFile:
    """Checks all annotations of a file, and gives those that are sound, of the sound images.

    Args:
        path: the file, for messages.
        categories: (id, name).
        images: the sound ones.
        file_names: of all images in the file, by id.
        annotations: as in the file.
        reasons: place in `annotations` → what is wrong with it. What is known already is in it; the rest is added.
        masks: whether segmentations are checked, and kept.
    """
    # First the form of each annotation, one by one; then the values of those well formed, as columns.
    for place, annotation in enumerate(annotations):
        if place not in reasons and (reason := _malformed(annotation)) is not None:
            reasons[place] = reason
    places = np.array([place for place in range(len(annotations)) if place not in reasons], dtype=np.int64)
    rows = [annotations[place] for place in places]
    ids, image_ids, category_ids = (
        np.array([row[key] for row in rows], dtype=np.int64) for key in ("id", "image_id", "category_id")
    )
    boxes = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    box_areas = boxes[:, 2] * boxes[:, 3]
    areas = np.array(
        [row.get("area", area) for row, area in zip(rows, box_areas, strict=True)], dtype=np.float64
    )
    crowd = np.array([row.get("iscrowd", 0) for row in rows], dtype=bool)

    # Which image each annotation is of, and that image's size.
    known_ids = np.array([image["id"] for image in images], dtype=np.int64)
    sizes = np.array([(image["height"], image["width"]) for image in images], dtype=np.int64).reshape(-1, 2)
    order = np.argsort(known_ids)
    image_of = order[np.searchsorted(known_ids, image_ids, sorter=order).clip(max=len(images) - 1)]
    has_image = known_ids[image_of] == image_ids
    height, width = sizes[image_of].T

    left, top, right, bottom = boxes[:, 0], boxes[:, 1], boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    overstep = np.maximum.reduce([-left, -top, right - width, bottom - height])
    nothing_inside = (np.minimum(right, width) <= left.clip(0)) | (np.minimum(bottom, height) <= top.clip(0))
    data_ids = [category_id for category_id, _ in categories]

    def find(wrong: np.ndarray, describe: Callable[[int], str]) -> None:
        for row in np.flatnonzero(wrong):
            reasons.setdefault(int(places[row]), describe(row))

    find(~np.isin(image_ids, list(file_names)), lambda row: "there is no image with this id")
    find(
        ~np.isin(category_ids, data_ids),
        lambda row: f"there is no category with the id {category_ids[row]}; there are {some(data_ids)}",
    )
    find(
        (boxes[:, 2:] <= 0).any(axis=1),
        lambda row: f"its box {boxes[row].tolist()} (left, top, width, height) has no width or no height",
    )
    find(
        has_image & ((overstep > ROUNDING) | nothing_inside),
        lambda row: (
            f"its box {boxes[row].tolist()} (left, top, width, height) is not inside the image, "
            f"which is {width[row]} × {height[row]} pixels"
        ),
    )
    find(_repeated(ids), lambda row: "an annotation before it has the same id")
    if masks:
        for row in np.flatnonzero(has_image):
            reason = _wrong_segmentation(rows[row].get("segmentation"), int(height[row]), int(width[row]))
            if reason is not None:
                reasons.setdefault(int(places[row]), reason)

    good = np.flatnonzero(has_image & ~np.isin(places, list(reasons)))
    good = good[np.argsort(image_of[good], kind="stable")]
    return CocoFile(
        path=path,
        categories=categories,
        image_ids=known_ids,
        file_names=[image["file_name"] for image in images],
        image_sizes=sizes,
        first=np.searchsorted(image_of[good], np.arange(len(images) + 1)),
        ids=ids[good],
        category_ids=category_ids[good],
        boxes=boxes[good],
        areas=areas[good],
        crowd=crowd[good],
        segmentations=[rows[row]["segmentation"] for row in good] if masks else None,
    )


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """COCO's polygons, or its run lengths, as a (height, width) mask of bool."""
    return mask_tools.decode(mask_tools.segmToRle(segmentation, width, height)).astype(bool)


def read_json(path: Path) -> dict[str, list[Any]]:
    """The file's three lists."""
    collecting = gc.isenabled()
    gc.disable()  # it would look through COCO's millions of new objects again and again: most of the time
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        raise CocoFormatError(f"{path} is not JSON: {error}") from error
    finally:
        if collecting:
            gc.enable()

    expected = 'a COCO annotation file: an object with the lists "images", "annotations" and "categories"'
    if not isinstance(content, dict):
        raise CocoFormatError(f"{path} holds a {type(content).__name__}; expected {expected}")
    for key in ("images", "annotations", "categories"):
        if key not in content:
            has = some(content) or "nothing"
            raise CocoFormatError(f'{path} has no "{key}" (it has {has}); expected {expected}')
        if not isinstance(content[key], list):
            raise CocoFormatError(f'{path}: "{key}" is a {type(content[key]).__name__}; expected {expected}')
    for key in ("images", "categories"):
        if not content[key]:
            raise CocoFormatError(f'{path}: the list "{key}" is empty')
    return content


def read_categories(path: Path, categories: list[Any]) -> list[tuple[int, str]]:
    for place, category in enumerate(categories):
        entry = category if isinstance(category, dict) else {}
        if not is_id(entry.get("id")) or not is_text(entry.get("name")):
            raise CocoFormatError(
                f'{path}: number {place} of "categories" is {short(category)}; '
                'expected an object with "id" (a whole number) and "name" (text)'
            )
    pairs = [(category["id"], category["name"]) for category in categories]
    try:
        Categories.dense(pairs)
    except ValueError as error:  # an id or a name that is there twice
        raise CocoFormatError(f"{path}: {error}") from error
    return pairs


def read_images(path: Path, images: list[Any], bad_items: BadItems) -> list[dict[str, Any]]:
    """The images that are sound, and whose id no other image has."""
    fields = {"id": is_id, "file_name": is_text, "width": _is_length, "height": _is_length}
    sound = []
    for place, image in enumerate(images):
        entry = image if isinstance(image, dict) else {}
        wrong = [f'"{key}"' for key, is_right in fields.items() if not is_right(entry.get(key))]
        if not wrong:
            sound.append(image)
            continue
        reason = (
            f'it is {short(image)}, where {", ".join(wrong)} is missing or wrong; expected "id" (a whole '
            'number), "file_name" (text), "width" and "height" (whole numbers of pixels)'
        )
        bad_items.report(BadItem(f'{path}: number {place} of "images"', reason))
    if not sound:
        raise CocoFormatError(f'{path}: nothing in "images" is an image in COCO\'s form: {reason}')
    file_names: dict[int, list[str]] = {}
    for image in sound:
        file_names.setdefault(image["id"], []).append(image["file_name"])
    for image_id, names in file_names.items():
        if len(names) > 1:
            reason = (
                f"{len(names)} images have this id ({some(names)}): whose the annotations are is not known"
            )
            bad_items.report(BadItem(f"{path}: image {image_id}", reason))
    kept = [image for image in sound if len(file_names[image["id"]]) == 1]
    if not kept:
        raise CocoFormatError(f'{path}: no image in "images" has an id of its own')
    return kept


def names_of_images(images: list[Any]) -> dict[int, str]:
    """Image id → file name of all that have an id, those too that are left out (with all their annotations)."""
    listed = [image for image in images if isinstance(image, dict) and is_id(image.get("id"))]
    return {image["id"]: image.get("file_name", "no file name") for image in listed}


def _malformed(annotation: Any) -> str | None:
    """What is wrong with the form of an annotation; None if nothing is."""
    if not isinstance(annotation, dict):
        return f"expected an object, got {short(annotation)}"
    for key in ("id", "image_id", "category_id"):
        if not is_id(annotation.get(key)):
            return f'expected a whole number as "{key}", got {found(annotation, key)}'
    box = annotation.get("bbox")
    if type(box) is not list or len(box) != 4:
        return f'expected "bbox" to be [left, top, width, height], got {found(annotation, "bbox")}'
    if not all(map(_is_finite, box)):
        return f'expected four finite numbers as "bbox", got {found(annotation, "bbox")}'
    if "area" in annotation and not (_is_finite(annotation["area"]) and annotation["area"] >= 0):
        return f'expected "area" to be a finite number, at least 0, got {found(annotation, "area")}'
    if annotation.get("iscrowd", 0) not in (0, 1):
        return f'expected "iscrowd" to be 0 or 1, got {found(annotation, "iscrowd")}'
    return None


def _wrong_segmentation(segmentation: Any, height: int, width: int) -> str | None:
    """What is wrong with a segmentation in an image of this size; None if nothing is."""
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            size = found(segmentation, "size")
            return f"its mask's size is {size}, its image's (height, width) is {[height, width]}"
        try:
            mask = decode_mask(segmentation, height, width)
        except Exception as error:  # the decoder raises errors of several kinds
            return f"its mask's run lengths cannot be decoded: {error}"
        return None if mask.any() else "its mask has no pixel"
    if not isinstance(segmentation, list) or not segmentation:
        return f'expected "segmentation" to be polygons or run lengths, got {short(segmentation)}'
    for polygon in segmentation:
        numbers = polygon if isinstance(polygon, list) and all(map(_is_finite, polygon)) else []
        if len(numbers) < 6 or len(numbers) % 2:
            return f"expected polygons [x1, y1, x2, y2, x3, y3, ...] of finite numbers, got {short(polygon)}"
        right, bottom = max(numbers[::2]), max(numbers[1::2])
        if min(numbers) < -ROUNDING or right > width + ROUNDING or bottom > height + ROUNDING:
            return f"its polygon is not inside the image, which is {width} × {height} pixels"
    return None


def _repeated(values: np.ndarray) -> np.ndarray:
    """True where the same value came before."""
    repeated = np.ones(len(values), dtype=bool)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated


def _where(path: Path, annotation: Any, place: int, file_names: dict[int, str]) -> str:
    """Names an annotation by file, image id (and file name) and annotation id, as far as it has them."""
    entry = annotation if isinstance(annotation, dict) else {}
    parts = []
    if "image_id" in entry:
        known = is_id(entry["image_id"]) and entry["image_id"] in file_names
        parts.append(
            f"image {short(entry['image_id'])}" + (f" ({file_names[entry['image_id']]})" if known else "")
        )
    parts.append(
        f"annotation {entry['id']}" if is_id(entry.get("id")) else f'number {place} of "annotations"'
    )
    return f"{path}: {', '.join(parts)}"


def is_id(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def is_text(value: Any) -> bool:
    return type(value) is str and value != ""


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_finite(value: Any) -> bool:
    # Comparing is exact for whole numbers of any length, and false for NaN.
    return type(value) in (int, float) and -1e300 < value < 1e300


def found(entry: dict[str, Any], key: str) -> str:
    return short(entry[key]) if key in entry else "nothing"


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def some(values: Iterable[Any]) -> str:
    values = list(values)
    return ", ".join(map(str, values[:8])) + (f", and {len(values) - 8} more" if len(values) > 8 else "")
