"""PrecisionRecallExplorer in Python: what it takes, what it counts, words and picture."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image
from torchvision.ops import box_iou

from minivis.widgets import base, precision_recall_explorer, precision_recall_picture
from minivis.widgets.precision_recall_explorer import PrecisionRecallExplorer

NAMES = ["circle", "square", "star"]
PICTURE = Image.new("RGB", (60, 40), "#888")


def problem(images=4, queries=8, seed=0, noise=0.02):
    """Targets, and predictions near them: some with a partner on the same object, some of a wrong class."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, queries, len(NAMES) + 1, generator=generator)
    boxes, targets = [], []
    for i in range(images):
        count = 1 + i % 4
        size = 0.1 + 0.3 * torch.rand(count, 2, generator=generator)
        centre = size / 2 + (1 - size) * torch.rand(count, 2, generator=generator)
        target = {
            "labels": torch.randint(0, len(NAMES), (count,), generator=generator),
            "boxes": torch.cat([centre, size], dim=1),
        }
        owner = torch.arange(queries) % count
        near = target["boxes"][owner] + noise * torch.randn(queries, 4, generator=generator)
        logits[i, torch.arange(queries), target["labels"][owner]] += 2
        boxes.append(near.clamp(0.02, 0.98))
        targets.append(target)
    return {"pred_logits": logits, "pred_boxes": torch.stack(boxes)}, targets


def explorer_of(images=4, **options):
    outputs, targets = problem(images, **options)
    rough = {**outputs, "pred_boxes": (outputs["pred_boxes"] * 0.9 + 0.02)}
    return PrecisionRecallExplorer([PICTURE] * images, {"first": rough, "last": outputs}, targets, NAMES)


def test_counts_are_what_one_finds_box_by_box():
    explorer = explorer_of(noise=0.05)
    explorer.score, explorer.iou = 0.6, 0.7
    right = wrong = missed = 0
    outputs, targets = problem(noise=0.05)
    for logits, found, target in zip(outputs["pred_logits"], outputs["pred_boxes"], targets):
        scores, labels = logits.softmax(-1)[:, :-1].max(-1)
        corners = [
            torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1) for b in (found, target["boxes"])
        ]
        overlap, free = box_iou(*corners), set(range(len(target["labels"])))
        for q in scores.argsort(descending=True).tolist():
            if scores[q] < 0.6:
                continue
            able = [j for j in free if target["labels"][j] == labels[q] and overlap[q, j] >= 0.7]
            if able:
                free.remove(max(able, key=lambda j: overlap[q, j].item()))
                right += 1
            else:
                wrong += 1
        missed += len(free)
    assert explorer.counts() == {"right": right, "wrong": wrong, "missed": missed}
    assert right and wrong and missed
    whole = [explorer.counts(i) for i in range(4)]
    assert sum(each["wrong"] for each in whole) == wrong
    by_class = []
    for label in range(3):
        explorer.label = label
        by_class.append(explorer.counts()["right"])
    assert sum(by_class) == right


def test_suppression_takes_the_second_box_of_an_object_and_nothing_else():
    box, aside = [0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]
    logits = torch.tensor([[[4.0, 0, 0, 0], [3.0, 0, 0, 0], [0, 3.0, 0, 0], [2.0, 0, 0, 0]]])
    outputs = {"pred_logits": logits, "pred_boxes": torch.tensor([[box, box, box, aside]])}
    target = {"labels": torch.tensor([0]), "boxes": torch.tensor([box])}
    explorer = PrecisionRecallExplorer([PICTURE], {"only": outputs}, [target], NAMES)
    explorer.score = 0.0
    assert explorer.counts() == {"right": 1, "wrong": 3, "missed": 0}
    explorer.suppress = True
    assert explorer.counts() == {"right": 1, "wrong": 2, "missed": 0}
    assert explorer.images()[0].found["labels"].tolist() == [0, 1, 0], "another class may lie there as well"


def test_words():
    explorer = explorer_of()
    counts, words = explorer.counts(), explorer.describe()
    assert words.startswith(
        "Detections in 4 pictures (last; all classes), score at least 0.50, IoU at least 0.50: "
    )
    assert f"{counts['right']} right, {counts['wrong']} wrong, {counts['missed']} missed" in words
    assert f"AP over ten thresholds {explorer.average_precision():.2f}." in words
    explorer.suppress, explorer.label, explorer.score = True, 1, 1.0
    assert "(last, after NMS; square)" in explorer.describe() and "precision –" in explorer.describe()
    assert repr(explorer) == explorer.describe() == explorer._repr_mimebundle_()[0]["text/plain"]


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("label", [-1, 0, 2])
def test_every_choice_can_be_drawn(images, label):
    explorer = explorer_of(images)
    explorer.label, explorer.shown, explorer.iou = label, images - 1, 0.95
    picture = np.asarray(explorer.draw())
    assert picture.shape[:2] == (420, 900) and picture.std() > 10


