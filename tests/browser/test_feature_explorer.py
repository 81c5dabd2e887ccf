"""FeatureExplorer in a real browser, on a page without kernel and network."""

import json

import numpy as np
import pytest
import torch
from pages import area, dataset
from PIL import Image

from minivis.detr import DETRConfig, build_detr
from minivis.images import ImageTransform
from minivis.widgets.feature_explorer import FeatureExplorer
from minivis.widgets.feature_picture import DIMMED

HEIGHT, WIDTH = 40, 54  # strides divide neither


@pytest.fixture(scope="module")
def explorer_state():
    """Made once, since gradients take their time; each test makes a widget of its own from it."""
    torch.manual_seed(0)
    config = DETRConfig(
        num_classes=2, num_queries=3, backbone="small", backbone_channels=(8, 12, 16), d_model=16, num_heads=2,
        encoder_layers=1, decoder_layers=1, dim_feedforward=16,
    )  # fmt: skip
    model = build_detr(config).eval()
    model.image_transform = ImageTransform()
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return FeatureExplorer(model, Image.fromarray(pixels), measured_cells=140)


@pytest.fixture
def explorer(explorer_state):
    explorer_state.set_trait("level", 2)
    explorer_state.cell = (2, 3)
    explorer_state.ranking = "highest"
    return explorer_state


def shown(page) -> dict[str, str]:
    """What the widget says that it shows, once it has drawn."""
    return dataset(page)


def assert_agrees(page, explorer) -> dict[str, str]:
    """The page says what Python says of the same choices."""
    state = shown(page)
    explorer.level = int(state["level"])
    explorer.ranking = state["ranking"]
    explorer.cell = [int(n) for n in state["cell"].split(",")]
    assert json.loads(state["channels"]) == explorer.top_channels()
    assert tuple(map(int, state["window"].split())) == explorer.window()
    index = explorer.cell[0] * explorer.stage["width"] + explorer.cell[1]
    if explorer.stage["moved"] is not None:
        assert int(state["half"]) == explorer.stage["half"][index]
        assert float(state["outside"]) == explorer.stage["outside"][index]
    tiles = page.eval_on_selector_all(
        ".tile:not([hidden])", "all => all.map(({ dataset }) => [dataset.channel, dataset.value])"
    )
    values = explorer.values()[:, explorer.cell[0], explorer.cell[1]]
    assert [int(channel) for channel, _ in tiles] == explorer.top_channels()
    for channel, value in tiles:
        assert float(value) == pytest.approx(values[int(channel)], abs=1e-5)
    return state


def hover(page, x, y) -> None:
    """A pixel of the picture."""
    box = area(page, ".picture")
    page.mouse.move(
        box["x"] + (x + 0.5) * box["width"] / WIDTH, box["y"] + (y + 0.5) * box["height"] / HEIGHT
    )


def test_ranks_are_pythons_at_every_cell(open_widget, explorer):
    page = open_widget(explorer)
    for level in range(3):
        explorer.level = level
        stage = explorer.stage
        for ranking in ("highest", "stands out"):
            explorer.ranking = ranking
            explorer.cell = (1, 2)
            found = page.evaluate(
                """([level, ranking, row, column]) => {
                  const content = JSON.parse(document.getElementById("content").textContent, (key, value) =>
                    value?.base64 === undefined ? value
                      : new DataView(Uint8Array.from(atob(value.base64), (c) => c.charCodeAt(0)).buffer));
                  const stage = widget.unpackedStage(content.state.stages[level]);
                  const ranks = widget.ranksAt({ row, column }, stage, ranking);
                  return [ranks, widget.topChannels(ranks)];
                }""",
                [level, ranking, 1, 2],
            )
            assert found[0] == pytest.approx(explorer.ranks().tolist(), abs=1e-9)
            assert found[1] == explorer.top_channels()
            assert len(found[0]) == len(stage["maxima"])


def test_it_opens_as_python_left_it(open_widget, explorer):
    explorer.level, explorer.ranking = 1, "stands out"
    explorer.cell = (3, 5)
    state = assert_agrees(open_widget(explorer), explorer)
    assert (state["level"], state["cell"], state["ranking"]) == ("1", "3,5", "stands out")


