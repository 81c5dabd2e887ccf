"""Backbones: sizes, strides, masks, what is frozen, and what each norm does."""

import math

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models._api import WeightsEnum
from torchvision.ops import FrozenBatchNorm2d

from minivis.detr import ResNetBackbone, SmallConvBackbone
from minivis.detr.backbone import FrozenBatchNorm, ResidualBlock, group_norm
from minivis.images import ImageBatch, as_image_batch


def images(height, width, batch=1, seed=0):
    pixels = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return as_image_batch(pixels)


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return ResNetBackbone("resnet18", norm="group").eval()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return SmallConvBackbone((8, 12, 16)).eval()


@pytest.fixture(scope="module")
def resnet50():
    torch.manual_seed(0)
    return ResNetBackbone("resnet50")


def assert_sizes(backbone, batch, height, width):
    maps = backbone(batch)
    assert len(maps) == len(backbone.channels) == len(backbone.strides)
    for (features, mask), channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        cells = (math.ceil(height / stride), math.ceil(width / stride))
        assert features.shape == (len(batch.pixels), channels, *cells)
        assert mask.shape == (len(batch.pixels), *cells)
        assert mask.dtype == torch.bool


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 70), st.integers(1, 70))
def test_a_side_of_n_pixels_becomes_ceil_n_by_stride_cells(small, height, width):
    assert_sizes(small, images(height, width), height, width)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 33), (31, 97), (1, 1)])
def test_resnet_too_at_odd_sizes(resnet18, height, width):
    assert_sizes(resnet18, images(height, width, batch=2), height, width)


@pytest.mark.parametrize(
    ("name", "last"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048), ("resnet101", 2048)]
)
def test_all_resnets_have_torchvisions_parameters_without_classifier(name, last):
    with torch.device("meta"):  # shapes only
        backbone = ResNetBackbone(name)
        reference = torchvision.models.get_model(name, weights=None)
        grouped = ResNetBackbone(name, norm="group")
    assert backbone.channels == (last // 8, last // 4, last // 2, last)
    assert backbone.strides == (4, 8, 16, 32)
    names = {n: p.shape for n, p in reference.named_parameters() if not n.startswith("fc.")}
    convolutions = {n: s for n, s in names.items() if len(s) == 4}
    assert {n: p.shape for n, p in backbone.body.named_parameters()} == convolutions
    assert {n: p.shape for n, p in grouped.body.named_parameters()} == names
    assert all(parameter.requires_grad for parameter in grouped.parameters())


@torch.no_grad()
def test_dc5_keeps_the_resolution_of_the_last_stage_with_the_same_weights(resnet50):
    with torch.device("meta"):
        dilated = ResNetBackbone("resnet50", dilation=True)
    dilated.load_state_dict(resnet50.state_dict(), assign=True)
    assert dilated.strides == (4, 8, 16, 16)
    batch = images(33, 64)
    assert_sizes(dilated, batch, 33, 64)
    for with_dilation, plain in zip(dilated(batch)[:3], resnet50(batch)[:3], strict=True):
        assert torch.equal(with_dilation.features, plain.features)


def test_frozen_norm_freezes_stem_and_first_stage():
    backbone = ResNetBackbone("resnet18")
    frozen = {name.split(".")[1] for name, p in backbone.named_parameters() if not p.requires_grad}
    trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
    assert frozen == {"conv1", "layer1"}
    assert trained == {"layer2", "layer3", "layer4"}
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in backbone.modules()) == 20
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())


def test_frozen_norm_is_the_same_in_training_and_keeps_its_statistics():
    torch.manual_seed(0)
    backbone = ResNetBackbone("resnet18")
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    batch = images(64, 64, batch=2)
    training, evaluation = backbone.train()(batch)[-1].features, backbone.eval()(batch)[-1].features
    assert torch.equal(training, evaluation)
    training.sum().backward()
    assert backbone.body.layer2[0].conv1.weight.grad is not None
    assert backbone.body.layer1[0].conv1.weight.grad is None
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())


@torch.no_grad()
def test_without_trained_statistics_frozen_norm_lets_features_explode_and_group_norm_does_not(
    resnet50, resnet18
):
    batch = images(64, 64)
    sizes = {
        norm: [features.std().item() for features, _ in backbone(batch)]
        for norm, backbone in (("frozen", resnet50), ("group", resnet18))
    }
    assert sizes["frozen"][-1] > 10 * sizes["frozen"][0]
    assert max(sizes["group"]) < 2 * min(sizes["group"])