def test_the_picture_shows_what_is_right_wrong_and_missed():
    """A right box alone has one colour, the same prediction moved away two others."""

    def colours(shift):
        target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.3, 0.5, 0.3, 0.5]])}
        outputs = {
            "pred_logits": torch.tensor([[[9.0, 0, 0, 0]]]),
            "pred_boxes": target["boxes"][None] + torch.tensor([shift, 0, 0, 0]),
        }
        picture = PrecisionRecallExplorer([PICTURE], {"only": outputs}, [target], NAMES).draw()
        left = np.asarray(picture.crop((0, 40, 340, 420))).reshape(-1, 3)
        return {"#" + bytes(pixel).hex().upper() for pixel in np.unique(left, axis=0)}

    alone, apart = colours(0.0), colours(0.4)
    assert precision_recall_picture.RIGHT in alone and precision_recall_picture.WRONG not in alone
    assert {precision_recall_picture.WRONG, precision_recall_picture.MISSED} <= apart


def test_what_is_drawn_is_what_the_live_widget_shows():
    """Two sources of the same constants, in two languages."""
    folder = Path(base.__file__).parent
    boxes, explorer = (
        (folder / "judged_boxes.js").read_text(),
        (folder / "precision_recall_explorer.js").read_text(),
    )
    for name in ("RIGHT", "WRONG", "MISSED"):
        assert f'{name} = "{getattr(precision_recall_picture, name)}"' in boxes
    assert f"const NAMED = {precision_recall_picture.NAMED};" in boxes
    for name in ("ALL_CLASSES", "NMS_IOU"):
        assert f"const {name} = {getattr(precision_recall_explorer, name)};" in explorer


@pytest.mark.parametrize("label", [-1, 1])
def test_the_score_threshold_is_a_point_of_the_pooled_curve(label):
    explorer = explorer_of(noise=0.05)
    explorer.label, explorer.score, explorer.iou = label, 0.6, 0.7
    recall, precision = precision_recall_picture.pooled_curve(explorer)
    counts = explorer.counts()
    found = counts["right"] + counts["wrong"]
    assert 0 < found < len(recall)
    assert precision[found - 1] == pytest.approx(counts["right"] / found)
    assert recall[found - 1] == pytest.approx(counts["right"] / (counts["right"] + counts["missed"]))


def test_a_photograph_is_carried_small():
    outputs, targets = problem(images=1)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8))
    explorer = PrecisionRecallExplorer([noise], {"last": outputs}, targets, NAMES)
    assert len(explorer.pictures[0]) < 200_000
    assert noise.size == (1200, 900), "the picture that was given stays as it is"


def test_wrong_input_is_named():
    outputs, targets = problem()

    def refused(match, **changes):
        given = (
            dict(pictures=[PICTURE] * 4, sources={"last": outputs}, targets=targets, class_names=NAMES)
            | changes
        )
        with pytest.raises(ValueError, match=match):
            PrecisionRecallExplorer(**given)

    refused("at least one picture", sources={})
    refused("3 pictures, but 4 targets", pictures=[PICTURE] * 3)
    refused(r"5 columns \(4 class names and 'no object'\), got 4", class_names=[*NAMES, "ring"])
    refused(
        r"last: expected pred_logits \(4, .* got \(3, 8, 4\)",
        sources={"last": {k: v[:3] for k, v in outputs.items()}},
    )
    refused("not finite", sources={"last": outputs | {"pred_boxes": outputs["pred_boxes"] * np.nan}})
    refused("label 7, expected 0 to 2", targets=[targets[0] | {"labels": torch.tensor([7])}, *targets[1:]])


@pytest.mark.parametrize(("name", "value"), [("iou", 0.52), ("label", 3), ("shown", 4), ("source", "middle")])
def test_a_choice_that_is_not_there_is_refused(name, value):
    explorer = explorer_of()
    before = getattr(explorer, name)
    with pytest.raises(ValueError, match=re.escape(f"{name}: expected one of")):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_a_sliders_threshold_is_the_nearest():
    explorer = explorer_of()
    explorer.iou = 0.5 + 3 * 0.05
    assert explorer.iou == 0.65
    with pytest.raises(traitlets.TraitError):
        explorer.score = 1.5
