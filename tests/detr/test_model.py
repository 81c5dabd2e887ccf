"""The whole model: parameters, the forms it takes, what padding does, its auxiliary outputs and its configuration."""

import json
from dataclasses import fields

import pytest
import torch
from detr_problems import TINY, tiny_config
from torch import nn

from minivis import record_attention
from minivis.detr import DETR, MLP, DETRConfig, Transformer, build_detr, detr_mini, detr_resnet50, mini_config
from minivis.detr.backbone import FeatureMap
from minivis.images import as_image_batch, resize_mask

FORMS = [
    {},
    dict(normalize_before=True, activation="gelu"),
    dict(positions="learned"),
    dict(positions="none", aux_loss=False),
    dict(encoder_layers=0, decoder_layers=1),
    dict(feature_level=0, backbone_blocks=2),
    dict(norm_between_layers=True),
]
RESNET = dict(backbone="resnet18", backbone_norm="group")


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return build_detr(tiny_config(**changes)).eval()


def pictures(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, h, w, generator=generator) for h, w in sizes]


def assert_same_outputs(a, b, **tolerance):
    assert a.keys() == b.keys()
    for one, other in zip([a, *a.get("aux_outputs", [])], [b, *b.get("aux_outputs", [])], strict=True):
        for key in ("pred_logits", "pred_boxes"):
            torch.testing.assert_close(one[key], other[key], **(tolerance or dict(atol=1e-5, rtol=1e-5)))


# Parameters


def test_resnet50_has_the_papers_parameters():
    with torch.device("meta"):
        model = detr_resnet50()
    assert sum(p.numel() for p in model.parameters()) == 41_524_768
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 41_302_368
    assert model.config == DETRConfig()
    assert (model.num_classes, model.num_queries, model.aux_loss) == (91, 100, True)


def test_resnet50_counts_change_with_classes_and_queries_only_where_they_must():
    with torch.device("meta"):
        model = detr_resnet50(num_classes=7, num_queries=30, aux_loss=False)
    assert sum(p.numel() for p in model.parameters()) == 41_524_768 - (91 - 7) * 257 - (100 - 30) * 256
    assert not model.aux_loss


def expected_parameters(config):
    """Counted from the architecture, not from the modules; for the small backbone."""
    norm, conv3 = 2, 9
    backbone, c_in = 0, 3
    for i, c in enumerate(config.backbone_channels):
        backbone += conv3 * c_in * c + norm * c
        backbone += config.backbone_blocks * 2 * (conv3 * c * c + norm * c) if i else 0
        c_in = c
    d, ffn, k = config.d_model, config.dim_feedforward, config.num_classes
    attention = 4 * (d * d + d)
    feed_forward = 2 * d * ffn + ffn + d
    encoder = config.encoder_layers * (attention + feed_forward + 2 * norm * d)
    decoder = config.decoder_layers * (2 * attention + feed_forward + 3 * norm * d) + norm * d
    if config.normalize_before and config.encoder_layers:
        encoder += norm * d  # the encoder ends with a norm
    heads = (d + 1) * (k + 1) + 2 * (d * d + d) + 4 * (d + 1)
    projection = (config.backbone_channels[config.feature_level] + 1) * d
    return backbone + projection + encoder + decoder + heads + config.num_queries * d


@pytest.mark.parametrize(
    "config",
    [
        mini_config(6),
        tiny_config(),
        tiny_config(encoder_layers=0),
        tiny_config(normalize_before=True),
        tiny_config(normalize_before=True, encoder_layers=0),
    ],
)
def test_parameters_are_those_of_the_architecture(config):
    with torch.device("meta"):
        model = build_detr(config)
    assert sum(p.numel() for p in model.parameters()) == expected_parameters(config)
    assert all(p.requires_grad for p in model.parameters())


