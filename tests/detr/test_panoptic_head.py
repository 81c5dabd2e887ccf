"""The panoptic model: its attention map, its convolutions, the masks asked for, what is frozen, and its losses."""

import json
import math

import pytest
import torch
from detr_problems import TINY, random_outputs, random_targets
from torch import nn
from torch.testing import assert_close

from minivis.detr import (
    DETR,
    DETRsegm,
    HungarianMatcher,
    MaskHeadSmallConv,
    MHAttentionMap,
    PanopticConfig,
    SetCriterion,
    build_panoptic,
    detr_mini_panoptic,
    detr_resnet50_panoptic,
    mini_panoptic_config,
)
from minivis.detr.mask_losses import dice_loss, pad_masks, sigmoid_focal_loss
from minivis.detr.panoptic import finer_stages
from minivis.images import as_image_batch
from minivis.pretrained import load, save_checkpoint

K = TINY["num_classes"]
ALL_LOSSES = ("labels", "boxes", "cardinality", "masks")


def tiny_config(**changes) -> PanopticConfig:
    """Strides 2, 4, 8, 16, as in the mini model."""
    small = dict(backbone_channels=(8, 12, 16, 16), d_model=64, num_heads=8, decoder_layers=2)
    return PanopticConfig(**(TINY | small | changes))


def tiny(seed=0, freeze_detr=False, **changes) -> DETRsegm:
    """In evaluation mode; queries differ visibly in their masks."""
    torch.manual_seed(seed)
    model = build_panoptic(tiny_config(**changes), freeze_detr).eval()
    with torch.no_grad():
        model.bbox_attention.q_proj.weight *= 3
        model.mask_head.convs[0].weight[:, model.detr.transformer.d_model :] *= 50
    return model


def pictures(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, h, w, generator=generator) for h, w in sizes]


def with_masks(targets, *sizes, seed=0):
    generator = torch.Generator().manual_seed(seed + 7)
    return [
        target | {"masks": torch.rand(len(target["labels"]), *size, generator=generator) > 0.5}
        for target, size in zip(targets, sizes, strict=True)
    ]


def criterion(**changes) -> SetCriterion:
    return SetCriterion(**(dict(num_classes=K, matcher=HungarianMatcher(), losses=ALL_LOSSES) | changes))


# Parameters and shapes


def test_resnet50_has_the_papers_parameters():
    with torch.device("meta"):
        model = detr_resnet50_panoptic()
    assert sum(p.numel() for p in model.parameters()) == 42_899_288
    assert (model.num_classes, model.num_queries) == (250, 100)
    assert model.mask_stages == [2, 1, 0]
    assert len(model.mask_head.convs) == 5 and len(model.mask_head.adapters) == 3
    assert {norm.num_groups for norm in model.mask_head.norms} == {8}


def test_mini_is_the_same_class_and_has_the_same_head():
    model = detr_mini_panoptic(6)
    with torch.device("meta"):
        full = detr_resnet50_panoptic()
    assert type(model) is type(full) is DETRsegm
    assert [type(m) for m in model.mask_head.modules()] == [type(m) for m in full.mask_head.modules()]
    assert {norm.num_groups for norm in model.mask_head.norms} == {8}
    assert model.config == mini_panoptic_config(6)


