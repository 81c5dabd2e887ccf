"""Exercises on training and evaluation: blind guess, right detections, average precision, suppression, FLOPs.

Mistakes are variants of a solution that can be bent: `partial(_blind, weigh=False)` forgets the weight of "no object".
"""

# Below, a mistake stands on one line, and the message that then helps under it: no formatter knows this form.
# fmt: off

from functools import partial
from math import log

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, nms

from minivis.checks.base import Check
from minivis.evaluation.precision_recall import Curve, at_recalls


def _random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# 1. The class loss of a blind guess


def _blind(counts, silent, weight, weigh=True, guess="weighted", total="weights", logarithm=torch.log):
    number = torch.cat([counts.double(), torch.tensor([float(silent)])])
    weights = torch.ones(len(number), dtype=torch.float64)
    if weigh:
        weights[-1] = weight
    loss = weights * number
    guessed = loss if guess == "weighted" else number
    totals = {"weights": loss.sum(), "queries": number.sum(), "one": 1.0}
    there = loss > 0  # 0 · log 0 = 0
    return -(loss * logarithm(guessed / guessed.sum()))[there].sum() / totals[total]


def _without_silence(counts, silent, weight):
    return _blind(counts, 1e-12, weight)


def _blind_with_nan(counts, silent, weight):
    """p · log p as it is: 0 · (−∞) for a class that no query is matched to."""
    share = torch.cat([counts.double(), torch.tensor([weight * float(silent)])])
    share = share / share.sum()
    return -(share * share.log()).sum()


_MISTAKES_OF_A_GUESS = {
    partial(_blind, weigh=False):
        "This is the loss without weights, and with the guess that is best there. \"No object\" counts only "
        "`no_object_weight`, in the guess and in the mean.",
    partial(_blind, guess="counts"):
        "You guess by how often each class occurs. Under a weighted loss another guess is better: "
        "probabilities in proportion to weight times number.",
    lambda counts, silent, weight: log(len(counts) + 1):
        "This is ln(K + 1), the loss of somebody who guesses all K + 1 alike and does not even know how often "
        "each occurs.",
    lambda counts, silent, weight: log(len(counts)):
        "This is ln K. \"No object\" is a class as well, and the classes need not be equally frequent.",
    _without_silence:
        "You leave \"no object\" out. It weighs little, but there are many of it.",
    partial(_blind, total="queries"):
        "Divide by the sum of the weights, not by the number of queries: `cross_entropy` with `weight` is a "
        "weighted mean.",
    partial(_blind, total="one"):
        "This is the sum. The class loss is a mean: divide by the sum of the weights.",
    partial(_blind, logarithm=torch.log2):
        "Your logarithm is to the base 2: PyTorch's losses are in natural logarithms.",
}


def _nan_where_a_class_is_not_there(mistake, counts, silent, weight):
    return mistake(counts, silent, weight) if counts.all() else float("nan")


check_blind_class_loss = Check(
    "blind_class_loss",
    solution=_blind,
    cases=[
        {"counts": torch.tensor([2.0, 2.0, 2.0]), "silent": 24.0, "no_object_weight": 0.1},
        {"counts": torch.tensor([5.0, 1.0]), "silent": 14.0, "no_object_weight": 0.1},
        {"counts": torch.tensor([3.0, 9.0, 4.0, 1.0]), "silent": 83.0, "no_object_weight": 0.5},
        {"counts": torch.tensor([4.0, 0.0, 2.0]), "silent": 14.0, "no_object_weight": 0.1},  # a class not there
    ],
    mistakes=_MISTAKES_OF_A_GUESS | {
        _blind_with_nan:
            "Right, but for a class that occurs nowhere: there 0 · log 0 gives nan. A class without queries adds "
            "nothing, so count it as 0 (`torch.special.xlogy` does).",
    } | {
        partial(_nan_where_a_class_is_not_there, mistake): f"{message} And 0 · log 0 is 0, not nan."
        for mistake, message in _MISTAKES_OF_A_GUESS.items()
    },
    why="A class loss that stays at this number means: nothing of the picture has reached the class head yet.",
)


