"""PanopticExplorer in a real browser, on a page without kernel and network: what it computes is what Python does."""

import io
import json

import numpy as np
import pytest
import torch
from pages import area, dataset, let_draw
from PIL import Image

from minivis.data.items import Categories
from minivis.detr import Panoptic, PanopticConfig, Segment, build_panoptic, merge_masks
from minivis.evaluation.panoptic import PanopticQuality
from minivis.widgets.panoptic_answers import Answers
from minivis.widgets.panoptic_explorer import PanopticExplorer

ROOT = "[data-widget=panoptic-explorer]"
CLASSES, THINGS = 5, {0, 1, 2}
CATEGORIES = Categories(
    ("cat", "dog", "fox", "sky", "sea"), (1, 2, 3, 4, 5), (True, True, True, False, False)
)


def made_up(seed, monkeypatch, pictures=3, queries=12, cells=(16, 20), factor=4):
    """Smooth random masks of random classes, and a truth that is like some of them: a model is not asked."""
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    answers, truths = [], []
    for _ in range(pictures):
        masks = torch.randn(queries, 1, 5, 6, generator=generator) * 8 - 2
        masks = torch.nn.functional.interpolate(masks, cells, mode="bicubic")[:, 0]
        step = float(masks.abs().max()) / 32767
        labels = torch.randint(CLASSES, (queries,), generator=generator).tolist()
        attention = random(queries, 2, 4, 5)
        attention /= attention.sum((1, 2, 3), keepdim=True)
        scores = [round(score, 6) for score in (0.2 + 0.8 * random(queries)).tolist()]
        answers.append(
            Answers(
                list(range(3, 3 + queries)), labels, scores, random(queries, 4).numpy(),
                (masks / step).round().to(torch.int16), step,
                (torch.stack([masks * 0.3, masks * 0.6, masks]).sigmoid() * 255).round().to(torch.uint8),
                [16, 8, 4], attention.numpy(), factor,
            )
        )  # fmt: skip
        size = tuple(side * factor for side in cells)
        other = masks + torch.randn(queries, 1, 1, generator=generator)
        full = torch.nn.functional.interpolate(other[:, None], size, mode="bilinear")[:, 0]
        truths.append(merge_masks(full[:9], torch.tensor(labels[:9]), torch.ones(len(labels[:9])), THINGS))
    taken = iter(answers)
    monkeypatch.setattr("minivis.widgets.panoptic_explorer.answers_of", lambda *a: next(taken))

    config = PanopticConfig(
        num_classes=CLASSES, num_queries=20, backbone="small", backbone_channels=(8, 8, 8, 8), d_model=64, num_heads=8,
        encoder_layers=1, decoder_layers=1, dim_feedforward=16,
    )  # fmt: skip
    model = build_panoptic(config)
    grey = [torch.full((3, *size), 60 * i, dtype=torch.uint8) for i in range(1, pictures + 1)]
    return lambda with_truth=True, **traits: PanopticExplorer(
        model, grey, truths if with_truth else None, CATEGORIES, **traits
    )


@pytest.fixture
def explorer(monkeypatch):
    widget = made_up(0, monkeypatch)(score=0.4)
    png = widget._png()
    widget._png = lambda: png
    return widget


def assert_agrees(page, explorer) -> dict[str, str]:
    """The page shows what Python finds with the same thresholds."""
    state = dataset(page)
    explorer.scene, explorer.score, explorer.overlap = (
        int(state["scene"]), float(state["score"]), float(state["overlap"]),
    )  # fmt: skip
    ids, segments = explorer.merged()
    expected = [[s.label, list(s.queries), int((ids == s.id).sum())] for s in segments]
    assert json.loads(state["segments"]) == expected
    whole, here = explorer.quality(), explorer.quality(explorer.scene)
    for name, value in [
        ("pq", whole["PQ"]), ("sq", whole["SQ"]), ("rq", whole["RQ"]), ("pqHere", here["PQ"]),
        ("pqThings", whole["PQ_things"]), ("pqStuff", whole["PQ_stuff"]),
    ]:  # fmt: skip
        assert float(state[name]) == pytest.approx(value, abs=1e-6, nan_ok=True), name
    return state


def set_slider(page, label, value):
    page.locator(f".thresholds input[aria-label='{label}']").fill(str(value))


# Merging and PQ are those of Python

