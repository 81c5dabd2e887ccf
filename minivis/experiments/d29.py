"""D29: is one coarse map the reason that DETR is worse on small objects?

Here it makes the start slow, and nothing else that was seen. After the same steps the fine map is ahead, most of all on
small things. But the coarse one, trained twice as long (and still for less computation), is no worse on either.

What this does not show: where each of them ends, for AP50 rose to the end of all trainings; and how it is in pictures
full of small things, for here there are three at most.
"""

import dataclasses
from typing import Any

import torch
from torch import nn

from minivis.data.items import DetectionBatch
from minivis.data.scenes import SceneBatch, Scenes
from minivis.detr import DETR, build_detr
from minivis.experiments.experiment import Experiment
from minivis.experiments.matching import average_precision
from minivis.experiments.small_detr import CONFIG, MEASURES, WORLD, small_criterion, train_and_measure

TWO_SIZES = dataclasses.replace(WORLD, sizes=("small", "large"))
ENLARGED = 2.25  # small things have boxes of up to 13 pixels a side, large ones of about 15 to 30
STAGES = dataclasses.replace(CONFIG, backbone_channels=(16, 32, 32, 32))


def build(stride: int) -> DETR:
    """A small DETR whose backbone of four stages ends at this stride, for the same number of weights.

    Stages that would halve the map once more keep its size and spread their kernels instead, as in the paper's DC5. So
    a cell sees as much of the picture at every stride; there are only more or fewer cells.
    """
    model = build_detr(STAGES)
    spread = 1
    for stage, reached in zip(model.backbone.stages, model.backbone.strides):
        for convolution in (module for module in stage.modules() if isinstance(module, nn.Conv2d)):
            convolution.dilation = convolution.padding = (spread, spread)
            if reached > stride and convolution.stride == (2, 2):
                convolution.stride = (1, 1)
                spread *= 2  # from the next convolution on, neighbours lie twice as far apart
    return model


class EnlargedScenes(Scenes):
    """Scenes evaluated as if they were enlarged: COCO's border between small and medium, 32 pixels, lies at 14.2.

    The pictures stay as they are. An object's area is that of its box.
    """

    def prepare(self, batch: SceneBatch, device: torch.device | str = "cpu") -> DetectionBatch:
        images, targets, ignored = super().prepare(batch, device)
        side = int(self.world.size * ENLARGED)
        return DetectionBatch(
            images, [target | {"original_size": (side, side)} for target in targets], ignored
        )

    def ground_truth(self) -> dict[str, Any]:
        truth = super().ground_truth()
        for annotation in truth["annotations"]:
            annotation["bbox"] = [ENLARGED * number for number in annotation["bbox"]]
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        return truth


def by_size(outputs: dict, targets: list[dict], data: Scenes) -> dict[str, float]:
    metrics = average_precision(outputs, targets, data)
    return {"AP_small": metrics["AP_small"], "AP_large": metrics["AP_medium"]}  # at COCO's borders: see above


# name → the stride, and the steps of training: so many that small things are found at all.
VARIANTS = {
    "stride 16": (16, 1600),
    "stride 16, 3,200 steps": (16, 3200),
    "stride 4": (4, 1600),
}


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    stride, steps = VARIANTS[variant]
    return train_and_measure(
        small_criterion(),
        seed,
        reduced,
        EnlargedScenes,
        lambda: build(stride),
        TWO_SIZES,
        also=by_size,
        steps=steps,
    )


D29 = Experiment(
    id="D29",
    claim="DETR is worse on small objects, because it reads one coarse feature map.",
    question="The same weights read the picture in coarse or in fine cells: who gains, the small or the large?",
    variants={
        "stride 16": "4 × 4 cells: a small thing is smaller than a cell, as COCO's are with DETR's stride of 32",
        "stride 16, 3,200 steps": "the same, trained twice as long: to tell a coarse map from a slow start",
        "stride 4": "16 × 16 cells; the last two stages spread their kernels where they would halve the map",
    },
    measures=MEASURES
    | {
        "AP_small": "AP of things with boxes of up to 13 pixels a side",
        "AP_large": "AP of things with boxes of about 15 to 30 pixels a side",
    },
    estimate="measured: 31 minutes on one CPU core",
    run=run,
)
