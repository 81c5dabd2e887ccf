"""What the variants of the experiments on positions, context and scale are."""

from functools import partial

import pytest
import torch
from torch import nn

from minivis.attention import MultiHeadAttention
from minivis.data.scenes import Scenes
from minivis.experiments import d06, d07, d10, d29, d34
from minivis.experiments.small_detr import CONFIG, WORLD, build_small
from minivis.images import as_image_batch


def seeded(build):
    torch.manual_seed(0)
    return build().eval()


def equal_inputs(model):
    """For every attention, whether its keys are its queries and whether its values are its keys."""
    found = {}

    def watch(name, module, inputs):
        query, key, value, *_ = inputs
        found[name] = tuple(a.shape == b.shape and torch.equal(a, b) for a, b in ((query, key), (key, value)))

    hooks = [
        module.register_forward_pre_hook(partial(watch, name))
        for name, module in model.named_modules()
        if isinstance(module, MultiHeadAttention)
    ]
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    for hook in hooks:
        hook.remove()

    def of(part, attention):
        kinds = {equal for name, equal in found.items() if part in name and attention in name}
        assert len(kinds) == 1, "the layers are alike"
        return kinds.pop()

    return [of("encoder", "self_attn"), of("decoder", "self_attn"), of("decoder", "cross_attn")]


def test_where_positions_are_added():
    """(keys are queries, values are keys) of the encoder's self-attention, the decoder's, and its cross-attention."""
    apart, same = (True, False), (True, True)
    expected = [apart, apart, (False, False)]
    assert equal_inputs(seeded(build_small)) == expected
    assert equal_inputs(seeded(lambda: d06.build("queries and keys"))) == expected
    assert equal_inputs(seeded(lambda: d07.build("every attention"))) == expected
    assert equal_inputs(seeded(lambda: d06.build("values too"))) == [same, apart, (False, True)]
    assert equal_inputs(seeded(lambda: d07.build("cells once"))) == [same, apart, (False, True)]
    assert equal_inputs(seeded(lambda: d07.build("both once"))) == [same, same, (False, True)]
    assert equal_inputs(seeded(lambda: d10.build("none"))) == [same, apart, (False, True)]


def test_positions_that_come_once_do_come():
    for variant in ("cells once", "both once"):
        model, images = seeded(partial(d07.build, variant)), torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            before = model(images)["pred_boxes"]
            assert not torch.allclose(before[0, 0], before[0, 1]), "the queries differ"
            model.positions = d10.POSITIONS["none"](CONFIG.d_model)
            assert not torch.allclose(before, model(images)["pred_boxes"])


@pytest.mark.parametrize(
    "build",
    [*(partial(d06.build, v) for v in d06.D6.variants), *(partial(d07.build, v) for v in d07.D7.variants),
     *(partial(d10.build, v) for v in d10.D10.variants)],
)  # fmt: skip
def test_all_else_begins_with_the_same_weights(build):
    expected = list(seeded(build_small).parameters())
    found = [p for name, p in seeded(build).named_parameters() if not name.startswith("positions")]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_far_mark_says_which_circle_it_is():
    data = d34.FarScenes("val", size=60)
    images, targets, _ = data.prepare(data.collate([data[i] for i in range(60)]))
    assert images.pixels.shape == (60, 3, 64, 88)
    seen = set()
    for i, target in enumerate(targets):
        image = data.image_transform.denormalise(images.pixels[i])
        ys, xs = (image[:, :, 64:] != 128).any(0).nonzero(as_tuple=True)
        assert (xs.min(), xs.max(), len(ys)) == (16, 23, 64), "eight pixels a side, at the far end"
        mark = "blue" if image[2, ys[0], 64 + xs[0]] > 150 else "red"
        objects = Scenes("val", d34.FAR_WORLD)[i][0].objects
        names = [data.categories.names[label] for label in target["labels"].tolist()]
        assert names == [f"{mark} circle" if thing.shape == "circle" else "square" for thing in objects]
        assert (target["boxes"][:, 0] * 88).max() < 64, "the objects are where they were"
        assert target["original_size"] == (64, 88)
        seen.update(names)
    assert len(seen) == 3
    truth = data.ground_truth()["annotations"]
    assert [a["category_id"] - 1 for a in truth] == [n for t in targets for n in t["labels"].tolist()]
    x, _, width, _ = truth[0]["bbox"]
    assert targets[0]["boxes"][0, [0, 2]].tolist() == pytest.approx(
        [(x + width / 2) / 88, width / 88], abs=1e-5
    )


