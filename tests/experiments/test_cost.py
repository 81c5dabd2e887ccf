"""What a computation costs: memory is counted, not estimated; time is of the fastest run."""

import pytest
import torch

from minivis.attention import MultiHeadAttention, record_attention
from minivis.experiments import cost
from minivis.experiments.cost import fastest_seconds, peak_bytes

MEGABYTE = 10**6


def test_the_peak_is_what_was_held_at_one_moment():
    def run():
        first = torch.zeros(MEGABYTE)  # 4 MB
        second = first + 1  # 8 MB held
        del first
        third = second * 2  # 8 MB again
        return third.sum()

    assert peak_bytes(run) == pytest.approx(8 * MEGABYTE, rel=0.01)


def test_what_was_there_before_does_not_count():
    before = torch.zeros(5 * MEGABYTE)
    assert peak_bytes(lambda: before[:MEGABYTE] + 1) == pytest.approx(4 * MEGABYTE, rel=0.01)


def test_it_says_nothing_of_itself(capfd):
    peak_bytes(lambda: torch.zeros(10))
    assert capfd.readouterr() == ("", "")


@torch.inference_mode()
def test_fused_attention_holds_memory_in_proportion_to_the_tokens_and_recorded_attention_to_their_square():
    attention = MultiHeadAttention(32, 4).eval()

    def held(tokens):
        x = torch.randn(1, tokens, 32)
        return peak_bytes(lambda: attention(x, x, x))

    assert held(4096) < 2.2 * held(2048)
    with record_attention(attention):
        assert held(1024) > 3.5 * held(512)


def test_the_fastest_run_counts_and_the_first_does_not(monkeypatch):
    clock, taken = [0.0], iter([9.0, 3.0, 2.0, 5.0])
    monkeypatch.setattr(cost.time, "process_time", lambda: clock[0])

    def run():
        clock[0] += next(taken)

    assert fastest_seconds(run, repeats=3) == 2
