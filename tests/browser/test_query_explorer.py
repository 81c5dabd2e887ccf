"""QueryExplorer in a real browser, on a page without kernel and network: what it computes is what Python does."""

import io
import json

import numpy as np
import pytest
import torch
from pages import area, dataset
from PIL import Image

import minivis
from minivis.data.scenes import Scenes, World, load_shipped_scenes
from minivis.experiments.matching import average_precision
from minivis.widgets.query_answers import objects_per_class, ranked
from minivis.widgets.query_explorer import QueryExplorer

IMAGES, QUERIES, LAYERS = 40, 25, 3
ROOT = "[data-widget=query-explorer]"


@pytest.fixture(scope="module")
def explorer():
    """Of the trained model, so that there are right and wrong answers, rivals and duplicates."""
    widget = QueryExplorer(minivis.load("detr-mini"), load_shipped_scenes(), scenes=[7, 24], evaluated=IMAGES)
    png = widget._png()
    widget._png = lambda: png  # drawn once for all tests
    return widget


@pytest.fixture
def page(explorer, open_widget):
    explorer.scene, explorer.layer, explorer.head, explorer.dropped = 0, LAYERS, -1, []
    explorer.query = explorer.shown.surest()
    page = open_widget(explorer, width=960, height=760)
    page.locator(ROOT).focus()
    return page


def shown(page) -> dict[str, str]:
    """What the widget says that it shows, once it has drawn."""
    return dataset(page)


def assert_agrees(page, explorer) -> dict[str, str]:
    """The page shows what Python says of the same choice."""
    state = shown(page)
    for name in ("scene", "query", "layer", "head"):
        setattr(explorer, name, int(state[name]))
    explorer.dropped = [int(query) for query in state["dropped"].split()]
    row = explorer.shown.probabilities[explorer.layer - 1, explorer.query, :-1]
    assert state["class"] == explorer.class_names[row.argmax()]
    assert float(state["score"]) == pytest.approx(row.max(), abs=1e-4)
    box = explorer.shown.boxes[explorer.layer - 1, explorer.query]
    assert [float(side) for side in state["box"].split()] == pytest.approx(box.tolist(), abs=1e-5)
    assert float(state["inside"]) == pytest.approx(
        explorer.share_inside(), abs=5e-3
    )  # attention in 255 steps
    assert float(state["ap"]) == pytest.approx(explorer.average_precision(), abs=1e-6)
    values = page.eval_on_selector_all(".ap", "all => all.map((row) => Number(row.dataset.ap))")
    wanted = [explorer.average_precision(layer) for layer in range(1, LAYERS + 1)]
    assert values == pytest.approx(wanted, abs=1e-6)
    return state


# Average precision


def in_javascript(page, outputs, targets, classes, keeps):
    layer = {name: list(data) for name, data in ranked(outputs, targets).items()}
    return page.evaluate(
        """([layer, objects, keeps]) => {
          const bytes = Object.fromEntries(Object.entries(layer).map(([name, all]) => [name, Uint8Array.from(all)]));
          const precision = widget.precisionOfRanking(widget.unpackedRanking(bytes), objects);
          return keeps.map((isKept) => precision(isKept));
        }""",
        [layer, objects_per_class(targets, classes), keeps],
    )


def test_average_precision_of_what_is_kept_is_cocos(page, explorer):
    """Any queries dropped, after any layer; one alone, and none."""
    rng = np.random.default_rng(0)
    keeps = [rng.random(QUERIES) < share for share in (0.95, 0.8, 0.6, 0.4, 0.2)]
    keeps += [np.ones(QUERIES, bool), np.arange(QUERIES) == 3]
    for layer in range(LAYERS):
        outputs = explorer._layers[layer]
        found = in_javascript(
            page, outputs, explorer._targets, len(explorer.class_names), [keep.tolist() for keep in keeps]
        )
        for keep, precision in zip(keeps, found):
            rest = {name: values[:, torch.from_numpy(keep)] for name, values in outputs.items()}
            coco = average_precision(rest, explorer._targets, explorer._dataset)
            assert precision["ap"] == pytest.approx(coco["AP"], abs=1e-6)
            assert precision["ap50"] == pytest.approx(coco["AP50"], abs=1e-6)
    nothing = in_javascript(page, outputs, explorer._targets, len(explorer.class_names), [[False] * QUERIES])
    assert nothing == [{"ap": 0, "ap50": 0}]