def test_no_cell_of_the_local_backbone_sees_the_scene_and_the_mark():
    """Also not through a norm."""
    backbone = d34.local_backbone()
    pixels = torch.randn(1, 3, 64, 88, requires_grad=True)
    features = backbone(as_image_batch(pixels))[-1].features
    assert features.shape == (1, 64, 8, 11)
    for column in range(11):
        (gradient,) = torch.autograd.grad(features[0, :, 4, column].square().sum(), pixels, retain_graph=True)
        seen = gradient.abs().amax((0, 1, 2)).nonzero().flatten()
        assert len(seen) == (15 if column else 8)
        assert seen.max() < 88 - d34.MARK or seen.min() >= 64


def test_the_kind_of_a_circle_and_the_shape_of_an_object_are_counted_apart():
    data = d34.FarScenes("val", size=10)
    targets = data.prepare(data.collate([data[i] for i in range(10)])).targets
    logits, boxes = torch.full((10, 10, 4), -9.0), torch.full((10, 10, 4), 0.01)
    logits[..., -1] = 0
    for i, target in enumerate(targets):
        count = len(target["labels"])
        boxes[i, :count] = target["boxes"]
        logits[i, range(count), target["labels"]] = 9.0

    def measured(order):
        return d34.answers({"pred_logits": logits[..., order], "pred_boxes": boxes}, targets)

    assert measured([0, 1, 2, 3]) == pytest.approx(
        {"right_far": 1, "right_near": 1, "loss_giou": 0}, abs=1e-5
    )
    kinds_swapped = measured([1, 0, 2, 3])
    assert (kinds_swapped["right_far"], kinds_swapped["right_near"]) == (0, 1)
    shapes_swapped = measured(
        [2, 1, 0, 3]
    )  # what was a red circle is called a square, and the other way round
    labels = torch.cat([target["labels"] for target in targets])
    assert shapes_swapped["right_near"] == pytest.approx(float((labels == 1).double().mean()))


def test_training_ends_where_shapes_and_kinds_are_learned(monkeypatch):
    looks = iter([(0.5, 1.0), (0.95, 0.5), (0.9, 0.9)])  # (right_near, right_far) after 0, 5 and 10 steps

    def answers(outputs, targets):
        near, far = next(looks)
        return {"right_far": far, "right_near": near, "loss_giou": 0.5}

    monkeypatch.setattr(d34, "answers", answers)
    found = d34.run("0 encoder, 2 decoder", 0, reduced=True)
    assert (found["found"], found["steps"], found["steps_near"]) == (1, 10, 5)

    looks = iter([(1.0, 0.95)])
    assert d34.run("0 encoder, 2 decoder", 0, reduced=True)["steps"] == 0
    looks = iter([(0.5, 1.0)] * 3)
    never = d34.run("0 encoder, 2 decoder", 0, reduced=True)
    assert (never["found"], never["steps"], never["steps_near"]) == (0, 10, 10)


def test_finer_cells_are_read_with_the_same_weights():
    """Without norms, which take in the whole map, every fourth cell of the fine map is a cell of the coarse one."""
    maps = {}
    for stride in (4, 8, 16):
        model = seeded(partial(d29.build, stride))
        for stage in model.backbone.stages:
            for module in list(stage.modules()):
                for name, child in module.named_children():
                    if isinstance(child, nn.GroupNorm):
                        setattr(module, name, nn.Identity())
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        maps[stride] = model.backbone(as_image_batch(pixels))[-1].features
    assert [m.shape[-1] for m in maps.values()] == [16, 8, 4]
    torch.testing.assert_close(maps[4][..., ::2, ::2], maps[8])
    torch.testing.assert_close(maps[4][..., ::4, ::4], maps[16])


def test_small_and_large_things_lie_on_either_side_of_cocos_border():
    data, plain = (make("val", d29.TWO_SIZES, size=100) for make in (d29.EnlargedScenes, Scenes))
    areas = [annotation["area"] for annotation in data.ground_truth()["annotations"]]
    words = [thing.size for i in range(100) for thing in data[i][0].objects]
    assert {(word, area < 32**2) for word, area in zip(words, areas, strict=True)} == {
        ("small", True),
        ("large", False),
    }
    assert max(areas) < 96**2
    batch, other = (d.prepare(d.collate([d[0]])) for d in (data, plain))
    assert torch.equal(batch.images.pixels, other.images.pixels)
    assert torch.equal(batch.targets[0]["boxes"], other.targets[0]["boxes"])
    assert WORLD.sizes != d29.TWO_SIZES.sizes
