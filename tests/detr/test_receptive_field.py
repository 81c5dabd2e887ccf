"""Receptive fields: the counted ones hold exactly where nothing but convolutions carries a pixel on."""

import pytest
import torch
from torch import nn

from minivis.detr.backbone import ResNetBackbone, SmallConvBackbone
from minivis.detr.receptive_field import (
    ReceptiveField,
    effective_field,
    pixels_with_half,
    receptive_fields,
    share_outside,
)
from minivis.images import as_image_batch


def picture(height=96, width=80, seed=0):
    return as_image_batch(torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed)))


def without_norms(backbone):
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return backbone


def test_counted_by_hand():
    """r ← r + (k − 1) · s. Stage 1: 3. Stage 2: 3 + 2·2, then two convolutions at stride 4: 7 + 2·2·4 = 23."""
    assert receptive_fields(SmallConvBackbone((4, 4))) == [ReceptiveField(3, 2), ReceptiveField(23, 4)]
    assert receptive_fields(SmallConvBackbone((4, 4), blocks=2))[1] == ReceptiveField(39, 4)


def test_resnets_are_what_is_known_of_them():
    """427 and 435 pixels: Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Networks", 2019."""
    assert receptive_fields(ResNetBackbone("resnet50"))[-1] == ReceptiveField(427, 32)
    assert receptive_fields(ResNetBackbone("resnet18"))[-1] == ReceptiveField(435, 32)
    assert receptive_fields(ResNetBackbone("resnet50", dilation=True))[-1].stride == 16


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("cell", [(0, 0), (4, 3)])
def test_no_pixel_outside_moves_a_cell_and_those_on_the_rim_do(level, cell):
    torch.manual_seed(0)
    backbone = without_norms(SmallConvBackbone((4, 8, 8)))
    (moved,) = effective_field(backbone, picture(), level, [cell])
    left, top, right, bottom = receptive_fields(backbone)[level].window(*cell)
    rows, columns = moved.amax(1).nonzero()[:, 0], moved.amax(0).nonzero()[:, 0]
    assert (rows.min(), rows.max()) == (max(top, 0), min(bottom, 96) - 1)
    assert (columns.min(), columns.max()) == (max(left, 0), min(right, 80) - 1)
    assert share_outside(moved, (left, top, right, bottom)) == 0


def test_frozen_norms_keep_to_the_field_and_group_norm_does_not():
    for norm in ("frozen", "group"):
        torch.manual_seed(0)
        backbone = ResNetBackbone("resnet18", norm).eval()
        (moved,) = effective_field(backbone, picture(160, 160), 0, [(20, 20)])
        outside = share_outside(moved, receptive_fields(backbone)[0].window(20, 20))
        assert (outside == 0) if norm == "frozen" else (outside > 1e-5)


def test_all_cells_at_once_are_one_after_the_other():
    torch.manual_seed(0)
    backbone, images = SmallConvBackbone((4, 8)), picture(24, 32)
    cells = [(0, 0), (2, 5), (5, 7)]
    together = effective_field(backbone, images, 1, cells)
    for (row, column), moved in zip(cells, together, strict=True):
        pixels = images.pixels.clone().requires_grad_(True)
        maps = backbone(images._replace(pixels=pixels))
        (gradient,) = torch.autograd.grad(maps[1].features[0, :, row, column].sum(), pixels)
        torch.testing.assert_close(moved, gradient[0].norm(dim=0))
    assert not any(parameter.grad is not None for parameter in backbone.parameters())


def test_half_of_the_squares():
    moved = torch.tensor([[[2.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[3.0, 0.0], [0.0, 0.0]]])
    assert pixels_with_half(moved).tolist() == [1, 2, 1]  # 4 of 7; 2 of 4; all


def test_outside_of_a_window():
    moved = torch.tensor([[2.0, 1.0, 0.0], [1.0, 0.0, 2.0]])  # squares: 4 1 0, 1 0 4
    assert share_outside(moved, (0, 0, 2, 2)) == pytest.approx(0.4)
    assert share_outside(moved, (-5, -5, 9, 9)) == 0
    assert share_outside(torch.zeros(2, 2), (0, 0, 1, 1)) == 0, "where nothing moves it, nothing is outside"


def test_a_field_is_of_one_image():
    with pytest.raises(ValueError, match="a batch of 2"):
        effective_field(SmallConvBackbone((4,)), as_image_batch(torch.zeros(2, 3, 8, 8)), 0, [(0, 0)])
