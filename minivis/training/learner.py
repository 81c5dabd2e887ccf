"""What a training run changes: weights, their average, and the optimiser's state."""

import copy
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import nn

from minivis.training.recipes import Recipe
from minivis.training.task import Task


class Learner:
    """A task's model with its optimiser; `average` is what is evaluated and published."""

    def __init__(self, task: Task, recipe: Recipe, device: torch.device) -> None:
        set_seed(recipe.seed)
        self.task, self.recipe = task, recipe
        self.model = task.build_model().to(device).train()
        self.average = copy.deepcopy(self.model) if recipe.ema else self.model
        self.optimizer = torch.optim.AdamW(
            task.parameter_groups(self.model),
            recipe.lr,
            recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        for group in self.optimizer.param_groups:
            group["full_lr"] = group["lr"]

    def update(self, step: int) -> None:
        """One step of the optimiser, at the learning rate of the step (from 1), with the gradients that are there."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * self.recipe.lr_factor(step)
        self.optimizer.step()
        self.task.after_step(self.model, step)
        self.optimizer.zero_grad()
        if self.recipe.ema:
            update_average(self.average, self.model, self.recipe.ema, step)

    def state_dict(self) -> dict[str, Any]:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state | ({"average": self.average.state_dict()} if self.recipe.ema else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.recipe.ema:
            self.average.load_state_dict(state["average"])


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """average ← d · average + (1 − d) · weights; d rises to `decay`, so that the start is soon forgotten."""
    d = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - d)
    for buffer, newest in zip(average.buffers(), model.buffers(), strict=True):
        buffer.copy_(newest)
