"""What the benchmarks share: timing two sides in one run, and saying what came out and on which machine."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

Step = Callable[[], Any]


class Row(NamedTuple):
    """One measurement of both sides. Less is better."""

    name: str
    ours: float
    theirs: float
    unit: str

    @property
    def ratio(self) -> float | None:
        """How many times better this project is; above 1 where it is. None if one side has 0."""
        return self.theirs / self.ours if self.ours > 0 and self.theirs > 0 else None


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="also print one JSON object, last on stdout")
    parser.add_argument(
        "--quick", action="store_true", help="smaller sizes and fewer repetitions: under a minute"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; default: torch's own choice")
    return parser


def fastest(
    sides: dict[Any, Callable[[], Any]],
    repeats: int,
    warmup: int = 1,
    wait: Callable[[], None] = lambda: None,
) -> dict[Any, float]:
    """The least seconds of each side: whatever else the machine does only adds to them, as `timeit` says as well.

    The sides take turns, so that a busy minute meets them all.

    Args:
        sides: what is timed, by name.
        repeats: how often each is timed, after `warmup` times that are not.
        wait: called before the clock is read, for devices that work on while Python goes on.
    """
    seconds: dict[Any, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + repeats):
        order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in order:
            wait()
            start = time.perf_counter()
            sides[name]()
            wait()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in seconds.items()}


def machine(device: str) -> dict[str, Any]:
    """Processor, threads and versions: without them a figure says nothing."""
    facts = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16 in the processor": any("bf16" in flag for flag in cpu_flags()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    if device != "cpu":
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def processor() -> str:
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    return cpuinfo().get("flags", "").split()


def cpuinfo() -> dict[str, str]:
    """Linux's account of the first core; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    lines = file.read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def report(title: str, rows: Sequence[Row], facts: dict[str, Any], as_json: bool) -> None:
    """Print the table; with `as_json` then the same as one JSON object on the last line."""
    print(title)
    print("; ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  {'minivis':>10}  {'reference':>10}  {'unit':4}  ratio (above 1: minivis is better)")
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        print(f"{row.name:{width}}  {row.ours:10.4g}  {row.theirs:10.4g}  {row.unit:4}  {ratio}")
    if as_json:
        entries = {row.name: row._asdict() | {"ratio": row.ratio} for row in rows}
        print(json.dumps({"benchmark": title, "machine": facts, "rows": entries}))
    sys.stdout.flush()
