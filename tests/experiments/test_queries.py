"""DETR's decoder taken apart: the parts put together are the model, and each change does what its name says."""

import copy

import pytest
import torch

from minivis.attention import record_attention
from minivis.data.scenes import Scenes, World
from minivis.detr import DETRConfig, build_detr
from minivis.experiments.queries import (
    around_boxes,
    causal_queries,
    cells_inside,
    confident,
    decode,
    duplicates,
    encode,
    encode_scenes,
    place_scores,
    read_only,
    rivals,
    roi_weights,
    share_found,
    silent_head,
    silent_queries,
    without_places,
)
from minivis.images import ImageBatch

QUERIES, CLASSES = 6, 3


@pytest.fixture(params=[True, False], ids=["pre-norm", "post-norm"])
def model(request):
    """Its biases are not zero, as those of a trained model are not."""
    torch.manual_seed(0)
    config = DETRConfig(
        num_classes=CLASSES, num_queries=QUERIES, backbone="small", backbone_norm="group",
        backbone_channels=(8, 16), d_model=16, num_heads=4, encoder_layers=1, decoder_layers=3,
        dim_feedforward=32, dropout=0.0, normalize_before=request.param,
    )  # fmt: skip
    model = build_detr(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.3)
    return model


@pytest.fixture
def images():
    """Two pictures, one of them padded."""
    mask = torch.zeros(2, 24, 32, dtype=torch.bool)
    mask[1, :, 16:] = True
    return ImageBatch(torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(1)), mask)


def agree(a, b, atol=1e-5):
    return all(torch.allclose(a[key], b[key], atol=atol) for key in ("pred_logits", "pred_boxes"))


def test_encode_and_decode_are_the_model(model, images):
    whole, parts = model(images), decode(model, encode(model, images))
    assert len(parts) == 3 and agree(parts[-1], whole)
    assert all(agree(part, aux) for part, aux in zip(parts, whole["aux_outputs"], strict=False))


def test_scenes_are_encoded_as_one_batch(model):
    world = World(size=64, max_objects=2)
    data = Scenes("val", world)
    memory, targets = encode_scenes(model, data, [3, 0, 5], batch_size=2)
    assert (
        memory.tokens.shape[0] == 3 == len(targets)
        and memory.size[0] * memory.size[1] == memory.tokens.shape[1]
    )
    assert [target["image_id"] for target in targets] == [3, 0, 5]
    alone, _ = encode_scenes(model, data, [5])
    assert torch.allclose(memory[2:].tokens, alone.tokens, atol=1e-5)


def test_the_first_self_attention_says_one_thing(model, images):
    said = []
    hook = model.transformer.decoder.layers[0].self_attn.register_forward_hook(lambda m, i, o: said.append(o))
    decode(model, encode(model, images))
    hook.remove()
    assert (said[0] - said[0][:1, :1]).abs().max() < 1e-5, "for all queries and pictures"
    assert said[0].abs().max() > 0.01


def test_order_counts_for_causal_queries_only(model, images):
    memory, order = encode(model, images), torch.tensor([3, 1, 5, 0, 4, 2])
    embedding = model.query_embed.weight

    def moved():
        usual, shuffled = decode(model, memory)[-1], decode(model, memory, embedding[order])[-1]
        return (usual["pred_logits"][:, order] - shuffled["pred_logits"]).abs().max()

    assert moved() < 1e-5
    with causal_queries(model):
        assert moved() > 1e-3
        together = decode(model, memory)[-1]["pred_logits"]
        for n in range(QUERIES):  # one after another: what comes later is not there yet
            last = decode(model, memory, embedding[: n + 1])[-1]["pred_logits"][:, -1]
            assert torch.allclose(last, together[:, n], atol=1e-5)
    assert moved() < 1e-5, "the model is as it was"


def test_silent_queries_do_not_depend_on_others(model, images):
    memory, embedding = encode(model, images), model.query_embed.weight
    usual = decode(model, memory)
    with silent_queries(model):
        silent = decode(model, memory)
        alone = decode(model, memory, embedding[2:3])[-1]
        assert torch.allclose(alone["pred_logits"][:, 0], silent[-1]["pred_logits"][:, 2], atol=1e-5)
    assert agree(silent[0], usual[0]), "nothing was said in the first layer"
    assert not agree(silent[-1], usual[-1], atol=1e-3)
    assert agree(decode(model, memory)[-1], usual[-1]), "and they hear each other again"


