"""D34: objects whose class a far-away mark decides. Does it take the encoder to see that?

What is measured is whether a training finds that relation, and when: it ends there. All 24 trainings (six seeds) found
it, nearly all by the time they could tell shapes. So it takes no encoder, and layers of one find it no sooner.

Two things this does not show. The mark is one for the whole picture: relations of particular things would be harder.
And how training begins counts: in trainings of 800 steps, whose learning rate rises and falls twice as fast, three of
nine did not find it, two of them with encoder layers.
"""

import dataclasses
from contextlib import suppress

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minivis.boxes import cxcywh_to_xyxy, paired_generalized_box_iou
from minivis.data.items import Categories, DetectionBatch
from minivis.data.rendering import PLAIN, render
from minivis.data.scenes import Scene, SceneBatch, Scenes, scene_targets
from minivis.data.world import COLOURS, World
from minivis.detr import DETR, HungarianMatcher, build_detr
from minivis.detr.backbone import SmallConvBackbone
from minivis.experiments.experiment import Experiment
from minivis.experiments.matching import predict
from minivis.experiments.small_detr import CONFIG, WORLD, small_criterion, train_small
from minivis.images import as_image_batch

# In pixels: an empty strip to the right of the scene, and the side of the mark at its far end.
MARGIN, MARK = 24, 8
MARKS = ("red", "blue")
FAR_WORLD = dataclasses.replace(WORLD, sizes=("medium",), shapes=("circle", "square"))


class FarScenes(Scenes):
    """Circles and squares, and in an empty margin a mark whose colour decides what circles are called.

    The classes are "red circle" and "blue circle" (the colour is the mark's, not the circle's) and "square".
    """

    def __init__(self, split: str = "train", world: World = FAR_WORLD, size: int | None = None):
        super().__init__(split, world, size)
        self.categories = Categories(names=("red circle", "blue circle", "square"), ids=(1, 2, 3))

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Scene, int]:
        """An object's label is its shape's place in the scene's list; a ring, which no scene has, fills one."""
        scene, seed = super().__getitem__(key)
        shapes = ("circle", "ring", "square") if seed % 2 == 0 else ("ring", "circle", "square")
        return scene._replace(world=dataclasses.replace(self.world, shapes=shapes)), seed

    def prepare(self, batch: SceneBatch, device: torch.device | str = "cpu") -> DetectionBatch:
        pixels, object_map, _ = render(batch.scenes, device)
        pixels = F.pad(pixels, (0, MARGIN), value=PLAIN[0])
        object_map = F.pad(object_map, (0, MARGIN), value=-1)  # −1: no object
        for image, scene in zip(pixels, batch.scenes):
            colour = MARKS[scene.world.shapes.index("circle")]
            top = scene.seed // 2 * 13 % (self.world.size - MARK)  # anywhere along the margin
            image[:, top : top + MARK, -MARK:] = torch.tensor(COLOURS[colour], device=device)[:, None, None]
        targets = scene_targets(object_map, batch.scenes, batch.image_ids)
        return DetectionBatch(as_image_batch(self.image_transform.normalise(pixels)), targets, [])


class CellNorm(nn.Module):
    """Normalises each cell's channels by themselves. Group norm would tell every cell about the whole map."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def local_backbone(channels: tuple[int, ...] = CONFIG.backbone_channels) -> SmallConvBackbone:
    """Three convolutions of stride 2: a cell of the map sees 15 pixels a side and nothing beyond them.

    So no cell sees a part of an object and a part of the mark.
    """
    backbone = SmallConvBackbone(channels, blocks=0)
    for stage in backbone.stages:
        halve = stage[0]
        halve[1] = CellNorm(halve[1].num_channels)
    return backbone


LAYERS = {
    "2 encoder, 2 decoder": (2, 2),
    "4 encoder, 2 decoder": (4, 2),
    "0 encoder, 2 decoder": (0, 2),
    "0 encoder, 4 decoder": (0, 4),
}


def build(encoder_layers: int, decoder_layers: int) -> DETR:
    model = build_detr(
        dataclasses.replace(CONFIG, encoder_layers=encoder_layers, decoder_layers=decoder_layers)
    )
    model.backbone = local_backbone()
    return model


def answers(outputs: dict[str, Tensor], targets: list[dict]) -> dict[str, float]:
    """The last three of `D34.measures`. Objects are matched to queries by their boxes alone."""
    right_far, right_near, loss_giou = [], [], []
    pairs = HungarianMatcher(0, 5, 2)(outputs, targets)
    for logits, boxes, target, (queries, objects) in zip(
        outputs["pred_logits"], outputs["pred_boxes"], targets, pairs, strict=True
    ):
        classes, labels = logits[queries, :-1], target["labels"][objects]
        is_circle = labels < 2
        right_far.append((classes[:, :2].argmax(-1) == labels)[is_circle])
        right_near.append((classes.argmax(-1) < 2) == is_circle)
        found, true = cxcywh_to_xyxy(boxes[queries]), cxcywh_to_xyxy(target["boxes"][objects])
        loss_giou.append(1 - paired_generalized_box_iou(found, true))
    measured = {"right_far": right_far, "right_near": right_near, "loss_giou": loss_giou}
    return {name: torch.cat(values).double().mean().item() for name, values in measured.items()}


# The longest training, the steps between two looks at it, and the share of right ones that is called learned.
STEPS, EVERY, LEARNED = 1600, 50, 0.9


class Found(Exception):
    """Ends a training: there is nothing left to wait for."""


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    longest, every, scenes = (10, 5, 20) if reduced else (STEPS, EVERY, 100)
    validation = FarScenes("val", size=scenes)
    measured = {"found": 0.0, "steps": longest, "steps_near": longest}

    def look(step: int, model: nn.Module) -> None:
        if step % every:
            return
        measured.update(answers(*predict(model, validation)))
        if measured["right_near"] >= LEARNED:
            measured["steps_near"] = min(step, measured["steps_near"])
            if measured["right_far"] >= LEARNED:
                measured.update(found=1.0, steps=step)
                raise Found

    with suppress(Found):
        train_small(
            small_criterion(), seed, longest, FarScenes("train"), look, lambda: build(*LAYERS[variant])
        )
    return measured


D34 = Experiment(
    id="D34",
    claim="The transformer sees the whole image at once, and relations of what lies far apart.",
    question="A mark outside every object's receptive field decides its class. What learns that, and how soon?",
    variants={
        "2 encoder, 2 decoder": "cells have looked at each other when the queries read them",
        "4 encoder, 2 decoder": "and more often",
        "0 encoder, 2 decoder": "the queries read the backbone's map, twice",
        "0 encoder, 4 decoder": "as many layers as the first has; the queries read four times",
    },
    measures={
        "found": f"1 if shapes and kinds are learned within {STEPS:,} steps: {LEARNED:.0%} of each right; 0 if not",
        "steps": f"of training until then, looked at every {EVERY}; {STEPS:,} if it was not found",
        "steps_near": "of training until the shapes were learned for the first time, whatever became of the kinds",
        "right_far": "circles that are given the right kind in the end: a guess is right for half of them",
        "right_near": "objects that are given the right shape in the end: the mark has nothing to do with it",
        "loss_giou": "1 − GIoU of a matched box in the end",
    },
    estimate="measured: 8 minutes on one CPU core",
    run=run,
)