MERGE = """([scene, names, isThing, thresholds]) => {
  const bytes = (list) => Uint8Array.from(list);
  for (const key of ["masks", "drafts", "attention", "maxima"]) scene[key] = bytes(scene[key]);
  if (scene.truth) for (const key of ["lengths", "places"]) scene.truth[key] = bytes(scene.truth[key]);
  const whole = widget.unpackedScene(scene, names, isThing), merger = widget.mergerOf(whole);
  return thresholds.map(([score, overlap]) => {
    const { ids, segments, quality } = merger(score, overlap);
    return {
      ids: [...ids],
      segments: segments.map(({ label, places, score }) => [label, places.map((place) => whole.queries[place]), score]),
      quality: quality && widget.panopticQuality([quality], isThing),
    };
  });
}"""


def in_javascript(page, explorer, scene, thresholds):
    def plain(values):
        return {k: list(v) if isinstance(v, bytes) else v for k, v in values.items() if k != "picture"}

    sent = plain(explorer.scenes[scene])
    sent["truth"] = sent["truth"] and plain(sent["truth"])
    return page.evaluate(MERGE, [sent, explorer.class_names, explorer.is_thing, thresholds])


@pytest.mark.parametrize("seed", range(4))
def test_segments_are_pythons_to_the_pixel_at_all_thresholds(monkeypatch, open_widget, seed):
    """Also in an order that lets the browser keep what a threshold did not change."""
    factor, cells = [(4, (16, 20)), (2, (9, 5)), (1, (13, 8)), (8, (5, 7))][seed]
    explorer = made_up(seed, monkeypatch, factor=factor, cells=cells)()
    page = open_widget(explorer)
    rng = np.random.default_rng(seed)
    thresholds = [[score, overlap] for score in (0, 0.3, 0.6, 0.9, 1) for overlap in (0, 0.2, 0.5, 0.8, 1)]
    thresholds += rng.random((40, 2)).round(2).tolist()
    seen = set()
    for scene in range(3):
        for (score, overlap), found in zip(
            thresholds, in_javascript(page, explorer, scene, thresholds), strict=True
        ):
            explorer.score, explorer.overlap = score, overlap
            ids, segments = explorer.merged(scene)
            assert found["ids"] == ids.flatten().tolist(), (scene, score, overlap)
            expected = [[s.label, list(s.queries), pytest.approx(s.score, abs=1e-6)] for s in segments]
            assert found["segments"] == expected
            quality = explorer.quality(scene)
            for part, ending in (("all", ""), ("things", "_things"), ("stuff", "_stuff")):
                for name in ("PQ", "SQ", "RQ"):
                    value = found["quality"][part][name]
                    wanted = quality[name + ending]
                    assert (value is None and np.isnan(wanted)) or value == pytest.approx(
                        wanted, abs=1e-12, nan_ok=True
                    )
            seen.add(len(segments))
    assert len(seen) > 3, "thresholds matter"


def test_masks_are_stretched_as_torch_does(open_widget, explorer):
    page = open_widget(explorer)
    for (rows, columns), factor in [((3, 4), 4), ((1, 1), 4), ((2, 7), 2), ((5, 3), 1), ((2, 2), 8)]:
        mask = torch.randint(-32767, 32768, (rows, columns), generator=torch.Generator().manual_seed(factor))
        found = page.evaluate(
            "([mask, size, factor]) => [...widget.stretched(mask, size, factor)]",
            [mask.flatten().tolist(), [rows, columns], factor],
        )
        full = torch.nn.functional.interpolate(
            mask[None, None].float(), (rows * factor, columns * factor), mode="bilinear"
        )
        assert [value / (2 * factor) ** 2 for value in found] == full.flatten().tolist()


def test_quality_with_void_and_crowds(open_widget, explorer):
    """Random maps with both: the browser's counts are those of PanopticQuality."""
    page = open_widget(explorer)
    rng = np.random.default_rng(0)
    maps, qualities = [], PanopticQuality(CLASSES, THINGS)
    for _ in range(12):
        pair = []
        base = rng.integers(0, 5, (6, 6))
        for crowds in (False, True):
            ids = np.where(rng.random((6, 6)) < 0.75, base, rng.integers(0, 5, (6, 6)))
            _, ids = np.unique(ids, return_inverse=True)
            ids = np.kron(ids.reshape(6, 6), np.ones((3, 3), int))
            segments = [
                Segment(i, label, label in THINGS, is_crowd=crowds and i == 1)
                for i, label in enumerate(rng.integers(0, 2, ids.max()).tolist(), start=1)
            ]
            pair.append(Panoptic(torch.from_numpy(ids), segments))
        qualities.add(*pair)
        maps.append(
            [
                {
                    "ids": panoptic.segment_ids.flatten().tolist(),
                    "segments": [{"label": s.label, "crowd": s.is_crowd} for s in panoptic.segments],
                }
                for panoptic in pair
            ]
        )
    found = page.evaluate(
        """([maps, isThing]) => {
          const counted = maps.map(([found, truth]) => widget.qualityOf(found, truth));
          return widget.panopticQuality(counted, isThing);
        }""",
        [maps, explorer.is_thing],
    )
    counts = qualities.counts.sum(0)
    assert [found["all"][name] for name in ("right", "wrong", "missed")] == counts[1:].tolist()
    assert counts[1:].min() > 0
    metrics = qualities.metrics()
    for name in ("PQ", "SQ", "RQ"):
        assert found["all"][name] == pytest.approx(metrics[name], abs=1e-12)