def test_average_precision_where_answers_crowd(page):
    """Random boxes near the objects, with wrong classes, duplicates, equal scores and a class without objects."""
    data = Scenes("val", World(size=64, shapes=("circle", "square", "triangle"), max_objects=5), size=12)
    targets = data.prepare(data.collate([data[i] for i in range(12)])).targets
    generator = torch.Generator().manual_seed(0)
    for round_ in range(6):
        boxes, logits = [], []
        for target in targets:
            own = torch.randint(len(target["labels"]), (20,), generator=generator)
            noise = 0.04 * torch.randn(20, 4, generator=generator)
            boxes.append((target["boxes"][own] + noise).clamp(0.02, 0.98))
            score = 2 * torch.randn(20, 4, generator=generator)
            score[torch.arange(20), target["labels"][own]] += 2
            logits.append(score.round() if round_ % 2 else score)
        outputs = {"pred_logits": torch.stack(logits), "pred_boxes": torch.stack(boxes)}
        keep = torch.rand(20, generator=generator) < 0.7
        (found,) = in_javascript(page, outputs, targets, 3, [keep.tolist()])
        rest = {name: values[:, keep] for name, values in outputs.items()}
        # Of answers that are equally sure COCO may take another first, so with rounded scores less is asked.
        assert found["ap"] == pytest.approx(
            average_precision(rest, targets, data)["AP"], abs=1e-3 if round_ % 2 else 1e-6
        )


# What is chosen


def test_keys(page, explorer):
    first = int(assert_agrees(page, explorer)["query"])
    for key, name, value in [
        ("ArrowRight", "query", (first + 1) % QUERIES),
        ("ArrowLeft", "query", first),
        ("ArrowUp", "layer", LAYERS - 1),
        ("ArrowDown", "layer", LAYERS),
        ("ArrowDown", "layer", LAYERS),
        ("h", "head", 0),
        ("h", "head", 1),
        ("Escape", "head", -1),
        ("x", "dropped", first),
    ]:
        page.keyboard.press(key)
        assert assert_agrees(page, explorer)[name] == str(value), key
    page.keyboard.press("Delete")
    assert shown(page)["dropped"] == ""
    for _ in range(QUERIES):
        page.keyboard.press("ArrowRight")
    assert shown(page)["query"] == str(first), "after the last comes the first"
    for _ in range(8):
        page.keyboard.press("h")
    assert shown(page)["head"] == "7"
    page.keyboard.press("h")
    assert shown(page)["head"] == "-1"


def test_clicks(page, explorer):
    page.locator(".chip[data-query='4']").click()
    page.locator(".layer[data-layer='1']").click()
    page.locator(".tile[data-head='5']").click()
    state = assert_agrees(page, explorer)
    assert (state["query"], state["layer"], state["head"]) == ("4", "1", "5")
    page.get_by_text("drop query 4").click()
    assert assert_agrees(page, explorer)["dropped"] == "4"
    page.get_by_text("take back query 4").click()
    page.locator(".ap[data-layer='2']").click()
    page.get_by_label("scene", exact=True).select_option("1")
    state = assert_agrees(page, explorer)
    assert (state["dropped"], state["layer"], state["scene"]) == ("", "2", "1")


