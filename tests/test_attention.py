"""Attention: the fused kernel and the explicit softmax say the same, and the recorder tells the truth."""

import copy
import math

import pytest
import torch
from torch import nn

from minivis import record_attention
from minivis.attention import MultiHeadAttention, causal_mask

D, HEADS = 16, 4


@pytest.fixture
def attention():
    torch.manual_seed(0)
    module = MultiHeadAttention(D, HEADS)
    for parameter in module.parameters():  # biases too: zeros would hide what they do
        nn.init.normal_(parameter, std=0.4)
    return module


def inputs(queries, keys, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, n, D, generator=generator, requires_grad=True) for n in (queries, keys, keys)]


def padding(batch, keys):
    """Image i has its last i keys padded (never the first key)."""
    return torch.arange(keys) >= (keys - torch.arange(batch)).clamp(min=1)[:, None]


def by_loops(module, query, key, value, padded=None, causal=False):
    """softmax(Q Kᵀ / √d_head) V one image, head and query at a time; gives output and weights."""
    q, k, v = module.q_proj(query), module.k_proj(key), module.v_proj(value)
    size = D // module.num_heads
    mixed = torch.zeros_like(q)
    weights = torch.zeros(len(q), module.num_heads, q.shape[1], k.shape[1])
    for b in range(len(q)):
        for h in range(module.num_heads):
            part = slice(h * size, (h + 1) * size)
            for i in range(q.shape[1]):
                seen = [
                    j
                    for j in range(k.shape[1])
                    if not (padded is not None and padded[b, j]) and not (causal and j > i)
                ]
                exps = [math.exp(float(q[b, i, part] @ k[b, j, part]) / math.sqrt(size)) for j in seen]
                for j, e in zip(seen, exps, strict=True):
                    weights[b, h, i, j] = e / sum(exps)
                    mixed[b, i, part] += e / sum(exps) * v[b, j, part]
    return module.out_proj(mixed), weights


CASES = pytest.mark.parametrize(
    ("queries", "keys", "pad", "causal"),
    [
        (5, 5, False, False),
        (5, 5, True, False),
        (5, 5, False, True),
        (5, 5, True, True),
        (3, 7, True, False),
        (7, 3, True, False),
        (3, 7, False, True),
        (7, 3, True, True),
        (1, 1, False, False),
    ],
)


@CASES
def test_fused_and_explicit_agree_with_each_other_and_with_loops(attention, queries, keys, pad, causal):
    qkv = inputs(queries, keys)
    mask = padding(3, keys) if pad else None
    fused = attention(*qkv, mask, causal)
    with record_attention(attention) as maps:
        explicit = attention(*qkv, mask, causal)
    with torch.no_grad():
        plain, weights = by_loops(attention, *qkv, mask, causal)
    torch.testing.assert_close(fused, explicit, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps[""], weights, atol=1e-6, rtol=1e-5)

    # gradients, with respect to the inputs and to every parameter
    direction = torch.randn(fused.shape, generator=torch.Generator().manual_seed(1))
    wanted = [*qkv, *attention.parameters()]
    fused_gradients = torch.autograd.grad(fused, wanted, direction)
    explicit_gradients = torch.autograd.grad(explicit, wanted, direction)
    assert all(gradient.isfinite().all() for gradient in fused_gradients)
    for a, b in zip(fused_gradients, explicit_gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@CASES
def test_rows_sum_to_one_and_hidden_keys_get_exactly_zero(attention, queries, keys, pad, causal):
    mask = padding(3, keys) if pad else torch.zeros(3, keys, dtype=torch.bool)
    with record_attention(attention) as maps:
        attention(*inputs(queries, keys), mask, causal)
    weights = maps[""]
    assert weights.shape == (3, HEADS, queries, keys)
    assert not weights.requires_grad
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, HEADS, queries))
    assert (weights[mask[:, None, None].expand_as(weights)] == 0).all()
    if causal:
        assert (weights[..., ~causal_mask(queries, keys)] == 0).all()


def test_same_as_torchs_own_module(attention):
    reference = nn.MultiheadAttention(D, HEADS, batch_first=True)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        reference.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        reference.out_proj.load_state_dict(attention.out_proj.state_dict())
    qkv, mask = inputs(4, 6), padding(3, 6)
    expected, weights = reference(*qkv, key_padding_mask=mask, average_attn_weights=False)
    with record_attention(attention) as maps:
        attention(*qkv, mask)
    torch.testing.assert_close(attention(*qkv, mask), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps[""], weights, atol=1e-6, rtol=1e-5)


