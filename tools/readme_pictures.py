"""Draws the pictures in README.md, docs/detr-mini.png and docs/panoptic-mini.png: what the shipped models find.

python tools/readme_pictures.py
"""

from pathlib import Path

import torch
from PIL import Image

from minivis import load
from minivis.data.scenes import load_shipped_scenes
from minivis.detr import postprocess, predict_panoptic
from minivis.evaluation.draw import draw_detections, draw_grid, draw_panoptic

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCENES = (1, 3, 4, 5)
WIDTH = 1200

scenes = load_shipped_scenes()
batch = scenes.prepare(scenes.collate([scenes[i] for i in SCENES]), "cpu")
pictures = [scenes.image_transform.denormalise(pixels) for pixels in batch.images.pixels]


def save(name: str, drawn: list[Image.Image]) -> None:
    grid = draw_grid(drawn, columns=len(drawn))
    grid = grid.resize((WIDTH, round(grid.height * WIDTH / grid.width)), Image.Resampling.LANCZOS)
    grid.save(DOCS / name, optimize=True)
    print(f"{name}: {grid.width} × {grid.height}, {(DOCS / name).stat().st_size / 1e6:.2f} MB")


with torch.inference_mode():
    detector, segmenter = load("detr-mini"), load("panoptic-mini")
    found = postprocess(detector(batch.images), [target["original_size"] for target in batch.targets])
    maps = predict_panoptic(segmenter, batch.images, segmenter.categories.things)
save(
    "detr-mini.png",
    [draw_detections(p, f, detector.class_names) for p, f in zip(pictures, found, strict=True)],
)
save(
    "panoptic-mini.png",
    [draw_panoptic(p, m, segmenter.class_names) for p, m in zip(pictures, maps, strict=True)],
)
