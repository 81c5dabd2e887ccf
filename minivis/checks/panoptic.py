"""Exercises on panoptic segmentation: attention over heads and cells together, dice loss, merging, panoptic quality.

Mistakes are variants of a solution that can be bent: with `softmax="each head"` every head shares out a whole one.
"""

# Below, a mistake stands on one line, and the message that then helps under it: no formatter knows this form.
# fmt: off

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from minivis.checks.base import Check


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# 1. Attention without values


def _attention(q, k, heads, softmax="together", scale="head", layout="heads first"):
    width = q.shape[-1] // heads
    split = (heads, width) if layout == "heads first" else (width, heads)
    q, k = (t.unflatten(-1, split) for t in (q, k))
    scores = torch.einsum("qhc,mhc->qhm" if layout == "heads first" else "qch,mch->qhm", q, k)
    scores = scores / {"head": width**0.5, "all": (width * heads) ** 0.5, "none": 1, "squared": width}[scale]
    if softmax == "together":
        return scores.flatten(1).softmax(-1).view_as(scores)
    if softmax == "all queries":
        return scores.flatten().softmax(-1).view_as(scores)
    return scores if softmax == "none" else scores.softmax({"each head": 2, "each cell": 1, "each query": 0}[softmax])


check_joint_attention = Check(
    "joint_attention",
    solution=_attention,
    cases=[
        {"q": torch.tensor([[1.0, 0.0, 0.0, 2.0]]),
         "k": torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]), "heads": 2},
        {"q": _normal(3, 8, seed=0), "k": _normal(5, 8, seed=1), "heads": 4},
        {"q": _normal(2, 6, seed=2), "k": _normal(4, 6, seed=3), "heads": 2},
    ],
    mistakes={
        partial(_attention, softmax="each head"):
            "Each of your heads shares out a whole one. That is ordinary attention: here the weights of a query sum to "
            "one over all heads and cells together.",
        partial(_attention, softmax="each cell"):
            "Your weights sum to one over the heads of each cell: take heads and cells together.",
        partial(_attention, softmax="each query"):
            "Your queries share out each cell among themselves. A query's weights depend on no other query.",
        partial(_attention, softmax="all queries"):
            "Your weights sum to one over all queries as well: each query has a whole one of its own.",
        partial(_attention, softmax="none"):
            "These are the scores. The softmax is missing.",
        partial(_attention, scale="all"):
            "You divide by the root of d. A head's product runs over d / heads numbers: divide by the root of that.",
        partial(_attention, scale="none"):
            "Your scores are not divided by the root of a head's width, d / heads.",
        partial(_attention, scale="squared"):
            "You divide by a head's width; the square root is missing.",
        partial(_attention, layout="heads last"):
            "Your heads take numbers that lie apart. Head 0 has the first d / heads numbers, head 1 the next: "
            "`q.view(Q, heads, d // heads)`.",
        lambda q, k, heads: _attention(q, k, heads).transpose(0, 1):
            "The numbers are right and lie in another order: (Q, heads, M) is wanted.",
        lambda q, k, heads: _attention(q, k, heads).sum(1):
            "You have added up the heads. The mask head gets them one by one, as channels.",
        lambda q, k, heads: _attention(q, k, 1).expand(-1, heads, -1) / heads:
            "Your heads are all alike: cut q and k into heads before you multiply.",
    },
    why="A head that finds nothing gets hardly anything, so its map stays dark, and the convolutions behind it see how "
    "sure each head is.",
)


# 2. The dice loss


def _dice(logits, mask, p=torch.sigmoid, factor=2, one=1, total=lambda p, t: p.sum() + t.sum()):
    probability, t = p(logits), mask.float()
    return 1 - (factor * (probability * t).sum() + one) / (total(probability, t) + one)


def _dice_of_means(logits, mask):
    p, t = logits.sigmoid(), mask.float()
    return 1 - (2 * (p * t).mean() + 1) / (p.mean() + t.mean() + 1)


