"""AttentionExplorer in a real browser, on a page without kernel and network."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from pages import area, dataset
from PIL import Image

from minivis.widgets.attention_explorer import AttentionExplorer, spread

OWN_OBJECT = [20, 18, 75, 60]


def explorer_of(
    rows=5, columns=7, stride=16, size=(80, 100), extra=(), layers=2, heads=3, padded_columns=2, **traits
):
    """Random maps on a picture that is not square, whose last cells reach beyond it, and which has padding."""
    generator = torch.Generator().manual_seed(0)
    tokens = len(extra) + rows * columns
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    mask[:, columns - padded_columns :] = True
    scores = 2 * torch.randn(layers, heads, tokens, tokens, generator=generator)
    scores[..., len(extra) :][..., mask.flatten()] = -torch.inf
    noise = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
    boxes = {"boxes": [OWN_OBJECT], "names": ["circle"]} | traits
    return AttentionExplorer(noise, scores.softmax(-1), (rows, columns), stride, mask, extra, **boxes)


def one_hot(hot, rows=5, columns=7, stride=16, size=(80, 100), padded_columns=2, token=0):
    """From `token` all weight lies on one cell."""
    maps = torch.zeros(1, 1, rows * columns, rows * columns)
    maps[..., hot] = 1
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    mask[:, columns - padded_columns :] = True
    return AttentionExplorer(
        Image.new("RGB", size[::-1], "#305070"), maps, (rows, columns), stride, mask, token=token
    )


def shown(page) -> dict:
    """What the widget says that it shows, once it has drawn."""
    page.wait_for_selector("[data-ready]")
    data = dataset(page)
    words = ("widget", "own", "ready")
    return {name: text if name in words else json.loads(text) for name, text in data.items()}


def assert_agrees(page, explorer) -> dict:
    """The page shows what Python says of the same token, layer and head."""
    state = shown(page)
    explorer.token, explorer.layer, explorer.head = state["token"], state["layer"], state["head"]
    extra, own = len(explorer.extra_tokens), explorer.own_box()
    for head in [-1, *range(explorer.shape[1])]:
        weights = explorer.attention(head=head)
        tile = page.eval_on_selector(f".tile[data-head='{head}']", "(tile) => ({ ...tile.dataset })")
        assert float(tile["spread"]) == pytest.approx(spread(weights), rel=1e-4)
        assert float(tile["largest"]) == pytest.approx(weights[extra:].max(), abs=1e-5)
        assert ("share" in tile) == (own is not None)
        if own is not None:
            assert float(tile["share"]) == pytest.approx(explorer.share_inside(weights, own), abs=1e-5)
    weights = explorer.attention()
    assert state["largest"] == pytest.approx(weights[extra:].max(), abs=1e-5)
    assert state["spread"] == pytest.approx(spread(weights), rel=1e-3)
    assert state.get("own") == (None if own is None else explorer.names[own])
    if own is not None:
        even = np.concatenate([np.zeros(extra), ~np.array(explorer.padding)])
        assert state["even"] == pytest.approx(explorer.share_inside(even, own), abs=1e-5)
    return state


def pixels(page, selector=".holder canvas") -> np.ndarray:
    """The canvas as it is painted, (height, width, 3)."""
    shown(page)
    png = page.eval_on_selector(selector, "(canvas) => canvas.toDataURL()")
    return np.array(Image.open(io.BytesIO(base64.b64decode(png.split(",")[1]))).convert("RGB"))


def of_cell(cell, shape, columns=7, stride=16, size=(80, 100)) -> np.ndarray:
    """True where the middle of a canvas pixel lies on the picture's pixels that a cell stands for."""
    row, column = divmod(cell, columns)
    y = (np.arange(shape[0]) + 0.5) * size[0] / shape[0]
    x = (np.arange(shape[1]) + 0.5) * size[1] / shape[1]
    inside_y = (row * stride <= y) & (y < (row + 1) * stride)
    inside_x = (column * stride <= x) & (x < (column + 1) * stride)
    return np.outer(inside_y, inside_x)


def zoom(page, density) -> None:
    """As on a screen with so many pixels for each of CSS."""
    size = {"width": 0, "height": 0, "deviceScaleFactor": density, "mobile": False}
    page.context.new_cdp_session(page).send("Emulation.setDeviceMetricsOverride", size)
    page.evaluate("() => window.dispatchEvent(new Event('resize'))")


# --------------------------------------------------------------------------- a map lies on its pixels


