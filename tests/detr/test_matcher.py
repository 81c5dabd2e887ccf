"""The matcher: the best of all assignments, whatever the order; what is broken is named."""

import itertools

import pytest
import torch
from detr_problems import cost_by_hand, layers_of, random_outputs, random_targets
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.detr import HungarianMatcher

some = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 2**31)


def best_total(cost):
    """The least total over all ways to give each of the smaller set a partner, by trying them all."""
    if cost.shape[0] < cost.shape[1]:
        cost = cost.T
    columns = range(cost.shape[1])
    return min(
        cost[list(rows), columns].sum() for rows in itertools.permutations(range(len(cost)), len(columns))
    )


def pairs(matching):
    return [list(zip(q.tolist(), t.tolist(), strict=True)) for q, t in matching]


def stacked(layers):
    """Log-probabilities and boxes of all layers, as `match_layers` takes them."""
    logits, boxes = (torch.stack([layer[key] for layer in layers]) for key in ("pred_logits", "pred_boxes"))
    return logits.log_softmax(-1), boxes


@some
@given(seeds, st.integers(1, 5), st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_the_best_of_all_assignments(seed, queries, counts):
    outputs = random_outputs(batch=len(counts), queries=queries, seed=seed)
    targets = random_targets(counts, seed=seed)
    matching = HungarianMatcher()(outputs, targets)
    assert len(matching) == len(counts)
    for i, (query_idx, target_idx) in enumerate(matching):
        assert query_idx.dtype == target_idx.dtype == torch.int64
        assert query_idx.device.type == target_idx.device.type == "cpu"
        assert len(query_idx) == len(target_idx) == min(queries, counts[i])
        assert (query_idx.diff() > 0).all(), "query_idx rises"
        assert len(set(target_idx.tolist())) == len(target_idx), "no object twice"
        cost = cost_by_hand(outputs["pred_logits"][i], outputs["pred_boxes"][i], targets[i])
        total = cost[query_idx, target_idx].sum()
        assert total == pytest.approx(best_total(cost), abs=1e-4)


@some
@given(seeds, st.tuples(*[st.floats(0, 5)] * 3).filter(any))
def test_weights_of_the_cost(seed, weights):
    outputs, targets = random_outputs(batch=1, queries=4, seed=seed), random_targets([3], seed=seed)
    ((query_idx, target_idx),) = HungarianMatcher(*weights)(outputs, targets)
    cost = cost_by_hand(outputs["pred_logits"][0], outputs["pred_boxes"][0], targets[0], weights)
    assert cost[query_idx, target_idx].sum() == pytest.approx(best_total(cost), abs=1e-4)


def test_three_by_three_by_hand():
    boxes = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]])
    outputs = {"pred_logits": torch.zeros(1, 3, 3), "pred_boxes": boxes[None]}
    target = {"labels": torch.tensor([0, 1, 0]), "boxes": boxes[[2, 0, 1]]}
    assert pairs(HungarianMatcher()(outputs, [target])) == [[(0, 1), (1, 2), (2, 0)]]


def test_greedy_matching_would_cost_more():
    """Query 0 is the nearest to both objects; the best assignment gives it the one that no other can take."""
    box = lambda x: [x, 0.5, 0.1, 0.1]  # noqa: E731
    outputs = {
        "pred_logits": torch.zeros(1, 2, 2),
        "pred_boxes": torch.tensor([[box(0.5), box(0.3)]]),
    }
    target = {"labels": torch.tensor([0, 0]), "boxes": torch.tensor([box(0.45), box(0.6)])}
    cost = cost_by_hand(outputs["pred_logits"][0], outputs["pred_boxes"][0], target)
    assert cost[0, 0] == cost.min(), "greedy starts with query 0 and object 0"
    assert pairs(HungarianMatcher()(outputs, [target])) == [[(0, 1), (1, 0)]]


def test_the_class_cost_is_a_probability_and_decides_between_equal_boxes():
    logits = torch.tensor([[[0.0, 2.0, 0.0], [2.0, 0.0, 0.0]]])
    outputs = {"pred_logits": logits, "pred_boxes": torch.full((1, 2, 4), 0.5)}
    target = {"labels": torch.tensor([0, 1]), "boxes": torch.full((2, 4), 0.5)}
    assert pairs(HungarianMatcher()(outputs, [target])) == [[(0, 1), (1, 0)]]


def test_nine_objects_and_five_queries_give_five_pairs():
    ((query_idx, target_idx),) = HungarianMatcher()(random_outputs(batch=1), random_targets([9]))
    assert query_idx.tolist() == [0, 1, 2, 3, 4]
    assert len(target_idx.unique()) == 5