check_dice_of = Check(
    "dice_of",
    solution=_dice,
    cases=[
        {"logits": torch.tensor([[2.0, -1.0], [0.0, -3.0]]), "mask": torch.tensor([[True, False], [True, False]])},
        {"logits": 2 * _normal(6, 5, seed=4), "mask": _normal(6, 5, seed=5) > 1},
        {"logits": _normal(4, 4, seed=6) - 4, "mask": torch.zeros(4, 4, dtype=torch.bool)},  # nothing to be found
    ],
    mistakes={
        partial(_dice, p=lambda logits: logits):
            "You take the logits as probabilities: the sigmoid is missing.",
        partial(_dice, p=lambda logits: (logits > 0).float()):
            "You decide each pixel before you count. Then no gradient is left: take the probabilities.",
        partial(_dice, one=0):
            "The 1 above and below the line is missing. Without it an empty mask has 0 above the line, whatever is "
            "predicted, and so no gradient; and 0 / 0 is near.",
        partial(_dice, factor=1):
            "The overlap counts twice above the line, since each of its pixels counts twice below.",
        lambda logits, mask: 1 - _dice(logits, mask):
            "This is how well they overlap, 1 for equal masks. The loss is 1 minus that.",
        partial(_dice, factor=1, total=lambda p, t: (p + t - p * t).sum()):
            "This is 1 − IoU: below the line stands the sum of both areas, not the union.",
        partial(_dice, total=lambda p, t: (p**2).sum() + t.sum()):
            "You square the probabilities below the line, as some do. DETR adds them up as they are.",
        lambda logits, mask: F.binary_cross_entropy_with_logits(logits, mask.float()):
            "This is the cross-entropy, which every pixel adds to alike.",
        _dice_of_means:
            "You take means over the pixels. Then the 1 counts as much as a whole picture: take sums.",
    },
    why="A mouse of 20 pixels and a sky of 10,000 both have a loss from 0 to 1; in a mean over pixels it would be "
    "next to nothing.",
)


# 3. One segment for each pixel


def _is_stuff(label, things):
    return label not in things


def _merge(masks, labels, things, joins=_is_stuff, last=False, winner=lambda masks: masks.argmax(0)):
    stands_for, first = [], {}
    places = range(len(labels))
    for i in reversed(places) if last else places:
        stands_for.append(first.setdefault(labels[i], i) if joins(labels[i], things) else i)
    return torch.tensor(stands_for[::-1] if last else stands_for)[winner(masks)]


def _added_up(masks, labels, things):
    """Masks of one stuff class are added before the pixels are decided."""
    owner = _merge(torch.eye(len(masks))[..., None], labels, things)[:, 0].tolist()
    joined = torch.full_like(masks, -torch.inf)
    for i in sorted(set(owner)):
        joined[i] = sum(mask for mask, of in zip(masks, owner) if of == i)
    return joined.argmax(0)


def _painted(masks):
    """One after another over what is there."""
    owner = torch.zeros(masks.shape[1:], dtype=torch.int64)
    for i, mask in enumerate(masks):
        owner[mask > 0] = i
    return owner


check_merge = Check(
    "merge",
    solution=_merge,
    cases=[
        {"masks": torch.tensor([[[1.0, 3.0, -1.0]], [[2.0, -1.0, 0.5]], [[-2.0, 1.0, 4.0]]]),
         "labels": [7, 2, 7], "things": [2]},
        {"masks": _normal(5, 4, 4, seed=7), "labels": [0, 5, 0, 5, 6], "things": [0, 1]},
        {"masks": _normal(6, 3, 5, seed=8) - 1, "labels": [3, 4, 4, 1, 3, 1], "things": [1]},
    ],
    mistakes={
        partial(_merge, joins=lambda label, things: False):
            "Two masks of one stuff class are still two segments. Grass here and grass there are one.",
        partial(_merge, joins=lambda label, things: True):
            "You join things as well: two circles are two segments. Only what is not in `things` is joined.",
        partial(_merge, joins=lambda label, things: label in things):
            "You join the things and keep the stuff apart: it is the other way round.",
        partial(_merge, last=True):
            "Stuff has the number of the last mask of its class; the first is wanted.",
        _added_up:
            "You add the masks of one class before you decide the pixels, and one that says no can outvote one that "
            "says yes: decide each pixel first, and join afterwards.",
        partial(_merge, winner=_painted):
            "You paint one mask over another, so the last one wins. A pixel belongs to the mask that is surest of it "
            "(`argmax`).",
        lambda masks, labels, things: torch.tensor(labels)[masks.argmax(0)]:
            "You give each pixel its class. That is semantic segmentation: two circles cannot be told apart.",
        partial(_merge, winner=lambda masks: masks.argmin(0)):
            "Each pixel goes to the mask that is least sure of it.",
    },
    why="That is all there is to it: masks may overlap, a map may not, and the argmax decides.",
)