@pytest.mark.parametrize(
    ("changes", "stages", "stride"),
    [
        ({}, [3, 2, 1], 4),
        ({"mask_stride": 2}, [2, 1, 0], 2),
        ({"mask_stride": 8}, [3, 2], 8),
        ({"feature_level": -2}, [2, 1], 4),
        ({"backbone": "resnet18", "backbone_norm": "group"}, [2, 1, 0], 4),
        ({"backbone": "resnet50", "backbone_norm": "group", "feature_level": 2}, [2, 1, 0], 4),
        ({"backbone": "resnet50", "backbone_norm": "group", "dilation": True}, [2, 1, 0], 4),
    ],
    ids=str,
)
@torch.no_grad()
def test_masks_of_every_backbone_have_their_stride(changes, stages, stride):
    model = tiny(**changes)
    assert model.mask_stages == stages
    outputs = model(pictures((45, 64), (33, 20)))
    assert outputs["pred_masks"].shape == (2, 5, math.ceil(45 / stride), 64 // stride)
    assert outputs["pred_masks"].isfinite().all()
    assert outputs["pred_logits"].shape == (2, 5, K + 1) and len(outputs["aux_outputs"]) == 1


@pytest.mark.parametrize(
    ("strides", "level", "mask_stride"), [((2, 4, 8), 0, 4), ((8, 16), -1, 4), ((4, 8), -1, 3)]
)
def test_a_backbone_without_a_map_of_that_stride_is_named(strides, level, mask_stride):
    with pytest.raises(ValueError, match=f"masks of stride {mask_stride} need a map of that stride"):
        finer_stages(strides, level, mask_stride)


def test_widths_that_group_norm_cannot_divide_are_named():
    with pytest.raises(ValueError, match=r"widths are \[100, 48, 24, 12, 6\]"):
        MaskHeadSmallConv(100, [8, 8, 8], 96)
    with pytest.raises(ValueError, match="hidden_dim=10 cannot be split over num_heads=4"):
        MHAttentionMap(10, 10, 4)


# The attention map


def attention_problem():
    torch.manual_seed(0)
    layer = MHAttentionMap(6, 8, 2)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer, torch.randn(2, 3, 6), torch.randn(2, 6, 4, 5)


def test_attention_by_hand():
    layer, q, k = attention_problem()
    weights = layer(q, k)
    assert weights.shape == (2, 3, 2, 4, 5)
    for b in range(2):
        for i in range(3):
            scores = torch.zeros(2, 4, 5)
            query = layer.q_proj(q[b, i])
            for head in range(2):
                own = slice(4 * head, 4 * head + 4)
                for y in range(4):
                    for x in range(5):
                        key = layer.k_proj(k[b, :, y, x])
                        scores[head, y, x] = query[own] @ key[own] / 2  # √d_head
            assert_close(weights[b, i], scores.exp() / scores.exp().sum())


def test_heads_share_one_softmax():
    layer, q, k = attention_problem()
    weights = layer(q, k)
    assert_close(weights.sum((2, 3, 4)), torch.ones(2, 3))
    assert (weights.sum((3, 4)) - 0.5).abs().max() > 0.05, "a head by itself need not sum to anything"
    assert (weights > 0).all()


def test_padding_gets_no_attention():
    layer, q, k = attention_problem()
    mask = torch.zeros(2, 4, 5, dtype=torch.bool)
    mask[1, :, 3:] = True
    weights = layer(q, k, mask)
    assert (weights[1, ..., 3:] == 0).all() and (weights[1, ..., :3] > 0).all()
    assert_close(weights[0], layer(q, k)[0])
    assert_close(weights[1, ..., :3], layer(q[1:], k[1:, ..., :3])[0])
    k = k.masked_fill(mask[:, None], 1e3)  # what lies under the padding is not seen
    assert_close(layer(q, k, mask), weights)


def test_padded_cells_of_the_whole_model_get_no_attention():
    model = tiny()
    _, inputs = model.detect(pictures((64, 64), (32, 16)))
    assert inputs.attention.shape == (2, 5, 8, 4, 4)
    assert (inputs.attention[1, ..., 2:, :] == 0).all() and (inputs.attention[1, ..., 1:] == 0).all()
    assert_close(inputs.attention.sum((2, 3, 4)), torch.ones(2, 5))


def test_a_head_that_sees_nothing_leaves_its_share_to_the_others():
    """Its keys are far below the other's everywhere: with a softmax of its own it would still spread a whole one."""
    layer, q, k = attention_problem()
    with torch.no_grad():
        layer.q_proj.weight.zero_()
        layer.k_proj.weight.zero_()
        layer.q_proj.bias.fill_(1.0)
        layer.k_proj.bias.copy_(torch.tensor([5.0] * 4 + [-5.0] * 4))
    share = layer(q, k).sum((3, 4))
    assert (share[..., 0] > 0.999).all() and (share[..., 1] < 0.001).all()


# The convolutions


def test_the_head_step_by_step():
    """Concatenated and expanded for each query, as the paper has it."""
    torch.manual_seed(0)
    head = MaskHeadSmallConv(64 + 8, [16, 12, 8], 64)
    for parameter in head.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    x, attention = torch.randn(2, 64, 2, 3), torch.rand(2, 4, 8, 2, 3)
    fpns = [torch.randn(2, 16, 4, 5), torch.randn(2, 12, 8, 9), torch.randn(2, 8, 15, 18)]
    masks = head(x, attention, fpns)
    assert masks.shape == (2, 4, 15, 18)
    for b in range(2):
        for i in range(4):
            y = torch.cat([x[b : b + 1], attention[b, i][None]], dim=1)
            for conv, norm in zip(head.convs[:2], head.norms[:2], strict=True):
                y = norm(conv(y)).relu()
            for step in range(3):
                finer = head.adapters[step](fpns[step][b : b + 1])
                y = nn.functional.interpolate(y, size=finer.shape[-2:]) + finer
                y = head.norms[step + 2](head.convs[step + 2](y)).relu()
            assert_close(masks[b, i], head.out_conv(y)[0, 0], rtol=1e-4, atol=1e-4)


def test_every_finer_map_matters():
    model = tiny()
    outputs, inputs = model.detect(pictures((48, 64)))
    image, query = torch.tensor([0]), torch.tensor([2])
    masks = model.masks_of(inputs, image, query)
    for i in range(3):
        fpns = [m.zero_() if i == j else m for j, m in enumerate([m.detach().clone() for m in inputs.fpns])]
        changed = model.masks_of(inputs._replace(fpns=fpns), image, query)
        assert (changed - masks).abs().max() > 1e-3, f"map {i} is not read"


# The masks that are asked for


@torch.no_grad()
def test_masks_asked_for_are_those_of_all():
    model = tiny()
    images = pictures((45, 64), (33, 20), (16, 60))
    outputs = model(images)
    masks = outputs["pred_masks"]
    assert masks.std(dim=1).amax() > 0.03, "queries differ"
    image, query = torch.tensor([2, 0, 0, 2, 1]), torch.tensor([4, 1, 3, 4, 0])  # in any order, one twice
    detected, inputs = model.detect(images)
    assert "pred_masks" not in detected
    assert_close(model.masks_of(inputs, image, query), masks[image, query], rtol=1e-5, atol=1e-5)

    seen = []
    chosen = model(images, choose=lambda outputs: seen.append(outputs) or (image, query))
    assert_close(chosen["pred_masks"], masks[image, query], rtol=1e-5, atol=1e-5)
    for key in ("pred_logits", "pred_boxes"):
        assert torch.equal(chosen[key], outputs[key]) and torch.equal(seen[0][key], outputs[key])


@torch.no_grad()
def test_no_mask_at_all():
    none = torch.zeros(0, dtype=torch.int64)
    outputs = tiny()(pictures((45, 64)), choose=lambda outputs: (none, none))
    assert outputs["pred_masks"].shape == (0, 12, 16)


@torch.no_grad()
def test_queries_permute():
    model = tiny()
    images = pictures((45, 64), (33, 20))
    masks = model(images)["pred_masks"]
    order = torch.tensor([4, 2, 0, 1, 3])
    model.detr.query_embed.weight.copy_(model.detr.query_embed.weight[order])
    assert_close(model(images)["pred_masks"], masks[:, order], rtol=1e-4, atol=1e-4)
    assert (masks - masks[:, order]).abs().max() > 0.1


@torch.no_grad()
def test_a_batch_of_one_is_the_image_in_a_batch_of_many():
    model = tiny()
    images = torch.stack(pictures((48, 32), (48, 32), (48, 32)))
    together = model(images)["pred_masks"]
    for i in range(3):
        alone = model(images[i : i + 1])["pred_masks"]
        assert alone.shape == (1, 5, 12, 8)
        assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_list_tensor_and_batch_are_the_same():
    model = tiny()
    images = torch.stack(pictures((24, 32), (24, 32)))
    expected = model(images)["pred_masks"]
    for form in (list(images), as_image_batch(images)):
        assert torch.equal(model(form)["pred_masks"], expected)


def test_bf16_gives_nearly_the_same_masks():
    model = tiny()
    images = pictures((48, 64))
    exact = model(images)["pred_masks"]
    with torch.autocast("cpu", torch.bfloat16):
        low = model(images)["pred_masks"]
    assert (low.float() - exact).abs().mean() < 0.1 * exact.std()


# Frozen or joint


@pytest.mark.parametrize("mode", [True, False])
def test_a_frozen_detector_stays_in_evaluation_mode_and_gets_no_gradient(mode):
    model = tiny(freeze_detr=True, dropout=0.5)
    model.train(mode)
    assert model.training is mode and model.mask_head.training is mode
    assert not any(module.training for module in model.detr.modules())
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {
        "bbox_attention",
        "mask_head",
    }
    images = pictures((45, 64))
    outputs = model(images)
    again = model(images)
    assert torch.equal(outputs["pred_logits"], again["pred_logits"]), "no dropout"
    (outputs["pred_masks"].square().mean() + outputs["pred_logits"].mean()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("detr."), name


def test_joint_training_reaches_every_parameter_through_the_masks_alone():
    model = tiny(dropout=0.5).train()
    assert model.detr.training
    images = pictures((45, 64))
    masks = [model(images)["pred_masks"] for _ in range(2)]
    assert not torch.equal(*masks), "with dropout"
    masks[0].square().mean().backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without and all(name.startswith(("detr.class_embed", "detr.bbox_embed")) for name in without)


def test_freezing_changes_no_prediction():
    joint, frozen = tiny(), tiny(freeze_detr=True)
    images = pictures((45, 64))
    assert torch.equal(joint(images)["pred_masks"], frozen(images)["pred_masks"])


def test_a_trained_detector_is_taken_as_it_is():
    detr = tiny().detr
    model = DETRsegm(detr, freeze_detr=True)
    images = pictures((45, 64))
    assert model.detr is detr and model.config == tiny_config()
    for key, value in detr.eval()(images).items():
        if key != "aux_outputs":
            assert torch.equal(model(images)[key], value)
    assert isinstance(detr, DETR) and not hasattr(DETRsegm(by_hand(detr)), "config")


def by_hand(detr):
    return DETR(detr.backbone, detr.transformer, K, 5)


def test_recomputing_the_backbone_gives_the_same_gradients():
    images = pictures((24, 32))
    gradients = []
    for recompute in (False, True):
        model = tiny().train()
        model.detr.checkpoint_backbone = recompute
        model(images)["pred_masks"].square().mean().backward()
        gradients.append([p.grad for p in model.detr.backbone.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b, atol=1e-6, rtol=1e-4)


# Configuration


def test_a_configuration_survives_json_and_a_checkpoint(tmp_path):
    config = tiny_config(mask_stride=2)
    assert PanopticConfig(**json.loads(json.dumps(config.to_dict()))) == config
    model = tiny(mask_stride=2)
    categories = [{"label": i, "category_id": i + 1, "name": f"class {i}"} for i in range(K)]
    folder = save_checkpoint(model, tmp_path, {"categories": categories, "image_transform": {}})
    loaded = load(folder)
    assert type(loaded) is DETRsegm and loaded.config == config and not loaded.training
    images = pictures((24, 32))
    assert torch.equal(loaded(images)["pred_masks"], model(images)["pred_masks"])


# The losses


def test_focal_loss_by_hand():
    logits, targets = torch.tensor([2.0, 2.0, -1.0]), torch.tensor([1.0, 0.0, 0.0])
    p = [1 / (1 + math.exp(-x)) for x in (2.0, 2.0, -1.0)]
    expected = [
        -0.25 * (1 - p[0]) ** 2 * math.log(p[0]),
        -0.75 * p[1] ** 2 * math.log(1 - p[1]),
        -0.75 * p[2] ** 2 * math.log(1 - p[2]),
    ]
    assert_close(sigmoid_focal_loss(logits, targets), torch.tensor(expected))
    plain = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert_close(sigmoid_focal_loss(logits, targets, alpha=0.5, gamma=0.0), plain / 2)


def test_focal_loss_stays_finite():
    logits = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    loss.sum().backward()
    assert loss.isfinite().all() and logits.grad.isfinite().all()
    assert loss.tolist() == pytest.approx([0, 0, 7500, 2500])


def test_dice_loss_by_hand():
    logits = torch.tensor([[[50.0, 50.0], [-50.0, -50.0]]]).repeat(4, 1, 1)
    targets = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]]).float()
    expected = torch.tensor([1 - 5 / 5, 1 - 1 / 5, 1 - 3 / 4, 1 - 1 / 3])
    assert_close(dice_loss(logits, targets), expected, atol=1e-6, rtol=1e-6)


