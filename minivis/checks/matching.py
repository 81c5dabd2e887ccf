"""Exercises on Hungarian matching and DETR's loss: GIoU, matching cost, best assignment, class loss, duplicates.

Mistakes are variants of a solution that can be bent: `partial(_giou, counted=0)` forgets to take away the overlap.
"""

# Below, a mistake stands on one line, and the message that then helps under it: no formatter knows this form.
# fmt: off

from functools import partial
from itertools import permutations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minivis.boxes import box_iou, cxcywh_to_xyxy, generalized_box_iou, paired_generalized_box_iou
from minivis.checks.base import Check


def _same(value):
    return value


def _random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# 1. How far two boxes agree


def _giou(a, b, side=lambda length: length.clamp(min=0), area=_same, counted=1, missing="union", share_of="hull"):
    width, height = torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])
    overlap = area(side(width) * side(height))
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - counted * overlap
    hull = (torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])).prod()
    areas = {"overlap": overlap, "union": union, "hull": hull}
    return overlap / union - (hull - areas[missing]) / areas[share_of]


check_giou = Check(
    "giou",
    solution=paired_generalized_box_iou,
    cases=[
        {"a": torch.tensor(a), "b": torch.tensor(b)}
        for a, b in [
            ([0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0]),  # they overlap,
            ([0.0, 0.0, 1.0, 2.0], [3.0, 1.0, 4.0, 2.0]),  # lie side by side,
            ([0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]),  # or corner to corner,
            ([0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 2.0, 3.0]),  # one in the other,
            ([0.1, 0.2, 0.5, 0.8], [0.1, 0.2, 0.5, 0.8]),  # one upon the other
        ]
    ],
    mistakes={
        lambda a, b: box_iou(a[None], b[None])[0, 0]:
            "This is the IoU alone: 0 for all boxes that do not touch, however far apart. Subtract "
            "the share of the hull that neither box covers.",
        partial(_giou, side=_same):
            "Your overlap is not 0 for boxes that do not touch, because its width or its height is "
            "negative: clamp both at 0 before you multiply them.",
        partial(_giou, side=_same, area=lambda area: area.clamp(min=0)):
            "You clamp the overlap after multiplying, and two negative sides have a positive product: "
            "clamp width and height, each by itself, before.",
        partial(_giou, counted=0):
            "Your union counts the overlap twice: both areas hold it, so take it away once.",
        partial(_giou, share_of="union"):
            "The empty part of the hull is wanted as a share of the hull: divide it by the hull's "
            "area, not by the union's.",
        partial(_giou, missing="overlap"):
            "The empty part is the hull without the union, not without the overlap.",
        lambda a, b: 1 - _giou(a, b):
            "This is the loss, 1 − GIoU. Return GIoU itself, which is 1 for equal boxes.",
        lambda a, b: _giou(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)):
            "These boxes are corners already, (left, top, right, bottom): do not convert them.",
    },
    why="For boxes apart, GIoU still falls with their distance, so it says where to go; IoU is 0 "
    "there, and so is its gradient.",
)


# 2. What every query would cost for every object


def _l1(a, b):
    return (a[:, None] - b[None]).abs().sum(-1)


def _giou_of_centres(a, b):
    return generalized_box_iou(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b))


def _matching_cost(
    probability, boxes, labels, true_boxes, of_class=lambda p: -p, far=_l1, near=_giou_of_centres, weights=(1, 5, 2)
):
    parts = of_class(probability[:, labels]), far(boxes, true_boxes), -near(boxes, true_boxes)
    return sum(weight * part for weight, part in zip(weights, parts))


def _one_class_each(probability, boxes, labels, true_boxes):
    return _matching_cost(
        probability, boxes, labels, true_boxes, of_class=lambda _: -probability[range(len(labels)), labels]
    )


def _shifted(*inputs, by):
    return _matching_cost(*inputs) + by


SHIFTED = (
    "Every cell of yours is too high by the same number: you take 1 − p for −p, or 1 − GIoU for "
    "−GIoU. The matching is the same, since each assignment costs the same amount more; leave the "
    "constant out, as the package does."
)

