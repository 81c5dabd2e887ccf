"""QueryExplorer: what it sends to the browser is what the model answered, and what it says of it is true."""

import copy

import numpy as np
import pytest
import torch
import traitlets

from minivis.attention import record_attention
from minivis.data.scenes import Scenes, World
from minivis.detr import DETRConfig, build_detr
from minivis.experiments.matching import average_precision
from minivis.experiments.queries import decode, encode_scenes
from minivis.widgets.query_answers import objects_per_class, ranked, spots
from minivis.widgets.query_explorer import QueryExplorer

WORLD = World(size=64, shapes=("circle", "square", "triangle"), max_objects=3)
CLASSES, QUERIES, LAYERS, HEADS, IMAGES = 3, 7, 2, 2, 6


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = DETRConfig(
        num_classes=CLASSES, num_queries=QUERIES, backbone="small", backbone_norm="group",
        backbone_channels=(8, 16), d_model=16, num_heads=HEADS, encoder_layers=1, decoder_layers=LAYERS,
        dim_feedforward=32, dropout=0.0,
    )  # fmt: skip
    return build_detr(config).eval()


@pytest.fixture(scope="module")
def data():
    return Scenes("val", WORLD, size=IMAGES)


@pytest.fixture
def explorer(model, data):
    return QueryExplorer(model, data, scenes=[4, 1])


def unpacked(values, dtype, *shape):
    return np.frombuffer(values, dtype).reshape(shape)


def test_a_scene_holds_what_the_model_answers_there(explorer, model, data):
    memory, (target,) = encode_scenes(model, data, [4])
    with torch.no_grad(), record_attention(model) as maps:
        layers = decode(model, memory)
    scene, (rows, columns) = explorer.scenes[0], memory.size
    assert (
        scene["name"] == "scene 4" and scene["picture"][:4] == b"\x89PNG" and scene["grid"] == [rows, columns]
    )
    assert scene["labels"] == target["labels"].tolist()
    assert np.array(scene["true_boxes"]) == pytest.approx(target["boxes"].numpy(), abs=1e-6)
    boxes = unpacked(scene["boxes"], "<f4", LAYERS, QUERIES, 4)
    probabilities = unpacked(scene["probabilities"], "<f4", LAYERS, QUERIES, CLASSES + 1)
    weights = unpacked(scene["maps"], np.uint8, LAYERS, QUERIES, HEADS, rows * columns) / 255
    weights = weights * unpacked(scene["maxima"], "<f4", LAYERS, QUERIES, HEADS)[..., None]
    for number, layer in enumerate(layers):
        assert boxes[number] == pytest.approx(layer["pred_boxes"][0].numpy(), abs=1e-6)
        assert probabilities[number] == pytest.approx(layer["pred_logits"][0].softmax(-1).numpy(), abs=1e-6)
        exact = maps[f"transformer.decoder.layers.{number}.cross_attn"][0].transpose(0, 1).numpy()
        assert np.abs(weights[number] - exact).max() <= exact.max() / 255
        explorer.query, explorer.layer, explorer.head = 3, number + 1, 1
        assert explorer.attention().flatten() == pytest.approx(exact[3, 1], abs=1e-6)


def test_average_precision_is_cocos_without_the_dropped_queries(explorer, model, data):
    memory, targets = encode_scenes(model, data, range(IMAGES))
    with torch.no_grad():
        layers = decode(model, memory)
    assert explorer.average_precision(1) == average_precision(layers[0], targets, data)["AP"]
    explorer.dropped = [5, 0, 5]
    assert explorer.dropped == [0, 5]
    rest = {name: values[:, [1, 2, 3, 4, 6]] for name, values in layers[1].items()}
    assert explorer.average_precision() == average_precision(rest, targets, data)["AP"]


def test_after_a_layer_means_without_the_layers_behind_it(explorer, model, data):
    cut = copy.deepcopy(model)
    cut.transformer.decoder.layers = cut.transformer.decoder.layers[:1]
    memory, _ = encode_scenes(cut, data, range(IMAGES))
    with torch.no_grad():
        (only,) = decode(cut, memory)
    for name, values in only.items():
        assert torch.allclose(values, explorer._layers[0][name], atol=1e-6), name


