"""PanopticExplorer: what it sends to the browser is what the model answered, and what it says of it is true."""

import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from minivis.data.items import Categories
from minivis.data.scenes import Scenes, World
from minivis.detr import Panoptic, PanopticConfig, Segment, Segmenter, build_panoptic
from minivis.evaluation.panoptic import PanopticQuality
from minivis.images import ImageTransform, as_image_batch
from minivis.pretrained.checkpoint import with_use
from minivis.widgets.panoptic_answers import averaged, drafts_of, factor_of, packed_truth, resized
from minivis.widgets.panoptic_explorer import PanopticExplorer

WORLD = World(size=64, shapes=("circle", "square", "triangle"), max_objects=3)
QUERIES, HEADS, IMAGES = 8, 8, 3


@pytest.fixture(scope="module")
def data():
    return Scenes("val", WORLD, size=IMAGES, stuff=True)


@pytest.fixture(scope="module")
def model(data):
    """Its queries, much alike in a model that is not trained, are told apart by the class head and the mask head."""
    torch.manual_seed(2)
    config = PanopticConfig(
        num_classes=len(data.categories), num_queries=QUERIES, backbone="small", backbone_channels=(8, 12, 16, 16),
        d_model=64, num_heads=HEADS, encoder_layers=1, decoder_layers=1, dim_feedforward=32, dropout=0.0,
    )  # fmt: skip
    model = with_use(build_panoptic(config).eval(), data.categories, ImageTransform())
    with torch.no_grad():
        pixels = torch.stack([model.image_transform(data.scene_image(i)) for i in range(IMAGES)])
        decoded = model.detr.forward_features(pixels).decoded[-1].flatten(0, 1)
        head = model.detr.class_embed
        torch.nn.init.normal_(head.weight)
        head.weight *= 3 / (head(decoded) - head(decoded).mean(0)).std()
        head.bias.copy_(-head.weight @ decoded.mean(0))
        head.bias[-1], head.weight[-1] = -50.0, 0
        model.bbox_attention.q_proj.weight *= 3
        model.mask_head.convs[0].weight[:, 64:] *= 50
    return model


@pytest.fixture(scope="module")
def explorer_of_scenes(model, data):
    return PanopticExplorer.on_scenes(model, IMAGES, dataset=data, score=0.3)


@pytest.fixture
def explorer(explorer_of_scenes):
    explorer_of_scenes.scene, explorer_of_scenes.query = 0, -1
    explorer_of_scenes.score, explorer_of_scenes.overlap = 0.3, 0.0
    return explorer_of_scenes


def pixels_of(model, picture):
    return as_image_batch([model.image_transform(picture)])


# What is answered


@torch.no_grad()
def test_it_holds_what_the_model_answers(explorer, model, data):
    for i in range(IMAGES):
        outputs, inputs = model.detect(pixels_of(model, data.scene_image(i)))
        scores, labels = outputs["pred_logits"][0].softmax(-1).max(-1)
        answers = explorer._answers[i]
        assert answers.queries == (scores >= 0.2).nonzero()[:, 0].tolist() and len(answers.queries) > 3
        assert answers.labels == labels[answers.queries].tolist()
        assert answers.scores == pytest.approx(scores[answers.queries].tolist(), abs=1e-6)
        assert answers.boxes == pytest.approx(outputs["pred_boxes"][0, answers.queries].numpy(), abs=1e-5)
        chosen = torch.tensor(answers.queries)
        masks = model.masks_of(inputs, torch.zeros_like(chosen), chosen)
        assert answers.step == pytest.approx(float(masks.abs().max()) / 32767, rel=1e-4)
        assert (answers.masks * answers.step - masks).abs().max() < answers.step
        assert (answers.drafts[-1] / 255 - masks.sigmoid()).abs().max() < 0.6 / 255
        attention = inputs.attention[0, chosen].numpy()
        assert answers.attention == pytest.approx(attention, abs=1e-6)
        assert attention.sum((1, 2, 3)) == pytest.approx(1, abs=1e-5), "over heads and cells together"


