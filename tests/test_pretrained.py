"""Checkpoints: what is saved comes back, files of every origin are read, and what is broken is named."""

import copy
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

import minivis
from minivis.data.items import Categories
from minivis.detr import DETR, DETRConfig, build_detr
from minivis.images import ImageTransform
from minivis.pretrained import (
    CheckpointError,
    checkpoint,
    from_transformers,
    load,
    load_released,
    save_checkpoint,
    shipped,
    shipped_checkpoints,
    to_transformers,
)
from minivis.pretrained.detr_weights import (
    backbone_from,
    categories_from,
    read_config,
    segmentation_categories_from,
)
from minivis.pretrained.huggingface import image_transform_from

CATEGORIES = Categories.dense([(3, "circle"), (7, "square")])
TINY = DETRConfig(
    num_classes=2,
    num_queries=5,
    backbone="small",
    backbone_norm="group",
    backbone_channels=(8, 16),
    d_model=16,
    num_heads=2,
    encoder_layers=1,
    decoder_layers=2,
    dim_feedforward=24,
)
CARD = {
    "categories": CATEGORIES.to_dict(),
    "image_transform": ImageTransform(shortest_edge=64, longest_edge=96).to_dict(),
    "recipe": {"name": "none", "lr": 1e-4},
    "seed": 3,
    "metrics": {"AP": 0.5, "AP_large": float("nan")},
    "training": {"steps": 10},
}


@pytest.fixture
def saved(tmp_path) -> Path:
    torch.manual_seed(0)
    return save_checkpoint(build_detr(TINY), tmp_path / "checkpoint", CARD)


def equal_weights(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- our own format


def test_what_is_saved_comes_back(tmp_path):
    model = build_detr(TINY)
    folder = save_checkpoint(model, tmp_path / "a" / "b", CARD)
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "model.safetensors"]
    loaded = load(folder)
    assert equal_weights(model, loaded) and loaded.config == model.config
    assert not loaded.training
    assert loaded.categories == CATEGORIES and loaded.class_names == ["circle", "square"]
    assert loaded.image_transform == ImageTransform(shortest_edge=64, longest_edge=96)
    assert loaded.card["metrics"] == {"AP": 0.5, "AP_large": None}  # JSON has no NaN
    assert loaded.card["seed"] == 3 and loaded.card["minivis"] == minivis.__version__
    with torch.no_grad():
        assert torch.isfinite(loaded([torch.zeros(3, 40, 50)])["pred_boxes"]).all()


def test_a_loaded_model_can_be_saved_again_as_it_is(saved, tmp_path):
    model = load(str(saved))
    again = save_checkpoint(model, tmp_path / "again", model.card)
    for name in ("card.json", "model.safetensors"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()
    bare = save_checkpoint(model, tmp_path / "bare", {})  # categories and transform are the model's own
    assert load(bare).categories == CATEGORIES


def test_half_precision_takes_half_the_space_and_comes_back_in_float32(saved, tmp_path):
    model = load(saved)
    half = save_checkpoint(model, tmp_path / "half", {}, torch.float16)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (saved, half)]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = load(half).state_dict()
    for name, tensor in model.state_dict().items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.half().float())


def test_only_trainable_and_frozen_alike_after_loading(saved):
    fresh = dict(build_detr(TINY).named_parameters())
    assert all(p.requires_grad == fresh[name].requires_grad for name, p in load(saved).named_parameters())