def outputs_with_masks(batch=2, height=6, width=8, seed=0, layers=2):
    outputs = random_outputs(layers, batch, seed=seed, requires_grad=True)
    generator = torch.Generator().manual_seed(seed + 5)
    masks = torch.randn(batch, 5, height, width, generator=generator)
    return outputs | {"pred_masks": masks.requires_grad_()}


def test_mask_losses_by_loops():
    sizes = [(24, 30), (20, 32)]
    outputs, targets = outputs_with_masks(), with_masks(random_targets([3, 2]), *sizes)
    losses = criterion()(outputs, targets)
    focal = dice = 0.0
    for i, (queries, objects) in enumerate(HungarianMatcher()(outputs, targets)):
        for q, j in zip(queries.tolist(), objects.tolist(), strict=True):
            true = torch.zeros(24, 32)
            true[: sizes[i][0], : sizes[i][1]] = targets[i]["masks"][j]
            predicted = outputs["pred_masks"][i, q][None, None]
            predicted = nn.functional.interpolate(predicted, (24, 32), mode="bilinear")[0, 0]
            focal += sigmoid_focal_loss(predicted, true).mean()
            p = predicted.sigmoid()
            dice += 1 - (2 * (p * true).sum() + 1) / (p.sum() + true.sum() + 1)
    assert_close(losses["loss_mask"], focal / 5)
    assert_close(losses["loss_dice"], dice / 5)
    assert {"loss_mask_0", "loss_dice_0"}.isdisjoint(losses) and "loss_ce_0" in losses