def test_a_click_on_a_box_chooses_its_query(page, explorer):
    """The smallest box below the pointer; boxes of which nobody is sure are not there to be clicked."""
    picture = area(page, ".picture")
    scores = explorer.shown.probabilities[-1, :, :-1].max(-1)
    sure = [query for query in np.flatnonzero(scores >= 0.5).tolist() if query != explorer.query]
    assert sure
    for query in sure:
        cx, cy, w, h = explorer.shown.boxes[-1, query].tolist()
        left, bottom = cx - w / 2 + 0.012, cy + h / 2 - 0.012
        page.mouse.click(picture["x"] + left * picture["width"], picture["y"] + bottom * picture["height"])
        around = [
            other
            for other in np.flatnonzero(scores >= 0.5).tolist()
            if abs(explorer.shown.boxes[-1, other, 0] - left) <= explorer.shown.boxes[-1, other, 2] / 2
            and abs(explorer.shown.boxes[-1, other, 1] - bottom) <= explorer.shown.boxes[-1, other, 3] / 2
        ]
        smallest = min(around, key=lambda other: explorer.shown.boxes[-1, other, 2:].prod())
        assert shown(page)["query"] == str(smallest)


def test_the_slider_keeps_the_busiest(page, explorer):
    page.get_by_label("keep the busiest").fill("9")
    state = assert_agrees(page, explorer)
    busy = np.array(explorer.answers["sure"][-1])
    dropped = [int(query) for query in state["dropped"].split()]
    assert len(dropped) == 16 and busy[dropped].max() <= np.delete(busy, dropped).min()
    assert "with 9 of 25 queries" in page.inner_text(".precision")
    page.get_by_label("keep the busiest").fill("25")
    assert shown(page)["dropped"] == ""


def test_python_may_choose_what_is_seen_first(explorer, open_widget):
    explorer.scene, explorer.query, explorer.layer, explorer.head, explorer.dropped = 1, 6, 1, 2, [6, 9]
    page = open_widget(explorer)
    state = assert_agrees(page, explorer)
    assert (state["query"], state["dropped"]) == ("6", "6 9")
    assert page.locator(".chosen[data-dropped]").count() == 1


# What is seen


def test_attention_lies_on_its_pixels(page, explorer):
    """Cells that are looked at most are the brightest, each on the sixteen pixels it stands for."""
    page.locator(".tile[data-head='3']").click()
    shown(page)
    explorer.head, explorer.query = 3, int(shown(page)["query"])
    weights = explorer.attention()
    alpha = np.array(
        page.evaluate(
            """() => {
              const canvas = document.querySelector(".picture canvas");
              const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              const cell = canvas.width / 8;
              return Array.from({ length: 64 }, (_, i) => {
                const pixel = (x, y) => 4 * (Math.round(y) * canvas.width + Math.round(x));
                const at = (x, y) => [0, 1, 2, 3].map((c) => data[pixel(x, y) + c]);
                const [row, column] = [Math.floor(i / 8), i % 8];
                return [at(column * cell + 1, row * cell + 1), at((column + 1) * cell - 2, (row + 1) * cell - 2)];
              });
            }"""
        )
    )
    assert (alpha[:, 0] == alpha[:, 1]).all(), "a cell has one colour, up to its edges"
    red = alpha[:, 0, 0]
    steps = np.round(weights.flatten() / weights.max() * 255)
    assert red.argmax() == weights.argmax() and red.max() > 200
    assert (np.diff(red[steps.argsort(kind="stable")]) >= -2).all(), "more attention is never darker"


def test_boxes_lie_where_they_should(page, explorer):
    page.keyboard.press("Escape")
    shown(page)
    box = explorer.shown.boxes[-1, explorer.query]
    rect = page.eval_on_selector(
        "rect.chosen", "r => ['x', 'y', 'width', 'height'].map((name) => Number(r.getAttribute(name)))"
    )
    assert rect == pytest.approx([*(box[:2] - box[2:] / 2), *box[2:]], abs=1e-5)
    sure = int((explorer.shown.probabilities[-1, :, :-1].max(-1) >= 0.5).sum())
    assert page.locator("rect.sure").count() == page.locator("rect.catch").count() == sure - 1
    assert page.locator("rect.unsure").count() == QUERIES - sure
    assert page.locator("rect.earlier").count() == LAYERS - 1
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    shown(page)
    assert page.locator("rect.sure").count() == sure - 1, "what is dropped is not drawn"
    page.get_by_label("true boxes").check()
    shown(page)
    assert page.locator("rect.truth").count() == len(explorer.scenes[0]["labels"])