def broken_card(saved: Path, change) -> pytest.ExceptionInfo:
    card = json.loads((saved / "card.json").read_text())
    change(card)
    (saved / "card.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError) as error:
        load(saved)
    assert str(saved / "card.json") in str(error.value)
    return str(error.value)


def test_a_broken_card_is_named(saved):
    assert "lacks config" in broken_card(saved, lambda card: card.pop("config"))


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("format", 2, "format 2.*reads format 1"),
        ("model", "yolo", "unknown kind of model 'yolo', expected detr or panoptic"),
        ("config", ["small"], "config is .*expected a JSON object"),
        ("config", TINY.to_dict() | {"colour": 1}, "unknown entries: colour"),
        ("config", TINY.to_dict() | {"num_classes": 4}, "4 classes in config, 2 in categories"),
        ("config", TINY.to_dict() | {"backbone": "vgg"}, "no model can be built.*vgg"),
        ("categories", [{"label": 0}], "categories or image_transform cannot be read"),
        ("image_transform", {"size": 3}, "categories or image_transform cannot be read"),
    ],
)
def test_a_wrong_entry_of_the_card_is_named(saved, entry, value, message):
    assert re.search(message, broken_card(saved, lambda card: card.update({entry: value})))


def test_a_card_that_is_no_json_is_named(saved):
    (saved / "card.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"card.json is not JSON"):
        load(saved)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_weights_are_named(saved, keep):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        CheckpointError, match=r"model.safetensors \(\d+ bytes\) is truncated or not safetensors"
    ):
        load(saved)


