"""Training masks: which queries get one, what stays as it is, where it starts from, and a folder in COCO's format."""

import json
from dataclasses import fields, replace

import pytest
import torch
from tiny_detr import MODEL, TINY, pictures_recipe

from minivis.data import BadItem, BadItemError, CocoPanoptic, DetectionBatch, Scenes, World
from minivis.data.items import Categories
from minivis.data.panoptic_json import write_panoptic
from minivis.detr import DETR, DETRsegm, PanopticConfig, build_detr, build_panoptic
from minivis.images import ImageBatch, ImageTransform
from minivis.pretrained import load, save_checkpoint
from minivis.training import get_recipe
from minivis.training.loop import train
from minivis.training.recipes import PanopticRecipe

TINY_PANOPTIC = PanopticConfig(
    **replace(MODEL, num_heads=8).to_dict()
)  # 8 heads, so that its group norms divide
SETTINGS = {field.name: getattr(TINY, field.name) for field in fields(TINY)}
RECIPE = PanopticRecipe(**SETTINGS | {
    "name": "tiny-panoptic", "model": TINY_PANOPTIC, "steps": 2, "batch_size": 2, "ema": None, "num_queries": 14,
})  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes of 64 pixels with things and stuff, as a folder in COCO's panoptic format: 4 to train on, 2 to measure."""
    root = tmp_path_factory.mktemp("panoptic")
    for split, size in (("train", 4), ("val", 2)):
        scenes = Scenes(split, World(size=64), size, stuff=True)
        batch = scenes.prepare(scenes.collate([scenes[i] for i in range(size)]))
        written = [(f"{t['image_id']}.png", t["image_id"], scenes.truth(t)) for t in batch.targets]
        write_panoptic(root / split, "panoptic", written, scenes.categories)
        for index, (name, _, _) in enumerate(written):
            scenes.scene_image(index).save(root / split / name)
    return root


def categories_of(folder) -> Categories:
    return CocoPanoptic(folder).categories


def saved(model, folder, categories):
    """The model, saved as a checkpoint whose pictures stay as they are."""
    model.categories, model.image_transform = categories, ImageTransform()
    save_checkpoint(model, folder, {"recipe": {}, "seed": 0, "metrics": {}, "training": {}})
    return model


@pytest.fixture(scope="module")
def detector(folder, tmp_path_factory):
    """A checkpoint of a detector of the folder's things and stuff: its folder, and its weights."""
    torch.manual_seed(5)
    categories, checkpoint = categories_of(folder), tmp_path_factory.mktemp("detector")
    config = replace(TINY_PANOPTIC.detr, num_classes=len(categories), num_queries=14)
    return checkpoint, saved(build_detr(config), checkpoint, categories).state_dict()


@pytest.fixture(scope="module")
def with_masks(folder, tmp_path_factory):
    """A checkpoint of a detector with masks: its folder, and its weights."""
    torch.manual_seed(6)
    categories, checkpoint = categories_of(folder), tmp_path_factory.mktemp("with_masks")
    config = replace(TINY_PANOPTIC, num_classes=len(categories), num_queries=14)
    return checkpoint, saved(build_panoptic(config), checkpoint, categories).state_dict()


def build(folder, **changes):
    torch.manual_seed(2)
    task = replace(RECIPE, data=str(folder), **changes).build_task()
    return task, task.build_model().train()


def batch_of(task, indices=(0, 1)):
    dataset = task.dataset
    return task.prepare(dataset.collate([dataset[i] for i in indices]), torch.device("cpu"))


def pieces(batch):
    """A batch as micro-batches of one image each."""
    for i in range(len(batch.targets)):
        one = ImageBatch(batch.images.pixels[i : i + 1], batch.images.padding_mask[i : i + 1])
        yield DetectionBatch(one, batch.targets[i : i + 1], [])


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# Which queries get a mask


def test_masks_are_made_of_the_matched_queries_only_and_the_loss_is_that_of_all(folder, monkeypatch):
    task, model = build(folder, stage="joint")
    without_dropout(model)
    batch = batch_of(task)
    step = task.normalisers([batch])
    made = []
    of_pairs = model.mask_head.of_pairs
    monkeypatch.setattr(
        model.mask_head,
        "of_pairs",
        lambda x, attention, *rest: made.append(len(attention)) or of_pairs(x, attention, *rest),
    )
    loss, losses = task.loss(model, batch, step)
    matched = sum(len(target["labels"]) for target in batch.targets)
    assert made == [matched] and 0 < matched < 2 * task.num_queries

    of_all = task.criterion(model(batch.images), batch.targets, step.normalisers)
    assert made == [matched, 2 * task.num_queries]
    for name in ("loss_mask", "loss_dice", "loss_ce", "loss_bbox", "loss_giou"):
        assert torch.allclose(losses[name], of_all[name], rtol=1e-4, atol=1e-6), name
    assert torch.allclose(loss, task.criterion.weighted_sum(of_all), rtol=1e-4)