@pytest.mark.parametrize(
    ("hot", "width", "density"),
    [(0, 940, 1), (17, 940, 2), (32, 613, 1.5), (17, 613, 1), (32, 377, 2), (0, 377, 1.25), (17, 1100, 3)],
)  # cell 32 lies at the lower edge
def test_a_hot_cell_colours_exactly_its_own_pixels(open_widget, hot, width, density):
    """Looked at from a cell whose frame does not touch it; padding is hatched, and nothing else changes."""
    cold, lit = one_hot(hot, token=2), one_hot(hot, token=2)
    cold.weights = bytes(len(cold.weights))
    images = []
    for explorer in (cold, lit):
        page = open_widget(explorer, width=width)
        zoom(page, density)
        page.locator("input[type=checkbox]").click()  # so that it is painted anew
        page.locator("input[type=checkbox]").click()
        images.append(pixels(page))
        assert page.evaluate("window.devicePixelRatio") == density
    before, after = images
    canvas = area(page, ".holder canvas")
    assert after.shape[1] == pytest.approx(canvas["width"] * density, abs=0.06), (
        "a canvas pixel is a screen pixel"
    )
    assert after.shape[0] == pytest.approx(canvas["height"] * density, abs=0.06)
    assert after.shape[0] == pytest.approx(after.shape[1] * 80 / 100, abs=0.5)
    changed = (before != after).any(-1)
    assert (changed == of_cell(hot, after.shape)).all()
    yellow = after[changed].astype(int)
    assert (yellow == yellow[0]).all() and yellow[0, 0] > 200 > yellow[0, 2]


def test_padding_is_hatched_and_only_padding(open_widget):
    hatched = pixels(open_widget(one_hot(16, token=2)))
    plain = pixels(open_widget(one_hot(16, token=2, padded_columns=0)))
    padding = sum(of_cell(cell, plain.shape) for cell in range(35) if cell % 7 >= 5).astype(bool)
    assert ((hatched != plain).any(-1) == padding).all()
    assert len(np.unique(hatched[padding], axis=0)) >= 2, "it has lines"


def test_what_the_screen_shows_is_what_was_painted(open_widget):
    """A screenshot of the canvas: nothing lies over it, and it is not stretched."""
    page = open_widget(one_hot(17, token=2), width=613)
    painted = pixels(page)
    canvas = area(page, ".holder canvas")
    assert canvas["x"] == int(canvas["x"]) and canvas["y"] == int(canvas["y"])
    screen = np.array(Image.open(io.BytesIO(page.screenshot(clip=canvas))).convert("RGB"))
    assert screen.shape == painted.shape
    assert (np.abs(screen.astype(int) - painted) <= 2).all()


def test_small_maps_show_the_same_cells(open_widget):
    page = open_widget(one_hot(17, token=2))
    small = pixels(page, ".tile[data-head='0'] canvas")
    assert ((small == [253, 231, 37]).all(-1) == of_cell(17, small.shape)).all()


def test_a_grid_that_leaves_a_rest_of_the_picture(open_widget):
    """A ViT of patches of 16 on 100 pixels has 6 of them, and 4 pixels that belong to no cell."""
    maps = torch.zeros(1, 1, 30, 30)
    maps[..., 29] = 1
    explorer = AttentionExplorer(Image.new("RGB", (100, 80), "#305070"), maps, (5, 6), 16, token=0)
    painted = pixels(open_widget(explorer))
    hot = of_cell(29, painted.shape, columns=6)
    assert (painted[hot] == painted[hot][0]).all() and painted[hot][0, 0] > 200
    assert painted[-20, -3].max() < 90, "beside the cells there is the picture"


# --------------------------------------------------------------------------- what is chosen


def test_what_is_shown_at_first_is_what_python_says(open_widget):
    explorer = explorer_of(token=16, layer=1, head=2)
    state = assert_agrees(open_widget(explorer), explorer)
    assert (state["token"], state["layer"], state["head"], state["row"], state["column"]) == (16, 1, 2, 2, 2)
    assert state["own"] == "circle"


