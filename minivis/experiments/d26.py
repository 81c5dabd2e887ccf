"""D26: masks for a detector that is trained first and then frozen, or for one that learns together with them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from statistics import fmean
from typing import Any

import torch
from torch import nn

from minivis.data.items import DetectionBatch
from minivis.data.scenes import Scenes
from minivis.detr import DETR, DETRsegm, HungarianMatcher, SetCriterion, build_detr, mini_panoptic_config
from minivis.evaluation.segmentation import evaluate_panoptic
from minivis.experiments.experiment import Experiment
from minivis.pretrained import load
from minivis.training.detection import adopt_weights

STEPS, BATCH = 200, 8  # so many steps of the detector, and as many of the masks
EVALUATED = 200  # scenes that no training sees
DETECTOR_RATE, MASK_RATE = 5e-4, 2e-3  # learning rates, as in the recipe of the shipped model
DROPOUT = 0.1
BOXES = {"loss_ce": 4.0, "loss_bbox": 5.0, "loss_giou": 2.0}
MASKS = {"loss_mask": 1.0, "loss_dice": 1.0}

TWO_STAGES, DROPOUT_ON, JOINT = "two stages", "dropout left on", "joint"


def starting_detector() -> DETR:
    """The detector of the shipped panoptic model, which knows things and stuff, with dropout. Its masks are left out.

    From `detr-mini`, or from nothing, 300 steps do not teach stuff, and then a panoptic map cannot be judged.
    """
    shipped = load("panoptic-mini").detr
    detr = build_detr(replace(shipped.config, dropout=DROPOUT))
    adopt_weights(detr, shipped, same_classes=True)
    return detr


def batches(seed: int, steps: int) -> Iterator[DetectionBatch]:
    """Scenes of things and stuff that no other seed and no other step sees."""
    data = Scenes("train", stuff=True)
    for step in range(seed * 10**6, seed * 10**6 + steps):
        yield data.prepare(data.collate([data[0, step * BATCH + i] for i in range(BATCH)]))


def train(model: DETR | DETRsegm, weights: dict[str, float], seed: int, steps: int) -> list[float]:
    """Trains what wants a gradient by the losses that have a weight. Gives the boxes' GIoU loss at every step."""
    torch.manual_seed(seed)
    with_masks = isinstance(model, DETRsegm)
    parts = ("labels", "boxes", "masks") if with_masks else ("labels", "boxes")
    criterion = SetCriterion(model.num_classes, HungarianMatcher(), weights, losses=parts)
    of_detector = [p for p in (model.detr if with_masks else model).parameters() if p.requires_grad]
    of_masks = (
        [p for part in (model.bbox_attention, model.mask_head) for p in part.parameters()]
        if with_masks
        else []
    )
    groups = [(of_detector, DETECTOR_RATE), (of_masks, MASK_RATE)]
    groups = [{"params": parameters, "lr": rate} for parameters, rate in groups if parameters]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, steps + 1, pct_start=0.1, cycle_momentum=False
    )

    @torch.autocast("cpu", torch.bfloat16)  # as in the recipe; the losses are computed in float32
    def forward(*inputs: Any) -> dict:
        return model(*inputs)

    history = []
    model.train()
    for images, targets, _ in batches(seed, steps):
        if with_masks:
            losses = criterion.with_matched_masks(forward, images, targets)
        else:
            losses = criterion(forward(images), targets)
        optimizer.zero_grad()
        criterion.weighted_sum(losses).backward()
        nn.utils.clip_grad_norm_(of_detector + of_masks, 0.1)
        optimizer.step()
        schedule.step()
        history.append(losses["loss_giou"].item())
    model.eval()
    return history


@cache
def trained_detector(seed: int, steps: int) -> DETR:
    """The first stage, the same whatever follows."""
    torch.manual_seed(seed)
    detr = starting_detector()
    train(detr, BOXES, seed, steps)
    return detr


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    steps, images = (4, 20) if reduced else (STEPS, EVALUATED)
    trained = None if variant == JOINT else trained_detector(seed, steps)
    torch.manual_seed(seed)  # so that new mask heads are alike in all variants
    detr = starting_detector()
    model = DETRsegm(detr, variant == TWO_STAGES, **mini_panoptic_config(detr.num_classes).of_masks)
    if trained is not None:
        detr.load_state_dict(trained.state_dict())
        detr.requires_grad_(False)
    history = train(model, BOXES | MASKS if variant == JOINT else MASKS, seed, steps)

    validation = Scenes("val", size=images, stuff=True)
    metrics = evaluate_panoptic(model, validation, batch_size=20, progress=False)
    measured = {name: metrics[name] for name in MEASURES if name in metrics}
    return measured | {"loss_giou": fmean(history[-max(1, steps // 10) :])}


MEASURES = {
    "PQ": "panoptic quality, mean over things and stuff",
    "PQ_things": "panoptic quality of things",
    "PQ_stuff": "panoptic quality of stuff",
    "SQ": "segmentation quality: mean IoU of the segments that were found",
    "mask_AP": "average precision of the masks of things, mean over IoU thresholds 0.50 to 0.95",
    "AP": "the same of their boxes",
    "loss_giou": "1 − GIoU of a matched box as the training sees it, mean over its last tenth",
}

D26 = Experiment(
    id="D26",
    claim="The detector can be frozen while the mask head is trained, without loss.",
    question="From a detector of things and stuff on: two stages or one, with as many steps for the detector and as "
    "many for new masks?",
    variants={
        TWO_STAGES: "first the detector goes on; then, with it frozen and in evaluation mode, the masks",
        DROPOUT_ON: "the same detector, its parameters frozen, but its dropout of 0.1 left on while masks are trained",
        JOINT: "the detector goes on together with the masks, by the sum of all losses",
    },
    measures=MEASURES,
    estimate="measured: 10 minutes on one CPU core",
    run=run,
)