def test_forward_comes_back_even_after_an_error(model, images):
    memory = encode(model, images)
    usual = decode(model, memory)[-1]
    with pytest.raises(RuntimeError, match="on purpose"), silent_queries(model):
        raise RuntimeError("on purpose")
    assert agree(decode(model, memory)[-1], usual)


def test_read_only_what_is_allowed(model, images):
    memory = encode(model, images)
    cells = memory.tokens.shape[1]
    allowed = ~memory.padding[:, None].expand(-1, QUERIES, -1)
    usual = decode(model, memory)[-1]
    with read_only(model, allowed):
        assert agree(decode(model, memory)[-1], usual), "all that is not padding is what they read anyway"
    one = torch.zeros(2, QUERIES, cells, dtype=torch.bool)
    one[..., 0] = True
    other = memory._replace(tokens=memory.tokens.clone())
    other.tokens[:, 1:] += 1.0
    with read_only(model, one):
        assert agree(decode(model, memory)[-1], decode(model, other)[-1]), "only the first cell is read"
    nothing = torch.zeros_like(one)
    with read_only(model, nothing):
        free = decode(model, memory)[-1]
    assert free["pred_logits"].isfinite().all()


def test_a_copy_can_be_changed_alone(model, images):
    memory, other = encode(model, images), copy.deepcopy(model)
    usual = decode(model, memory)[-1]
    with silent_queries(other):
        assert agree(decode(model, memory)[-1], usual)
        assert not agree(decode(other, memory)[-1], usual, atol=1e-3)


def test_attention_can_be_recorded_while_queries_are_causal(model, images):
    memory = encode(model, images)
    with causal_queries(model), record_attention(model) as maps:
        decode(model, memory)
    weights = maps["transformer.decoder.layers.1.self_attn"]
    assert (weights.triu(1) == 0).all() and torch.allclose(weights.sum(-1), torch.ones(()))


def test_cells_inside_by_hand():
    box = torch.tensor([0.5, 0.25, 0.5, 0.5])  # the middle half of the width, the upper half
    assert cells_inside(box, (2, 4)).int().tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert cells_inside(box, (2, 4), margin=1.0).all()
    wide = cells_inside(torch.stack([box, torch.tensor([0.0, 0.0, 0.01, 0.01])]), (3, 5))
    assert wide.shape == (2, 15) and not wide[1].any()


def answers(*rows):
    """(score, class, box) of each query, for one picture."""
    logits = torch.full((1, len(rows), CLASSES + 1), -20.0)
    for i, (score, label, _) in enumerate(rows):
        logits[0, i, label], logits[0, i, -1] = torch.tensor(score).logit(), 0.0
    return {"pred_logits": logits, "pred_boxes": torch.tensor([[box for *_, box in rows]])}


def test_confident_and_duplicates_by_hand():
    here, near, there = [0.3, 0.3, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]
    outputs = answers((0.9, 0, here), (0.8, 0, near), (0.7, 1, near), (0.95, 0, there), (0.2, 0, here))
    assert confident(outputs).tolist() == [[True, True, True, True, False]]
    assert duplicates(outputs) == pytest.approx(1 / 4), "of four sure ones the second says the first again"
    assert duplicates(answers((0.1, 0, here), (0.2, 0, here))) == 0
    assert duplicates(answers(*[(0.9, 0, here)] * 3)) == pytest.approx(2 / 3), "one of three may stay"


def test_queries_that_hear_only_themselves(model, images):
    memory, embedding = encode(model, images), model.query_embed.weight
    with silent_queries(model, hear_themselves=True):
        together = decode(model, memory)[-1]
    alone = decode(model, memory, embedding[2:3])[-1]  # a mean of one value is that value
    assert torch.allclose(alone["pred_logits"][:, 0], together["pred_logits"][:, 2], atol=1e-5)