def test_what_the_browser_gets(explorer, data):
    answers, scene = explorer.answers, explorer.scenes[0]
    n, (rows, columns) = len(answers.queries), scene["grid"]
    assert scene["size"] == [16, 16] and scene["factor"] == 4 and scene["cells"] == [16, 8, 4]
    assert np.array_equal(np.frombuffer(scene["masks"], "<i2").reshape(n, 16, 16), answers.masks.numpy())
    assert np.array_equal(
        np.frombuffer(scene["drafts"], np.uint8).reshape(2, n, 16, 16), answers.drafts[:2].numpy()
    )
    maxima = np.frombuffer(scene["maxima"], "<f4").reshape(n, HEADS, 1, 1)
    attention = np.frombuffer(scene["attention"], np.uint8).reshape(n, HEADS, rows, columns) / 255 * maxima
    assert np.abs(attention - answers.attention).max() <= maxima.max() / 255
    assert np.array(scene["shares"]) == pytest.approx(answers.attention.sum((2, 3)), abs=1e-5)
    picture = Image.open(io.BytesIO(scene["picture"])).convert("RGB")
    assert np.array_equal(np.asarray(picture), np.asarray(data.scene_image(0).convert("RGB")))


def test_queries_below_the_floor_are_not_sent(model, data):
    explorer = PanopticExplorer(model, data.scene_image(0), floor=0.5)
    assert min(explorer.answers.scores) >= 0.5
    explorer = PanopticExplorer(model, data.scene_image(0), floor=1.01)
    assert explorer.answers.queries == [] and explorer.chosen is None
    assert explorer.merged().segments == [] and (explorer.merged().segment_ids == 0).all()
    assert "0 segments. No query is sure of an object" in str(explorer)
    assert explorer.draw().width == 900


# Masks by stages


def test_averaged_by_loops():
    maps = torch.randn(1, 2, 5, 7)
    means = averaged(maps, 2)
    for y in range(5):
        for x in range(7):
            top, left = y // 2 * 2, x // 2 * 2
            block = maps[0, :, top : top + 2, left : left + 2]
            assert means[0, :, y, x].tolist() == pytest.approx(block.mean((1, 2)).tolist(), abs=1e-6)
    assert averaged(maps, 1) is maps


@torch.no_grad()
def test_drafts_are_the_head_on_averaged_maps(model, data):
    _, inputs = model.detect(pixels_of(model, data.scene_image(0)))
    queries = torch.tensor([2, 5])
    cells, drafts = drafts_of(model, inputs, queries)
    assert cells == [16, 8, 4] and [tuple(finer.shape[-2:]) for finer in inputs.fpns] == [
        (4, 4),
        (8, 8),
        (16, 16),
    ]
    image = torch.zeros(2, dtype=torch.int64)
    assert torch.equal(drafts[2], model.masks_of(inputs, image, queries))
    last = inputs.fpns[2].unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    last = torch.nn.functional.interpolate(last, scale_factor=2)
    without = inputs._replace(fpns=[*inputs.fpns[:2], last])
    assert torch.allclose(drafts[1], model.masks_of(without, image, queries), atol=1e-4)
    assert not torch.allclose(drafts[1], drafts[2], atol=1e-2)
    flat = [averaged(finer, cell) for finer, cell in zip(inputs.fpns, (1, 2, 4))]
    assert torch.allclose(drafts[0], model.masks_of(inputs._replace(fpns=flat), image, queries), atol=1e-4)


def test_drafts_and_attention_of_a_query(explorer):
    query = explorer.answers.queries[1]
    drafts = explorer.drafts(query)
    assert list(drafts) == [16, 8, 4] and drafts[4].shape == (16, 16)
    logits = explorer.answers.masks[1].numpy() * explorer.answers.step
    assert drafts[4] == pytest.approx(1 / (1 + np.exp(-logits)), abs=3e-3)
    assert explorer.attention(query).shape == (HEADS, 4, 4)


# Segments and PQ


def test_segments_are_those_of_the_segmenter(explorer, model, data):
    same = pixels = 0
    for i in range(IMAGES):
        for score, overlap in [(0.3, 0.0), (0.6, 0.0), (0.3, 0.7)]:
            explorer.score, explorer.overlap = score, overlap
            (expected,) = Segmenter(model, pixels_of(model, data.scene_image(i))).panoptic(
                data.categories.things, score, data.categories.stuff, overlap
            )
            found = explorer.merged(i)
            assert [s._replace(score=0) for s in found.segments] == [
                s._replace(score=0) for s in expected.segments
            ]
            assert [s.score for s in found.segments] == pytest.approx(
                [s.score for s in expected.segments], abs=1e-5
            )
            same += (found.segment_ids == expected.segment_ids).sum().item()
            pixels += found.segment_ids.numel()
    assert same > 0.999 * pixels


