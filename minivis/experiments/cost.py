"""What a computation costs on this machine: its time, and the memory it holds at once."""

import gc
import os
import time
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def fastest_seconds(run: Callable[[], Any], repeats: int = 3) -> float:
    """CPU seconds of the fastest of some runs, after one that does not count."""
    run()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most that was allocated for tensors on the CPU at one moment of the run, beyond what was there before.

    Counted by torch's profiler from every allocation and release, so it is the same in every run. It runs twice: what
    is made once and kept does not count.
    """
    run()
    gc.collect()  # so that nothing older is released meanwhile
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would tell that it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    memory = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(memory, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative where memory is given back
        peak = max(peak, held)
    return peak
