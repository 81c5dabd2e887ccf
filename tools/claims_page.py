"""Writes docs/claims.md: what the document claims, and what became of it (`make claims`)."""

from pathlib import Path

from minivis.experiments import CLAIMS, claims_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "claims.md"
INTRODUCTION = """\
# The claims ledger

The course follows a document on DETR, CLIP and DINO, and puts each of its claims to a test. Here is what became of
them: {verdicts}.

The notebook in the last column shows how it was measured. Numbers are printed by that notebook, or they are means over
at least three seeds with the lowest and the highest in brackets. `minivis experiment ID` runs these anew; on another
kind of processor the same seed gives another training. This page is written by `make claims`.

"""


def page() -> str:
    counts: dict[str, int] = {}
    for claim in CLAIMS.values():
        verdict = claim.verdict or "not measured yet"
        counts[verdict] = counts.get(verdict, 0) + 1
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return INTRODUCTION.format(verdicts=verdicts) + claims_table()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
