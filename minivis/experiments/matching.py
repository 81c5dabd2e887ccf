"""Other ways to match than the best one, and what a matching costs: for the claims about DETR's set loss.

A matching is what `HungarianMatcher` gives: for each image `(query_idx, target_idx)`.
"""

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from minivis.boxes import cxcywh_to_xyxy, generalized_box_iou
from minivis.data.items import DetectionDataset
from minivis.detr import HungarianMatcher, SetCriterion, postprocess
from minivis.detr.matcher import Matching
from minivis.detr.targets import PaddedTargets, pad_targets
from minivis.evaluation.detection import detection_metrics, results_of


def greedy_assignment(cost: Float[np.ndarray, "rows columns"]) -> tuple[np.ndarray, np.ndarray]:
    """Takes the cheapest pair, strikes out its row and column, and so on. As scipy's solver gives it, rows rising."""
    left = np.array(cost, dtype=float)
    if not np.isfinite(left).all():
        raise ValueError(f"expected finite costs, got {left[~np.isfinite(left)][0]}")
    pairs = []
    for _ in range(min(left.shape)):
        row, column = np.unravel_index(left.argmin(), left.shape)
        pairs.append((row, column))
        left[row], left[:, column] = np.inf, np.inf
    rows, columns = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    return rows, columns


class GreedyMatcher(HungarianMatcher):
    """The same costs, but the cheapest pair first, and never a thought for what it leaves to the others."""

    @torch.no_grad()
    def match_layers(
        self,
        log_probability: Float[Tensor, "layers batch queries classes"],
        boxes: Float[Tensor, "layers batch queries 4"],
        targets: list[dict],
    ) -> list[Matching]:
        padded = pad_targets(targets, log_probability.shape[-1] - 1, boxes.device)
        cost = self.cost(log_probability, boxes, padded).cpu().numpy()
        counts = [len(target["labels"]) for target in targets]
        return [
            [
                tuple(torch.from_numpy(index) for index in greedy_assignment(block[:, :count]))
                for block, count in zip(layer, counts)
            ]
            for layer in cost
        ]


class ListOrderMatcher(HungarianMatcher):
    """No matching at all: the first object of the list belongs to the first query, the second to the second."""

    def match_layers(
        self,
        log_probability: Float[Tensor, "layers batch queries classes"],
        boxes: Float[Tensor, "layers batch queries 4"],
        targets: list[dict],
    ) -> list[Matching]:
        counts = [min(len(target["labels"]), boxes.shape[2]) for target in targets]
        return [[(torch.arange(count), torch.arange(count)) for count in counts] for _ in log_probability]


class CrossEntropyMatcher(HungarianMatcher):
    """Its class part is the cross-entropy −log p(class), where DETR has −p(class)."""

    def cost(
        self,
        log_probability: Float[Tensor, "layers batch queries classes"],
        boxes: Float[Tensor, "layers batch queries 4"],
        targets: PaddedTargets,
    ) -> Float[Tensor, "layers batch queries objects"]:
        labels = targets.labels[None, :, None, :].expand(*log_probability.shape[:3], -1)
        log_p = log_probability.gather(-1, labels)
        return super().cost(log_probability, boxes, targets) + self.cost_class * (log_p.exp() - log_p)


def predict(
    model: nn.Module, dataset: DetectionDataset, max_images: int | None = None, batch_size: int = 50
) -> tuple[dict[str, Tensor], list[dict]]:
    """The last layer's predictions for a whole data set as if it were one batch, and its targets."""
    device = next(model.parameters()).device
    outputs, targets = [], []
    with torch.no_grad():
        for indices in torch.arange(len(dataset))[:max_images].split(batch_size):
            batch = dataset.prepare(dataset.collate([dataset[int(i)] for i in indices]), device)
            outputs.append(model(batch.images))
            targets += batch.targets
    return {key: torch.cat([o[key] for o in outputs]) for key in ("pred_logits", "pred_boxes")}, targets


