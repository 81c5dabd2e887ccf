"""The checks on the backbone: against the solutions, and against wrong answers written as students write them."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from solved_exercises import solved

from minivis.checks import backbone
from minivis.checks.base import Check
from minivis.detr.backbone import FrozenBatchNorm
from minivis.positions import SinePositions

# --------------------------------------------------------------------------- the solutions are what the package does


def test_cells_are_those_of_convolutions():
    names, _ = solved("01_detr_backbone")
    x = torch.zeros(1, 1, 97, 97)
    for stages in range(1, 5):
        x = F.conv2d(x, torch.ones(1, 1, 3, 3), stride=2, padding=1)
        assert names["cells"](97, stages) == x.shape[-1]


def test_untouched_cells_are_those_that_padding_does_not_change():
    names, _ = solved("01_detr_backbone")
    for layers in ([(3, 2), (3, 2)], [(7, 2), (3, 2), (3, 1)], [(3, 1), (5, 2)]):
        for pixels in (3, 9, 40, 63):
            x = torch.zeros(1, 1, 128)
            x[..., pixels:] = 1
            for kernel, stride in layers:
                x = F.conv1d(x, torch.ones(1, 1, kernel), stride=stride, padding=kernel // 2)
            assert names["untouched"](pixels, layers) == (x == 0).sum()


def test_frozen_batch_norm_is_the_packages():
    names, _ = solved("01_detr_backbone")
    generator = torch.Generator().manual_seed(0)
    x, (mean, var, weight, bias) = (
        torch.randn(2, 5, 3, 4, generator=generator),
        torch.rand(4, 5, generator=generator),
    )
    norm = FrozenBatchNorm(5)
    for buffer, value in zip(("running_mean", "running_var", "weight", "bias"), (mean, var, weight, bias)):
        getattr(norm, buffer).copy_(value)
    torch.testing.assert_close(names["frozen_batch_norm"](x, mean, var, weight, bias), norm(x))


def test_coordinates_and_products_are_those_of_the_packages_positions():
    names, _ = solved("01_detr_backbone")
    mask = torch.zeros(5, 7, dtype=torch.bool)
    mask[4:], mask[:, 5:] = True, True
    pairs, temperature = 4, 20.0
    positions = SinePositions(4 * pairs, temperature)(mask[None])[0]  # (16, 5, 7)
    for values, first in zip(names["coordinates"](mask), (0, 2 * pairs), strict=True):
        torch.testing.assert_close(values.sin(), positions[first], atol=1e-5, rtol=1e-4)  # pair 0
    for one, other in (((0, 0), (3, 4)), ((2, 1), (2, 3)), ((3, 0), (0, 4))):
        wanted = positions[:, one[0], one[1]] @ positions[:, other[0], other[1]] / (2 * pairs)
        found = names["dot_product"](mask, one, other, pairs, temperature)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


# --------------------------------------------------------------------------- wrong answers


def floor_at_every_stage(pixels, stages):
    for _ in range(stages):
        pixels //= 2
    return pixels


def number_of_the_last(pixels, stages):
    return (pixels - 1) // 2**stages


def by_field(field):
    def untouched(pixels, layers):
        stride = math.prod(step for _, step in layers)
        centres = range(0, pixels, stride)
        return sum(centre + (field(layers) - 1) / 2 <= pixels - 1 for centre in centres)

    return untouched


def all_to_the_right(pixels, layers):
    return by_field(lambda layers: 2 * field_by_rule(layers) - 1)(pixels, layers)


def below_zero(pixels, layers):
    stride = math.prod(step for _, step in layers)
    return math.floor((pixels - 1 - field_by_rule(layers) // 2) / stride) + 1


def field_by_rule(layers):
    reach, jump = 1, 1
    for kernel, stride in layers:
        reach, jump = reach + (kernel - 1) * jump, jump * stride
    return reach


def sum_of_kernels(layers):
    reach = 1
    for kernel, _ in layers:
        reach += kernel - 1
    return reach


def stride_first(layers):
    reach, jump = 1, 1
    for kernel, stride in layers:
        jump = jump * stride
        reach = reach + (kernel - 1) * jump
    return reach


def whole_kernels(layers):
    reach, jump = 1, 1
    for kernel, stride in layers:
        reach, jump = reach + kernel * jump, jump * stride
    return reach


def torchs_batch_norm(x, mean, var, weight, bias):
    return F.batch_norm(x, mean.clone(), var.clone(), weight, bias, training=True)


def by_variance(x, mean, var, weight, bias):
    m, v, g, b = (t.reshape(1, -1, 1, 1) for t in (mean, var, weight, bias))
    return g * (x - m) / (v + 1e-5) + b


def without_epsilon(x, mean, var, weight, bias):
    m, v, g, b = (t.reshape(1, -1, 1, 1) for t in (mean, var, weight, bias))
    return g * (x - m) / v**0.5 + b


def along_the_width(x, mean, var, weight, bias):
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def axes_swapped(padding_mask):
    inside = (~padding_mask).int()
    along, down = inside.cumsum(1), inside.cumsum(0)
    return along / (along[:, -1:] + 1e-6) * 2 * math.pi, down / (down[-1:] + 1e-6) * 2 * math.pi


def last_counts_swapped(padding_mask):
    inside = (~padding_mask).float()
    y, x = inside.cumsum(0), inside.cumsum(1)
    return y / (y[:, -1:] + 1e-6) * 2 * math.pi, x / (x[-1:] + 1e-6) * 2 * math.pi


def counted_only(padding_mask):
    return (~padding_mask).cumsum(0), (~padding_mask).cumsum(1)


def of_the_padding(padding_mask):
    y, x = padding_mask.float().cumsum(0), padding_mask.float().cumsum(1)
    return y / (y[-1:] + 1e-6) * 2 * math.pi, x / (x[:, -1:] + 1e-6) * 2 * math.pi


def of_the_whole_map(padding_mask):
    height, width = padding_mask.shape
    inside = (~padding_mask).float()
    return (
        inside.cumsum(0) / (height + 1e-6) * 2 * math.pi,
        inside.cumsum(1) / (width + 1e-6) * 2 * math.pi,
    )


def to_one(padding_mask):
    inside = (~padding_mask).float()
    y, x = inside.cumsum(0), inside.cumsum(1)
    return y / (y[-1:] + 1e-6), x / (x[:, -1:] + 1e-6)


def kernels_by_their_own_stride(layers):
    return 1 + sum((kernel - 1) * stride for kernel, stride in layers)


def last_stride(layers):
    reach, jump = 1, 1
    for kernel, stride in layers:
        reach, jump = reach + (kernel - 1) * jump, stride
    return reach


def without_parentheses(x, mean, var, weight, bias):
    m, v, g, b = (t[:, None, None] for t in (mean, var, weight, bias))
    return x - m / (v + 1e-5).sqrt() * g + b


def from_zero(padding_mask):
    inside = (~padding_mask).float()
    y, x = inside.cumsum(0) - 1, inside.cumsum(1) - 1
    return y / (y[-1:] + 1e-6) * 2 * math.pi, x / (x[:, -1:] + 1e-6) * 2 * math.pi


def by_nothing(padding_mask):
    inside = (~padding_mask).float()
    y, x = inside.cumsum(0), inside.cumsum(1)
    return y / y[-1:] * 2 * math.pi, x / x[:, -1:] * 2 * math.pi


def by_codes(padding_mask, one, other, pairs, temperature, parts=(torch.sin, torch.cos)):
    """Right as it stands: the positions themselves, and their product."""
    inside = (~padding_mask).float()
    sides, speed = (inside[:, 0].sum(), inside[0].sum()), temperature ** (-torch.arange(pairs) / pairs)
    codes = []
    for cell in (one, other):
        angles = [2 * math.pi * (at + 1) / side * speed for at, side in zip(cell, sides)]
        codes.append(torch.cat([part(angle) for angle in angles for part in parts]))
    return codes[0] @ codes[1] / (2 * pairs)


def in_cells_of_the_map(padding_mask, one, other, pairs, temperature):
    return by_codes(torch.zeros_like(padding_mask), one, other, pairs, temperature)


def by_distance(padding_mask, one, other, pairs, temperature):
    rows, columns = (~padding_mask[:, 0]).sum(), (~padding_mask[0]).sum()
    away = 2 * math.pi * math.hypot((one[0] - other[0]) / rows, (one[1] - other[1]) / columns)
    return torch.cos(away / temperature ** (torch.arange(pairs) / pairs)).mean()


def test_another_way_to_the_dot_product_is_right():
    assert backbone.check_dot_product.verdict(by_codes).right


@pytest.mark.parametrize(
    ("check", "answer", "help_"),
    [
        (backbone.check_cells, floor_at_every_stage, "You round down"),
        (backbone.check_cells, lambda pixels, stages: pixels / 2**stages, "There are no half cells"),
        (backbone.check_cells, lambda pixels, stages: math.ceil(pixels / (2 * stages)), "2 ** stages"),
        (backbone.check_untouched, by_field(sum_of_kernels), "multiply by the stride so far"),
        (backbone.check_untouched, by_field(stride_first), "before you use it"),
        (backbone.check_untouched, by_field(whole_kernels), "k − 1 steps"),
        (backbone.check_frozen_batch_norm, torchs_batch_norm, "the batch at hand"),
        (backbone.check_frozen_batch_norm, by_variance, "You divide by the variance"),
        (backbone.check_frozen_batch_norm, without_epsilon, "You leave out ε"),
        (backbone.check_frozen_batch_norm, along_the_width, "Channels are the second"),
        (backbone.check_cells, number_of_the_last, "add 1"),
        (backbone.check_untouched, all_to_the_right, "Half of it lies to the left"),
        (backbone.check_untouched, below_zero, "no fewer than none"),
        (backbone.check_coordinates, axes_swapped, "swapped"),
        (backbone.check_coordinates, last_counts_swapped, "along the wrong axes"),
        (backbone.check_coordinates, counted_only, "You only count"),
        (backbone.check_coordinates, of_the_padding, "You count the padded cells"),
        (backbone.check_coordinates, of_the_whole_map, "full height and width"),
        (backbone.check_coordinates, to_one, "run to 1"),
        (
            backbone.check_cells,
            lambda pixels, stages: math.ceil(pixels / 2 ** (stages - 1)),
            "one stage short",
        ),
        (backbone.check_untouched, by_field(kernels_by_their_own_stride), "its own layer's stride"),
        (backbone.check_untouched, by_field(last_stride), "Strides multiply"),
        (backbone.check_frozen_batch_norm, without_parentheses, "parentheses around"),
        (backbone.check_coordinates, from_zero, "You count from 0"),
        (backbone.check_coordinates, by_nothing, "0 / 0 is nan"),
        (backbone.check_dot_product, in_cells_of_the_map, "fractions of the picture"),
        (backbone.check_dot_product, by_distance, "no function of the distance"),
        (backbone.check_dot_product, partial(by_codes, parts=(torch.sin,)), "the sines alone"),
    ],
)
def test_a_typical_wrong_answer_gets_the_message_that_helps(check: Check, answer, help_: str):
    verdict = check.verdict(answer)
    assert verdict.status == "wrong" and help_ in verdict.message, verdict
    assert "expected" in verdict.case  # and a case that shows it
