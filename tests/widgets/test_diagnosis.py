"""The diagnosis of a training on one's own pictures: its numbers, and what it shows of a run that was made."""

import json
from math import log

import pytest
import torch
from scene_folders import write_split

from minivis.training.loop import train
from minivis.training.recipes import get_recipe
from minivis.widgets import diagnosis
from minivis.widgets.diagnosis import answers_differ, blind_guess, diagnose

TINY = "num_queries=5 backbone_channels=8,8,8 d_model=16 num_heads=2 encoder_layers=1 decoder_layers=1"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of four scenes, one annotation of them broken, and a run on it."""
    folder = tmp_path_factory.mktemp("data")

    def break_one(pictures: list, truth: dict) -> None:
        truth["annotations"][0]["bbox"][2] = 0

    write_split(folder, "train", 4, break_one)
    write_split(folder, "val", 4)
    settings = [f"model.{each}" for each in TINY.split()]
    settings += [f"data={folder}", "steps=4", "eval_every=4", "batch_size=2", "log_every=1", "ema=none"]
    run = tmp_path_factory.mktemp("run") / "tiny"
    train(get_recipe("detr-mini").with_settings([*settings, "precision=no"]), run, cpu=True)
    return folder, run


def test_the_blind_guess_is_the_best_of_all_constant_answers():
    labels, boxes = (
        torch.tensor([0, 0, 0, 1]),
        torch.tensor([[0.2, 0.5, 0.1, 0.1]] * 2 + [[0.6, 0.5, 0.3, 0.1]] * 2),
    )
    found = blind_guess(labels, boxes, 2, 3, 5, 0.1)  # ten queries, six of them silent
    weights = torch.tensor([3.0, 1.0, 0.0, 0.6])
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def loss():
        optimizer.zero_grad()
        value = -(weights * logits.log_softmax(0)).sum() / weights.sum()
        value.backward()
        return value

    optimizer.step(loss)
    assert found.class_loss == pytest.approx(loss().item(), abs=1e-3)
    assert found.class_error == (25.0, 100.0)
    assert found.l1 == pytest.approx(0.2 + 0.1)
    alike = blind_guess(torch.tensor([0, 1]), boxes[:2], 1, 2, 12, 0.1)  # ten silent ones weigh as one class
    assert alike.class_loss == pytest.approx(log(3))
    with pytest.raises(ValueError, match="no objects"):
        blind_guess(labels[:0], boxes[:0], 2, 3, 5, 0.1)


def test_answers_that_do_not_depend_on_the_picture_differ_by_nothing():
    boxes = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
    assert answers_differ(boxes[:6].expand(10, 6, 4), boxes) == 0
    assert answers_differ(boxes[:, None], boxes) == pytest.approx(1)


def test_diagnosis_shows_pictures_counts_curves_and_answers(made, capsys, monkeypatch):
    folder, run = made
    shown = []
    monkeypatch.setattr(diagnosis, "show", lambda picture, alt: shown.append(alt))
    found = diagnose(folder, run, pictures=3)
    words = capsys.readouterr().out
    assert found.skipped == 1 and "1 bad item skipped" in words and "no width" in words
    truth = json.loads((folder / "train" / "annotations.json").read_text())
    objects = len(truth["annotations"]) - 1
    assert f"{objects} objects in 4 pictures" in words
    assert [alt.split(":")[0] for alt in shown] == [
        "4 pictures",
        "Curves of the run with the lines of a blind guess",
        "4 pictures",
    ]
    assert set(found.by_class) == {"circle", "square", "triangle"} and "AP by class: circle" in words
    assert 0 <= found.answers_differ < 1 and 0 < found.blind.class_loss < log(4) + 0.01
    assert words.index("annotations") < words.index("answers differ") < words.index("AP by class")