@pytest.mark.parametrize("counts", [[0], [0, 0], [0, 3], [2, 0, 7], [1]])
def test_images_without_objects(counts):
    matching = HungarianMatcher()(random_outputs(batch=len(counts)), random_targets(counts))
    assert [len(q) for q, _ in matching] == [min(count, 5) for count in counts]
    assert all(index.dtype == torch.int64 for pair in matching for index in pair)


@some
@given(seeds, st.permutations(range(6)), st.permutations(range(4)))
def test_the_order_of_queries_and_objects_does_not_matter(seed, queries, objects):
    outputs, targets = random_outputs(batch=1, queries=6, seed=seed), random_targets([4], seed=seed)
    (plain,) = pairs(HungarianMatcher()(outputs, targets))
    moved = {key: outputs[key][:, queries] for key in ("pred_logits", "pred_boxes")}
    target = {key: targets[0][key][objects] for key in ("labels", "boxes")}
    (permuted,) = pairs(HungarianMatcher()(moved, [target]))
    assert sorted((queries[q], objects[t]) for q, t in permuted) == plain


def test_images_do_not_depend_on_each_other():
    outputs, targets = random_outputs(batch=3), random_targets([4, 0, 2])
    together = pairs(HungarianMatcher()(outputs, targets))
    for i in range(3):
        alone = {key: outputs[key][i : i + 1] for key in ("pred_logits", "pred_boxes")}
        assert pairs(HungarianMatcher()(alone, targets[i : i + 1])) == together[i : i + 1]


def test_all_layers_at_once_are_the_layers_one_by_one():
    outputs, targets = random_outputs(layers=4, batch=3, queries=6), random_targets([4, 0, 8])
    layers = layers_of(outputs)
    at_once = [pairs(matching) for matching in HungarianMatcher().match_layers(*stacked(layers), targets)]
    assert at_once == [pairs(HungarianMatcher()(layer, targets)) for layer in layers]
    assert len({str(matching) for matching in at_once}) > 1, "each layer has its own"


def test_no_gradient_and_nothing_changed():
    outputs, targets = random_outputs(requires_grad=True), random_targets([2, 3])
    before = [target["boxes"].clone() for target in targets]
    matching = HungarianMatcher()(outputs, targets)
    assert not any(index.requires_grad for pair in matching for index in pair)
    assert outputs["pred_logits"].grad is None
    assert all(torch.equal(a, t["boxes"]) for a, t in zip(before, targets, strict=True))


def test_lower_precision_of_the_predictions():
    outputs, targets = random_outputs(queries=8), random_targets([2, 3])
    low = {key: outputs[key].bfloat16() for key in ("pred_logits", "pred_boxes")}
    high = {key: value.float() for key, value in low.items()}
    assert pairs(HungarianMatcher()(low, targets)) == pairs(HungarianMatcher()(high, targets))


def test_at_least_one_weight_is_needed():
    with pytest.raises(ValueError, match="all three matching weights are 0"):
        HungarianMatcher(0, 0, 0)


# What is broken is named


def test_a_broken_target_is_named_by_image_and_annotation():
    targets = random_targets([2, 3])
    targets[1]["labels"][2] = 4
    with pytest.raises(ValueError, match="image 101, annotation 1012: label 4, expected 0 to 3"):
        HungarianMatcher()(random_outputs(layers=2), targets)


def test_a_broken_target_is_blamed_before_the_predictions():
    outputs, targets = random_outputs(), random_targets([2, 3])
    outputs["pred_boxes"][0, 0, 0] = float("nan")
    targets[0]["boxes"][1, 2] = 0
    with pytest.raises(ValueError, match="image 100, annotation 1001: box"):
        HungarianMatcher()(outputs, targets)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", ["pred_logits", "pred_boxes"])
@pytest.mark.parametrize("counts", [[2, 3], [2, 0], [0, 0]], ids=str)
def test_predictions_that_are_not_finite_are_named_by_layer_and_image(key, value, counts):
    outputs, targets = random_outputs(layers=3), random_targets(counts)
    outputs["aux_outputs"][1][key][1, 4, 2] = value
    with pytest.raises(FloatingPointError, match="decoder layer 1 for image 101 are not finite"):
        HungarianMatcher().match_layers(*stacked(layers_of(outputs)), targets)


def test_an_image_without_id_is_named_by_its_place():
    outputs, targets = random_outputs(), random_targets([2, 3])
    outputs["pred_logits"][1] = float("nan")
    del targets[1]["image_id"]
    with pytest.raises(FloatingPointError, match="image at place 1 of the batch"):
        HungarianMatcher()(outputs, targets)


def test_large_logits_are_still_finite():
    outputs, targets = random_outputs(), random_targets([2, 3])
    outputs["pred_logits"] *= 1e30
    HungarianMatcher()(outputs, targets)