def test_missing_weights_are_named(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors does not exist"):
        load(saved)


def test_tensors_that_do_not_fit_are_named(saved):
    file = saved / "model.safetensors"
    tensors = load_file(file)
    tensors["extra"] = tensors.pop("query_embed.weight")
    tensors["class_embed.bias"] = torch.zeros(9)
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as error:
        load(saved)
    for part in (
        str(file),
        "missing: query_embed.weight",
        "not known to the model: extra",
        r"class_embed.bias is (9,), expected (3,)",
    ):
        assert part in str(error.value)


def test_only_models_with_a_card_are_saved(tmp_path):
    with pytest.raises(TypeError, match="checkpoints hold detr or panoptic, not Linear"):
        save_checkpoint(nn.Linear(2, 2), tmp_path, CARD)
    with pytest.raises(CheckpointError, match="lacks categories, image_transform"):
        save_checkpoint(build_detr(TINY), tmp_path / "x", {})
    assert not (tmp_path / "x").exists()  # nothing half-made is left


def test_writing_is_atomic(tmp_path, monkeypatch):
    """Interrupted at whatever moment, the old content is there, whole."""
    file = tmp_path / "file"
    checkpoint.write_atomically(file, b"old")
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write_atomically(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_killed_while_saving(saved, tmp_path):
    """A process that saves over a checkpoint again and again, killed: the files are each old or new."""
    script = f"""
import torch
from minivis.pretrained import load, save_checkpoint
model = load({str(saved)!r})
print("ready", flush=True)
while True:
    model.query_embed.weight.data += 1
    save_checkpoint(model, {str(saved)!r}, model.card)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.3)
    process.kill()
    process.wait()
    rises = load(saved).query_embed.weight.detach()
    assert torch.isfinite(rises).all() and rises.mean() > 0.5  # at least one was written


def test_a_model_put_together_by_hand_is_refused_with_what_to_do(tmp_path):
    config = DETRConfig(num_classes=2, backbone="small", backbone_channels=(8,), d_model=16, num_heads=2)
    built = build_detr(config)
    model = DETR(built.backbone, built.transformer, 2, 5)
    for use in (lambda: save_checkpoint(model, tmp_path, CARD), lambda: to_transformers(model)):
        with pytest.raises(TypeError, match="this DETR was put together by hand"):
            use()


# --- names


def test_shipped_files_are_found_in_a_clone_and_in_a_wheel(tmp_path, monkeypatch):
    assert shipped("README.md").is_file()
    with pytest.raises(FileNotFoundError, match=r"'README.mf' ships.*did you mean README.md"):
        shipped("README.mf")
    package = tmp_path / "minivis"  # an installed wheel carries them inside
    (package / "shipped" / "detr-mini").mkdir(parents=True)
    monkeypatch.setattr(minivis, "__file__", str(package / "__init__.py"))
    assert shipped("detr-mini") == package / "shipped" / "detr-mini"


def test_names_of_shipped_checkpoints(saved, tmp_path, monkeypatch, caplog):
    package = tmp_path / "minivis"
    save_checkpoint(load(saved), package / "shipped" / "detr-mini", CARD)
    monkeypatch.setattr(minivis, "__file__", str(package / "__init__.py"))
    assert shipped_checkpoints() == ["detr-mini"]
    assert equal_weights(load("detr-mini"), load(saved))
    with pytest.raises(FileNotFoundError, match=r"minivis ships detr-mini \(did you mean detr-mini\?\)"):
        load("detr-minni")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "detr-mini").mkdir()  # a name that is both: the shipped one, and one is told
    assert load("detr-mini").card["seed"] == 3
    assert "say ./detr-mini" in caplog.text


def test_folders_and_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither card.json .* nor config.json"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file; a checkpoint is the folder it lies in"):
        load(tmp_path / "model.safetensors")


def test_the_hub_without_a_network():
    """HF_HUB_OFFLINE is set for the tests."""
    with pytest.raises(FileNotFoundError, match=r"no folder 'someone/detr'.*local folder with.*config.json"):
        load("someone/detr")


def test_a_released_model_that_cannot_be_had_is_told_of_and_the_notebook_goes_on(capsys):
    assert load_released("someone/detr") is None
    assert "someone/detr is not on this machine: set wanted = True" in capsys.readouterr().out
    assert load_released("someone/detr", wanted=True) is None
    assert "someone/detr could not be downloaded, so this cell shows nothing" in capsys.readouterr().out


@pytest.mark.parametrize("there", [True, False])
def test_a_released_model_is_loaded_where_it_is_there_or_wanted(saved, monkeypatch, there):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo_id, allow_patterns: str(saved))
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda repo_id, file: str(saved / file) if there else None
    )
    assert equal_weights(load_released("someone/detr", wanted=not there), load(saved))


def test_a_hub_id_is_downloaded_without_anything_pickled(saved, monkeypatch):
    asked = {}

    def snapshot_download(repo_id, allow_patterns):
        asked.update(repo_id=repo_id, patterns=allow_patterns)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert equal_weights(load("someone/detr"), load(saved))
    assert asked["repo_id"] == "someone/detr"
    assert all(pattern.endswith((".safetensors", ".json")) for pattern in asked["patterns"])


# --- Hugging Face's format


def named(**names: str) -> DetrConfig:
    """A configuration of 201 labels, as COCO's panoptic models have, of which these have names."""
    id2label = {label: f"LABEL_{label}" for label in range(201)}
    return DetrConfig(id2label=id2label | {int(key[1:]): name for key, name in names.items()})


def test_stuff_is_what_cocos_ids_put_behind_the_things():
    categories = segmentation_categories_from(named(_0="N/A", _1="person", _90="toothbrush", _92="banner"))
    assert [label for label, id_ in enumerate(categories.ids) if id_ is not None] == [1, 90, 92]
    assert categories.things == {1, 90}
    few = segmentation_categories_from(DetrConfig(id2label={0: "cat", 1: "grass"}))
    assert few.things == {0, 1} and few.is_thing is None


def test_names_that_nobody_gave_are_kept_where_there_are_no_others():
    assert categories_from(named()).names[7] == "LABEL_7"
    assert categories_from(named(_3="cat")).names[2:5] == ("N/A", "cat", "N/A")


def small_hf(**options) -> DetrForObjectDetection:
    torch.manual_seed(0)
    resnet = ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", out_features=["stage4"]
    )
    settings = {
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone": None,
        "backbone_config": resnet,
        "id2label": {0: "N/A", 1: "person", 2: "bicycle", 3: "N/A"},
        "num_queries": 6,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "position_embedding_type": "learned",
    }
    hf = DetrForObjectDetection(DetrConfig(**settings | options))
    with torch.no_grad():
        for buffer in hf.buffers():  # frozen batch norm, made to differ from fresh
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return hf


@pytest.fixture(scope="module")
def hf() -> DetrForObjectDetection:
    return small_hf()


def test_from_transformers(hf):
    model = from_transformers(hf, DetrImageProcessor(size={"shortest_edge": 60, "longest_edge": 90}))
    assert model.config == DETRConfig(
        num_classes=4,
        num_queries=6,
        aux_loss=False,
        backbone="resnet18",
        positions="learned",
        d_model=16,
        num_heads=2,
        encoder_layers=1,
        decoder_layers=2,
        dim_feedforward=24,
    )
    assert model.class_names == ["N/A", "person", "bicycle", "N/A"]
    assert model.categories.ids == (None, 1, 2, None)  # label = category id
    assert model.image_transform == ImageTransform(shortest_edge=60, longest_edge=90)
    assert from_transformers(hf).image_transform == ImageTransform(shortest_edge=800, longest_edge=1333)
    assert not model.training
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith(("backbone.body.conv1", "backbone.body.layer1")) for name in frozen)


