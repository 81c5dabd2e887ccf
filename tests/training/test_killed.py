"""A run that is killed at any moment goes on, bit for bit, as if it had not been."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_detr import assert_same_run, trace

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")]
MOMENTS = [
    "before_the_first_state", "in_the_middle_of_a_step", "between_micro_batches", "while_a_line_is_logged",
    "while_the_first_state_is_written", "while_a_later_state_is_written", "between_the_two_renames",
    "after_the_last_state", "while_the_log_is_cut_after_another_kill",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    script = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_resumes_exactly(runs, moment):
    assert [entry["step"] for entry in trace(runs / "whole")] == [1, 2, 3, 4, 5, 6]
    assert_same_run(runs / "whole", runs / moment)
