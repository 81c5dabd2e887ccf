"""D33: how many steps of training does DETR need, beside a convolutional detector of its size?"""

import time

import torch
from torch import nn

from minivis.data.scenes import Scenes
from minivis.detr import postprocess
from minivis.evaluation.detection import detection_metrics, results_of
from minivis.experiments.experiment import Experiment
from minivis.experiments.small_detr import CONFIG, EVALUATED, WORLD, build_small, small_criterion, train_small
from minivis.experiments.small_fcos import FCOSCriterion, SmallFCOS, fcos_detections

# Steps of 32 scenes. Each is a training of its own, whose learning rate falls to zero at its end.
BUDGETS = (100, 200, 400, 800, 1600)


def build_fcos() -> SmallFCOS:
    return SmallFCOS(CONFIG.num_classes, CONFIG.backbone_channels)


def average_precision_of(model: nn.Module, data: Scenes, batch_size: int = 50) -> dict[str, float]:
    """COCO's metrics of either detector."""
    results = []
    for indices in torch.arange(len(data)).split(batch_size):
        batch = data.prepare(data.collate([data[int(i)] for i in indices]))
        with torch.no_grad():
            outputs = model(batch.images)
        sizes = [target["original_size"] for target in batch.targets]
        found = fcos_detections(outputs) if isinstance(model, SmallFCOS) else postprocess(outputs, sizes)
        results += results_of(found, [target["image_id"] for target in batch.targets], data.categories)
    return detection_metrics(data.ground_truth(), results, data.categories)


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    """AP50 and AP after each budget, how many weights there are, and how long a step takes."""
    build, criterion = {
        "DETR": (build_small, small_criterion()),
        "convolutions": (build_fcos, FCOSCriterion()),
    }[variant]
    validation = Scenes("val", WORLD, size=20 if reduced else EVALUATED)
    ap50: dict[str, float] = {}
    ap: dict[str, float] = {}
    for budget in BUDGETS:
        steps = budget // 100 if reduced else budget
        start = time.process_time()
        model, _ = train_small(criterion, seed, steps, build=build)
        milliseconds = 1000 * (time.process_time() - start) / steps
        metrics = average_precision_of(model, validation)
        ap50[f"AP50_{budget}"], ap[f"AP_{budget}"] = metrics["AP50"], metrics["AP"]
    size = sum(parameter.numel() for parameter in model.parameters())
    return ap50 | ap | {"parameters": size, "milliseconds": milliseconds}


D33 = Experiment(
    id="D33",
    claim="DETR needs an order of magnitude more epochs of training than other detectors.",
    question="On the same scenes, how far does a convolutional detector of equal size come in the same steps?",
    variants={
        "DETR": "the small DETR",
        "convolutions": "the same backbone, then convolutions only; a box for every cell (`small_fcos.py`)",
    },
    measures={
        **{
            f"AP50_{n}": f"average precision at IoU 0.50 after a training of {n} steps of 32 scenes"
            for n in BUDGETS
        },
        **{
            f"AP_{n}": f"average precision, mean over IoU thresholds 0.50 to 0.95, after {n} steps"
            for n in BUDGETS
        },
        "parameters": "numbers that are learned",
        "milliseconds": "time of one CPU core for a step of training, making the scenes included",
    },
    estimate="measured: 23 minutes on one CPU core",
    run=run,
)