def test_pointing_shows_a_cell_and_a_click_stays_with_it(open_widget, explorer):
    page = open_widget(explorer)
    hover(page, 50, 37)
    assert assert_agrees(page, explorer)["cell"] == "4,6"  # the last of both, which the picture cuts off
    hover(page, 0, 0)
    assert assert_agrees(page, explorer)["cell"] == "0,0"
    page.mouse.move(5, 5)  # out of the picture: back to what was chosen
    assert shown(page)["cell"] == "2,3"
    hover(page, 17, 9)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(5, 5)
    state = assert_agrees(page, explorer)
    assert state["cell"] == "1,2" and state["point"] == "17,9"


def test_by_keyboard(open_widget, explorer):
    page = open_widget(explorer)
    page.locator(".picture").focus()
    for key, cell in (("ArrowRight", "2,4"), ("ArrowDown", "3,4"), ("ArrowLeft", "3,3"), ("ArrowUp", "2,3")):
        page.keyboard.press(key)
        assert assert_agrees(page, explorer)["cell"] == cell
    for _ in range(9):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    assert assert_agrees(page, explorer)["cell"] == "4,6"
    label = page.locator(".picture").get_attribute("aria-label")
    assert "stride 8, row 4, column 6" in label
    page.wait_for_function("document.querySelector('[aria-live]').textContent.includes('row 4, column 6')")


def test_another_map_keeps_the_place(open_widget, explorer):
    page = open_widget(explorer)
    hover(page, 41, 22)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(5, 5)
    for level, cell in ((0, "11,20"), (1, "5,10"), (2, "2,5")):
        page.locator(f"input[name^=level] >> nth={level}").check()
        assert assert_agrees(page, explorer)["cell"] == cell
    page.locator("input[name^=ranking] >> nth=1").check()
    assert assert_agrees(page, explorer)["ranking"] == "stands out"


def alphas(page) -> np.ndarray:
    return np.array(
        page.evaluate(
            """() => {
              const canvas = document.querySelector("canvas.dim"), { width, height } = canvas;
              const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
              return Array.from({ length: height }, (_, y) =>
                Array.from({ length: width }, (_, x) => data[4 * (y * width + x) + 3]));
            }"""
        )
    )


def test_the_picture_is_dim_where_the_cell_does_not_look(open_widget, explorer):
    page = open_widget(explorer)
    shown(page)
    dim = 255 * DIMMED * (1 - np.sqrt(explorer.field()))
    assert np.abs(alphas(page) - dim).max() <= 1
    assert page.locator("canvas.dim").is_visible() and not page.locator(".beyond").is_visible()


def test_a_fine_map_shows_what_convolutions_reach(open_widget, explorer):
    page = open_widget(explorer)
    page.locator("input[name^=level] >> nth=0").check()
    hover(page, 30, 20)
    shown(page)
    assert not page.locator("canvas.dim").is_visible() and page.locator(".beyond").is_visible()
    assert "Not measured: what moves a cell, since this map has 540" in page.locator(".facts").inner_text()
    explorer.level = 0
    explorer.cell = (10, 15)
    left, top, right, bottom = explorer.window()
    frame = page.locator(".field rect").last
    edges = [float(frame.get_attribute(name)) for name in ("x", "y", "width", "height")]
    assert edges == [left, top, right - left, bottom - top]


def test_a_channel_is_laid_over_the_picture_and_kept(open_widget, explorer):
    page = open_widget(explorer)
    first, second, *_ = explorer.top_channels()
    assert not page.locator("canvas.map").is_visible()
    page.locator(".tile").nth(1).hover()
    assert shown(page)["channel"] == str(second) and page.locator("canvas.map").is_visible()
    page.mouse.move(5, 5)
    assert "channel" not in shown(page)
    page.locator(".tile").nth(0).click()
    page.mouse.move(5, 5)
    page.evaluate("document.activeElement.blur()")
    assert shown(page)["channel"] == str(first)  # and stays, whatever cell is pointed at
    hover(page, 3, 3)
    assert shown(page)["channel"] == str(first)
    page.locator(".picture").focus()
    page.keyboard.press("Escape")
    assert "channel" not in shown(page)
    # The map reaches beyond the picture, as its last cells do: 7 · 8 of 54 pixels.
    page.locator(".tile").nth(0).hover()
    shown(page)
    assert page.eval_on_selector("canvas.map", "canvas => [canvas.width, canvas.height]") == [7, 5]
    assert page.eval_on_selector("canvas.map", "canvas => parseFloat(canvas.style.width)") == pytest.approx(
        100 * 56 / 54, abs=0.01
    )


