"""The numbers of an experiment: every one of them is kept, by variant and seed, and drawn; means are made of them."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minivis.pretrained.checkpoint import json_safe, write_atomically
from minivis.shipped_files import near, shipped, shipped_folder

FORMAT = 1  # of the file; a change that older code would misread makes it 2


class ResultError(ValueError):
    """A file of results that cannot be used; the message names it."""


@dataclass(frozen=True)
class Run:
    """One variant, trained with one seed."""

    variant: str
    seed: int
    measures: dict[str, float]
    cpu_seconds: float
    machine: str


@dataclass(frozen=True)
class Result:
    """What an experiment measured. The file has the same fields, and `format`."""

    experiment: str
    claim: str
    question: str
    variants: dict[str, str]
    measures: dict[str, str]
    minivis: str
    reduced: bool  # a trial of the machinery, which decides nothing
    runs: list[Run]

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    def values(self, variant: str, measure: str) -> list[float]:
        """One number for each seed, in the order of the seeds."""
        for kind, name, known in (("variant", variant, self.variants), ("measure", measure, self.measures)):
            if name not in known:
                raise ValueError(f"{self.experiment} has no {kind} {name!r}; it has {', '.join(known)}")
        runs = sorted((run for run in self.runs if run.variant == variant), key=lambda run: run.seed)
        return [run.measures[measure] for run in runs]

    def mean(self, variant: str, measure: str) -> float:
        return fmean(self.values(variant, measure))

    def spread(self, variant: str, measure: str) -> tuple[float, float]:
        """The lowest and the highest of the seeds: of three numbers they say more than a deviation does."""
        values = self.values(variant, measure)
        return min(values), max(values)

    def table(self, measures: Sequence[str] = ()) -> str:
        """Markdown: the mean of every variant, with lowest and highest in brackets."""
        measures = list(measures or self.measures)
        lines = ["| variant | " + " | ".join(measures) + " |", "| --- |" + " --- |" * len(measures)]
        for variant in self.variants:
            lines.append(f"| {variant} | " + " | ".join(self.text(variant, m) for m in measures) + " |")
        return "\n".join(lines) + "\n"

    def text(self, variant: str, measure: str) -> str:
        """Mean, lowest and highest, as "0.71 (0.68–0.73)"; of hundreds, as "512 (450–600)"."""
        low, high = self.spread(variant, measure)
        digits = 2 if high < 100 else 0
        return f"{self.mean(variant, measure):,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"

    def missing(self, seeds: Sequence[int]) -> list[tuple[int, str]]:
        """The (seed, variant) pairs that there are no numbers of yet, seed by seed."""
        there = {(run.seed, run.variant) for run in self.runs}
        wanted = [(seed, variant) for seed in seeds for variant in self.variants]
        return [pair for pair in wanted if pair not in there]

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT} | json_safe(dataclasses.asdict(self))

    def save(self, file: Path) -> None:
        """Writes the file, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, (json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n").encode())


def read_result(file: Path) -> Result:
    """The result in a file, complete or not.

    Raises:
        ResultError: if it is not one.
    """
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ResultError(
            f'{file}: expected the result of an experiment, a JSON object with "format": {FORMAT}'
        )
    try:
        result = Result(**content | {"runs": [Run(**run) for run in content["runs"]]})
    except (TypeError, KeyError) as error:
        raise ResultError(f"{file}: expected the fields of a result and of its runs: {error}") from error
    for run in result.runs:
        where = f"{file}: the run of {run.variant!r} with seed {run.seed}"
        if run.variant not in result.variants:
            raise ResultError(f"{where}: expected one of the variants {', '.join(result.variants)}")
        broken = [name for name in result.measures if not isinstance(run.measures.get(name), int | float)]
        if broken:
            raise ResultError(f"{where}: expected a number for {', '.join(broken)}")
    if len({(run.variant, run.seed) for run in result.runs}) < len(result.runs):
        raise ResultError(f"{file}: expected every variant and seed once, but one of them is there twice")
    return result


def load_result(id: str) -> Result:
    """The result of an experiment that ships with minivis.

    Raises:
        FileNotFoundError: if there is none.
        ResultError: if it cannot be used, or if a seed lacks a variant.
    """
    try:
        file = shipped(f"experiments/{id}.json")
    except FileNotFoundError:
        folder = shipped_folder() / "experiments"
        there = sorted(path.stem for path in folder.glob("*.json"))
        raise FileNotFoundError(
            f"expected the result of experiment {id!r} in {folder / id}.json; there are results of "
            f"{', '.join(there) or 'no experiment'}{near(id, there)}"
        ) from None
    result = read_result(file)
    if result.experiment != id or result.reduced or not result.runs:
        got = f"{len(result.runs)} {'reduced ' * result.reduced}runs of {result.experiment}"
        raise ResultError(f"{file}: expected full runs of experiment {id}, got {got}")
    if missing := result.missing(result.seeds):
        seed, variant = missing[0]
        raise ResultError(
            f"{file}: expected every variant with every seed, but {variant!r} lacks seed {seed}"
        )
    return result


def plot_result(result: Result, *measures: str) -> Figure:
    """A panel for each measure: a bar as long as the mean for every variant, and a point for every seed.

    Raises:
        ValueError: if no measure is given, or one that the result does not have.
    """
    if not measures:
        raise ValueError(f"expected a measure of {result.experiment}: {', '.join(result.measures)}")
    figure = Figure(
        figsize=(7 if len(measures) == 1 else 9, 0.9 + 0.45 * len(result.variants)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures):
        _draw_measure(axes, result, measure, alone=len(measures) == 1)
    panels[0].set_yticks(range(len(result.variants)), list(result.variants))
    panels[0].invert_yaxis()  # the first variant on top; the panels share the axis
    return figure


def _draw_measure(axes: Axes, result: Result, measure: str, alone: bool) -> None:
    for row, variant in enumerate(result.variants):
        values = result.values(variant, measure)
        axes.barh(row, fmean(values), height=0.62, color="#56B4E9" if row else "#999999", zorder=2)
        # Seeds a little one below the other, within the bar, so that equal numbers can be told apart.
        apart = min(0.12, 0.5 / len(values))
        rows = [row + apart * (i - (len(values) - 1) / 2) for i in range(len(values))]
        axes.plot(values, rows, "o", color="black", markersize=4.5, markeredgecolor="white", zorder=3)
    axes.axvline(result.mean(next(iter(result.variants)), measure), color="#666666", linestyle=":", zorder=1)
    axes.set_xlim(left=0)
    if alone:
        axes.set(title=f"{result.experiment}: {measure}", xlabel=result.measures[measure])
    else:  # what a measure means is too long for a narrow panel: the text says it
        axes.set(title=f"{result.experiment}: {measure}")
    axes.grid(axis="x", alpha=0.3, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
