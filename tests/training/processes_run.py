"""Trains on pictures and keeps the gradients of every step: `processes_run.py FOLDER`, by one process or several."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

torch.set_num_threads(1)

from tiny_detr import TINY, Pictures, PicturesTask, pictures_recipe, seeds_of_step  # noqa: E402

from minivis.training import train  # noqa: E402

SIZE, STEPS = 8, 4


def run(folder, accumulate):
    """Step 2: the second half of the batch has no objects. 3: it cannot be read. 4: nothing can be read."""
    settings = {
        "steps": STEPS, "batch_size": 4, "accumulate": accumulate, "lr": 1e-7, "warmup": 0, "log_every": 1,
        "clip_norm": None, "ema": None, "save_every": STEPS, "model": replace(TINY.model, dropout=0.0),
    }  # fmt: skip
    seeds = [None, *(seeds_of_step(pictures_recipe(**settings), SIZE, step) for step in range(1, STEPS + 1))]
    pictures = Pictures(SIZE, empty=seeds[2][2:], bad=seeds[3][2:] + seeds[4])
    recipe, gradients = pictures_recipe(pictures, **settings), []

    def keep(task, model, step):
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})

    PicturesTask.after_step = keep
    train(recipe, folder, cpu=True)
    if torch.distributed.is_initialized():
        torch.save(gradients, folder / f"gradients-{torch.distributed.get_rank()}.pt")
    else:
        torch.save(gradients, folder / "gradients.pt")


if __name__ == "__main__":
    for accumulate in (1, 2):
        run(Path(sys.argv[1]) / str(accumulate), accumulate)