def test_attention_can_be_taken_away(page):
    page.get_by_label("attention", exact=True).uncheck()
    shown(page)
    assert page.evaluate(
        """() => {
          const canvas = document.querySelector(".picture canvas");
          return canvas.getContext("2d").getImageData(0, 0, 512, 512).data.every((value) => value === 0);
        }"""
    )


COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # in the order of the classes


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def canvas_pixels(page, index: int) -> np.ndarray:
    data, width, height = page.evaluate(
        """(index) => {
          const canvas = document.querySelectorAll(".field canvas")[index], { width, height } = canvas;
          return [[...canvas.getContext("2d").getImageData(0, 0, width, height).data], width, height];
        }""",
        index,
    )
    return np.array(data).reshape(height, width, 4)[..., :3]


def test_dots_lie_where_the_query_answers(page, explorer):
    """In the colours of their classes, at the middles of their boxes: where no dot lies nearby, exactly there."""
    page.locator(".chip[data-query='3']").click()
    shown(page)
    explorer.query, explorer.layer = 3, LAYERS
    boxes, scores, labels = explorer.spots_of(3)
    pixels, middles, seen = canvas_pixels(page, 0), boxes[:, :2] * 300, 0
    ring = explorer.shown.boxes[-1, 3, :2] * 300
    for number in np.flatnonzero(scores > 0.9):
        near = np.linalg.norm(middles - middles[number], axis=1) < 8
        if near.sum() > 1 or np.linalg.norm(ring - middles[number]) < 15:
            continue
        x, y = np.clip(middles[number].astype(int), 0, 299)
        wanted = 0.85 * np.array(rgb(COLOURS[labels[number]])) + 0.15 * 246
        assert np.abs(pixels[y, x] - wanted).max() < 4
        seen += 1
    assert seen > 3
    assert f"sure of an object in {explorer.answers['sure'][-1][3]} of them" in page.inner_text(".field")


def test_bars_count_sizes_and_classes(page, explorer):
    """The columns that are not empty are those of the sizes of sure boxes; the highest is the commonest size."""
    page.locator(".chip[data-query='3']").click()
    shown(page)
    explorer.query, explorer.layer = 3, LAYERS
    boxes, scores, labels = explorer.spots_of(3)
    sure = scores >= 0.5
    bins = np.minimum(23, np.floor(np.sqrt(boxes[sure, 2] * boxes[sure, 3]) / 0.6 * 24).astype(int))
    counts = np.bincount(bins, minlength=24)
    pixels, columns = canvas_pixels(page, 1), (300 / 24 * (np.arange(24) + 0.5)).astype(int)
    bars = (np.abs(pixels - 246).max(-1) > 20)[:, columns].sum(0)  # coloured pixels in each
    assert bars == pytest.approx(counts / counts.max() * 112, abs=1.5)
    fullest = pixels[:, columns[counts.argmax()]]
    for label in set(labels[sure][bins == counts.argmax()]):
        assert (np.abs(fullest - rgb(COLOURS[label])).max(-1) < 8).any(), "its class is there in its colour"


def test_a_choice_of_ones_own_is_not_called_the_busiest(page):
    slider = page.locator(".precision .mv-slider output")
    page.locator(".chip[data-query='3']").click()
    page.keyboard.press("x")
    shown(page)
    assert slider.inner_text() == "own choice"
    page.keyboard.press("x")
    page.get_by_label("keep the busiest").fill("24")
    shown(page)
    assert slider.inner_text() == "24"


def test_labels_of_boxes_that_lie_on_each_other_do_not(open_widget):
    """Scene 482: three queries answer with the same star, and each can be clicked by its label."""
    widget = QueryExplorer(
        minivis.load("detr-mini"), load_shipped_scenes(), scenes=[482], evaluated=3, query=21
    )
    page = open_widget(widget, width=960, height=760)
    for query in (0, 7, 20):
        page.locator(f".tag[data-query='{query}']").click(timeout=2000)
        assert shown(page)["query"] == str(query)


