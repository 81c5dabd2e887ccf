"""The panoptic DETR agrees with Hugging Face transformers: classes, boxes, masks, every loss and every gradient."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_detr import RESNET18, RESNET50, SIZES, calibrate, images, objects
from torch import nn
from torch.testing import assert_close
from transformers import DetrConfig, DetrForSegmentation, ResNetConfig
from transformers.loss.loss_for_object_detection import ForSegmentationLoss

import minivis
from minivis.detr import DETRsegm, HungarianMatcher, SetCriterion, build_panoptic
from minivis.pretrained import CheckpointError, load, save_checkpoint
from minivis.pretrained.detr_weights import rename_segmentation

CLASSES, QUERIES = 5, 7
STAGES = ["stage1", "stage2", "stage3", "stage4"]
ALL_LOSSES = ("labels", "boxes", "cardinality", "masks")


def reference(resnet=RESNET18, stages=STAGES, seed=0, **options) -> DetrForSegmentation:
    """A small random model in which every parameter matters."""
    torch.manual_seed(seed)
    settings = {
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone": None,
        "backbone_config": ResNetConfig(**resnet, out_features=stages),
        "num_labels": CLASSES,
        "num_queries": QUERIES,
        "d_model": 64,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    hf = DetrForSegmentation(DetrConfig(**settings | options))
    for name, parameter in hf.named_parameters():
        if "backbone" in name:
            continue
        if "query_position" in name:
            nn.init.normal_(parameter)
        elif "mask_head" in name and parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
        elif parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, gain=1.5)
        else:
            nn.init.normal_(parameter, 1.0 if "norm" in name and "weight" in name else 0.0, 0.2)
    with (
        torch.no_grad()
    ):  # a query's mask differs from another's by its attention alone: give that its weight
        hf.bbox_attention.q_proj.weight *= 2
        first = next(p for p in hf.mask_head.parameters() if p.ndim == 4)
        first[:, : hf.config.d_model] *= 0.1
        first[:, hf.config.d_model :] *= 30
    calibrate(hf.detr)
    hf.requires_grad_(True)  # which parts of the backbone are frozen differs
    return hf.eval()


def targets_with_masks(counts, sizes=SIZES, seed=2) -> list[dict]:
    """Random masks at each picture's own size: pictures of other sizes are padded."""
    generator = torch.Generator().manual_seed(seed + 1)
    return [
        target | {"masks": torch.rand(len(target["labels"]), *size, generator=generator) > 0.6}
        for target, size in zip(objects(counts, seed), sizes, strict=True)
    ]


def theirs(targets: list[dict]) -> list[dict]:
    return [{"class_labels": t["labels"], "boxes": t["boxes"], "masks": t["masks"]} for t in targets]


def criterion() -> SetCriterion:
    return SetCriterion(CLASSES, HungarianMatcher(), losses=ALL_LOSSES)


CONFIGURATIONS = {
    "basic": {},
    "paper's widths": {"d_model": 256, "decoder_layers": 1},
    "bottleneck, learned": {"resnet": RESNET50, "position_embedding_type": "learned", "decoder_layers": 1},
    "stride 16": {"stages": STAGES[:3]},
    "auxiliary losses": {"auxiliary_loss": True},
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@torch.no_grad()
def test_outputs(configuration):
    hf = reference(**CONFIGURATIONS[configuration])
    model = minivis.from_transformers(hf)
    assert type(model) is DETRsegm and not model.training
    for sizes in (SIZES, SIZES[:1]):
        batch = images(sizes)
        expected = hf(batch.pixels, pixel_mask=(~batch.padding_mask).long())
        outputs = model(batch)
        masks = outputs["pred_masks"]
        assert masks.std() > 0.1 and masks.std(dim=1).amax() > 0.02  # queries differ
        assert_close(outputs["pred_logits"], expected.logits, rtol=1e-5, atol=1e-5)
        assert_close(outputs["pred_boxes"], expected.pred_boxes, rtol=1e-5, atol=1e-5)
        assert_close(masks, expected.pred_masks, rtol=1e-5, atol=1e-5)

        wanted = torch.tensor([[len(sizes) - 1, 5], [0, 3], [0, 0]]).unbind(1)
        chosen = model(batch, choose=lambda outputs, wanted=wanted: wanted)["pred_masks"]
        assert_close(chosen, expected.pred_masks[wanted], rtol=1e-5, atol=1e-5)


COUNTS = {
    "ordinary": [3, 1, 5],
    "one image is empty": [4, 0, 2],
    "all are empty": [0, 0, 0],
    "more objects than queries": [QUERIES + 3, 1, 2],
}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_losses_of_the_reference_criterion_on_the_same_outputs(counts):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, QUERIES, CLASSES + 1, generator=generator)
    boxes = (0.2 + 0.6 * torch.rand(3, QUERIES, 4, generator=generator)).clamp(max=0.6)
    masks = 3 * torch.randn(3, QUERIES, 32, 41, generator=generator)
    targets = targets_with_masks(counts)
    config = DetrConfig(num_labels=CLASSES)
    expected_total, expected, _ = ForSegmentationLoss(
        logits, theirs(targets), logits.device, boxes, masks, config
    )
    ours = criterion()
    losses = ours({"pred_logits": logits, "pred_boxes": boxes, "pred_masks": masks}, targets)
    assert losses.keys() - {"class_error"} == expected.keys() > {"loss_mask", "loss_dice"}
    for name, loss in expected.items():
        assert_close(losses[name], loss, rtol=1e-5, atol=1e-5, msg=name)
    assert_close(ours.weighted_sum(losses), expected_total, rtol=1e-5, atol=1e-5)


