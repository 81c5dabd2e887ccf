"""What a claim is: a statement of the document, and what became of it when it was put to the test."""

from dataclasses import dataclass
from typing import Literal

from minivis.experiments.results import load_result

IN_A_CELL = "measured in the notebook"
Verdict = Literal["confirmed", "corrected", "qualified", "not decided at this scale"]


@dataclass(frozen=True)
class Measured:
    """Evidence out of the shipped result of an experiment, which has the claim's id: a measure of some variants."""

    measure: str
    variants: tuple[str, ...]

    def text(self, id: str) -> str:
        result = load_result(id)
        return f"{self.measure} of " + "; ".join(
            f"{v}: {result.text(v, self.measure)}" for v in self.variants
        )


@dataclass(frozen=True)
class Printed:
    """Evidence out of a notebook's own output: lines, or parts of them, that it prints (spaces may be fewer)."""

    lines: tuple[str, ...]

    def text(self, id: str) -> str:
        return "; ".join(self.lines)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the document, in the course's own words.

    `evidence` is a measurement: of an experiment, or printed by the notebook. Where neither can be the same on every
    machine, or where nothing can be measured, it says so and cites the source.
    """

    id: str
    statement: str
    finding: str = ""  # what is right, in one sentence
    verdict: Verdict | None = None  # None: not measured yet
    evidence: Measured | Printed | str = ""
    notebook: str = ""  # its number

    def __post_init__(self) -> None:
        if self.verdict is not None and not (self.evidence and self.finding):
            raise ValueError(f"claim {self.id}: the verdict {self.verdict!r} needs a finding and evidence")
