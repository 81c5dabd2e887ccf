"""DETR agrees with Hugging Face transformers, weight for weight: outputs, losses, gradients, attention maps.

transformers' ResNet cannot dilate, so its last stage is dilated here by hand for DC5; pre-norm it does not have at all.
"""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

import minivis
from minivis.detr import HungarianMatcher, SetCriterion, build_detr
from minivis.images import ImageBatch, as_image_batch
from minivis.pretrained.detr_weights import rename

CLASSES, QUERIES = 5, 7
RESNET18 = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
RESNET50 = {"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"}
# Stride 32: the second image is padded by more than a row and a column of cells, the third by a part of one.
SIZES = [(128, 96), (60, 50), (120, 161)]


def reference(resnet=RESNET18, dilate=False, stage=4, seed=0, **options) -> DetrForObjectDetection:
    """A small random model of transformers; every parameter matters: no uniform attention, no exploding features."""
    torch.manual_seed(seed)
    settings = {
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "backbone": None,
        "backbone_config": ResNetConfig(**resnet, out_features=[f"stage{stage}"]),
        "num_labels": CLASSES,
        "num_queries": QUERIES,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "attn_implementation": "eager",  # the one that can give its weights
    }
    hf = DetrForObjectDetection(DetrConfig(**settings | options))
    if dilate:
        dilate_last_stage(hf)
    for name, parameter in hf.named_parameters():
        if "backbone" in name or "position_embedding." in name:
            continue  # well spread as they are
        if "query_position" in name:
            nn.init.normal_(parameter)
        elif parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, gain=1.5)
        else:
            nn.init.normal_(parameter, 1.0 if "norm.weight" in name else 0.0, 0.2)
    calibrate(hf)
    for parameter in hf.parameters():
        parameter.requires_grad_(True)
    return hf.eval()


def dilate_last_stage(hf: DetrForObjectDetection) -> None:
    """DC5: the stage keeps its resolution, and from its second block on its kernels are dilated."""
    backbone = getattr(hf.model.backbone, "conv_encoder", hf.model.backbone)  # transformers 4 and 5
    stage = backbone.model.encoder.stages[-1]
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    for block in list(stage.layers)[1:]:
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)


@torch.no_grad()
def calibrate(hf: DetrForObjectDetection) -> None:
    """Gives frozen batch norm the statistics of random images, as training would have, and random gains."""

    def take_statistics(norm: nn.Module, inputs: tuple) -> None:
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)) + 0.1)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.2)

    norms = [m for m in hf.modules() if type(m).__name__ == "DetrFrozenBatchNorm2d"]
    assert norms
    hooks = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    hf.model.backbone(torch.randn(2, 3, 128, 128), torch.ones(2, 128, 128))
    for hook in hooks:
        hook.remove()


def images(sizes=SIZES, seed=1) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    return as_image_batch([torch.randn(3, h, w, generator=generator) for h, w in sizes])


def objects(counts, seed=2) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for count in counts:
        size = 0.1 + 0.3 * torch.rand(count, 2, generator=generator)
        centre = 0.25 + 0.5 * torch.rand(count, 2, generator=generator)
        labels = torch.randint(CLASSES, (count,), generator=generator)
        targets.append({"labels": labels, "boxes": torch.cat([centre, size], dim=1)})
    return targets


def theirs(targets: list[dict]) -> list[dict]:
    return [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in targets]


