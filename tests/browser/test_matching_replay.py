"""`MatchingReplay` in a real browser, on a page without kernel and network."""

import io

import nbformat
import numpy as np
import pytest
from lab import python, run_all_cells, shut_down_kernel
from pages import area, let_draw
from PIL import Image, ImageColor

from minivis.widgets.matching_recorder import GREY, ImageHistory
from minivis.widgets.matching_replay import MatchingHistory, MatchingReplay

QUERIES, NAVY, GROUND = 12, (0, 0, 96), (70, 70, 70)
STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300)


def image_history(seed: int, names: tuple[str, ...], colour: tuple[int, int, int]) -> ImageHistory:
    """Owners by chance for ten records, and for ten more the same ones."""
    rng = np.random.default_rng(seed)
    chaos = [rng.permutation(QUERIES)[: len(names)] for _ in range(10)]
    owners = np.stack([*chaos, *[chaos[-1]] * 10])
    corner = rng.uniform(0, 0.5, (len(STEPS), QUERIES, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, corner.shape)], axis=-1).astype(np.float32)
    true_boxes = np.float32([[0.1 + 0.3 * i, 0.6, 0.3 + 0.3 * i, 0.9] for i in range(len(names))])
    return ImageHistory(
        picture=Image.new("RGB", (90, 60), colour),
        names=names,
        true_boxes=true_boxes,
        boxes=boxes,
        owners=owners,
        probability=rng.uniform(0, 1, owners.shape),
        cost=np.linspace(9, -5, len(STEPS)),
    )


@pytest.fixture(scope="module")
def history() -> MatchingHistory:
    images = (
        image_history(0, ("circle", "square", "circle"), NAVY),
        image_history(1, ("star", "ring"), GROUND),
    )
    return MatchingHistory(STEPS, tuple(3 - step / 150 for step in STEPS), images)


@pytest.fixture(scope="module")
def widget(history) -> MatchingReplay:
    widget = MatchingReplay(history)
    png = widget._png()
    widget._png = lambda: png  # drawn once for all tests
    return widget


@pytest.fixture
def page(widget, open_widget):
    return open_widget(widget)


ROOT = "[data-widget=matching-replay]"


def shown(page, name: str) -> str | None:
    """What the widget says of itself, once it has drawn all it was told."""
    let_draw(page)
    return page.get_attribute(ROOT, f"data-{name}")


def wait_for(page, name: str, value: object) -> None:
    page.wait_for_selector(f'{ROOT}[data-{name}="{value}"]')


def wait_until_between(page, low: int, high: int = len(STEPS)) -> None:
    """Until the clock has passed a record; an exact one may go by unseen."""
    index = f"Number(document.querySelector('{ROOT}').dataset.stepIndex)"
    page.wait_for_function(f"{low} < {index} && {index} < {high}")


def over(page, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
    """A point of an element in the window, in fractions of its size."""
    box = area(page, selector)
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def over_record(page, index: int, lane: float = 0.25) -> tuple[float, float]:
    """A point of the timeline at a record; by default in the upper rows."""
    left = area(page, ".mv-change", index)
    return left["x"] + left["width"] / 2, over(page, ".mv-timeline", y=lane)[1]


# What is seen


def test_every_record_shows_what_python_has_recorded(page, history):
    page.locator(ROOT).focus()
    for number, image in enumerate(history.images):
        page.get_by_label("image", exact=True).select_option(str(number))
        page.locator(ROOT).focus()
        page.keyboard.press("Home")
        for index, step in enumerate(STEPS):
            wait_for(page, "step", step)
            assert shown(page, "image") == str(number)
            assert shown(page, "owners") == " ".join(map(str, image.owners[index]))
            assert shown(page, "changed") == str(image.changed[index])
            assert shown(page, "cost") == f"{image.cost[index]:.3f}"
            owners = page.eval_on_selector_all(
                ".mv-owner[data-box]", "(all) => all.map((o) => [Number(o.dataset.query), o.dataset.box])"
            )
            assert [query for query, _ in owners] == image.owners[index].tolist()
            for query, box in owners:
                assert np.fromstring(box, sep=" ") == pytest.approx(image.boxes[index, query], abs=6e-5)
            page.keyboard.press("ArrowRight")


def test_boxes_lie_where_they_should(page, history):
    image = history.images[0]
    picture = area(page, ".mv-picture")
    assert picture["width"] / picture["height"] == pytest.approx(90 / 60, rel=0.01)
    scale = np.array([picture["width"], picture["height"]] * 2)

    def corners(selector):
        return page.eval_on_selector_all(
            selector,
            "(all) => all.map((r) => ['x', 'y', 'width', 'height'].map((n) => Number(r.getAttribute(n))))",
        ) @ np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])

    assert corners(".mv-picture .mv-truth") == pytest.approx(image.true_boxes * scale, abs=0.01)
    assert corners(".mv-owner[data-box]") == pytest.approx(image.boxes[0, image.owners[0]] * scale, abs=0.01)
    assert corners(".mv-picture .mv-other") == pytest.approx(image.boxes[0] * scale, abs=0.01)
    ends = page.eval_on_selector_all(
        ".mv-link", "(all) => all.map((l) => ['x1', 'y1', 'x2', 'y2'].map((n) => Number(l.getAttribute(n))))"
    )
    centres = [
        boxes.reshape(-1, 2, 2).mean(1) for boxes in (image.true_boxes, image.boxes[0, image.owners[0]])
    ]
    assert np.array(ends) == pytest.approx(np.concatenate(centres, axis=1) * scale, abs=0.01)