@torch.no_grad()
@pytest.mark.parametrize("which", ["small", "resnet18"])
def test_group_norm_treats_each_image_by_itself(which, request):
    backbone = request.getfixturevalue(which)
    batch = images(48, 40, batch=3)
    together = backbone(batch)
    for i in range(3):
        alone = backbone(as_image_batch(batch.pixels[i : i + 1]))
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a.features[0], b.features[i], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_masks_follow_the_images(small):
    batch = as_image_batch([torch.randn(3, 32, 16), torch.randn(3, 24, 48)])
    for _, mask in small(batch):
        rows, columns = mask.shape[1:]
        assert (~mask[0]).sum() == rows * columns // 3
        assert not mask[0, :, : columns // 3].any()
        assert (~mask[1]).sum() == rows * 3 // 4 * columns
        assert not mask[1, : rows * 3 // 4].any()


@torch.no_grad()
def test_the_mask_does_not_change_features(small):
    plain = images(16, 16)
    masked = ImageBatch(plain.pixels, torch.rand(1, 16, 16) > 0.5)
    for a, b in zip(small(plain), small(masked), strict=True):
        assert torch.equal(a.features, b.features)


def test_small_backbone_has_residual_blocks_in_all_stages_but_the_first():
    backbone = SmallConvBackbone((8, 12, 16), blocks=2)
    assert [sum(isinstance(m, ResidualBlock) for m in stage) for stage in backbone.stages] == [0, 2, 2]
    assert backbone.strides == (2, 4, 8)


def test_residual_block_adds_to_its_input():
    block = ResidualBlock(8)
    nn.init.zeros_(block.branch[-1].weight)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (64, 16), (128, 32), (2048, 32)])
def test_groups(channels, groups):
    assert group_norm(channels).num_groups == groups


@torch.no_grad()
def test_imagenet_weights_give_torchvisions_features(monkeypatch):
    torch.manual_seed(0)
    released = torchvision.models.resnet18(weights=None)  # stands in for the download
    for module in released.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.1)
    asked = []
    monkeypatch.setattr(
        WeightsEnum, "get_state_dict", lambda self, *a, **k: asked.append(self) or released.state_dict()
    )
    backbone = ResNetBackbone("resnet18")
    backbone.load_imagenet_weights()
    assert [str(weights) for weights in asked] == ["ResNet18_Weights.IMAGENET1K_V1"]
    x = images(64, 64).pixels
    released.fc = nn.Identity()
    pooled = backbone(as_image_batch(x))[-1].features.mean((2, 3))
    torch.testing.assert_close(pooled, released.eval()(x), atol=1e-4, rtol=1e-4)


def test_imagenet_weights_are_refused_by_group_norm():
    with pytest.raises(ValueError, match='belong to batch norm: build the backbone with norm="frozen"'):
        ResNetBackbone("resnet18", norm="group").load_imagenet_weights()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_batch_norm_is_torchvisions_in_the_precision_of_its_input(dtype):
    torch.manual_seed(0)
    ours, theirs = FrozenBatchNorm(6), FrozenBatchNorm2d(6)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(theirs, name).uniform_(0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 5, 4).to(dtype).requires_grad_()
    kept = x.detach().clone()
    y, expected = ours(x), theirs(x.detach().float())
    assert y.dtype == dtype and torch.equal(x, kept), "in its precision; the input stays as it was"
    if dtype == torch.float32:
        assert torch.equal(y, expected)
    else:
        torch.testing.assert_close(y.float(), expected, atol=0.05, rtol=0.02)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    gain = ours.weight * torch.rsqrt(ours.running_var + ours.eps)
    assert torch.equal(gradient, gain.to(dtype)[:, None, None].expand_as(x))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(name="resnet18", norm="batch"), '"frozen" or "group", got \'batch\''),
        (dict(name="resnet20"), "'resnet20' is not one of torchvision's ResNets"),
        (dict(name="vit_b_16"), "'vit_b_16' is not one of"),
        (dict(name="resnet18", dilation=True), "resnet18 is made of basic blocks"),
        (dict(name="resnet34", dilation=True), "resnet34 is made of basic blocks"),
    ],
)
def test_what_cannot_be_built_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        ResNetBackbone(**arguments)


def test_small_backbone_without_channels_is_named():
    with pytest.raises(ValueError, match="at least one stage"):
        SmallConvBackbone(())
