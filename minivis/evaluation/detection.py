"""Average precision of detections by COCO's rules (Lin et al. 2014, https://cocodataset.org/#detection-eval).

A detection is right if its IoU with an object of its class, not found before, passes a threshold. AP is the
area under the curve of precision over recall, averaged over ten thresholds (0.50, 0.55, ... 0.95) and over
classes; AR is the recall that the best 1, 10 or 100 detections of an image and class reach on average.
"""

import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from minivis.data.items import BadItems, Categories, DetectionDataset
from minivis.detr import postprocess
from minivis.evaluation.batches import evaluating, of_all_processes, placed, same_size_batches

AREAS = ("small", "medium", "large")  # of an object, in pixels: below 32², between, above 96²


def detection_metrics(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    categories: Categories,
    iou: Literal["bbox", "segm"] = "bbox",
) -> dict[str, Any]:
    """AP and AR of `results` by COCO's rules, as fractions 0..1.

    Args:
        ground_truth: `images` and `annotations` in COCO's format. Images without objects count too.
        results: in COCO's results format: `image_id`, `category_id`, `bbox` (x, y, width, height), `score`.
        categories: the classes to average over.
        iou: of boxes, or of masks; then annotations and results have a `segmentation` in COCO's run-length format.

    Returns:
        `AP`, `AP50`, `AP75`, `AP_small`, `AP_medium`, `AP_large`, `AR_1`, `AR_10`, `AR_100`, `AR_small`,
        `AR_medium`, `AR_large`, and `by_class`: name → AP. What no object could decide (COCO's -1) is nan.

    Raises:
        ValueError: if a result names an image or a category that is not there, or is not finite.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ImportError("COCO's AP needs faster-coco-eval: `pip install faster-coco-eval`") from error

    category_ids = [category_id for category_id in categories.ids if category_id is not None]
    image_ids = [image["id"] for image in ground_truth["images"]]
    _check_ids(ground_truth["annotations"], "annotation", image_ids, category_ids)
    _check_ids(results, "result", image_ids, category_ids)
    numbers = np.array([[*result["bbox"], result["score"]] for result in results]).reshape(-1, 5)
    for i in np.flatnonzero(~np.isfinite(numbers).all(axis=1))[:1]:
        raise ValueError(f"a result for image {results[i]['image_id']} is not finite: {results[i]}")

    # precision: (10 thresholds, 101 recalls, classes, 4 areas, 3 limits); recall lacks the second axis.
    # The areas are all, small, medium, large; the limits 1, 10, 100 detections of an image and class.
    precision = np.full((10, 101, len(category_ids), 4, 3), -1.0)
    recall = precision[:, 0]
    if image_ids and category_ids:
        # Copies, since the library writes into what it is given; ids from 1, since 0 would mean "no match".
        truth = COCO(
            {
                "images": [dict(image) for image in ground_truth["images"]],
                "annotations": [{**a, "id": i} for i, a in enumerate(ground_truth["annotations"], start=1)],
                "categories": [{"id": category_id} for category_id in category_ids],
            }
        )
        evaluator = COCOeval_faster(truth, truth.loadRes([dict(result) for result in results]), iou)
        evaluator.evaluate()
        evaluator.accumulate()
        precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]

    # COCOeval sorts its classes by id.
    by_class = {id_: _mean(precision[:, :, i, 0, -1]) for i, id_ in enumerate(sorted(category_ids))}
    return {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[5, :, :, 0, -1]),
        **{f"AP_{area}": _mean(precision[:, :, :, i, -1]) for i, area in enumerate(AREAS, start=1)},
        **{f"AR_{most}": _mean(recall[:, :, 0, i]) for i, most in enumerate((1, 10, 100))},
        **{f"AR_{area}": _mean(recall[:, :, i, -1]) for i, area in enumerate(AREAS, start=1)},
        "by_class": {categories.names[categories.label_of(id_)]: by_class[id_] for id_ in category_ids},
    }


def results_of(
    detections: Sequence[dict[str, Tensor]], image_ids: Sequence[int], categories: Categories
) -> list[dict[str, Any]]:
    """What `postprocess` found in each image, in COCO's results format.

    Detections of a label that no category has (a hole in COCO's ids) are left out.

    Args:
        detections: one dict an image: `scores` (N,), `labels` (N,), `boxes` (N, 4) xyxy in pixels.
        image_ids: the id of each image.
        categories: those the model was trained on.

    Raises:
        ValueError: if a label is not one of the K of `categories`.
    """
    results = []
    for image_id, found in zip(image_ids, detections, strict=True):
        boxes = box_convert(found["boxes"], "xyxy", "xywh").tolist()
        for score, label, box in zip(found["scores"].tolist(), found["labels"].tolist(), boxes, strict=True):
            if not 0 <= label < len(categories):
                raise ValueError(f"image {image_id}: label {label} is none of 0..{len(categories) - 1}")
            category_id = categories.ids[label]
            if category_id is not None:
                results.append(
                    {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
                )
    return results


def evaluate_detection(
    model: nn.Module,
    dataset: DetectionDataset,
    device: torch.device | str | None = None,
    batch_size: int = 16,
    bad_items: BadItems | None = None,
    progress: bool = True,
    max_images: int | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """`detection_metrics` of a detector on a data set, at the size the pictures have in it.

    The result depends neither on the batch size nor on the number of processes: images of a batch that differ
    in size go through the model one size after another, since padding changes what convolutions see at an
    image's border. Where `torch.distributed` runs, each process takes a share of the images and returns the
    metrics of all.

    Args:
        model: a `DETR`. The `categories` of a loaded model say what its labels mean, else those of the data.
        device: where the model is moved to and evaluated; None: where it is.
        bad_items: told of the items that cannot be read; the ground truth is then without them. None: skip.
        max_images: only the first so many images.
        workers: processes that read images.

    Returns:
        the metrics, and `images`, how many were evaluated, and `seconds`, how long it took.

    Raises:
        ValueError: if model and data give the same category id to different names.
        BadItemError: at the first bad item, if `bad_items` says "stop".
    """
    start = time.perf_counter()
    model, device = placed(model, device)
    bad_items = BadItems("skip") if bad_items is None else bad_items
    truth = dataset.ground_truth()
    labels = labels_of(model, dataset.categories)
    known_ids = set(dataset.categories.ids)

    batches = same_size_batches(
        dataset, truth["images"], device, batch_size, bad_items, progress, max_images, workers
    )
    results, seen = [], []
    with evaluating(model):
        for pixels, targets in batches:
            sizes = torch.tensor([target["original_size"] for target in targets], device=device)
            image_ids = [target["image_id"] for target in targets]
            found = results_of(postprocess(model(pixels), sizes), image_ids, labels)
            # A class that the data does not know can be neither right nor wrong there.
            results += [result for result in found if result["category_id"] in known_ids]
            seen += image_ids

    shares = of_all_processes((results, seen))
    results, kept = [r for share in shares for r in share[0]], {i for share in shares for i in share[1]}
    truth = {
        "images": [image for image in truth["images"] if image["id"] in kept],
        "annotations": [annotation for annotation in truth["annotations"] if annotation["image_id"] in kept],
    }
    metrics = detection_metrics(truth, results, dataset.categories)
    return {**metrics, "images": len(kept), "seconds": time.perf_counter() - start}


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined: COCO writes -1 where there is no object to find."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan


def _check_ids(
    entries: Sequence[dict[str, Any]], what: str, image_ids: list[int], category_ids: list[int]
) -> None:
    for key, known in (("image_id", set(image_ids)), ("category_id", set(category_ids))):
        unknown = sorted({entry[key] for entry in entries} - known)
        if unknown:
            shown = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
            raise ValueError(f"{what}s with a {key} that the ground truth does not have: {shown}")


def labels_of(model: nn.Module, data: Categories) -> Categories:
    """What the model's labels mean. It shares category ids with the data, so their names must agree."""
    own = getattr(model, "categories", data)
    names = dict(zip(data.ids, data.names))
    for id_, name in zip(own.ids, own.names):
        if id_ is not None and names.get(id_, name) != name:
            raise ValueError(
                f"category {id_} is {name!r} for the model and {names[id_]!r} in the data set;"
                " a data set made with `categories=model.categories` matches them by name"
            )
    return own
