"""One training loop for every model.

All that a step depends on is its number, the recipe, and what `state.pt` holds: weights, optimiser, average. Which
items it sees (`sampling.py`), its random numbers (seeded anew for every step) and its learning rate are functions of
its number. So a run that was killed goes on from its last state as if nothing had happened.

The host waits for the device where a model makes it (the matching), and when numbers are logged.
"""

import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import convert_to_fp32, set_seed
from torch import nn
from torch.utils.data import DataLoader

import minivis
from minivis.pretrained import save_checkpoint
from minivis.pretrained.checkpoint import json_safe
from minivis.training.checkpoint import RunFolder
from minivis.training.curves import plot_curves
from minivis.training.learner import Learner
from minivis.training.progress import Meter, Progress, diverged
from minivis.training.recipes import Recipe
from minivis.training.sampling import STEP, StepSampler, derived_seed
from minivis.training.task import Task

logger = logging.getLogger("minivis")


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    bad_items: str = "skip",
    cpu: bool = False,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Trains what the recipe says; `out` gets the weights with their card, the log, and its curves.

    Args:
        recipe: see `recipes.py`.
        out: the run's folder (see `checkpoint.py`); with evaluations, `out/best` has the best weights.
        resume: go on with the run in `out`, if there is one.
        bad_items: "skip" what cannot be read, or "stop".
        cpu: leave a GPU alone.
        progress: draw a bar; None: only on a terminal.

    Returns:
        the metrics of the last evaluation.

    Raises:
        RunError: if `out` holds another run.
        TrainingDiverged: if a loss or gradient is not finite; the last state in `out` is from before that.
    """
    accelerator = start_accelerator(cpu)
    device, main = accelerator.device, accelerator.is_main_process
    folder = RunFolder(out, recipe.to_dict(), resume, main)
    task = recipe.build_task(bad_items)
    sampler = StepSampler(
        None if task.endless else len(task.dataset), recipe.batch_size, recipe.steps, recipe.seed, recipe.accumulate,
        accelerator.process_index, accelerator.num_processes,
    )  # fmt: skip
    learner = Learner(task, recipe, device)
    run: dict[str, Any] = {"step": 0, "seconds": 0.0, "metrics": {}, "best": -math.inf}
    if (state := folder.load_state(device)) is not None:
        learner.load_state_dict(state)
        run = state["run"]
        logger.info("resuming after step %d", run["step"])
    del state
    accelerator.wait_for_everyone()  # all have read the folder before one writes into it
    folder.start(run["step"])

    forward, model = prepare_model(learner.model, recipe, accelerator)
    sampler.start = run["step"]
    meter, begin = Meter(task.logged), time.perf_counter() - run["seconds"]
    with Progress(recipe.steps, run["step"], progress, main) as show:
        for step, batches in enumerate(read_batches(task, sampler, recipe, device), start=run["step"] + 1):
            set_seed(derived_seed(STEP, recipe.seed, step, accelerator.process_index))
            meter.open_step(step, [name for batch in batches for name in task.names(batch)])
            compute_gradients(task, forward, model, batches, meter, accelerator)
            norm = accelerator.clip_grad_norm_(model.parameters(), recipe.clip_norm or math.inf)
            meter.close_step(norm, accelerator)
            if device.type == "cpu":  # looking costs nothing; on a GPU it is done when the numbers are logged
                meter.check(first=-1)
            learner.update(step)
            show.advance()

            last = step == recipe.steps
            save = last or step % recipe.save_every == 0
            evaluate = recipe.eval_every is not None and (last or step % recipe.eval_every == 0)
            if not (save or evaluate or step % recipe.log_every == 0):
                continue
            images_per_second = meter.images_per_second() * accelerator.num_processes
            means = meter.read()  # raises if a step was not finite, so nothing below is made of one
            run |= {"step": step, "seconds": time.perf_counter() - begin}
            rates = {
                "lr": recipe.lr * recipe.lr_factor(step),
                "images_per_second": round(images_per_second, 2),
            }
            folder.log({"step": step, **means, **rates, "seconds": round(run["seconds"], 2)})
            show.show_loss(step, means["loss"], images_per_second)
            if evaluate:
                run["metrics"] = json_safe(task.evaluate(learner.average))
                folder.log({"step": step, **run["metrics"]})
                headline = run["metrics"][task.headline]  # None: there was nothing to find
                show.show_metric(step, task.headline, headline)
                if headline is not None and headline > run["best"]:
                    run["best"] = headline
                    publish(folder.folder / "best", learner, run, accelerator)
            if save:
                folder.save_state(learner.state_dict() | {"run": run})
            if evaluate and main:
                plot_curves(folder.folder)
            meter.restart()  # neither evaluating nor saving counts as throughput

    publish(folder.folder, learner, run, accelerator)
    if main:
        plot_curves(folder.folder)
    accelerator.wait_for_everyone()
    summary = task.summary()
    if main and summary:
        logger.warning("%s", summary)
    return run["metrics"]


def start_accelerator(cpu: bool) -> Accelerator:
    """The device, and the processes that a launcher has started. The precision is the recipe's, not the launcher's."""
    timeout = InitProcessGroupKwargs(
        timeout=timedelta(hours=2)
    )  # while one process evaluates more than the others
    accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[timeout])
    launched = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_PORT" in os.environ
    if launched and accelerator.num_processes == 1:
        logger.warning(
            "`accelerate launch --cpu` was asked for several processes, but starts one unless it is given mpirun: "
            "`torchrun --standalone --nproc-per-node N -m minivis.cli train ... --cpu` starts N"
        )
    return accelerator


def prepare_model(model: nn.Module, recipe: Recipe, accelerator: Accelerator) -> tuple[Callable, nn.Module]:
    """The model to call, and the model whose gradients are the mean over the processes."""
    if recipe.compile:
        model.compile()
    wrapped = accelerator.prepare_model(model)

    def forward(*inputs: Any) -> Any:
        """The model in the recipe's precision; its outputs, and with them the losses, in float32."""
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            return convert_to_fp32(wrapped(*inputs))

    return forward, wrapped


