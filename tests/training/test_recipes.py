import json
import math
from dataclasses import replace

import pytest
from tiny_detr import TINY

from minivis.training import RECIPES, get_recipe


def test_settings_take_the_type_of_their_field():
    recipe = TINY.with_settings([
        "lr=2e-4", "steps=1e3", "betas=0.9,0.95", "ema=none", "compile=true", "data=some/folder", "schedule=constant",
        "freeze=backbone,transformer.encoder", "model.d_model=64", "model.backbone_channels=(8, 16)", "num_queries=200",
        "seed=-1",
    ])  # fmt: skip
    assert (recipe.lr, recipe.steps, recipe.betas, recipe.ema) == (2e-4, 1000, (0.9, 0.95), None)
    assert type(recipe.steps) is int
    assert (recipe.compile, recipe.data, recipe.schedule, recipe.seed) == (
        True,
        "some/folder",
        "constant",
        -1,
    )
    assert recipe.freeze == ("backbone", "transformer.encoder")
    assert (recipe.model.d_model, recipe.model.backbone_channels) == (64, (8, 16))
    assert recipe.num_queries == 200
    assert TINY.steps == 6, "a recipe never changes"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr", "expected key=value, got 'lr'"),
        ("batchsize=2", "no field 'batchsize' .did you mean 'batch_size'"),
        ("model.dmodel=2", "DETRConfig has no field 'dmodel' .did you mean 'd_model'"),
        ("lr.x=2", "'lr' has no fields"),
        ("lr=fast", "lr: expected float, got 'fast'"),
        ("steps=2.5", "steps: expected int, got '2.5'"),
        ("steps=none", "steps: expected int, got 'none'"),
        ("betas=0.9", "betas: expected tuple"),
        ("compile=1", "compile: expected bool"),
        ("schedule=linear", "schedule: expected 'constant' or 'step' or 'cosine', got 'linear'"),
        ("augment=flip", "augment: expected .*paper.*, got 'flip'"),
        ("model=small", "model: expected DETRConfig"),
        ("steps=0", "tiny: steps must be at least 1, got 0"),
        ("ema=1", "ema is a decay between 0 and 1"),
        ("schedule=step", "needs drop_at"),
    ],
)
def test_a_setting_that_is_wrong_is_named(setting, message):
    with pytest.raises(ValueError, match=message):
        TINY.with_settings([setting])


def test_an_unknown_recipe_is_named_with_the_closest():
    with pytest.raises(
        ValueError, match=r"no recipe 'detr-min' \(did you mean 'detr-mini'\?\); there are detr-mini, "
    ):
        get_recipe("detr-min")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_what_it_takes_and_can_be_written_as_json(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe.about
    assert recipe.estimate
    assert json.loads(json.dumps(recipe.to_dict())) == recipe.to_dict()


def test_the_full_recipe_is_the_papers():
    recipe = get_recipe("detr-r50-coco")
    epoch = 118_287 // 64
    assert (recipe.batch_size, recipe.steps, recipe.drop_at) == (64, 300 * epoch, 200 * epoch)
    assert (recipe.lr, recipe.backbone_lr, recipe.weight_decay, recipe.clip_norm) == (1e-4, 1e-5, 1e-4, 0.1)
    assert (recipe.class_weight, recipe.l1_weight, recipe.giou_weight, recipe.no_object_weight) == (
        1,
        5,
        2,
        0.1,
    )
    assert recipe.lr_factor(1) == recipe.lr_factor(200 * epoch) == 1
    assert recipe.lr_factor(200 * epoch + 1) == recipe.lr_factor(300 * epoch) == pytest.approx(0.1)


def test_a_frozen_batch_norm_is_not_trained_from_nothing():
    with pytest.raises(ValueError, match="features explode.*--from imagenet.*backbone_norm=group"):
        get_recipe("detr-r50-coco").with_settings(["initial=none"])
    get_recipe("detr-r50-coco").with_settings(["model.backbone_norm=group", "initial=none"])


def test_cosine_schedule_warms_up_and_ends_where_it_should():
    recipe = replace(TINY, steps=110, warmup=10, final_lr=0.1)
    assert [recipe.lr_factor(step) for step in (1, 5, 10)] == [0.1, 0.5, 1.0]
    assert recipe.lr_factor(60) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert recipe.lr_factor(110) == pytest.approx(0.1)
    factors = [recipe.lr_factor(step) for step in range(10, 111)]
    assert factors == sorted(factors, reverse=True)


def test_constant_schedule():
    recipe = replace(TINY, schedule="constant", warmup=0)
    assert {recipe.lr_factor(step) for step in range(1, 7)} == {1.0}


def test_settings_are_taken_together_whatever_their_order():
    settings = ["schedule=step", "drop_at=5", "initial=none", "model.backbone_norm=group"]
    for order in (settings, settings[::-1]):
        recipe = get_recipe("detr-r50-coco").with_settings(order)
        assert (recipe.drop_at, recipe.initial, recipe.model.backbone_norm) == (5, None, "group")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("eval_every=0", "eval_every must be at least 1, got 0"),
        ("eval_images=0", "eval_images must be at least 1"),
        ("num_queries=-3", "num_queries must be at least 1"),
        ("num_queries=0", "num_queries must be at least 1"),
        ("clip_norm=-1", "clip_norm must be above 0"),
        ("clip_norm=0", "clip_norm must be above 0"),
        ("lr=nan", "lr must be above 0, got nan"),
        ("warmup=-5", "warmup must be at least 0"),
        ("match_class=nan", "match_class must be at least 0, got nan"),
        ("steps=inf", "steps: expected int, got 'inf'"),
        ("initial=imagenet", "no ImageNet weights for the small backbone"),
        ("model.feature_level=9", "feature_level must be from -4 to 3, got 9"),
        ("model.num_heads=0", "num_heads must be at least 1"),
        ("model.d_model=0", "d_model must be at least 1"),
        ("model.dim_feedforward=-1", "dim_feedforward must be at least 1"),
        ("model.backbone_channels=3,5", "backbone_channels must be 4 or more each"),
    ],
)
def test_values_that_make_no_sense_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        get_recipe("detr-mini").with_settings([setting])


def test_the_model_of_a_checkpoint_cannot_be_set():
    finetune = get_recipe("detr-finetune")
    with pytest.raises(ValueError, match="the model is that of the checkpoint detr-mini"):
        finetune.with_settings(["model.d_model=64"])
    assert finetune.with_settings(["model.d_model=64", "initial=none"]).model.d_model == 64
    assert not finetune.with_settings(["model.aux_loss=false"]).model.aux_loss