check_matching_cost = Check(
    "matching_cost",
    solution=_matching_cost,
    cases=[
        {
            "probability": torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6]]),
            "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.2, 0.3, 0.2, 0.2]]),
            "labels": torch.tensor([1]),
            "true_boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4]]),
        },
        {
            "probability": _random(5, 4, seed=0).softmax(-1),
            "boxes": _random(5, 4, seed=1) * 0.5 + 0.1,
            "labels": torch.tensor([2, 0, 2]),
            "true_boxes": _random(3, 4, seed=2) * 0.5 + 0.1,
        },
    ],
    mistakes={
        partial(_matching_cost, of_class=lambda p: p):
            "You add the class probability, so a query costs more if it is sure of the right class: "
            "subtract it.",
        partial(_matching_cost, of_class=lambda p: -p.log()):
            "Your class part is the cross-entropy, −log p. The matching takes −p, which stays between "
            "−1 and 0 and so is of the size of the other parts; −log p has no bound.",
        **{partial(_shifted, by=by): SHIFTED for by in (1, 2, 3)},
        lambda p, boxes, labels, *true: _matching_cost(p, boxes, torch.arange(len(labels)), *true):
            "Your class part takes the columns 0, 1, 2, ... of `probability`. Take each object's "
            "class: index with `labels`.",
        lambda p, *others: _matching_cost(p.softmax(-1), *others):
            "`probability` comes after the softmax; yours is done twice.",
        _one_class_each:
            "`probability[range(N), labels]` picks one number for each object and adds it to all queries. "
            "Each query has its own: `probability[:, labels]`.",
        partial(_matching_cost, far=lambda a, b: _l1(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b))):
            "Your L1 compares corners. DETR's compares (cx, cy, w, h), as the model gives them; only "
            "GIoU wants corners.",
        partial(_matching_cost, far=lambda a, b: _l1(a, b) / 4):
            "You average over the four numbers of a box; L1 is a sum.",
        partial(_matching_cost, far=torch.cdist):
            "Your distance is Euclidean; L1 sums absolute differences, without squares and root.",
        partial(_matching_cost, near=lambda a, b: -_giou_of_centres(a, b)):
            "You add GIoU, so a box costs more if it fits better: subtract it.",
        partial(_matching_cost, near=generalized_box_iou):
            "GIoU wants corners, and got (cx, cy, w, h): convert both sides with `cxcywh_to_xyxy` "
            "first.",
        partial(_matching_cost, near=lambda a, b: box_iou(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b))):
            "This is IoU, which is 0 for all boxes that do not touch: use `generalized_box_iou`.",
        partial(_matching_cost, weights=(1, 1, 1)):
            "Your three parts count alike; DETR's weights are 1 for the class, 5 for L1 and 2 for "
            "GIoU.",
        lambda *inputs: _matching_cost(*inputs).T:
            "Your matrix is transposed: a row for each query, a column for each object.",
    },
    why="This matrix is all that the matching sees. No gradient passes through it, so its parts need "
    "not be those of the loss.",
)


# 3. The best assignment


def _cheapest(cost, queries, choose=min):
    """Of all assignments that use the first so many queries."""
    assignments = permutations(range(queries), cost.shape[1])
    return choose(assignments, key=lambda query_of: sum(cost[q, j].item() for j, q in enumerate(query_of)))


def _greedy(cost):
    """The cheapest cell of all, then the cheapest of what is left, and so on."""
    cost, query_of = cost.clone(), [0] * cost.shape[1]
    for _ in query_of:
        query, object_ = divmod(cost.argmin().item(), cost.shape[1])
        query_of[object_] = query
        cost[query], cost[:, object_] = torch.inf, torch.inf
    return query_of


def _one_after_the_other(cost):
    """The first object takes its cheapest query, the second the cheapest of those left, and so on."""
    cost, query_of = cost.clone(), []
    for object_ in range(cost.shape[1]):
        query_of.append(cost[:, object_].argmin().item())
        cost[query_of[-1]] = torch.inf
    return query_of