def test_only_matched_queries_get_a_gradient():
    outputs, targets = outputs_with_masks(), with_masks(random_targets([3, 0]), (24, 32), (24, 32))
    losses = criterion()(outputs, targets)
    (gradient,) = torch.autograd.grad(losses["loss_mask"] + losses["loss_dice"], outputs["pred_masks"])
    (queries, _), _ = HungarianMatcher()(outputs, targets)
    assert gradient.abs().sum((2, 3)).nonzero().tolist() == [[0, q] for q in queries.tolist()]


def test_matched_masks_alone_give_the_same_losses():
    outputs, targets = outputs_with_masks(), with_masks(random_targets([3, 9]), (24, 30), (20, 32))
    ours = criterion()
    expected = ours(outputs, targets)
    matched = ours.match(outputs, targets)
    image, query, target = matched.last_layer
    assert len(image) == len(query) == len(target) == 3 + 5
    losses = ours(outputs | {"pred_masks": outputs["pred_masks"][image, query]}, targets, matched=matched)
    assert losses.keys() == expected.keys()
    for key, loss in losses.items():
        assert_close(loss, expected[key])


@pytest.mark.parametrize("matched_only", [False, True])
@pytest.mark.parametrize("counts", [[0], [0, 0], [0, 2], [9, 1]], ids=str)
def test_a_step_without_objects_or_with_too_many(counts, matched_only):
    """Every parameter that is trained gets a gradient, were it zero: another process may wait for it."""
    model = tiny().train()
    sizes = [(32, 48), (48, 32)][: len(counts)]
    targets = with_masks(random_targets(counts), *sizes)
    ours = criterion()
    matched = []

    def choose(outputs):
        matched.append(ours.match(outputs, targets))
        return matched[0].last_layer[:2]

    if matched_only:
        outputs = model(pictures(*sizes), choose)
        losses = ours(outputs, targets, matched=matched[0])
    else:
        losses = ours(model(pictures(*sizes)), targets)
    assert all(loss.isfinite() for loss in losses.values())
    assert (losses["loss_mask"] > 0) == (losses["loss_dice"] > 0) == (sum(counts) > 0)
    ours.weighted_sum(losses).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_micro_batches_of_one_size_sum_to_the_joined_batch():
    outputs, targets = outputs_with_masks(3), with_masks(random_targets([3, 0, 7]), *[(24, 32)] * 3)
    ours = criterion()
    joined = ours(outputs, targets)
    cuts = [slice(0, 1), slice(1, 3)]
    normalisers = ours.normalisers([targets[cut] for cut in cuts], num_queries=5)
    keys = ("pred_logits", "pred_boxes", "pred_masks")
    parts = [ours({key: outputs[key][cut] for key in keys}, targets[cut], normalisers) for cut in cuts]
    for key in ("loss_mask", "loss_dice", "loss_bbox"):
        assert_close(sum(part[key] for part in parts), joined[key])


