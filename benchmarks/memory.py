"""Peak memory of two sides. Each figure is measured in a process of its own, where nothing ran before."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from common import Row, Step, arguments

MIB = 2**20
CLEAR_REFS = Path("/proc/self/clear_refs")

# From a side ("ours" or "theirs"), the name of a task, (height, width) and a device to what is run.
MakeTask = Callable[[str, str, tuple[int, int], str], Step]


def options_of(description: str, make_task: MakeTask) -> argparse.Namespace:
    """A benchmark's options. In a process that `peak_rows` has started, it prints its figure, and ends."""
    parser = arguments(description.splitlines()[0])
    parser.add_argument("--peak-memory-of", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peak_memory_of:
        side, task, *size = options.peak_memory_of
        print(peak_memory(make_task(side, task, tuple(map(int, size)), options.device), options.device))
        sys.exit()
    return options


def peak_rows(script: str, names: dict[str, str], size: tuple[int, int], device: str) -> list[Row]:
    """MiB above the weights at the peak of each task, given the name of its row."""
    if device == "cpu" and not CLEAR_REFS.exists():
        print("peak memory on a CPU is measured on Linux only", file=sys.stderr)
        return []
    rows = []
    for task, name in names.items():
        peaks = []
        for side in ("ours", "theirs"):
            command = [sys.executable, script, "--peak-memory-of", side, task, *map(str, size)]
            command += ["--device", device, "--threads", str(torch.get_num_threads())]
            peaks.append(float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        rows.append(Row(name, *peaks, "MiB"))
    return rows


def peak_memory(task: Step, device: str) -> float:
    """MiB that a task takes when it is run twice: of training, gradients, the optimiser's state and activations."""
    if device == "cpu":
        CLEAR_REFS.write_text("5")  # from now on VmHWM is the peak of what follows
        before = status_mib("VmRSS")
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / MIB
    task()
    task()
    peak = status_mib("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated() / MIB
    return peak - before


def status_mib(name: str) -> float:
    """A figure of Linux's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
