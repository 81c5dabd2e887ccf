"""One training loop for every model.

All that a step depends on is its number, the recipe, and what `state.pt` holds: weights, optimiser, average. Which items
it sees (`sampling.py`), its random numbers (seeded anew for every step) and its learning rate are functions of its
number. So a run that was killed goes on from its last state as if nothing had happened.

The host waits for the device where a model makes it (the matching), and when numbers are logged.
"""

import copy
import logging
import math
import os
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import convert_to_fp32, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

import minivis
from minivis.evaluation.detection import json_safe
from minivis.pretrained import save_checkpoint
from minivis.training.checkpoint import RunFolder
from minivis.training.curves import plot_curves
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
    accelerator.wait_for_everyone()  # all have looked at the folder before one writes into it
    folder.start()

    set_seed(recipe.seed)
    model = task.build_model().to(device).train()
    average = copy.deepcopy(model) if recipe.ema else model  # what is evaluated and published
    optimizer = torch.optim.AdamW(
        task.parameter_groups(model), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    for group in optimizer.param_groups:
        group["full_lr"] = group["lr"]
    run: dict[str, Any] = {"step": 0, "seconds": 0.0, "metrics": {}, "best": -math.inf}
    if (state := folder.load_state(device)) is not None:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"] if recipe.ema else state["model"])
        optimizer.load_state_dict(state["optimizer"])
        run = state["run"]
        logger.info("resuming after step %d", run["step"])
    del state
    folder.cut_log(run["step"])
    accelerator.wait_for_everyone()

    if recipe.compile:
        model.compile()
    wrapped = accelerator.prepare_model(model)

    def forward(*inputs: Any) -> Any:
        """The model in the recipe's precision; its outputs, and with them the losses, in float32."""
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            return convert_to_fp32(wrapped(*inputs))

    sampler.start = run["step"]
    loader = iter(DataLoader(
        task.dataset, batch_sampler=sampler, collate_fn=task.dataset.collate, num_workers=recipe.workers,
        pin_memory=device.type == "cuda",
    ))  # fmt: skip
    meter = Meter(task.logged)
    begin = time.perf_counter() - run["seconds"]
    with Progress(recipe.steps, run["step"], progress, main) as show:
        for step in range(run["step"] + 1, recipe.steps + 1):
            batches = [task.prepare(next(loader), device) for _ in range(recipe.accumulate)]
            set_seed(derived_seed(STEP, recipe.seed, step, accelerator.process_index))
            meter.open_step(step, [name for batch in batches for name in task.names(batch)])
            compute_gradients(task, forward, wrapped, batches, meter, accelerator)
            norm = accelerator.clip_grad_norm_(model.parameters(), recipe.clip_norm or math.inf)
            meter.close_step(norm, accelerator)
            if device.type == "cpu":  # looking costs nothing; on a GPU it is done when the numbers are logged
                meter.check(first=-1)

            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * recipe.lr_factor(step)
            optimizer.step()
            task.after_step(model, step)
            optimizer.zero_grad()
            if recipe.ema:
                update_average(average, model, recipe.ema, step)
            show.advance()

            last = step == recipe.steps
            save = last or step % recipe.save_every == 0
            evaluate = recipe.eval_every is not None and (last or step % recipe.eval_every == 0)
            if not (save or evaluate or step % recipe.log_every == 0):
                continue
            images_per_second = meter.images_per_second() * accelerator.num_processes
            means = meter.read()  # raises if a step was not finite, so nothing below is made of one
            run |= {"step": step, "seconds": time.perf_counter() - begin}
            rates = {"lr": recipe.lr * recipe.lr_factor(step), "images_per_second": round(images_per_second, 2)}
            folder.log({"step": step, **means, **rates, "seconds": round(run["seconds"], 2)})
            show.show_loss(step, means["loss"], images_per_second)
            if evaluate:
                run["metrics"] = json_safe(task.evaluate(average))
                folder.log({"step": step, **run["metrics"]})
                headline = run["metrics"][task.headline] or 0.0  # None: there was nothing to find
                show.show_metric(step, task.headline, headline)
                if headline > run["best"]:
                    run["best"] = headline
                    publish(folder.folder / "best", average, task, recipe, run, accelerator)
            if save:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "run": run}
                folder.save_state(state | ({"average": average.state_dict()} if recipe.ema else {}))
            if evaluate and main:
                plot_curves(folder.folder)
            meter.restart()  # neither evaluating nor saving counts as throughput

    publish(folder.folder, average, task, recipe, run, accelerator)
    if main:
        plot_curves(folder.folder)
    accelerator.wait_for_everyone()
    summary = task.summary()
    if main and summary:
        logger.warning("%s", summary)
    return run["metrics"]


def start_accelerator(cpu: bool) -> Accelerator:
    """The device, and the processes that a launcher has started. The precision is the recipe's, not the launcher's."""
    timeout = InitProcessGroupKwargs(timeout=timedelta(hours=2))  # while one process evaluates more than the others
    accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[timeout])
    launched = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_PORT" in os.environ
    if launched and accelerator.num_processes == 1:
        logger.warning(
            "`accelerate launch --cpu` was asked for several processes, but starts one unless it is given mpirun: "
            "`torchrun --standalone --nproc-per-node N -m minivis.cli train ... --cpu` starts N"
        )
    return accelerator


def compute_gradients(
    task: Task, forward: Callable, wrapped: nn.Module, batches: list, meter: Meter, accelerator: Accelerator
) -> None:
    """The gradient of one step: Σ over micro-batches of the loss, mean over processes."""
    normalisers = task.normalisers(batches)
    for i, batch in enumerate(batches, start=1):
        with nullcontext() if i == len(batches) else accelerator.no_sync(wrapped):  # processes meet once a step
            try:
                loss, values = task.loss(forward, batch, normalisers)
            except FloatingPointError as error:  # the matching met predictions that are not finite
                meter.check()  # an earlier step may be the cause
                raise diverged(*meter.steps[-1], str(error)) from error
            accelerator.backward(loss)
        meter.add(loss, values)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """average ← d · average + (1 − d) · weights, with a d that rises to `decay`, so that the start is soon forgotten."""
    d = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - d)
    for buffer, newest in zip(average.buffers(), model.buffers(), strict=True):
        buffer.copy_(newest)


def publish(
    folder: Path, model: nn.Module, task: Task, recipe: Recipe, run: dict[str, Any], accelerator: Accelerator
) -> None:
    """Writes the weights with their card, by the main process."""
    if not accelerator.is_main_process:
        return
    cuda = accelerator.device.type == "cuda"
    kind = torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    training = {"steps": run["step"], "seconds": round(run["seconds"]), "machine": f"{accelerator.num_processes} × {kind}"}
    about = {"recipe": recipe.to_dict(), "seed": recipe.seed, "minivis": minivis.__version__}
    save_checkpoint(model, folder, {**task.card(model), **about, "metrics": run["metrics"], "training": training})