def read_batches(task: Task, sampler: StepSampler, recipe: Recipe, device: torch.device) -> Iterator[list]:
    """The micro-batches of one step after the other."""
    loader = DataLoader(
        task.dataset, batch_sampler=sampler, collate_fn=task.dataset.collate, num_workers=recipe.workers,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    micro_batches = (task.prepare(collated, device) for collated in loader)
    for first in micro_batches:
        yield [first, *islice(micro_batches, recipe.accumulate - 1)]


def compute_gradients(
    task: Task, forward: Callable, model: nn.Module, batches: list, meter: Meter, accelerator: Accelerator
) -> None:
    """The gradient of one step: Σ over micro-batches of the loss, mean over processes."""
    normalisers = task.normalisers(batches)
    for i, batch in enumerate(batches, start=1):
        with nullcontext() if i == len(batches) else accelerator.no_sync(model):  # processes meet once a step
            try:
                loss, values = task.loss(forward, batch, normalisers)
            except FloatingPointError as error:  # the matching met predictions that are not finite
                meter.check()  # an earlier step may be the cause
                raise diverged(*meter.steps[-1], str(error)) from error
            accelerator.backward(loss)
        meter.add(loss, values)


def publish(folder: Path, learner: Learner, run: dict[str, Any], accelerator: Accelerator) -> None:
    """Writes the weights with their card, by the main process."""
    if not accelerator.is_main_process:
        return
    cuda = accelerator.device.type == "cuda"
    threads = torch.get_num_threads()
    kind = (
        torch.cuda.get_device_name()
        if cuda
        else f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"
    )
    card = learner.task.card(learner.average) | {
        "recipe": learner.recipe.to_dict(),
        "seed": learner.recipe.seed,
        "minivis": minivis.__version__,
        "metrics": run["metrics"],
        "training": {
            "steps": run["step"],
            "seconds": round(run["seconds"]),
            "machine": f"{accelerator.num_processes} × {kind}",
        },
    }
    save_checkpoint(learner.average, folder, card)
