"""Other matchings than the best one, and what they cost."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.optimize import linear_sum_assignment

from minivis.data.scenes import Scenes
from minivis.detr import HungarianMatcher, SetCriterion, build_detr
from minivis.evaluation.detection import evaluate_detection
from minivis.experiments import matching
from minivis.experiments.small_detr import CONFIG, WORLD

costs = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7),
    elements=st.floats(-10, 10, width=32),
)


@given(costs)
def test_greedy_never_costs_less_than_the_optimum(cost):
    rows, columns = matching.greedy_assignment(cost)
    assert len(rows) == min(cost.shape)
    assert len(set(rows)) == len(set(columns)) == len(rows), "one to one"
    assert (np.diff(rows) > 0).all()
    assert cost[rows, columns].sum() >= cost[linear_sum_assignment(cost)].sum() - 1e-9
    assert cost[rows, columns].min() == cost.min(), "the cheapest pair of all is always taken"


def test_greedy_can_be_as_bad_as_one_likes():
    cost = np.array([[0.0, 1.0], [2.0, 100.0]])
    rows, columns = matching.greedy_assignment(cost)
    assert cost[rows, columns].sum() == 100
    assert cost[linear_sum_assignment(cost)].sum() == 3
    assert cost[0, 0] == 0 and cost[1, 1] == 100, "what was given is left alone"
    assert [len(side) for side in matching.greedy_assignment(np.empty((4, 0)))] == [0, 0]
    with pytest.raises(ValueError, match="finite costs, got nan"):
        matching.greedy_assignment(np.array([[0.0, np.nan]]))


def problem(seed=0, queries=5, counts=(3, 1, 0), classes=2):
    """Random predictions and targets."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(n):
        size = 0.1 + 0.3 * torch.rand(n, 2, generator=generator)
        return torch.cat([size / 2 + (1 - size) * torch.rand(n, 2, generator=generator), size], dim=1)

    outputs = {
        "pred_logits": 2 * torch.randn(len(counts), queries, classes + 1, generator=generator),
        "pred_boxes": torch.stack([boxes(queries) for _ in counts]),
    }
    targets = [
        {"labels": torch.randint(classes, (n,), generator=generator), "boxes": boxes(n)} for n in counts
    ]
    return outputs, targets


@pytest.mark.parametrize("counts", [(3, 1, 0), (7, 2)])
def test_the_greedy_matcher_matches_each_image_one_to_one(counts):
    outputs, targets = problem(counts=counts)
    found, best = matching.GreedyMatcher()(outputs, targets), HungarianMatcher()(outputs, targets)
    for count, (queries, objects), pair in zip(counts, found, best):
        assert len(set(queries.tolist())) == len(set(objects.tolist())) == min(5, count)
        if count < 2:
            assert torch.equal(queries, pair[0]), "for one object, the best query is the nearest"


def test_list_order_matches_by_place():
    outputs, targets = problem(counts=(3, 7))
    found = matching.ListOrderMatcher()(outputs, targets)
    assert [[side.tolist() for side in pair] for pair in found] == [[[0, 1, 2]] * 2, [[0, 1, 2, 3, 4]] * 2]


def test_the_class_part_can_be_cross_entropy():
    outputs, targets = problem(counts=(3,))
    log_p = outputs["pred_logits"].log_softmax(-1)
    arguments = (
        log_p[None],
        outputs["pred_boxes"][None],
        matching.pad_targets(targets, 2, torch.device("cpu")),
    )
    boxes_only = HungarianMatcher(0, 5, 2).cost(*arguments)
    expected = boxes_only - 3 * log_p[:, :, targets[0]["labels"]]
    assert torch.allclose(matching.CrossEntropyMatcher(3, 5, 2).cost(*arguments), expected, atol=1e-5)


def test_the_objects_whose_query_changes_are_counted():
    def pairs(**queries_of):
        objects = [int(name[1:]) for name in queries_of]
        return torch.tensor(list(queries_of.values()), dtype=torch.int64), torch.tensor(
            objects, dtype=torch.int64
        )

    one = [pairs(o0=4, o1=2), pairs(), pairs(o0=1)]
    other = [pairs(o1=2, o0=3), pairs(), pairs(o5=1)]
    assert matching.changed_objects(one, other).tolist() == [1, 0, 2]
    assert matching.changed_objects(one, one).tolist() == [0, 0, 0]