def test_thresholds_on_the_page(page_of, explorer):
    page = page_of(explorer)
    start = assert_agrees(page, explorer)
    counts = set()
    for score, overlap in [(0.3, 0), (0.3, 0.6), (0.3, 0.9), (0.7, 0.9), (0.7, 0.2), (0.99, 0)]:
        set_slider(page, "score above", score)
        set_slider(page, "overlap at least", overlap)
        state = assert_agrees(page, explorer)
        assert (float(state["score"]), float(state["overlap"])) == (score, overlap)
        right, wrong, missed = map(int, state["counts"].split())
        assert right + missed == sum(len(explorer.true_segments(i).segments) for i in range(3))
        assert page.inner_text("[data-row=all] td") == f"{explorer.quality()['PQ']:.3f}"
        counts.add(state["segments"])
    assert len(counts) > 3
    assert "since the start" in page.inner_text(".quality .mv-note")
    page.get_by_role("button", name="Reset").click()
    assert assert_agrees(page, explorer) == start


@pytest.fixture
def page_of(open_widget):
    def opened(explorer, **size):
        page = open_widget(explorer, **{"width": 960, "height": 900} | size)
        page.locator(ROOT).focus()
        return page

    return opened


# What is looked at


def test_pointing_at_a_segment_shows_its_query(page_of, explorer):
    page = page_of(explorer)
    ids, segments = explorer.merged()
    spot = area(page, ".picture canvas")
    for segment in segments:
        inside = (ids == segment.id).nonzero()
        y, x = inside[len(inside) // 2].tolist()
        at = (
            spot["x"] + (x + 0.5) / ids.shape[1] * spot["width"],
            spot["y"] + (y + 0.5) / ids.shape[0] * spot["height"],
        )
        page.mouse.move(*at)
        state = dataset(page)
        assert int(state["query"]) in segment.queries and state["pointed"] == "true"
        name = explorer.class_names[segment.label]
        assert page.inner_text(".about").startswith(f"Query {state['query']}: {name}, score ")
    page.mouse.click(*at)
    page.mouse.move(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] + 60)
    state = dataset(page)
    assert int(state["query"]) in segment.queries and state["pointed"] == "false", "a click keeps it"


def test_keys(page_of, explorer):
    page = page_of(explorer)
    scores, queries = np.array(explorer.answers.scores), explorer.answers.queries
    order = [queries[i] for i in np.argsort(-scores, kind="stable")]
    assert dataset(page)["query"] == str(order[0])
    for key, query in [("ArrowRight", order[1]), ("ArrowRight", order[2]), ("ArrowLeft", order[1])]:
        page.keyboard.press(key)
        assert dataset(page)["query"] == str(query)
    for key, scene in [("ArrowDown", "1"), ("ArrowDown", "2"), ("ArrowDown", "0"), ("ArrowUp", "2")]:
        page.keyboard.press(key)
        assert assert_agrees(page, explorer)["scene"] == scene
    page.keyboard.press("t")
    assert dataset(page)["truth"] == "true"
    assert page.get_by_role("button", name="true").get_attribute("aria-pressed") == "true"
    page.keyboard.press("t")
    assert dataset(page)["truth"] == "false"
    page.locator(".thresholds input").first.focus()
    before = dataset(page)
    page.keyboard.press("ArrowRight")
    after = dataset(page)
    assert float(after["score"]) == pytest.approx(float(before["score"]) + 0.01), "a slider's own keys"
    assert after["query"] == before["query"]