def test_words_beside_the_picture(page, history):
    page.locator(ROOT).focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    wait_for(page, "step", 8)
    image = history.images[0]
    side = page.inner_text(".mv-side")
    assert f"{image.changed[7]} of 3 objects changed owner since step 6." in side
    assert f"The matching costs {image.cost[7]:.1f}, the loss is 2.95." in side
    rows = page.locator("tbody tr").all_inner_texts()
    for row, name, query, p in zip(rows, image.names, image.owners[7], image.probability[7], strict=True):
        assert name in row and f"query {query}" in row and f"{p:.2f}" in row
    page.keyboard.press("End")
    wait_for(page, "step", 300)
    assert "No object changed owner since step 200." in page.inner_text(".mv-side")
    since = page.locator("tbody tr td:last-child").all_inner_texts()
    first = [
        next(i for i in range(20) if (image.owners[i:, n] == image.owners[-1, n]).all()) for n in range(3)
    ]
    assert since == [str(STEPS[i]) for i in first]


def pixels(page) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)


def test_pixels_have_the_colours_of_the_owners(page, history):
    image = history.images[0]
    page.mouse.move(2, 2)
    seen = pixels(page)

    def pixel(x, y):
        return seen[round(y), round(x)]

    cells = page.locator(".mv-cell").all()
    assert len(cells) == 3 + int(image.changed.sum())
    for cell in cells:
        query, start, thing = (int(cell.get_attribute(f"data-{n}")) for n in ("query", "from", "object"))
        assert image.owners[start, thing] == query
        box = cell.locator("rect").bounding_box()
        colour = ImageColor.getrgb(image.colours.get(query, GREY))
        if start > 0:  # the first lies under the hand of the clock
            assert pixel(box["x"] + 3, box["y"] + 3) == pytest.approx(colour, abs=2)
    x, y = over(page, ".mv-picture", 0.02, 0.98)
    assert pixel(x, y) == pytest.approx(NAVY, abs=2)
    for thing in range(3):
        x, y = over(page, f"tr[data-row='{thing}'] .mv-chip", 0.08)
        assert pixel(x, y) == pytest.approx(
            ImageColor.getrgb(image.colours.get(image.owners[0, thing], GREY)), abs=2
        )


def test_an_owners_box_is_drawn_in_its_colour(page, history):
    page.locator(ROOT).focus()
    page.keyboard.press("End")
    wait_for(page, "step", 300)
    page.keyboard.press("ArrowDown")  # the first object alone, so that no other box lies over it
    wait_for(page, "object", 0)
    seen, image = pixels(page), history.images[0]
    query = image.owners[-1, 0]
    picture = area(page, ".mv-picture")
    left, top, right, bottom = image.boxes[-1, query] * np.array([picture["width"], picture["height"]] * 2)
    wanted = np.array(ImageColor.getrgb(image.colours[query]))
    edges = [(left, y) for y in np.linspace(top, bottom, 40)] + [
        (x, top) for x in np.linspace(left, right, 40)
    ]
    found = [seen[int(picture["y"] + y), int(picture["x"] + x)] for x, y in edges]
    assert np.mean([np.abs(colour - wanted).max() < 12 for colour in found]) > 0.5


