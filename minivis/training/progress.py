"""The numbers of a run while it goes: gathered on the device, shown as a bar on a terminal or as lines elsewhere."""

import math
import sys
import time
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm


class TrainingDiverged(FloatingPointError):
    """A loss or a gradient that is not finite."""


class Meter:
    """Losses and gradient norms of the steps since they were last read. Until then they stay on the device."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = ("loss", *names, "grad_norm")
        self.restart()

    def restart(self) -> None:
        """Forgets all steps, and starts the clock of the throughput."""
        self.rows: list[Tensor] = []  # for each step, in the order of `names`
        self.steps: list[tuple[int, list[str]]] = []  # its number (from 1), and what its images are called
        self.images, self.started = 0, time.perf_counter()

    def open_step(self, step: int, image_names: list[str]) -> None:
        self.steps.append((step, image_names))
        self.images += len(image_names)
        self.row: Tensor | float = 0.0

    def add(self, loss: Tensor, values: dict[str, Tensor]) -> None:
        """A micro-batch's part of the step."""
        absent = torch.zeros_like(loss)
        self.row = (
            self.row + torch.stack([loss, *(values.get(name, absent) for name in self.names[1:-1])]).detach()
        )

    def close_step(self, grad_norm: Tensor, accelerator: Accelerator) -> None:
        """The step is complete: its numbers become the mean over the processes."""
        row = torch.cat([self.row, grad_norm.detach().reshape(1)])
        self.rows.append(accelerator.reduce(row, "mean"))

    def images_per_second(self) -> float:
        return self.images / (time.perf_counter() - self.started)

    def check(self, first: int = 0) -> None:
        """Waits for the device; TrainingDiverged if a loss or gradient of the steps from `first` on is not finite."""
        for row, (step, images) in zip(self.rows[first:], self.steps[first:], strict=False):
            loss, *_, grad_norm = row.tolist()
            if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                raise diverged(step, images, f"the loss is {loss}, the norm of its gradient {grad_norm}")

    def read(self) -> dict[str, float]:
        """The mean over the steps, which it forgets; TrainingDiverged as in `check`."""
        rows = torch.stack(self.rows).cpu()  # the one transfer, and the host's wait for the device
        self.rows = list(rows)
        self.check()
        self.restart()
        return dict(zip(self.names, rows.mean(0).tolist(), strict=True))


def diverged(step: int, images: list[str], reason: str) -> TrainingDiverged:
    return TrainingDiverged(f"step {step}: {reason}. Its images: {', '.join(images)}")


class Progress:
    """Steps done, images per second, time left, loss, and the last evaluation.

    Args:
        steps: of the whole run.
        done: steps that an earlier part of the run has done.
        bar: draw a bar; None: only on a terminal.
        enabled: False for all processes but one.
    """

    def __init__(self, steps: int, done: int = 0, bar: bool | None = None, enabled: bool = True) -> None:
        self.steps, self.first, self.started = steps, done, time.perf_counter()
        self.enabled, self.metric = enabled, ""
        self.bar: Any = None
        if enabled and (sys.stderr.isatty() if bar is None else bar):
            self.bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True, mininterval=0.5)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.update()

    def show_loss(self, step: int, loss: float, images_per_second: float) -> None:
        text = f"loss {loss:.3f}, {images_per_second:.1f} images/s{self.metric}"
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
        elif self.enabled:
            left = (time.perf_counter() - self.started) / (step - self.first) * (self.steps - step)
            print(
                f"step {step}/{self.steps}: {text}, {tqdm.format_interval(left)} left",
                file=sys.stderr,
                flush=True,
            )

    def show_metric(self, step: int, name: str, value: float | None) -> None:
        """None: it is not defined."""
        number = "–" if value is None else f"{value:.4f}"
        self.metric = f", {name} {number}"
        if self.enabled and self.bar is None:
            print(f"step {step}/{self.steps}: {name} {number}", file=sys.stderr, flush=True)
