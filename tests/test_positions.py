"""Positions: the sine formula against plain loops, what padding does to it, where the learned ones end."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.positions import POSITIONS, LearnedPositions, NoPositions, SinePositions


def no_padding(height, width, batch=1):
    return torch.zeros(batch, height, width, dtype=torch.bool)


def padded(height, width, image_height, image_width):
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[:, :image_height, :image_width] = False
    return mask


def sine_by_loops(d_model, height, width, temperature=10_000.0):
    """The code of an image that fills its map: code[channel][row][column] in plain Python."""

    def code(place, count):
        angle = 2 * math.pi * (place + 1) / count
        channels = []
        for pair in range(d_model // 4):
            turned = angle / temperature ** (2 * pair / (d_model / 2))
            channels += [math.sin(turned), math.cos(turned)]
        return channels

    return torch.tensor(
        [[code(row, height) + code(column, width) for column in range(width)] for row in range(height)]
    ).permute(2, 0, 1)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 4), st.sampled_from([4, 8, 20])
)
def test_sine_equals_plain_loops_whatever_the_padding(height, width, below, right, d_model):
    mask = padded(height + below, width + right, height, width)
    codes = SinePositions(d_model)(mask)
    assert codes.shape == (1, d_model, height + below, width + right)
    assert codes.isfinite().all()
    expected = sine_by_loops(d_model, height, width)
    torch.testing.assert_close(codes[0, :, :height, :width], expected, atol=2e-5, rtol=0)


def test_sine_gives_the_same_code_to_the_same_relative_place():
    small, large = SinePositions(16)(no_padding(3, 5)), SinePositions(16)(no_padding(6, 10))
    torch.testing.assert_close(small, large[:, :, 1::2, 1::2], atol=1e-5, rtol=0)


def test_sine_has_y_first_then_x_and_tells_all_cells_apart():
    codes = SinePositions(16)(no_padding(7, 9))[0]
    assert (codes[:8] == codes[:8, :, :1]).all(), "the first half does not depend on the column"
    assert (codes[8:] == codes[8:, :1]).all(), "the second half does not depend on the row"
    cells = codes.flatten(1).T
    assert torch.pdist(cells).min() > 0.1


def test_sine_of_one_image_does_not_depend_on_the_batch():
    masks = torch.cat([padded(6, 8, 6, 3), padded(6, 8, 2, 8)])
    both = SinePositions(8)(masks)
    for i in range(2):
        assert torch.equal(both[i : i + 1], SinePositions(8)(masks[i : i + 1]))


def test_sine_temperature_sets_how_slow_the_slowest_pair_is():
    slow = SinePositions(8, temperature=100.0)(no_padding(1, 4))
    torch.testing.assert_close(slow[0], sine_by_loops(8, 1, 4, temperature=100.0), atol=1e-5, rtol=0)


def test_sine_has_no_parameters_and_learned_ones_are_trained():
    assert not list(SinePositions(8).parameters())
    assert not SinePositions(8).state_dict()
    learned = LearnedPositions(8, max_size=5)
    learned(no_padding(3, 4)).sum().backward()
    assert (learned.column.weight.grad[:4] == 3).all()
    assert (learned.column.weight.grad[4:] == 0).all()
    assert (learned.row.weight.grad[:3] == 4).all()


@pytest.mark.parametrize("d_model", [2, 6, 30])
def test_sine_needs_a_width_divisible_by_four(d_model):
    with pytest.raises(ValueError, match=f"divisible by 4 .* got {d_model}"):
        SinePositions(d_model)


def test_learned_needs_an_even_width():
    with pytest.raises(ValueError, match="divisible by 2 .* got 5"):
        LearnedPositions(5)


def test_learned_has_a_vector_for_each_column_then_for_each_row():
    learned = LearnedPositions(6)
    codes = learned(no_padding(4, 5, batch=2))
    assert codes.shape == (2, 6, 4, 5)
    for row in range(4):
        for column in range(5):
            expected = torch.cat([learned.column.weight[column], learned.row.weight[row]])
            assert torch.equal(codes[1, :, row, column], expected)


def test_learned_starts_between_zero_and_one():
    weight = LearnedPositions(64).row.weight
    assert weight.shape == (50, 32)
    assert 0 <= weight.min() < 0.01
    assert 0.99 < weight.max() <= 1


@pytest.mark.parametrize(("height", "width"), [(5, 3), (3, 5), (9, 9)])
def test_learned_says_where_it_ends(height, width):
    learned = LearnedPositions(4, max_size=4)
    assert learned(no_padding(4, 4)).shape == (1, 4, 4, 4)
    with pytest.raises(ValueError, match=f"reach 4 cells a side, the feature map has {height} × {width}"):
        learned(no_padding(height, width))


def test_no_positions_are_zeros():
    assert torch.equal(NoPositions(6)(no_padding(2, 3, batch=2)), torch.zeros(2, 6, 2, 3))


@pytest.mark.parametrize("kind", POSITIONS)
def test_all_kinds_have_one_interface(kind):
    codes = POSITIONS[kind](12)(no_padding(3, 4, batch=2))
    assert codes.shape == (2, 12, 3, 4)
    assert codes.dtype == torch.float32