# No gradient but rounding: an ordinary key's bias, and what goes with it (see test_detr); and a bias before a group
# norm whose groups are single channels, as are those of the mask head's last two at this width.
BLIND = (
    r"transformer.*k_proj\.bias|decoder\.layers\.0\.self_attn\.([qk]_proj|v_proj\.weight)"
    r"|mask_head\.convs\.[34]\.bias"
)


@pytest.mark.parametrize("matched_only", [False, True], ids=["all masks", "matched masks"])
@pytest.mark.parametrize(
    ("auxiliary_loss", "counts"), [(False, [3, 1, 5]), (True, [4, 0, 2])], ids=["last layer", "all layers"]
)
def test_losses_and_every_gradient(auxiliary_loss, counts, matched_only):
    # The weights of the masks are raised: on random ones, their gradients would be lost beside the boxes'.
    hf = reference(auxiliary_loss=auxiliary_loss, mask_loss_coefficient=300, dice_loss_coefficient=100)
    model = minivis.from_transformers(hf)
    model.requires_grad_(True)
    batch, targets = images(), targets_with_masks(counts)

    expected = hf(batch.pixels, pixel_mask=(~batch.padding_mask).long(), labels=theirs(targets))
    expected.loss.backward()

    ours, matched = criterion(), []
    ours.weight_dict |= {"loss_mask": 300, "loss_dice": 100}

    def choose(outputs):
        matched.append(ours.match(outputs, targets))
        image, query, _ = matched[0].last_layer
        return image, query

    outputs = model(batch, choose if matched_only else None)
    losses = ours(outputs, targets, matched=matched[0] if matched_only else None)
    total = ours.weighted_sum(losses)
    total.backward()
    for name, loss in expected.loss_dict.items():
        assert_close(losses[name], loss.detach(), rtol=1e-4, atol=1e-4, msg=name)
    assert_close(total, expected.loss, rtol=1e-4, atol=1e-4)

    gradients = {rename_segmentation(name): p.grad for name, p in hf.named_parameters()}
    own = {name: p.grad for name, p in model.named_parameters()}
    assert gradients.keys() == own.keys()
    for name, gradient in gradients.items():
        size = float(gradient.abs().max())
        assert size > 1e-3 or re.search(BLIND, name), f"{name} is not exercised"
        assert_close(own[name], gradient, rtol=0, atol=1e-4 * size + 1e-5, msg=name)


# There and back


def equal_weights(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "options", [{}, {"stages": STAGES[:3], "d_model": 128}], ids=["stride 32", "stride 16"]
)
def test_there_and_back(options):
    hf = reference(**options)
    model = minivis.from_transformers(hf)
    again = minivis.to_transformers(model)
    assert type(again) is DetrForSegmentation and equal_weights(again, hf)
    assert equal_weights(minivis.from_transformers(again), model)
    assert minivis.from_transformers(again).config == model.config
    # a detector's parameters are frozen, and others not, as in a model built here
    fresh = {name: p.requires_grad for name, p in build_panoptic(model.config).named_parameters()}
    assert {name: p.requires_grad for name, p in model.named_parameters()} == fresh