# 4. Panoptic quality


def _quality(predicted, truth, enough=0.5, half=0.5, what="PQ", overlap="iou"):
    found, true = (sorted(set(m.flatten().tolist()) - {0}) for m in (predicted, truth))
    ious = []
    for t in true:
        for p in found:
            both, a, b = ((predicted == p) & (truth == t)).sum(), (predicted == p).sum(), (truth == t).sum()
            iou = (both / {"iou": a + b - both, "true": b, "dice": (a + b) / 2}[overlap]).item()
            if iou > enough:
                ious.append(iou)
    below = {
        "PQ": len(ious) + half * (len(found) + len(true) - 2 * len(ious)),
        "SQ": len(ious),
        "of truth": len(true),
        "of found": len(found),
    }
    return sum(ious) / max(below[what], 1e-9)


def _found_alike(predicted, truth):
    """RQ: each match counts 1, however well it lies."""
    return _quality(predicted, truth) / max(_quality(predicted, truth, what="SQ"), 1e-9)


def _map(rows: str) -> Tensor:
    return torch.tensor([[int(digit) for digit in row] for row in rows.split()])


check_panoptic_quality = Check(
    "panoptic_quality",
    solution=_quality,
    cases=[
        {"predicted": _map("110022 110022 000002"), "truth": _map("111022 111000 000000")},
        {"predicted": _map("3300110 3300110 0040110 5500000"), "truth": _map("1100220 1110220 0000220 0030000")},
        {"predicted": _map("112233 112230 000000"), "truth": _map("222111 222111 003300")},
    ],
    mistakes={
        partial(_quality, enough=0):
            "You match whatever overlaps at all. Only an IoU above ½ counts: then no segment has two partners.",
        partial(_quality, half=1):
            "Misses and inventions count half each below the line.",
        partial(_quality, what="SQ"):
            "This is SQ, the mean IoU of what was found. What was missed or invented does not count in it.",
        _found_alike:
            "This is RQ: how many were found, and not how well. Add up their IoUs, not ones.",
        partial(_quality, what="of truth"):
            "You divide by the number of true segments: inventions would cost nothing.",
        partial(_quality, what="of found"):
            "You divide by the number of predicted segments: misses would cost nothing.",
        partial(_quality, overlap="true"):
            "You divide the overlap by the true area. IoU divides it by the union.",
        partial(_quality, overlap="dice"):
            "This overlap is dice, twice the intersection by the sum of the areas. PQ takes the IoU.",
        lambda predicted, truth: ((predicted > 0) & (truth > 0)).sum() / ((predicted > 0) | (truth > 0)).sum():
            "This is the IoU of the whole class, as in semantic segmentation: segments are not told apart.",
        lambda predicted, truth: _quality(predicted * (predicted == truth), truth * (predicted == truth)):
            "Segment 1 of the prediction need not be segment 1 of the truth: numbers only tell segments apart. Compare "
            "each with each.",
        lambda predicted, truth: 100 * _quality(predicted, truth):
            "This is a percentage. Return a number from 0 to 1.",
    },
    why="An IoU above ½ is rare enough that nobody can have it with two: so this matching needs no Hungarian method.",
)
