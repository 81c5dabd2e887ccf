import json
import logging
import math
from dataclasses import replace

import pytest
import torch
from tiny_detr import TINY, Pictures, assert_same_run, pictures_recipe, saved_state, seeds_of_step, trace

import minivis
from minivis.data.items import BadItemError
from minivis.detr import DETR
from minivis.training import RunError, TrainingDiverged, detection, learner, train
from minivis.training.checkpoint import read_log

NO_DROPOUT = replace(TINY.model, dropout=0.0)


def test_a_run_leaves_weights_a_card_a_log_and_curves(tmp_path, capsys):
    recipe = TINY.with_settings(["steps=5", "eval_every=3", "eval_images=4", "seed=3", "model.num_queries=9"])
    metrics = train(recipe, tmp_path / "run")
    assert 0 <= metrics["AP"] <= 1

    for folder in (tmp_path / "run", tmp_path / "run" / "best"):
        model = minivis.load(folder)
        assert model.config.num_queries == 9
        assert model.class_names == ["circle", "square", "triangle", "star", "cross", "ring"]
        assert model.card["recipe"] == recipe.to_dict()
        assert model.card["seed"] == 3
    card = minivis.load(tmp_path / "run").card
    assert card["metrics"] == metrics
    assert card["training"]["steps"] == 5
    assert card["training"]["machine"].startswith("1 × ")

    log = read_log(tmp_path / "run")
    losses, evaluations = [e for e in log if "loss" in e], [e for e in log if "AP" in e]
    assert [e["step"] for e in losses] == [2, 3, 4, 5]  # every 2 steps, and before evaluating and at the end
    assert [e["step"] for e in evaluations] == [3, 5]
    assert {"loss_ce", "loss_bbox", "loss_giou", "class_error", "grad_norm", "lr"} < losses[0].keys()
    assert losses[-1]["lr"] == pytest.approx(recipe.lr * recipe.lr_factor(5))
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000

    shown = capsys.readouterr().err
    assert "step 2/5: loss" in shown
    assert "images/s" in shown
    assert "left" in shown
    assert "step 3/5: AP 0." in shown


def test_a_bar_is_drawn_when_asked_for(tmp_path, capsys):
    train(pictures_recipe(steps=2), tmp_path, progress=True)
    assert "2/2" in capsys.readouterr().err