def names_of_4x(name: str) -> str:
    """What transformers 4.x calls a tensor of a 5.x model, and the released panoptic checkpoints have."""
    for now, then in (
        (r"^detr\.model\.backbone\.model\.", "detr.model.backbone.conv_encoder.model."),
        (r"\.o_proj\.", ".out_proj."),
        (r"\.mlp\.fc", ".fc"),
        (r"^bbox_attention\.([qk])_proj", r"bbox_attention.\1_linear"),
        (r"mask_head\.conv([12])\.conv", r"mask_head.lay\1"),
        (r"mask_head\.conv([12])\.norm", r"mask_head.gn\1"),
        (r"mask_head\.fpn_stages\.0\.fpn_adapter", "mask_head.adapter1"),
        (r"mask_head\.fpn_stages\.1\.fpn_adapter", "mask_head.adapter2"),
        (r"mask_head\.fpn_stages\.2\.fpn_adapter", "mask_head.adapter3"),
        (r"mask_head\.fpn_stages\.0\.refine\.conv", "mask_head.lay3"),
        (r"mask_head\.fpn_stages\.1\.refine\.conv", "mask_head.lay4"),
        (r"mask_head\.fpn_stages\.2\.refine\.conv", "mask_head.lay5"),
        (r"mask_head\.fpn_stages\.0\.refine\.norm", "mask_head.gn3"),
        (r"mask_head\.fpn_stages\.1\.refine\.norm", "mask_head.gn4"),
        (r"mask_head\.fpn_stages\.2\.refine\.norm", "mask_head.gn5"),
        (r"mask_head\.output_conv", "mask_head.out_lay"),
    ):
        name = re.sub(now, then, name)
    return name


def test_a_folder_as_transformers_saves_it_and_one_as_they_were_released(tmp_path):
    hf = reference()
    model = minivis.from_transformers(hf)
    hf.save_pretrained(tmp_path / "saved")
    assert equal_weights(load(tmp_path / "saved"), model)

    # Released: 4.x's names around a timm backbone, which has torchvision's, named in the configuration itself.
    released = tmp_path / "released"
    released.mkdir()
    tensors = {names_of_4x(name): tensor for name, tensor in hf.state_dict().items()}
    assert "mask_head.lay4.weight" in tensors and "bbox_attention.k_linear.bias" in tensors
    tensors = {name: tensor for name, tensor in tensors.items() if ".conv_encoder." not in name}
    for name, tensor in model.state_dict().items():
        if name.startswith("detr.backbone.body."):
            tensors[name.replace("detr.backbone.body.", "detr.model.backbone.conv_encoder.model.")] = tensor
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, released / "model.safetensors")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    del config["backbone_config"]
    config |= {"use_timm_backbone": True, "backbone": "resnet18", "architectures": ["DetrForSegmentation"]}
    (released / "config.json").write_text(json.dumps(config))
    loaded = load(released)
    assert equal_weights(loaded, model) and loaded.config == model.config

    del tensors["mask_head.lay5.weight"]
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, released / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: mask_head\.convs\.4\.weight"):
        load(released)


def test_it_becomes_a_checkpoint_of_ours(tmp_path):
    model = minivis.from_transformers(reference())
    folder = save_checkpoint(model, tmp_path / "ours", model.card)
    again = load(folder)
    assert (
        equal_weights(again, model)
        and again.config == model.config
        and again.class_names == model.class_names
    )
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict())


def test_what_has_no_counterpart_is_named():
    with pytest.raises(ValueError, match="mask head in a model with 'gelu'"):
        minivis.from_transformers(reference(activation_function="gelu"))
    with pytest.raises(
        ValueError, match=r"maps stem, stage1, stage2, stage4, expected stage1, stage2, stage3"
    ):
        minivis.from_transformers(reference(stages=["stem", "stage1", "stage2", "stage4"]))
    config = minivis.from_transformers(reference()).config
    for change, message in (
        ({"mask_stride": 8}, "masks have stride 4, not 8"),
        ({"activation": "gelu"}, "one with 'relu', not 'gelu'"),
        ({"feature_level": 1}, "reads 3 maps, not 2"),
    ):
        with pytest.raises(ValueError, match=message):
            minivis.to_transformers(build_panoptic(type(config)(**config.to_dict() | change)))
