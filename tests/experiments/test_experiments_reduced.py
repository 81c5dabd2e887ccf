"""Every experiment, reduced to seconds; and the small model that they train."""

import pytest
import torch

from minivis.data.scenes import Scenes
from minivis.detr import HungarianMatcher
from minivis.experiments import EXPERIMENTS, get_experiment, read_result, run_experiment
from minivis.experiments.d15 import SwappedGIoU, SwappedLoss, WideScenes
from minivis.experiments.small_detr import WORLD, small_criterion, train_small


@pytest.mark.parametrize("id", EXPERIMENTS)
def test_an_experiment_measures_what_it_says_of_every_variant(id, tmp_path):
    experiment, file = get_experiment(id), tmp_path / f"{id}.json"
    result = run_experiment(experiment, file, seeds=1, reduced=True)
    assert result.reduced
    assert [run.variant for run in result.runs] == list(experiment.variants)
    for run in result.runs:
        assert list(run.measures) == list(experiment.measures)
        for name in (name for name in run.measures if name.startswith("AP") and "50" not in name):
            at_50 = name.replace("AP", "AP50")
            assert 0 <= run.measures[name] <= run.measures.get(at_50, 1) <= 1
    differ = "loss_giou" if "loss_giou" in experiment.measures else "parameters"
    assert len({run.measures[differ] for run in result.runs}) == len(experiment.variants), (
        "the variants differ"
    )
    assert min(run.measures[differ] for run in result.runs) > 0
    assert read_result(file) == result


def test_an_unknown_experiment_is_named():
    with pytest.raises(ValueError, match=r"no experiment 'd21' .*there are .*D20, D21"):
        get_experiment("d21")


def test_training_is_watched_and_learns_and_depends_on_the_seed_alone():
    seen = []

    def watch(step, model):
        seen.append((step, float(model.class_embed.weight.detach().sum())))

    model, history = train_small(small_criterion(), steps=30, on_step=watch)
    assert [step for step, _ in seen] == list(range(31))
    assert len({value for _, value in seen}) == 31, "every step changes the model"
    assert not model.training
    assert {len(values) for values in history.values()} == {30}
    assert sum(history["loss"][-5:]) < 0.9 * sum(history["loss"][:5])

    assert train_small(small_criterion(), steps=3)[1]["loss"] != history["loss"][:3], (
        "its schedule is as long as it"
    )
    torch.manual_seed(5)
    again = [train_small(small_criterion(), seed, steps=2)[1] for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]
    other = train_small(small_criterion(HungarianMatcher(1, 1, 1)), steps=2)[1]
    assert other["loss"][0] != again[0]["loss"][0], "another matching, another loss"


def test_variants_of_a_seed_see_the_same_scenes_and_begin_with_the_same_weights():
    first = []

    def watch(step, model):
        if step == 0:
            first.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    for criterion in (small_criterion(), small_criterion(giou=0)):
        _, history = train_small(criterion, seed=3, steps=1, on_step=watch)
        first.append(history["loss_giou"])
    assert all(torch.equal(tensor, first[2][name]) for name, tensor in first[0].items())
    assert first[1] == first[3]


def test_wide_scenes_have_boxes_twice_as_high_as_wide():
    wide, square = WideScenes("val", WORLD, size=20), Scenes("val", WORLD, size=20)
    (images, targets, _), (original, expected, _) = (
        d.prepare(d.collate([d[i] for i in range(20)])) for d in (wide, square)
    )
    assert images.pixels.shape == (20, 3, 64, 128)
    assert torch.equal(images.pixels[..., :64], original.pixels)
    assert images.pixels[..., 64:].std((0, 2, 3)).max() < 1e-6, "the right half is empty"
    for found, target in zip(targets, expected, strict=True):
        assert torch.allclose(found["boxes"] * torch.tensor([2.0, 1, 2, 1]), target["boxes"])
        assert found["original_size"] == (64, 128)
    assert wide.ground_truth()["annotations"] == square.ground_truth()["annotations"], (
        "in pixels nothing moved"
    )


def test_swapped_criteria_take_width_for_height():
    data = WideScenes("val", WORLD, size=4)
    targets = data.prepare(data.collate([data[i] for i in range(4)])).targets
    boxes = torch.stack([target["boxes"][0].expand(10, 4) for target in targets])
    targets = [{"labels": t["labels"][:1], "boxes": t["boxes"][:1]} for t in targets]
    layer = {"pred_logits": torch.zeros(4, 10, 4), "pred_boxes": boxes}
    right = layer | {"aux_outputs": [dict(layer)]}
    swapped = {**layer, "pred_boxes": boxes[..., [0, 1, 3, 2]]}
    swapped = swapped | {"aux_outputs": [dict(swapped)]}

    def box_losses(kind, outputs):
        losses = small_criterion(kind=kind)(outputs, targets)
        for name in ("loss_bbox", "loss_giou"):
            assert losses[name] == pytest.approx(losses[f"{name}_0"])
        return float(losses["loss_bbox"]), float(losses["loss_giou"])

    assert box_losses(SwappedLoss, swapped) == pytest.approx((0, 0), abs=1e-5)
    assert min(box_losses(SwappedLoss, right)) > 0.1
    l1, giou = box_losses(SwappedGIoU, right)
    assert l1 == pytest.approx(0, abs=1e-5) and giou > 0.5
    assert box_losses(SwappedGIoU, swapped)[1] == pytest.approx(0, abs=1e-5)