def test_mini_is_the_same_class():
    mini = detr_mini(6)
    assert type(mini) is DETR
    assert type(mini.transformer) is Transformer
    assert mini.config == mini_config(6)
    assert mini.config.d_model == 128
    assert mini.config.num_heads == 8
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in mini.modules())
    with torch.device("meta"):
        full = detr_resnet50()

    def classes_outside_the_backbone(model):
        return {type(m) for name, m in model.named_modules() if not name.startswith("backbone")}

    assert classes_outside_the_backbone(mini) == classes_outside_the_backbone(full)


def test_queries_start_from_a_normal_distribution():
    torch.manual_seed(0)
    weight = build_detr(tiny_config(num_queries=500)).query_embed.weight
    assert abs(weight.mean()) < 0.05
    assert abs(weight.std() - 1) < 0.05


def test_input_projection_is_one_linear_layer_at_every_pixel():
    model = tiny()
    features = torch.randn(2, 16, 3, 4)
    weight, bias = model.input_proj.weight[:, :, 0, 0], model.input_proj.bias
    linear = nn.functional.linear(features.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(model.input_proj(features), linear, atol=1e-6, rtol=1e-5)


def test_mlp_is_linear_layers_with_relu_between():
    torch.manual_seed(0)
    mlp = MLP(3, 5, 2, 3)
    assert [(m.in_features, m.out_features) for m in mlp.layers] == [(3, 5), (5, 5), (5, 2)]
    x = torch.randn(7, 4, 3)
    first, second, third = mlp.layers
    assert torch.equal(mlp(x), third(second(first(x).relu()).relu()))
    assert [(m.in_features, m.out_features) for m in MLP(3, 5, 2, 1).layers] == [(3, 2)]


# What it takes and gives


@pytest.mark.parametrize("changes", [*FORMS, RESNET], ids=str)
def test_outputs_of_every_form(changes):
    model = tiny(**changes)
    outputs = model(pictures((33, 48), (20, 31)))
    layers = model.config.decoder_layers
    for layer in [outputs, *outputs.get("aux_outputs", [])]:
        assert layer["pred_logits"].shape == (2, 5, 5)
        assert layer["pred_boxes"].shape == (2, 5, 4)
        assert layer["pred_logits"].isfinite().all()
        assert ((layer["pred_boxes"] > 0) & (layer["pred_boxes"] < 1)).all()
    if model.config.aux_loss:
        assert len(outputs["aux_outputs"]) == layers - 1
        assert all(set(layer) == {"pred_logits", "pred_boxes"} for layer in outputs["aux_outputs"])
    else:
        assert "aux_outputs" not in outputs


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_every_parameter_gets_a_gradient(changes):
    model = tiny(**changes).train()
    outputs = model(pictures((33, 48), (20, 31)))
    (outputs["pred_logits"].square().mean() + outputs["pred_boxes"].mean()).backward()
    waiting = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not waiting, "two processes would wait for these"
    frozen = {name.rsplit(".", 1)[0][:17] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == ({"backbone.stages.1"} if changes.get("feature_level") == 0 else set())


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_list_tensor_and_batch_are_the_same(changes):
    model = tiny(**changes)
    images = torch.stack(pictures((24, 32), (24, 32)))
    outputs = model(images)
    for form in (list(images), as_image_batch(images), as_image_batch(list(images))):
        assert_same_outputs(model(form), outputs, atol=0, rtol=0)


def test_a_batch_of_one_is_the_image_in_a_batch_of_many():
    model = tiny()
    images = torch.stack(pictures((24, 32), (24, 32), (24, 32)))
    together = model(images)
    for i in range(3):
        alone = model(images[i : i + 1])
        assert alone["pred_boxes"].shape == (1, 5, 4)
        for key in ("pred_logits", "pred_boxes"):
            torch.testing.assert_close(alone[key][0], together[key][i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3)])
def test_the_smallest_images(size):
    outputs = tiny()(pictures(size))
    assert outputs["pred_logits"].isfinite().all()


def test_one_query_and_one_class():
    outputs = tiny(num_queries=1, num_classes=1)(pictures((24, 32)))
    assert outputs["pred_logits"].shape == (1, 1, 2)
    assert outputs["pred_boxes"].shape == (1, 1, 4)


def test_queries_of_a_trained_size_differ_and_permute():
    model = tiny()
    images = pictures((24, 32))
    outputs = model(images)
    order = torch.tensor([4, 2, 0, 1, 3])
    with torch.no_grad():
        model.query_embed.weight.copy_(model.query_embed.weight[order])
    permuted = model(images)
    torch.testing.assert_close(
        permuted["pred_logits"], outputs["pred_logits"][:, order], atol=1e-5, rtol=1e-5
    )
    assert (permuted["pred_logits"] - outputs["pred_logits"]).abs().max() > 1e-3


# Padding


class Patches(nn.Module):
    """A backbone whose cells do not overlap: what is left to depend on padding is the model's own part."""

    channels, strides = (12,), (8,)

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 8, stride=8)

    def forward(self, images):
        features = self.patch(images.pixels)
        return [FeatureMap(features, resize_mask(images.padding_mask, features.shape[-2:]))]