# 2. Which detections are right


def _right(
    scores, labels, overlap, true_labels, iou, by_score=True, once=True, of_class=True, able=lambda a, b: a >= b
):
    right, free = [False] * len(scores), [True] * len(true_labels)
    for i in scores.argsort(descending=True).tolist() if by_score else range(len(scores)):
        candidates = [
            j for j in range(len(true_labels))
            if free[j] and able(overlap[i, j], iou) and (not of_class or labels[i] == true_labels[j])
        ]
        if candidates:
            right[i] = True
            if once:
                free[max(candidates, key=lambda j: overlap[i, j].item())] = False
    return right


def _best_of_all_objects(scores, labels, overlap, true_labels, iou):
    """The rule of the older PASCAL VOC challenge: it looks at one object only, taken or not."""
    right, free = [False] * len(scores), [True] * len(true_labels)
    for i in scores.argsort(descending=True).tolist():
        able = [j for j in range(len(true_labels)) if labels[i] == true_labels[j]]
        best = max(able, key=lambda j: overlap[i, j].item(), default=None)
        if best is not None and overlap[i, best] >= iou and free[best]:
            right[i], free[best] = True, False
    return right


def _each_object_its_nearest(scores, labels, overlap, true_labels, iou):
    right = [False] * len(scores)
    for j in range(len(true_labels)):
        able = [i for i in range(len(scores)) if labels[i] == true_labels[j] and overlap[i, j] >= iou]
        if able:
            right[max(able, key=lambda i: overlap[i, j].item())] = True
    return right


def _first_that_is_near_enough(scores, labels, overlap, true_labels, iou):
    right, free = [False] * len(scores), list(range(len(true_labels)))
    for i in scores.argsort(descending=True).tolist():
        found = next((j for j in free if labels[i] == true_labels[j] and overlap[i, j] >= iou), None)
        if found is not None:
            right[i] = True
            free.remove(found)
    return right


def _near_enough_to_any_of_any_class(scores, labels, overlap, true_labels, iou):
    return (overlap.amax(1) >= iou).tolist()


def _in_the_order_of_the_scores(scores, labels, overlap, true_labels, iou):
    right = _right(scores, labels, overlap, true_labels, iou)
    return [right[i] for i in scores.argsort(descending=True).tolist()]


