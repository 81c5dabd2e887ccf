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
from minivis.evaluation.detection import evaluate_detection
from minivis.pretrained import save_checkpoint


def ship(run: Path, target: Path) -> None:
    card = load(run).card
    save_checkpoint(load(run), target, card, torch.float16)
    metrics = evaluate_detection(load(target), load_shipped_scenes())
    save_checkpoint(load(target), target, card | {"metrics": metrics}, torch.float16)
    size = sum(file.stat().st_size for file in target.iterdir())
    print(f"{target}: AP {metrics['AP']:.3f}, AP50 {metrics['AP50']:.3f}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    ship(Path(sys.argv[1]), Path(sys.argv[2]))