@pytest.mark.parametrize("width", [400, 640, 940])
def test_nothing_lies_outside(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    shown(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        f"""() => {{
          const root = document.querySelector("{ROOT}").getBoundingClientRect();
          const parts = ".picture, .tile, .chip, table, .field *, .precision *, .list *";
          return [...document.querySelectorAll(parts)].filter((e) => {{
            const box = e.getBoundingClientRect();
            return box.width && (box.left < root.left - 1 || box.right > root.right + 1);
          }}).map((e) => e.outerHTML.slice(0, 120));
        }}"""
    )
    assert outside == []


def test_it_is_seen(page):
    seen = np.array(Image.open(io.BytesIO(page.locator(".picture").screenshot())).convert("RGB"))
    assert seen.std() > 10


def test_views_let_go_and_hear_python(page):
    """As in a notebook: the model is asked and watched, and may be changed from outside."""
    result = page.evaluate(
        """async () => {
          const floats = (...all) => new DataView(Float32Array.from(all).buffer);
          const doubles = (...all) => new DataView(Float64Array.from(all).buffer);
          const bytes = (...all) => new DataView(Uint8Array.from(all).buffer);
          const ranked = { query: bytes(0, 1), label: bytes(0, 0),
            start: new DataView(Uint32Array.from([0, 1, 2]).buffer),
            object: new DataView(Uint16Array.from([0, 0]).buffer), iou: doubles(0.9, 0.97) };
          const scene = { name: "scene 0", picture: bytes(), labels: [0], true_boxes: [[0.5, 0.5, 0.2, 0.2]],
            boxes: floats(0.5, 0.5, 0.2, 0.2, 0.5, 0.5, 0.4, 0.4), probabilities: floats(0.9, 0.1, 0.6, 0.4),
            maps: bytes(255, 0, 0, 255), maxima: floats(1, 1), grid: [1, 2] };
          const answers = { images: 1, queries: 2, objects: [1], sure: [[1, 1]], ranked: [ranked],
            spots: [{ box: bytes(9, 9, 9, 9, 9, 9, 9, 9), score: bytes(200, 100), label: bytes(0, 0) }] };
          const values = { class_names: ["dot"], scenes: [scene], answers, scene: 0, query: 0, layer: 1, head: -1,
            dropped: [] };
          const watchers = {}; let saved = 0;
          const model = {
            get: (name) => values[name],
            set: (name, value) => { values[name] = value; (watchers["change:" + name] ?? []).forEach((f) => f()); },
            on: (event, f) => (watchers[event] ??= []).push(f),
            off: (event, f) => { watchers[event] = watchers[event].filter((g) => g !== f); },
            save_changes: () => { saved += 1; },
          };
          const el = document.body.appendChild(document.createElement("div"));
          const end = window.widget.default.render({ model, el });
          const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          const precision = () => Number(el.firstChild.dataset.ap);
          const seen = [precision()];
          model.set("dropped", [0]);
          await frame();
          seen.push(precision());
          el.firstChild.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
          await frame();
          const chosen = values.query;
          end();
          el.remove();
          return { seen, chosen, saved, left: Object.values(watchers).flat().length };
        }"""
    )
    # The first answer takes the object at the nine thresholds up to 0.90, the second, which lies better, at the last.
    assert result["seen"] == pytest.approx([(9 + 0.5) / 10, 1.0])
    assert (result["chosen"], result["left"]) == (1, 0) and result["saved"] > 0


def test_the_page_has_picture_and_words_before_any_script(explorer):
    page = explorer.page()
    main = page[page.index("<main") : page.index("</main>")]
    assert '<img src="data:image/png;base64,' in main and explorer.describe() in main
    json.loads(page[page.index('id="content">') + 13 : page.index("</script>")])
