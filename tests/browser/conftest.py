"""A real browser for the tests: Debian's Chromium, led by Playwright, on pages without kernel and on JupyterLab.

Nothing leaves the machine: the browser resolves no name, and a page that asks for anything else fails its test.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import JupyterLab

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Page

    from minivis.widgets.base import Widget

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += [
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"  # the one thing that notebooks have from outside
ON_THIS_MACHINE = (BADGE, "file:", "data:", "blob:", "about:", "http://127.0.0.1:", "ws://127.0.0.1:")

EMPTY = '<svg xmlns="http://www.w3.org/2000/svg"/>'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("browser")


# For one file of tests, not for all: while Playwright runs it keeps an event loop, and other tests start their own.
@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[BrowserContext]":
    """A browser that reaches nothing but this machine."""
    if CHROMIUM is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain("there is no Chromium on the PATH: install it, for example with `apt-get install chromium`")
    from playwright.sync_api import sync_playwright

    profile = tmp_path_factory.mktemp("profile")
    with sync_playwright() as playwright:
        chromium = playwright.chromium
        context = chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=FLAGS
        )
        yield context
        context.close()


def is_error(line: "ConsoleMessage") -> bool:
    """Not when ipywidgets says that the kernel, which a test has shut down, hears nothing any more."""
    return line.type == "error" and not line.text.startswith("Could not send widget sync message")


@pytest.fixture
def new_page(browser: "BrowserContext") -> "Iterator[Callable[..., Page]]":
    """Empty pages, each of its own size. At the end none of them may have complained, nor asked the network."""
    pages, complaints = [], []

    def open_page(width: int = 940, height: int = 800) -> "Page":
        page = browser.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(60_000)
        page.on("console", lambda line: is_error(line) and complaints.append(f"console: {line.text}"))
        page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(ON_THIS_MACHINE) or complaints.append(f"asked for {request.url}")
            ),
        )
        page.route(BADGE, lambda route: route.fulfill(content_type="image/svg+xml", body=EMPTY))
        page.complaints = complaints
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


@pytest.fixture
def open_widget(new_page: "Callable[..., Page]", tmp_path: Path) -> "Callable[..., Page]":
    """A widget on a page of its own, from a file, without a kernel."""
    numbers = count()

    def open_file(widget: "Widget", **size: int) -> "Page":
        file = tmp_path / f"widget-{next(numbers)}.html"
        file.write_text(widget.page(), encoding="utf-8")
        page = new_page(**size)
        page.goto(file.as_uri())
        page.wait_for_selector("[data-widget]")
        return page

    return open_file


@pytest.fixture(scope="module")
def jupyterlab(browser: "BrowserContext", tmp_path_factory: pytest.TempPathFactory) -> "Iterator[JupyterLab]":
    with JupyterLab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def open_notebook(jupyterlab: JupyterLab, new_page: "Callable[..., Page]") -> "Callable[..., Page]":
    """A copy of a notebook in JupyterLab, its kernel ready, nothing run yet (`lab.run_all_cells` does)."""

    def open_file(notebook: Path, **size: int) -> "Page":
        page = new_page(**{"width": 1200, "height": 900} | size)
        jupyterlab.open(page, notebook)
        return page

    return open_file