check_which_are_right = Check(
    "which_are_right",
    solution=_right,
    cases=[
        {  # two on one object; the better box is the less sure one
            "scores": torch.tensor([0.6, 0.9]), "labels": torch.tensor([0, 0]),
            "overlap": torch.tensor([[0.9], [0.7]]), "true_labels": torch.tensor([0]), "iou": 0.5,
        },
        {  # the right place, the wrong class; and an overlap that is just enough
            "scores": torch.tensor([0.8, 0.7]), "labels": torch.tensor([1, 0]),
            "overlap": torch.tensor([[0.9, 0.0], [0.1, 0.5]]), "true_labels": torch.tensor([0, 0]), "iou": 0.5,
        },
        {  # its best object is taken, and a second one near enough
            "scores": torch.tensor([0.9, 0.8, 0.3]), "labels": torch.tensor([0, 0, 0]),
            "overlap": torch.tensor([[0.95, 0.2], [0.8, 0.6], [0.2, 0.4]]), "true_labels": torch.tensor([0, 0]),
            "iou": 0.5,
        },
        {  # near enough to two objects: it takes the nearer one, and leaves the other to the next
            "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([0, 0]),
            "overlap": torch.tensor([[0.6, 0.9], [0.7, 0.1]]), "true_labels": torch.tensor([0, 0]), "iou": 0.5,
        },
        {
            "scores": _random(8, seed=0), "labels": torch.tensor([0, 1, 0, 1, 0, 1, 0, 0]),
            "overlap": _random(8, 5, seed=1), "true_labels": torch.tensor([0, 1, 0, 1, 1]), "iou": 0.6,
        },
    ],
    mistakes={
        partial(_right, once=False):
            "Two detections of yours find the same object. The first one gets it; whoever comes later is a "
            "duplicate, and wrong.",
        partial(_right, by_score=False):
            "You go through the detections in the order of the list. The surest chooses first: go by falling "
            "score, and put the answers back in their places.",
        partial(_right, of_class=False):
            "You do not look at the classes: a square found where a circle is, is wrong.",
        partial(_right, able=lambda a, b: a > b):
            "An IoU equal to the threshold is enough: `>=`, not `>`.",
        _best_of_all_objects:
            "You look only at the object that a detection overlaps most, and call it wrong if that one is taken. "
            "So did PASCAL VOC; COCO looks for the best among the objects that are still free.",
        _each_object_its_nearest:
            "You let each object choose its best box. Here the detections choose, the surest first: a worse box "
            "with a higher score gets the object.",
        _first_that_is_near_enough:
            "You take the first free object that is near enough. Take the one with the largest overlap: the other "
            "may be all that the next detection can have.",
        _near_enough_to_any_of_any_class:
            "You ask only whether some object is near enough. It must be of the detection's class, and one that no "
            "surer detection has taken.",
        _in_the_order_of_the_scores:
            "The right answers in the order of the scores. Put each at its detection's place in the list: "
            "`right[i] = True`.",
    },
    why="A duplicate is wrong however well it lies. So AP punishes what NMS would remove, and what DETR's matching "
    "teaches it not to say.",
)


# 3. Average precision


def _area(right, objects, envelope=True, per="objects", forwards=False):
    hits, precision = 0, []
    for n, is_right in enumerate(right, start=1):
        hits += bool(is_right)
        precision.append(hits / n)
    best = list(precision)
    if envelope and forwards:
        for i in range(1, len(best)):
            best[i] = max(best[i], best[i - 1])
    elif envelope:
        for i in reversed(range(len(best) - 1)):
            best[i] = max(best[i], best[i + 1])
    gained = [value for value, is_right in zip(best, right) if is_right]
    return sum(gained) / {"objects": objects, "found": max(len(gained), 1), "detections": len(right)}[per]


def _at_101_recalls(right, objects):
    hits = np.cumsum(np.asarray(right, dtype=float))
    curve = Curve(-np.arange(len(hits)), hits > 0, hits / np.arange(1, len(hits) + 1), hits / objects)
    return at_recalls(curve).mean()


def _mean_of_all_precisions(right, objects):
    hits = np.cumsum(np.asarray(right, dtype=float))
    return (hits / np.arange(1, len(hits) + 1)).mean()


def _trapezoids(right, objects, start=None):
    """The area below straight lines from point to point, from a precision of `start` at recall 0."""
    hits = np.cumsum(np.asarray(right, dtype=float))
    recall, precision = hits / objects, hits / np.arange(1, len(hits) + 1)
    if start is not None:
        recall, precision = np.append(0, recall), np.append(start, precision)
    return np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2)