def test_the_weights_are_a_copy(hf):
    model = from_transformers(hf)
    model.class_embed.bias.data += 1
    assert not torch.equal(model.class_embed.bias, hf.class_labels_classifier.bias)


def test_there_and_back(hf):
    model = from_transformers(hf)
    again = to_transformers(model)
    assert equal_weights(again, hf)
    assert again.config.id2label == hf.config.id2label and again.config.num_labels == 4
    assert from_transformers(again).config == model.config and equal_weights(from_transformers(again), model)


def test_precision_is_kept(hf):
    double = from_transformers(small_hf().double())
    assert next(double.parameters()).dtype == torch.float64
    assert next(to_transformers(double).parameters()).dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "small", "backbone_channels": (8, 16)}, "no counterpart of the small"),
        ({"backbone_norm": "group"}, "frozen batch norm .* not group norm"),
        ({"normalize_before": True}, "no pre-norm DETR"),
        ({"positions": "none"}, "no DETR without positions"),
        ({"position_temperature": 20.0}, "temperature 10000, not 20"),
    ],
)
def test_models_transformers_has_no_counterpart_of(change, message):
    config = DETRConfig(**{"backbone": "resnet18", "encoder_layers": 0, "decoder_layers": 1} | change)
    with pytest.raises(ValueError, match=message):
        to_transformers(build_detr(config))


def test_other_classes_are_refused_by_name():
    with pytest.raises(TypeError, match="reads DetrForObjectDetection or DetrForSegmentation, not Linear"):
        from_transformers(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="takes DETR or DETRsegm, not Linear"):
        to_transformers(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_attention_heads": 4}, "4 heads in the encoder and 2"),
        ({"encoder_ffn_dim": 8}, "width 8 in the encoder and 24"),
        ({"backbone_config": ResNetConfig(depths=[1, 1, 1, 1], out_features=["stage4"])}, "expected one of"),
        (
            {"backbone_config": ResNetConfig(downsample_in_bottleneck=True, out_features=["stage4"])},
            "downsample_in_",
        ),
    ],
)
def test_configurations_without_a_counterpart(options, message):
    with pytest.raises(ValueError, match=message):
        from_transformers(small_hf(**options))


def test_resnets_are_told_by_their_depths(hf):
    config = copy.copy(hf.config)
    for name, depths in (("resnet50", [3, 4, 6, 3]), ("resnet101", [3, 4, 23, 3])):
        config.backbone_config = ResNetConfig(depths=depths, out_features=["stage3"])
        assert backbone_from(config) == (name, False, 3)


# Names as they are found in files, made from transformers 5's names in memory.


def names_in_memory(name: str) -> str:
    return name


def names_of_4x(name: str) -> str:
    name = name.replace("model.backbone.model.", "model.backbone.conv_encoder.model.")
    name = name.replace("model.position_embedding.", "model.backbone.position_embedding.")
    return name.replace(".o_proj.", ".out_proj.").replace(".mlp.fc", ".fc")


