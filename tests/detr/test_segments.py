"""From a model's outputs to panoptic maps and instances, beside plain loops over all masks."""

import pytest
import torch
from torch.nn.functional import interpolate
from torch.testing import assert_close

from minivis.detr import PanopticConfig, build_panoptic, postprocess, predict_instances, segments
from minivis.detr.merge import VOID, merge_masks
from minivis.detr.segments import Segmenter, predict_panoptic

THINGS = {0, 1}  # labels 2 and 3 are stuff
SIZES = [(48, 64), (30, 20)]


def model_that_is_sure(no_object):
    """Its queries, much alike in a model that is not trained, are told apart by the class head."""
    torch.manual_seed(1)
    config = PanopticConfig(
        num_classes=4, num_queries=8, backbone="small", backbone_channels=(8, 12, 16, 16), d_model=64, num_heads=8,
        encoder_layers=1, decoder_layers=1, dim_feedforward=32, dropout=0.0,
    )  # fmt: skip
    model = build_panoptic(config).eval()
    with torch.no_grad():
        decoded = model.detr.forward_features(pictures((48, 64), (30, 20))).decoded[-1].flatten(0, 1)
        head = model.detr.class_embed
        torch.nn.init.normal_(head.weight)
        head.weight *= 3 / (head(decoded) - head(decoded).mean(0)).std()
        head.bias.copy_(-head.weight @ decoded.mean(0))
        head.bias[-1] = no_object
        head.weight[-1] = 0
        model.bbox_attention.q_proj.weight *= 3
        model.mask_head.convs[0].weight[:, 64:] *= 50
    return model


def pictures(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, h, w, generator=generator) for h, w in sizes]


def test_predictions_of_a_model():
    model = model_that_is_sure(-50.0)
    images = pictures((48, 64), (30, 20))
    results = predict_panoptic(model, images, THINGS)
    outputs = model(images)
    scores, labels = outputs["pred_logits"].softmax(-1).max(-1)
    for i, (height, width) in enumerate([(48, 64), (30, 20)]):
        full = torch.nn.functional.interpolate(outputs["pred_masks"][i][None], (48, 64), mode="bilinear")[0]
        kept = (scores[i] > 0.85).nonzero()[:, 0]
        assert 1 < len(kept) < 8, "some are sure enough, some are not"
        expected = merge_masks(
            full[kept, :height, :width].detach(),
            labels[i, kept],
            scores[i, kept].detach(),
            THINGS,
            kept.tolist(),
        )
        assert torch.equal(results[i].segment_ids, expected.segment_ids)
        assert [s._replace(score=0) for s in results[i].segments] == [
            s._replace(score=0) for s in expected.segments
        ]
        assert_close([s.score for s in results[i].segments], [s.score for s in expected.segments])
    everything = predict_panoptic(model, images, THINGS, threshold=0.0)
    assert sum(len(r.segments) for r in everything) >= sum(len(r.segments) for r in results)


def test_results_in_the_size_asked_for():
    model = model_that_is_sure(-50.0)
    results = predict_panoptic(model, pictures((48, 64), (30, 20)), THINGS, [(96, 128), (15, 10)])
    assert [tuple(r.segment_ids.shape) for r in results] == [(96, 128), (15, 10)]
    with pytest.raises(ValueError, match="sizes of 2 images, got 1"):
        predict_panoptic(model, pictures(*SIZES), THINGS, [(96, 128)])


def test_a_model_that_finds_nothing():
    (result,) = predict_panoptic(model_that_is_sure(50.0), pictures((48, 64)), THINGS)
    assert (
        (result.segment_ids == VOID).all() and result.segment_ids.shape == (48, 64) and result.segments == []
    )


def instances_by_loops(model, images, sizes):
    """All masks of all queries, stretched to the padded batch, cut, stretched to the size asked for."""
    with torch.no_grad():
        outputs = model(images)
    found = postprocess(outputs, sizes)
    padded = [max(image.shape[side] for image in images) for side in (1, 2)]
    for i, (image, size) in enumerate(zip(images, sizes, strict=True)):
        masks = []
        for query in found[i]["queries"].tolist():
            full = interpolate(outputs["pred_masks"][i, query][None, None], padded, mode="bilinear")
            own = full[..., : image.shape[1], : image.shape[2]]
            masks.append(
                own[0, 0] if own.shape[2:] == size else interpolate(own, size, mode="bilinear")[0, 0]
            )
        found[i]["logits"] = torch.stack(masks)
    return found


