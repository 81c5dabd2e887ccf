"""COCO's panoptic format: what a sound folder gives, everything that may be broken in one, writing and reading back."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch.utils.data import DataLoader

from minivis.boxes import boxes_around, cxcywh_to_xyxy
from minivis.data import BadItem, BadItemError, Categories, CocoPanoptic, DetrAugment, Scenes
from minivis.data.coco import CocoFormatError, CocoItem
from minivis.data.items import BadItems
from minivis.data.panoptic import PanopticDataset
from minivis.data.panoptic_json import LARGEST_ID, ids_of_png, png_of_ids, read_panoptic, write_panoptic
from minivis.detr.merge import Panoptic, Segment
from minivis.images import ImageTransform

AS_IT_IS = ImageTransform()  # no resizing
CATEGORIES = [
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 7, "name": "dog", "isthing": 1},
    {"id": 20, "name": "sky", "isthing": 0},
]
CAT, DOG, SKY, CROWD = 5, 70_000, 256, 2**24 - 1  # ids of segments


class PanopticWriter:
    """Collects images with maps of segments, and writes them: `folder / split / panoptic.json` and `panoptic/`."""

    def __init__(self, folder, split="train"):
        self.folder, self.pictures, self.maps = folder, folder / split, folder / split / "panoptic"
        self.split, self.file = split, folder / split / "panoptic.json"
        self.maps.mkdir(parents=True)
        self.content = {"images": [], "annotations": [], "categories": json.loads(json.dumps(CATEGORIES))}

    def image(self, image_id, segments=(), size=(40, 60)):
        """An image of (height, width); `segments`: (id, category id, (top, bottom, left, right)) and perhaps iscrowd.

        Later ones lie above earlier ones, as `segments_info` does not say.
        """
        ids = np.zeros(size, dtype=np.int64)
        infos = []
        for id_, category_id, (top, bottom, left, right), *crowd in segments:
            ids[top:bottom, left:right] = id_
            box = [left, top, right - left, bottom - top]
            area = (right - left) * (bottom - top)
            infos.append({"id": id_, "category_id": category_id, "bbox": box, "area": area,
                          "iscrowd": int(bool(crowd))})  # fmt: skip
        name = f"{image_id}.jpg.png"
        Image.fromarray(np.full((*size, 3), 128, dtype=np.uint8)).save(self.pictures / name)
        Image.fromarray(png_of_ids(ids)).save(self.maps / f"{image_id}.png")
        height, width = size
        self.content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        self.content["annotations"].append(
            {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": infos}
        )
        return infos

    def write(self):
        self.file.write_text(json.dumps(self.content))
        return self.folder


@pytest.fixture
def panoptic(tmp_path):
    """A training split with one image, 11, of a sky, a cat, a dog and a crowd of dogs; its last rows are void."""
    writer = PanopticWriter(tmp_path)
    writer.image(11, [
        (SKY, 20, (0, 36, 0, 60)),
        (CAT, 3, (10, 20, 5, 25)),
        (DOG, 7, (30, 36, 40, 60)),
        (CROWD, 7, (0, 4, 0, 60), "crowd"),
    ])  # fmt: skip
    return writer


def load(writer, **options):
    return CocoPanoptic(writer.write(), writer.split, transform=options.pop("transform", AS_IT_IS), **options)


def only_bad_item(dataset):
    assert dataset.bad_items.count == 1, dataset.bad_items.summary()
    return str(next(iter(dataset.bad_items.items)))


def pixel_boxes(item):
    height, width = item.image.shape[-2:]
    boxes = cxcywh_to_xyxy(item.target["boxes"]) * torch.tensor([width, height, width, height])
    return boxes.round(decimals=3).tolist()


# Ids in colours


@given(
    arrays.arrays(np.int64, arrays.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, LARGEST_ID))
)
@settings(deadline=None)
def test_ids_survive_their_colours(ids):
    colours = png_of_ids(ids)
    assert colours.dtype == np.uint8 and colours.shape == (*ids.shape, 3)
    assert np.array_equal(ids_of_png(colours), ids)


def test_red_counts_least():
    assert ids_of_png(np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1]]], dtype=np.uint8)).tolist() == [
        [1, 256, 65536]
    ]
    for wrong in (-1, LARGEST_ID + 1):
        with pytest.raises(ValueError, match=f"from 0 to {LARGEST_ID}, got {wrong}"):
            png_of_ids(np.array([[wrong]]))


# What a sound folder gives


def test_an_item_and_its_target(panoptic):
    dataset = load(panoptic)
    assert isinstance(dataset, PanopticDataset)
    assert len(dataset) == 1 and dataset.bad_items.count == 0
    assert dataset.categories == Categories(("cat", "dog", "sky"), (3, 7, 20), (True, True, False))
    image, target = dataset[0]
    assert image.shape == (3, 40, 60) and image.dtype == torch.uint8
    assert target["annotation_ids"] == [SKY, CAT, DOG]
    assert target["labels"].tolist() == [2, 0, 1] and target["labels"].dtype == torch.int64
    assert (target["image_id"], target["original_size"]) == (11, (40, 60))
    assert target["boxes"].dtype == torch.float32
    # around what is seen: the crowd hides the sky's first four rows
    assert pixel_boxes(dataset[0]) == [[0, 4, 60, 36], [5, 10, 25, 20], [40, 30, 60, 36]]
    masks = target["masks"]
    assert masks.shape == (3, 40, 60) and masks.dtype == torch.bool
    assert masks.sum((1, 2)).tolist() == [32 * 60 - 200 - 120, 200, 120]
    assert masks.sum(0).max() == 1
    assert dataset.most_objects == 3


def test_the_truth_has_crowds_and_void(panoptic):
    dataset = load(panoptic)
    truth = dataset.truth(dataset[0].target)
    assert truth.segments == [
        Segment(SKY, 2, False),
        Segment(CAT, 0, True),
        Segment(DOG, 1, True),
        Segment(CROWD, 1, True, is_crowd=True),
    ]
    assert truth.segment_ids.dtype == torch.int64
    assert (truth.segment_ids[:4] == CROWD).all() and (truth.segment_ids[36:] == 0).all()
    assert truth.segment_ids.unique().tolist() == [0, CAT, SKY, DOG, CROWD]


def test_the_truth_keeps_the_original_size(panoptic):
    dataset = load(panoptic, transform=ImageTransform(shortest_edge=20))
    image, target = dataset[0]
    assert image.shape == (3, 20, 30) and target["masks"].shape == (3, 20, 30)
    assert target["original_size"] == (40, 60)
    assert torch.equal(boxes_around(target["masks"]), torch.tensor(pixel_boxes(dataset[0])).long())
    assert dataset.truth(target).segment_ids.shape == (40, 60)


def test_the_ground_truth_has_things_and_crowds_with_the_boxes_of_the_json(panoptic):
    infos = panoptic.image(12, [(CAT, 3, (0, 10, 0, 10))])
    infos[0]["bbox"], infos[0]["area"] = (
        [0, 0, 12.5, 10],
        99.5,
    )  # not those of the pixels: see `panoptic_json`
    dataset = load(panoptic)
    truth = dataset.ground_truth()
    assert [image["id"] for image in truth["images"]] == [11, 12]
    assert truth["images"][0] == {"id": 11, "file_name": "11.jpg.png", "height": 40, "width": 60}
    assert [(a["image_id"], a["category_id"], a["bbox"], a["area"], a["iscrowd"]) for a in truth["annotations"]] == [
        (11, 3, [5, 10, 20, 10], 200, 0),
        (11, 7, [40, 30, 20, 6], 120, 0),
        (11, 7, [0, 0, 60, 4], 240, 1),
        (12, 3, [0, 0, 12.5, 10], 99.5, 0),
    ]  # fmt: skip
    ids = [annotation["id"] for annotation in truth["annotations"]]
    assert len(set(ids)) == 4, "segment ids are unique in their image only"
    assert min(ids) > 0, "COCO's tools take 0 for none"
    assert truth["categories"] == [{"id": c["id"], "name": c["name"]} for c in CATEGORIES]
    assert [image["id"] for image in dataset.ground_truth([12])["images"]] == [12]
    json.dumps(truth)
    assert pixel_boxes(dataset[1]) == [[0, 0, 10, 10]], "a target's box is that of the pixels"


def test_images_without_segments_are_images_without_objects(panoptic):
    panoptic.image(12)  # an entry without segments, whose PNG is void
    panoptic.image(13)
    del panoptic.content["annotations"][2]  # no entry
    (panoptic.maps / "13.png").unlink()
    dataset = load(panoptic)
    assert dataset.bad_items.count == 0
    for index in (1, 2):
        target = dataset[index].target
        assert target["labels"].shape == (0,) and target["boxes"].shape == (0, 4)
        assert target["masks"].shape == (0, 40, 60) and target["annotation_ids"] == []
        truth = dataset.truth(target)
        assert truth.segments == [] and truth.segment_ids.shape == (40, 60) and not truth.segment_ids.any()
    for augment in ("paper", DetrAugment().scaled(0.1)):
        assert load(panoptic, augment=augment)[1].target["boxes"].shape == (0, 4)


def test_cocos_own_layout(panoptic, tmp_path):
    panoptic.write()
    official = tmp_path / "official"
    (official / "annotations").mkdir(parents=True)
    shutil.copy(panoptic.file, official / "annotations" / "panoptic_val2017.json")
    shutil.copytree(panoptic.maps, official / "annotations" / "panoptic_val2017")
    shutil.copytree(panoptic.pictures, official / "val2017")
    assert len(CocoPanoptic(official, "val", transform=AS_IT_IS)[0].target["labels"]) == 3
    shutil.move(official / "annotations" / "panoptic_val2017", official / "panoptic_val2017")
    assert len(CocoPanoptic(official, "val", transform=AS_IT_IS)[0].target["labels"]) == 3
    with pytest.raises(FileNotFoundError) as caught:
        CocoPanoptic(official, "train")
    for words in ("'train'", "train/panoptic.json", "train/panoptic/", "annotations/panoptic_train2017.json",
                  "official/panoptic_train2017/", "train2017/", "annotations/panoptic_val2017.json"):  # fmt: skip
        assert words in str(caught.value)


# Categories


def test_labels_may_be_category_ids(panoptic):
    dataset = load(panoptic, categories="coco")
    assert len(dataset.categories) == 21 and dataset.categories.things == {3, 7}
    assert dataset[0].target["labels"].tolist() == [20, 3, 7]
    assert dataset.ground_truth()["annotations"][0]["category_id"] == 3


def test_the_categories_of_a_checkpoint_are_matched_by_name(panoptic):
    names = [(1, "sky"), (2, "dog"), (3, "cat"), (4, "owl")]
    checkpoint = Categories.dense(names, things={2, 3, 4})
    dataset = load(panoptic, categories=checkpoint)
    assert dataset.categories == checkpoint and dataset[0].target["labels"].tolist() == [0, 2, 1]
    assert {a["category_id"] for a in dataset.ground_truth()["annotations"]} == {2, 3}
    silent = load(panoptic, categories=Categories.dense(names))  # does not say what is stuff: the data does
    assert silent.categories == checkpoint
    with pytest.raises(ValueError, match="'sky' is stuff in .*panoptic.json, and a thing for the model"):
        load(panoptic, categories=Categories.dense(names, things={1, 2, 3, 4}))
    with pytest.raises(ValueError, match="does not know, by name: sky"):
        load(panoptic, categories=Categories.dense(names[1:], things={2, 3, 4}))


# Segments that are broken in the JSON: each is named, and its pixels become void

BROKEN = {
    "no such category": ({"category_id": 4}, "there is no category with the id 4; there are 3, 7, 20"),
    "category is text": ({"category_id": "cat"}, "whole number as \"category_id\", got 'cat'"),
    "no box": ({"bbox": None}, '"bbox" to be [left, top, width, height], got None'),
    "box outside": ({"bbox": [50, 10, 20, 5]}, "is not inside the image, which is 60 × 40 pixels"),
    "box without width": ({"bbox": [50, 10, 0, 5]}, "has no width or no height"),
    "negative area": ({"area": -1}, 'expected "area" to be a finite number, at least 0, got -1'),
    "neither crowd nor not": ({"iscrowd": 2}, 'expected "iscrowd" to be 0 or 1, got 2'),
}


@pytest.mark.parametrize("fields, reason", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_segment_is_named_and_becomes_void(panoptic, fields, reason, caplog):
    panoptic.content["annotations"][0]["segments_info"][1].update(fields)
    dataset = load(panoptic)
    said = only_bad_item(dataset)
    assert f"{panoptic.file}: image 11 (11.jpg.png), segment {CAT}: " in said and reason in said
    assert caplog.text.count(reason) == 1
    target = dataset[0].target
    assert target["annotation_ids"] == [SKY, DOG]
    truth = dataset.truth(target)
    assert (truth.segment_ids[10:20, 5:25] == 0).all()
    assert [segment.id for segment in truth.segments] == [SKY, DOG, CROWD]
    with pytest.raises(BadItemError, match=f"segment {CAT}"):
        load(panoptic, bad_items="stop")


def test_segments_that_share_an_id_are_all_left_out(panoptic):
    segments = segments_of_first(panoptic)
    segments[2]["id"] = SKY  # whose are its pixels, the sky's or the dog's?
    del segments[3], segments[1]
    Image.fromarray(png_of_ids(np.full((40, 60), SKY))).save(panoptic.maps / "11.png")
    dataset = load(panoptic)
    said = only_bad_item(dataset)  # the same words for both, so it is said once
    assert f"segment {SKY}: 2 segments of the image have this id" in said
    assert dataset[0].target["annotation_ids"] == [] and dataset.truth(dataset[0].target).segments == []


@pytest.mark.parametrize("wrong", [0, 2**24, -1])
def test_an_id_that_three_bytes_do_not_hold(panoptic, wrong):
    panoptic.content["annotations"][0]["segments_info"][1]["id"] = wrong
    dataset = load(panoptic)
    assert f"segment {wrong}: its id is not from 1 to {LARGEST_ID}" in only_bad_item(dataset)
    assert f"segment {CAT} in the PNG, but not listed in the JSON" in dataset[0].reason


@pytest.mark.parametrize(
    "segment, words",
    [
        ([1], "expected an object, got [1]"),
        ({"id": "5"}, "whole number as \"id\", got '5'"),
        ({}, "got nothing"),
    ],
)
def test_a_segment_without_an_id_is_named_by_its_place(panoptic, segment, words):
    panoptic.content["annotations"][0]["segments_info"].append(segment)
    dataset = load(panoptic)
    assert 'image 11 (11.jpg.png), number 4 of "segments_info": ' in only_bad_item(dataset)
    assert words in only_bad_item(dataset)
    assert isinstance(dataset[0], CocoItem)


def test_area_and_crowd_may_be_left_out(panoptic):
    for segment in panoptic.content["annotations"][0]["segments_info"][:3]:
        del segment["area"], segment["iscrowd"]
    dataset = load(panoptic)
    assert dataset.bad_items.count == 0 and dataset[0].target["annotation_ids"] == [SKY, CAT, DOG]


# Entries of images


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"file_name": None}, 'expected the name of a PNG as "file_name", got None'),
        ({"segments_info": {}}, 'expected a list as "segments_info", got {}'),
    ],
)
def test_an_image_whose_entry_is_broken_is_left_out(panoptic, fields, words):
    panoptic.image(12, [(CAT, 3, (0, 5, 0, 5))])
    panoptic.content["annotations"][1].update(fields)
    dataset = load(panoptic)
    said = only_bad_item(dataset)
    assert f'{panoptic.file}: number 1 of "annotations", image 12 (12.jpg.png): ' in said and words in said
    assert len(dataset) == 1 and [image["id"] for image in dataset.ground_truth()["images"]] == [11]
    with pytest.raises(BadItemError, match="image 12"):
        load(panoptic, bad_items="stop")


def test_two_entries_of_one_image(panoptic):
    panoptic.image(12)
    panoptic.content["annotations"].append(dict(panoptic.content["annotations"][1]))
    dataset = load(panoptic)
    assert "image 12 (12.jpg.png): another entry before it is of the same image" in only_bad_item(dataset)
    assert len(dataset) == 1


@pytest.mark.parametrize(
    "entry, words",
    [
        ([], "expected an object, got []"),
        ({"image_id": None, "segments_info": []}, 'whole number as "image_id", got None'),
        (
            {"image_id": 99, "file_name": "a.png", "segments_info": []},
            "image 99: there is no image with this id",
        ),
    ],
)
def test_an_entry_of_no_image(panoptic, entry, words):
    panoptic.content["annotations"].append(entry)
    dataset = load(panoptic)
    assert 'number 1 of "annotations"' in only_bad_item(dataset) and words in only_bad_item(dataset)
    assert len(dataset) == 1


# JSON that is not COCO's panoptic format


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda content: content.pop("annotations"), 'has no "annotations" (it has images, categories)'),
        (lambda content: content.update(annotations=[{"id": 1, "image_id": 11, "bbox": [0, 0, 1, 1]}]),
         'nothing in "annotations" has "segments_info"; expected COCO\'s panoptic format'),
        (lambda content: content["categories"][2].pop("isthing"),
         'number 2 of "categories" is {\'id\': 20, \'name\': \'sky\'}; expected "isthing" to be 0 (stuff) or 1'),
        (lambda content: content["categories"][1].update(isthing="yes"), "got 'yes'"),
        (lambda content: content["categories"][1].update(id=3), "category id 3 is used twice"),
        (lambda content: content["annotations"][0].update(file_name=""), "no image has an entry"),
        (lambda content: content["images"].clear(), '"images" is empty'),
    ],
)  # fmt: skip
def test_what_is_not_panoptic_is_refused(panoptic, change, words):
    change(panoptic.content)
    with pytest.raises(CocoFormatError) as caught:
        load(panoptic)
    assert words in str(caught.value) and str(panoptic.file) in str(caught.value)


def test_what_is_not_json_is_refused(panoptic):
    panoptic.file.write_text('{"images": [')
    with pytest.raises(CocoFormatError, match="panoptic.json is not JSON"):
        CocoPanoptic(panoptic.folder)


# PNG and JSON that disagree, and PNGs that cannot be read: the item is a bad one, and names the PNG


def segments_of_first(panoptic):
    return panoptic.content["annotations"][0]["segments_info"]


def save_map(panoptic, picture, **options):
    picture.save(panoptic.maps / "11.png", **options)


def without_the_dogs_pixels(panoptic):
    ids = ids_of_png(np.asarray(Image.open(panoptic.maps / "11.png")))
    save_map(panoptic, Image.fromarray(png_of_ids(np.where(ids == DOG, 0, ids))))


def wholly_void(panoptic):
    save_map(panoptic, Image.new("RGB", (60, 40)))


def cut_short(panoptic):
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    save_map(panoptic, Image.fromarray(noise))
    os.truncate(panoptic.maps / "11.png", 2000)


def of_mode(mode, **options):
    return lambda panoptic: save_map(panoptic, Image.new(mode, (60, 40)), **options)


def map_file(panoptic):
    return panoptic.maps / "11.png"


NOT_IN_PNG, NOT_IN_JSON = (
    "listed in the JSON, but without a pixel in the PNG",
    "in the PNG, but not listed in the JSON",
)
ALL = f"segments {CAT}, {SKY}, {DOG}, {CROWD}"
DISAGREEING = {
    "listed, no pixel": (without_the_dogs_pixels, f"segment {DOG} {NOT_IN_PNG}"),
    "pixels, not listed": (
        lambda panoptic: segments_of_first(panoptic).pop(1),
        f"segment {CAT} {NOT_IN_JSON}",
    ),
    "both": (
        lambda panoptic: segments_of_first(panoptic)[1].update(id=9),
        f"segment 9 {NOT_IN_PNG}; segment {CAT} {NOT_IN_JSON}",
    ),
    "void only, but segments": (wholly_void, f"{ALL} {NOT_IN_PNG}"),
    "not listed at all": (lambda panoptic: segments_of_first(panoptic).clear(), f"{ALL} {NOT_IN_JSON}"),
    "another size": (
        lambda panoptic: save_map(panoptic, Image.new("RGB", (40, 60))),
        "the map of segments is 40 × 60 pixels, the image by the JSON 60 × 40",
    ),
    "grey": (of_mode("L"), "the map of segments is a PNG of mode L, expected a PNG of mode RGB"),
    "transparent": (of_mode("RGBA"), "mode RGBA, expected"),
    "palette": (of_mode("P"), "mode P, expected"),
    "colours are not exact": (of_mode("RGB", format="JPEG"), "is a JPEG of mode RGB, expected a PNG"),
    "missing": (lambda panoptic: map_file(panoptic).unlink(), "there is no such file (the map of segments)"),
    "empty": (lambda panoptic: map_file(panoptic).write_bytes(b""), "the map of segments cannot be read"),
    "truncated": (cut_short, "the map of segments cannot be read"),
}


@pytest.mark.parametrize("spoil, reason", DISAGREEING.values(), ids=DISAGREEING.keys())
def test_an_image_whose_png_is_wrong_is_a_bad_item(panoptic, spoil, reason):
    panoptic.image(12, [(CAT, 3, (0, 5, 0, 5))])
    target = load(panoptic)[0].target
    spoil(panoptic)
    dataset = load(panoptic)
    item = dataset[0]
    assert isinstance(item, BadItem)
    assert item.where == f"{panoptic.maps / '11.png'} (image 11)" and reason in item.reason
    batch = dataset.prepare(dataset.collate([dataset[0], dataset[1]]), "cpu")
    assert [target["image_id"] for target in batch.targets] == [12] and batch.bad_items == [item]
    with pytest.raises((ValueError, FileNotFoundError)):  # nor is a truth made of it
        dataset.truth(target)


def test_a_picture_of_another_size_or_none_is_a_bad_item(panoptic):
    picture = panoptic.pictures / "11.jpg.png"
    Image.new("RGB", (59, 40)).save(picture)
    assert "the picture is 59 × 40 pixels, its annotations are for 60 × 40" in load(panoptic)[0].reason
    picture.unlink()
    assert load(panoptic)[0] == BadItem(f"{picture} (image 11)", "there is no such file")


# Resizing, augmentation, batches


def test_augmentation_takes_masks_along(panoptic):
    dataset = load(panoptic, augment=DetrAugment().scaled(0.05))
    sizes = set()
    for seed in range(12):
        image, target = dataset[(0, seed)]
        sizes.add(image.shape)
        assert target["masks"].shape == (len(target["labels"]), *image.shape[1:])
        assert target["masks"].flatten(1).any(1).all() and target["masks"].sum(0).max() <= 1
        corners = torch.tensor(pixel_boxes(CocoItem(image, target))).reshape(-1, 4)
        assert torch.equal(corners.round().long(), boxes_around(target["masks"])), (
            "a box is around what is left"
        )
        again = pickle.loads(pickle.dumps(dataset))[(0, seed)]
        assert torch.equal(again.image, image) and torch.equal(again.target["masks"], target["masks"])
    assert len(sizes) > 3


def test_masks_may_be_left_out_once_boxes_are_around_them(panoptic):
    for augment in (None, DetrAugment().scaled(0.05)):
        full, boxes = load(panoptic, augment=augment)[0], load(panoptic, augment=augment, masks=False)[0]
        assert "masks" not in boxes.target and torch.equal(boxes.target["boxes"], full.target["boxes"])


def test_a_segment_of_which_nothing_is_left_at_the_models_size_is_left_out(panoptic):
    panoptic.image(12, [(SKY, 20, (0, 40, 0, 60)), (CAT, 3, (1, 2, 1, 2))])
    dataset = load(panoptic, transform=ImageTransform(shortest_edge=10))
    target = dataset[1].target
    assert target["annotation_ids"] == [SKY] and target["masks"].shape == (1, 10, 15)
    assert [segment.id for segment in dataset.truth(target).segments] == [SKY, CAT]


def test_a_batch_is_padded_and_masks_keep_their_sizes(panoptic):
    panoptic.image(12, [(CAT, 3, (0, 50, 0, 15))], size=(50, 30))
    dataset = load(panoptic)
    raw = dataset.collate([dataset[0], dataset[1]])
    batch = dataset.prepare(pickle.loads(pickle.dumps(raw)), "cpu")
    assert batch.images.pixels.shape == (2, 3, 50, 60)
    assert batch.images.padding_mask[0, 40:].all() and not batch.images.padding_mask[1, :, :30].any()
    assert [target["masks"].shape for target in batch.targets] == [(3, 40, 60), (1, 50, 30)]
    assert torch.allclose(batch.targets[1]["boxes"], torch.tensor([[0.25, 0.5, 0.5, 1]]))


def test_through_a_loader_with_workers(panoptic):
    for image_id in (12, 13):
        panoptic.image(image_id, [(CAT, 3, (0, 5, 0, image_id))])
    (panoptic.maps / "12.png").unlink()
    dataset = load(panoptic, augment=DetrAugment().scaled(0.05))
    keys = [(index, 100 + index) for index in range(3)]
    loader = DataLoader(dataset, batch_size=3, sampler=keys, num_workers=1, collate_fn=dataset.collate)
    (batch,) = [dataset.prepare(raw, "cpu") for raw in loader]
    assert [target["image_id"] for target in batch.targets] == [11, 13]
    assert "12.png (image 12)" in str(batch.bad_items[0])
    assert torch.equal(batch.targets[1]["masks"], dataset[keys[2]].target["masks"])


# Writing, and reading back


def test_scenes_written_and_read_back_are_the_same(tmp_path):
    scenes = Scenes("val", size=3, stuff=True)
    batch = scenes.prepare(scenes.collate([scenes[i] for i in range(3)]))
    written = [(f"{t['image_id']}.png", t["image_id"], scenes.truth(t)) for t in batch.targets]
    assert (
        write_panoptic(tmp_path / "val", "panoptic", written, scenes.categories)
        == tmp_path / "val" / "panoptic.json"
    )
    for index in range(3):
        scenes.scene_image(index).save(tmp_path / "val" / f"{index}.png")

    dataset = CocoPanoptic(tmp_path, "val", transform=scenes.image_transform)
    assert dataset.categories == scenes.categories and dataset.bad_items.count == 0
    again = dataset.prepare(dataset.collate([dataset[i] for i in range(3)]), "cpu")
    assert torch.equal(again.images.pixels, batch.images.pixels)
    for theirs, ours in zip(batch.targets, again.targets, strict=True):
        assert theirs.keys() == ours.keys()
        for name in ("labels", "masks"):
            assert torch.equal(theirs[name], ours[name])
        assert torch.allclose(theirs["boxes"], ours["boxes"], atol=1e-6)
        for name in ("image_id", "original_size", "annotation_ids"):
            assert theirs[name] == ours[name]
        before, after = scenes.truth(theirs), dataset.truth(ours)
        assert torch.equal(before.segment_ids, after.segment_ids) and before.segments == after.segments
    truths = scenes.ground_truth(), dataset.ground_truth()
    assert len({json.dumps([[a["image_id"], a["category_id"], list(map(int, a["bbox"])), int(a["area"])]
                            for a in truth["annotations"]]) for truth in truths}) == 1  # fmt: skip


KINDS = Categories(("cat", "N/A", "sky"), (2, None, 9), (True, True, False))
segments_drawn = st.lists(
    st.tuples(st.integers(1, LARGEST_ID), st.sampled_from([0, 2]), st.booleans()),
    max_size=5,
    unique_by=lambda drawn: drawn[0],
)


@given(st.data())
@settings(deadline=None, max_examples=25)
def test_any_map_is_read_back_as_it_was_written(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("maps")
    drawn = data.draw(segments_drawn)
    places = data.draw(arrays.arrays(np.int64, (4, 6), elements=st.integers(0, len(drawn))))
    ids = torch.from_numpy(np.array([0, *(id_ for id_, _, _ in drawn)])[places])
    there = set(ids.unique().tolist())
    segments = [
        Segment(id_, label, label == 0, is_crowd=crowd) for id_, label, crowd in drawn if id_ in there
    ]
    file = write_panoptic(folder / "val", "panoptic", [("a.png", 4, Panoptic(ids, segments))], KINDS)
    Image.new("RGB", (6, 4)).save(folder / "val" / "a.png")
    dataset = CocoPanoptic(folder, "val", KINDS, transform=AS_IT_IS, bad_items="stop")
    truth = dataset.truth(dataset[0].target)
    assert torch.equal(truth.segment_ids, ids) and truth.segments == segments
    content = json.loads(file.read_text())
    assert [category["id"] for category in content["categories"]] == [2, 9], "a hole is no category"
    for segment in content["annotations"][0]["segments_info"]:
        left, top, width, height = segment["bbox"]
        inside = ids[top : top + height, left : left + width] == segment["id"]
        assert segment["area"] == inside.sum() == (ids == segment["id"]).sum()
        assert inside.any(0)[[0, -1]].all() and inside.any(1)[[0, -1]].all(), (
            "the box is no larger than need be"
        )


def test_what_was_predicted_has_scores(tmp_path):
    ids = torch.tensor([[1, 1, 2]])
    found = Panoptic(ids, [Segment(1, 0, True, 0.75, (3,)), Segment(2, 2, False)])
    # Two pictures whose PNGs would have the same name.
    file = write_panoptic(tmp_path, "found", [("b.jpg", 1, found), ("b.png", 2, found)], KINDS)
    content = json.loads(file.read_text())
    assert [entry["file_name"] for entry in content["annotations"]] == ["b.png", "b-2.png"]
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["b-2.png", "b.png"]
    assert [entry["file_name"] for entry in content["images"]] == ["b.jpg", "b.png"]
    first, second = content["annotations"][0]["segments_info"]
    assert first == {"id": 1, "category_id": 2, "bbox": [0, 0, 2, 1], "area": 2, "iscrowd": 0, "score": 0.75}
    assert "score" not in second
    assert read_panoptic(file, BadItems("stop")).things == {2}


@pytest.mark.parametrize(
    "segments, words",
    [
        ([Segment(1, 0, True)], "segment 2 in the PNG, but not listed"),
        ([Segment(1, 0, True), Segment(2, 0, True), Segment(3, 0, True)], "segment 3 listed"),
        ([Segment(1, 0, True), Segment(2, 1, True)], "segment 2: no category has its label, 1"),
        ([Segment(1, 0, True), Segment(2, 7, True)], "segment 2: no category has its label, 7"),
        ([Segment(1, 0, True), Segment(2, 2, True)], "segment 2: is_thing is True, which 'sky' is not"),
        (
            [Segment(1, 0, True), Segment(2, 0, True), Segment(2, 2, False)],
            "2 segments of the image have this id",
        ),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, segments, words):
    with pytest.raises(ValueError) as caught:
        write_panoptic(tmp_path, "maps", [("c.png", 8, Panoptic(torch.tensor([[1, 2]]), segments))], KINDS)
    assert "image 8 (c.png)" in str(caught.value) and words in str(caught.value)
    assert not (tmp_path / "maps.json").exists()


def test_an_image_cannot_be_written_twice(tmp_path):
    void = Panoptic(torch.zeros(2, 2, dtype=torch.int64), [])
    with pytest.raises(ValueError, match="image 8 is there twice, the second time as d.png"):
        write_panoptic(tmp_path, "maps", [("c.png", 8, void), ("d.png", 8, void)], KINDS)