def test_quality_of_one_picture_and_of_all(explorer, data):
    whole = PanopticQuality(len(data.categories), data.categories.things)
    for i in range(IMAGES):
        (target,) = data.prepare(data.collate([data[i]])).targets
        truth = data.truth(target)
        assert torch.equal(explorer.true_segments(i).segment_ids, truth.segment_ids)
        one = PanopticQuality(len(data.categories), data.categories.things)
        for quality in (one, whole):
            quality.add(explorer.merged(i), truth)
        assert explorer.quality(i) == pytest.approx(one.metrics(), nan_ok=True)
    assert explorer.quality() == pytest.approx(whole.metrics(), nan_ok=True)


def test_thresholds_change_segments(explorer):
    explorer.score = 0.2
    counts = [len(explorer.merged().segments)]
    explorer.overlap = 0.15  # of masks that are large, and much alike
    counts.append(len(explorer.merged().segments))
    explorer.score = 1.0
    counts.append(len(explorer.merged().segments))
    assert counts[0] > counts[1] > counts[2] == 0
    assert explorer.segment_of(explorer.answers.queries[0]) is None
    explorer.score, explorer.overlap = 0.2, 0.0
    for segment in explorer.merged().segments:
        assert all(explorer.segment_of(query) == segment for query in segment.queries)


