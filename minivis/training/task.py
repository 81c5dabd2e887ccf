"""What the training loop asks of a model and its data."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Task(Protocol):
    """A model to train, and what it is trained and evaluated on. A batch is whatever `prepare` gives."""

    dataset: Any  # indexed with the keys of `StepSampler`; its `collate` makes a batch in a reading process
    endless: bool  # the data set is generated: an item is its seed, and there are no epochs
    logged: tuple[str, ...]  # which values beside the loss are written to the log
    headline: str  # the metric that says which weights are best; higher is better

    def build_model(self) -> nn.Module:
        """The model with its first weights."""

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """For the optimiser: dicts of `params`, and where they differ from the recipe's `lr` and `weight_decay`."""

    def prepare(self, collated: Any, device: torch.device) -> Any:
        """The batch on the device."""

    def names(self, batch: Any) -> list[str]:
        """What each image of a batch is called in an error message."""

    def normalisers(self, batches: list[Any]) -> Any:
        """What the losses of a step are divided by, given all its micro-batches.

        Counts are taken over all processes and divided by their number: then the sum of the micro-batches' losses,
        averaged over the processes, is the loss of the joined batch.
        """

    def loss(self, model: Any, batch: Any, normalisers: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """A micro-batch's part of the step's loss, and of the values to be logged (scalars).

        It calls the model once, whatever the batch holds: each process takes part in each backward pass.
        """

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called after each update of the weights."""

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Metrics on the validation split. Every process calls it and gets the same."""

    def card(self, model: nn.Module) -> dict[str, Any]:
        """What a checkpoint's card says of the model itself."""

    def summary(self) -> str:
        """What to tell at the end, such as the items that could not be read; "" if there is nothing."""