check_average_precision = Check(
    "average_precision",
    solution=_area,
    cases=[
        {"right": [True, False, True, True, False], "objects": 4},
        {"right": [True, True], "objects": 2},
        {"right": [False, False, True, True, False, True], "objects": 5},
        {"right": [False, False], "objects": 3},
    ],
    mistakes={
        partial(_area, envelope=False):
            "You take the precision at each hit as it is. AP takes the best precision at this recall or any higher "
            "one, so that one lucky later hit cannot be held against an earlier threshold.",
        partial(_area, per="found"):
            "You divide by the objects that were found. What was missed must cost something: divide by all objects.",
        partial(_area, per="detections"):
            "You divide by the number of detections. A recall step is one over the number of objects.",
        partial(_area, forwards=True):
            "You take the best precision so far. It is the best still to come: go through the list from its end.",
        lambda right, objects: sum(right) / objects:
            "This is the recall of the whole list. Where the wrong ones stand in it does not matter to yours.",
        lambda right, objects: sum(right) / len(right):
            "This is the precision of the whole list. Where the wrong ones stand in it does not matter to yours.",
        _at_101_recalls:
            "This is COCO's reading at 101 recalls, nearly the area. Asked is the area itself: a step of width "
            "1 / `objects` at each hit.",
        _trapezoids:
            "Trapezoids draw slanted lines between the points, and these leave out the part before the first one. "
            "The curve has steps: each hit adds 1 / `objects` times the best precision from there on.",
        partial(_trapezoids, start=1.0):
            "Trapezoids draw slanted lines between the points. The curve has steps: each hit adds 1 / `objects` times "
            "the best precision from there on.",
        _mean_of_all_precisions:
            "You average the precision after every detection. An area has widths: only a right detection moves recall, "
            "by 1 / `objects`; a wrong one has no width.",
    },
    why="Only the order counts: AP asks whether wrong detections come after right ones, and not what the scores are.",
)


# 4. Non-maximum suppression


def _nms(boxes, scores, labels, iou):
    return batched_nms(boxes, scores, labels, iou)


def _against_all(boxes, scores, labels, iou, by_score=True):
    """A box that was removed goes on removing others."""
    order = scores.argsort(descending=True).tolist() if by_score else list(range(len(scores)))
    overlap, kept = box_iou(boxes, boxes), []
    for place, i in enumerate(order):
        if all(labels[i] != labels[j] or overlap[i, j] <= iou for j in order[:place]):
            kept.append(i)
    return torch.tensor(kept)


def _in_the_order_of_the_list(boxes, scores, labels, iou):
    overlap, kept = box_iou(boxes, boxes), []
    for i in range(len(scores)):
        if all(labels[i] != labels[j] or overlap[i, j] <= iou for j in kept):
            kept.append(i)
    return torch.tensor(kept)


def _from_the_threshold_on(boxes, scores, labels, iou):
    overlap, kept = box_iou(boxes, boxes), []
    for i in scores.argsort(descending=True).tolist():
        if all(labels[i] != labels[j] or overlap[i, j] < iou for j in kept):
            kept.append(i)
    return torch.tensor(kept)


def _as_a_mask(boxes, scores, labels, iou):
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[batched_nms(boxes, scores, labels, iou)] = True
    return mask


check_suppress = Check(
    "suppress",
    solution=_nms,
    cases=[
        {
            "boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.5], [6.0, 0.0, 8.0, 4.0]]),
            "scores": torch.tensor([0.7, 0.9, 0.4]), "labels": torch.tensor([0, 0, 0]), "iou": 0.7,
        },
        {  # of two classes; and a chain, whose middle goes
            "boxes": torch.tensor([[0.0, 0.0, 10.0, 4.0], [2.0, 0.0, 12.0, 4.0], [4.0, 0.0, 14.0, 4.0],
                                   [0.0, 0.0, 10.0, 4.0]]),
            "scores": torch.tensor([0.9, 0.8, 0.7, 0.6]), "labels": torch.tensor([0, 0, 0, 1]), "iou": 0.6,
        },
        {  # an overlap of exactly the threshold: both stay
            "boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]]),
            "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([0, 0]), "iou": 0.5,
        },
        {
            "boxes": torch.cat([_random(12, 2, seed=4), 0.8 + _random(12, 2, seed=5)], dim=1),
            "scores": _random(12, seed=6), "labels": torch.arange(12) % 2, "iou": 0.5,
        },
    ],
    mistakes={
        lambda boxes, scores, labels, iou: nms(boxes, scores, iou):
            "You let boxes of one class remove those of another: a cup in front of a plate goes. Each class by "
            "itself.",
        _in_the_order_of_the_list:
            "You go through the boxes in the order of the list. The surest comes first.",
        _against_all:
            "A box that was removed removes others in yours. Compare only with those that were kept: in a chain the "
            "middle goes and both ends stay.",
        lambda boxes, scores, labels, iou: batched_nms(boxes, scores, labels, iou).sort().values:
            "The right boxes, but in the order of the list: give them with the surest first.",
        _from_the_threshold_on:
            "You remove a box that overlaps by exactly `iou`. It goes only if it overlaps by more: `>`, not `>=`.",
        _as_a_mask:
            "You give a true or false for each box. Give the indices of those that are kept, the surest first.",
    },
    why="It is a rule about boxes, and knows nothing of objects: two real ones that overlap as much lose one as well.",
)


