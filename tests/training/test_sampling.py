import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.training.sampling import StepSampler, derived_seed

sizes = st.integers(1, 40)


@settings(max_examples=25, deadline=None)
@given(length=sizes, batch=st.integers(1, 12), seed=st.integers(0, 3))
def test_no_item_is_left_out_or_repeated_within_an_epoch(length, batch, seed):
    epochs = 3
    steps = -(-epochs * length // batch)
    keys = [key for keys in StepSampler(length, batch, steps, seed) for key in keys]
    for epoch in range(epochs):
        indices = [index for index, _ in keys[epoch * length : (epoch + 1) * length]]
        assert sorted(indices) == list(range(length))


@settings(max_examples=25, deadline=None)
@given(
    length=st.none() | sizes, part=st.integers(1, 3), accumulate=st.integers(1, 3), processes=st.integers(1, 3),
    start=st.integers(0, 4),
)  # fmt: skip
def test_however_a_batch_is_divided_it_is_the_same_batch(length, part, accumulate, processes, start):
    batch, steps = part * accumulate * processes, 5
    whole = list(StepSampler(length, batch, steps, seed=7, start=start))
    shares = [
        list(StepSampler(length, batch, steps, 7, accumulate, process, processes, start))
        for process in range(processes)
    ]
    assert len(whole) == steps - start
    assert all(len(share) == len(whole) * accumulate for share in shares)
    for step, keys in enumerate(whole):
        first, end = step * accumulate, (step + 1) * accumulate
        assert [key for share in shares for micro in share[first:end] for key in micro] == keys


def test_a_later_start_skips_nothing_and_repeats_nothing():
    everything = list(StepSampler(10, 4, 9, seed=1))
    assert list(StepSampler(10, 4, 9, seed=1, start=4)) == everything[4:]


def test_order_and_item_seeds_depend_on_seed_epoch_and_step():
    sampler = StepSampler(100, 100, 2, seed=0)
    first, second, other = sampler.batch(0), sampler.batch(1), StepSampler(100, 100, 2, seed=1).batch(0)
    for a, b in ((first, second), (first, other)):
        assert [index for index, _ in a] != [index for index, _ in b]
        assert not {seed for _, seed in a} & {seed for _, seed in b}
    assert len({seed for _, seed in first}) == 100


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match=r"batch of 10 .* 2 equal parts for each of 3 processes"):
        StepSampler(10, 10, 1, seed=0, accumulate=2, processes=3)
    with pytest.raises(ValueError, match="empty"):
        StepSampler(0, 1, 1, seed=0)


def test_derived_seeds_differ():
    keys = itertools.product(range(3), range(5), range(10), range(4))
    assert len({derived_seed(*key) for key in keys}) == 3 * 5 * 10 * 4