def test_pointing_shows_a_cell_and_a_click_keeps_it(open_widget):
    explorer = explorer_of(token=0)
    page = open_widget(explorer)
    shown(page)
    canvas = area(page, ".holder canvas")

    def place(x, y):  # of the picture's pixels
        return canvas["x"] + canvas["width"] * x / 100, canvas["y"] + canvas["height"] * y / 80

    page.mouse.move(*place(40, 20))
    assert assert_agrees(page, explorer)["token"] == explorer.token_at(40, 20) == 9
    page.mouse.move(canvas["x"] + canvas["width"] + 30, canvas["y"] + 10)
    assert shown(page)["token"] == 0, "it was only pointed at"
    page.mouse.click(*place(65, 79))
    page.mouse.move(canvas["x"] + canvas["width"] + 30, canvas["y"] + 10)
    assert assert_agrees(page, explorer)["token"] == explorer.token_at(65, 79) == 32


def test_padding_says_so_and_cannot_be_chosen(open_widget):
    explorer = explorer_of(token=3)
    page = open_widget(explorer)
    shown(page)
    canvas = area(page, ".holder canvas")
    x, y = canvas["x"] + 0.95 * canvas["width"], canvas["y"] + 0.5 * canvas["height"]
    page.mouse.move(x, y)
    state = shown(page)
    assert state["padding"] is True and "padding" in page.inner_text("figcaption")
    page.mouse.click(x, y)
    page.mouse.move(0, 0)
    assert shown(page)["token"] == 3


def test_the_keyboard_moves_and_stops_at_padding(open_widget):
    explorer = explorer_of(token=0)
    page = open_widget(explorer)
    page.locator(".holder canvas").focus()
    for key, token in (("ArrowRight", 1), ("ArrowDown", 8), ("ArrowLeft", 7), ("ArrowUp", 0), ("ArrowUp", 0)):
        page.keyboard.press(key)
        assert assert_agrees(page, explorer)["token"] == token
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    state = assert_agrees(page, explorer)
    assert state["column"] == 4 and not state["padding"], "columns 5 and 6 are padding"


def test_layer_and_head_by_mouse_and_keyboard(open_widget):
    explorer = explorer_of(token=16)
    page = open_widget(explorer)
    page.get_by_label("layer 2").check()
    page.locator(".tile[data-head='1']").click()
    state = assert_agrees(page, explorer)
    assert (state["layer"], state["head"]) == (1, 1)
    page.locator(".tile[data-head='2']").focus()
    page.keyboard.press("Enter")
    assert assert_agrees(page, explorer)["head"] == 2
    page.keyboard.press("Enter")
    assert assert_agrees(page, explorer)["head"] == -1, "pressed again: the mean"
    page.get_by_label("layer 2").focus()
    page.keyboard.press("ArrowLeft")
    assert assert_agrees(page, explorer)["layer"] == 0


def test_one_scale_for_all_maps(open_widget):
    """With a scale of its own each map has a cell of the brightest colour; with one for all only one of them has."""
    page, brightest = open_widget(explorer_of(token=16)), [253, 231, 37]

    def bright():
        return [
            bool((pixels(page, f".tile[data-head='{head}'] canvas") == brightest).all(-1).any())
            for head in range(3)
        ]

    assert bright() == [True, True, True]
    page.get_by_label("one scale for all maps").check()
    assert sum(bright()) == 1


def test_a_class_token_before_the_grid(open_widget):
    explorer = explorer_of(extra=("class token",), token=0)
    page = open_widget(explorer)
    state = assert_agrees(page, explorer)
    assert state["token"] == 0 and "row" not in state
    assert "class token" in page.inner_text("figcaption")
    page.locator(".holder canvas").focus()
    page.keyboard.press("ArrowDown")
    assert assert_agrees(page, explorer)["token"] == 1, "into the picture"
    page.keyboard.press("ArrowDown")
    assert assert_agrees(page, explorer)["row"] == 1
    page.get_by_role("button", name="class token").click()
    assert assert_agrees(page, explorer)["token"] == 0


def test_who_does_not_see_is_told_where_one_looks(open_widget):
    page = open_widget(explorer_of(token=16))
    shown(page)
    page.wait_for_timeout(800)
    page.locator(".holder canvas").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('[aria-live]').textContent.includes('row 3, column 4')")


def test_python_sets_what_is_shown(open_widget):
    explorer = explorer_of(token=16)
    page = open_widget(explorer)
    shown(page)
    assert page.evaluate("Object.keys(window.widget)") == ["default"]
    explorer.token, explorer.layer, explorer.head, explorer.one_scale = 8, 1, 0, True
    page = open_widget(explorer)
    state = assert_agrees(page, explorer)
    assert (state["token"], state["layer"], state["head"]) == (8, 1, 0)
    assert page.get_by_label("one scale for all maps").is_checked()