@pytest.mark.parametrize("positions", ["sine", "learned", "none"])
@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
def test_an_image_alone_and_in_a_padded_batch_gives_the_same_predictions(positions, pre_norm):
    torch.manual_seed(0)
    transformer = Transformer(16, 2, 2, 2, 32, dropout=0.0, normalize_before=pre_norm)
    model = DETR(Patches(), transformer, 4, 5, aux_loss=True, positions=positions).eval()
    images = pictures((24, 40), (48, 16), (8, 8))
    batch = as_image_batch(images)
    batch = batch._replace(pixels=torch.where(batch.padding_mask[:, None], 9.0, batch.pixels))
    together = model(batch)
    assert len({together["pred_logits"][i].sum().item() for i in range(3)}) == 3
    for i, image in enumerate(images):
        alone = model([image])
        for one, many in zip(
            [alone, *alone["aux_outputs"]], [together, *together["aux_outputs"]], strict=True
        ):
            for key in ("pred_logits", "pred_boxes"):
                torch.testing.assert_close(one[key][0], many[key][i], atol=1e-5, rtol=1e-5)


# Auxiliary outputs


def test_aux_loss_changes_neither_parameters_nor_the_last_layer():
    with_aux, without = tiny(), tiny(seed=1, aux_loss=False)
    assert with_aux.state_dict().keys() == without.state_dict().keys()
    without.load_state_dict(with_aux.state_dict())
    images = pictures((24, 32))
    outputs = with_aux(images)
    aux = outputs.pop("aux_outputs")
    assert len(aux) == 2
    assert_same_outputs(without(images), outputs, atol=1e-6, rtol=1e-5)


def test_aux_outputs_are_the_same_heads_on_earlier_layers():
    model = tiny()
    caught = []
    model.transformer.register_forward_hook(lambda module, args, out: caught.append(out[0]))
    outputs = model(pictures((24, 32)))
    for layer, decoded in zip([*outputs["aux_outputs"], outputs], caught[0], strict=True):
        torch.testing.assert_close(layer["pred_logits"], model.class_embed(decoded))
        torch.testing.assert_close(layer["pred_boxes"], model.bbox_embed(decoded).sigmoid())


def test_a_model_cut_after_its_first_decoder_layer_says_what_aux_output_0_said():
    model, cut = tiny(), tiny(decoder_layers=1)
    cut.load_state_dict({k: v for k, v in model.state_dict().items() if k in cut.state_dict()})
    images = pictures((24, 32))
    first = model(images)["aux_outputs"][0]
    outputs = cut(images)
    assert outputs.pop("aux_outputs") == []
    assert_same_outputs(outputs, first)


# Looking inside, saving memory, lower precision


