"""Runs an experiment. What is measured is kept at once, so that a run which was stopped goes on where it was."""

import dataclasses
import platform
import time
from pathlib import Path

import torch
from tqdm import tqdm

import minivis
from minivis.experiments.experiment import Experiment
from minivis.experiments.results import Result, ResultError, Run, read_result


def run_experiment(experiment: Experiment, out: str | Path, seeds: int = 3, reduced: bool = False) -> Result:
    """Trains all variants with the seeds 0, 1, ..., but for those that `out` has already.

    Args:
        experiment: what is run.
        out: the JSON file; it is whole after every single run.
        seeds: how many.
        reduced: see `Experiment`.

    Raises:
        ResultError: if `out` holds something else than a part of this.
    """
    out = Path(out)
    result = started(experiment, out, reduced)
    result.save(out)  # now, and not after the first training, it shows whether it can be written
    todo = result.missing(range(seeds))
    with tqdm(todo, experiment.id, unit="run", disable=None) as runs:  # None: drawn on a terminal only
        for seed, variant in runs:
            runs.set_postfix_str(f"{variant}, seed {seed}")
            start = time.process_time()
            measures = experiment.run(variant, seed, reduced)
            seconds = round(time.process_time() - start, 1)
            result.runs.append(Run(variant, seed, measures, seconds, machine()))
            result.save(out)
    return result


def started(experiment: Experiment, out: Path, reduced: bool) -> Result:
    """The result with the runs that `out` has already, if there is such a file."""
    result = Result(
        experiment.id, experiment.claim, experiment.question, dict(experiment.variants), dict(experiment.measures),
        minivis.__version__, reduced, runs=[],
    )  # fmt: skip
    if not out.exists():
        return result
    there = read_result(out)
    for field in ("experiment", "minivis", "reduced", "variants", "measures"):
        old, new = getattr(there, field), getattr(result, field)
        if isinstance(old, dict):  # what stands beside the names may be worded anew
            old, new = list(old), list(new)
        if old != new:
            raise ResultError(f"{out}: expected {field} {new!r}, but it has {old!r}; choose another --out")
    return dataclasses.replace(result, runs=there.runs)


def machine() -> str:
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"
