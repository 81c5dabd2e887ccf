"""Draws docs/finetune.png, the second picture in README.md: AP while two runs trained, and what the first one finds.

python tools/finetune_picture.py RUN_FROM_DETR_MINI RUN_FROM_NOTHING DATA

Boxes are drawn on blank ground: pictures that are not this project's are not copied into it.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

import minivis
from minivis.boxes import cxcywh_to_xyxy
from minivis.data import CocoDetection
from minivis.detr import postprocess
from minivis.training.curves import read_log

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")
SHOWN, THRESHOLD = (3, 40), 0.5  # pictures of the validation split, and the least score

from_mini, from_nothing, data = map(Path, sys.argv[1:])
model = minivis.load(from_mini)
val = CocoDetection(data, "val", model.categories, transform=model.image_transform)

figure, axes = plt.subplots(1, 1 + len(SHOWN), figsize=(12, 3.6), layout="constrained")
for run, name, colour in (
    (from_mini, "from detr-mini", "#0072B2"),
    (from_nothing, "from nothing", "#999999"),
):
    evaluated = [entry for entry in read_log(run) if "AP" in entry]
    steps = [entry["step"] for entry in evaluated]
    for metric, line in (("AP50", "--"), ("AP", "-")):
        label = f"{metric}, {name}"
        axes[0].plot(
            steps, [entry[metric] for entry in evaluated], line, marker=".", color=colour, label=label
        )
axes[0].set(xlabel="training step", ylim=(0, 1), title=f"average precision on {len(val)} pictures")
axes[0].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)

for axis, index in zip(axes[1:], SHOWN, strict=True):
    batch = val.prepare(val.collate([val[index]]), "cpu")
    (height, width) = batch.targets[0]["original_size"]
    with torch.inference_mode():
        (found,) = postprocess(model(batch.images), [(height, width)])
    true = cxcywh_to_xyxy(batch.targets[0]["boxes"]) * torch.tensor([width, height, width, height])
    for left, top, right, bottom in true.tolist():
        style = {"fill": False, "linestyle": (0, (3, 2)), "color": "#444444", "linewidth": 1}
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, **style))
    sure = found["scores"] >= THRESHOLD
    for (left, top, right, bottom), label in zip(
        found["boxes"][sure].tolist(), found["labels"][sure].tolist()
    ):
        style = {"fill": False, "color": COLOURS[label], "linewidth": 1.8}
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, **style))
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal", facecolor="#F7F5F2")
    axis.set_title(f"a picture: {len(true)} annotated, {int(sure.sum())} found", fontsize=10)
names = [Line2D([], [], color=COLOURS[i], label=name) for i, name in enumerate(model.class_names)]
names.append(Line2D([], [], color="#444444", linestyle="--", label="annotated"))
figure.legend(
    handles=names,
    fontsize=8,
    loc="lower center",
    bbox_to_anchor=(0.68, 0.08),
    ncols=len(names),
    frameon=False,
)

target = Path(__file__).resolve().parent.parent / "docs" / "finetune.png"
figure.savefig(target, dpi=100)
print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB")