def run_reference(hf: DetrForObjectDetection, batch: ImageBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Class logits and boxes of every decoder layer, (layers, B, Q, ·), as the paper has them.

    transformers itself gives the last layer's, or with `auxiliary_loss` those of another model (the test below); so
    each layer's output is taken by a hook and put through transformers' own norm and heads.
    """
    raw = []
    take_output = lambda layer, inputs, output: raw.append(output[0] if isinstance(output, tuple) else output)  # noqa: E731
    hooks = [layer.register_forward_hook(take_output) for layer in hf.model.decoder.layers]
    last = hf(batch.pixels, pixel_mask=(~batch.padding_mask).long())
    for hook in hooks:
        hook.remove()
    decoded = hf.model.decoder.layernorm(torch.stack(raw))
    logits, boxes = hf.class_labels_classifier(decoded), hf.bbox_predictor(decoded).sigmoid()
    assert_close(logits[-1], last.logits, rtol=0, atol=1e-6)  # the hooks saw what transformers gives
    assert_close(boxes[-1], last.pred_boxes, rtol=0, atol=1e-6)
    return logits, boxes


def stacked(outputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
    layers = [*outputs.get("aux_outputs", []), outputs]
    return tuple(torch.stack([layer[key] for layer in layers]) for key in ("pred_logits", "pred_boxes"))


def with_aux(model):
    """The paper's model gives all layers' predictions; transformers' configuration says whether they are trained."""
    model.aux_loss = True
    return model


CONFIGURATIONS = {
    "sine": {},
    "learned": {"position_embedding_type": "learned"},
    "gelu": {"activation_function": "gelu", "encoder_layers": 1, "decoder_layers": 1},
    "bottleneck": {"resnet": RESNET50, "encoder_layers": 1, "decoder_layers": 1},
    "dc5": {"resnet": RESNET50, "dilate": True, "encoder_layers": 1, "decoder_layers": 1},
    "stride 16": {"stage": 3, "encoder_layers": 1, "decoder_layers": 1},
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@torch.no_grad()
def test_outputs(configuration):
    hf = reference(**CONFIGURATIONS[configuration])
    model = with_aux(minivis.from_transformers(hf))
    if configuration == "dc5":  # transformers' configuration cannot tell of it
        plain = model
        model = with_aux(build_detr(replace(plain.config, dilation=True))).eval()
        model.load_state_dict(plain.state_dict())
    for sizes in (SIZES, SIZES[:1]):
        batch = images(sizes)
        logits, boxes = run_reference(hf, batch)
        our_logits, our_boxes = stacked(model(batch))
        assert logits.std(dim=2).mean() > 0.05 and boxes.std(dim=2).mean() > 0.005  # queries differ
        assert_close(our_logits, logits, rtol=1e-5, atol=1e-5)
        assert_close(our_boxes, boxes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dilation", [False, True], ids=["plain", "dc5"])
@torch.no_grad()
def test_timm_backbone_in_memory(dilation):
    """minivis needs no timm; where there is one, transformers' model around it is read and made as well."""
    pytest.importorskip("timm")
    backbone = {
        "use_timm_backbone": True,
        "backbone": "resnet50",
        "backbone_config": None,
        "dilation": dilation,
    }
    hf = reference(**backbone, encoder_layers=1, decoder_layers=1)
    model = minivis.from_transformers(hf)
    assert model.config.dilation == dilation
    batch = images()
    logits, boxes = run_reference(hf, batch)
    outputs = model(batch)
    assert_close(outputs["pred_logits"], logits[-1], rtol=1e-5, atol=1e-5)
    assert_close(outputs["pred_boxes"], boxes[-1], rtol=1e-5, atol=1e-5)
    again = minivis.to_transformers(model)
    assert_close(run_reference(again, batch)[0], logits, rtol=1e-5, atol=1e-5)


def reference_losses(logits, boxes, targets) -> tuple[torch.Tensor, dict]:
    """transformers' weighted loss and all its parts, from every decoder layer's predictions."""
    config = DetrConfig(num_labels=CLASSES, auxiliary_loss=True, decoder_layers=len(logits))
    total, losses, _ = ForObjectDetectionLoss(
        logits[-1], theirs(targets), logits.device, boxes[-1], config, logits, boxes
    )
    return total, losses


COUNTS = {
    "ordinary": [3, 1, 5],
    "one image is empty": [4, 0, 2],
    "all are empty": [0, 0, 0],
    "more objects than queries": [QUERIES + 3, 1, 2],
}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_losses_of_the_reference_criterion_on_the_same_outputs(counts):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, len(counts), QUERIES, CLASSES + 1, generator=generator)
    boxes = (0.2 + 0.6 * torch.rand(3, len(counts), QUERIES, 4, generator=generator)).clamp(max=0.6)
    targets = objects(counts)
    expected_total, expected = reference_losses(logits, boxes, targets)
    criterion = SetCriterion(CLASSES, HungarianMatcher())
    layers = [{"pred_logits": c, "pred_boxes": b} for c, b in zip(logits, boxes, strict=True)]
    losses = criterion(layers[-1] | {"aux_outputs": layers[:-1]}, targets)
    assert losses.keys() - {"class_error"} == expected.keys()
    for name, loss in expected.items():
        assert_close(losses[name], loss, rtol=1e-5, atol=1e-5, msg=name)
    assert_close(criterion.weighted_sum(losses), expected_total, rtol=1e-5, atol=1e-5)


# No gradient but rounding: a key's bias moves all scores of a query alike, and softmax is blind to that; and in the
# decoder's first self-attention all values are the same (made from zeros), so it does not matter how they are mixed.
BLIND = r"k_proj\.bias|decoder\.layers\.0\.self_attn\.([qk]_proj|v_proj\.weight)"


@pytest.mark.parametrize(("positions", "counts"), [("sine", [3, 1, 5]), ("learned", [4, 0, 2])])
def test_losses_and_every_gradient(positions, counts):
    hf = reference(position_embedding_type=positions)
    model = with_aux(minivis.from_transformers(hf))
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    batch, targets = images(), objects(counts)

    expected_total, expected = reference_losses(*run_reference(hf, batch), targets)
    expected_total.backward()
    criterion = SetCriterion(CLASSES, HungarianMatcher())
    losses = criterion(model(batch), targets)
    total = criterion.weighted_sum(losses)
    total.backward()

    for name, loss in expected.items():
        assert_close(losses[name], loss, rtol=1e-4, atol=1e-4, msg=name)
    assert_close(total, expected_total, rtol=1e-4, atol=1e-4)

    gradients = {rename(name): p.grad for name, p in hf.named_parameters()}
    ours = {name: p.grad for name, p in model.named_parameters()}
    assert gradients.keys() == ours.keys()
    for name, gradient in gradients.items():
        size = float(gradient.abs().max())
        assert size > 1e-3 or re.search(BLIND, name), f"{name} is not exercised"
        assert_close(ours[name], gradient, rtol=0, atol=1e-4 * size + 1e-5, msg=name)


@torch.no_grad()
def test_attention_maps_are_those_of_output_attentions():
    hf = reference()
    model = minivis.from_transformers(hf)
    batch = images()
    expected = hf(batch.pixels, pixel_mask=(~batch.padding_mask).long(), output_attentions=True)
    with minivis.record_attention(model) as maps:
        model(batch)
    named = {
        "transformer.encoder.layers.{}.self_attn": expected.encoder_attentions,
        "transformer.decoder.layers.{}.self_attn": expected.decoder_attentions,
        "transformer.decoder.layers.{}.cross_attn": expected.cross_attentions,
    }
    assert len(maps) == sum(len(layers) for layers in named.values()) == 8
    for pattern, layers in named.items():
        for i, weights in enumerate(layers):
            assert weights.std() > 1e-3  # not uniform
            assert_close(maps[pattern.format(i)], weights, rtol=1e-5, atol=1e-5)


def test_the_reference_with_auxiliary_losses():
    """transformers with `auxiliary_loss` is another function: each layer takes the normed output of the one before."""
    hf = reference(auxiliary_loss=True)
    model = minivis.from_transformers(hf)
    assert model.config.aux_loss and model.config.norm_between_layers
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    batch, targets = images(), objects([3, 0, 5])
    expected = hf(batch.pixels, pixel_mask=(~batch.padding_mask).long(), labels=theirs(targets))
    outputs = model(batch)
    assert_close(outputs["pred_logits"], expected.logits, rtol=1e-5, atol=1e-5)
    assert_close(outputs["pred_boxes"], expected.pred_boxes, rtol=1e-5, atol=1e-5)
    assert len(outputs["aux_outputs"]) == len(expected.auxiliary_outputs) == 2
    for layer, expected_layer in zip(outputs["aux_outputs"], expected.auxiliary_outputs, strict=True):
        assert_close(layer["pred_logits"], expected_layer["logits"], rtol=1e-5, atol=1e-5)
        assert_close(layer["pred_boxes"], expected_layer["pred_boxes"], rtol=1e-5, atol=1e-5)

    criterion = SetCriterion(CLASSES, HungarianMatcher())
    losses = criterion(outputs, targets)
    for name, loss in expected.loss_dict.items():
        assert_close(losses[name], loss, rtol=1e-4, atol=1e-4, msg=name)
    assert_close(criterion.weighted_sum(losses), expected.loss, rtol=1e-4, atol=1e-4)

    # The same weights without auxiliary losses: the paper's function, and not this one.
    hf.config.auxiliary_loss = False
    with torch.no_grad():
        paper = minivis.from_transformers(hf)(batch)
    assert (paper["pred_logits"] - outputs["pred_logits"]).abs().max() > 1e-2
