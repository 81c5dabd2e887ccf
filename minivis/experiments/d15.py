"""D15: a box is (cx, cy, width, height); what happens where somebody takes it for (cx, cy, height, width)?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minivis.data.items import DetectionBatch
from minivis.data.rendering import PLAIN, render
from minivis.data.scenes import SceneBatch, Scenes, scene_targets
from minivis.detr import SetCriterion
from minivis.experiments.experiment import Experiment
from minivis.experiments.small_detr import MEASURES, small_criterion, train_and_measure
from minivis.images import as_image_batch


class WideScenes(Scenes):
    """Scenes in a picture twice as wide as high, its right half empty.

    Boxes are fractions of the picture. So those of round and square things are twice as high as wide, and it matters
    which of the two comes first.
    """

    def prepare(self, batch: SceneBatch, device: torch.device | str = "cpu") -> DetectionBatch:
        pixels, object_map, _ = render(batch.scenes, device)
        pixels = F.pad(pixels, (0, self.world.size), value=PLAIN[0])
        object_map = F.pad(object_map, (0, self.world.size), value=-1)  # −1: no object
        targets = scene_targets(object_map, batch.scenes, batch.image_ids)
        return DetectionBatch(as_image_batch(self.image_transform.normalise(pixels)), targets, [])


class SwappedLoss(SetCriterion):
    """Takes the model's boxes for (cx, cy, height, width), in matching and loss alike."""

    def forward(self, outputs: dict, targets: list[dict], normalisers=None) -> dict[str, Tensor]:
        return super().forward(swapped(outputs), targets, normalisers)


class SwappedGIoU(SetCriterion):
    """Takes the model's boxes for (cx, cy, height, width) in the GIoU loss alone."""

    def loss_boxes(self, log_probability, boxes, targets, matched, normalisers) -> dict[str, Tensor]:
        right = super().loss_boxes(log_probability, boxes, targets, matched, normalisers)
        wrong = super().loss_boxes(log_probability, boxes[..., [0, 1, 3, 2]], targets, matched, normalisers)
        return {"loss_bbox": right["loss_bbox"], "loss_giou": wrong["loss_giou"]}


def swapped(outputs: dict) -> dict:
    """Predictions with width and height in each other's place."""
    turned = outputs | {"pred_boxes": outputs["pred_boxes"][..., [0, 1, 3, 2]]}
    if "aux_outputs" in outputs:
        turned["aux_outputs"] = [swapped(layer) for layer in outputs["aux_outputs"]]
    return turned


CRITERIA = {"width first": SetCriterion, "loss: height first": SwappedLoss, "GIoU: height first": SwappedGIoU}


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    return train_and_measure(small_criterion(kind=CRITERIA[variant]), seed, reduced, make_data=WideScenes)


D15 = Experiment(
    id="D15",
    claim="A box is its centre, its height and its width.",
    question="In pictures that are not square, what does it do to mistake height for width, and how does one notice?",
    variants={
        "width first": "(cx, cy, width, height) everywhere",
        "loss: height first": "matching and loss take the model's boxes for (cx, cy, height, width)",
        "GIoU: height first": "the GIoU loss alone does",
    },
    measures=MEASURES,
    estimate="measured: a quarter of an hour on one CPU core",
    run=run,
)
