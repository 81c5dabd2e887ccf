"""The transformer: what depends on order, on padding and on positions, and that its layers are the usual ones."""

import math

import pytest
import torch
from torch import nn

from minivis import record_attention
from minivis.detr import Transformer, TransformerDecoder, TransformerDecoderLayer, TransformerEncoderLayer

D, HEADS, FFN = 16, 4, 24


def randomised(module, seed=0):
    """Every parameter drawn anew, so that no bias of zero or gain of one hides what it does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(std=0.3, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return module.eval()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a, b, **kwargs):
    torch.testing.assert_close(a, b, **({"atol": 1e-5, "rtol": 1e-5} | kwargs))


@pytest.fixture(params=[False, True], ids=["post-norm", "pre-norm"])
def pre_norm(request):
    return request.param


def transformer(pre_norm=False, encoder=2, decoder=2, **kwargs):
    return randomised(
        Transformer(D, HEADS, encoder, decoder, FFN, dropout=0.0, normalize_before=pre_norm, **kwargs)
    )


# The layers against torch's own


def copy_attention(ours, theirs):
    projections = (ours.q_proj, ours.k_proj, ours.v_proj)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


def copy_layer(ours, theirs):
    copy_attention(ours.self_attn, theirs.self_attn)
    if hasattr(ours, "cross_attn"):
        copy_attention(ours.cross_attn, theirs.multihead_attn)
    for name in ("linear1", "linear2"):
        getattr(theirs, name).load_state_dict(getattr(ours.ffn, name).state_dict())
    for name, module in ours.named_children():
        if name.startswith("norm"):
            getattr(theirs, name).load_state_dict(module.state_dict())
    return theirs.eval()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_without_positions_are_torchs_own(pre_norm, activation):
    arguments = (D, HEADS, FFN, 0.1, activation)
    x, memory, mask = normal(2, 5, D), normal(2, 7, D, seed=1), torch.arange(7) > torch.tensor([[6], [3]])
    usual = dict(batch_first=True, norm_first=pre_norm)

    ours = randomised(TransformerEncoderLayer(*arguments, normalize_before=pre_norm))
    theirs = copy_layer(ours, nn.TransformerEncoderLayer(*arguments, **usual))
    with torch.enable_grad():  # keeps torch from its inference path, which drops padded tokens
        close(ours(memory, mask), theirs(memory, src_key_padding_mask=mask))

    ours = randomised(TransformerDecoderLayer(*arguments, normalize_before=pre_norm))
    theirs = copy_layer(ours, nn.TransformerDecoderLayer(*arguments, **usual))
    close(ours(x, memory, mask), theirs(x, memory, memory_key_padding_mask=mask))


def test_positions_go_into_queries_and_keys_and_not_into_values(pre_norm):
    layer = randomised(TransformerEncoderLayer(D, HEADS, FFN, normalize_before=pre_norm))
    x, pos = normal(2, 5, D), normal(2, 5, D, seed=1)
    assert (layer(x, pos=pos) - layer(x)).abs().max() > 0.01
    for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
        nn.init.zeros_(projection.weight)  # then all keys weigh the same, wherever they are
    assert torch.equal(layer(x, pos=pos), layer(x))


def test_decoder_positions_go_into_queries_and_keys_and_not_into_values(pre_norm):
    layer = randomised(TransformerDecoderLayer(D, HEADS, FFN, normalize_before=pre_norm))
    x, memory = normal(2, 3, D), normal(2, 5, D, seed=1)
    pos, query_pos = normal(2, 5, D, seed=2), normal(2, 3, D, seed=3)
    plain = layer(x, memory)
    assert (layer(x, memory, pos=pos) - plain).abs().max() > 0.01
    assert (layer(x, memory, query_pos=query_pos) - plain).abs().max() > 0.01
    for attention in (layer.self_attn, layer.cross_attn):
        nn.init.zeros_(attention.q_proj.weight)
        nn.init.zeros_(attention.k_proj.weight)
    assert torch.equal(layer(x, memory, None, pos, query_pos), layer(x, memory))


def test_attention_logits_are_not_symmetric_although_queries_and_keys_have_one_source():
    layer = randomised(TransformerEncoderLayer(D, HEADS, FFN))
    x = normal(1, 5, D)
    with record_attention(layer) as maps:
        layer(x, pos=normal(1, 5, D, seed=1))
    logits = maps["self_attn"].log()
    logits = logits - logits.diagonal(dim1=-2, dim2=-1)[..., None]  # rows are known up to a constant
    assert (logits - logits.transpose(-2, -1)).abs().max() > 0.1


# Order


def test_encoder_is_equivariant_to_permutation_without_positions_and_only_then(pre_norm):
    encoder = transformer(pre_norm).encoder
    x, pos = normal(2, 9, D), normal(2, 9, D, seed=1)
    mask = torch.arange(9) > torch.tensor([[8], [5]])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(order, torch.arange(9))
    permuted = encoder(x[:, order], mask[:, order])
    close(permuted, encoder(x, mask)[:, order])
    assert (permuted - encoder(x, mask)).abs().max() > 0.1, "equivariant, not invariant"
    close(encoder(x[:, order], mask[:, order], pos[:, order]), encoder(x, mask, pos)[:, order])
    assert (encoder(x[:, order], mask[:, order], pos) - encoder(x, mask, pos)[:, order]).abs().max() > 0.01


def test_decoder_permutes_with_its_queries_and_does_not_see_the_order_of_memory(pre_norm):
    decoder = transformer(pre_norm).decoder
    memory, pos, query_pos = normal(2, 9, D), normal(2, 9, D, seed=1), normal(2, 4, D, seed=2)
    zeros, order = torch.zeros(2, 4, D), torch.tensor([2, 0, 3, 1])
    decoded = decoder(zeros, memory, None, pos, query_pos)
    close(decoder(zeros, memory, None, pos, query_pos[:, order]), decoded[:, :, order])
    turned = torch.arange(8, -1, -1)
    close(decoder(zeros, memory[:, turned], None, pos[:, turned], query_pos), decoded)


def test_first_decoder_self_attention_says_the_same_to_every_query():
    model = transformer(decoder=1)
    heard = []
    model.decoder.layers[0].self_attn.register_forward_hook(lambda module, args, out: heard.append(out))
    features = normal(2, D, 3, 4)
    decoded, _ = model(
        features, torch.zeros(2, 3, 4, dtype=torch.bool), normal(5, D), torch.zeros(2, D, 3, 4)
    )
    close(heard[0], heard[0][:, :1].expand_as(heard[0]), atol=1e-6)
    assert decoded.std(2).min() > 1e-3, "queries differ after cross-attention"


# Padding


def test_padding_changes_nothing(pre_norm):
    model = transformer(pre_norm)
    features, pos, queries = normal(1, D, 3, 4), normal(1, D, 3, 4, seed=1), normal(5, D, seed=2)
    decoded, memory = model(features, torch.zeros(1, 3, 4, dtype=torch.bool), queries, pos)

    large, large_pos = normal(2, D, 5, 7, seed=3) * 10, normal(2, D, 5, 7, seed=4)
    mask = torch.ones(2, 5, 7, dtype=torch.bool)
    mask[0, :3, :4] = mask[1] = False
    large[0, :, :3, :4], large_pos[0, :, :3, :4] = features[0], pos[0]
    padded_decoded, padded_memory = model(large, mask, queries, large_pos)
    close(padded_decoded[:, :1], decoded)
    close(padded_memory[:1, :, :3, :4], memory)


def test_padded_cells_get_no_gradient():
    model = transformer()
    features = normal(1, D, 3, 4).requires_grad_()
    mask = torch.zeros(1, 3, 4, dtype=torch.bool)
    mask[:, 2] = True
    decoded, _ = model(features, mask, normal(5, D), torch.zeros(1, D, 3, 4))
    decoded.sum().backward()
    assert (features.grad[:, :, 2] == 0).all()
    assert (features.grad[:, :, :2] != 0).any()


# The whole


def test_output_and_shapes(pre_norm):
    model = transformer(pre_norm, encoder=1, decoder=3)
    decoded, memory = model(
        normal(2, D, 3, 4), torch.zeros(2, 3, 4, dtype=torch.bool), normal(5, D), normal(2, D, 3, 4)
    )
    assert decoded.shape == (3, 2, 5, D)
    assert memory.shape == (2, D, 3, 4)
    # memory is a map again: cell (row, column) is token row · width + column
    tokens = normal(2, D, 3, 4).flatten(2).transpose(1, 2)
    pos = tokens.clone()
    close(memory[:, :, 2, 1], model.encoder(tokens, None, pos)[:, 2 * 4 + 1])


def test_norms_at_the_ends(pre_norm):
    model = transformer(pre_norm)
    assert isinstance(model.decoder.norm, nn.LayerNorm)
    assert isinstance(model.encoder.norm, nn.LayerNorm if pre_norm else type(None))


def test_each_decoder_layer_is_normed_by_itself(pre_norm):
    decoder = transformer(pre_norm, decoder=3).decoder
    x, memory = normal(1, 4, D), normal(1, 6, D, seed=1)
    decoded = decoder(x, memory)
    for i, layer in enumerate(decoder.layers):
        x = layer(x, memory)
        close(decoded[i], decoder.norm(x))


def test_norm_between_layers_hands_on_the_normed_output():
    plain = transformer(decoder=3).decoder
    decoder = TransformerDecoder(list(plain.layers), plain.norm, norm_between_layers=True)
    x, memory = normal(1, 4, D), normal(1, 6, D, seed=1)
    decoded = decoder(x, memory)
    for i, layer in enumerate(decoder.layers):
        x = decoder.norm(layer(x, memory))
        close(decoded[i], x if i < 2 else decoder.norm(x))


def test_no_encoder_layers_leave_the_features_as_memory(pre_norm):
    model = transformer(pre_norm, encoder=0)
    features = normal(2, D, 3, 4)
    decoded, memory = model(
        features, torch.zeros(2, 3, 4, dtype=torch.bool), normal(5, D), torch.zeros(2, D, 3, 4)
    )
    assert torch.equal(memory, features)
    assert decoded.isfinite().all()


def test_glu_is_refused_by_name():
    with pytest.raises(ValueError, match="relu, gelu; got 'glu' .*halves the width"):
        Transformer(D, HEADS, activation="glu")
    with pytest.raises(ValueError, match="relu, gelu; got 'swish'"):
        TransformerEncoderLayer(D, HEADS, activation="swish")


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = Transformer(D, HEADS, 1, 1, FFN, dropout=0.3)
    arguments = (
        normal(1, D, 3, 4),
        torch.zeros(1, 3, 4, dtype=torch.bool),
        normal(5, D),
        torch.zeros(1, D, 3, 4),
    )
    assert not torch.equal(model(*arguments)[0], model(*arguments)[0])
    model.eval()
    assert torch.equal(model(*arguments)[0], model(*arguments)[0])


def test_every_matrix_starts_with_xavier():
    torch.manual_seed(0)
    for name, parameter in Transformer(32, 4, 2, 2, 64).named_parameters():
        if parameter.ndim == 2:
            outputs, inputs = parameter.shape
            if any(part in name for part in ("q_proj", "k_proj", "v_proj")):
                outputs *= 3  # the three are one matrix
            bound = math.sqrt(6 / (inputs + outputs))
            assert 0.95 * bound < parameter.abs().max() <= bound, name


def test_parameters_of_the_papers_transformer():
    with torch.device("meta"):
        model = Transformer()
    attention, norm, ffn = 4 * (256 * 256 + 256), 2 * 256, 256 * 2048 + 2048 + 2048 * 256 + 256
    encoder, decoder = attention + ffn + 2 * norm, 2 * attention + ffn + 3 * norm
    assert sum(p.numel() for p in model.parameters()) == 6 * (encoder + decoder) + norm


def test_a_decoder_without_layers_is_refused():
    with pytest.raises(ValueError, match="needs a layer, got 0"):
        Transformer(16, 2, num_decoder_layers=0)