@pytest.mark.parametrize("sizes", [SIZES, [(96, 128), (15, 10)]])
def test_instances_are_those_of_plain_loops(sizes):
    model, images = model_that_is_sure(-50.0), pictures(*SIZES)
    found = predict_instances(model, images, sizes)
    expected = instances_by_loops(model, images, sizes)
    assert len(found) == 2
    for own, plain, size in zip(found, expected, sizes, strict=True):
        for name in ("scores", "labels", "boxes", "queries"):
            assert_close(own[name], plain[name])
        assert own["masks"].shape == (8, *size) and own["masks"].dtype == torch.bool
        clear = plain["logits"].abs() > 1e-4  # on the edge itself the last bit decides
        assert clear.float().mean() > 0.9 and torch.equal(own["masks"][clear], plain["logits"][clear] > 0)
        assert 0.02 < own["masks"].float().mean() < 0.98


def test_the_surest_instances_and_things_only():
    model, images = model_that_is_sure(-50.0), pictures(*SIZES)
    seen = Segmenter(model, images)
    for i, found in enumerate(seen.instances()):
        few = seen.instances_of(i, most=3)
        assert few["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)[:3]
        assert torch.equal(few["masks"], found["masks"][:3])
        for label in found["labels"].unique().tolist():
            own = seen.instances_of(i, things={label})
            where = (found["labels"] == label).nonzero()[:, 0]
            assert torch.equal(own["queries"], found["queries"][where])
            assert torch.equal(own["masks"], found["masks"][where])
    assert found["labels"].unique().tolist() == [1] and len(seen.instances_of(0)["labels"].unique()) == 2
    none = seen.instances_of(1, things=set())
    assert none["masks"].shape == (0, 30, 20) and none["boxes"].shape == (0, 4)


def test_how_many_masks_are_made_at_once_changes_nothing(monkeypatch):
    model, images = model_that_is_sure(-50.0), pictures(*SIZES)
    at_once, calls = model.masks_of, []
    monkeypatch.setattr(model, "masks_of", lambda *given: calls.append(len(given[2])) or at_once(*given))
    seen = Segmenter(model, images)
    maps, found = seen.panoptic(THINGS, 0.0), seen.instances()
    assert set(calls) == {8}
    calls.clear()
    monkeypatch.setattr(segments, "AT_ONCE", 3 * 48 * 64 + 5)  # three masks of the padded size, and a bit
    again, few = seen.panoptic(THINGS, 0.0), seen.instances()
    assert calls == [3, 3, 2] * 4
    monkeypatch.setattr(segments, "AT_ONCE", 10)  # less than one: one by one nevertheless
    calls.clear()
    seen.panoptic_of(0, THINGS, 0.0)
    assert calls == [1] * 8
    for one, other in zip(maps, again, strict=True):
        assert (one.segment_ids == other.segment_ids).float().mean() > 0.999
        assert [s.queries for s in one.segments] == [s.queries for s in other.segments]
    for one, other in zip(found, few, strict=True):
        assert (one["masks"] == other["masks"]).float().mean() > 0.999


def test_an_image_alone_and_in_a_padded_batch():
    """Masks agree as far as those of the model do: what is padding changes convolutions at an image's border."""
    model = model_that_is_sure(-50.0)
    large, small = pictures((64, 96), (32, 64))
    together, alone = Segmenter(model, [large, small]), Segmenter(model, [small])
    ours = torch.cat([*together._masks(1, torch.arange(8))])
    own = torch.cat([*alone._masks(0, torch.arange(8))])
    assert ours.shape == own.shape == (8, 32, 64)
    coarse = model([large, small])["pred_masks"][1, :, :8, :16], model([small])["pred_masks"][0]
    differs = (coarse[0] - coarse[1]).abs().amax().item()
    assert differs > 1e-4, "the model's masks do"
    # between cells of stride 4 values are means of cells; at the lower and right edge also of those of padding
    inside = (ours - own)[:, :28, :60].abs().amax().item()
    assert inside <= differs + 1e-5
    first_alone, first = (
        Segmenter(model, [large])._masks(0, torch.arange(8)),
        together._masks(0, torch.arange(8)),
    )
    assert_close(torch.cat([*first_alone]), torch.cat([*first]), rtol=1e-4, atol=1e-4)


def test_labels_that_are_neither_things_nor_stuff_take_no_part():
    seen = Segmenter(model_that_is_sure(-50.0), pictures(*SIZES))
    everything = seen.panoptic_of(0, {0}, 0.0)
    assert {segment.label for segment in everything.segments} == {0, 2}
    assert {segment.label for segment in seen.panoptic_of(0, {0}, 0.0, stuff={3}).segments} == {0}
    assert {segment.label for segment in seen.panoptic_of(0, set(), 0.0, stuff={2}).segments} == {2}
    known = seen.panoptic_of(0, {0}, 0.0, stuff={2, 3})
    assert torch.equal(known.segment_ids, everything.segment_ids) and known.segments == everything.segments


def test_nothing_needs_a_gradient():
    model = model_that_is_sure(-50.0)
    seen = Segmenter(model, pictures(*SIZES))
    assert next(model.parameters()).requires_grad and not seen.inputs.x.requires_grad
    assert not seen.instances_of(0)["scores"].requires_grad