def test_attention_by_head_and_the_mask_by_stages(page_of, explorer):
    page = page_of(explorer)
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        query = int(dataset(page)["query"])
        weights, drafts = explorer.attention(query), explorer.drafts(query)
        shares = page.eval_on_selector_all(
            ".heads .tile", "all => all.map((one) => Number(one.dataset.share))"
        )
        assert shares == pytest.approx(weights.sum((1, 2)).tolist(), abs=1e-6) and sum(
            shares
        ) == pytest.approx(1)
        mask = drafts[4] > 0.5
        ious = page.eval_on_selector_all(
            ".stages [data-iou]", "all => all.map((one) => Number(one.dataset.iou))"
        )
        expected = [(mask & (draft > 0.5)).sum() / (mask | (draft > 0.5)).sum() for draft in drafts.values()]
        assert ious == pytest.approx(expected, abs=2e-2)  # a byte of one half is taken as more, or as less
        on_mask = (weights.sum(0) * mask.reshape(4, 4, 5, 4).mean((1, 3))).sum()
        found = float(page.get_attribute("[data-tile=attention]", "data-share"))
        assert found == pytest.approx(on_mask, abs=5e-3)  # attention in 255 steps


LIGHT = """([selector, x, y]) => {
  const canvas = document.querySelector(selector);
  const [r, g, b] = canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data;
  return r - b;
}"""


def test_light_lies_where_a_head_looks(page_of, explorer):
    page = page_of(explorer)
    query = int(dataset(page)["query"])
    weights = explorer.attention(query)
    _, rows, columns = weights.shape

    def lights(head):
        middles = [((x + 0.5) / columns, (y + 0.5) / rows) for y in range(rows) for x in range(columns)]
        return [page.evaluate(LIGHT, [f"[data-tile='head {head + 1}'] canvas", *at]) for at in middles]

    for head in (0, 1):
        assert np.corrcoef(lights(head), weights[head].flatten())[0, 1] > 0.99
    weaker = int(weights.max((1, 2)).argmin())
    together = max(lights(weaker))
    page.get_by_label("each head by its own peak").check()
    let_draw(page)
    assert max(lights(weaker)) > together


def test_what_became_of_every_query_is_said(page_of, explorer):
    page = page_of(explorer)
    set_slider(page, "score above", 0.5)
    set_slider(page, "overlap at least", 0.5)
    assert_agrees(page, explorer)
    fates = page.eval_on_selector_all(
        ".chip", "all => all.map((one) => [Number(one.dataset.query), one.dataset.fate])"
    )
    assert len(fates) == len(explorer.answers.queries)
    used = {query for segment in explorer.merged().segments for query in segment.queries}
    unsure = {q for q, score in zip(explorer.answers.queries, explorer.answers.scores) if score <= 0.5}
    assert {query for query, fate in fates if fate == "segment"} == used
    assert {query for query, fate in fates if fate == "unsure"} == unsure
    removed = [query for query, fate in fates if fate == "overlap"]
    assert removed
    page.locator(f".chip[data-query='{removed[0]}']").click()
    assert dataset(page)["fate"] == "overlap" and "Removed" in page.inner_text(".about")


def test_found_and_true_and_the_opacity_are_seen(page_of, explorer):
    page = page_of(explorer)

    def seen():
        let_draw(page)
        return np.asarray(
            Image.open(io.BytesIO(page.locator(".picture").screenshot())).convert("RGB")
        ).astype(int)

    found = seen()
    page.get_by_role("button", name="true").click()
    true = seen()
    assert np.abs(found - true).mean() > 3
    page.locator(".look input").fill("0")
    assert seen().std(-1).mean() < true.std(-1).mean() / 2, "the grey picture below"


def test_without_truth(page_of, monkeypatch):
    explorer = made_up(1, monkeypatch, pictures=1)(with_truth=False, score=0.3)
    page = page_of(explorer)
    state = dataset(page)
    assert "pq" not in state and json.loads(state["segments"])
    assert page.get_by_role("button", name="true").count() == 0 and page.locator("table").count() == 0
    page.keyboard.press("t")
    page.keyboard.press("ArrowDown")
    assert dataset(page)["truth"] == "false"


def test_where_nothing_is_found(page_of, monkeypatch):
    explorer = made_up(2, monkeypatch, queries=1)(score=1.0)
    page = page_of(explorer)
    state = assert_agrees(page, explorer)
    assert state["segments"] == "[]" and float(state["pq"]) == 0 and state["fate"] == "unsure"


@pytest.mark.parametrize("width", [1100, 700, 420])
def test_nothing_sticks_out(page_of, explorer, width):
    page = page_of(explorer, width=width)
    let_draw(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert area(page, ".picture")["width"] > 250


def test_one_who_does_not_see_is_told(page_of, explorer):
    page = page_of(explorer)
    set_slider(page, "score above", 0.6)
    page.wait_for_function("document.querySelector('[aria-live]').textContent.includes('found, PQ of all')")
    explorer.score = 0.6
    assert f"{len(explorer.merged().segments)} segments found" in page.inner_text("[aria-live]")
