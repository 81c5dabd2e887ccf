"""Live widgets in a real browser: how long from a slider's or a pointer's event until the picture is painted.

Beside each stands what the same change costs where Python draws: a picture of the same state made by matplotlib and
written as PNG, without its way to the browser. Beside the time between two frames stands that of a screen of 60 Hz.

    python benchmarks/widgets.py [--quick] [--json]
"""

import io
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import Row, arguments, fastest, machine, report
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from minivis.widgets.matching_explorer import MatchingExplorer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREEN = 1000 / 60  # milliseconds a frame

# `change(i)` changes the widget by what a browser sends for a reader's hand. A message to oneself that is sent in a
# frame arrives when the frame is painted.
MEASURE = """async ([change, times]) => {
    const act = eval(change);
    const frame = () => new Promise(requestAnimationFrame);
    const painted = () => new Promise((done) => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = done;
        port2.postMessage(null);
    }));
    for (let i = 0; i < 20; i++) { act(i); await painted(); } // warm
    const latency = [], interval = [];
    for (let i = 0; i < times; i++) {
        await new Promise((done) => setTimeout(done, 10 * Math.random())); // hands do not wait for frames
        const start = performance.now();
        act(i);
        await painted();
        latency.push(performance.now() - start);
    }
    let before = await frame();
    for (let i = 0; i < times; i++) {
        act(i);
        const now = await frame();
        interval.push(now - before);
        before = now;
    }
    return { latency, interval };
}"""

SLIDER = """(i) => {
    const slider = document.querySelector("[data-part=L1] input");
    slider.value = 5 + 4.9 * Math.sin(i / 5);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
}"""

BOX = """(i) => {
    const overlay = document.querySelector(".overlay"), { left, top } = overlay.getBoundingClientRect();
    const at = (type, x, y, target) => target.dispatchEvent(new PointerEvent(type, {
        bubbles: true, cancelable: true, pointerId: 1, clientX: left + x, clientY: top + y,
    }));
    overlay.setPointerCapture = () => {}; // there is no real pointer to be captured
    if (i === 0) {
        at("pointerup", 0, 0, overlay);
        at("pointerdown", 0, 0, document.querySelector("svg.prediction[tabindex] .frame"));
    }
    at("pointermove", 60 * Math.sin(i / 5), 60 * Math.cos(i / 5), overlay);
}"""


def explorer_of(queries: int, objects: int) -> MatchingExplorer:
    """Random boxes; several queries near each object."""
    generator = torch.Generator().manual_seed(0)
    size = 0.05 + 0.2 * torch.rand(objects, 2, generator=generator)
    true_boxes = torch.cat([size / 2 + (1 - size) * torch.rand(objects, 2, generator=generator), size], dim=1)
    boxes = true_boxes[torch.arange(queries) % objects]
    boxes = (boxes + 0.03 * torch.randn(boxes.shape, generator=generator)).clamp(0.02, 0.98)
    return MatchingExplorer(
        Image.effect_noise((256, 256), 60).convert("RGB"),
        {"pred_logits": torch.randn(queries, 11, generator=generator), "pred_boxes": boxes},
        {"labels": torch.randint(0, 10, (objects,), generator=generator), "boxes": true_boxes},
        [f"class {i}" for i in range(10)],
    )


def in_browser(page: Page, change: str, times: int) -> dict[str, float]:
    """Median milliseconds from event to paint, and from frame to frame while changes come without a pause."""
    measured = page.evaluate(MEASURE, [change, times])
    return {name: statistics.median(values) for name, values in measured.items()}


def in_python(explorer: MatchingExplorer, repeats: int) -> float:
    """Milliseconds for the same picture, drawn anew after a weight has changed."""

    def redraw() -> None:
        explorer.weights = [1, 5 - explorer.weights[1], 2]
        explorer.draw().save(io.BytesIO(), format="png")

    return 1000 * fastest({"redraw": redraw}, repeats)["redraw"]


def rows(page: Page, folder: Path, times: int, repeats: int) -> list[Row]:
    found = []
    for queries, objects, show_all in ((25, 8, False), (100, 20, False), (100, 20, True)):
        explorer = explorer_of(queries, objects)
        file = folder / "widget.html"
        file.write_text(explorer.page(), encoding="utf-8")
        page.goto(file.as_uri())
        page.wait_for_selector("[data-widget]")
        if show_all:
            page.get_by_role("button", name="show all").click()
        redrawn = in_python(explorer, repeats)
        size = f"{queries} queries x {objects} objects{', all shown' * show_all}"
        for what, change in (("slider", SLIDER), ("box", BOX)):
            browser = in_browser(page, change, times)
            found.append(Row(f"{size}: {what} to paint", browser["latency"], redrawn, "ms"))
            found.append(Row(f"{size}: {what}, frame to frame", browser["interval"], SCREEN, "ms"))
    return found


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    if CHROMIUM is None:
        raise SystemExit(
            "there is no Chromium on the PATH: install it, for example with `apt-get install chromium`"
        )
    times, repeats = (60, 2) if options.quick else (300, 5)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        page = browser.new_page(viewport={"width": 940, "height": 900})
        page.set_default_timeout(60_000)
        measured = rows(page, Path(folder), times, repeats)
        facts: dict[str, Any] = machine("cpu") | {"chromium": browser.version}
        browser.close()
    report("live widgets", measured, facts, options.json)


if __name__ == "__main__":
    main()
