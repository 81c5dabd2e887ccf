"""The ledger of claims, and the table that grows from it."""

import claims_page
import pytest

from minivis.experiments import CLAIMS, EXPERIMENTS, Claim, Measured, Result, Run, claims_table, load_result


def test_every_claim_says_what_the_document_says():
    for id, claim in CLAIMS.items():
        assert claim.id == id
        assert claim.statement.endswith(".")
        assert claim.notebook.isdigit()
        if isinstance(claim.evidence, Measured):
            result = load_result(id)
            for variant in claim.evidence.variants:
                assert result.values(variant, claim.evidence.measure)
    assert EXPERIMENTS.keys() <= CLAIMS.keys()


def test_the_table_has_a_row_for_every_claim_asked_for():
    lines = claims_table(["D19", "D15"]).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| D19 | The order") and lines[3].startswith("| D15 |")
    assert len({line.count("|") for line in lines}) == 1, "a table of equal columns"
    assert len(claims_table().splitlines()) == 2 + len(CLAIMS)
    with pytest.raises(ValueError, match="got D0, X1"):
        claims_table(["D15", "D0", "X1"])


def test_what_was_not_measured_says_so(monkeypatch):
    monkeypatch.setitem(CLAIMS, "D0", Claim(id="D0", statement="Apples fall."))
    assert "| D0 | Apples fall. | not measured yet |" in claims_table(["D0"])


def test_a_verdict_needs_evidence():
    with pytest.raises(ValueError, match="claim D0: the verdict 'confirmed' needs a finding and evidence"):
        Claim(id="D0", statement="Apples fall.", finding="They do.", verdict="confirmed")


def test_evidence_is_read_off_the_result(monkeypatch):
    runs = [Run("pear", seed, {"AP": 0.5 + seed / 10}, 1.0, "a CPU") for seed in range(3)]
    result = Result("D0", "", "", {"pear": ""}, {"AP": ""}, "0", False, runs)
    monkeypatch.setattr("minivis.experiments.claims.load_result", {"D0": result}.__getitem__)
    evidence = Measured("AP", ("pear",))
    claim = Claim(
        id="D0", statement="Apples fall.", finding="So do pears.", verdict="qualified", evidence=evidence
    )
    monkeypatch.setitem(CLAIMS, "D0", claim)
    assert "| qualified | So do pears. | AP of pear: 0.60 (0.50–0.70) |" in claims_table(["D0"])


def test_the_page_of_claims_is_up_to_date():
    assert claims_page.PAGE.read_text(encoding="utf-8") == claims_page.page(), "run: make claims"
