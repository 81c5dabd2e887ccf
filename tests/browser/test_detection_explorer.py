"""DetectionExplorer in a real browser, on a page without kernel and network."""

import io
import json

import numpy as np
import pytest
import torch
from pages import area, dataset
from PIL import Image

from minivis.widgets import DetectionExplorer

NAMES = ["circle", "square", "star"]


def explorer_of(queries=8, pictures=3, seed=0):
    """Random answers; the boxes lie side by side, so that each can be pointed at."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.arange(queries) + 0.5) / queries
    boxes = torch.stack(
        [x, torch.full_like(x, 0.5), torch.full_like(x, 0.08), torch.full_like(x, 0.4)], dim=1
    )
    outputs = {
        "pred_logits": 2 * torch.randn(pictures, queries, len(NAMES) + 1, generator=generator),
        "pred_boxes": boxes.expand(pictures, -1, -1),
    }
    targets = [{"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.9, 0.9]])}] * pictures
    grey = [Image.new("RGB", (160, 120), (60 * i, 60 * i, 60 * i)) for i in range(1, pictures + 1)]
    return DetectionExplorer(grey, outputs, NAMES, targets)


def shown(page) -> dict:
    """What the widget says that it shows, once it has drawn."""
    data = dataset(page)
    return {name: json.loads(text) for name, text in data.items() if name != "widget"}


def assert_agrees(page, explorer) -> None:
    """The page shows what Python says of the same threshold and picture."""
    state = shown(page)
    explorer.threshold, explorer.index = state["threshold"], state["index"]
    assert state["found"] == explorer.found
    boxes = page.eval_on_selector_all("g.answer", "all => all.map((box) => Number(box.dataset.query))")
    looked = {state["query"]} - {-1}
    assert set(boxes) == set(explorer.found) | looked
    assert f"{len(explorer.found)} of {len(explorer.boxes[0])} queries" in page.inner_text(".summary")


def test_the_slider_decides_which_answers_are_shown(open_widget):
    explorer = explorer_of()
    page = open_widget(explorer)
    assert_agrees(page, explorer)
    bar = area(page, ".mv-slider input")
    counts = []
    for part in (0.02, 0.3, 0.6, 0.98):
        page.mouse.move(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
        page.locator(".mv-slider input").fill(str(part))
        assert_agrees(page, explorer)
        counts.append(len(explorer.found))
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_bars_are_the_scores_in_order(open_widget):
    explorer = explorer_of()
    page = open_widget(explorer)
    scores = [score for score, _ in explorer.guesses()]
    bars = page.eval_on_selector_all(
        ".bar", "all => all.map(({ dataset }) => [dataset.query, dataset.score].map(Number))"
    )
    assert [query for query, _ in bars] == sorted(range(8), key=lambda query: -scores[query])
    assert [score for _, score in bars] == pytest.approx(sorted(scores, reverse=True), abs=1e-4)
    heights = page.eval_on_selector_all(
        ".bar span", "all => all.map((bar) => bar.getBoundingClientRect().height)"
    )
    assert heights == pytest.approx(
        [150 * score for score in sorted(scores, reverse=True)], abs=2.5
    )  # 1 px is line


def test_pointing_at_a_box_or_a_bar_shows_what_the_query_says(open_widget):
    explorer = explorer_of()
    explorer.threshold = 0.0
    page = open_widget(explorer)
    picture = area(page, ".picture")
    for query in (0, 5):
        x, y = picture["x"] + picture["width"] * (query + 0.5) / 8, picture["y"] + picture["height"] / 2
        page.mouse.move(x, y)
        assert shown(page)["query"] == query
        said = [float(value) for value in page.locator(".class output").all_inner_texts()]
        assert said == pytest.approx(explorer.probabilities[0][query], abs=0.0051)
    page.locator(".bar").nth(2).hover()
    assert shown(page)["query"] == int(page.locator(".bar").nth(2).get_attribute("data-query"))
    page.locator(".summary").hover()
    assert shown(page)["query"] == -1


def test_a_query_below_the_threshold_is_drawn_while_it_is_looked_at(open_widget):
    explorer = explorer_of()
    explorer.threshold = 1.0
    page = open_widget(explorer)
    assert page.locator("g.answer").count() == 0
    page.locator(".bar").first.hover()
    assert_agrees(page, explorer)
    assert page.locator("g.answer").count() == 1


def test_all_of_it_by_keyboard(open_widget):
    explorer = explorer_of()
    page = open_widget(explorer)
    page.locator(".mv-slider input").focus()
    page.keyboard.press("Home")
    assert shown(page)["threshold"] == 0
    page.keyboard.press("ArrowRight")
    assert shown(page)["threshold"] == 0.01
    page.locator(".bar").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    second = int(page.locator(".bar").nth(1).get_attribute("data-query"))
    assert shown(page)["query"] == second
    page.locator("button[aria-label='next picture']").press("Enter")
    assert shown(page)["index"] == 1 and shown(page)["query"] == -1
    page.locator("button[aria-label='previous picture']").press("Enter")
    page.locator("button[aria-label='previous picture']").press("Enter")
    assert shown(page)["index"] == 2
    assert_agrees(page, explorer)


def test_the_right_picture_is_under_the_right_boxes(open_widget):
    explorer = explorer_of()
    explorer.threshold, explorer.index = 1.0, 1
    page = open_widget(explorer)
    page.locator(".truth input").uncheck()
    page.wait_for_function("document.querySelector('.picture img').complete")
    pixels = np.asarray(Image.open(io.BytesIO(page.locator(".picture").screenshot())).convert("RGB"))
    assert abs(pixels.astype(int) - 120).max() <= 2  # the second picture's grey, and nothing drawn on it
    explorer.threshold = 0.0
    page = open_widget(explorer)
    assert page.locator("g.truth").count() == 1
    frame = area(page, "g.answer[data-query='3'] .frame")
    picture = area(page, ".picture")
    left = (frame["x"] - picture["x"]) / picture["width"]
    assert left == pytest.approx(3.5 / 8 - 0.04, abs=0.01)


def test_a_narrow_page_has_the_picture_above_the_scores(open_widget):
    page = open_widget(explorer_of(), width=480)
    figure, panel = area(page, "figure"), area(page, ".panel")
    assert figure["y"] + figure["height"] <= panel["y"] + 1
    assert figure["width"] > 400


def test_one_picture_needs_no_pager_and_unknown_truth_no_switch(open_widget):
    explorer = explorer_of(pictures=1)
    page = open_widget(explorer)
    assert page.locator(".pager").is_hidden() and page.locator("label.truth").is_visible()
    outputs = {"pred_logits": torch.zeros(1, 2, 4), "pred_boxes": torch.full((1, 2, 4), 0.5)}
    page = open_widget(DetectionExplorer([Image.new("RGB", (50, 50))], outputs, NAMES))
    assert page.locator("label.truth").is_hidden()
