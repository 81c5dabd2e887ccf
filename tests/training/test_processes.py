"""Several processes compute what one does on the joined batch."""

import subprocess
import sys
from pathlib import Path

import processes_run
import pytest
import torch
from tiny_detr import trace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes_run.PicturesTask, "after_step", processes_run.PicturesTask.after_step)
        processes_run.run(folder, accumulate=1)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("processes_run.py")
    done = subprocess.run([*launch, script, folder], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_losses_and_gradients_are_those_of_the_joined_batch(one, two, accumulate):
    """Also where one process has no objects, or nothing that could be read, or no process has."""
    both = [torch.load(two / accumulate / f"gradients-{rank}.pt") for rank in (0, 1)]
    joined = torch.load(one / "gradients.pt")
    assert len(joined) == processes_run.STEPS
    for step, expected in enumerate(joined):
        largest = max(gradient.abs().max() for gradient in expected.values())
        assert (largest > 0) == (step < 3)
        for name, gradient in expected.items():
            for rank in (0, 1):
                found = both[rank][step][name]
                torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6 * float(largest) + 1e-12)
            assert torch.equal(both[0][step][name], both[1][step][name])
    losses = ("loss", "loss_ce", "loss_bbox", "loss_giou", "grad_norm")
    for a, b in zip(trace(one), trace(two / accumulate), strict=True):
        assert [a[name] for name in losses] == pytest.approx([b[name] for name in losses], rel=1e-5)