def test_padded_keys_and_values_do_not_matter(attention):
    query, key, value = inputs(4, 6)
    mask = padding(3, 6)
    garbage = torch.where(mask[..., None], 1e4, 0.0)
    torch.testing.assert_close(
        attention(query, key, value, mask), attention(query, key + garbage, value - garbage, mask)
    )


@pytest.mark.parametrize("way", ["autocast", "weights"])
def test_bf16_paths_agree_to_its_precision(attention, way):
    qkv, mask = inputs(5, 7), padding(3, 7)
    exact = attention(*qkv, mask)
    if way == "weights":
        attention, qkv = attention.bfloat16(), [x.bfloat16() for x in qkv]
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        fused = attention(*qkv, mask)
        with record_attention(attention) as maps:
            explicit = attention(*qkv, mask)
    assert fused.dtype == explicit.dtype == torch.bfloat16
    scale = exact.abs().max()
    assert (fused - exact).abs().max() < 0.03 * scale
    assert (fused - explicit).abs().max() < 0.03 * scale
    torch.testing.assert_close(maps[""].float().sum(-1), torch.ones(3, HEADS, 5), atol=2e-2, rtol=0)


def test_double_precision_stays_double(attention):
    attention, qkv, mask = attention.double(), [x.double() for x in inputs(5, 7)], padding(3, 7)
    fused = attention(*qkv, mask)
    with record_attention(attention):
        torch.testing.assert_close(attention(*qkv, mask), fused, atol=1e-13, rtol=1e-12)


def test_dropout_acts_in_training_only_and_is_not_in_the_maps():
    torch.manual_seed(0)
    attention = MultiHeadAttention(D, HEADS, dropout=0.5)
    qkv = inputs(5, 7)
    assert not torch.equal(attention(*qkv), attention(*qkv))
    with record_attention(attention) as maps:
        first, second = attention(*qkv), attention(*qkv)
    assert not torch.equal(first, second)
    torch.testing.assert_close(maps[""].sum(-1), torch.ones(3, HEADS, 5))
    attention.eval()
    fused = attention(*qkv)
    with record_attention(attention):
        torch.testing.assert_close(attention(*qkv), fused, atol=1e-6, rtol=1e-5)


def test_input_projections_start_as_one_xavier_matrix():
    torch.manual_seed(0)
    attention = MultiHeadAttention(64, 8)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        bound = math.sqrt(6 / (3 * 64 + 64))
        assert 0.95 * bound < projection.weight.abs().max() <= bound
        assert (projection.bias == 0).all()
    assert 0.95 * math.sqrt(6 / 128) < attention.out_proj.weight.abs().max() <= math.sqrt(6 / 128)
    assert (attention.out_proj.bias == 0).all()
    assert all(name.endswith("weight") for name, _ in MultiHeadAttention(8, 2, bias=False).named_parameters())


def test_width_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match="d_model=10 .* num_heads=4"):
        MultiHeadAttention(10, 4)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Module()
        self.block.attend = MultiHeadAttention(D, HEADS)
        self.last = MultiHeadAttention(D, 2)

    def forward(self, x):
        x = self.block.attend(x, x, x)
        return self.last(x, x, x)


def test_recorder_names_maps_by_module_and_ends_itself():
    model, x = Two(), torch.randn(2, 5, D)
    before = model(x)
    with record_attention(model) as maps:
        assert maps == {}
        torch.testing.assert_close(model(x), before, atol=1e-6, rtol=1e-5)
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "block.attend": (2, HEADS, 5, 5),
        "last": (2, 2, 5, 5),
    }
    kept = copy.copy(maps)
    model(x + 1)
    assert maps.keys() == kept.keys()
    assert all(maps[name] is kept[name] for name in maps), "a run after the block must not be recorded"
    assert model.last.recorder is None
    assert torch.equal(model(x), before), "the fused kernel is back"


def test_recorder_ends_after_an_exception_too():
    model, x = Two(), torch.randn(2, 5, D)
    with pytest.raises(RuntimeError, match="stopped"):
        with record_attention(model) as maps:
            model(x)
            raise RuntimeError("stopped")
    assert len(maps) == 2
    assert model.block.attend.recorder is None
    assert model.last.recorder is None


def test_recordings_may_be_nested():
    model, x = Two(), torch.randn(2, 5, D)
    with record_attention(model) as outer:
        with record_attention(model.block) as inner:
            model(x)
        assert set(inner) == {"attend"}
        assert set(outer) == {"last"}
        model(x)
        assert set(outer) == {"last", "block.attend"}
    assert model.block.attend.recorder is None


def test_nothing_to_record_is_an_error():
    with pytest.raises(ValueError, match="Linear has no MultiHeadAttention"):
        with record_attention(nn.Linear(2, 2)):
            pass
