"""The checks on matching and loss: against the solutions, and against wrong answers written as students write them."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from minivis.boxes import cxcywh_to_xyxy, generalized_box_iou
from minivis.checks import matching
from minivis.checks.base import Check


def overlap_and_hull(a, b):
    overlap = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    return overlap, (torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])).prod()


def area(box):
    left, top, right, bottom = box.tolist()
    return (right - left) * (bottom - top)


def giou_without_clamp(a, b):
    ax0, ay0, ax1, ay1 = a.tolist()
    bx0, by0, bx1, by1 = b.tolist()
    overlap = (min(ax1, bx1) - max(ax0, bx0)) * (min(ay1, by1) - max(ay0, by0))
    union = area(a) + area(b) - overlap
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return overlap / union - (hull - union) / hull


def iou(a, b):
    overlap, _ = overlap_and_hull(a, b)
    return overlap / (area(a) + area(b) - overlap)


def giou_with_too_large_a_union(a, b):
    overlap, hull = overlap_and_hull(a, b)
    union = area(a) + area(b)
    return overlap / union - (hull - union) / hull


def giou_loss(a, b):
    overlap, hull = overlap_and_hull(a, b)
    union = area(a) + area(b) - overlap
    return 1 - overlap / union + (hull - union) / hull


def cost_of(class_part=lambda p: -p, convert=cxcywh_to_xyxy, giou_part=lambda g: -2 * g, order=1):
    def matching_cost(probability, boxes, labels, true_boxes):
        cost = torch.zeros(len(boxes), len(labels))
        for i, j in itertools.product(range(len(boxes)), range(len(labels))):
            cost[i, j] = class_part(probability[i, labels[j]])
            cost[i, j] += 5 * torch.linalg.vector_norm(boxes[i] - true_boxes[j], ord=order)
        return cost + giou_part(generalized_box_iou(convert(boxes), convert(true_boxes)))

    return matching_cost


def greedy(cost):
    cells = sorted(itertools.product(*map(range, cost.shape)), key=lambda cell: cost[cell].item())
    query_of = {}
    for query, object_ in cells:
        if object_ not in query_of and query not in query_of.values():
            query_of[object_] = query
    return [query_of[object_] for object_ in range(cost.shape[1])]


def each_its_nearest(cost):
    return [min(range(len(cost)), key=lambda query: cost[query, object_]) for object_ in range(cost.shape[1])]


def permutations_of_objects(cost):
    number = cost.shape[1]
    totals = {p: sum(cost[p[j], j] for j in range(number)) for p in itertools.permutations(range(number))}
    return min(totals, key=totals.get)


def what_scipy_returns(cost):
    queries, objects = linear_sum_assignment(cost)
    return objects


def class_loss_with(total):
    def class_loss(logits, labels, queries, objects, no_object_weight):
        log_p, loss, weights, k = logits.log_softmax(-1), 0.0, 0.0, logits.shape[1] - 1
        owner = dict(zip(queries.tolist(), objects.tolist()))
        for q in range(len(logits)):
            c = int(labels[owner[q]]) if q in owner else k
            w = no_object_weight if c == k else 1
            loss, weights = loss - w * log_p[q, c], weights + w
        return total(loss, weights, logits, labels)

    return class_loss


def labels_as_they_come(logits, labels, queries, objects, no_object_weight):
    target = torch.full((len(logits),), logits.shape[1] - 1)
    for i, query in enumerate(queries):
        target[query] = labels[i]
    weight = torch.ones(logits.shape[1])
    weight[-1] = no_object_weight
    return F.cross_entropy(logits, target, weight=weight)


def matched_one_to_one(cost, k):
    queries, objects = linear_sum_assignment(cost)
    return queries, objects


def nearest_k(cost, k):
    pairs = []
    for object_ in range(cost.shape[1]):
        pairs += [(q.item(), object_) for q in cost[:, object_].topk(k, largest=False).indices]
    pairs.sort()
    return [query for query, _ in pairs], [object_ for _, object_ in pairs]


def copies_not_folded_back(cost, k):
    return linear_sum_assignment(
        torch.cat([cost[:, j : j + 1] for j in range(cost.shape[1]) for _ in range(k)], dim=1)
    )


def folded_by_the_wrong_rule(cost, k):
    queries, columns = linear_sum_assignment(cost.repeat(1, k))
    return queries, columns // k


def round_after_round(cost, k):
    cost, pairs = cost.clone(), []
    for _ in range(k):
        for q, j in zip(*linear_sum_assignment(cost)):
            if cost[q, j] < 1e6:
                pairs.append((q, j))
        for q, _ in pairs:
            cost[q] = 1e6
    pairs.sort()
    return torch.tensor([q for q, _ in pairs]), torch.tensor([j for _, j in pairs])


@pytest.mark.parametrize(
    ("check", "answer", "help_"),
    [
        (matching.check_giou, giou_without_clamp, "is not 0 for boxes that do not touch"),
        (matching.check_giou, iou, "This is the IoU alone"),
        (matching.check_giou, giou_with_too_large_a_union, "counts the overlap twice"),
        (matching.check_giou, giou_loss, "This is the loss"),
        (matching.check_matching_cost, cost_of(class_part=lambda p: p), "You add the class probability"),
        (matching.check_matching_cost, cost_of(class_part=lambda p: -torch.log(p)), "is the cross-entropy"),
        (matching.check_matching_cost, cost_of(class_part=lambda p: 1 - p), "leave the constant out"),
        (matching.check_matching_cost, cost_of(giou_part=lambda g: 2 * (1 - g)), "leave the constant out"),
        (matching.check_matching_cost, cost_of(giou_part=lambda g: 2 * g), "You add GIoU"),
        (matching.check_matching_cost, cost_of(convert=lambda boxes: boxes), "GIoU wants corners"),
        (matching.check_matching_cost, cost_of(order=2), "Your distance is Euclidean"),
        (matching.check_matching_cost, lambda *inputs: cost_of()(*inputs).mT, "Your matrix is transposed"),
        (matching.check_best_assignment, greedy, "This is the greedy matching"),
        (matching.check_best_assignment, each_its_nearest, "two may take the same one"),
        (matching.check_best_assignment, permutations_of_objects, "the first N queries only"),
        (matching.check_best_assignment, what_scipy_returns, "for each query which object"),
        (matching.check_class_loss, class_loss_with(lambda loss, *_: loss), "This is a sum"),
        (
            matching.check_class_loss,
            class_loss_with(lambda loss, w, logits, _: loss / len(logits)),
            "number of queries",
        ),
        (
            matching.check_class_loss,
            class_loss_with(lambda loss, w, _, n: loss / len(n)),
            "number of objects",
        ),
        (matching.check_class_loss, labels_as_they_come, "`labels[objects]`"),
        (matching.check_match_k, matched_one_to_one, "This is the matching one to one"),
        (matching.check_match_k, nearest_k, "two may take the same one"),
        (matching.check_match_k, copies_not_folded_back, "since they count copies"),
        (matching.check_match_k, folded_by_the_wrong_rule, "by the wrong rule"),
        (matching.check_match_k, round_after_round, "what the first round takes"),
    ],
)
def test_a_typical_wrong_answer_gets_the_message_that_helps(check: Check, answer, help_: str):
    verdict = check.verdict(answer)
    assert verdict.status == "wrong" and help_ in verdict.message, verdict
    assert "expected" in verdict.case  # and a case that shows it


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (matching.check_matching_cost, cost_of()),
        (matching.check_class_loss, class_loss_with(lambda loss, weights, *_: loss / weights)),
        (matching.check_best_assignment, lambda cost: tuple(linear_sum_assignment(cost.T)[1].tolist())),
    ],
)
def test_other_ways_are_right_as_well(check: Check, answer):
    assert check.verdict(answer).right