def test_the_loss_of_a_few_pictures_falls(tmp_path):
    changes = {"warmup": 5, "lr": 5e-3, "log_every": 10, "save_every": 80, "ema": None, "clip_norm": None}
    recipe = pictures_recipe(Pictures(4), steps=80, **changes)
    train(recipe, tmp_path)
    losses = [entry["loss"] for entry in trace(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(TINY.with_settings(["steps=2", f"seed={seed}"]), tmp_path / name)
    assert trace(tmp_path / "a") == trace(tmp_path / "b") != trace(tmp_path / "c")


def test_a_run_in_parts_is_the_run_in_one(tmp_path):
    """Evaluations, the average of weights and dropout included: stopped by an error in step 5, resumed from step 4."""
    recipe = TINY.with_settings(["steps=6", "eval_every=3", "eval_images=3", "log_every=1"])
    train(recipe, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(*arguments):
        raise Stop

    original = learner.update_average
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            learner, "update_average", lambda a, m, d, step: stop() if step == 5 else original(a, m, d, step)
        )
        with pytest.raises(Stop):
            train(recipe, tmp_path / "parts")
    assert saved_state(tmp_path / "parts")["run"]["step"] == 4
    with pytest.raises(RunError, match="add --resume"):
        train(recipe, tmp_path / "parts")
    train(recipe, tmp_path / "parts", resume=True)

    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    train(recipe, tmp_path / "parts", resume=True)  # nothing is left to do
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_accumulated_steps_equal_whole_ones(tmp_path):
    """The class loss's weighted mean included, and with a part whose pictures are all empty."""
    whole = pictures_recipe(steps=3, lr=1e-6, log_every=1, model=NO_DROPOUT)
    empty = seeds_of_step(whole, 8, step=2)[2:]
    train(
        pictures_recipe(Pictures(8, empty), steps=3, lr=1e-6, log_every=1, model=NO_DROPOUT),
        tmp_path / "whole",
    )
    train(
        pictures_recipe(Pictures(8, empty), steps=3, lr=1e-6, log_every=1, model=NO_DROPOUT, accumulate=2),
        tmp_path / "parts",
    )
    for a, b in zip(trace(tmp_path / "whole"), trace(tmp_path / "parts"), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if name != "class_error":  # a mean over each part's matched queries
                assert a[name] == pytest.approx(b[name], rel=1e-4), name


def test_the_average_follows_the_weights(tmp_path):
    train(pictures_recipe(steps=3, ema=0.5, lr=1e-2, warmup=0), tmp_path / "average")
    saved = saved_state(tmp_path / "average")
    name = "class_embed.weight"
    published = minivis.load(tmp_path / "average").state_dict()[name]
    assert torch.equal(published, saved["average"][name])
    assert not torch.equal(published, saved["model"][name])

    train(pictures_recipe(steps=3, ema=None), tmp_path / "plain")
    saved = saved_state(tmp_path / "plain")
    assert "average" not in saved
    assert torch.equal(minivis.load(tmp_path / "plain").state_dict()[name], saved["model"][name])


def test_update_average_by_hand():
    average, model = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for module, value in ((average, 0.0), (model, 1.0)):
        torch.nn.init.constant_(module.weight, value)
    learner.update_average(average, model, decay=0.9, step=1)  # (1 + 1) / (10 + 1) of the old
    assert average.weight.item() == pytest.approx(9 / 11)
    learner.update_average(average, model, decay=0.9, step=1000)
    assert average.weight.item() == pytest.approx(0.9 * 9 / 11 + 0.1)


def test_gradients_are_clipped_to_the_norm(tmp_path):
    norms = []

    def look(self, model, step):
        norms.append(math.sqrt(sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection.DetectionTask, "after_step", look)
        train(pictures_recipe(steps=2, clip_norm=0.01, log_every=1), tmp_path)
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)
    assert trace(tmp_path)[0]["grad_norm"] > 0.01  # as it was


def test_bf16_trains_and_keeps_weights_and_losses_in_float32(tmp_path):
    train(pictures_recipe(steps=2, precision="bf16", log_every=1, model=NO_DROPOUT), tmp_path / "bf16")
    train(pictures_recipe(steps=2, log_every=1, model=NO_DROPOUT), tmp_path / "fp32")
    for a, b in zip(trace(tmp_path / "bf16"), trace(tmp_path / "fp32"), strict=True):
        assert a["loss"] != b["loss"]
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02)
    assert {t.dtype for t in saved_state(tmp_path / "bf16")["model"].values()} == {torch.float32}


def test_activation_checkpointing_changes_nothing_but_memory(tmp_path):
    for name, switch in (("plain", False), ("checkpointed", True)):
        recipe = pictures_recipe(steps=2, log_every=1, checkpoint_activations=switch, model=NO_DROPOUT)
        train(recipe, tmp_path / name)
    for a, b in zip(trace(tmp_path / "plain"), trace(tmp_path / "checkpointed"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_compiling_is_a_switch(tmp_path, monkeypatch):
    """What is compiled is the model itself, so that its weights keep their names."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module)))
    train(pictures_recipe(steps=1, compile=True), tmp_path / "compiled")
    assert compiled == [DETR]
    train(pictures_recipe(steps=1), tmp_path / "plain")
    assert compiled == [DETR]


def test_workers_read_the_same_items(tmp_path):
    for workers in (0, 2):
        train(pictures_recipe(steps=3, log_every=1, workers=workers), tmp_path / str(workers))
    assert trace(tmp_path / "0") == trace(tmp_path / "2")


# What goes wrong


def test_predictions_that_are_not_finite_stop_the_run_before_the_update(tmp_path):
    recipe = pictures_recipe(steps=6)
    bad = seeds_of_step(recipe, 8, step=4)[1]
    with pytest.raises(TrainingDiverged, match=r"^step 4: .*Its images: image 10\d(, image 10\d){3}$"):
        train(pictures_recipe(Pictures(8, nan=[bad]), steps=6), tmp_path)
    saved = saved_state(tmp_path)
    assert saved["run"]["step"] == 2
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())
    assert not (tmp_path / "model.safetensors").exists()

    train(pictures_recipe(Pictures(8), steps=6), tmp_path, resume=True)  # mended
    assert [entry["step"] for entry in trace(tmp_path)] == [2, 4, 6]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, where):
    """Even where predictions are finite."""
    original = detection.DetectionTask.loss
    calls = []

    def spoilt(self, model, batch, step):
        loss, values = original(self, model, batch, step)
        calls.append(loss)
        if len(calls) == 3:
            return (loss + math.inf if where == "loss" else loss + (loss - loss.detach()).sqrt()), values
        return loss, values

    monkeypatch.setattr(detection.DetectionTask, "loss", spoilt)
    message = r"^step 3: the loss is .*, the norm of its gradient .*Its images: image 10"
    with pytest.raises(TrainingDiverged, match=message):
        train(pictures_recipe(steps=6), tmp_path)
    assert saved_state(tmp_path)["run"]["step"] == 2


def test_bad_items_are_named_once_counted_and_told_at_the_end(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "minivis"):
        train(pictures_recipe(Pictures(6, bad=[2, 4]), steps=6), tmp_path)
    assert caplog.text.count("skipped: picture 2: it is broken") == 1
    assert caplog.text.count("skipped: picture 4: it is broken") == 1
    assert "2 bad items skipped:" in caplog.records[-1].getMessage()


def test_bad_items_stop_the_run_if_asked_to(tmp_path):
    with pytest.raises(BadItemError, match="picture 2: it is broken"):
        train(pictures_recipe(Pictures(6, bad=[2]), steps=6), tmp_path, bad_items="stop")


def test_a_step_of_which_nothing_can_be_read_has_no_gradient(tmp_path):
    recipe = pictures_recipe(steps=3)
    pictures = Pictures(8, bad=seeds_of_step(recipe, 8, step=2))
    train(pictures_recipe(pictures, steps=3, log_every=1), tmp_path)
    losses = [(entry["loss"], entry["grad_norm"]) for entry in trace(tmp_path)]
    assert losses[1] == (0.0, 0.0)
    assert losses[0][0] > 0
    assert losses[2][0] > 0


def test_data_of_which_nothing_can_be_read_stops_the_run(tmp_path):
    with pytest.raises(ValueError, match="none of the 8 images in pictures could be read"):
        train(pictures_recipe(Pictures(8, bad=range(8)), steps=100), tmp_path)


def test_the_card_is_valid_json_where_a_metric_is_not_defined(tmp_path):
    recipe = TINY.with_settings(["steps=1", "eval_every=1", "eval_images=1"])
    metrics = train(recipe, tmp_path)
    assert metrics["AP_large"] is None  # scenes have no object above 96² pixels
    json.loads((tmp_path / "card.json").read_text(), parse_constant=pytest.fail)
