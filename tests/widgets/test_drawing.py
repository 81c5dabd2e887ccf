"""Architecture drawings: nothing overlaps, nothing is cut, and the same is said in words."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch

from minivis.widgets import drawing as drawings
from minivis.widgets.drawing import Arrow, Box, Drawing, Group

DETR_LOSS = Drawing(
    "DETR's loss, for one image and one decoder layer",
    boxes=[
        Box("predictions", (0, 0.5), "Q classes\nand boxes", "data"),
        Box("targets", (0, 1.5), "N labels\nand boxes", "data"),
        Box("cost matrix", (1, 0.5), "−p, L1, −GIoU"),
        Box("Hungarian matching", (1, 1.5), "least total cost"),
        Box("matched pairs", (2, 0), "N queries, each\nwith its object", "data"),
        Box("the rest", (2, 2), "Q − N queries:\n“no object”", "data"),
        Box("box losses", (3, 0), "L1, GIoU", "loss"),
        Box("class loss", (3, 2), "cross-entropy\nof all Q", "loss"),
        Box("weighted sum", (4, 1), "1·CE + 5·L1\n+ 2·GIoU", "loss"),
    ],
    arrows=[
        Arrow("predictions", "cost matrix", "(Q, K + 1)\n(Q, 4)"),
        Arrow("targets", "cost matrix", "(N,)\n(N, 4)"),
        Arrow("cost matrix", "Hungarian matching", "(Q, N)"),
        Arrow("Hungarian matching", "matched pairs"),
        Arrow("Hungarian matching", "the rest"),
        Arrow("matched pairs", "box losses"),
        Arrow("matched pairs", "class loss"),
        Arrow("the rest", "class loss"),
        Arrow("box losses", "weighted sum"),
        Arrow("class loss", "weighted sum"),
    ],
    groups=[Group("chooses pairs: no gradient", ["cost matrix", "Hungarian matching"])],
)

STACKED = Drawing(  # from top to bottom, back to the left, and across a column
    "A stack",
    boxes=[
        Box("a", (0, 0)),
        Box("b with a longer name", (1, 1), "(x, y)", "loss"),
        Box("c", (0, 2)),
        Box("d", (0.5, 3)),
    ],
    arrows=[Arrow("a", "c", "down"), Arrow("c", "d", "over"), Arrow("b with a longer name", "a", "back")],
)


@pytest.fixture(params=[DETR_LOSS, STACKED], ids=["detr loss", "stack"])
def drawn(request):
    """A drawing, its figure, and what lies where in it, in pixels."""
    figure = request.param.figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    [axes] = figure.axes
    texts = {text: text.get_window_extent(renderer) for text in axes.texts if text.get_text()}
    frames = [
        patch.get_window_extent(renderer) for patch in axes.patches if isinstance(patch, FancyBboxPatch)
    ]
    return request.param, figure, texts, frames


def overlap(a, b) -> bool:
    return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1


def test_no_text_lies_on_another(drawn):
    for (a, first), (b, second) in combinations(drawn[2].items(), 2):
        assert not overlap(first, second), (a.get_text(), b.get_text())


def test_no_text_crosses_the_edge_of_a_box_or_of_the_picture(drawn):
    _, figure, texts, frames = drawn
    for text, extent in texts.items():
        assert extent.x0 >= 8 and extent.x1 <= figure.bbox.width - 8, text.get_text()
        assert extent.y0 >= 4 and extent.y1 <= figure.bbox.height - 4, text.get_text()
    for text, extent in texts.items():
        for frame in frames:
            inside = frame.x0 + 3 <= extent.x0 and extent.x1 <= frame.x1 - 3
            inside &= frame.y0 + 3 <= extent.y0 and extent.y1 <= frame.y1 - 3
            assert inside or not overlap(extent, frame), text.get_text()


def test_it_is_as_wide_as_a_page_at_most_and_on_white(drawn):
    _, figure, _, _ = drawn
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    assert pixels.shape[1] <= 901
    assert (
        pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == 255
    ).all()  # opaque, so that black letters show on dark pages


def test_alt_text_says_all_that_is_drawn(drawn):
    drawing, _, texts, _ = drawn
    alt = drawing.alt()
    assert "\n" not in alt
    legend = set(drawings.KINDS)
    for text in texts:
        words = " ".join(text.get_text().split())
        assert words in alt or words in legend, words


def test_alt_text_of_a_small_drawing():
    drawing = Drawing(
        "One layer",
        [Box("tokens", (0, 0), kind="data"), Box("attention", (1, 0), "8\nheads", "learned")],
        [Arrow("tokens", "attention", "(B, N, d)"), Arrow("attention", "tokens")],
        [Group("all", ["tokens", "attention"])],
    )
    assert drawing.alt() == (
        "Drawing. One layer. Boxes: tokens; attention (8 heads). "
        "Arrows: tokens → attention, (B, N, d); attention → tokens. Framed as “all”: tokens, attention."
    )


def test_show_hands_figure_and_words_to_the_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr(drawings, "show", lambda figure, alt: shown.append((figure, alt)))
    STACKED.show()
    [(figure, alt)] = shown
    assert alt == STACKED.alt() and figure.axes


A, B = Box("a", (0, 0)), Box("b", (1, 0))


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        (dict(boxes=[A, A]), "same name: a, a"),
        (dict(boxes=[A, B], arrows=[Arrow("a", "c")]), "there is no box c; there are a, b"),
        (dict(boxes=[A, B], groups=[Group("both", ["a", "x"])]), "there is no box x"),
        (dict(boxes=[A, Box("on it", (0, 0.2))]), "'a' and 'on it' overlap"),
        (dict(boxes=[Box(f"a box with number {i}", (i, 0)) for i in range(12)]), "wider than a page"),
    ],
)
def test_a_drawing_that_cannot_be_is_refused(parts, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        Drawing("impossible", **parts)
