"""`Scenes` and the shipped split as detection data sets."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from minivis.boxes import cxcywh_to_xyxy
from minivis.data.items import DetectionBatch, DetectionDataset
from minivis.data.scenes import STANDARD, Scenes, ShippedScenes, World, describe, load_shipped_scenes, render
from minivis.images import ImageTransform


def prepared(dataset: DetectionDataset, *keys: int | tuple[int, int]) -> DetectionBatch:
    batch = dataset.collate([dataset[key] for key in keys])
    return dataset.prepare(pickle.loads(pickle.dumps(batch)), "cpu")


@pytest.fixture(scope="module")
def shipped() -> ShippedScenes:
    return load_shipped_scenes(masks=True)


@pytest.mark.parametrize("split", ["train", "val", "novel"])
def test_the_splits_are_detection_data_sets(split: str):
    dataset = Scenes(split)
    assert isinstance(dataset, DetectionDataset)
    assert len(dataset) == {"train": 100_000, "val": 500, "novel": 500}[split]
    assert dataset.categories.names == STANDARD.shapes and dataset.categories.ids == (1, 2, 3, 4, 5, 6)


def test_images_and_targets_are_those_of_the_scenes():
    dataset = Scenes("train", masks=True)
    images, targets, bad_items = prepared(dataset, *range(12))
    scenes = [describe(seed) for seed in range(12)]
    rendered = render(scenes)
    assert torch.equal(images.pixels, ImageTransform().normalise(rendered.pixels))
    assert not images.padding_mask.any() and bad_items == []
    for i, (scene, target) in enumerate(zip(scenes, targets)):
        assert target["image_id"] == i and target["original_size"] == (128, 128)
        assert [STANDARD.shapes[label] for label in target["labels"]] == [
            thing.shape for thing in scene.objects
        ]
        assert target["labels"].dtype == torch.int64 and target["boxes"].dtype == torch.float32
        numbers = torch.arange(len(scene.objects))[:, None, None]
        assert torch.equal(target["masks"], rendered.object_map[i] == numbers)
        for mask, box in zip(target["masks"], cxcywh_to_xyxy(target["boxes"]) * 128):
            rows, columns = np.nonzero(mask.numpy())
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_masks_are_made_only_when_asked_for():
    assert "masks" not in prepared(Scenes("val"), 0).targets[0]


def test_the_seed_of_a_key_is_the_scene_in_training_and_nothing_in_validation():
    train, val = Scenes("train"), Scenes("val")
    assert train[7, 10**18] == train[0, 10**18] == (describe(10**18), 10**18)
    assert train[7] == train[3, 7]
    assert val[7] == val[7, 10**18] == (describe(7, split="val"), 7)


@pytest.mark.parametrize("key", [-1, 3, (3, 0)])
def test_a_scene_that_is_not_there_is_named(key: int | tuple[int, int]):
    with pytest.raises(IndexError, match="expected 0 to 2"):
        Scenes("val", size=3)[key]


def test_it_can_be_iterated():
    assert [image_id for _, image_id in Scenes("val", size=4)] == [0, 1, 2, 3]


def test_a_loader_with_workers_gives_the_same_batches():
    dataset = Scenes("train", size=6)
    loader = DataLoader(dataset, batch_size=3, collate_fn=dataset.collate, num_workers=1)
    for start, batch in zip((0, 3), loader):
        images, targets, _ = dataset.prepare(batch, "cpu")
        expected = prepared(dataset, *range(start, start + 3))
        assert torch.equal(images.pixels, expected.images.pixels)
        assert [target["image_id"] for target in targets] == list(range(start, start + 3))


def test_other_worlds():
    world = World(size=96, shapes=("star", "circle"), min_objects=1, max_objects=1, ground="plain")
    dataset = Scenes("train", world)
    images, targets, _ = prepared(dataset, 0, 1, 2)
    assert images.pixels.shape == (3, 3, 96, 96)
    assert dataset.categories.names == ("star", "circle") and dataset.categories.ids == (1, 2)
    for key, target in zip(range(3), targets):
        assert [dataset.categories.names[label] for label in target["labels"]] == [
            dataset[key][0].objects[0].shape
        ]


def test_scenes_are_not_resized():
    with pytest.raises(ValueError, match="World"):
        Scenes("train", image_transform=ImageTransform(shortest_edge=800))


def assert_ground_truth_and_targets_agree(dataset: DetectionDataset, keys: list[int]) -> None:
    truth = dataset.ground_truth()
    assert len(truth["images"]) == len(dataset)
    assert truth["categories"] == [
        {"id": i, "name": n} for i, n in zip(dataset.categories.ids, dataset.categories.names)
    ]
    annotations = {annotation["id"]: annotation for annotation in truth["annotations"]}
    assert len(annotations) == len(truth["annotations"]) and 0 not in annotations
    for target in prepared(dataset, *keys).targets:
        own = [a["id"] for a in truth["annotations"] if a["image_id"] == target["image_id"]]
        assert own == target["annotation_ids"]
        height, width = target["original_size"]
        for i, annotation in enumerate(annotations[id_] for id_ in own):
            cx, cy, w, h = (target["boxes"][i] * torch.tensor([width, height, width, height])).tolist()
            assert annotation["bbox"] == [cx - w / 2, cy - h / 2, w, h]
            assert annotation["area"] == target["masks"][i].sum() and annotation["iscrowd"] == 0
            assert annotation["category_id"] == dataset.categories.ids[target["labels"][i]]


def test_ground_truth_agrees_with_the_targets():
    assert_ground_truth_and_targets_agree(Scenes("novel", size=60, masks=True), [0, 3, 49, 50, 59])


# The shipped split


def test_the_shipped_split_is_the_validation_split(shipped: ShippedScenes):
    val = Scenes("val", masks=True)
    assert len(shipped) == len(val) == 500 and isinstance(shipped, DetectionDataset)
    assert shipped.categories == val.categories and shipped.image_transform == val.image_transform
    step = 1 / 255 / min(val.image_transform.std) * 1.01
    for start in range(0, 500, 100):
        keys = range(start, start + 100, 4)
        ours, theirs = prepared(shipped, *keys), prepared(val, *keys)
        assert (ours.images.pixels - theirs.images.pixels).abs().max() <= step
        assert torch.equal(ours.images.padding_mask, theirs.images.padding_mask)
        for one, other in zip(ours.targets, theirs.targets):
            assert one.keys() == other.keys()
            for name, value in one.items():
                assert (
                    torch.equal(value, other[name])
                    if isinstance(value, torch.Tensor)
                    else value == other[name]
                )


def test_the_shipped_ground_truth(shipped: ShippedScenes):
    assert_ground_truth_and_targets_agree(shipped, [0, 250, 499])
    assert shipped.ground_truth() == Scenes("val").ground_truth()


def test_the_shipped_rows_tell_the_whole_scene(shipped: ShippedScenes):
    from minivis.data.ship_scenes import STUFF_VALUE
    from minivis.data.world import captions

    features = shipped.rows.features["objects"]
    for index in (0, 123, 499):
        row = shipped.rows[index]
        scene = describe(row["seed"], split="val")
        assert row["image_id"] == index and row["captions"] == captions(scene)
        for name in ("colour", "size"):
            told = features[name].feature.int2str(row["objects"][name])
            assert told == [getattr(thing, name) for thing in scene.objects]
        panoptic, rendered = torch.from_numpy(np.array(row["panoptic"])), render([scene])
        ground = rendered.object_map[0] < 0
        assert torch.equal(panoptic[ground].long(), STUFF_VALUE + rendered.stuff_map[0][ground])


def test_pictures_to_look_at(shipped: ShippedScenes):
    ours, theirs = np.asarray(shipped.scene_image(3), int), np.asarray(Scenes("val").scene_image(3), int)
    assert ours.shape == (128, 128, 3) and np.abs(ours - theirs).max() <= 1


def test_the_shipped_split_needs_no_cache_and_says_nothing(tmp_path):
    code = "from minivis.data import load_shipped_scenes; print(len(load_shipped_scenes()))"
    unwritable = tmp_path / "file"
    unwritable.write_text("")  # no folder can be made in it
    environment = {
        **os.environ,
        "HF_HOME": str(unwritable / "huggingface"),
        "HF_DATASETS_CACHE": str(unwritable / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300
    )
    assert (done.stdout, done.stderr) == ("500\n", "")
