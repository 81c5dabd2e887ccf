"""FeatureExplorer in Python: what it takes, what it says of a cell, words and picture."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from matplotlib import colormaps
from PIL import Image

from minivis.detr import DETRConfig, build_detr
from minivis.detr.receptive_field import effective_field, receptive_fields
from minivis.images import ImageTransform, as_image_batch
from minivis.widgets import base, feature_explorer, feature_picture
from minivis.widgets.feature_explorer import FeatureExplorer

HEIGHT, WIDTH = 40, 54  # strides divide neither


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = DETRConfig(
        num_classes=2, num_queries=3, backbone="small", backbone_channels=(8, 12, 16), d_model=16, num_heads=2,
        encoder_layers=1, decoder_layers=1, dim_feedforward=16,
    )  # fmt: skip
    model = build_detr(config).eval()
    model.image_transform = ImageTransform()
    return model


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def explorer(model, picture):
    return FeatureExplorer(model, picture)


def maps_of(model, picture):
    with torch.inference_mode():
        return model.backbone(as_image_batch([model.image_transform(picture)]))


def test_its_maps_are_the_backbones_up_to_eight_bits(model, picture, explorer):
    for level, wanted in enumerate(maps_of(model, picture)):
        explorer.level = level
        values, wanted = explorer.values(), wanted.features[0].numpy()
        assert values.shape == wanted.shape == (len(explorer.stage["maxima"]), *wanted.shape[1:])
        assert np.abs(values - wanted).max() <= wanted.max() / 255 / 2 + 1e-6
    assert [stage["stride"] for stage in explorer.stages] == [2, 4, 8]
    assert [stage["field"] for stage in explorer.stages] == [f.size for f in receptive_fields(model.backbone)]


def test_a_cell_is_the_one_that_the_point_lies_in(explorer):
    explorer.point = [53, 39]
    assert explorer.cell == (4, 6)  # of 5 × 7: the last of both, which are cut off
    explorer.level = 0
    assert explorer.cell == (19, 26)
    explorer.cell = (3, 5)
    assert explorer.point == [11, 7]
    explorer.level = 2
    explorer.cell = (4, 6)
    assert explorer.point == [52, 36] and explorer.cell == (4, 6)
    x, y = 6 * 8, 4 * 8
    half = explorer.stage["field"] // 2
    assert explorer.window() == (x - half, y - half, x + half + 1, y + half + 1)


def test_ranks(model, picture, explorer):
    values = maps_of(model, picture)[-1].features[0].numpy()
    explorer.cell = (2, 3)
    here = values[:, 2, 3]
    assert np.abs(explorer.ranks() - here).max() < here.max() / 100
    assert explorer.top_channels()[0] == here.argmax()
    assert len(explorer.top_channels()) == feature_explorer.SHOWN
    explorer.ranking = "stands out"
    wanted = (here - values.mean((1, 2))) / values.std((1, 2))
    assert np.abs(explorer.ranks() - wanted).max() < 0.1
    ranks = explorer.ranks()
    assert explorer.top_channels() == sorted(range(16), key=lambda channel: (-ranks[channel], channel))[:8]


def test_a_channel_that_never_fires_stands_out_nowhere(model, picture):
    last = model.backbone.stages[-1]
    silenced = last[-1].register_forward_hook(
        lambda module, given, x: x * (torch.arange(16) > 0)[:, None, None]
    )
    try:
        explorer = FeatureExplorer(model, picture)
    finally:
        silenced.remove()
    explorer.ranking = "stands out"
    assert np.isfinite(explorer.ranks()).all() and explorer.ranks()[0] == 0


def test_the_field_is_the_measured_one(model, picture, explorer):
    images, cell = as_image_batch([model.image_transform(picture)]), (2, 3)
    (moved,) = effective_field(model.backbone, images, 2, [cell])
    explorer.cell = cell
    assert explorer.field().shape == (24, 32) and explorer.field().max() == 1
    # A block holds the mean over its pixels; both are at their brightest at the same place.
    row, column = np.unravel_index(int(moved.argmax()), moved.shape)
    top, left = np.unravel_index(explorer.field().argmax(), (24, 32))
    assert abs(row / HEIGHT - top / 24) < 0.15 and abs(column / WIDTH - left / 32) < 0.15
    index = cell[0] * explorer.stage["width"] + cell[1]
    energy = np.sort(moved.square().flatten().numpy())[::-1].astype(np.float64).cumsum()
    assert explorer.stage["half"][index] == pytest.approx(1 + (energy < energy[-1] / 2).sum(), abs=1)
    assert 0 <= explorer.stage["outside"][index] < 1


def test_fine_maps_are_not_measured(model, picture):
    explorer = FeatureExplorer(model, picture, measured_cells=40)  # the last map has 5 × 7
    assert [stage["moved"] is not None for stage in explorer.stages] == [False, False, True]
    explorer.level = 0
    assert explorer.field() is None
    assert "half of what" not in explorer.describe() and "was not measured" in explorer.describe()
    explorer.draw()


def test_some_levels_only(model, picture):
    explorer = FeatureExplorer(model, picture, levels=[-1], cell=(1, 2))
    assert [stage["stride"] for stage in explorer.stages] == [8]
    assert explorer.level == 0 and explorer.cell == (1, 2)


def test_a_picture_is_shown_at_the_models_own_size(model, picture):
    model.image_transform, usual = ImageTransform(shortest_edge=20), model.image_transform
    try:
        explorer = FeatureExplorer(model, picture)
    finally:
        model.image_transform = usual
    assert explorer.size == (20, 27)
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert FeatureExplorer(model, tensor).own_state() == FeatureExplorer(model, picture).own_state()


def test_a_large_picture_is_made_smaller_where_the_model_does_not_say_how_large(model):
    photograph = Image.effect_noise((900, 1200), 60).convert("RGB")  # Pillow's order: width first
    explorer = FeatureExplorer(model, photograph)
    assert explorer.size == (128, 96)  # 16 cells of 8 pixels
    assert explorer.stage["moved"] is not None, "so its last map can be measured"
    assert Image.open(io.BytesIO(explorer.picture)).size == (96, 128)
    assert FeatureExplorer(model, photograph, longest_side=48).size == (48, 36)


def test_a_model_that_says_how_large_is_obeyed_up_to_the_longest_side(model, picture):
    model.image_transform, usual = ImageTransform(shortest_edge=900), model.image_transform
    try:
        explorer = FeatureExplorer(model, picture, levels=[-1])
        smaller = FeatureExplorer(model, picture, levels=[-1], longest_side=64)
    finally:
        model.image_transform = usual
    assert explorer.size == (900, 1215) and smaller.size == (47, 64)
    assert max(Image.open(io.BytesIO(explorer.picture)).size) == feature_explorer.SHOWN_SIDE
    explorer.point = [1214, 899]
    assert explorer.cell == (112, 151), "pixels are the model's, whatever is sent"
    # 17,176 cells are too many to measure, and it says so.
    assert explorer.field() is None and "was not measured" in explorer.describe()
    assert smaller.field() is not None and "not measured" not in smaller.describe()
    explorer.draw()


def test_words(explorer):
    explorer.cell = (2, 3)
    first = ", ".join(map(str, explorer.top_channels()[:3]))
    assert re.fullmatch(
        r"A picture of 40 × 54 pixels under the feature map of stride 8: 5 × 7 cells of 16 channels\. "
        r"The cell in row 2, column 3 \(from 0\) has a receptive field of 63 × 63 pixels; half of what "
        rf"moves it lies in about \d+ pixels\. Channels that rank highest there: {first}\.",
        explorer.describe(),
    )
    data, metadata = explorer._repr_mimebundle_()
    assert data["text/plain"] == explorer.describe() == metadata["image/png"]["alt"] == repr(explorer)


def test_the_picture_is_bright_where_the_cell_looks(explorer):
    explorer.cell = (2, 3)
    drawn = np.asarray(explorer.draw().convert("L"), dtype=float)
    assert drawn.shape == (450, 900)
    picture = drawn[30:400, 20:430]
    assert picture.std() > 10 and drawn[200:, 470:].std() > 10, "the picture and the maps are there"
    explorer.level = 0  # its field is three pixels wide, if not measured: nearly all is dim
    assert np.asarray(explorer.draw().convert("L"), dtype=float)[30:400, 20:430].mean() < picture.mean()


def test_what_is_drawn_is_what_the_live_widget_shows():
    """Two sources of the same constants, in two languages."""
    code = (Path(base.__file__).parent / "feature_maps.js").read_text()
    assert f"const SHOWN_CHANNELS = {feature_explorer.SHOWN};" in code
    assert f"const DIMMED = {feature_picture.DIMMED};" in code
    style = (Path(base.__file__).parent / "feature_explorer.css").read_text()
    assert feature_picture.SEEN in style
    stops = re.findall(r"\[(\d+), (\d+), (\d+)\]", code[code.index("VIRIDIS = [") : code.index("VIRIDIS_OF")])
    wanted = (255 * colormaps["viridis"](np.linspace(0, 1, len(stops)))[:, :3]).round()
    assert np.abs(np.array(stops, dtype=float) - wanted).max() <= 3


def test_the_picture_is_carried_as_png(explorer, picture):
    carried = np.asarray(Image.open(io.BytesIO(explorer.picture)), dtype=int)
    assert np.abs(carried - np.asarray(picture, dtype=int)).max() <= 1


def test_wrong_input_is_named(model, picture, explorer):
    with pytest.raises(ValueError, match="no image_transform"):
        FeatureExplorer(torch.nn.Identity(), picture)
    with pytest.raises(ValueError, match=r"levels: expected -3 to 2, got \[3\]"):
        FeatureExplorer(model, picture, levels=[3])
    for cell in ((5, 0), (0, 7), (-1, 0)):
        with pytest.raises(ValueError, match="in a map of 5 × 7 cells"):
            explorer.cell = cell
    with pytest.raises(ValueError, match="level: expected 0 to 2, got 3"):
        explorer.level = 3
    for point in ([54, 0], [0, 40], [1], [float("nan"), 1]):
        with pytest.raises(ValueError, match="54 wide and 40 high"):
            explorer.point = point
    with pytest.raises(traitlets.TraitError, match="stands out"):
        explorer.ranking = "lowest"