# 5. What an encoder layer computes


def _flops(tokens, d, hidden, projections=4, products=2, matrices=2, each=2, square=True, width=True):
    linear = tokens * (projections * d * d + matrices * d * hidden)
    return each * (linear + products * (tokens * tokens if square else tokens) * (d if width else 1))


check_encoder_layer_flops = Check(
    "encoder_layer_flops",
    solution=_flops,
    cases=[
        {"tokens": 10, "d": 4, "hidden": 8},
        {"tokens": 850, "d": 256, "hidden": 2048},
        {"tokens": 64, "d": 128, "hidden": 512},
    ],
    mistakes={
        partial(_flops, each=1):
            "Half of it is missing: a multiplication and an addition are two operations.",
        partial(_flops, products=0):
            "You count the linear layers only. Each token is compared with each token, and then sums up all values.",
        partial(_flops, products=1):
            "There are two products of N × N with d: queries with keys, and weights with values.",
        partial(_flops, projections=3):
            "One projection is missing: there are four of d × d, for queries, keys, values, and the output.",
        partial(_flops, projections=0):
            "You leave out attention's own linear layers: queries, keys, values and the output are d × d each.",
        partial(_flops, projections=1):
            "You count one projection of d × d. Queries, keys, values and the output have one each.",
        partial(_flops, matrices=0):
            "The feed-forward part is missing: for each token d × hidden, and back.",
        partial(_flops, width=False):
            "Each of the N × N entries is a sum over d numbers, and so is each output over N: N² · d, not N².",
        partial(_flops, matrices=1):
            "The feed-forward part has two matrices: d × hidden, and back.",
        partial(_flops, square=False):
            "Your attention is linear in the number of tokens; each token looks at all the others.",
    },
    why="With d = 256 and a hidden width of 2,048 the products that are quadratic in the map outgrow the linear layers "
    "only above 2,560 tokens: DETR at 800 × 1088 has 850.",
)


def _crossing(d, hidden, projections=4, matrices=2, products=2):
    """Where products · N² · d = N · (projections · d² + matrices · d · hidden)."""
    return (projections * d + matrices * hidden) / products


check_tokens_at_half = Check(
    "tokens_at_half",
    solution=_crossing,
    cases=[{"d": 256, "hidden": 2048}, {"d": 64, "hidden": 128}],
    mistakes={
        partial(_crossing, products=1):
            "There are two products of N² · d, with the keys and with the values: twice what you count.",
        partial(_crossing, matrices=0):
            "Half of *all*: the feed-forward part belongs to the other half, too.",
        partial(_crossing, projections=0):
            "Half of *all*: the four projections belong to the other half, too.",
        lambda d, hidden: d + hidden:
            "Your projections count half: there are four of d × d, so 4 · d² multiply-adds a token, against "
            "2 · N · d of the two quadratic products and 2 · d · hidden of the feed-forward part. Solve for N.",
        lambda d, hidden: _flops(850, d, hidden):
            "These are operations. Asked is a number of tokens.",
    },
    why="Above it attention's quadratic part is the larger one. DETR at 800 × 1088 has 850 tokens, a map of stride 16 "
    "3,400.",
)