def test_a_picture_of_ones_own(model):
    """Without truth; its sides are no multiples of the stride."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 39, 3), dtype=np.uint8))
    explorer = PanopticExplorer(model, picture, score=0.3)
    assert (
        explorer.quality() is None
        and explorer.true_segments() is None
        and explorer.scenes[0]["truth"] is None
    )
    assert explorer.answers.masks.shape[1:] == (12, 9)
    assert explorer.merged().segment_ids.shape == (48, 36)
    assert Image.open(io.BytesIO(explorer.scenes[0]["picture"])).size == (36, 48)
    assert "PQ" not in str(explorer) and "picture 1, queries" in str(explorer)
    assert explorer.draw().width == 900
    tensor = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
    assert torch.equal(PanopticExplorer(model, tensor, score=0.3).answers.masks, explorer.answers.masks)


def test_a_truth_in_other_pixels_is_resized(model):
    picture = Image.new("RGB", (66, 64), "#777")
    ids = torch.ones(64, 66, dtype=torch.int64)
    ids[:, 33:] = 2
    truth = Panoptic(ids, [Segment(1, 0, True), Segment(2, 3, False)])
    explorer = PanopticExplorer(model, picture, truth)
    assert explorer.true_segments().segment_ids.shape == (64, 64)
    assert (explorer.true_segments().segment_ids[:, :32] == 1).all()
    assert (explorer.true_segments().segment_ids[:, 32:] == 2).all()


def test_resizing_drops_segments_without_pixels():
    ids = torch.ones(6, 6, dtype=torch.int64)
    ids[1, 1] = 7
    truth = Panoptic(ids, [Segment(1, 0, True), Segment(7, 1, True)])
    small = resized(truth, (2, 2))
    assert [s.id for s in small.segments] == ([1] if (small.segment_ids == 1).all() else [1, 7])
    assert resized(truth, (6, 6)) == truth
    assert set(small.segment_ids.unique().tolist()) == {s.id for s in small.segments}


def test_a_packed_truth_can_be_unpacked():
    ids = torch.tensor([[0, 9, 9], [4, 4, 0]])
    packed = packed_truth(Panoptic(ids, [Segment(4, 2, True, is_crowd=True), Segment(9, 0, False)]))
    lengths = np.frombuffer(packed["lengths"], "<u4")
    assert np.repeat(np.frombuffer(packed["places"], np.uint8), lengths).tolist() == [0, 2, 2, 1, 1, 0]
    assert packed["segments"] == [{"label": 2, "crowd": True}, {"label": 0, "crowd": False}]
    many = Panoptic(torch.arange(1, 257)[None], [Segment(i, 0, True) for i in range(1, 257)])
    with pytest.raises(ValueError, match="at most 255 true segments can be shown, there are 256"):
        packed_truth(many)


@pytest.mark.parametrize(
    ("size", "factor"), [((32, 32), 4), ((128, 100), 4), ((129, 10), 2), ((300, 200), 1)]
)
def test_large_masks_are_stretched_less(size, factor):
    assert factor_of(size, 4) == factor


# What is chosen, and what is refused


def test_the_surest_query_is_looked_at_first(explorer):
    answers = explorer.answers
    assert answers.scores[answers.queries.index(explorer.chosen)] == max(answers.scores)
    explorer.query = answers.queries[2]
    assert explorer.chosen == answers.queries[2]


def test_what_cannot_be_chosen(explorer):
    for name, value in [("scene", IMAGES), ("scene", -1), ("query", QUERIES), ("query", -2)]:
        with pytest.raises(traitlets.TraitError, match=f"{name} is {value}; expected"):
            setattr(explorer, name, value)
    for name in ("score", "overlap"):
        with pytest.raises(traitlets.TraitError, match=f"{name} is 1.5; expected 0 to 1"):
            setattr(explorer, name, 1.5)


def test_what_does_not_fit_together(model, data):
    picture = data.scene_image(0)
    truth = Panoptic(torch.zeros(64, 64, dtype=torch.int64), [])
    with pytest.raises(ValueError, match="at least one picture"):
        PanopticExplorer(model, [])
    with pytest.raises(ValueError, match="1 pictures, but 2 truths"):
        PanopticExplorer(model, picture, [truth, truth])
    with pytest.raises(ValueError, match="1 pictures, but 2 names"):
        PanopticExplorer(model, picture, names=["a", "b"])
    with pytest.raises(ValueError, match=r"picture 1: the picture is \(64, 64\), its truth \(5, 5\)"):
        PanopticExplorer(model, picture, Panoptic(torch.zeros(5, 5, dtype=torch.int64), []))
    with pytest.raises(ValueError, match="1 categories, but the model has 7 classes"):
        PanopticExplorer(model, picture, categories=Categories(("cat",), (1,)))
    without = build_panoptic(model.config)
    with pytest.raises(ValueError, match="the model has no categories"):
        PanopticExplorer(without, picture)
    without.categories = Categories(tuple("abcdefg"), tuple(range(1, 8)), (True,) * 7)
    with pytest.raises(ValueError, match="category 1"):
        PanopticExplorer.on_scenes(without, 1, dataset=data)


def test_the_model_stays_in_its_mode(model, data):
    model.train()
    try:
        PanopticExplorer(model, data.scene_image(0))
        assert model.training
    finally:
        model.eval()


# Without JavaScript


def test_words(explorer):
    segments, words = explorer.merged().segments, str(explorer)
    assert words.startswith(
        "Panoptic segmentation of scene 0 (of 3 pictures), queries with a score above 0.30:"
    )
    assert f": {len(segments)} segments (" in words
    for segment in segments:
        assert f"{explorer.class_names[segment.label]} {segment.score:.2f}" in words
    here, whole = explorer.quality(0)["PQ"], explorer.quality()["PQ"]
    assert f"PQ here {here:.2f}, of all 3 pictures {whole:.2f} (things" in words
    heads = [f"{100 * share:.0f}" for share in explorer.attention(explorer.chosen).sum((1, 2))]
    assert words.endswith(f"the heads have {', '.join(heads)} % of the attention.")
    explorer.overlap = 0.25
    assert "segments that win at least 0.25 of their own mask" in str(explorer)


def test_picture_and_page(explorer):
    before = np.asarray(explorer.draw())
    explorer.score = 0.9
    assert before.shape[1] == 900 and before.std() > 20
    assert np.abs(before.astype(int) - np.asarray(explorer.draw()).astype(int)).sum() > 0
    data, metadata = explorer._repr_mimebundle_()
    assert data["text/plain"] == str(explorer) == metadata["image/png"]["alt"]
    page = explorer.page()
    assert "panoptic-explorer" in page and "http" not in page.replace("http://www.w3.org/2000/svg", "")
