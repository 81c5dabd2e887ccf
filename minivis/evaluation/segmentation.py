"""A panoptic model on a data set: panoptic quality, and average precision of boxes and of masks."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from minivis.data.items import BadItems, Categories
from minivis.data.panoptic import PanopticDataset
from minivis.data.panoptic_json import box_around
from minivis.detr import Panoptic, Segmenter
from minivis.evaluation.batches import evaluating, of_all_processes, placed, same_size_batches
from minivis.evaluation.detection import detection_metrics, labels_of, results_of
from minivis.evaluation.panoptic import PanopticQuality


def evaluate_panoptic(
    model: nn.Module,
    dataset: PanopticDataset,
    device: torch.device | str | None = None,
    batch_size: int = 16,
    bad_items: BadItems | None = None,
    progress: bool = True,
    max_images: int | None = None,
    workers: int = 0,
    threshold: float | None = None,
) -> dict[str, Any]:
    """PQ of a `DETRsegm` on a data set, in the original size of its images, and AP of the boxes and masks of things.

    The result depends neither on the batch size nor on the number of processes: see `evaluate_detection`, whose
    arguments these are. The detector sees a batch, masks are made and encoded image by image: beside the detector's
    feature maps there are never more than one image's.

    Args:
        threshold: of the score of a query whose mask takes part in the panoptic map; None: the model's. AP ranks all,
            without a threshold.

    Returns:
        `PQ`, `SQ`, `RQ`, the same ending in `_things` and `_stuff`, `AP` and so on of boxes, `mask_AP` and so on
        of masks, as fractions 0..1; `PQ_by_class`, `AP_by_class`; `images`, `seconds`.

    Raises:
        ValueError: if model and data number or name their classes differently.
        BadItemError: at the first bad item, if `bad_items` says "stop".
    """
    start = time.perf_counter()
    model, device = placed(model, device)
    bad_items = BadItems("skip") if bad_items is None else bad_items
    categories = dataset.categories
    check_classes(model, categories)
    things, stuff = categories.things, categories.stuff
    quality = PanopticQuality(len(categories), things)
    share: dict[str, list[Any]] = {"images": [], "annotations": [], "results": []}

    images = dataset.ground_truth()["images"]
    batches = same_size_batches(dataset, images, device, batch_size, bad_items, progress, max_images, workers)
    with evaluating(model):
        for pixels, targets in batches:
            truths = [dataset.truth(target) for target in targets]
            seen = Segmenter(model, pixels, [tuple(truth.segment_ids.shape) for truth in truths])
            for i, (target, truth) in enumerate(zip(targets, truths, strict=True)):
                image_id, (height, width) = target["image_id"], truth.segment_ids.shape
                quality.add(seen.panoptic_of(i, things, threshold, stuff), truth, image_id)
                share["images"].append({"id": image_id, "height": height, "width": width})
                share["annotations"] += annotations_of(truth, image_id, categories)
                found = seen.instances_of(i, things=things)
                share["results"] += instance_results(found, image_id, categories)

    shares = of_all_processes((quality.counts, share))
    quality.counts = sum(counts for counts, _ in shares)
    joined = {key: [entry for _, own in shares for entry in own[key]] for key in share}
    pq_of_label = quality.by_class()[:, 0].tolist()
    return {
        **quality.metrics(),
        **average_precision(joined, categories),
        "PQ_by_class": {categories.names[label]: pq_of_label[label] for label in sorted(things | stuff)},
        "images": len(joined["images"]),
        "seconds": time.perf_counter() - start,
    }


def check_classes(model: nn.Module, categories: Categories) -> None:
    """Raises a ValueError if a model's labels mean something else than a data set's: maps are compared by label.

    A model may leave it to the data what is stuff.
    """
    own = labels_of(model, categories)
    if own.is_thing is None and len(own) == len(categories):
        own = replace(own, is_thing=categories.is_thing)
    if own == categories:
        return
    for label in range(max(len(own), len(categories))):
        mine, theirs = (described(known, label) for known in (own, categories))
        if mine != theirs:
            raise ValueError(
                f"label {label} is {mine} for the model and {theirs} in the data set; "
                "a data set made with `categories=model.categories` has the model's"
            )


def described(categories: Categories, label: int) -> str:
    if label >= len(categories) or categories.ids[label] is None:
        return "no category"
    kind = "a thing" if label in categories.things else "stuff"
    return f"category {categories.ids[label]} {categories.names[label]!r}, {kind},"


def average_precision(joined: dict[str, list[Any]], categories: Categories) -> dict[str, Any]:
    """AP of boxes and of masks, from `images`, `annotations` and `results` in COCO's formats."""
    truth = {key: joined[key] for key in ("images", "annotations")}
    boxes = detection_metrics(truth, joined["results"], categories)
    masks = detection_metrics(truth, joined["results"], categories, "segm")
    by_class = boxes.pop("by_class")
    del masks["by_class"]
    things = [categories.names[label] for label in sorted(categories.things)]
    return {
        **boxes,
        **{f"mask_{name}": value for name, value in masks.items()},
        "AP_by_class": {name: by_class[name] for name in things},
    }


def annotations_of(truth: Panoptic, image_id: int, categories: Categories) -> list[dict[str, Any]]:
    """The things of a panoptic map as COCO's annotations of instances."""
    annotations = []
    for segment in truth.segments:
        if segment.is_thing:
            mask = (truth.segment_ids == segment.id).cpu()
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": categories.ids[segment.label],
                    "bbox": box_around(mask),
                    "area": int(mask.sum()),
                    "segmentation": run_lengths(mask.numpy()),
                    "iscrowd": int(segment.is_crowd),
                }
            )
    return annotations


def instance_results(
    found: dict[str, Tensor], image_id: int, categories: Categories, mask_size: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """What a `Segmenter` found in an image, in COCO's results format, with boxes and masks.

    Labels that are no things are left out: they are no instances. With `mask_size`, masks are enlarged to it.
    """
    things = categories.things
    kept = [i for i, label in enumerate(found["labels"].tolist()) if label in things]
    found = {name: values[kept] for name, values in found.items()}
    entries = results_of([found], [image_id], categories)
    for entry, mask in zip(entries, found["masks"].cpu(), strict=True):
        mask = mask if mask_size is None else enlarged(mask, mask_size)
        entry["segmentation"] = run_lengths(mask.numpy())
    return entries


def enlarged(values: Shaped[Tensor, "h w"], size: tuple[int, int]) -> Shaped[Tensor, "height width"]:
    """A map in another size, by its nearest pixels: values are ids, or yes and no."""
    rows, columns = (torch.arange(n) * m // n for n, m in zip(size, values.shape, strict=True))
    return values[rows[:, None], columns]


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask in COCO's compressed run-length format, as JSON can hold it."""
    from faster_coco_eval.core import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}
