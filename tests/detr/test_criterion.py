"""The losses: against plain loops, with and without objects, and the same however a step is cut into parts."""

import copy

import pytest
import torch
import torch.distributed as dist
from detr_problems import cost_by_hand, giou_by_hand, layers_of, random_outputs, random_targets, tiny_config
from scipy.optimize import linear_sum_assignment

from minivis.detr import HungarianMatcher, SetCriterion, build_detr

K, EOS = 4, 0.1
TRAINED = ("loss_ce", "loss_bbox", "loss_giou")


def criterion(**kwargs):
    arguments = dict(
        num_classes=K,
        matcher=HungarianMatcher(cost_class=1, cost_bbox=5, cost_giou=2),
        weight_dict={"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2},
        eos_coef=EOS,
        losses=["labels", "boxes", "cardinality"],
    )
    return SetCriterion(**(arguments | kwargs))


def by_loops(outputs, targets, eos=EOS):
    """All losses, one layer, image, query at a time."""
    losses = {}
    layers = layers_of(outputs)
    for number, layer in enumerate(layers):
        suffix = "" if number == len(layers) - 1 else f"_{number}"
        ce = weights = distance = giou_loss = cardinality = 0.0
        wrong = matched = 0
        for i, target in enumerate(targets):
            logits, boxes = layer["pred_logits"][i], layer["pred_boxes"][i]
            queries, objects = linear_sum_assignment(cost_by_hand(logits.detach(), boxes.detach(), target))
            object_of = dict(zip(queries.tolist(), objects.tolist(), strict=True))
            found = 0
            for q in range(len(logits)):
                label = int(target["labels"][object_of[q]]) if q in object_of else K
                weight = 1.0 if q in object_of else eos
                ce = ce - weight * (logits[q][label] - logits[q].exp().sum().log())
                weights += weight
                best = int(logits[q].argmax())
                found += best != K
                if q in object_of:
                    matched += 1
                    wrong += best != label
                    true = target["boxes"][object_of[q]].double()
                    distance = distance + sum(abs(boxes[q][n] - true[n]) for n in range(4))
                    giou_loss = giou_loss + 1 - giou_by_hand(boxes[q].unbind(), true.unbind())
            cardinality += abs(found - len(target["labels"])) / len(targets)
        true_boxes = max(1, sum(len(target["labels"]) for target in targets))
        losses["loss_ce" + suffix] = ce / weights
        losses["loss_bbox" + suffix] = distance / true_boxes
        losses["loss_giou" + suffix] = giou_loss / true_boxes
        losses["cardinality_error" + suffix] = cardinality
    losses["class_error"] = 100 * wrong / max(1, matched)
    return losses


def weighted(losses):
    weight = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    return sum(
        weight[key[: len(base)]] * v for key, v in losses.items() for base in weight if key.startswith(base)
    )


def leaves(outputs):
    return [layer[key] for layer in layers_of(outputs) for key in ("pred_logits", "pred_boxes")]


def assert_same_losses(a, b, **tolerance):
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(
            torch.as_tensor(a[key]).double(),
            torch.as_tensor(b[key]).double(),
            **(tolerance or dict(atol=1e-5, rtol=1e-5)),
            msg=lambda text, key=key: f"{key}: {text}",
        )


@pytest.mark.parametrize("counts", [[3, 1], [0, 2, 5], [0, 0], [7, 9], [1], [0]], ids=str)
@pytest.mark.parametrize("layers", [1, 3])
def test_values_and_gradients_equal_plain_loops(counts, layers):
    outputs = random_outputs(layers, len(counts), seed=sum(counts), dtype=torch.float64, requires_grad=True)
    targets = random_targets(counts, seed=layers)
    ours = criterion()
    losses, expected = ours(outputs, targets), by_loops(outputs, targets)
    assert_same_losses(losses, expected)
    assert all(loss.ndim == 0 for loss in losses.values())

    total, expected_total = ours.weighted_sum(losses), weighted(expected)
    torch.testing.assert_close(total.double(), expected_total, atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad(total, leaves(outputs))
    expected_gradients = torch.autograd.grad(expected_total, leaves(outputs), materialize_grads=True)
    for a, b in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("eos", [0, 0.1, 1])
def test_class_loss_is_pytorchs_weighted_mean(eos):
    outputs, targets = random_outputs(batch=2), random_targets([3, 1])
    classes = torch.full((2, 5), K)
    for i, (queries, objects) in enumerate(HungarianMatcher()(outputs, targets)):
        classes[i, queries] = targets[i]["labels"][objects]
    weight = torch.tensor([1.0] * K + [eos])
    expected = torch.nn.functional.cross_entropy(outputs["pred_logits"].transpose(1, 2), classes, weight)
    torch.testing.assert_close(criterion(eos_coef=eos)(outputs, targets)["loss_ce"], expected)


def test_perfect_predictions():
    (target,) = random_targets([5])
    logits = 50 * torch.nn.functional.one_hot(target["labels"], K + 1).float()
    losses = criterion()({"pred_logits": logits[None], "pred_boxes": target["boxes"][None]}, [target])
    assert {key: pytest.approx(0, abs=1e-6) for key in losses} == {k: float(v) for k, v in losses.items()}


@pytest.mark.parametrize("counts", [[0], [0, 0]], ids=str)
def test_without_objects_all_queries_learn_to_say_no_object(counts):
    outputs = random_outputs(2, len(counts), requires_grad=True)
    losses = criterion()(outputs, random_targets(counts))
    for suffix in ("", "_0"):
        assert losses["loss_bbox" + suffix] == losses["loss_giou" + suffix] == 0
        assert losses["loss_ce" + suffix] > 0
    assert losses["class_error"] == 0
    logits, boxes = torch.autograd.grad(
        criterion().weighted_sum(losses), [outputs["pred_logits"], outputs["pred_boxes"]]
    )
    assert (logits[..., K] < 0).all(), "raising the last logit lowers the loss"
    assert (boxes == 0).all()
    assert criterion(eos_coef=0)(outputs, random_targets(counts))["loss_ce"] == 0


def test_unmatched_boxes_get_no_gradient():
    outputs, targets = random_outputs(batch=1, requires_grad=True), random_targets([2])
    losses = criterion()(outputs, targets)
    (gradient,) = torch.autograd.grad(losses["loss_bbox"] + losses["loss_giou"], outputs["pred_boxes"])
    ((queries, _),) = HungarianMatcher()(outputs, targets)
    assert gradient[0].abs().sum(-1).nonzero()[:, 0].tolist() == queries.tolist()


def test_each_layer_has_its_own_matching():
    outputs, targets = random_outputs(3, 2), random_targets([3, 2])
    losses = criterion()(outputs, targets)
    for i, layer in enumerate(outputs["aux_outputs"]):
        alone = criterion()(layer, targets)
        for key in ("loss_ce", "loss_bbox", "loss_giou", "cardinality_error"):
            torch.testing.assert_close(losses[f"{key}_{i}"], alone[key])
    assert "class_error_0" not in losses, "the class error is that of the last layer"


def test_outputs_without_auxiliary_layers():
    outputs = random_outputs()
    del outputs["aux_outputs"]
    losses = criterion()(outputs, random_targets([3, 1]))
    assert set(losses) == {*TRAINED, "class_error", "cardinality_error"}


def test_the_order_of_queries_objects_and_images_does_not_matter():
    outputs, targets = random_outputs(2, 3, queries=6), random_targets([4, 0, 2])
    expected = criterion()(outputs, targets)
    queries, images = torch.tensor([3, 5, 0, 2, 1, 4]), [2, 0, 1]
    moved_layers = [
        {key: layer[key][images][:, queries] for key in ("pred_logits", "pred_boxes")}
        for layer in layers_of(outputs)
    ]
    moved_targets = [{key: targets[i][key].flip(0) for key in ("labels", "boxes")} for i in images]
    moved = {**moved_layers[-1], "aux_outputs": moved_layers[:-1]}
    assert_same_losses(criterion()(moved, moved_targets), expected)


# A step in parts


def part(outputs, images):
    layers = [
        {key: layer[key][images] for key in ("pred_logits", "pred_boxes")} for layer in layers_of(outputs)
    ]
    return {**layers[-1], "aux_outputs": layers[:-1]}


@pytest.mark.parametrize("counts", [[3, 1, 0, 6], [0, 0, 2, 2], [0, 0, 0, 0]], ids=str)
def test_micro_batches_sum_to_the_joined_batch(counts):
    outputs, targets = random_outputs(2, 4, requires_grad=True), random_targets(counts)
    ours = criterion()
    joined = ours(outputs, targets)
    cuts = [slice(0, 1), slice(1, 4)]  # of different size
    normalisers = ours.normalisers([targets[cut] for cut in cuts], num_queries=5)
    parts = [ours(part(outputs, cut), targets[cut], normalisers) for cut in cuts]
    for key in joined:
        if key.startswith("loss"):
            torch.testing.assert_close(sum(p[key] for p in parts), joined[key], atol=1e-6, rtol=1e-5)

    expected = torch.autograd.grad(ours.weighted_sum(joined), leaves(outputs))
    gradients = torch.autograd.grad(sum(ours.weighted_sum(p) for p in parts), leaves(outputs))
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_without_shared_normalisers_the_parts_would_not():
    outputs, targets = random_outputs(1, 2), random_targets([4, 1])
    parts = [criterion()(part(outputs, slice(i, i + 1)), targets[i : i + 1])["loss_bbox"] for i in range(2)]
    assert abs(sum(parts) / 2 - criterion()(outputs, targets)["loss_bbox"]) > 1e-3


def test_normalisers_by_hand():
    ours = criterion()
    boxes, class_weights = ours.normalisers([random_targets([3, 9]), random_targets([0])], num_queries=5)
    assert boxes == 12
    assert class_weights == pytest.approx((3 + 2 * EOS) + 5 + 5 * EOS)
    assert ours.normalisers([random_targets([0])], num_queries=5).boxes == 1


@pytest.mark.parametrize("counts", [[3, 1, 0, 6], [0, 1, 0, 0], [0, 0, 0, 0]], ids=str)
def test_the_mean_over_processes_is_the_joined_batch(counts, monkeypatch):
    """Two processes are played one after the other: the reduction adds what the other one would send."""
    outputs, targets = random_outputs(2, 4), random_targets(counts)
    ours = criterion()
    joined = ours(outputs, targets)
    halves = [slice(0, 1), slice(1, 4)]
    alone = [ours.normalisers([targets[half]], 5) for half in halves]
    raw = [(sum(counts[half]), float(n.class_weights)) for half, n in zip(halves, alone, strict=True)]

    losses = []
    for rank, half in enumerate(halves):
        other = torch.tensor(raw[1 - rank])
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        monkeypatch.setattr(dist, "all_reduce", lambda total, other=other: total.add_(other))
        losses.append(ours(part(outputs, half), targets[half]))
    for key in joined:
        if key.startswith("loss"):
            mean = (losses[0][key] + losses[1][key]) / 2
            torch.testing.assert_close(mean, joined[key], atol=1e-5, rtol=1e-5)


# Weights and names


def test_weighted_sum_counts_each_layer_like_the_last_unless_it_is_named():
    ours = criterion(weight_dict={"loss_ce": 1, "loss_bbox": 5, "loss_bbox_1": 7})
    losses = {
        name: torch.tensor(value)
        for name, value in [
            ("loss_ce", 1.0), ("loss_ce_0", 10.0), ("loss_ce_12", 100.0), ("loss_bbox", 2.0), ("loss_bbox_1", 3.0),
            ("class_error", 1e6), ("cardinality_error_0", 1e6),
        ]
    }  # fmt: skip
    assert ours.weighted_sum(losses) == 1 + 10 + 100 + 5 * 2 + 7 * 3


def test_a_sum_of_nothing_is_an_error():
    ours = criterion(weight_dict={"loss_box": 5})
    with pytest.raises(ValueError, match="weights for loss_box, and none for any of loss_ce, class_error"):
        ours.weighted_sum({"loss_ce": torch.tensor(1.0), "class_error": torch.tensor(0.0)})


def test_default_weights_are_the_papers():
    ours = SetCriterion(K, HungarianMatcher())
    assert ours.weight_dict == {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    assert ours.eos_coef == 0.1
    assert ours.class_weight.tolist() == pytest.approx([1] * K + [0.1])


def test_only_the_losses_asked_for():
    outputs, targets = random_outputs(2), random_targets([3, 1])
    assert set(criterion(losses=["boxes"])(outputs, targets)) == {
        "loss_bbox", "loss_bbox_0", "loss_giou", "loss_giou_0"
    }  # fmt: skip
    assert set(criterion(losses=["cardinality"])(outputs, targets)) == {
        "cardinality_error",
        "cardinality_error_0",
    }


def test_readings_have_no_gradient():
    losses = criterion()(random_outputs(2, requires_grad=True), random_targets([3, 1]))
    for key, value in losses.items():
        assert value.requires_grad == key.startswith("loss"), key


def test_an_unknown_loss_is_named():
    with pytest.raises(ValueError, match="labels, boxes, cardinality.*; got boxs"):
        criterion(losses=["labels", "boxs"])


def test_numbers_that_do_not_fit_are_named():
    outputs, targets = random_outputs(batch=2), random_targets([1, 2])
    with pytest.raises(ValueError, match="2 images were predicted, but there are 1 targets"):
        criterion()(outputs, targets[:1])
    with pytest.raises(ValueError, match=r"expected 7 class logits \(6 classes and no object\), got 5"):
        criterion(num_classes=6)(outputs, targets)


def test_broken_targets_and_predictions_are_named_through_the_criterion():
    outputs, targets = random_outputs(2), random_targets([1, 2])
    outputs["pred_boxes"][1, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="decoder layer 1 for image 101"):
        criterion()(outputs, targets)
    targets[1]["boxes"][0, 2] = 0
    with pytest.raises(ValueError, match="image 101, annotation 1010"):
        criterion()(outputs, targets)


def test_half_precision_predictions_are_summed_in_float32():
    outputs, targets = random_outputs(2), random_targets([3, 1])
    low = [{k: layer[k].bfloat16() for k in ("pred_logits", "pred_boxes")} for layer in layers_of(outputs)]
    high = [{k: v.float() for k, v in layer.items()} for layer in low]
    losses = criterion()({**low[-1], "aux_outputs": low[:-1]}, targets)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert_same_losses(losses, criterion()({**high[-1], "aux_outputs": high[:-1]}, targets), atol=0, rtol=0)


def test_a_copy_is_a_criterion_of_its_own():
    ours = criterion()
    other = copy.deepcopy(ours)
    other.eos_coef = 1.0
    other.class_weight[-1] = 1.0
    outputs, targets = random_outputs(2), random_targets([3, 1])
    assert_same_losses(other(outputs, targets), criterion(eos_coef=1)(outputs, targets))
    assert_same_losses(ours(outputs, targets), criterion()(outputs, targets))


def test_a_few_steps_learn_one_image():
    torch.manual_seed(0)
    model = build_detr(tiny_config(backbone_channels=(16, 16), d_model=32, decoder_layers=2))
    image, targets = torch.randn(1, 3, 32, 32), random_targets([3])
    optimiser, ours = torch.optim.AdamW(model.parameters(), lr=2e-3), criterion()
    history = []
    for _ in range(60):
        losses = ours(model(image), targets)
        total = ours.weighted_sum(losses)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        history.append(total.item())
    assert history[-1] < 0.35 * history[0]
    assert losses["class_error"] == 0