RELEASED_CONFIG = {  # as facebook/detr-resnet-50 has it: written by 4.x, with a timm backbone
    "architectures": ["DetrForObjectDetection"],
    "activation_function": "relu",
    "attention_dropout": 0.0,
    "auxiliary_loss": False,
    "backbone": "resnet18",
    "classifier_dropout": 0.0,
    "d_model": 16,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "decoder_layers": 2,
    "dilation": False,
    "dropout": 0.1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "encoder_layers": 1,
    "id2label": {"0": "N/A", "1": "person", "2": "bicycle", "3": "N/A"},
    "label2id": {"N/A": 3, "person": 1, "bicycle": 2},
    "max_position_embeddings": 1024,
    "model_type": "detr",
    "num_hidden_layers": 1,
    "num_queries": 6,
    "position_embedding_type": "learned",
    "scale_embedding": False,
    "torch_dtype": "float32",
    "transformers_version": "4.30.0.dev0",
    "use_pretrained_backbone": True,
    "use_timm_backbone": True,
}


def write_released(folder: Path, hf, **changes) -> Path:
    """Files as they were released: timm's names (torchvision's) for the backbone, and those of 4.x for the rest."""
    folder.mkdir()
    ours = from_transformers(hf).state_dict()
    tensors = {
        names_of_4x(k): v for k, v in hf.state_dict().items() if ".conv_encoder." not in names_of_4x(k)
    }
    for key, value in ours.items():
        if key.startswith("backbone.body."):
            tensors[key.replace("backbone.body.", "model.backbone.conv_encoder.model.")] = value
            if key.endswith("running_mean"):
                tensors[
                    key.replace("backbone.body.", "model.backbone.conv_encoder.model.").replace(
                        "running_mean", "num_batches_tracked"
                    )
                ] = torch.tensor(7)
    save_file(
        {k: v.clone() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(RELEASED_CONFIG | changes))
    preprocessing = {"feature_extractor_type": "DetrFeatureExtractor", "size": 800, "max_size": 1333}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


def test_files_as_they_were_released(hf, tmp_path):
    model = load(write_released(tmp_path / "released", hf))
    assert equal_weights(model, from_transformers(hf))
    assert model.config == from_transformers(hf).config
    assert model.image_transform == ImageTransform(shortest_edge=800, longest_edge=1333)
    assert model.class_names == ["N/A", "person", "bicycle", "N/A"]
    assert "conv_encoder.model.layer2.0.downsample.1.running_var" in "".join(
        load_file(tmp_path / "released" / "model.safetensors")
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": None, "backbone_config": {"model_type": "timm_backbone", "backbone": "resnet18"}},
        {"backbone": "resnet18.a1_in1k", "use_pretrained_backbone": False},
        {"backbone_kwargs": {"in_chans": 3, "out_indices": [1, 2, 3, 4]}},
    ],
    ids=["5.x", "timm's tag", "4.4x"],
)  # fmt: skip
def test_other_ways_to_name_the_backbone(hf, tmp_path, changes):
    assert load(write_released(tmp_path / "released", hf, **changes)).config.backbone == "resnet18"


@pytest.mark.parametrize("dilation", [{"dilation": True}, {"backbone_kwargs": {"output_stride": 16}}])
def test_dilation_of_a_timm_backbone(dilation):
    config = read_config(RELEASED_CONFIG | {"backbone": "resnet50"} | dilation)
    assert backbone_from(config) == ("resnet50", True, 4)


@pytest.mark.parametrize("rename", [names_in_memory, names_of_4x])
def test_files_with_the_names_of_either_version(hf, tmp_path, rename):
    hf.config.save_pretrained(tmp_path)
    DetrImageProcessor(size={"shortest_edge": 300, "longest_edge": 500}).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["DetrForObjectDetection"]}))
    save_file({rename(k): v.clone() for k, v in hf.state_dict().items()}, tmp_path / "model.safetensors")
    model = load(tmp_path)
    assert equal_weights(model, from_transformers(hf))
    assert model.image_transform == ImageTransform(shortest_edge=300, longest_edge=500)


