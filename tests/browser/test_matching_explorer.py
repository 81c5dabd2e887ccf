"""MatchingExplorer in a real browser, on a page without kernel and network."""

import io
import json
import re

import numpy as np
import pytest
import torch
from pages import area, dataset
from PIL import Image
from scipy.optimize import linear_sum_assignment

from minivis.detr import HungarianMatcher
from minivis.detr.targets import pad_targets
from minivis.widgets.matching_explorer import MatchingExplorer
from minivis.widgets.matching_picture import COLOURS

NAMES = ["circle", "square", "star"]


def explorer_of(queries=12, objects=4, seed=0):
    """Predictions near random objects, all of one size so that no box hides another's middle."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(25, generator=generator)[:objects]
    centres = torch.stack([places % 5, places // 5], dim=1) * 0.2 + 0.1
    target = {
        "labels": torch.arange(objects) % len(NAMES),
        "boxes": torch.cat([centres, torch.full((objects, 2), 0.14)], dim=1),
    }
    boxes = target["boxes"][torch.arange(queries) % objects] if objects else torch.full((queries, 4), 0.5)
    outputs = {
        "pred_logits": 2 * torch.randn(queries, len(NAMES) + 1, generator=generator),
        "pred_boxes": (boxes + 0.02 * torch.randn(boxes.shape, generator=generator)).clamp(0.05, 0.95),
    }
    return MatchingExplorer(Image.new("RGB", (160, 120), "#888888"), outputs, target, NAMES)


def shown(page) -> dict:
    """What the widget says that it shows, once it has drawn."""
    data = dataset(page)
    return {name: text if name in ("method", "widget") else json.loads(text) for name, text in data.items()}


def boxes_in(page, explorer) -> None:
    """Give the Python widget the boxes that the page shows."""

    def read(kind):
        texts = page.eval_on_selector_all(
            f"svg.{kind}[tabindex]", "all => all.map((box) => box.dataset.box ?? null)"
        )
        return [text and [float(value) for value in text.split()] for text in texts]

    explorer.boxes = [box or old for box, old in zip(read("prediction"), explorer.boxes)]
    explorer.true_boxes = read("truth")


def assert_agrees(page, explorer) -> dict:
    """The page shows what Python says of the same weights and boxes."""
    state = shown(page)
    at_start = vars(explorer).setdefault("at_start", explorer.matching)  # kept before anything is moved
    explorer.weights, explorer.method = state["weights"], state["method"]
    boxes_in(page, explorer)
    assert state["matching"] == explorer.matching
    for method in ("optimal", "greedy"):
        assert state[f"{method}Cost"] == pytest.approx(explorer.total_cost(explorer.solve(method)), abs=1e-4)
    assert state["changed"] == sum(pair not in at_start for pair in explorer.matching)
    cost = explorer.cost()
    cells = page.eval_on_selector_all(
        "td", "all => all.map(({ dataset }) => [dataset.query, dataset.object, dataset.cost].map(Number))"
    )
    for query, thing, value in cells:
        assert value == pytest.approx(cost[int(query), int(thing)], abs=1e-4)
    matched = page.eval_on_selector_all(
        "td.matched", "all => all.map(({ dataset }) => [+dataset.query, +dataset.object])"
    )
    assert sorted(matched) == explorer.matching
    return state


def centre(page, selector) -> tuple[float, float]:
    box = area(page, selector)
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, start, by, steps=4) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + by[0], start[1] + by[1], steps=steps)
    page.mouse.up()


# --------------------------------------------------------------------------- the mathematics


def costs() -> list[np.ndarray]:
    """More than a thousand: wide, tall, empty, of one row, with ties, and some as large as they come."""
    rng = np.random.default_rng(0)
    cases = []
    for i in range(1200):
        queries, objects = rng.integers(1, 16), rng.integers(0, 16)
        cost = rng.normal(size=(queries, objects)) * 10.0 ** rng.integers(-3, 4)
        cases.append([cost, cost.round(), rng.integers(0, 3, cost.shape).astype(float), cost - 1e4][i % 4])
    cases += [rng.normal(size=shape) for shape in [(1, 1), (1, 9), (9, 1), (100, 20), (20, 100), (60, 60)]]
    return [*cases, np.zeros((5, 5)), np.full((7, 4), -2.5)]


def test_the_assignment_costs_what_scipys_does(open_widget):
    page, cases = open_widget(MatchingExplorer.toy()), costs()
    solved = page.evaluate(
        "(cases) => cases.map((cost) => [widget.optimal(cost), widget.greedy(cost)])",
        [cost.tolist() for cost in cases],
    )
    assert len(solved) >= 1000
    for cost, methods in zip(cases, solved):
        best = cost[linear_sum_assignment(cost)].sum()
        for pairs in methods:
            queries, objects = np.array(pairs, dtype=int).reshape(-1, 2).T
            assert len(queries) == min(cost.shape) == len(set(objects.tolist()))
            assert (np.diff(queries) > 0).all(), "queries rise"
            total = cost[queries, objects].sum()
            assert total >= best - 1e-9 * max(1, abs(best))
            if pairs is methods[0]:
                assert total == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_the_assignment_of_a_generic_matrix_is_scipys(open_widget):
    cases = [np.random.default_rng(seed).normal(size=(seed % 12 + 1, seed % 7 + 1)) for seed in range(1200)]
    page = open_widget(MatchingExplorer.toy())
    solved = page.evaluate("(cases) => cases.map(widget.optimal)", [cost.tolist() for cost in cases])
    for cost, pairs in zip(cases, solved):
        assert pairs == np.stack(linear_sum_assignment(cost), axis=1).tolist()


def test_the_cost_is_the_matchers(open_widget):
    generator = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(50, 4, generator=generator), torch.rand(50, 4, generator=generator)
    true_boxes = torch.rand(9, 4, generator=generator) * 0.3 + 0.35
    boxes[:3, 2:] = 0  # without area
    boxes[3] = true_boxes[3]
    labels = torch.randint(0, 3, (9,), generator=generator)
    weights = (1.5, 4.2, 0.7)
    target = pad_targets([{"labels": labels, "boxes": true_boxes}], 3, torch.device("cpu"))
    wanted = HungarianMatcher(*weights).cost(logits.log_softmax(-1)[None, None], boxes[None, None], target)[
        0, 0
    ]

    page = open_widget(MatchingExplorer.toy())
    given = [weights, logits.softmax(-1).tolist(), boxes.tolist(), labels.tolist(), true_boxes.tolist()]
    cost = page.evaluate("([weights, ...of]) => widget.weighted(widget.costParts(...of), weights)", given)
    assert np.array(cost) == pytest.approx(wanted.numpy(), abs=1e-5)


# --------------------------------------------------------------------------- what is moved


@pytest.mark.parametrize("size", [(12, 4), (3, 5), (4, 1), (100, 20)])
def test_what_is_shown_at_first_is_what_python_says(open_widget, size):
    explorer = explorer_of(*size)
    page = open_widget(explorer)
    state = assert_agrees(page, explorer)
    assert state["weights"] == [1, 5, 2] and state["changed"] == 0 and state["method"] == "optimal"


def test_sliders_by_mouse_and_keyboard(open_widget):
    explorer = explorer_of(queries=12)
    page = open_widget(explorer)
    slider = page.locator("[data-part=L1] input")
    box = slider.bounding_box()
    drag(page, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), (-box["width"], 0))
    state = assert_agrees(page, explorer)
    assert state["weights"] == [1, 0, 2]
    page.locator("[data-part=class] input").focus()
    for _ in range(90):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")  # GIoU
    assert page.evaluate("document.activeElement.closest('[data-part]').dataset.part") == "L1"
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    state = assert_agrees(page, explorer)
    assert state["weights"] == [10, 0, 0] and state["changed"] > 0
    assert page.inner_text(".panel p").startswith("Other queries than at the start: ")
    page.get_by_role("button", name="Reset").click()
    assert assert_agrees(page, explorer)["weights"] == [1, 5, 2]


def test_a_box_is_dragged_and_the_matching_follows(open_widget):
    explorer = MatchingExplorer.toy()
    page = open_widget(explorer)
    picture = area(page, ".picture")
    middle = centre(page, "svg.prediction[data-query='1'][tabindex]")
    drag(page, middle, (-0.4 * picture["width"], 0.05 * picture["height"]))
    state = assert_agrees(page, explorer)
    assert state["matching"] == [[0, 1], [1, 0], [2, 2]]
    assert explorer.boxes[1][:2] == pytest.approx([0.25, 0.8], abs=0.01)
    assert explorer.boxes[1][2:] == [0.2, 0.3], "it keeps its size"
    # Where boxes lie on each other one takes hold of the prediction, also while its object is lit.
    middle = centre(page, "svg.prediction[data-query='1'][tabindex]")
    drag(page, middle, (0.4 * picture["width"], -0.05 * picture["height"]))
    assert assert_agrees(page, explorer)["matching"] == [[0, 0], [1, 1], [2, 2]]
    assert explorer.true_boxes == MatchingExplorer.toy().true_boxes
    # A true box, by its tag; it stays within the picture.
    tag = area(page, "svg.handles[data-object='2'] .tag rect")
    drag(page, (tag["x"] + 5, tag["y"] + 5), (picture["width"], -picture["height"]))
    assert_agrees(page, explorer)
    assert explorer.true_boxes[2] == pytest.approx([0.9, 0.15, 0.2, 0.3])
    page.get_by_role("button", name="Reset").click()
    shown(page)
    boxes_in(page, explorer)
    assert explorer.boxes == MatchingExplorer.toy().boxes
    assert explorer.true_boxes == MatchingExplorer.toy().true_boxes


@pytest.mark.parametrize(
    ("kind", "corner", "fixed"),
    [("[data-query='2']", (0.8, 0.1), (0.6, 0.4)), ("[data-object='0']", (0.1, 0.85), (0.3, 0.55))],
)
def test_a_box_is_resized_at_its_corner(open_widget, kind, corner, fixed):
    """Predictions have the grip at right and top, objects at left and bottom; the corner across stays."""
    explorer = MatchingExplorer.toy()
    page = open_widget(explorer)
    picture = area(page, ".picture")
    page.hover(f"svg.handles{kind} .tag")
    x, y = centre(page, f"svg.handles{kind} .grip rect")
    drag(page, (x, y), (0.05 * picture["width"], -0.05 * picture["height"]))
    assert_agrees(page, explorer)
    before = MatchingExplorer.toy()
    index = int(re.search(r"\d", kind).group())
    box, old = (explorer.boxes, before.boxes) if "query" in kind else (explorer.true_boxes, before.true_boxes)
    sides = (box[index][2] - old[index][2], box[index][3] - old[index][3])
    assert sides == pytest.approx((0.05, 0.05) if "query" in kind else (-0.05, -0.05), abs=0.005)
    right = [box[index][0] + (0.5 if "object" in kind else -0.5) * box[index][2]]
    assert right == pytest.approx([fixed[0]], abs=0.005)


def test_boxes_by_keyboard(open_widget):
    explorer = MatchingExplorer.toy()
    page = open_widget(explorer)
    page.locator("[data-part=class] input").focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('svg.prediction[data-query=\"1\"]')"):
            break
    else:
        pytest.fail("Tab does not reach query 1")
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    state = assert_agrees(page, explorer)
    assert explorer.boxes[1] == pytest.approx([0.25, 0.75, 0.2, 0.3])
    assert state["matching"] == [[0, 1], [1, 0], [2, 2]]
    assert state["active"] == {"query": 1, "object": 0}, "the pair of the box that has the focus"
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    assert_agrees(page, explorer)
    assert explorer.boxes[1] == pytest.approx([0.255, 0.745, 0.21, 0.29])
    page.wait_for_function("document.querySelector('[aria-live]').textContent")
    assert page.inner_text("[aria-live]").startswith("Now query 0 with B, query 1 with A. Total cost ")


def test_greedy_costs_no_less(open_widget):
    explorer = MatchingExplorer.toy()
    page = open_widget(explorer)
    page.locator("input[value=optimal]").focus()
    page.keyboard.press("ArrowDown")
    state = assert_agrees(page, explorer)
    assert state["method"] == "greedy" and state["matching"] == [[0, 1], [1, 0], [2, 2]]
    assert state["greedyCost"] > state["optimalCost"] + 1
    assert state["changed"] == 2 and "more)" in page.inner_text(".methods")
    assert page.inner_text(".panel p") == "Other queries than at the start: B 1 → 0, A 0 → 1."


# --------------------------------------------------------------------------- what is pointed at


def parts_of(page) -> dict:
    lines = page.eval_on_selector_all("[data-part]", "all => all.map(({ dataset }) => ({ ...dataset }))")
    return {line["part"]: (float(line["value"]), float(line["product"])) for line in lines}


def test_a_cell_is_taken_apart(open_widget):
    explorer = explorer_of()
    page = open_widget(explorer)
    query, thing = explorer.matching[0][0], 3
    wanted = explorer.cost_parts()[:, query, thing].tolist()

    page.hover(f"td[data-query='{query}'][data-object='{thing}']")
    assert shown(page)["active"] == {"query": query, "object": thing}
    parts = parts_of(page)
    assert [value for value, _ in parts.values()] == pytest.approx(wanted, abs=1e-5)
    assert [product for _, product in parts.values()] == pytest.approx(
        np.multiply(wanted, [1, 5, 2]), abs=1e-5
    )
    assert sum(product for _, product in parts.values()) == pytest.approx(
        explorer.cost()[query, thing], abs=1e-4
    )
    assert page.inner_text(".title b") == f"Query {query} with D (circle)"
    numbers = [float(word.replace("−", "-")) for word in page.locator(".sum .value").all_inner_texts()]
    assert numbers == pytest.approx([explorer.cost()[query, thing]], abs=0.006)
    lit = page.eval_on_selector_all(
        "svg.box.active[tabindex]", "all => all.map(({ dataset }) => ({ ...dataset }))"
    )
    assert [(box.get("query"), box.get("object")) for box in lit] == [(str(query), None), (None, str(thing))]

    page.mouse.move(1, 1)
    assert "active" not in shown(page)
    assert page.inner_text(".title b") == "All 4 matched pairs, added up"
    assert sum(product for _, product in parts_of(page).values()) == pytest.approx(
        explorer.total_cost(), abs=1e-4
    )


@pytest.mark.parametrize("size", [(9, 4), (3, 5)])
def test_a_box_without_partner_is_shown_with_its_cheapest(open_widget, size):
    explorer = explorer_of(*size)
    page = open_widget(explorer)
    cost, matched = explorer.cost(), np.array(explorer.matching)
    if size[0] > size[1]:
        rows = [int(text) for text in page.locator("tbody th b").all_inner_texts()]
        query = next(query for query in rows if query not in matched[:, 0])
        pair = {"query": query, "object": int(cost[query].argmin())}
        page.focus(f"svg.prediction[data-query='{query}']")
    else:
        thing = next(thing for thing in range(5) if thing not in matched[:, 1])
        pair = {"query": int(cost[:, thing].argmin()), "object": thing}
        page.focus(f"svg.truth[data-object='{thing}']")
    assert shown(page)["active"] == pair
    assert page.inner_text(".title") == f"Query {pair['query']} with {'ABCDE'[pair['object']]} (" + (
        f"{NAMES[pair['object'] % 3]})\nnot matched"
    )


def test_a_cell_is_kept_while_the_weights_move(open_widget):
    page = open_widget(MatchingExplorer.toy())
    page.click("td[data-query='0'][data-object='2']")
    page.mouse.move(1, 1)
    page.locator("[data-part=L1] input").focus()
    page.keyboard.press("Home")
    state = shown(page)
    assert state["active"] == {"query": 0, "object": 2} and parts_of(page)["L1"] == (pytest.approx(0.8), 0)
    page.keyboard.press("Escape")
    assert "active" not in shown(page)
    page.click("td[data-query='0'][data-object='2']")
    page.click("td[data-query='0'][data-object='2']")  # a second click lets go of it
    page.mouse.move(1, 1)
    assert "active" not in shown(page)


def test_cells_by_keyboard(open_widget):
    explorer = explorer_of()
    page = open_widget(explorer)
    page.locator("td[tabindex='0']").focus()
    first = shown(page)["active"]
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    assert shown(page)["active"] == {"query": first["query"], "object": 1}
    cost = f"{explorer.cost()[first['query'], 1]:.2f}".replace("-", "−")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label == f"query {first['query']} with B, square: cost {cost}"
    assert page.locator("td[tabindex='0']").count() == 1, "the matrix is one stop of Tab"


# --------------------------------------------------------------------------- what is seen


def test_boxes_have_the_colour_of_their_pair(open_widget):
    page = open_widget(explorer := explorer_of(objects=6))
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)

    def share(selector, colour):
        """How much of a frame's upper and lower edge has a colour."""
        box = area(page, selector)
        left, top = round(box["x"]), round(box["y"])
        right, bottom = round(box["x"] + box["width"]), round(box["y"] + box["height"])
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        edges = [pixels[y - 2 : y + 3, left + 12 : right - 12] for y in (top, bottom)]
        return np.mean([(np.abs(edge - wanted).max(axis=-1) < 20).any(axis=0).mean() for edge in edges])

    for query, thing in explorer.matching:
        for box in (f".prediction[data-query='{query}']", f".truth[data-object='{thing}']"):
            # Others cross it, dashes have gaps, and between two pixels an edge is pale.
            shares = {colour: share(f"svg{box} > .frame", colour) for colour in COLOURS}
            assert shares.pop(COLOURS[thing]) > max(0.15, 2 * max(shares.values()))


