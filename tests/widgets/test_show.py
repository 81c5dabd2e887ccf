"""`show`: a picture and the text that says what is seen, side by side in one output."""

import io

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from minivis.widgets import pictures, show


@pytest.fixture
def shown(monkeypatch):
    """What `show` hands to the notebook: the data and the metadata of one output."""
    outputs = []
    monkeypatch.setattr(pictures, "display", lambda data, raw, metadata: outputs.append((data, metadata)))

    def run(picture, alt):
        show(picture, alt)
        return outputs.pop()

    return run


def test_a_picture_has_its_text_in_both_places(shown):
    data, metadata = shown(Image.new("RGB", (30, 20), "red"), "a red field")
    assert data["text/plain"] == "a red field"
    assert metadata == {"image/png": {"alt": "a red field"}}
    picture = Image.open(io.BytesIO(data["image/png"]))
    assert picture.size == (30, 20) and picture.convert("RGB").getpixel((3, 3)) == (255, 0, 0)


def test_a_picture_is_at_most_as_wide_as_a_page(shown):
    data, _ = shown(Image.new("RGB", (2000, 600)), "a black field")
    assert Image.open(io.BytesIO(data["image/png"])).size == (900, 270)


def test_a_figure_is_drawn_and_closed(shown):
    figure, axes = plt.subplots()
    axes.plot([0, 1], [0, 1])
    data, _ = shown(figure, "a rising line")
    assert Image.open(io.BytesIO(data["image/png"])).width > 200
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_picture_without_a_text_is_refused(alt):
    with pytest.raises(ValueError, match="says what is seen"):
        show(Image.new("L", (2, 2)), alt)
