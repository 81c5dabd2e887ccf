"""A panoptic model on a data set: panoptic quality, and average precision of boxes and of masks."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minivis.data.items import BadItems, Categories
from minivis.data.panoptic import PanopticDataset
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
    threshold: float = 0.85,
) -> dict[str, Any]:
    """PQ of a `DETRsegm` on a data set, in the original size of its images, and AP of the boxes and masks of things.

    The result depends neither on the batch size nor on the number of processes: see `evaluate_detection`, whose
    arguments these are.

    Args:
        threshold: of the score of a query whose mask takes part in the panoptic map. AP ranks all, without a threshold.

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
    if labels_of(model, categories) != categories:
        raise ValueError(
            "the model's classes are not those of the data set, in their order; "
            "a data set made with `categories=model.categories` has the model's"
        )
    images = dataset.ground_truth()["images"]
    quality = PanopticQuality(len(categories), categories.things)
    share: dict[str, list[Any]] = {"images": [], "annotations": [], "results": []}

    batches = same_size_batches(dataset, images, device, batch_size, bad_items, progress, max_images, workers)
    with evaluating(model):
        for pixels, targets in batches:
            truths = [dataset.truth(target) for target in targets]
            seen = Segmenter(model, pixels, [tuple(truth.segment_ids.shape) for truth in truths])
            predicted, instances = seen.panoptic(categories.things, threshold), seen.instances()
            for target, truth, panoptic, found in zip(targets, truths, predicted, instances, strict=True):
                image_id = target["image_id"]
                quality.add(panoptic, truth, image_id)
                share["images"].append(
                    {"id": image_id} | dict(zip(("height", "width"), truth.segment_ids.shape, strict=True))
                )
                share["annotations"] += annotations_of(truth, image_id, categories)
                share["results"] += instance_results(found, image_id, categories)

    shares = of_all_processes((quality.counts, share))
    quality.counts = sum(counts for counts, _ in shares)
    truth = {key: [entry for _, own in shares for entry in own[key]] for key in ("images", "annotations")}
    results = [entry for _, own in shares for entry in own["results"]]
    boxes = detection_metrics(truth, results, categories)
    masks = detection_metrics(truth, results, categories, "segm")
    by_class = dict(zip(categories.names, quality.by_class()[:, 0].tolist(), strict=True))
    ap_by_class = boxes.pop("by_class")
    del masks["by_class"]
    return {
        **quality.metrics(),
        **boxes,
        **{f"mask_{name}": value for name, value in masks.items()},
        "PQ_by_class": by_class,
        "AP_by_class": {name: ap_by_class[name] for name in by_class if name in ap_by_class},
        "images": len(truth["images"]),
        "seconds": time.perf_counter() - start,
    }


def annotations_of(truth: Panoptic, image_id: int, categories: Categories) -> list[dict[str, Any]]:
    """The things of a panoptic map as COCO's annotations of instances."""
    annotations = []
    for segment in truth.segments:
        if segment.is_thing:
            mask = (truth.segment_ids == segment.id).cpu().numpy()
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top = int(columns[0]), int(rows[0])
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": categories.ids[segment.label],
                    "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                    "area": int(mask.sum()),
                    "segmentation": run_lengths(mask),
                    "iscrowd": int(segment.is_crowd),
                }
            )
    return annotations


def instance_results(found: dict[str, Tensor], image_id: int, categories: Categories) -> list[dict[str, Any]]:
    """Things that a `Segmenter` found in an image, in COCO's results format, with boxes and masks."""
    things = [i for i, label in enumerate(found["labels"].tolist()) if label in categories.things]
    found = {name: values[things] for name, values in found.items()}
    entries = results_of([found], [image_id], categories)
    masks = found["masks"].cpu().numpy()
    return [entry | {"segmentation": run_lengths(mask)} for entry, mask in zip(entries, masks, strict=True)]


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask in COCO's compressed run-length format, as JSON can hold it."""
    from faster_coco_eval.core import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}
