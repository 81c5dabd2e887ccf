"""Scenes per second: describing, rendering and labelling generated scenes, beside the training step they feed.

python benchmarks/scenes.py [--quick] [--json] [--device cuda] [--threads 1]

The training step is that of `detr_mini` on the same batch (forward, loss, backward, AdamW), without its data.
"""

import json
from collections.abc import Callable

import torch
from common import arguments, fastest, machine

from minivis.data.scenes import DetectionBatch, Scenes, render
from minivis.detr import HungarianMatcher, SetCriterion, detr_mini

BATCH = 32


def training_step(batch: DetectionBatch, classes: int, device: str) -> Callable[[], None]:
    """One optimiser step of a detr-mini, to be called again and again."""
    weights = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
    criterion = SetCriterion(
        classes, HungarianMatcher(1, 5, 2), weights, 0.1, ["labels", "boxes", "cardinality"]
    )
    model = detr_mini(classes).to(device).train()
    criterion.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        loss = criterion.weighted_sum(criterion(model(batch.images), batch.targets))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(threads=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = options.device

    dataset = Scenes("train")
    keys = [(0, seed) for seed in range(BATCH)]
    items = dataset.collate([dataset[key] for key in keys])
    step = training_step(dataset.prepare(items, device), len(dataset.categories), device)
    sides = {
        "describe": lambda: [dataset[key] for key in keys],
        "render": lambda: render(items.scenes, device),
        "render, label, normalise": lambda: dataset.prepare(items, device),
        "all of it": lambda: dataset.prepare(dataset.collate([dataset[key] for key in keys]), device),
        "training step of detr-mini": step,
    }
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    seconds = fastest(sides, repeats=5 if options.quick else 25, wait=wait)

    facts = machine(device)
    print(f"Generated scenes of {dataset.world.size} px in batches of {BATCH}")
    print("; ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    print(f"{'':26}  ms per scene  scenes/s  ratio (of the training step's time to this)")
    rows = {}
    for name, value in seconds.items():
        per_scene, ratio = value / BATCH, seconds["training step of detr-mini"] / value
        print(f"{name:26}  {1e3 * per_scene:12.3f}  {1 / per_scene:8.0f}  {ratio:.1f}")
        rows[name] = {"ms_per_scene": 1e3 * per_scene, "scenes_per_second": 1 / per_scene, "ratio": ratio}
    if options.json:
        print(json.dumps({"benchmark": "scenes", "machine": facts, "rows": rows}))


if __name__ == "__main__":
    main()