def test_what_place_and_embedding_add_is_a_part_of_the_scores(model, images):
    """By hand, from the recorded attention: without that part, its logarithm differs by just that much."""
    memory = encode(model, images)[:1]
    places = place_scores(model, memory, 1)
    with record_attention(model) as maps:
        decode(model, memory)
    usual = maps["transformer.decoder.layers.1.cross_attn"][0]
    attention = model.transformer.decoder.layers[1].cross_attn
    first = attention.q_proj(model.query_embed.weight) - attention.q_proj.bias
    keys = attention.k_proj(memory.positions[0]) - attention.k_proj.bias
    assert torch.allclose(
        places[2], first[:, 8:12] @ keys[:, 8:12].T / 2, atol=1e-5
    )  # head 2 of 4, of 4 numbers

    gathered = []
    hook = attention.out_proj.register_forward_pre_hook(lambda module, inputs: gathered.append(inputs[0]))
    with without_places(model, memory, slice(1, 2)):
        decode(model, memory)
    hook.remove()
    weights = (usual.log() - places).softmax(-1)
    values = attention.v_proj(memory.tokens[0]).view(-1, 4, 4).transpose(0, 1)
    wanted = (weights @ values).transpose(0, 1).flatten(1)
    assert torch.allclose(gathered[0][0], wanted, atol=1e-4)


def test_a_silent_head_gives_nothing_and_comes_back(model, images):
    memory, attention = encode(model, images), model.transformer.decoder.layers[1].cross_attn
    usual, weight = decode(model, memory)[-1], attention.out_proj.weight.clone()
    with pytest.raises(RuntimeError, match="on purpose"), silent_head(attention, 3):
        assert (attention.out_proj.weight[:, 12:] == 0).all()
        assert torch.equal(attention.out_proj.weight[:, :12], weight[:, :12])
        assert not agree(decode(model, memory)[-1], usual, atol=1e-3)
        raise RuntimeError("on purpose")
    assert torch.equal(attention.out_proj.weight, weight)


def test_roi_align_counts_the_box_evenly_and_reads_its_neighbours():
    middle, corner = torch.tensor([0.5, 0.5, 0.5, 0.5]), torch.tensor([0.125, 0.125, 0.25, 0.25])
    weights = roi_weights(torch.stack([middle, corner]), (4, 8))
    assert weights.shape == (2, 32) and torch.allclose(weights.sum(-1), torch.ones(2), atol=1e-5)
    inside = cells_inside(middle, (4, 8))
    assert weights[0, inside].min() > weights[0, ~inside].max() > 0, "it interpolates"
    assert torch.allclose(weights[0].view(4, 8), weights[0].view(4, 8).flip(0, 1), atol=1e-5)
    assert weights[1].view(4, 8)[2:, 4:].sum() == 0
    assert torch.equal(roi_weights(middle, (4, 8)), weights[0])


def test_a_map_is_cut_out_around_its_box():
    weights = torch.zeros(1, 2, 8, 8)
    weights[0, 1, 2, 4] = 1.0  # its middle lies at x = 4.5 / 8, y = 2.5 / 8
    box = torch.tensor([[4.5 / 8 - 0.1, 2.5 / 8 + 0.2, 0.2, 0.2]])
    cut = around_boxes(weights, box, reach=1.0, steps=5)  # at −1, −½, 0, ½, 1 of the box's size
    assert cut.shape == (1, 2, 5, 5) and cut[0, 0].abs().max() == 0
    assert cut[0, 1, 0, 3] == pytest.approx(1, abs=1e-4), "half a box to the right, a box above"


def test_rivals_and_what_is_found_by_hand():
    here, near, there = [0.3, 0.3, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]
    outputs = answers((0.9, 0, here), (0.8, 0, near), (0.7, 1, near), (0.95, 0, there), (0.2, 0, here))
    assert rivals(outputs)[0].nonzero().tolist() == [[0, 1], [1, 0]]
    boxes = torch.tensor([here, near, there, there])
    target = {"labels": torch.tensor([0, 1, 0, 2]), "boxes": boxes}
    assert share_found(outputs, [target]) == pytest.approx(3 / 4), "nobody says class 2"
    assert share_found(answers((0.3, 0, here)), [target]) == 0