weights = st.fixed_dictionaries({name: st.floats(0, 5) for name in ("loss_ce", "loss_bbox", "loss_giou")})


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), weights, st.floats(0.05, 1), st.sampled_from([(2, 3), (3, 3), (4, 2), (5, 1)]))
def test_no_matching_at_all_has_less_than_the_least_loss(seed, weight, no_object, sizes):
    queries, count = sizes
    criterion = SetCriterion(2, HungarianMatcher(), weight, no_object)
    outputs, targets = problem(seed, queries, (count,))
    best = matching.least_loss_matching(criterion, outputs, targets)
    few, many = sorted(sizes)
    every = []
    for chosen in permutations(range(many), few):
        pair = torch.arange(few), torch.tensor(chosen)
        pair = pair if queries == few else pair[::-1]
        every.append(matching.loss_under([pair], criterion, outputs, targets))
    assert matching.loss_under(best, criterion, outputs, targets) == pytest.approx(min(every), abs=1e-4)


def test_the_loss_under_the_criterions_own_matching_is_its_loss():
    outputs, targets = problem()
    criterion = SetCriterion(2, HungarianMatcher())
    own = matching.loss_under(criterion.matcher(outputs, targets), criterion, outputs, targets)
    assert own == pytest.approx(float(criterion.weighted_sum(criterion(outputs, targets))), abs=1e-6)
    assert isinstance(criterion.matcher, HungarianMatcher), "the criterion keeps its own"


def test_the_matching_of_least_cost_is_not_the_one_of_least_loss():
    """The class cost −p says little about −log p where p is small: a claim of the document, corrected."""
    criterion = SetCriterion(2, HungarianMatcher())
    outputs, targets = problem(counts=(3,) * 20)
    own, least = (
        criterion.matcher(outputs, targets),
        matching.least_loss_matching(criterion, outputs, targets),
    )
    changed = matching.changed_objects(own, least)
    assert 0 < (changed > 0).sum() < 20
    for i in range(20):
        image = {key: value[i : i + 1] for key, value in outputs.items()}
        losses = [matching.loss_under([m[i]], criterion, image, targets[i : i + 1]) for m in (own, least)]
        assert losses[1] <= losses[0] + 1e-5
        assert (losses[1] < losses[0] - 1e-5) == bool(changed[i])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_detr(CONFIG).eval()


def test_average_precision_of_joined_predictions_is_that_of_the_evaluation(model):
    data = Scenes("val", WORLD, size=12)
    outputs, targets = matching.predict(model, data, batch_size=5)
    assert outputs["pred_logits"].shape == (12, 10, 4)
    expected = evaluate_detection(model, data, progress=False)
    found = matching.average_precision(outputs, targets, data)
    assert expected.pop("by_class") == pytest.approx(found.pop("by_class"))
    assert {key: expected[key] for key in found} == pytest.approx(found, nan_ok=True)
    few, of_few = matching.predict(model, data, max_images=3)
    assert torch.allclose(few["pred_boxes"], outputs["pred_boxes"][:3], atol=1e-5)
    assert len(of_few) == 3
    matching.average_precision(few, of_few, data)  # the truth of the other nine is left out


def test_what_is_surest_of_no_object_can_be_dropped():
    data = Scenes("val", WORLD, size=4)
    targets = data.prepare(data.collate([data[i] for i in range(4)])).targets
    logits, boxes = torch.full((4, 3, 4), -9.0), torch.full((4, 3, 4), 0.5)
    for i, target in enumerate(targets):  # right, but surer of no object
        count = min(3, len(target["labels"]))
        boxes[i, :count] = target["boxes"][:count]
        logits[i, range(count), target["labels"][:count]] = 1.0
    logits[..., -1] = 2.0
    outputs = {"pred_logits": logits, "pred_boxes": boxes}
    assert matching.average_precision(outputs, targets, data)["AP"] == pytest.approx(1)
    assert matching.average_precision(outputs, targets, data, drop_no_object=True)["AP"] == 0
