"""COCO's panoptic format, read, checked and written: a JSON file, and for each image a PNG whose colours are ids.

    "images":      [{"id", "file_name", "width", "height"}, ...]
    "annotations": [{"image_id", "file_name": of the PNG, "segments_info": [{"id", "category_id", "bbox", "area",
                   "iscrowd"}, ...]}, ...], one for each image
    "categories":  [{"id", "name", "isthing": 0 or 1}, ...]

A pixel's segment is id = R + 256 G + 256² B; black is void, nobody's. Ids are unique within their image only.

What is broken is named and left out, or stops the run, and nothing is repaired. Of a segment that is broken in the JSON
(such as one of a category that is not there) the pixels become void. Where JSON and PNG disagree about which segments
there are, or the PNG cannot be read, the whole image is left out. About a segment's shape the PNG is right: the JSON's
"area" and "bbox" must have their form, but whether they are those of the pixels is not looked at.
"""

import io
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor

from minivis.boxes import boxes_around
from minivis.data.coco_json import (
    CocoFile,
    CocoFormatError,
    found,
    is_id,
    is_text,
    names_of_images,
    read_categories,
    read_images,
    read_json,
    short,
    some,
    sound_annotations,
)
from minivis.data.files import write_atomically
from minivis.data.items import BadItem, BadItems, Categories
from minivis.detr.merge import VOID, Panoptic

LARGEST_ID = 2**24 - 1  # three bytes


def ids_of_png(pixels: UInt8[np.ndarray, "height width 3"]) -> Int[np.ndarray, "height width"]:
    """Each pixel's segment id: R + 256 G + 256² B."""
    red, green, blue = np.moveaxis(pixels.astype(np.int64), 2, 0)
    return red + 256 * green + 256**2 * blue


