"""The checks of the exercises on training and evaluation: right answers, and the help for wrong ones."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from torchvision.ops import box_iou

from minivis.checks import detr_training
from minivis.checks.base import Check

CHECKS = [value for value in vars(detr_training).values() if isinstance(value, Check)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_solutions_are_right_and_every_mistake_is_told_from_it_and_from_the_others(check: Check):
    assert check.verdict(check.solution).right
    messages = []
    for mistake, message in check.mistakes.items():
        verdict = check.verdict(mistake)
        assert verdict.status == "wrong" and verdict.message == message and "expected" in verdict.case
        messages.append(message)
    assert len(messages) >= 3 and len(set(messages)) == len(messages)


# Written as a student would, without the functions of the module


def blind(guess, reduce):
    def blind_class_loss(counts, silent, no_object_weight):
        counts = [*counts.tolist(), silent]
        weights = [1.0] * (len(counts) - 1) + [no_object_weight]
        p = guess(counts, weights)
        parts = [-w * n * math.log(q) if n else 0.0 for w, n, q in zip(weights, counts, p)]
        return reduce(parts, counts, weights)

    return blind_class_loss


def weighted(counts, weights):
    total = sum(w * n for w, n in zip(weights, counts))
    return [w * n / total for w, n in zip(weights, counts)]


def frequencies(counts, weights):
    return [n / sum(counts) for n in counts]


def mean(parts, counts, weights):
    return sum(parts) / sum(w * n for w, n in zip(weights, counts))


def entropy_without_weights(counts, silent, no_object_weight):
    p = torch.tensor([*counts.tolist(), silent])
    p = p / p.sum()
    return -(p * p.log()).sum()


def go_through(order, taken_counts=True, classes=True, reach=lambda a, b: a >= b):
    def which_are_right(scores, labels, overlap, true_labels, iou):
        result, taken = torch.zeros(len(scores), dtype=torch.bool), set()
        for i in order(scores):
            best, where = -1.0, None
            for j in range(len(true_labels)):
                free = j not in taken or not taken_counts
                if free and (labels[i] == true_labels[j] or not classes) and overlap[i, j] > best:
                    best, where = overlap[i, j], j
            if where is not None and reach(best, iou):
                result[i] = True
                taken.add(where)
        return result

    return which_are_right


def weighted_shares(counts, silent, no_object_weight):
    weights = torch.cat([counts, torch.tensor([no_object_weight * silent])])
    return weights / weights.sum()


def entropy(p):
    return -(p * p.log()).sum()


def first_near_enough(scores, labels, overlap, true_labels, iou):
    result, taken = [False] * len(scores), set()
    for i in falling(scores).tolist():
        for j in range(len(true_labels)):
            if j not in taken and labels[i] == true_labels[j] and overlap[i, j] >= iou:
                result[i] = True
                taken.add(j)
                break
    return result


def read_at_101(right, objects):
    values = []
    for recall in torch.linspace(0, 1, 101, dtype=torch.float64).tolist():
        later = [
            sum(right[:n]) / n for n in range(1, len(right) + 1) if sum(right[:n]) / objects >= recall - 1e-9
        ]
        values.append(max(later, default=0))
    return sum(values) / 101


def suppress_at_the_threshold(boxes, scores, labels, iou):
    return suppress(boxes, scores, labels, iou - 1e-6)


def falling(scores):
    return scores.argsort(descending=True)


def as_listed(scores):
    return range(len(scores))


def area(right, objects):
    total, best = Fraction(0), Fraction(0)
    for n in range(len(right), 0, -1):
        best = max(best, Fraction(sum(right[:n]), n))
        total += best * right[n - 1]
    return float(total / objects)


def precision_at_hits(right, objects):
    return sum(sum(right[: n + 1]) / (n + 1) for n in range(len(right)) if right[n]) / objects


def area_over_found(right, objects):
    return area(right, max(sum(right), 1))


def suppress(boxes, scores, labels, iou):
    left, kept = scores.argsort(descending=True).tolist(), []
    while left:
        kept.append(left.pop(0))
        gone = box_iou(boxes[kept[-1:]], boxes)[0] > iou
        left = [i for i in left if not (gone[i] and labels[i] == labels[kept[-1]])]
    return kept


def suppress_all_classes(boxes, scores, labels, iou):
    return suppress(boxes, scores, torch.zeros_like(labels), iou)


def pairs_at_once(boxes, scores, labels, iou):
    overlap = box_iou(boxes, boxes)
    gone = {
        (j if scores[j] < scores[i] else i)
        for i, j in itertools.combinations(range(len(scores)), 2)
        if labels[i] == labels[j] and overlap[i, j] > iou
    }
    return [i for i in scores.argsort(descending=True).tolist() if i not in gone]


def flops(tokens, d, hidden):
    qkv_and_output = 4 * 2 * tokens * d**2
    attention = 2 * (2 * tokens**2 * d)
    return qkv_and_output + attention + 2 * (2 * tokens * d * hidden)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (detr_training.check_blind_class_loss, blind(weighted, mean)),
        (detr_training.check_which_are_right, go_through(falling)),
        (detr_training.check_average_precision, area),
        (detr_training.check_suppress, suppress),
        (detr_training.check_encoder_layer_flops, flops),
        (detr_training.check_tokens_at_half, lambda d, hidden: 2 * d + hidden),
    ],
)
def test_other_ways_are_right_as_well(check: Check, answer):
    assert check.verdict(answer).right


@pytest.mark.parametrize(
    ("check", "answer", "help_"),
    [
        (detr_training.check_blind_class_loss, blind(frequencies, mean), "how often each class occurs"),
        (detr_training.check_blind_class_loss, entropy_without_weights, "without weights"),
        (detr_training.check_blind_class_loss, lambda counts, *_: math.log(len(counts)), "This is ln K."),
        (
            detr_training.check_blind_class_loss,
            blind(weighted, lambda parts, counts, _: sum(parts) / sum(counts)),
            "not by the number of queries",
        ),
        (
            detr_training.check_which_are_right,
            go_through(falling, taken_counts=False),
            "find the same object",
        ),
        (detr_training.check_which_are_right, go_through(as_listed), "The surest chooses first"),
        (
            detr_training.check_which_are_right,
            go_through(falling, classes=False),
            "do not look at the classes",
        ),
        (detr_training.check_which_are_right, go_through(falling, reach=lambda a, b: a > b), "is enough"),
        (detr_training.check_average_precision, precision_at_hits, "or any higher"),
        (detr_training.check_average_precision, area_over_found, "divide by all objects"),
        (detr_training.check_suppress, suppress_all_classes, "Each class by itself"),
        (detr_training.check_suppress, pairs_at_once, "only with those that were kept"),
        (detr_training.check_encoder_layer_flops, lambda *given: flops(*given) / 2, "are two operations"),
        (
            detr_training.check_encoder_layer_flops,
            lambda n, d, hidden: 8 * n * d * d + 4 * n * d * hidden,
            "linear layers only",
        ),
        (detr_training.check_blind_class_loss, lambda *given: entropy(weighted_shares(*given)), "0 · log 0"),
        (detr_training.check_which_are_right, first_near_enough, "the largest overlap"),
        (
            detr_training.check_which_are_right,
            lambda scores, *rest: go_through(falling)(scores, *rest)[falling(scores)],
            "in the order of the scores",
        ),
        (detr_training.check_average_precision, read_at_101, "101 recalls"),
        (
            detr_training.check_average_precision,
            lambda right, objects: sum(sum(right[:n]) / n for n in range(1, len(right) + 1)) / len(right),
            "after every detection",
        ),
        (detr_training.check_suppress, suppress_at_the_threshold, "`>`, not `>=`"),
        (
            detr_training.check_suppress,
            lambda boxes, scores, labels, iou: [
                i in suppress(boxes, scores, labels, iou) for i in range(len(scores))
            ],
            "Give the indices",
        ),
        (
            detr_training.check_encoder_layer_flops,
            lambda n, d, hidden: 8 * n * d * d + 4 * n * n * d,
            "feed-forward part is missing",
        ),
        (
            detr_training.check_encoder_layer_flops,
            lambda n, d, hidden: 4 * n * n * d + 4 * n * d * hidden,
            "own linear layers",
        ),
        (
            detr_training.check_encoder_layer_flops,
            lambda n, d, hidden: 2 * n * d * d + 4 * n * n * d + 4 * n * d * hidden,
            "one projection of d",
        ),
        (
            detr_training.check_encoder_layer_flops,
            lambda n, d, hidden: 8 * n * d * d + 4 * n * n + 4 * n * d * hidden,
            "N² · d, not N²",
        ),
        (
            detr_training.check_tokens_at_half,
            lambda d, hidden: 2 * (2 * d + hidden),
            "There are two products",
        ),
        (
            detr_training.check_tokens_at_half,
            lambda d, hidden: d + hidden,
            "Your projections count half",
        ),
        (
            detr_training.check_which_are_right,
            lambda scores, labels, overlap, true_labels, iou: [bool(row.max() >= iou) for row in overlap],
            "one that no surer detection has taken",
        ),
        (
            detr_training.check_average_precision,
            lambda right, objects: sum(
                (sum(right[: n + 1]) / (n + 1) + sum(right[:n]) / n) / 2 * right[n] / objects
                for n in range(1, len(right))
            ),
            "Trapezoids",
        ),
    ],
)
def test_a_typical_wrong_answer_gets_the_message_that_helps(check: Check, answer, help_: str):
    verdict = check.verdict(answer)
    assert verdict.status == "wrong" and help_ in verdict.message, verdict
    assert "expected" in verdict.case  # and a case that shows it


def test_where_attention_outgrows_the_linear_layers():
    """The number in the last check's praise."""
    for tokens, is_more in ((2559, False), (2561, True)):
        linear = flops(tokens, 256, 2048) - 4 * tokens**2 * 256
        assert (4 * tokens**2 * 256 > linear) == is_more