def test_more_queries_than_colours_go_by_their_number(page, history):
    image = history.images[0]
    grey = [q for q in range(QUERIES) if q in image.owners and q not in image.colours]
    assert grey, "this history is meant to have more owners than there are colours"
    for query in grey:
        cell = page.locator(f".mv-cell[data-query='{query}']").first
        assert cell.locator("rect").get_attribute("fill") == GREY
        assert cell.text_content() == str(query)


# Time


def test_play_goes_on_to_the_end_and_pause_stops(page):
    button = page.locator(".mv-play")
    page.get_by_label("speed").select_option("fast")
    button.click()
    wait_until_between(page, 2)
    button.click()
    wait_for(page, "playing", "false")
    stopped = shown(page, "step-index")
    page.wait_for_timeout(300)
    assert shown(page, "step-index") == stopped
    page.get_by_label("recorded step").fill("17")
    wait_for(page, "step-index", 17)
    button.click()
    wait_for(page, "step", 300)
    wait_for(page, "playing", "false")
    page.get_by_label("speed").select_option("slow")
    button.click()  # from the end it plays once more
    wait_until_between(page, 0, 19)


def test_no_record_is_left_out_while_playing(page):
    page.evaluate(
        """() => {
          const root = document.querySelector("[data-widget]");
          window.seen = [];
          new MutationObserver(() => window.seen.push(Number(root.dataset.stepIndex)))
            .observe(root, { attributes: true, attributeFilter: ["data-step-index"] });
        }"""
    )
    page.get_by_label("speed").select_option("fast")
    page.locator(".mv-play").click()
    wait_for(page, "step", 300)
    seen = page.evaluate("[...new Set(window.seen)]")
    assert seen in (list(range(20)), list(range(1, 20)))


def test_the_slider_moves_through_the_records(page):
    slider = page.get_by_label("recorded step")
    slider.fill("12")
    wait_for(page, "step", 40)
    assert slider.get_attribute("aria-valuetext") == "step 40"


def test_the_pointer_over_the_timeline_scrubs(page):
    for index in (14, 3, 9):
        page.mouse.move(*over_record(page, index))
        wait_for(page, "step-index", index)
    page.mouse.move(*over(page, ".mv-picture"))
    assert shown(page, "step-index") == "9"  # it stays, so that one can look at the picture


def test_while_playing_only_a_click_scrubs(page):
    page.get_by_label("speed").select_option("slow")
    page.locator(".mv-play").click()
    page.mouse.move(*over_record(page, 18))
    assert int(shown(page, "step-index")) < 10 and shown(page, "playing") == "true"
    page.mouse.down()
    page.mouse.up()
    wait_for(page, "step-index", 18)
    assert shown(page, "playing") == "false"


# Keys


def test_keys(page):
    page.locator(ROOT).focus()
    for key, index in [
        ("ArrowRight", 1),
        ("End", 19),
        ("ArrowRight", 19),
        ("ArrowLeft", 18),
        ("Home", 0),
        ("ArrowLeft", 0),
    ]:
        page.keyboard.press(key)
        assert shown(page, "step-index") == str(index)
    page.keyboard.press(" ")
    assert shown(page, "playing") == "true"
    wait_until_between(page, 0)
    page.keyboard.press("ArrowLeft")  # taking hold of it stops it
    assert shown(page, "playing") == "false"
    for wanted in ("0", "1", "2", None, "0"):
        page.keyboard.press("ArrowDown")
        assert shown(page, "object") == wanted
    page.keyboard.press("ArrowUp")
    assert shown(page, "object") is None


def test_space_on_the_button_toggles_once(page):
    page.locator(".mv-play").focus()
    page.keyboard.press(" ")
    assert shown(page, "playing") == "true"
    page.keyboard.press(" ")
    assert shown(page, "playing") == "false"


