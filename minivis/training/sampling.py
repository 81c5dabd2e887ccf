"""Which items a step trains on: a pure function of seed and step, so that a resumed run has nothing to skip."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler

ORDER, ITEMS, STEP = range(3)  # what a seed is for: seeds of different purposes have nothing in common


def derived_seed(*key: int) -> int:
    """A seed below 2³² that depends on all of `key`."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Yields the keys (index, item seed) of one micro-batch after the other, from a given step on.

    The batch of step s is items s·B .. (s+1)·B − 1 of an endless sequence: the data set in a new random order each
    epoch, so that no item is left out or repeated within an epoch. Process p of P takes the p-th of P equal parts, in
    `accumulate` micro-batches: together they are the same batch, however it is divided.

    Args:
        length: of the data set; None if it is endless, so that only an item's seed counts.
        batch_size: B, of all processes together.
        steps: where to end.
        start: steps that are done already.
    """

    def __init__(
        self,
        length: int | None,
        batch_size: int,
        steps: int,
        seed: int,
        accumulate: int = 1,
        process: int = 0,
        processes: int = 1,
        start: int = 0,
    ) -> None:
        if length == 0:
            raise ValueError("the data set is empty")
        if batch_size % (processes * accumulate):
            raise ValueError(
                f"a batch of {batch_size} cannot be divided into {accumulate} equal parts for each of {processes} "
                "processes"
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.steps, self.accumulate = start, steps, accumulate
        self.process, self.processes = process, processes
        self._order = lru_cache(maxsize=2)(self._shuffled)  # a batch may reach from one epoch into the next

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((ORDER, self.seed, epoch)).permutation(self.length)

    def batch(self, step: int) -> list[tuple[int, int]]:
        """The keys of the whole batch of a step."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        seeds = np.random.default_rng((ITEMS, self.seed, step)).integers(2**31, size=self.batch_size).tolist()
        if self.length is None:
            indices = [0] * self.batch_size
        else:
            indices = [int(self._order(p // self.length)[p % self.length]) for p in positions]
        return list(zip(indices, seeds, strict=True))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.batch_size // (self.processes * self.accumulate)
        for step in range(self.start, self.steps):
            keys = self.batch(step)
            for part in range(self.accumulate):
                first = (self.process * self.accumulate + part) * size
                yield keys[first : first + size]

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulate
