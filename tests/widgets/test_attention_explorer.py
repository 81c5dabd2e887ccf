"""AttentionExplorer, the part that is Python: shapes, weights as bytes, boxes, and the picture without JavaScript."""

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from minivis.attention import record_attention
from minivis.detr import DETRConfig, build_detr
from minivis.images import ImageBatch, ImageTransform
from minivis.pretrained.checkpoint import with_use
from minivis.widgets import AttentionExplorer
from minivis.widgets.attention_explorer import spread

PICTURE = Image.new("RGB", (96, 64), "#888888")


def random_maps(layers=2, heads=3, tokens=24, seed=0):
    return torch.randn(layers, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed)).softmax(
        -1
    )


@pytest.fixture(scope="module")
def model():
    from minivis.data.items import Categories

    torch.manual_seed(0)
    config = DETRConfig(
        num_classes=2, num_queries=3, backbone="small", backbone_norm="group", backbone_channels=(8, 8, 8), d_model=32,
        num_heads=4, encoder_layers=2, decoder_layers=1, dim_feedforward=32, dropout=0.0,
    )  # fmt: skip
    return with_use(build_detr(config), Categories(names=("cat", "dog"), ids=(1, 2)), ImageTransform())


def test_the_bytes_hold_the_weights_to_a_step_of_the_largest():
    maps = random_maps()
    explorer = AttentionExplorer(PICTURE, maps, (4, 6), 16)
    assert len(explorer.weights) == maps.numel()
    for layer, head, token in ((0, 0, 0), (1, 2, 23), (1, 0, 7)):
        row = maps[layer, head, token].numpy()
        assert explorer.attention(token, layer, head) == pytest.approx(row, abs=float(row.max()) / 500)
    mean = maps[1, :, 5].mean(0).numpy()
    assert explorer.attention(5, 1, -1) == pytest.approx(mean, abs=float(mean.max()) / 200)


def test_the_encoder_of_a_model_is_recorded_with_its_grid(model):
    picture = Image.effect_noise((90, 50), 60)
    explorer = AttentionExplorer.of(model, picture)
    assert explorer.grid == [7, 12] and explorer.stride == 8 and explorer.size == [50, 90]
    assert explorer.shape == [2, 4, 84] and not any(explorer.padding)
    with torch.no_grad(), record_attention(model) as maps:
        model([model.image_transform(picture)])
    recorded = maps["transformer.encoder.layers.1.self_attn"][0, 2, 40].numpy()
    assert explorer.attention(40, 1, 2) == pytest.approx(recorded, abs=float(recorded.max()) / 400)


def test_padding_is_the_models_own_mask_and_gets_no_weight(model):
    target = {"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 1.0]])}
    explorer = AttentionExplorer.of(model, PICTURE, target, padded_to=(80, 160))
    mask = torch.ones(1, 80, 160, dtype=torch.bool)
    mask[:, :64, :96] = False
    _, seen = model.backbone(ImageBatch(torch.zeros(1, 3, 80, 160), mask))[-1]
    assert explorer.padding == seen.flatten().tolist()
    assert sum(explorer.padding) == 10 * 20 - 8 * 12
    weights = explorer.attention(token=30, layer=0)
    assert weights[explorer.padding].max() == 0 and weights.sum() == pytest.approx(1, abs=0.05)
    assert explorer.boxes == [[24, 0, 72, 64]], "in pixels of the picture, without its padding"
    assert explorer.names == ["dog"]
    assert not explorer.padding[explorer.cell], "one begins within the picture"


def test_a_large_picture_is_brought_down_where_the_model_does_not_say_how_large(model):
    photograph = Image.effect_noise((3000, 2250), 60)
    explorer = AttentionExplorer.of(model, photograph)
    assert explorer.grid == [12, 16] and explorer.size == [96, 128]
    assert len(explorer.weights) == 2 * 4 * 192**2
    assert AttentionExplorer.of(model, photograph, longest_side=48).size == [36, 48]
    model.image_transform, usual = ImageTransform(shortest_edge=150, longest_edge=300), model.image_transform
    try:
        assert AttentionExplorer.of(model, photograph).size == [150, 200], "a model that says it is obeyed"
        assert max(AttentionExplorer.of(model, photograph, longest_side=100).size) == 100
    finally:
        model.image_transform = usual


def test_layers_can_be_chosen(model):
    explorer = AttentionExplorer.of(model, PICTURE, layers=[-1])
    assert explorer.layer_names == ["2"] and explorer.shape[0] == 1
    both = AttentionExplorer.of(model, PICTURE)
    assert explorer.attention(9, 0, 1) == pytest.approx(both.attention(9, 1, 1))


def test_what_is_recorded_leaves_the_model_as_it_was(model):
    inputs = [model.image_transform(PICTURE)]
    with torch.no_grad():
        before = model(inputs)["pred_boxes"]
        AttentionExplorer.of(model, PICTURE)
        assert torch.equal(before, model(inputs)["pred_boxes"])
    assert model.transformer.encoder.layers[0].self_attn.recorder is None


def test_a_box_belongs_to_the_cells_whose_middle_lies_in_it():
    boxes = [[0, 0, 96, 40], [16, 0, 32, 16]]  # a small one on a large one
    explorer = AttentionExplorer(PICTURE, random_maps(), (4, 6), 16, boxes=boxes, names=["sky", "bird"])
    assert [explorer.own_box(token) for token in (0, 1, 6, 12, 18)] == [0, 1, 0, None, None]


def test_share_counts_a_cell_as_far_as_the_box_covers_it():
    explorer = AttentionExplorer(
        PICTURE,
        random_maps(tokens=25),
        (4, 6),
        16,
        extra_tokens=["class token"],
        boxes=[[8, 0, 32, 16]],
        names=["a"],
    )
    weights = np.zeros(25)
    weights[[0, 1, 2, 3]] = [0.5, 0.2, 0.2, 0.1]  # on the class token, on cells 0, 1 and 2
    assert explorer.share_inside(weights, 0) == pytest.approx((0.1 + 0.2) / 0.5)


def test_spread_of_equal_weights_is_their_number():
    assert spread(np.full(12, 1 / 12)) == pytest.approx(12)
    assert spread(np.array([0, 1.0, 0])) == pytest.approx(1)
    assert spread(np.array([3.0, 1.0])) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


def test_it_says_what_is_seen_without_javascript():
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[:, 5:] = True
    maps = random_maps().masked_fill(mask.flatten(), 0)
    explorer = AttentionExplorer(
        PICTURE,
        maps / maps.sum(-1, keepdim=True),
        (4, 6),
        16,
        mask,
        boxes=[[0, 0, 96, 64]],
        names=["cat"],
        token=7,
        head=1,
    )
    words = repr(explorer)
    for part in (
        "96 × 64",
        "4 rows and 6 columns",
        "4 of them padding",
        "row 2, column 2",
        "head 2",
        "box of its cat",
    ):
        assert part in words
    picture = explorer.draw()
    colours = np.array(picture).reshape(-1, 3)
    assert picture.width == 900 and len(np.unique(colours, axis=0)) > 100
    bundle, _ = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == words and bundle["image/png"]


def test_the_picture_without_javascript_lays_a_cell_on_its_pixels():
    maps = torch.zeros(1, 1, 24, 24)
    maps[..., 14] = 1  # row 2, column 2: pixels 32 to 48 both ways, a sixth to a half of the picture
    explorer = AttentionExplorer(PICTURE, maps, (4, 6), 16, token=0)
    pixels = np.array(explorer.draw())
    # As attention_picture.py lays it out: 400 pixels wide from (10, 30) on.
    area = pixels[30 : 30 + 266, 10 : 10 + 400]
    ys, xs = np.nonzero(np.abs(area.astype(int) - area[133 + 20, 150]).max(-1) < 4)
    assert [ys.min(), ys.max() + 1] == pytest.approx([32 / 64 * 267, 48 / 64 * 267], abs=1.5)
    assert [xs.min(), xs.max() + 1] == pytest.approx([32 / 96 * 400, 48 / 96 * 400], abs=1.5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"grid": (4, 5)}, "expected maps"),
        ({"stride": 8}, "do not fit a picture"),
        ({"padding_mask": torch.zeros(6, 4, dtype=torch.bool)}, "padding mask of shape"),
        ({"padding_mask": torch.ones(4, 6, dtype=torch.bool)}, "every cell is padding"),
        ({"maps": random_maps() * torch.nan}, "finite"),
        ({"maps": -random_maps()}, "below 0"),
        ({"boxes": [[0, 0, 1, 1]]}, "a name for each"),
    ],
)
def test_what_does_not_fit_is_named(change, says):
    arguments = {"picture": PICTURE, "maps": random_maps(), "grid": (4, 6), "stride": 16} | change
    with pytest.raises(ValueError, match=says):
        AttentionExplorer(**arguments)


def test_what_cannot_be_chosen_is_named(model):
    explorer = AttentionExplorer(PICTURE, random_maps(), (4, 6), 16)
    for name, value in (("token", 24), ("layer", 2), ("head", 3), ("head", -2)):
        with pytest.raises(traitlets.TraitError, match=f"{name} is {value}"):
            setattr(explorer, name, value)
    with pytest.raises(ValueError, match="no cell holds pixel"):
        explorer.token_at(96, 0)
    assert explorer.token_at(95.9, 63) == 23
    with pytest.raises(ValueError, match="cannot be padded"):
        AttentionExplorer.of(model, PICTURE, padded_to=(64, 64))


def test_a_model_without_encoder_is_refused(model):
    import dataclasses

    bare = build_detr(dataclasses.replace(model.config, encoder_layers=0)).eval()
    bare.image_transform = ImageTransform()
    with pytest.raises(ValueError, match="no encoder layer"):
        AttentionExplorer.of(bare, PICTURE)


def test_large_pictures_are_sent_smaller_and_stay_on_their_pixels():
    maps = torch.full((1, 1, 8, 8), 1 / 8)
    explorer = AttentionExplorer(Image.new("RGB", (1600, 800)), maps, (2, 4), 400)
    assert explorer.size == [800, 1600]
    import io

    assert Image.open(io.BytesIO(explorer.picture)).size == (800, 400)
