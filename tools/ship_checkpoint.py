"""Puts a trained model where it ships: half precision, and a card with the metrics of just these weights.

    python tools/ship_checkpoint.py runs/detr-mini data/detr-mini

Weights rounded to float16 take half the space. They are measured again after rounding, on all of the shipped scenes, so
the card tells of the file beside it and not of the run it came from.
"""

import sys
from pathlib import Path

import torch

from minivis import load
from minivis.data.scenes import load_shipped_scenes
from minivis.detr import DETRsegm
from minivis.evaluation import evaluate_detection, evaluate_panoptic
from minivis.pretrained import save_checkpoint


def ship(run: Path, target: Path) -> None:
    card = load(run).card
    save_checkpoint(load(run), target, card, torch.float16)
    model = load(target)
    panoptic = isinstance(model, DETRsegm)
    evaluate = evaluate_panoptic if panoptic else evaluate_detection
    metrics = evaluate(model, load_shipped_scenes(stuff=panoptic))
    save_checkpoint(model, target, card | {"metrics": metrics}, torch.float16)
    size = sum(file.stat().st_size for file in target.iterdir())
    headline = [f"{name} {metrics[name]:.3f}" for name in ("PQ", "AP", "AP50", "mask_AP") if name in metrics]
    print(f"{target}: {', '.join(headline)}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    ship(Path(sys.argv[1]), Path(sys.argv[2]))