def test_many_queries_are_shown_when_asked_for(open_widget):
    explorer = explorer_of(queries=100, objects=16)
    page = open_widget(explorer)
    rows = [int(text) for text in page.locator("tbody th b").all_inner_texts()]
    matched = [query for query, _ in sorted(explorer.matching, key=lambda pair: pair[1])]
    assert rows[:16] == matched and len(rows) == 20
    cheapest = explorer.cost().min(axis=1)
    assert max(cheapest[rows[16:]]) <= min(np.delete(cheapest, rows))
    assert page.locator("svg.prediction[tabindex]:visible").count() == 20
    page.get_by_role("button", name="show all 100 queries").click()
    shown(page)
    assert page.locator("tbody tr").count() == 100 == page.locator("svg.prediction[tabindex]:visible").count()
    page.get_by_role("button", name="show fewer").click()
    # Without a place for boxes other queries win, and they come into view.
    page.locator("[data-part=L1] input").fill("0")
    page.locator("[data-part=GIoU] input").fill("0")
    new = {query for query, _ in shown(page)["matching"]} - set(rows)
    rows_now = {int(text) for text in page.locator("tbody th b").all_inner_texts()}
    assert new and new <= rows_now
    assert page.inner_text(".panel p").split()[0] != "0"


@pytest.mark.parametrize("width", [360, 600, 940])
def test_nothing_is_wider_than_the_page(open_widget, width):
    page = open_widget(explorer_of(queries=25, objects=8), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert area(page, ".matrix")["x"] > 300 if width == 940 else True
    overlaps = page.evaluate(
        """() => {
            const panes = ["figure", ".panel", ".matrix"].map((name) => document.querySelector(name));
            const boxes = panes.map((pane) => pane.getBoundingClientRect());
            return boxes.some((a, i) => boxes.slice(i + 1).some((b) =>
                a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1));
        }"""
    )
    assert not overlaps


def test_no_objects_at_all(open_widget):
    page = open_widget(explorer := explorer_of(queries=3, objects=0))
    state = shown(page)
    assert state["matching"] == [] and state["optimalCost"] == 0
    assert "no objects" in page.inner_text(".matrix")
    assert explorer.describe().endswith("nothing to match.")


def test_without_javascript_the_picture_is_there_with_its_words(new_page, tmp_path):
    toy, file = MatchingExplorer.toy(), tmp_path / "toy.html"
    file.write_text(re.sub("<script.*?</script>", "", toy.page(), flags=re.DOTALL))
    page = new_page()
    page.goto(file.as_uri())
    assert page.locator("img").get_attribute("alt") == toy.describe()
    assert area(page, "img")["width"] > 600


def test_a_second_finger_moves_nothing(open_widget):
    explorer = MatchingExplorer.toy()
    page = open_widget(explorer)
    touch = page.context.new_cdp_session(page)
    frame = area(page, ".overlay")

    def at(query, right=0.0):
        x, y = explorer.boxes[query][:2]
        return {
            "x": frame["x"] + (x + right) * frame["width"],
            "y": frame["y"] + y * frame["height"],
            "id": query,
        }

    def send(kind, *points):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    send("touchStart", at(1))
    send("touchStart", at(1), at(2))
    send("touchMove", at(1, 0.1), at(2, 0.1))
    shown(page)
    send("touchEnd")
    boxes = page.eval_on_selector_all(
        "svg.prediction[tabindex]", "all => all.map((box) => box.dataset.box.split(' ').map(Number))"
    )
    assert boxes[1][0] == pytest.approx(explorer.boxes[1][0] + 0.1, abs=0.01)
    assert boxes[2] == pytest.approx(explorer.boxes[2], abs=1e-6)
