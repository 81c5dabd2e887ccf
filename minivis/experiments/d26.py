"""D26: masks for a detector that is trained and then frozen, or for one that learns together with them."""

from dataclasses import replace
from functools import cache
from statistics import fmean

import torch

from minivis.data.scenes import Scenes
from minivis.detr import DETR, DETRsegm, HungarianMatcher, PanopticConfig, SetCriterion, build_detr
from minivis.evaluation.segmentation import evaluate_panoptic
from minivis.experiments import small_detr
from minivis.experiments.experiment import Experiment

WORLD = replace(small_detr.WORLD, ground="textured")  # with stuff: what the ground is made of
CLASSES = len(Scenes("val", WORLD, stuff=True).categories)
HEADS, CELLS = 8, 8 * 8
CONFIG = PanopticConfig(
    **small_detr.CONFIG.to_dict() | {"num_classes": CLASSES, "num_heads": HEADS, "dropout": 0.1},
    attention_gain=HEADS * CELLS,
)
STEPS = 600  # of the detector, and as many of the masks
THRESHOLD = 0.5  # of a query's score: after so short a training few reach the paper's 0.85
BOXES = {"loss_ce": 4.0, "loss_bbox": 5.0, "loss_giou": 2.0}
MASKS = {"loss_mask": 1.0, "loss_dice": 1.0}

TWO_STAGES, DROPOUT_ON, JOINT = "two stages", "dropout left on", "joint"


def train(model: DETR | DETRsegm, weights: dict[str, float], seed: int, steps: int) -> small_detr.History:
    """Trains a model by the losses that are weighted; others are only recorded. Then it is in evaluation mode."""
    names = ("labels", "boxes", "masks") if isinstance(model, DETRsegm) else ("labels", "boxes")
    criterion = SetCriterion(CLASSES, HungarianMatcher(), weights, losses=names)
    data = Scenes("train", WORLD, stuff=True)
    _, history = small_detr.train_small(criterion, seed, steps, data, build=lambda: model)
    return history


@cache
def trained_detector(seed: int, steps: int) -> DETR:
    """The first stage, the same for all that follows: a detector of things and stuff, without masks."""
    torch.manual_seed(seed)
    detr = build_detr(CONFIG.detr)
    train(detr, BOXES, seed, steps)
    return detr


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    steps, images = (10, 20) if reduced else (STEPS, small_detr.EVALUATED)
    trained = None if variant == JOINT else trained_detector(seed, steps)
    torch.manual_seed(seed)  # so that fresh detectors and fresh mask heads are alike in all variants
    detr = build_detr(CONFIG.detr)
    model = DETRsegm(detr, variant == TWO_STAGES, CONFIG.mask_stride, CONFIG.attention_gain)
    if trained is not None:
        detr.load_state_dict(trained.state_dict())
        detr.requires_grad_(False)
    history = train(model, BOXES | MASKS if variant == JOINT else MASKS, seed, steps)

    validation = Scenes("val", WORLD, size=images, stuff=True)
    metrics = evaluate_panoptic(model, validation, batch_size=50, progress=False, threshold=THRESHOLD)
    return {name: metrics[name] for name in MEASURES if name in metrics} | {
        "loss_giou": fmean(history["loss_giou"][-steps // 10 :])
    }


MEASURES = {
    "PQ": "panoptic quality, mean over things and stuff",
    "PQ_things": "panoptic quality of things",
    "PQ_stuff": "panoptic quality of stuff",
    "SQ": "segmentation quality: mean IoU of the segments that were found",
    "RQ": "recognition quality: how many segments were found, and how many were made up",
    "AP": "average precision of the boxes of things, mean over IoU thresholds 0.50 to 0.95",
    "loss_giou": "1 − GIoU of a matched box as the training sees it, mean over its last tenth",
}

D26 = Experiment(
    id="D26",
    claim="The detector can be frozen while the mask head is trained, without loss.",
    question="Two stages or one, with as many steps for the detector and as many for the masks?",
    variants={
        TWO_STAGES: "first the detector; then, with it frozen and in evaluation mode, the masks",
        DROPOUT_ON: "the same detector, its parameters frozen, but its dropout of 0.1 left on while masks are trained",
        JOINT: "detector and masks from the first step on, by the sum of all losses",
    },
    measures=MEASURES,
    estimate="estimate: 15 minutes on one CPU core",
    run=run,
)
