"""DETR's decoder taken apart: the parts put together are the model, and each change does what its name says."""

import copy

import pytest
import torch

from minivis.attention import record_attention
from minivis.data.scenes import Scenes, World
from minivis.detr import DETRConfig, build_detr
from minivis.experiments.queries import (
    causal_queries,
    cells_inside,
    confident,
    decode,
    duplicates,
    encode,
    encode_scenes,
    read_only,
    silent_queries,
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
