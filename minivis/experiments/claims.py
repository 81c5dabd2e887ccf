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


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the document, in the course's own words.

    `evidence` is a measurement, or says where the number is measured or which source is cited.
    """

    id: str
    statement: str
    finding: str = ""  # what is right, in one sentence
    verdict: Verdict | None = None  # None: not measured yet
    evidence: Measured | str = ""
    notebook: str = ""  # its number

    def __post_init__(self) -> None:
        if self.verdict is not None and not (self.evidence and self.finding):
            raise ValueError(f"claim {self.id}: the verdict {self.verdict!r} needs a finding and evidence")