check_best_assignment = Check(
    "best_assignment",
    solution=lambda cost: linear_sum_assignment(cost.T)[1],
    cases=[
        {"cost": torch.tensor([[1.0, 2.0], [2.0, 9.0]])},
        {"cost": torch.tensor([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])},
        {"cost": _random(4, 4, seed=3)},
        {"cost": _random(6, 4, seed=5)},
        {"cost": _random(5, 1, seed=6)},
    ],
    mistakes={
        _greedy:
            "This is the greedy matching: it takes the cheapest cell first, whatever that leaves for "
            "the others. Compare the sums of whole assignments.",
        _one_after_the_other:
            "Your objects choose one after the other, so the last gets what is left. Compare the sums "
            "of whole assignments.",
        lambda cost: cost.argmin(0):
            "Each object takes its cheapest query, and two may take the same one. A query belongs to "
            "one object at most.",
        lambda cost: _cheapest(cost, queries=cost.shape[1]):
            "You try the first N queries only. Where there are more, any may be used: "
            "`permutations(range(Q), N)`.",
        lambda cost: _cheapest(cost, queries=cost.shape[0], choose=max):
            "This is the most expensive assignment: take the minimum.",
        lambda cost: linear_sum_assignment(cost)[1]:
            "You say for each query which object it gets. Say for each object which query gets it.",
        lambda cost: linear_sum_assignment(cost)[0]:
            "These are SciPy's rows, the queries that are used, in rising order. Which object each has "
            "stands in its columns: say for each object which query gets it.",
        lambda cost: cost.numpy()[linear_sum_assignment(cost)].sum():
            "This is what the best assignment costs. Return the assignment: for each object the "
            "number of its query.",
    },
    why="For 8 objects and 25 queries there are 25·24·...·18, about 44 billion, sums to compare; the "
    "Hungarian method needs some thousand steps.",
)


# 4. The class loss


def _class_loss(
    logits, labels, queries, objects, no_object_weight, divisor=lambda w, _: w.sum(), in_order=False, light=-1,
    nothing=-1,
):
    target = torch.full(logits.shape[:1], nothing % logits.shape[1])
    target[queries] = labels if in_order else labels[objects]
    weight = torch.ones(logits.shape[1])
    weight[light] = no_object_weight
    each = F.cross_entropy(logits, target, weight, reduction="none")
    return each.sum() / divisor(weight[target], labels)


check_class_loss = Check(
    "class_loss",
    solution=_class_loss,
    cases=[
        {
            "logits": torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
            "labels": torch.tensor([0, 1]),
            "queries": torch.tensor([0, 2]),
            "objects": torch.tensor([1, 0]),
            "no_object_weight": 0.1,
        },
        {
            "logits": 4 * _random(8, 5, seed=7),
            "labels": torch.tensor([3, 1, 2]),
            "queries": torch.tensor([1, 4, 6]),
            "objects": torch.tensor([2, 0, 1]),
            "no_object_weight": 0.2,
        },
    ],
    mistakes={
        partial(_class_loss, divisor=lambda w, _: len(w)):
            "You divide by the number of queries. Divide by the sum of their weights, or the loss "
            "shrinks with every query that has nothing to find.",
        partial(_class_loss, divisor=lambda _, labels: len(labels)):
            "You divide by the number of objects, as the box losses do. The class loss is a weighted "
            "mean over all queries: divide by the sum of their weights.",
        partial(_class_loss, divisor=lambda *_: 1):
            "This is a sum, which grows with the number of queries. Divide it by the sum of their "
            "weights.",
        lambda *inputs: _class_loss(*inputs[:-1], no_object_weight=1.0):
            'Your queries all count alike. Weigh those that should say "no object" with '
            '`no_object_weight`.',
        partial(_class_loss, in_order=True):
            "You give the labels to the matched queries in their order. Each should get that of its "
            "own object: `labels[objects]`.",
        partial(_class_loss, light=0):
            'Your small weight is that of class 0. "No object" is the last class, number K.',
        partial(_class_loss, nothing=0):
            'Queries that own nothing should say "no object", which is class K, the last column; yours '
            'learn class 0.',
        partial(_class_loss, nothing=0, light=0):
            'You take class 0 for "no object". It is class K, the last column of the logits.',
        lambda logits, labels, queries, objects, _: F.cross_entropy(logits[queries], labels[objects]):
            'Your loss has the matched queries only, so nothing teaches the others to say "no '
            'object".',
        lambda logits, *others: _class_loss(logits.softmax(-1), *others):
            "`F.cross_entropy` takes logits and does the softmax itself; yours is done twice.",
    },
    why='With 25 queries and 4 objects, 21 should say "no object": at weight 0.1 they count 2.1 '
    'against 4, at weight 1 it would be 21 against 4.',
)


