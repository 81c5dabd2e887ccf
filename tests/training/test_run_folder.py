import json
import logging

import pytest
import torch

from minivis.training.checkpoint import RunError, RunFolder, read_log

RECIPE = {"name": "a", "lr": 0.1, "about": "text", "model": {"width": 8, "depth": 2}}


def make(folder, **options):
    run = RunFolder(folder, options.pop("recipe", RECIPE), **options)
    run.start()
    return run


def test_a_run_that_is_there_is_not_overwritten(tmp_path):
    make(tmp_path / "run")
    with pytest.raises(RunError, match=r"run holds a run already: add --resume .* or choose another --out"):
        RunFolder(tmp_path / "run", RECIPE)
    RunFolder(tmp_path / "run", RECIPE, resume=True)


def test_resuming_with_another_recipe_names_every_field_that_differs(tmp_path):
    make(tmp_path)
    other = {"name": "a", "lr": 0.2, "about": "another text", "model": {"width": 16, "depth": 2}}
    with pytest.raises(RunError, match=r"lr \(there 0.1, now 0.2\), model.width \(there 8, now 16\)$"):
        RunFolder(tmp_path, other, resume=True)


def test_resuming_where_there_is_no_run_starts_one(tmp_path):
    run = make(tmp_path / "a" / "b", resume=True)
    assert run.load_state("cpu") is None
    assert json.loads((tmp_path / "a" / "b" / "recipe.json").read_text()) == RECIPE


def test_the_state_before_is_kept_and_used_when_the_newest_is_lost_or_damaged(tmp_path, caplog):
    run = make(tmp_path)
    for step in (1, 2, 3):
        run.save_state({"step": step, "weights": torch.full((100,), float(step))})
    assert run.load_state("cpu")["step"] == 3
    whole = run.state_path.read_bytes()

    run.state_path.unlink()
    assert run.load_state("cpu")["step"] == 2

    run.state_path.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, "minivis"):
        assert run.load_state("cpu")["step"] == 2
    assert "state.pt cannot be read" in caplog.text

    run.previous_path.write_bytes(b"")
    with pytest.raises(RunError, match="no state in .* can be read"):
        run.load_state("cpu")


def test_nothing_but_tensors_and_plain_values_is_unpickled(tmp_path):
    run = make(tmp_path)
    torch.save({"step": print}, run.state_path)
    with pytest.raises(RunError, match="no state"):
        run.load_state("cpu")


def test_the_log_is_cut_at_the_step_that_is_resumed(tmp_path):
    run = make(tmp_path)
    for step in (2, 4, 4, 6):
        run.log({"step": step, "loss": 0.1})
    with open(run.metrics_path, "a") as file:
        file.write('{"step": 8, "lo')
    assert [entry["step"] for entry in read_log(tmp_path)] == [2, 4, 4, 6]
    run.start(4)
    run.log({"step": 5})
    assert [entry["step"] for entry in read_log(tmp_path)] == [2, 4, 4, 5]


def test_only_the_main_process_writes(tmp_path):
    run = make(tmp_path / "run", main=False)
    run.save_state({"step": 1})
    run.log({"step": 1})
    assert not (tmp_path / "run").exists()
