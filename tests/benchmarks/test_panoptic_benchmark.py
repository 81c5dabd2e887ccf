"""The two sides of the panoptic benchmark do the same: the same masks and the same loss."""

import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import panoptic as benchmark

SIZE = (64, 96)


@pytest.fixture(scope="module")
def models():
    return benchmark.both_models("cpu")


def test_the_sides_learn_the_same_parameters(models):
    ours, theirs = (sum(p.numel() for p in model.parameters() if p.requires_grad) for model in models)
    assert ours == theirs > 40_000_000


def test_inference_gives_the_same_masks(models):
    ours, theirs = (model.eval() for model in models)
    sides = {name: run() for name, run in benchmark.inference_sides(ours, theirs, SIZE, "cpu").items()}
    everything, kept = sides["all"]["pred_masks"], sides["kept"]["pred_masks"]
    assert everything.shape == (2, benchmark.QUERIES, 16, 24)
    assert_close(everything, sides["theirs"].pred_masks, rtol=1e-4, atol=1e-4)
    assert_close(kept, everything[:, : benchmark.MATCHED].flatten(0, 1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_training_has_the_same_loss(models):
    ours, theirs = (model.eval() for model in models)  # without dropout
    value, expected = benchmark.our_loss(ours, SIZE, "cpu")(), benchmark.their_loss(theirs, SIZE, "cpu")()
    assert_close(value, expected, rtol=1e-4, atol=1e-4)
    areas = [target["masks"].flatten(1).sum(1) for target in benchmark.targets_with_masks(SIZE, "cpu")]
    assert torch.cat(areas).min() > 0


def test_the_rows_of_the_head(models, monkeypatch):
    calls = []
    monkeypatch.setattr(
        benchmark,
        "fastest",
        lambda sides, repeats, wait: {name: calls.append(run()) or len(calls) for name, run in sides.items()},
    )
    ours, theirs = (model.eval() for model in models)
    rows = benchmark.head_rows(ours, theirs, SIZE, "cpu", repeats=1)
    assert [row.ratio for row in rows] == [3 / 1, 3 / 2]
    everything, kept, reference = calls
    assert_close(everything.flatten(), reference.flatten(), rtol=1e-4, atol=1e-4)
    assert_close(kept, everything[0, : benchmark.MATCHED], rtol=1e-4, atol=1e-4)