def test_a_kept_channel_is_named_wherever_one_points(open_widget, explorer):
    page = open_widget(explorer)
    last = explorer.top_channels()[-1]
    assert not page.locator(".release").is_visible()
    page.locator(".tile").nth(7).click()
    left_the_tiles = False
    for x, y in ((3, 3), (50, 3), (3, 37), (50, 37), (30, 3)):
        hover(page, x, y)
        state = shown(page)
        assert state["channel"] == state["kept"] == str(last)
        explorer.cell = [int(n) for n in state["cell"].split(",")]
        here = explorer.values()[last, explorer.cell[0], explorer.cell[1]]
        text = page.locator(".release").inner_text()
        assert text.startswith(f"Kept: channel {last}, here ")
        assert float(text.split("here ")[1].split(". ")[0]) == pytest.approx(here, abs=0.06)
        left_the_tiles |= last not in json.loads(state["channels"])
    assert left_the_tiles
    page.locator(".release").click()
    page.mouse.move(5, 5)
    state = shown(page)
    assert "channel" not in state and "kept" not in state and not page.locator(".release").is_visible()


def test_channels_that_are_new_are_marked(open_widget, explorer):
    def top(cell):
        explorer.cell = cell
        return explorer.top_channels()

    def assert_new(now, before):
        wanted = [channel for channel in top(now) if channel not in top(before)]
        state = shown(page)
        assert wanted and json.loads(state["fresh"]) == wanted
        marked = page.eval_on_selector_all(
            ".tile:has(em:not([hidden]))", "all => all.map(({ dataset }) => dataset.channel)"
        )
        assert [int(channel) for channel in marked] == wanted

    page = open_widget(explorer)
    assert json.loads(shown(page)["fresh"]) == []  # nothing to compare with
    hover(page, 3, 3)
    assert_new((0, 0), before=(2, 3))  # the chosen one
    hover(page, 50, 37)
    assert_new((4, 6), before=(2, 3))
    page.mouse.down()
    page.mouse.up()
    assert_new((4, 6), before=(2, 3))
    page.mouse.move(5, 5)
    page.locator(".picture").focus()
    page.keyboard.press("ArrowUp")
    assert_new((3, 6), before=(4, 6))
    page.locator("input[name^=level] >> nth=1").check()  # other channels: no comparison
    assert json.loads(shown(page)["fresh"]) == []


def test_words_say_what_of_the_field_lies_in_the_picture(open_widget, explorer):
    page = open_widget(explorer)
    facts, dark = page.locator(".facts"), page.locator(".key.dark")
    hover(page, 0, 0)
    shown(page)
    assert "receptive field 63 × 63, 32 × 32 of it in the picture" in facts.inner_text()
    assert "lies outside of the field" in facts.inner_text() and dark.inner_text() == "moves it less"
    hover(page, 26, 18)  # 24 ± 31 and 16 ± 31: all of 54 × 40
    assert shown(page)["window"] == "-7 -15 56 48"
    assert "63 × 63: all of the picture." in facts.inner_text() and "outside" not in facts.inner_text()
    page.locator(".tile").nth(0).hover()
    shown(page)
    assert not dark.is_visible()
    page.locator("input[name^=level] >> nth=0").check()
    hover(page, 26, 18)
    shown(page)
    assert dark.inner_text() == "out of its reach"
    assert "receptive field 3 × 3." in facts.inner_text()


def test_a_narrow_page_puts_one_below_the_other(open_widget, explorer):
    for width, is_below in ((1000, False), (480, True)):
        page = open_widget(explorer, width=width)
        picture, tiles = (area(page, name) for name in (".picture", ".tiles"))
        assert (tiles["y"] > picture["y"] + picture["height"]) == is_below
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
