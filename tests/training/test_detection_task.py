import logging
from dataclasses import replace

import pytest
import torch
from tiny_detr import MODEL, TINY, Pictures, pictures_recipe

from minivis.data.items import BadItem, Categories
from minivis.detr import build_detr
from minivis.images import ImageTransform
from minivis.pretrained import save_checkpoint
from minivis.training.detection import DetectionTask, adopt_weights
from minivis.training.loop import start_accelerator

TWO = Categories(names=("cat", "dog"), ids=(1, 2))
OTHERS = Categories(names=("cell", "platelet"), ids=(1, 2))


def checkpoint(folder, categories=TWO, edge=48):
    torch.manual_seed(1)
    model = build_detr(MODEL)
    transform = ImageTransform(shortest_edge=edge, longest_edge=2 * edge)
    card = {
        "categories": categories.to_dict(),
        "image_transform": transform.to_dict(),
        "recipe": {},
        "seed": 0,
    }
    save_checkpoint(model, folder, {**card, "metrics": {}, "training": {}})
    return model


def build(**changes):
    torch.manual_seed(2)
    task = pictures_recipe(**changes).build_task()
    return task, task.build_model()


def test_more_queries_than_the_checkpoint_has_begin_as_new_ones(tmp_path):
    source = checkpoint(tmp_path)
    task, model = build(initial=str(tmp_path), num_queries=10)
    assert model.config.num_queries == task.num_queries == 10
    assert torch.equal(model.query_embed.weight[:6], source.query_embed.weight)
    assert len(model.query_embed.weight.unique(dim=0)) == 10
    new = model.query_embed.weight[6:]
    assert 0.5 < new.std() < 1.5
    for name, tensor in source.state_dict().items():
        if name != "query_embed.weight":
            assert torch.equal(model.state_dict()[name], tensor), name


def test_fewer_queries_are_the_first_ones(tmp_path):
    source = checkpoint(tmp_path)
    _, model = build(initial=str(tmp_path), num_queries=4)
    assert torch.equal(model.query_embed.weight, source.query_embed.weight[:4])


def test_pictures_with_more_objects_than_queries_get_more_queries(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="minivis")
    crowded = Pictures()
    crowded.most_objects = 7
    checkpoint(tmp_path)  # has 6 queries
    task, model = build(pictures=crowded, initial=str(tmp_path))
    assert model.config.num_queries == task.num_queries == 14
    assert "a picture has 7 objects: 14 queries, not the checkpoint's 6" in caplog.text
    _, model = build(pictures=crowded, initial=str(tmp_path), num_queries=5)  # as one says, but one is told
    assert model.config.num_queries == 5
    assert "a picture has 7 objects, of which 5 queries can find 5" in caplog.text


def test_other_classes_get_a_new_class_head_and_keep_the_rest(tmp_path):
    source = checkpoint(tmp_path, OTHERS)
    _, model = build(initial=str(tmp_path))
    assert not torch.equal(model.class_embed.weight, source.class_embed.weight)
    assert torch.equal(model.bbox_embed.layers[0].weight, source.bbox_embed.layers[0].weight)
    assert torch.equal(model.query_embed.weight, source.query_embed.weight)


def test_adopting_does_not_change_the_source():
    source, model = build_detr(MODEL), build_detr(replace(MODEL, num_queries=9))
    before = source.query_embed.weight.clone()
    adopt_weights(model, source, same_classes=True)
    with torch.no_grad():
        model.query_embed.weight.zero_()
    assert torch.equal(source.query_embed.weight, before)


def test_imagenet_weights_are_for_the_backbone(monkeypatch):
    from minivis.detr import ResNetBackbone

    loaded = []
    monkeypatch.setattr(ResNetBackbone, "load_imagenet_weights", lambda self: loaded.append(self.name))
    resnet = replace(MODEL, backbone="resnet18", backbone_norm="frozen", backbone_channels=())
    task, model = build(model=resnet, initial="imagenet", lr=1e-4, backbone_lr=1e-5)
    assert loaded == ["resnet18"]
    groups = {group["lr"]: group for group in task.parameter_groups(model)}
    rest, backbone = groups.pop(1e-4), groups.pop(1e-5)
    assert not groups
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for group in (rest, backbone) for p in group["params"]} == trained
    assert {id(p) for p in backbone["params"]} == {id(p) for p in model.backbone.parameters()} & trained


def test_frozen_parts_are_not_trained():
    task, model = build(freeze=("backbone", "transformer.encoder"))
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not any(p.requires_grad for p in model.transformer.encoder.parameters())
    (group,) = task.parameter_groups(model)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters() if p.requires_grad}
    with pytest.raises(ValueError, match=r"no part 'backbones'; it has backbone, transformer, "):
        build(freeze=("backbones",))


def test_data_must_be_named():
    with pytest.raises(ValueError, match="tiny needs data: .* --data"):
        DetectionTask(replace(TINY, data=None))


def test_a_batch_of_which_nothing_could_be_read_has_zero_loss_and_zero_gradients():
    task, model = build()
    batch = task.prepare([BadItem("a", "broken")], torch.device("cpu"))
    loss, values = task.loss(model, batch, task.normalisers([batch]))
    loss.backward()
    assert (loss.item(), values) == (0.0, {})
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values()), (
        "processes would wait for one another"
    )
    assert all((gradient == 0).all() for gradient in gradients.values())


def test_the_summary_names_each_bad_item_once():
    task = pictures_recipe(Pictures(bad=[1])).build_task()
    start_accelerator(cpu=True)
    assert task.summary() == ""
    for _ in range(2):
        task.prepare([task.dataset[0], task.dataset[1]], torch.device("cpu"))
    assert task.summary() == "1 bad item skipped:\n  picture 1: it is broken"


def test_of_several_processes_the_first_names_bad_items_and_the_others_are_named_at_the_end(
    monkeypatch, caplog
):
    monkeypatch.setenv("RANK", "1")
    task = pictures_recipe(Pictures(bad=[1])).build_task()
    task.prepare([task.dataset[0], task.dataset[1]], torch.device("cpu"))
    assert task.bad_items.count == 1 and caplog.text == ""

    monkeypatch.setenv("RANK", "0")
    first = pictures_recipe().build_task()
    met_by_both = [*task.bad_items.items] * 2
    monkeypatch.setattr("minivis.training.detection.gather_object", lambda items: [*items, *met_by_both])
    assert first.summary() == "1 bad item skipped:\n  picture 1: it is broken"
    assert caplog.text.count("skipped: picture 1: it is broken") == 1


@pytest.mark.parametrize(("lr", "warned"), [(1e-3, True), (1e-4, False)])
def test_a_post_norm_checkpoint_at_a_pre_norm_rate_is_warned_of(lr, warned, tmp_path, caplog):
    checkpoint(tmp_path)  # post-norm, as the paper's
    build(initial=str(tmp_path), lr=lr)
    assert ("detr-r50-finetune has settings for it" in caplog.text) == warned


def test_accelerates_cpu_launcher_is_told_to_start_one_process_only(monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with caplog.at_level(logging.WARNING, "minivis"):
        start_accelerator(cpu=True)
    assert "torchrun --standalone --nproc-per-node N" in caplog.text