def test_what_transformers_saves_in_several_files(hf, tmp_path, caplog):
    hf.save_pretrained(tmp_path, max_shard_size="10MB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    model = load(tmp_path)
    assert equal_weights(model, from_transformers(hf))
    assert "no preprocessor_config.json" in caplog.text
    shards[0].unlink()
    with pytest.raises(CheckpointError, match=rf"{shards[0].name} does not exist"):
        load(tmp_path)


def test_half_precision_files_become_float32(tmp_path):
    small_hf().half().save_pretrained(tmp_path)
    assert {p.dtype for p in load(tmp_path).parameters()} == {torch.float32}


def test_what_to_transformers_makes_can_be_saved_and_loaded(hf, tmp_path):
    model = from_transformers(hf)
    to_transformers(model).save_pretrained(tmp_path)
    assert equal_weights(load(tmp_path), model)
    assert equal_weights(DetrForObjectDetection.from_pretrained(tmp_path), hf)


def test_a_model_of_transformers_becomes_a_checkpoint_of_ours(hf, tmp_path):
    model = from_transformers(hf)
    again = load(save_checkpoint(model, tmp_path / "ours", model.card))
    assert equal_weights(again, model) and again.categories == model.categories


def test_every_tensor_is_used_or_named(hf, tmp_path):
    folder = write_released(tmp_path / "released", hf)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.surprise.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has no use for: model\.surprise\.weight"):
        load(folder)
    del tensors["class_labels_classifier.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: class_embed\.bias"):
        load(folder)


def test_pickles_are_refused(hf, tmp_path):
    folder = write_released(tmp_path / "released", hf)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(CheckpointError, match=r"Only safetensors are read; pytorch_model.bin is pickled"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["YolosForObjectDetection"]},
            r"config.json: the architecture is YolosForObjectDetection",
        ),
        ({"architectures": None}, r"config.json: the architecture is not given"),
        ({"backbone": "resnet50d"}, "resnet50d"),
        ({"d_model": "many"}, "d_model"),
        ({"id2label": {"1": "person", "4": "bicycle"}}, r"labels \[1, 4\], expected 0 to 1"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(hf, tmp_path, changes, message):
    folder = write_released(tmp_path / "released", hf, **changes)
    with pytest.raises(CheckpointError, match=message) as error:
        load(folder)
    assert str(folder) in str(error.value)


# --- preprocessing


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        ({"size": 800, "max_size": 1333}, (800, 1333)),
        ({"size": 640}, (640, 1333)),
        ({}, (800, 1333)),
        ({"size": {"shortest_edge": 480, "longest_edge": 720}}, (480, 720)),
        ({"size": {"shortest_edge": 480}, "max_size": 700}, (480, 700)),
        ({"size": {"shortest_edge": 480, "longest_edge": None, "height": None}}, (480, None)),
        ({"do_resize": False}, (None, None)),
    ],
)
def test_forms_of_size(preprocessing, expected):
    transform = image_transform_from(preprocessing)
    assert (transform.shortest_edge, transform.longest_edge) == expected


def test_mean_and_std():
    halves = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    assert image_transform_from(halves).mean == (0.5, 0.5, 0.5)
    assert image_transform_from(halves).std == (0.25, 0.25, 0.25)
    assert image_transform_from(halves | {"do_normalize": False}) == ImageTransform(
        (0.0,) * 3, (1.0,) * 3, 800, 1333
    )


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        ({"size": {"height": 640, "width": 640}}, "size is .*expected a shortest_edge"),
        ({"size": {"max_height": 640, "max_width": 640}}, "size is .*expected a shortest_edge"),
        ({"resample": 3}, "resample is 3, expected 2"),
        ({"rescale_factor": 1.0}, "rescale_factor is 1.0"),
        ({"do_rescale": False}, "do_rescale is false"),
    ],
)
def test_preprocessing_that_cannot_be_followed_is_named(preprocessing, message):
    with pytest.raises(ValueError, match=message):
        image_transform_from(preprocessing)


@pytest.mark.network
def test_the_released_model():
    model = load("facebook/detr-resnet-50")
    assert sum(p.numel() for p in model.parameters()) == 41_524_768
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 41_302_368
    assert model.class_names[1] == "person" and len(model.class_names) == 91
