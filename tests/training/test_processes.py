"""Several processes compute what one does on the joined batch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import processes_run
import pytest
import torch
from tiny_detr import trace

pytestmark = pytest.mark.slow

SMALL = [f"model.{name}={size}" for name, size in dict(d_model=16, num_heads=2, dim_feedforward=16).items()]
SMALL += ["model.encoder_layers=1", "model.decoder_layers=1", "model.backbone_channels=8,8,8,8"]


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


def test_several_processes_resume_to_the_same_weights(tmp_path):
    """In two runs of two processes each: half of the steps, then the rest; the same as all of them at once."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "minivis.cli", "train", "detr-mini", "--cpu", "--no-progress", "--steps", "4"]
    for setting in ("batch_size=4", "save_every=2", "eval_every=none", "log_every=1", "precision=no", *SMALL):
        command += ["--set", setting]

    def run(folder, *more):
        done = subprocess.run(
            [*command, "--out", folder, *more], capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == 0, done.stderr

    run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    state = tmp_path / "resumed" / "state.previous.pt"  # of step 2
    os.replace(state, tmp_path / "resumed" / "state.pt")
    (tmp_path / "resumed" / "model.safetensors").unlink()
    run(tmp_path / "resumed", "--resume")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert weights[0] == weights[1]
    assert trace(tmp_path / "whole") == trace(tmp_path / "resumed")


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