def changed_objects(one: Matching, other: Matching) -> Int[Tensor, " images"]:
    """How many objects of each image have another query in the other matching, or have one in only one of them."""
    counts = []
    for (queries, objects), (other_queries, other_objects) in zip(one, other, strict=True):
        first = dict(zip(objects.tolist(), queries.tolist()))
        second = dict(zip(other_objects.tolist(), other_queries.tolist()))
        counts.append(sum(first.get(n) != second.get(n) for n in first.keys() | second.keys()))
    return torch.tensor(counts, dtype=torch.int64)


class GivenMatching:
    """A matcher which always answers with the same matching, so that the loss under it can be asked for."""

    def __init__(self, matching: Matching):
        self.matching = matching

    def match_layers(self, log_probability: Tensor, boxes: Tensor, targets: list[dict]) -> list[Matching]:
        return [self.matching] * len(log_probability)


def loss_under(
    matching: Matching, criterion: SetCriterion, outputs: dict[str, Tensor], targets: list[dict]
) -> float:
    """The weighted loss of predictions if their objects are matched like this, whatever the criterion's matcher."""
    given = copy.copy(criterion)
    given.matcher = GivenMatching(matching)
    last = {key: outputs[key] for key in ("pred_logits", "pred_boxes")}
    return float(given.weighted_sum(given(last, targets)))


def pair_losses(
    criterion: SetCriterion,
    logits: Float[Tensor, "queries classes"],
    boxes: Float[Tensor, "queries 4"],
    target: dict,
) -> Float[Tensor, "queries objects"]:
    """What each pair adds to the loss of one image, compared with the query having no object.

    A query that gets an object pays for class and box, and no longer for "no object":

        w_ce (−log p(class) + eos_coef · log p(no object)) / Σ w(c)  +  (w_L1 · L1 + w_giou (1 − GIoU)) / N

    All else in the loss is the same for every matching. So the matching with the least sum has the least loss.
    """
    boxes_counted, class_weights = criterion.normalisers([[target]], len(logits))
    weight = {name: criterion.weight_dict.get(name, 0.0) for name in ("loss_ce", "loss_bbox", "loss_giou")}
    log_probability = logits.log_softmax(-1)
    ce = criterion.eos_coef * log_probability[:, -1:] - log_probability[:, target["labels"]]
    distance = torch.cdist(boxes, target["boxes"], p=1)
    giou = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target["boxes"]))
    box = weight["loss_bbox"] * distance + weight["loss_giou"] * (1 - giou)
    return weight["loss_ce"] * ce / class_weights + box / boxes_counted


def least_loss_matching(criterion: SetCriterion, outputs: dict[str, Tensor], targets: list[dict]) -> Matching:
    """The matching under which every image, taken as a batch of its own, has the least loss that there is."""
    images = zip(outputs["pred_logits"], outputs["pred_boxes"], targets, strict=True)
    costs = [pair_losses(criterion, *image).cpu().numpy() for image in images]
    return [tuple(torch.from_numpy(index) for index in linear_sum_assignment(cost)) for cost in costs]


def average_precision(
    outputs: dict[str, Tensor], targets: list[dict], dataset: DetectionDataset, drop_no_object: bool = False
) -> dict[str, Any]:
    """COCO's metrics of joined predictions (see `predict`).

    Args:
        drop_no_object: leave out every query whose likeliest class is "no object". COCO's evaluation of DETR keeps
            them all, each with its best other class: a low score costs little, and may still find something.
    """
    found = []
    for logits, boxes, target in zip(outputs["pred_logits"], outputs["pred_boxes"], targets, strict=True):
        kept = logits.argmax(-1) < logits.shape[-1] - 1 if drop_no_object else slice(None)
        image = {"pred_logits": logits[None, kept], "pred_boxes": boxes[None, kept]}
        found += postprocess(image, [target["original_size"]])
    image_ids = [target["image_id"] for target in targets]
    truth = dataset.ground_truth()
    truth = {
        "images": [image for image in truth["images"] if image["id"] in image_ids],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in image_ids],
    }
    return detection_metrics(truth, results_of(found, image_ids, dataset.categories), dataset.categories)
