"""Scenes per second: describing, rendering and labelling generated scenes, beside the training step they feed.

python benchmarks/scenes.py [--quick] [--json] [--device cuda] [--threads 1]

The training step is that of the recipe `detr-mini` on the same batch (forward, loss, backward, AdamW; in bf16, as the
recipe has it, and in float32), without its data. Ratios are to the one in bf16.
"""

import json
from collections.abc import Callable

import torch
from common import arguments, fastest, machine

from minivis.data.scenes import DetectionBatch, Scenes, render
from minivis.detr import HungarianMatcher, SetCriterion, detr_mini

BATCH = 16  # the recipe's


def training_step(batch: DetectionBatch, classes: int, device: str, bf16: bool) -> Callable[[], None]:
    """One optimiser step of a detr-mini, to be called again and again."""
    weights = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
    criterion = SetCriterion(
        classes, HungarianMatcher(1, 5, 2), weights, 0.1, ["labels", "boxes", "cardinality"]
    )
    model = detr_mini(classes).to(device).train()
    criterion.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            outputs = model(batch.images)
        loss = criterion.weighted_sum(criterion(outputs, batch.targets))
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
    prepared = dataset.prepare(items, device)
    step, step32 = (training_step(prepared, len(dataset.categories), device, bf16) for bf16 in (True, False))
    sides = {
        "describe": lambda: [dataset[key] for key in keys],
        "render": lambda: render(items.scenes, device),
        "render, label, normalise": lambda: dataset.prepare(items, device),
        "all of it": lambda: dataset.prepare(dataset.collate([dataset[key] for key in keys]), device),
        "training step, bf16": step,
        "training step, float32": step32,
    }
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    seconds = fastest(sides, repeats=5 if options.quick else 25, wait=wait)

    facts = machine(device)
    print(f"Generated scenes of {dataset.world.size} px in batches of {BATCH}")
    print("; ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    print(f"{'':26}  ms per scene  scenes/s  ratio (of the training step's time to this)")
    rows = {}
    for name, value in seconds.items():
        per_scene, ratio = value / BATCH, seconds["training step, bf16"] / value
        print(f"{name:26}  {1e3 * per_scene:12.3f}  {1 / per_scene:8.0f}  {ratio:.1f}")
        rows[name] = {"ms_per_scene": 1e3 * per_scene, "scenes_per_second": 1 / per_scene, "ratio": ratio}
    if options.json:
        print(json.dumps({"benchmark": "scenes", "machine": facts, "rows": rows}))


if __name__ == "__main__":
    main()
