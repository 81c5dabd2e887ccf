"""Draws docs/detr-mini.png, the picture in README.md: what the shipped detector finds in a few scenes.

python tools/readme_picture.py
"""

from pathlib import Path

import torch
from PIL import Image

from minivis import load
from minivis.data.scenes import load_shipped_scenes
from minivis.detr import postprocess
from minivis.evaluation.draw import draw_detections, draw_grid

SCENES = (1, 3, 4, 5)
WIDTH = 1200

model, scenes = load("detr-mini"), load_shipped_scenes()
batch = scenes.prepare(scenes.collate([scenes[i] for i in SCENES]), "cpu")
with torch.inference_mode():
    detections = postprocess(model(batch.images), [target["original_size"] for target in batch.targets])
pictures = [scenes.image_transform.denormalise(pixels) for pixels in batch.images.pixels]
drawn = [draw_detections(p, d, model.class_names) for p, d in zip(pictures, detections, strict=True)]
grid = draw_grid(drawn, columns=len(SCENES))
grid = grid.resize((WIDTH, round(grid.height * WIDTH / grid.width)), Image.Resampling.LANCZOS)

target = Path(__file__).resolve().parent.parent / "docs" / "detr-mini.png"
target.parent.mkdir(exist_ok=True)
grid.save(target, optimize=True)
print(f"{target.name}: {grid.width} × {grid.height}, {target.stat().st_size / 1e6:.2f} MB")
