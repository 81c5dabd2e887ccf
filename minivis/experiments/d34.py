"""D34: objects whose class a far-away mark decides. Does it take the encoder to see that?"""

import dataclasses

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minivis.data.items import Categories, DetectionBatch
from minivis.data.rendering import PLAIN, render
from minivis.data.scenes import Scene, SceneBatch, Scenes, scene_targets
from minivis.data.world import COLOURS, World
from minivis.detr import DETR, HungarianMatcher, build_detr
from minivis.detr.backbone import SmallConvBackbone
from minivis.experiments.experiment import Experiment
from minivis.experiments.matching import average_precision
from minivis.experiments.small_detr import CONFIG, MEASURES, WORLD, small_criterion, train_and_measure
from minivis.images import as_image_batch

MARGIN, MARK = (
    24,
    8,
)  # pixels: an empty strip to the right of the scene, and the side of the mark at its far end
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


LAYERS = {"2 encoder, 2 decoder": (2, 2), "0 encoder, 2 decoder": (0, 2), "0 encoder, 4 decoder": (0, 4)}


def build(encoder_layers: int, decoder_layers: int) -> DETR:
    model = build_detr(
        dataclasses.replace(CONFIG, encoder_layers=encoder_layers, decoder_layers=decoder_layers)
    )
    model.backbone = local_backbone()
    return model


FAR_MEASURES = {
    "AP_far": "average precision of the two kinds of circle, between which the mark decides",
    "AP_near": "average precision of squares, which the mark has nothing to do with",
    "right_far": "circles that are given the right kind: a guess is right for half of them",
}


def far_and_near(outputs: dict, targets: list[dict], data: Scenes) -> dict[str, float]:
    """`FAR_MEASURES`. Objects are matched to queries by their boxes alone."""
    by_class = average_precision(outputs, targets, data)["by_class"]
    right = []
    pairs = HungarianMatcher(0, 5, 2)(outputs, targets)
    for logits, target, (queries, objects) in zip(outputs["pred_logits"], targets, pairs, strict=True):
        labels = target["labels"][objects]
        right.append((logits[queries, :2].argmax(-1) == labels)[labels < 2])
    return {
        "AP_far": (by_class["red circle"] + by_class["blue circle"]) / 2,
        "AP_near": by_class["square"],
        "right_far": torch.cat(right).double().mean().item(),
    }


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    return train_and_measure(
        small_criterion(),
        seed,
        reduced,
        FarScenes,
        lambda: build(*LAYERS[variant]),
        FAR_WORLD,
        also=far_and_near,
    )


D34 = Experiment(
    id="D34",
    claim="The transformer sees the whole image at once, and relations of what lies far apart.",
    question="A mark outside every object's receptive field decides its class. Is that learned, and by which part?",
    variants={
        "2 encoder, 2 decoder": "cells have looked at each other when the queries read them",
        "0 encoder, 2 decoder": "the queries read the backbone's map, twice",
        "0 encoder, 4 decoder": "as many layers as the first has; the queries read four times",
    },
    measures=MEASURES | FAR_MEASURES,
    estimate="measured: 9 minutes on one CPU core",
    run=run,
)