@pytest.mark.parametrize("stage", ["boxes", "masks", "joint"])
def test_a_batch_is_the_sum_of_its_micro_batches(folder, detector, stage):
    task, model = build(folder, stage=stage, initial=str(detector[0]))
    without_dropout(model)
    batch = batch_of(task)
    step = task.normalisers([batch])
    whole, _ = task.loss(model, batch, step)
    whole.backward()
    of_whole = gradients(model)
    model.zero_grad()

    micro = list(pieces(batch))
    step = task.normalisers(micro)
    total = 0
    for piece in micro:
        part, _ = task.loss(model, piece, step)
        part.backward()
        total += part.detach()
    assert torch.allclose(total, whole.detach(), rtol=1e-5)
    of_pieces = gradients(model)
    assert of_pieces.keys() == of_whole.keys() and of_whole
    for name, gradient in of_whole.items():
        assert torch.allclose(of_pieces[name], gradient, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("stage", ["boxes", "masks", "joint"])
def test_a_batch_of_which_nothing_could_be_read_has_zero_loss_and_zero_gradients(folder, detector, stage):
    task, model = build(folder, stage=stage, initial=str(detector[0]))
    batch = task.prepare(task.dataset.collate([BadItem("a", "broken")]), torch.device("cpu"))
    loss, values = task.loss(model, batch, task.normalisers([batch]))
    loss.backward()
    assert (loss.item(), values) == (0.0, {})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    found = gradients(model)
    assert found.keys() == trained, "processes would wait for one another"
    assert not any(gradient.any() for gradient in found.values())


def test_images_without_segments_train_too(folder, detector):
    task, model = build(folder, stage="joint")
    batch = batch_of(task)
    for target in batch.targets:
        for name in ("labels", "boxes", "masks"):
            target[name] = target[name][:0]
    loss, losses = task.loss(model, batch, task.normalisers([batch]))
    loss.backward()
    assert losses["loss_mask"] == losses["loss_dice"] == 0 and losses["loss_ce"] > 0
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


# What is trained, and what stays


def test_masks_alone_leave_the_detector_as_it_was(folder, with_masks, tmp_path):
    checkpoint, before = with_masks
    task, model = build(folder, stage="masks", initial=str(checkpoint))
    assert model.freeze_detr and not model.detr.training and model.mask_head.training
    batch = batch_of(task)
    loss, _ = task.loss(model, batch, task.normalisers([batch]))
    loss.backward()
    found = gradients(model)
    assert not any(name.startswith("detr.") for name in found)
    assert {name for name, _ in model.named_parameters() if not name.startswith("detr.")} == found.keys()
    (group,) = task.parameter_groups(model)
    assert sum(p.numel() for p in group["params"]) == sum(gradient.numel() for gradient in found.values())

    recipe = replace(RECIPE, data=str(folder), stage="masks", initial=str(checkpoint), weight_decay=0.1)
    train(recipe, tmp_path / "run", cpu=True, progress=False)
    trained = load(tmp_path / "run").state_dict()
    assert trained.keys() == before.keys()
    moved = {name for name, tensor in before.items() if not torch.equal(trained[name], tensor)}
    assert moved and not any(name.startswith("detr.") for name in moved)


def test_stages_train_what_they_say(folder, detector):
    for stage, logged, headline in (
        ("boxes", False, "AP"),
        ("masks", True, "PQ"),
        ("joint", True, "PQ"),
    ):
        task, model = build(folder, stage=stage, initial=str(detector[0]))
        assert isinstance(model, DETR if stage == "boxes" else DETRsegm)
        assert ("loss_mask" in task.logged, task.headline) == (logged, headline)
        assert ("masks" in task.dataset[0].target) == logged, "without masks to learn, none are read"


def test_what_makes_masks_may_have_its_own_learning_rate(folder):
    task, model = build(folder, stage="joint", lr=1e-4, backbone_lr=1e-5, mask_lr=1e-3)
    rate_of = {id(p): group["lr"] for group in task.parameter_groups(model) for p in group["params"]}
    for name, parameter in model.named_parameters():
        backbone, detr = name.startswith("detr.backbone."), name.startswith("detr.")
        assert rate_of[id(parameter)] == (1e-5 if backbone else 1e-4 if detr else 1e-3), name


# Where it starts from


def test_masks_alone_need_a_detector_of_the_datas_classes(folder, tmp_path):
    others = Categories(("cell", "platelet"), (1, 2), (True, False))
    config = replace(TINY_PANOPTIC.detr, num_classes=2)
    saved(build_detr(config), tmp_path, others)
    with pytest.raises(
        ValueError, match="detects cell, platelet; masks alone .* the classes of the data, circle"
    ):
        build(folder, stage="masks", initial=str(tmp_path))
    task, model = build(folder, stage="joint", initial=str(tmp_path))
    assert model.num_classes == len(task.dataset.categories) != 2


def test_a_panoptic_checkpoint_gives_its_detector_and_its_masks(folder, with_masks):
    checkpoint, weights = with_masks
    for stage in ("masks", "joint"):
        _, model = build(folder, stage=stage, initial=str(checkpoint))
        assert model.state_dict().keys() == weights.keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    _, model = build(folder, stage="boxes", initial=str(checkpoint))
    assert all(torch.equal(tensor, weights[f"detr.{name}"]) for name, tensor in model.state_dict().items())


def test_a_detector_trains_from_a_panoptic_checkpoint(with_masks):
    checkpoint, weights = with_masks
    task = pictures_recipe(initial=str(checkpoint)).build_task()
    model = task.build_model()
    assert type(model) is DETR
    for name, tensor in model.state_dict().items():
        if name.startswith("class_embed."):  # the pictures show cats and dogs
            assert tensor.shape[0] == 3
        else:
            assert torch.equal(tensor, weights[f"detr.{name}"]), name


@pytest.mark.parametrize("initial", ["none", "imagenet"])
def test_masks_alone_are_not_learned_from_nothing(initial):
    with pytest.raises(ValueError, match="masks alone|frozen batch norm"):
        get_recipe("panoptic-r50-coco").with_settings([f"initial={initial}"])


def test_the_second_stage_says_what_it_wants_where_the_first_is_missing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="panoptic-r50-coco needs data"):
        get_recipe("panoptic-r50-coco").build_task()
    with pytest.raises(FileNotFoundError) as caught:
        get_recipe("panoptic-r50-coco").with_settings([f"data={folder}"]).build_task()
    for words in ("./runs/panoptic-r50-coco-boxes", "minivis train panoptic-r50-coco-boxes", "--from"):
        assert words in str(caught.value)