def test_everything_can_be_reached_by_tab(page):
    page.mouse.click(2, 2)
    names = []
    for _ in range(8):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent"))
    assert names[0].startswith("Replay of a matching") and "Play" in names[1]
    assert names[2:5] == ["recorded step", "speed", "image"]
    assert all(name.startswith("query ") for name in names[5:8])
    assert f"query {shown(page, 'query')}" == names[7]  # where the focus is, is pointed at


# Pointing


def test_pointing_at_an_object(page, history):
    page.locator(".mv-area[data-object='0']").dispatch_event("pointerenter")
    assert shown(page, "object") == "0"
    assert page.get_attribute("tr[data-row='0']", "data-pointed") == "true"
    assert page.get_attribute("tr[data-row='1']", "data-pointed") == "false"
    assert page.locator(".mv-name").nth(0).get_attribute("data-pointed") == "true"
    assert "Object 1, circle: changed owner 0 times up to here." in page.inner_text(".mv-side")


def test_pointing_at_a_query(page, history):
    image = history.images[0]
    page.locator(ROOT).focus()
    page.keyboard.press("End")
    wait_for(page, "step", 300)
    query = image.owners[-1, 1]
    page.mouse.move(*over(page, "tr[data-row='1'] .mv-chip"))
    assert shown(page, "query") == str(query)
    faded = {
        (cell.get_attribute("data-query"), cell.get_attribute("data-faded"))
        for cell in page.locator(".mv-cell").all()
    }
    assert (str(query), "false") in faded
    assert all(f == "true" for q, f in faded if q != str(query))
    idle = next(q for q in range(QUERIES) if q not in image.owners[-1])
    page.locator(".mv-outline").nth(idle).dispatch_event("pointerenter")
    assert shown(page, "query") == str(idle)
    assert f"Query {idle} owns no object now." in page.inner_text(".mv-side")
    assert page.locator(".mv-picture .mv-other").nth(idle).get_attribute("data-pointed") == "true"


def test_an_outline_is_found_by_the_pointer(page, history):
    """A box of a query that owns nothing: its left edge, where nothing lies above it."""
    image = history.images[0]
    idle = [q for q in range(QUERIES) if q not in image.owners[0]]
    picture = area(page, ".mv-picture")
    hits = 0
    for query in idle:
        left, top, _, bottom = image.boxes[0, query].tolist()
        page.mouse.move(
            picture["x"] + left * picture["width"], picture["y"] + (top + bottom) / 2 * picture["height"]
        )
        hits += shown(page, "query") == str(query)
    assert hits > len(idle) / 2


# Places


