"""The claims ledger: what the document says, topic by topic, and what became of it when it was put to the test."""

import re
from collections.abc import Sequence

from minivis.experiments.claims import Claim
from minivis.experiments.ledger import (
    detr_backbone,
    detr_decoder,
    detr_encoder,
    detr_loss,
    detr_panoptic,
    detr_training,
)

# In the order of the notebooks.
TOPICS = (detr_backbone, detr_encoder, detr_decoder, detr_loss, detr_training, detr_panoptic)


def _in_order(claim: Claim) -> tuple[str, int]:
    letter, number = re.fullmatch(r"([A-Z])(\d+)", claim.id).groups()
    return letter, int(number)


CLAIMS: dict[str, Claim] = {
    claim.id: claim for claim in sorted((c for topic in TOPICS for c in topic.CLAIMS), key=_in_order)
}


def claims_table(ids: Sequence[str] = ()) -> str:
    """The claims of these ids, or all of them, as a table in Markdown."""
    unknown = [id for id in ids if id not in CLAIMS]
    if unknown:
        raise ValueError(f"expected ids of claims ({', '.join(CLAIMS)}), got {', '.join(unknown)}")
    lines = ["| | the document says | verdict | what is right | evidence | notebook |", "| --- " * 6 + "|"]
    for claim in (CLAIMS[id] for id in ids or CLAIMS):
        evidence = claim.evidence if isinstance(claim.evidence, str) else claim.evidence.text(claim.id)
        verdict = claim.verdict or "not measured yet"
        cells = (claim.id, claim.statement, verdict, claim.finding, evidence, claim.notebook)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