# 5. Several queries for each object


def _match_k(
    cost, k, copies=lambda cost, k: cost.repeat_interleave(k, dim=1), object_of=lambda copy, k, objects: copy // k
):
    queries, copy = linear_sum_assignment(copies(cost, k))
    return torch.as_tensor(queries), object_of(torch.as_tensor(copy), k, cost.shape[1])


def _sorted(pairs):
    queries, objects = torch.tensor(sorted(pairs)).unbind(1)
    return queries, objects


def _k_cheapest(cost, k):
    return _sorted([(q, j) for j, column in enumerate(cost.T) for q in column.argsort()[:k].tolist()])


def _k_cheapest_by_object(cost, k):
    k = min(k, len(cost))
    return cost.argsort(0)[:k].T.flatten(), torch.arange(cost.shape[1]).repeat_interleave(k)


def _in_rounds(cost, k):
    """Matched one to one; then, without those queries, again."""
    pairs, left = [], list(range(len(cost)))
    for _ in range(k):
        pairs += [(left[q], j) for q, j in zip(*linear_sum_assignment(cost[left]))]
        left = [q for q in left if q not in dict(pairs)]
    return _sorted(pairs)


def _several_objects_for_a_query(cost, k):
    copies, objects = linear_sum_assignment(cost.repeat_interleave(k, dim=0))
    return torch.as_tensor(copies // k), torch.as_tensor(objects)


def _by_object(cost, k):
    queries, objects = _match_k(cost, k)
    order = objects.argsort(stable=True)
    return queries[order], objects[order]


WRONG_RULE = (
    "You turn copies into objects by the wrong rule. It is `copy // k` after `repeat_interleave(k, dim=1)`, "
    "and `copy % N` after `repeat(1, k)`."
)

check_match_k = Check(
    "match_k",
    solution=_match_k,
    cases=[
        {"cost": torch.tensor([[1.0], [3.0], [2.0]]), "k": 2},
        {"cost": torch.tensor([[1.0, 2.0], [2.0, 2.5], [9.0, 3.0], [5.0, 9.0], [7.0, 7.0]]), "k": 2},
        {"cost": _random(9, 3, seed=9), "k": 2},
        {"cost": _random(9, 2, seed=10), "k": 3},
        {"cost": _random(5, 3, seed=11), "k": 2},
    ],
    mistakes={
        lambda cost, k: _match_k(cost, 1):
            "This is the matching one to one; each object should get k queries.",
        _k_cheapest:
            "Each object takes its k cheapest queries, and two may take the same one. Let one solver "
            "decide for all, with k copies of each column.",
        _k_cheapest_by_object:
            "Each object takes its k cheapest queries; two may take the same one, and a query stands "
            "there twice. Let one solver decide for all, with k copies of each column.",
        _in_rounds:
            "You match one to one, take those queries away and match again; what the first round "
            "takes, the second lacks. Let one solver decide at once, with k copies of each column.",
        _several_objects_for_a_query:
            "You copy the queries, so one query gets several objects. Copy the objects' columns "
            "instead.",
        partial(_match_k, object_of=lambda copy, k, objects: copy):
            "Your object numbers go up to k·N − 1, since they count copies. Turn each into the object "
            "it is a copy of.",
        partial(_match_k, object_of=lambda copy, k, objects: copy % objects): WRONG_RULE,
        partial(_match_k, copies=lambda cost, k: cost.repeat(1, k)): WRONG_RULE,
        _by_object:
            "Your pairs are right, but sorted by object. Sort them by query, as the package's matcher "
            "does.",
    },
    why='Each object now rewards k queries, so a model trained like this reports it k times, and '
    'someone must remove the duplicates afterwards. "One query for each object" is what DETR has '
    'in place of that.',
)