@pytest.mark.parametrize("width", [400, 600, 900])
def test_nothing_lies_outside(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function(f"document.querySelector('.mv-timeline').clientWidth < {width}")
    shown(page, "step")
    outside = page.evaluate(
        """() => {
          const root = document.querySelector("[data-widget]").getBoundingClientRect();
          const parts = ".mv-timeline text, .mv-side *, .mv-controls *, .mv-picture, .mv-tag";
          return [...document.querySelectorAll(parts)].filter((e) => {
            const box = e.getBoundingClientRect();
            return box.width && (box.left < root.left - 1 || box.right > root.right + 1);
          }).map((e) => e.outerHTML.slice(0, 120));
        }"""
    )
    assert outside == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_texts_of_the_timeline_do_not_overlap(page):
    for width in (400, 600, 900):
        page.set_viewport_size({"width": width, "height": 900})
        shown(page, "step")
        overlaps = page.evaluate(
            """() => {
              const texts = [...document.querySelectorAll(".mv-timeline text")];
              const boxes = texts.map((e) => [e.textContent, e.getBoundingClientRect()]);
              const meet = (p, q) =>
                p.left < q.right && q.left < p.right && p.top < q.bottom - 2 && q.top < p.bottom - 2;
              return boxes.flatMap(([a, p], i) =>
                boxes.slice(i + 1).filter(([b, q]) => meet(p, q)).map(([b]) => [a, b]));
            }"""
        )
        assert overlaps == []


def test_views_of_one_model_share_a_clock_and_let_go(page):
    """As in a notebook: the model is asked and watched, may be changed from outside, and has several views."""
    result = page.evaluate(
        """async () => {
          const boxes = new DataView(new ArrayBuffer(4 + 6 * 16), 4); // not at the buffer's start
          const set = (i, corners) => corners.forEach((v, j) => boxes.setFloat32(16 * i + 4 * j, v, true));
          for (let i = 0; i < 6; i++) set(i, [0.1, 0.1, 0.2, 0.1 * i + 0.2]);
          const image = { picture: "data:image/gif;base64,R0lGODlhAQABAAAAACw=", size: [10, 10], names: ["dot"],
            true_boxes: [[0.1, 0.1, 0.5, 0.5]], queries: 1, boxes, owners: Array(6).fill([0]),
            probability: Array(6).fill([1]), cost: [5, 4, 3, 2, 1, 0], changed: Array(6).fill(0),
            colours: { 0: "#0072B2" } };
          const steps = [0, 1, 2, 3, 4, 5];
          const record = { steps, losses: Array(6).fill(null), images: [image], tick_order: [0, 5] };
          const values = { record, step_index: 0, image: 0, playing: false, speed: 10 };
          const watchers = {}; let saved = 0;
          const model = {
            get: (name) => values[name],
            set: (name, value) => {
              const changed = values[name] !== value;
              values[name] = value;
              if (changed) (watchers["change:" + name] ?? []).forEach((f) => f());
            },
            on: (event, f) => (watchers[event] ??= []).push(f),
            off: (event, f) => { watchers[event] = watchers[event].filter((g) => g !== f); },
            save_changes: () => { saved += 1; },
          };
          const views = [0, 1].map(() => document.body.appendChild(document.createElement("div")));
          const ends = views.map((el) => window.widget.default.render({ model, el }));
          const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          model.set("step_index", 3);
          await frame();
          const seen = views.map((el) => el.firstChild.dataset.step);
          const box = views[0].querySelector(".mv-owner").dataset.box;
          model.set("step_index", 0);
          const start = performance.now();
          model.set("playing", true);
          while (values.playing) await frame();
          const seconds = (performance.now() - start) / 1000;
          ends.forEach((end) => end());
          views.forEach((el) => el.remove());
          const left = Object.values(watchers).flat().length;
          return { seen, box, seconds, left, saved, step: values.step_index };
        }"""
    )
    assert result["seen"] == ["3", "3"] and result["box"] == "0.1000 0.1000 0.2000 0.5000"
    assert result["step"] == 5 and result["saved"] > 0
    assert result["seconds"] > 0.45, "five records at ten a second, however many views there are"
    assert result["left"] == 0


CELL = """
import numpy as np
from PIL import Image
from minivis.widgets.matching_recorder import ImageHistory, MatchingHistory
from minivis.widgets.matching_replay import MatchingReplay

boxes = np.tile(np.float32([0.2, 0.2, 0.6, 0.6]), (20, 3, 1))
owners = np.array([[0, 1], [2, 1]] * 10)
names, picture = ("circle", "square"), Image.new("RGB", (40, 40))
image = ImageHistory(picture, names, boxes[0, :2], boxes, owners, owners / 2, np.ones(20))
widget = MatchingReplay(MatchingHistory(tuple(range(20)), (None,) * 20, (image,)))
widget
"""


def test_in_jupyterlab_with_a_kernel_and_without(open_notebook, tmp_path):
    file = tmp_path / "replay.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel), file)
    page = open_notebook(file)
    run_all_cells(page)
    page.wait_for_selector(ROOT)
    active = "jupyterapp.shell.currentWidget.content.activeCellIndex"
    cell = page.evaluate(active)
    page.locator(ROOT).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("b")  # in JupyterLab: a new cell below
    wait_for(page, "step", 1)
    wait_for(page, "object", 1)
    assert page.evaluate(active) == cell and page.locator(".jp-Cell").count() == 1, "JupyterLab took the keys"
    assert python(page, "widget.step_index") == 1
    python(page, "widget.set_trait('step_index', 7)")
    wait_for(page, "step", 7)

    shut_down_kernel(page)
    page.locator(".mv-play").click()
    wait_until_between(page, 9)
    page.keyboard.press("Home")
    wait_for(page, "step", 0)


def test_the_page_has_picture_and_words_before_any_script(widget):
    page = widget.page()
    main = page[page.index("<main") : page.index("</main>")]
    assert '<img src="data:image/png;base64,' in main and widget.describe() in main