def test_default_weights_are_the_papers():
    assert criterion().weight_dict == dict(loss_ce=1, loss_bbox=5, loss_giou=2, loss_mask=1, loss_dice=1)
    losses = {name: torch.tensor(value) for name, value in [("loss_mask", 3.0), ("loss_dice", 4.0)]}
    assert criterion().weighted_sum(losses) == 7


def test_half_precision_masks_are_summed_in_float32():
    outputs, targets = outputs_with_masks(), with_masks(random_targets([3, 1]), (24, 30), (20, 32))
    low = criterion()(outputs | {"pred_masks": outputs["pred_masks"].bfloat16()}, targets)
    high = criterion()(outputs | {"pred_masks": outputs["pred_masks"].bfloat16().float()}, targets)
    assert low["loss_mask"].dtype == torch.float32 and torch.equal(low["loss_mask"], high["loss_mask"])


def test_masks_are_padded_at_the_right_and_at_the_bottom():
    targets = with_masks(random_targets([2, 0, 1]), (3, 5), (1, 6), (4, 2))
    padded = pad_masks(targets)
    assert padded.shape == (3, 4, 6) and padded.dtype == torch.bool
    assert torch.equal(padded[:2, :3, :5], targets[0]["masks"]) and torch.equal(
        padded[2, :4, :2], targets[2]["masks"][0]
    )
    assert padded.sum() == sum(target["masks"].sum() for target in targets)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (None, r"a tensor `masks` \(N, H, W\), got NoneType"),
        (
            torch.zeros(2, 4, 6),
            r"masks \(2, H, W\) of bool for its 2 labels, got \(2, 4, 6\) of torch.float32",
        ),
        (torch.zeros(2, 24, dtype=torch.bool), r"got \(2, 24\) of torch.bool"),
        (torch.zeros(2, 0, 6, dtype=torch.bool), r"got \(2, 0, 6\) of torch.bool"),
    ],
)
def test_masks_that_do_not_fit_are_named(masks, words):
    outputs, targets = outputs_with_masks(), with_masks(random_targets([1, 2]), (24, 32), (24, 32))
    targets[1]["masks"] = masks
    if masks is None:
        del targets[1]["masks"]
    with pytest.raises(ValueError, match=f"image 101: expected .*{words}"):
        criterion()(outputs, targets)


def test_numbers_of_masks_that_do_not_fit_are_named():
    outputs, targets = outputs_with_masks(), with_masks(random_targets([1, 2]), (24, 32), (24, 32))
    with pytest.raises(ValueError, match="masks of the 3 matched queries, got 2"):
        criterion()(outputs | {"pred_masks": torch.zeros(2, 6, 8)}, targets)
    targets[1]["masks"] = targets[1]["masks"][:1]
    with pytest.raises(ValueError, match="image 101: 2 labels, but masks of shape"):
        criterion()(outputs, targets)


def test_a_few_steps_learn_the_masks_of_one_image():
    torch.manual_seed(0)
    model = tiny(freeze_detr=True).train()
    (picture,) = pictures((32, 32))
    target = random_targets([2])[0]
    target["masks"] = torch.zeros(2, 32, 32, dtype=torch.bool)
    target["masks"][0, :16, :16] = target["masks"][1, 16:, 8:] = True
    ours = criterion(losses=("masks",))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    totals = []
    for _ in range(60):
        total = ours.weighted_sum(ours(model([picture]), [target]))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < 0.3 * totals[0]