def test_attention_maps_of_the_whole_model():
    model = tiny()
    images = pictures((32, 48), (16, 48))
    plain = model(images)
    with record_attention(model) as maps:
        assert_same_outputs(model(images), plain)
    cells, queries = 8 * 12, 5
    for i in range(2):
        assert maps[f"transformer.encoder.layers.{i}.self_attn"].shape == (2, 2, cells, cells)
    for i in range(3):
        assert maps[f"transformer.decoder.layers.{i}.self_attn"].shape == (2, 2, queries, queries)
        cross = maps[f"transformer.decoder.layers.{i}.cross_attn"]
        assert cross.shape == (2, 2, queries, cells)
        grid = cross.unflatten(-1, (8, 12))
        assert (grid[1, :, :, 4:] == 0).all()
        assert (grid[1, :, :, :4] > 0).all()
    assert len(maps) == 8


def test_recomputing_the_backbone_gives_the_same_gradients():
    images = pictures((24, 32), (16, 32))
    gradients = []
    for recompute in (False, True):
        model = tiny().train()
        model.checkpoint_backbone = recompute
        outputs = model(images)
        (outputs["pred_logits"].square().mean() + outputs["pred_boxes"].mean()).backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)


def test_bf16_keeps_boxes_in_full_precision():
    model = tiny()
    images = pictures((24, 32), (16, 32))
    exact = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images)
    assert outputs["pred_boxes"].dtype == torch.float32
    assert (outputs["pred_boxes"] - exact["pred_boxes"]).abs().max() < 0.01
    assert (outputs["pred_logits"] - exact["pred_logits"]).abs().max() < 0.1


# Configuration


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_a_configuration_survives_json_and_builds_the_same_model(changes):
    config = tiny_config(**changes)
    again = DETRConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert isinstance(again.backbone_channels, tuple)
    model, copy = tiny(**changes), build_detr(again).eval()
    copy.load_state_dict(model.state_dict())
    assert copy.config == config
    images = pictures((24, 32))
    assert_same_outputs(copy(images), model(images), atol=0, rtol=0)


def behaviour(config):
    torch.manual_seed(0)
    model = build_detr(config)  # in training, for the sake of dropout
    return {name: t.shape for name, t in model.state_dict().items()}, model(pictures((24, 32)))


@pytest.mark.parametrize(
    "field", [f.name for f in fields(DETRConfig) if f.name not in ("backbone", "backbone_norm", "dilation")]
)
def test_every_field_of_the_configuration_reaches_the_model(field):
    others = dict(
        positions="learned", activation="gelu", feature_level=0, backbone_channels=(8, 24), dropout=0.5
    )
    value = getattr(tiny_config(), field)
    other = others.get(field, not value if isinstance(value, bool) else value * 2)
    (shapes, outputs), (other_shapes, other_outputs) = (
        behaviour(tiny_config()),
        behaviour(tiny_config(**{field: other})),
    )
    assert (
        shapes != other_shapes
        or outputs.keys() != other_outputs.keys()
        or not torch.equal(outputs["pred_logits"], other_outputs["pred_logits"])
    )


def test_resnet_fields_reach_the_backbone():
    with torch.device("meta"):
        model = build_detr(tiny_config(backbone="resnet50", backbone_norm="group", dilation=True))
    assert model.backbone.strides == (4, 8, 16, 16)
    assert any(isinstance(m, nn.GroupNorm) for m in model.backbone.modules())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(positions="cosine"), "sine, learned, none; got 'cosine'"),
        (dict(activation="glu"), "relu, gelu; got 'glu'"),
        (dict(backbone="resnet19"), "'resnet19' is not one of"),
        (dict(backbone_channels=()), "at least one stage"),
        (dict(num_heads=3), "d_model=16 cannot be split over num_heads=3"),
        (dict(d_model=18), "divisible by 4"),
    ],
)
def test_what_cannot_be_built_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        build_detr(DETRConfig(**(TINY | changes)))


def test_an_unknown_field_is_named():
    with pytest.raises(TypeError, match="num_heds"):
        DETRConfig(num_heds=3)