def test_answers_are_ranked_class_by_class_the_surest_first():
    """Two pictures, two queries; an answer's objects are those of its class that it overlaps by a half."""
    box, far = [0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.2, 0.2]
    p = torch.tensor([[[0.6, 0.1, 0.3], [0.1, 0.5, 0.4]], [[0.9, 0.05, 0.05], [0.7, 0.2, 0.1]]])
    outputs = {"pred_logits": p.log(), "pred_boxes": torch.tensor([[box, far], [far, box]])}
    targets = [
        {"labels": torch.tensor([1, 0]), "boxes": torch.tensor([far, box])},
        {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.75, 0.75, 0.2, 0.16]])},
    ]
    found = ranked(outputs, targets)
    assert list(found["query"]) == [0, 1, 0, 1] and list(found["label"]) == [0, 0, 0, 1]
    assert np.frombuffer(found["start"], "<u4").tolist() == [0, 1, 1, 2, 3]
    assert np.frombuffer(found["object"], "<u2").tolist() == [2, 1, 0]
    assert np.frombuffer(found["iou"], "<f8").tolist() == pytest.approx([0.8, 1, 1], abs=1e-5)
    assert objects_per_class(targets, 2) == [2, 1]
    dots = spots(outputs)
    assert list(dots["score"]) == [153, 128, 230, 178] and list(dots["box"][:4]) == [64, 64, 51, 51]
    assert list(dots["label"]) == [0, 1, 0, 0]


def test_pictures_in_which_nothing_is_met():
    outputs = {"pred_logits": torch.zeros(1, 2, 3), "pred_boxes": torch.full((1, 2, 4), 0.1)}
    target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.8, 0.8, 0.1, 0.1]])}
    found = ranked(outputs, [target])
    assert found["object"] == b"" and np.frombuffer(found["start"], "<u4").tolist() == [0, 0, 0]


def test_the_surest_query_is_chosen_first(explorer):
    probabilities = unpacked(explorer.scenes[0]["probabilities"], "<f4", LAYERS, QUERIES, CLASSES + 1)
    assert explorer.query == probabilities[-1, :, :-1].max(-1).argmax()
    assert explorer.layer == LAYERS and explorer.head == -1 and explorer.dropped == []


def test_words_and_picture_say_what_is_chosen(explorer):
    explorer.scene, explorer.query, explorer.layer, explorer.dropped = 1, 2, 1, [6]
    words = repr(explorer)
    assert words.startswith("Scene 1 and query 2 of 7.") and "seen is layer 1" in words
    assert f"{100 * explorer.share_inside():.0f} % lies in its box" in words
    assert (
        f"on {IMAGES} scenes, where 6 of 7 queries reach an AP of {explorer.average_precision():.2f}" in words
    )
    bundle, metadata = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == words == metadata["image/png"]["alt"]
    assert explorer.draw().width == 900
    explorer.head = 0
    assert "(head 0)" in repr(explorer)


def test_share_inside_is_of_cells_whose_middle_is_in_the_box(explorer):
    for layer in (1, 2):
        attention, (cx, cy, w, h) = explorer.attention(layer), explorer.shown.boxes[layer - 1, explorer.query]
        rows, columns = attention.shape
        inside = sum(
            attention[y, x]
            for y in range(rows)
            for x in range(columns)
            if abs((x + 0.5) / columns - cx) <= w / 2 and abs((y + 0.5) / rows - cy) <= h / 2
        )
        assert explorer.share_inside(layer) == pytest.approx(float(inside), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("scene", 2), ("query", QUERIES), ("layer", 0), ("layer", 3), ("head", HEADS), ("head", -2)],
)
def test_there_is_nothing_beyond(explorer, name, value):
    with pytest.raises(traitlets.TraitError, match=f"{name} is {value}; expected"):
        setattr(explorer, name, value)


def test_what_does_not_fit_is_refused(explorer, model, data):
    with pytest.raises(traitlets.TraitError, match="there is no query 7"):
        explorer.dropped = [7]
    with pytest.raises(ValueError, match="at least one scene"):
        QueryExplorer(model, data, scenes=[])
    with pytest.raises(ValueError, match="3 classes apart, the data has 6"):
        QueryExplorer(model, Scenes("val", World(size=64), size=2))


def test_only_so_many_are_evaluated(model, data):
    assert QueryExplorer(model, data, evaluated=2).answers["images"] == 2
