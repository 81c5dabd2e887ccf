"""PrecisionRecallExplorer in a real browser, on a page without kernel and network."""

import json

import pytest
import torch
from pages import area, dataset
from PIL import Image
from torchvision.ops import batched_nms

from minivis.evaluation.precision_recall import (
    IOU_THRESHOLDS,
    ImageDetections,
    at_recalls,
    match_detections,
    mean_average_precision,
    precision_recall,
)
from minivis.widgets.precision_recall_explorer import PrecisionRecallExplorer

NAMES = ["circle", "square", "star"]


def images_of(seed, images=6, levels=None):
    """Detections near random objects; with `levels` many have the same score."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(images):
        count = int(torch.randint(0, 6, (), generator=generator))
        corner = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        boxes = torch.cat([corner, corner + 0.1 + 0.4 * torch.rand(count, 2, generator=generator)], dim=1)
        labels = torch.randint(0, len(NAMES), (count,), generator=generator)
        scores = torch.rand(4 * count, generator=generator, dtype=torch.float64)
        if levels:
            scores = (levels * scores).floor() / levels
        wrong = torch.rand(4 * count, generator=generator) < 0.2
        found = torch.where(wrong, (labels.repeat(4) + 1) % len(NAMES), labels.repeat(4))
        near = boxes.repeat(4, 1) + 0.02 * torch.randn(4 * count, 4, generator=generator)
        made.append(
            ImageDetections(
                {"scores": scores, "labels": found, "boxes": near}, {"labels": labels, "boxes": boxes}
            )
        )
    return made


def as_lists(images):
    return [
        {side: {k: v.tolist() for k, v in getattr(image, side).items()} for side in image._fields}
        for image in images
    ]


def explorer_of(images=5, queries=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, boxes, targets = torch.randn(images, queries, 4, generator=generator), [], []
    for i in range(images):
        count = 1 + i % 3
        size = 0.15 + 0.2 * torch.rand(count, 2, generator=generator)
        target = {
            "labels": torch.randint(0, 3, (count,), generator=generator),
            "boxes": torch.cat(
                [size / 2 + (1 - size) * torch.rand(count, 2, generator=generator), size], dim=1
            ),
        }
        owner = torch.arange(queries) % count
        logits[i, torch.arange(queries), target["labels"][owner]] += 2
        boxes.append(
            (target["boxes"][owner] + 0.02 * torch.randn(queries, 4, generator=generator)).clamp(0.05, 0.95)
        )
        targets.append(target)
    last = {"pred_logits": logits, "pred_boxes": torch.stack(boxes)}
    first = {"pred_logits": logits.flip(1), "pred_boxes": last["pred_boxes"].roll(1, dims=1)}
    pictures = [Image.new("RGB", (120, 90), f"#{40 * i:02x}8888") for i in range(images)]
    return PrecisionRecallExplorer(pictures, {"first": first, "last": last}, targets, NAMES)


def shown(page) -> dict:
    """What the widget says that it shows, once it has drawn."""
    data = dataset(page)
    return {name: text if name in ("source", "widget") else json.loads(text) for name, text in data.items()}


def assert_agrees(page, explorer) -> dict:
    """The page shows what Python says of the same choices."""
    state = shown(page)
    for name in ("source", "suppress", "score", "iou", "label", "shown"):
        setattr(explorer, name, state[name])
    assert {name: state[name] for name in ("right", "wrong", "missed")} == explorer.counts()
    assert state["apHere"] == pytest.approx(explorer.average_precision([explorer.iou]), abs=1e-5)
    assert state["ap"] == pytest.approx(explorer.average_precision(), abs=1e-5)
    boxes = page.evaluate(
        "() => ['right', 'wrong', 'missed'].map((kind) => document.querySelectorAll(`.judged.${kind}`).length)"
    )
    assert boxes == list(explorer.counts(explorer.shown).values()), "boxes in the picture"
    return state


# --------------------------------------------------------------------------- the mathematics


def test_matching_curve_and_average_precision_are_pythons(open_widget):
    page = open_widget(explorer_of())
    for seed in range(20):
        images = images_of(seed, levels=4 if seed % 2 else None)
        iou = IOU_THRESHOLDS[seed % 10]
        matched, curves, sampled, whole, one = page.evaluate(
            """([images, iou]) => {
                const curves = [0, 1, 2].map((label) => widget.precisionRecall(images, label, iou));
                return [images.map((image) => widget.matchDetections(image, iou)), curves, curves.map(widget.atRecalls),
                        widget.averagePrecision(images), widget.averagePrecision(images, [iou], [1])];
            }""",
            [as_lists(images), iou],
        )
        assert matched == [match_detections(image, iou) for image in images]
        for label, (curve, values) in enumerate(zip(curves, sampled)):
            expected = precision_recall(images, label, iou)
            assert curve["right"] == expected.right.tolist()
            for name in ("scores", "precision", "recall"):
                assert curve[name] == pytest.approx(getattr(expected, name).tolist(), abs=1e-12)
            assert values == pytest.approx(at_recalls(expected).tolist(), abs=1e-12)
        assert whole == pytest.approx(mean_average_precision(images), abs=1e-9)
        expected = mean_average_precision(images, [iou], [1])
        assert (
            (one is None or one != one) if expected != expected else one == pytest.approx(expected, abs=1e-9)
        )


def test_suppression_is_torchvisions(open_widget):
    page = open_widget(explorer_of())
    for seed in range(40):
        image = images_of(seed, images=1)[0].found
        iou = 0.3 + 0.1 * (seed % 6)
        kept = page.evaluate(
            "([found, iou]) => widget.nonMaximumSuppression(found, iou)",
            [{k: v.tolist() for k, v in image.items()}, iou],
        )
        assert kept == batched_nms(image["boxes"], image["scores"], image["labels"], iou).tolist()


# --------------------------------------------------------------------------- what is moved


def test_what_is_shown_at_first_is_what_python_says(open_widget):
    explorer = explorer_of()
    state = assert_agrees(open_widget(explorer), explorer)
    assert (state["score"], state["iou"], state["source"], state["label"]) == (0.5, 0.5, "last", -1)


def test_thresholds_by_keyboard_and_by_bars(open_widget):
    page = open_widget(explorer := explorer_of())
    score, iou = page.locator("input[type=range]").all()
    before = shown(page)
    score.focus()
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    state = assert_agrees(page, explorer)
    assert state["score"] == pytest.approx(0.2) and state["ap"] == before["ap"], (
        "AP has no threshold of its own"
    )
    assert state["right"] + state["wrong"] > before["right"] + before["wrong"]
    iou.focus()
    for step in range(1, 10):
        page.keyboard.press("ArrowRight")
        assert assert_agrees(page, explorer)["iou"] == IOU_THRESHOLDS[step]
    page.locator(".bar").nth(5).click()
    assert assert_agrees(page, explorer)["iou"] == 0.75
    page.get_by_role("button", name="Reset").click()
    state = assert_agrees(page, explorer)
    assert (state["score"], state["iou"]) == (0.5, 0.5)


def test_predictions_classes_suppression_and_pictures(open_widget):
    page = open_widget(explorer := explorer_of())
    page.get_by_label("predictions").select_option("first")
    assert assert_agrees(page, explorer)["source"] == "first"
    page.get_by_label("classes").select_option("square")
    assert assert_agrees(page, explorer)["label"] == 1
    page.get_by_label("classes").select_option("all classes")
    for _ in range(shown(page)["shown"]):  # it has turned to a picture with a square
        page.get_by_role("button", name="previous picture").click()
    before = shown(page)
    page.get_by_label("NMS").check()
    state = assert_agrees(page, explorer)
    assert state["suppress"] and state["right"] + state["wrong"] < before["right"] + before["wrong"]
    source = page.locator(".picture img").get_attribute("src")
    page.get_by_role("button", name="next picture").click()
    assert assert_agrees(page, explorer)["shown"] == 1
    assert page.locator(".picture img").get_attribute("src") != source
    for _ in range(2):
        page.get_by_role("button", name="previous picture").click()
    assert assert_agrees(page, explorer)["shown"] == 4, "before the first comes the last"
    assert page.inner_text(".turner span") == "picture 5 of 5"


def test_nothing_is_above_a_score_of_one(open_widget):
    page = open_widget(explorer := explorer_of())
    page.locator("input[type=range]").first.fill("1")
    state = assert_agrees(page, explorer)
    assert (state["right"], state["wrong"]) == (0, 0)
    assert "precision –" in page.inner_text(".counted")
    assert not page.locator(".point").is_visible()


def test_the_dot_lies_on_the_list_that_is_drawn(open_widget):
    page = open_widget(explorer_of())
    for label in ("all classes", "square"):
        page.get_by_label("classes").select_option(label)
        for score in ("0.5", "0.8"):
            page.locator("input[type=range]").first.fill(score)
            shown(page)
            x, y = (float(page.locator(".point").get_attribute(name)) for name in ("cx", "cy"))
            corners = page.locator(".zigzag").get_attribute("d").replace("M", "").split("L")
            away = [max(abs(x - float(a)), abs(y - float(b))) for a, b in (c.split() for c in corners)]
            assert min(away) < 0.11, "units of the drawing; the path is rounded to a tenth"


def test_a_class_that_the_picture_lacks_turns_to_one_that_has_it(open_widget):
    page = open_widget(explorer := explorer_of())
    missing = 0
    for label, name in enumerate(NAMES):
        page.get_by_role("button", name="Reset").click()
        page.get_by_label("classes").select_option(name)
        state = assert_agrees(page, explorer)
        having = [i for i, truth in enumerate(explorer.truths) if label in truth["labels"]]
        assert state["shown"] == having[0], "the first from picture 0 on"
        missing += having[0] > 0
    assert missing, "one class at least is not in the first picture"


def test_a_hesitant_box_says_its_name_under_the_pointer_only(open_widget):
    outputs = {
        "pred_logits": torch.tensor([[[6.0, 0, 0, 0], [-1.0, 0, 0, 6.0]]]),
        "pred_boxes": torch.tensor([[[0.3, 0.5, 0.3, 0.3], [0.7, 0.5, 0.2, 0.3]]]),
    }
    target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.3, 0.5, 0.3, 0.3]])}
    page = open_widget(
        PrecisionRecallExplorer([Image.new("RGB", (120, 90))], {"only": outputs}, [target], NAMES)
    )
    page.locator("input[type=range]").first.fill("0")
    shown(page)
    tags = page.locator(".judged.wrong .tag")
    assert page.locator(".judged.right .tag").is_visible() and tags.count() == 1 and not tags.is_visible()
    box = area(page, ".judged.wrong rect.frame")
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2)
    assert tags.is_visible()


# --------------------------------------------------------------------------- what is seen


def test_boxes_lie_where_they_are(open_widget):
    page = open_widget(explorer_of())
    box = area(page, ".picture")
    explorer = explorer_of()
    frames = page.locator(".judged.right rect.frame").all()
    found = explorer.images()[0].found
    expected = {tuple(round(v, 2) for v in corners) for corners in found["boxes"].tolist()}
    for frame in frames:
        at = frame.bounding_box()
        left, top = (at["x"] - box["x"]) / box["width"], (at["y"] - box["y"]) / box["height"]
        corners = (left, top, left + at["width"] / box["width"], top + at["height"] / box["height"])
        assert any(all(abs(a - b) < 0.02 for a, b in zip(corners, other)) for other in expected)
    assert frames


@pytest.mark.parametrize("width", [360, 600, 940])
def test_nothing_is_wider_than_the_page(open_widget, width):
    page = open_widget(explorer_of(), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
