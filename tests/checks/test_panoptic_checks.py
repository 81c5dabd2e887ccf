"""The checks on panoptic segmentation: wrong answers written as students write them."""

import pytest
import torch

from minivis.checks import panoptic
from minivis.checks.base import Check


def one_softmax_a_head(q, k, heads):
    rows = []
    for part_q, part_k in zip(q.chunk(heads, dim=1), k.chunk(heads, dim=1)):
        rows.append(torch.softmax(part_q @ part_k.T / part_q.shape[1] ** 0.5, dim=1))
    return torch.stack(rows, dim=1)


def scaled_by_the_whole_width(q, k, heads):
    parts = [a @ b.T / q.shape[1] ** 0.5 for a, b in zip(q.chunk(heads, dim=1), k.chunk(heads, dim=1))]
    return torch.cat(parts, dim=1).softmax(1).unflatten(1, (heads, len(k)))


def right_but_with_loops(q, k, heads):
    weights = torch.zeros(len(q), heads, len(k))
    width = q.shape[1] // heads
    for i in range(len(q)):
        for n in range(heads):
            for j in range(len(k)):
                part = slice(n * width, (n + 1) * width)
                weights[i, n, j] = torch.exp(q[i, part] @ k[j, part] / width**0.5)
        weights[i] /= weights[i].sum()
    return weights


def dice_of_logits(logits, mask):
    return 1 - (2 * logits[mask].sum() + 1) / (logits.sum() + mask.sum() + 1)


def iou_loss(logits, mask):
    p, t = torch.sigmoid(logits), mask.to(logits.dtype)
    overlap = (p * t).sum()
    return 1 - (overlap + 1) / (p.sum() + t.sum() - overlap + 1)


def things_joined_too(masks, labels, things):
    owner = masks.argmax(0)
    return torch.tensor([[labels.index(labels[i]) for i in row] for row in owner.tolist()])


def nothing_joined(masks, labels, things):
    return masks.max(dim=0).indices


def the_last_one_on_top(masks, labels, things):
    result = torch.zeros(masks.shape[1:], dtype=torch.long)
    for i in range(len(labels)):
        first = i if labels[i] in things else labels.index(labels[i])
        result = torch.where(masks[i] > 0, first, result)
    return result


def mean_iou_of_matches(predicted, truth):
    ious = []
    for t in truth.unique()[truth.unique() > 0]:
        for p in predicted.unique()[predicted.unique() > 0]:
            a, b = predicted == p, truth == t
            iou = (a & b).sum() / (a | b).sum()
            if iou > 0.5:
                ious.append(iou)
    return torch.stack(ious).mean()


def as_a_semantic_map(predicted, truth):
    a, b = predicted != 0, truth != 0
    return float((a & b).sum()) / float((a | b).sum())


@pytest.mark.parametrize(
    ("check", "answer", "help_"),
    [
        (panoptic.check_joint_attention, one_softmax_a_head, "shares out a whole one"),
        (panoptic.check_joint_attention, scaled_by_the_whole_width, "divide by the root of that"),
        (panoptic.check_dice_of, dice_of_logits, "the sigmoid is missing"),
        (panoptic.check_dice_of, iou_loss, "This is 1 − IoU"),
        (panoptic.check_merge, things_joined_too, "You join things as well"),
        (panoptic.check_merge, nothing_joined, "still two segments"),
        (panoptic.check_merge, the_last_one_on_top, "the last one wins"),
        (panoptic.check_panoptic_quality, mean_iou_of_matches, "This is SQ"),
        (panoptic.check_panoptic_quality, as_a_semantic_map, "as in semantic segmentation"),
    ],
)
def test_a_typical_wrong_answer_gets_the_message_that_helps(check: Check, answer, help_: str):
    verdict = check.verdict(answer)
    assert verdict.status == "wrong" and help_ in verdict.message, verdict
    assert "expected" in verdict.case  # and a case that shows it


def test_another_way_is_right_as_well():
    assert panoptic.check_joint_attention.verdict(right_but_with_loops).right
