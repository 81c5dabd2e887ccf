"""MatchingExplorer in JupyterLab: Python hears what is moved, and the picture outlives the kernel."""

import json
from pathlib import Path

import pytest
from lab import python, run_all_cells, shut_down_kernel, wait_for_python, write_notebook
from pages import area

pytestmark = pytest.mark.slow


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    cells = [
        "from minivis.widgets.matching_explorer import MatchingExplorer",
        "toy = MatchingExplorer.toy()\ntoy",
    ]
    return write_notebook(tmp_path / "toy.ipynb", *cells)


def shown(page, name: str):
    return json.loads(page.get_attribute("[data-widget]", f"data-{name}"))


def test_python_hears_what_is_moved_and_the_picture_outlives_the_kernel(open_notebook, notebook):
    page = open_notebook(notebook)
    run_all_cells(page)
    page.wait_for_selector("[data-widget]")
    assert shown(page, "weights") == python(page, "toy.weights") == [1, 5, 2]

    # From the browser to Python: a slider by mouse, then by keyboard, where JupyterLab must not take the keys.
    slider = page.locator("[data-part=L1] input")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"], box["y"] + box["height"] / 2, steps=10)
    page.mouse.up()
    wait_for_python(page, "toy.weights", [1, 0, 2])
    for key in ("ArrowUp", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    wait_for_python(page, "toy.weights", [1, 0.1, 2])
    page.locator("svg.prediction[data-query='1'][tabindex]").focus()
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    wait_for_python(page, "toy.boxes[1]", [0.25, 0.75, 0.2, 0.3])
    assert python(page, "toy.matching") == shown(page, "matching") == [[0, 1], [1, 0], [2, 2]]
    assert page.locator(".jp-Notebook-cell").count() == 2, "no key was a command of JupyterLab"

    # From Python to the browser.
    assert python(page, "[setattr(toy, 'weights', [3, 4, 5]), setattr(toy, 'method', 'greedy')]") == [
        None,
        None,
    ]
    page.wait_for_selector("[data-weights='[3,4,5]'][data-method=greedy]")
    assert slider.input_value() == "4"

    # Without a kernel.
    shut_down_kernel(page)
    page.wait_for_function("!jupyterapp.shell.currentWidget.sessionContext.session?.kernel")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_selector("[data-weights='[3,0,5]']")
    page.locator("input[value=optimal]").check()
    page.locator(".picture").scroll_into_view_if_needed()
    picture = area(page, ".picture")
    page.mouse.move(picture["x"] + 0.25 * picture["width"], picture["y"] + 0.8 * picture["height"])
    page.mouse.down()
    page.mouse.move(picture["x"] + 0.6 * picture["width"], picture["y"] + 0.8 * picture["height"], steps=10)
    page.mouse.up()
    page.wait_for_selector("[data-matching='[[0,0],[1,1],[2,2]]'][data-method=optimal]")
