"""Trains a tiny DETR again and again, each time killed at another moment and resumed: `killed_runs.py FOLDER`.

Every run has a process of its own, forked after the imports, which are what takes time. For each moment the folder
FOLDER/MOMENT is left, and FOLDER/whole by a run that was never killed.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

torch.set_num_threads(1)

from tiny_detr import TINY  # noqa: E402

from minivis.training import checkpoint, detection, loop  # noqa: E402

RECIPE = replace(TINY, steps=6, log_every=1, save_every=2, accumulate=2)


def kill_self(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number, original, action):
    """`original`, whose n-th call is `action` instead."""
    calls = []

    def function(*arguments, **options):
        calls.append(1)
        return (action if len(calls) == number else original)(*arguments, **options)

    return function


def before_the_first_state():
    detection.DetectionTask.after_step = at_call(1, detection.DetectionTask.after_step, kill_self)


def in_the_middle_of_a_step():
    detection.DetectionTask.after_step = at_call(4, detection.DetectionTask.after_step, kill_self)


def between_micro_batches():
    detection.DetectionTask.loss = at_call(6, detection.DetectionTask.loss, kill_self)


def while_a_line_is_logged():
    def half(run, entry):
        with open(run.metrics_path, "a") as file:
            file.write('{"step": 4, "loss": 1')
        kill_self()

    checkpoint.RunFolder.log = at_call(4, checkpoint.RunFolder.log, half)


def while_the_first_state_is_written():
    write_half_of_state(1)


def while_a_later_state_is_written():
    write_half_of_state(2)


def write_half_of_state(number):
    original = torch.save

    def half(state, file):
        original(state, file)
        file.truncate(file.tell() // 2)
        file.flush()
        kill_self()

    torch.save = at_call(number, original, half)


def between_the_two_renames():
    original = os.replace

    def replace(source, target):
        if str(target).endswith("state.pt") and Path(target).with_name("state.previous.pt").exists():
            assert not Path(target).exists()
            kill_self()
        original(source, target)

    os.replace = replace


def after_the_last_state():
    loop.save_checkpoint = kill_self


def while_the_log_is_cut_after_another_kill():
    in_the_middle_of_a_step()


MOMENTS = [
    before_the_first_state, in_the_middle_of_a_step, between_micro_batches, while_a_line_is_logged,
    while_the_first_state_is_written, while_a_later_state_is_written, between_the_two_renames, after_the_last_state,
    while_the_log_is_cut_after_another_kill,
]  # fmt: skip


def in_a_process(function, *arguments, **options):
    """Exit status of a forked process that calls the function; negative if a signal ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments, **options)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(folder, arrange=None, resume=False):
    if arrange:
        arrange()
    loop.train(RECIPE, folder, resume=resume)


def cut_and_die():
    """In the process that resumes: killed when the log is being cut."""
    checkpoint.write_atomically = at_call(
        2, checkpoint.write_atomically, kill_self
    )  # the first writes the recipe


def main(root):
    assert in_a_process(run, root / "whole") == 0
    for moment in MOMENTS:
        folder = root / moment.__name__
        assert in_a_process(run, folder, moment) == -signal.SIGKILL, moment
        if moment is while_the_log_is_cut_after_another_kill:
            assert in_a_process(run, folder, cut_and_die, resume=True) == -signal.SIGKILL
        assert in_a_process(run, folder, resume=True) == 0, moment


if __name__ == "__main__":
    main(Path(sys.argv[1]))