def png_of_ids(ids: Int[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """The inverse of `ids_of_png`; ValueError if an id is not from 0 to 2²⁴ − 1."""
    if ids.size and not 0 <= ids.min() <= ids.max() <= LARGEST_ID:
        raise ValueError(f"ids in a PNG are from 0 to {LARGEST_ID}, got {ids.min()} to {ids.max()}")
    return np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=2).astype(np.uint8)


# Reading


@dataclass(frozen=True)
class PanopticFile(CocoFile):
    """What is sound in a panoptic JSON file. Annotations are segments; `ids` number them through the whole file."""

    segment_ids: np.ndarray  # (annotations,) int64: as in their image's PNG
    things: frozenset[int]  # the category ids whose objects are counted
    maps: list[str | None]  # (images,) the file names of the PNGs; None where the JSON names none
    left_out: dict[int, frozenset[int]]  # image id → ids of its segments that are in the JSON, but broken


def read_panoptic(path: Path, bad_items: BadItems) -> PanopticFile:
    """Reads and checks a whole panoptic JSON file; neither pictures nor PNGs are looked at.

    An image that "annotations" does not name has no segments: it is void everywhere, and needs no PNG.

    Args:
        path: the JSON file.
        bad_items: where broken images and segments are reported.

    Raises:
        CocoFormatError: if the file is not COCO's panoptic format; the message says where, and what was expected.
        BadItemError: at the first broken image or segment, if `bad_items` says "stop".
    """
    content = read_json(path)
    categories = read_categories(path, content["categories"])
    things = _read_things(path, content["categories"])
    images = read_images(path, content["images"], bad_items)
    file_names = names_of_images(content["images"])
    entries, broken = _read_entries(path, content["annotations"], file_names, bad_items)
    images = [image for image in images if image["id"] not in broken]
    if not images:
        raise CocoFormatError(f'{path}: no image has an entry in "annotations" that is sound')

    # One list of all segments, each as an annotation of the image it is in, with its place as its id.
    segments, flat, names, reasons = [], [], [], {}
    for image_id, entry in entries.items():
        listed = entry["segments_info"]
        times = Counter(s["id"] for s in listed if isinstance(s, dict) and is_id(s.get("id")))
        for place, segment in enumerate(listed):
            if (reason := _wrong_id(segment, times)) is not None:
                reasons[len(flat)] = reason
            fields_of = segment if isinstance(segment, dict) else {}
            named = (
                f"segment {fields_of['id']}"
                if is_id(fields_of.get("id"))
                else f'number {place} of "segments_info"'
            )
            names.append((image_id, named))
            segments.append(segment)
            flat.append({**fields_of, "id": len(flat) + 1, "image_id": image_id})
    file = sound_annotations(path, categories, images, file_names, flat, reasons)

    left_out: dict[int, set[int]] = {}
    for number in sorted(reasons):
        image_id, named = names[number]
        bad_items.report(
            BadItem(f"{path}: image {image_id} ({file_names[image_id]}), {named}", reasons[number])
        )
        if isinstance(segments[number], dict) and is_id(segments[number].get("id")):
            left_out.setdefault(image_id, set()).add(segments[number]["id"])
    map_of = {image_id: entry["file_name"] for image_id, entry in entries.items()}
    return PanopticFile(
        **{field.name: getattr(file, field.name) for field in fields(CocoFile)},
        segment_ids=np.array([segments[id_ - 1]["id"] for id_ in file.ids.tolist()], dtype=np.int64),
        things=things,
        maps=[map_of.get(image_id) for image_id in file.image_ids.tolist()],
        left_out={image_id: frozenset(ids) for image_id, ids in left_out.items()},
    )


def read_map(path: Path, size: tuple[int, int]) -> Int[np.ndarray, "height width"]:
    """The segment ids in a PNG.

    Args:
        path: the file.
        size: (height, width) that the image has by the JSON.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, is no PNG in RGB, or has another size; the message does not name the file.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            form, mode, pixels = picture.format, picture.mode, np.asarray(picture)
    except FileNotFoundError:
        raise
    except Exception as error:  # on broken bytes, decoders raise all kinds of errors
        raise ValueError(f"the map of segments cannot be read: {error or type(error).__name__}") from error
    if (form, mode) != ("PNG", "RGB"):
        raise ValueError(f"the map of segments is a {form} of mode {mode}, expected a PNG of mode RGB")
    if pixels.shape[:2] != size:
        height, width = pixels.shape[:2]
        raise ValueError(
            f"the map of segments is {width} × {height} pixels, the image by the JSON {size[1]} × {size[0]}"
        )
    return ids_of_png(pixels)


def disagreement(
    ids: Int[np.ndarray, "height width"], listed: Collection[int], left_out: Collection[int] = ()
) -> str | None:
    """Which segments are listed but have no pixel, and which the other way round; None if there are none.

    Those that were left out may have pixels or not: they are reported already.
    """
    row = ids.ravel()
    begins = np.flatnonzero(np.diff(row, prepend=-1))  # of runs of one id: there are far fewer than pixels
    present = set(np.unique(row[begins]).tolist()) - {VOID}
    reasons = [
        f"{'segments' if len(those) > 1 else 'segment'} {some(sorted(those))} {what}"
        for those, what in (
            (set(listed) - present, "listed in the JSON, but without a pixel in the PNG"),
            (present - set(listed) - set(left_out), "in the PNG, but not listed in the JSON"),
        )
        if those
    ]
    return "; ".join(reasons) or None


def _read_things(path: Path, categories: list[dict[str, Any]]) -> frozenset[int]:
    for place, category in enumerate(categories):
        if category.get("isthing") not in (0, 1):
            raise CocoFormatError(
                f'{path}: number {place} of "categories" is {short(category)}; expected "isthing" to be 0 (stuff) or '
                f"1 (a thing), got {found(category, 'isthing')}"
            )
    return frozenset(category["id"] for category in categories if category["isthing"])


def _read_entries(
    path: Path, annotations: list[Any], file_names: dict[int, str], bad_items: BadItems
) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """Image id → its entry, where that is sound; and the ids of images whose entry is not."""
    if annotations and not any(isinstance(entry, dict) and "segments_info" in entry for entry in annotations):
        raise CocoFormatError(
            f'{path}: nothing in "annotations" has "segments_info"; expected COCO\'s panoptic format, where each is an '
            'object with "image_id", "file_name" (of a PNG) and "segments_info"'
        )
    entries: dict[int, dict[str, Any]] = {}
    broken: set[int] = set()
    for place, entry in enumerate(annotations):
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if (reason := _malformed_entry(entry)) is None and image_id not in file_names:
            reason = "there is no image with this id"
        if reason is None and (image_id in entries or image_id in broken):
            reason = "another entry before it is of the same image: which of them is right is not known"
        if reason is None:
            entries[image_id] = entry
            continue
        where = f'number {place} of "annotations"'
        if is_id(image_id):
            broken.add(image_id)
            known = f" ({file_names[image_id]})" if image_id in file_names else ""
            where += f", image {image_id}{known}"
        bad_items.report(BadItem(f"{path}: {where}", reason))
    return {image_id: entry for image_id, entry in entries.items() if image_id not in broken}, broken


def _malformed_entry(entry: Any) -> str | None:
    """What is wrong with the form of an image's entry, its segments aside; None if nothing is."""
    if not isinstance(entry, dict):
        return f"expected an object, got {short(entry)}"
    if not is_id(entry.get("image_id")):
        return f'expected a whole number as "image_id", got {found(entry, "image_id")}'
    if not is_text(entry.get("file_name")):
        return f'expected the name of a PNG as "file_name", got {found(entry, "file_name")}'
    if not isinstance(entry.get("segments_info"), list):
        return f'expected a list as "segments_info", got {found(entry, "segments_info")}'
    return None


def _wrong_id(segment: Any, times: Counter) -> str | None:
    """What is wrong with the form of a segment, or with its id; None if nothing is."""
    if not isinstance(segment, dict):
        return f"expected an object, got {short(segment)}"
    if not is_id(segment.get("id")):
        return f'expected a whole number as "id", got {found(segment, "id")}'
    if not VOID < segment["id"] <= LARGEST_ID:
        return f"its id is not from 1 to {LARGEST_ID}, as three bytes hold it (0 is void)"
    if times[segment["id"]] > 1:
        return f"{times[segment['id']]} segments of the image have this id: whose its pixels are is not known"
    return None


# Writing


def write_panoptic(
    folder: Path | str,
    name: str,
    predictions: Iterable[tuple[str, int, Panoptic]],
    categories: Categories,
) -> Path:
    """Write `folder/NAME.json` and a PNG in `folder/NAME/` for each image, each file whole or not at all.

    The JSON comes last, so that it never names a PNG that is not there. Segments that name the queries they are made of
    were predicted: they have a "score" as well.

    Args:
        folder: made if it does not exist. `DIR/train` and the name "panoptic", with the pictures in that folder too,
            are a split that `CocoPanoptic` reads.
        name: of the file and of the folder of PNGs.
        predictions: the picture's file name, the image's id, and its segments.
        categories: what the segments' labels are.

    Returns:
        The JSON file.

    Raises:
        ValueError: if an image id comes twice, or a map and its list of segments disagree; the message names image and
            segment.
    """
    folder = Path(folder)
    maps = folder / name
    maps.mkdir(parents=True, exist_ok=True)
    images, annotations = {}, []
    taken: set[str] = set()
    for file_name, image_id, panoptic in predictions:
        if image_id in images:
            raise ValueError(f"image {image_id} is there twice, the second time as {file_name}")
        ids = panoptic.segment_ids.cpu().numpy()
        png = f"{Path(file_name).stem}.png"
        if png in taken:  # of pictures called a.jpg and a.png
            png = f"{Path(file_name).stem}-{image_id}.png"
        taken.add(png)
        segments = _segments_info(ids, panoptic, categories, f"image {image_id} ({file_name})")
        stream = io.BytesIO()
        Image.fromarray(png_of_ids(ids)).save(stream, "PNG")
        write_atomically(maps / png, stream.getvalue())
        height, width = ids.shape
        images[image_id] = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        annotations.append({"image_id": image_id, "file_name": png, "segments_info": segments})

    things = categories.things
    content = {
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [
            {"id": category_id, "name": category, "isthing": int(label in things)}
            for label, (category_id, category) in enumerate(
                zip(categories.ids, categories.names, strict=True)
            )
            if category_id is not None
        ],
    }
    file = folder / f"{name}.json"
    write_atomically(file, json.dumps(content, ensure_ascii=False).encode())
    return file


def _segments_info(
    ids: Int[np.ndarray, "height width"], panoptic: Panoptic, categories: Categories, image: str
) -> list[dict[str, Any]]:
    times = Counter(segment.id for segment in panoptic.segments)
    if (reason := disagreement(ids, times)) is not None:
        raise ValueError(f"{image}: the map and the list of segments disagree: {reason}")
    entries = []
    for segment in panoptic.segments:
        label = segment.label
        category_id = categories.ids[label] if 0 <= label < len(categories) else None
        reason = _wrong_id({"id": segment.id}, times)
        if reason is None and category_id is None:
            reason = f"no category has its label, {label}"
        if reason is None and segment.is_thing != (label in categories.things):
            reason = f"is_thing is {segment.is_thing}, which {categories.names[label]!r} is not"
        if reason is not None:
            raise ValueError(f"{image}, segment {segment.id}: {reason}")
        mask = ids == segment.id
        entry = {
            "id": int(segment.id),
            "category_id": category_id,
            "bbox": box_around(torch.from_numpy(mask)),
            "area": int(mask.sum()),
            "iscrowd": int(segment.is_crowd),
        }
        entries.append(entry | ({"score": float(segment.score)} if segment.queries else {}))
    return entries


def box_around(mask: Bool[Tensor, "height width"]) -> list[int]:
    """COCO's box of a mask that has a pixel: left, top, width, height."""
    left, top, right, bottom = boxes_around(mask).tolist()
    return [left, top, right - left, bottom - top]
