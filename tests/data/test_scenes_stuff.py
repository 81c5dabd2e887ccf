"""Scenes with their ground: every pixel has a segment, and the shipped file says the same as the generator."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.boxes import cxcywh_to_xyxy
from minivis.data.items import DetectionBatch
from minivis.data.panoptic import PanopticDataset, segments_of
from minivis.data.scenes import OBJECT_VALUE, STANDARD, STUFF_VALUE, Scenes, load_shipped_scenes, render
from minivis.data.world import MATERIALS
from minivis.detr.merge import VOID

SHAPES = len(STANDARD.shapes)


def prepared(dataset: PanopticDataset, *keys: int) -> DetectionBatch:
    batch = dataset.collate([dataset[key] for key in keys])
    return dataset.prepare(pickle.loads(pickle.dumps(batch)), "cpu")


def test_materials_are_categories_behind_the_shapes():
    dataset = Scenes("train", stuff=True)
    assert isinstance(dataset, PanopticDataset)
    assert dataset.categories.names == (*STANDARD.shapes, *MATERIALS)
    assert dataset.categories.things == set(range(SHAPES))
    assert {
        annotation["category_id"]
        for annotation in Scenes("val", size=20, stuff=True).ground_truth()["annotations"]
    } <= set(range(1, SHAPES + 1)), "the ground truth is of things"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4, unique=True))
def test_every_pixel_is_in_one_mask_and_boxes_are_around_masks(seeds):
    dataset = Scenes("train", stuff=True)
    batch = dataset.prepare(dataset.collate([dataset[0, seed] for seed in seeds]))
    rendered = render([dataset[0, seed][0] for seed in seeds])
    for i, target in enumerate(batch.targets):
        masks, labels, ids = target["masks"], target["labels"], target["annotation_ids"]
        assert (masks.sum(0) == 1).all()
        assert len(masks) == len(labels) == len(target["boxes"]) == len(ids)
        seen = torch.where(
            rendered.object_map[i] >= 0,
            OBJECT_VALUE + rendered.object_map[i],
            STUFF_VALUE + rendered.stuff_map[i],
        )
        for mask, label, segment_id, box in zip(
            masks, labels.tolist(), ids, cxcywh_to_xyxy(target["boxes"]) * 128, strict=True
        ):
            assert torch.equal(mask, seen == segment_id)
            assert (label >= SHAPES) == (segment_id >= STUFF_VALUE)
            if label >= SHAPES:
                assert label - SHAPES == segment_id - STUFF_VALUE
            rows, columns = np.nonzero(mask.numpy())
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_plain_ground_is_nobodys():
    dataset = Scenes("train", dataclasses.replace(STANDARD, ground="plain"), stuff=True)
    target = prepared(dataset, 0).targets[0]
    assert target["labels"].max() < SHAPES
    truth = dataset.truth(target)
    assert torch.equal(truth.segment_ids == VOID, ~target["masks"].any(0))
    assert all(segment.is_thing for segment in truth.segments)


def test_the_truth_says_what_the_masks_say():
    dataset = Scenes("val", stuff=True)
    for target in prepared(dataset, 3, 4).targets:
        truth = dataset.truth(target)
        assert truth.segment_ids.min() > VOID and not any(segment.is_crowd for segment in truth.segments)
        for segment, mask, label in zip(truth.segments, target["masks"], target["labels"], strict=True):
            assert torch.equal(truth.segment_ids == segment.id, mask)
            assert segment.label == label and segment.is_thing == (label < SHAPES)


def test_what_no_mask_covers_is_void():
    target = {
        "masks": torch.zeros(1, 2, 3, dtype=torch.bool),
        "labels": torch.tensor([7]),
        "annotation_ids": [9],
    }
    target["masks"][0, 0, 1] = True
    truth = segments_of(target, Scenes("val", stuff=True).categories)
    assert truth.segment_ids.tolist() == [[0, 9, 0], [0, 0, 0]]
    assert truth.segments[0][:3] == (9, 7, False)


@pytest.mark.parametrize("first", [0, 250])
def test_the_shipped_scenes_say_the_same(first: int):
    shipped, val = load_shipped_scenes(stuff=True), Scenes("val", stuff=True)
    assert isinstance(shipped, PanopticDataset) and shipped.categories == val.categories
    for one, other in zip(
        prepared(shipped, *range(first, first + 40)).targets,
        prepared(val, *range(first, first + 40)).targets,
        strict=True,
    ):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, other[name], atol=1e-7, rtol=0)
            else:
                assert value == other[name]
        assert torch.equal(shipped.truth(one).segment_ids, val.truth(other).segment_ids)