# A folder in COCO's panoptic format


def test_two_stages_on_a_folder(folder, tmp_path):
    common = {
        "data": str(folder),
        "augment": "paper",
        "shortest_edge": 48,
        "longest_edge": 80,
        "eval_every": 2,
    }
    boxes = train(replace(RECIPE, stage="boxes", **common), tmp_path / "boxes", cpu=True, progress=False)
    assert boxes["images"] == 2 and 0 <= boxes["AP"] <= 1
    detector = load(tmp_path / "boxes")
    assert detector.categories == categories_of(folder) and detector.image_transform.shortest_edge == 48

    second = replace(RECIPE, stage="masks", initial=str(tmp_path / "boxes"), **common)
    metrics = train(second, tmp_path / "masks", cpu=True, progress=False)
    assert metrics["images"] == 2 and 0 <= metrics["PQ"] <= 1 and 0 <= metrics["mask_AP"] <= 1
    model = load(tmp_path / "masks")
    assert model.categories.things == detector.categories.things
    for name, tensor in detector.state_dict().items():
        assert torch.equal(model.detr.state_dict()[name], tensor), name


def test_labels_may_be_category_ids(folder):
    task, model = build(folder, stage="joint", categories="coco")
    assert len(task.dataset.categories) == model.num_classes == 1 + max(categories_of(folder).ids)


def test_a_folder_without_a_val_split_says_what_to_do(folder, tmp_path):
    (tmp_path / "train").symlink_to(folder / "train")
    with pytest.raises(
        FileNotFoundError, match=r"val/panoptic.json .*\(--set eval_every=none trains without\)"
    ):
        build(tmp_path, eval_every=1)
    assert build(tmp_path, eval_every=None)[0].validation is None


def test_what_is_broken_is_reported_to_the_run(folder, tmp_path):
    (tmp_path / "train").mkdir()
    for entry in (folder / "train").iterdir():
        (tmp_path / "train" / entry.name).symlink_to(entry)
    file = tmp_path / "train" / "panoptic.json"
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        for segment in entry["segments_info"]:
            segment["category_id"] = 99
    file.unlink()
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no annotation of .*panoptic.json can be used"):
        build(tmp_path)
    with pytest.raises(BadItemError, match="no category with the id 99"):
        replace(RECIPE, data=str(tmp_path)).build_task("stop")
