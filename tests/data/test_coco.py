"""COCO folders: their layouts, everything that may be broken in them, pictures of every kind, and batches."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from faster_coco_eval import mask as mask_tools
from PIL import Image
from torch.utils.data import DataLoader

from minivis.boxes import cxcywh_to_xyxy
from minivis.data import (
    BadItem,
    BadItemError,
    BadItems,
    Categories,
    CocoDetection,
    DetectionDataset,
    DetrAugment,
)
from minivis.data.coco import CocoFormatError, CocoItem
from minivis.data.pictures import open_picture
from minivis.images import ImageTransform

AS_IT_IS = ImageTransform()  # no resizing


def load(coco, **options) -> CocoDetection:
    return CocoDetection(coco.write(), coco.split, transform=options.pop("transform", AS_IT_IS), **options)


def only_bad_item(dataset: CocoDetection) -> str:
    assert dataset.bad_items.count == 1, dataset.bad_items.summary()
    return str(next(iter(dataset.bad_items.items)))


def pixel_boxes(item: CocoItem) -> list[list[float]]:
    height, width = item.image.shape[-2:]
    return (
        (cxcywh_to_xyxy(item.target["boxes"]) * torch.tensor([width, height, width, height]))
        .round(decimals=3)
        .tolist()
    )


# What a sound folder gives


def test_an_item_and_its_target(coco):
    coco.image(11, size=(40, 60))
    coco.annotation(5, 11, (10, 20, 30, 10), category_id=7)
    coco.annotation(6, 11, (0.5, 0.25, 4, 8), category_id=3)
    dataset = load(coco)
    assert isinstance(dataset, DetectionDataset)
    assert len(dataset) == 1 and dataset.bad_items.count == 0
    image, target = dataset[0]
    assert image.shape == (3, 40, 60) and image.dtype == torch.uint8
    assert target["labels"].tolist() == [1, 0] and target["labels"].dtype == torch.int64
    assert target["boxes"].dtype == torch.float32
    assert torch.allclose(target["boxes"][0], torch.tensor([25 / 60, 25 / 40, 30 / 60, 10 / 40]))
    assert pixel_boxes(dataset[0]) == [[10, 20, 40, 30], [0.5, 0.25, 4.5, 8.25]]
    assert (target["image_id"], target["original_size"], target["annotation_ids"]) == (11, (40, 60), [5, 6])
    assert "masks" not in target


def test_most_objects_counts_what_is_trained_on(coco):
    for image, objects in ((1, 2), (2, 0), (3, 3)):
        coco.image(image, size=(40, 60))
        for i in range(objects):
            coco.annotation(10 * image + i, image, (10, 20, 30, 10))
    coco.annotation(99, 3, (10, 20, 30, 10), iscrowd=1)
    assert load(coco).most_objects == 3


def test_cocos_own_layout(coco, tmp_path):
    coco.image(1)
    coco.annotation(1, 1)
    coco.write()
    official = tmp_path / "official"
    (official / "annotations").mkdir(parents=True)
    shutil.move(coco.file, official / "annotations" / "instances_val2017.json")
    shutil.move(coco.pictures, official / "val2017")
    dataset = CocoDetection(official, "val")
    assert len(dataset[0].target["labels"]) == 1
    with pytest.raises(FileNotFoundError, match="instances_train2017.json"):
        CocoDetection(official, "train")


def test_a_missing_split_says_what_was_looked_for_and_found(coco, tmp_path):
    coco.image(1)
    folder = coco.write()
    (folder / "valid").mkdir()
    (folder / "valid" / "labels.json").write_text("{}")
    with pytest.raises(FileNotFoundError) as caught:
        CocoDetection(folder, "val")
    for words in (
        "'val'",
        "val/annotations.json",
        "annotations/instances_val2017.json",
        "train/",
        "valid/labels.json",
    ):
        assert words in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        CocoDetection(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty is empty"):
        CocoDetection(tmp_path / "empty")


def test_images_without_objects_are_kept(coco):
    coco.image(1)
    coco.image(2)
    coco.annotation(1, 2)
    for augment in (None, "paper", DetrAugment().scaled(0.1)):
        dataset = load(coco, augment=augment)
        assert len(dataset) == 2
        assert dataset[0].target["boxes"].shape == (0, 4) and dataset[0].target["labels"].shape == (0,)
    assert [image["id"] for image in dataset.ground_truth()["images"]] == [1, 2]


def test_a_folder_without_any_annotation_works(coco):
    coco.image(1)
    dataset = load(coco, masks=True)
    assert dataset[0].target["masks"].shape == (0, 40, 60)
    assert dataset.ground_truth()["annotations"] == []


def test_annotations_in_any_order_find_their_images(coco):
    random = np.random.default_rng(0)
    image_ids = random.permutation(50)[:20].tolist()
    for image_id in image_ids:
        coco.image(image_id)
    of = random.choice(image_ids, 200).tolist()
    for annotation_id, image_id in enumerate(of):
        coco.annotation(annotation_id, image_id, (annotation_id % 30, 0, 5, 5))
    dataset = load(coco)
    for index, image_id in enumerate(image_ids):
        target = dataset[index].target
        assert target["image_id"] == image_id
        assert target["annotation_ids"] == [i for i, other in enumerate(of) if other == image_id]
        assert [box[0] for box in pixel_boxes(dataset[index])] == [i % 30 for i in target["annotation_ids"]]


# Categories


def test_category_ids_with_gaps(coco):
    coco.image(1)
    coco.annotation(1, 1, category_id=7)
    dense, by_id = load(coco), load(coco, categories="coco")
    assert dense.categories == Categories(("cat", "dog"), (3, 7))
    assert dense[0].target["labels"].tolist() == [1]
    assert len(by_id.categories) == 8 and by_id.categories.names[3] == "cat"
    assert by_id[0].target["labels"].tolist() == [7]
    for dataset in (dense, by_id):
        truth = dataset.ground_truth()
        assert truth["annotations"][0]["category_id"] == 7
        assert truth["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def test_the_categories_of_a_checkpoint_are_matched_by_name(coco):
    coco.image(1)
    coco.annotation(1, 1, category_id=7)  # a dog
    checkpoint = Categories.dense([(1, "dog"), (2, "cat"), (3, "owl")])
    dataset = load(coco, categories=checkpoint)
    assert dataset.categories == checkpoint
    assert dataset[0].target["labels"].tolist() == [0]
    assert dataset.ground_truth()["annotations"][0]["category_id"] == 1  # the ids of `dataset.categories`
    with pytest.raises(ValueError, match=r"annotations.json has categories .* dog; it knows cat, owl"):
        load(coco, categories=Categories.dense([(1, "cat"), (2, "owl")]))


def test_wrong_options_are_named(coco):
    coco.image(1)
    with pytest.raises(ValueError, match="'sparse'"):
        load(coco, categories="sparse")
    with pytest.raises(ValueError, match="'strong'"):
        load(coco, augment="strong")
    with pytest.raises(ValueError, match="'ignore'"):
        load(coco, bad_items="ignore")


# Crowds, and the ground truth


def test_crowds_are_in_the_ground_truth_only(coco):
    coco.image(1)
    coco.annotation(1, 1, (1, 2, 3, 4))
    coco.annotation(2, 1, (0, 0, 50, 30), iscrowd=1, area=700.5)
    dataset = load(coco)
    assert dataset[0].target["annotation_ids"] == [1]
    truth = dataset.ground_truth()["annotations"]
    assert truth == [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0], "area": 12.0, "iscrowd": 0},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 3,
            "bbox": [0.0, 0.0, 50.0, 30.0],
            "area": 700.5,
            "iscrowd": 1,
        },
    ]
    json.dumps(truth)  # plain numbers


def test_the_ground_truth_of_some_images(coco):
    for image_id in (4, 2, 9):
        coco.image(image_id, size=(30 + image_id, 60))
        coco.annotation(image_id, image_id)
    truth = load(coco).ground_truth([9, 4])
    assert [image["id"] for image in truth["images"]] == [4, 9]
    assert truth["images"][0] == {"id": 4, "file_name": "4.png", "height": 34, "width": 60}
    assert [annotation["image_id"] for annotation in truth["annotations"]] == [4, 9]


# Broken annotations: each is named once and left out; the others stay

BROKEN = {
    "no width": ({"bbox": [10, 10, 0, 5]}, "has no width or no height"),
    "no height": ({"bbox": [10, 10, 5, 0]}, "has no width or no height"),
    "negative width": ({"bbox": [30, 10, -5, 5]}, "has no width or no height"),
    "NaN": ({"bbox": [10, float("nan"), 5, 5]}, "four finite numbers"),
    "infinite": ({"bbox": [10, 10, float("inf"), 5]}, "four finite numbers"),
    "beyond any float": ({"bbox": [10, 10, 10**400, 5]}, "four finite numbers"),
    "text": ({"bbox": [10, "10", 5, 5]}, "four finite numbers"),
    "three numbers": ({"bbox": [10, 10, 5]}, "[left, top, width, height]"),
    "no list": ({"bbox": None}, "[left, top, width, height]"),
    "right of the image": ({"bbox": [50, 10, 11.5, 5]}, "is not inside the image, which is 60 × 40 pixels"),
    "below the image": ({"bbox": [50, 10, 5, 32]}, "is not inside the image"),
    "left of the image": ({"bbox": [-1.5, 10, 10, 5]}, "is not inside the image"),
    "wholly in the rounding": ({"bbox": [60.2, 10, 0.5, 5]}, "is not inside the image"),
    "no such image": ({"image_id": 99}, "there is no image with this id"),
    "no such category": ({"category_id": 5}, "there is no category with the id 5; there are 3, 7"),
    "category is text": ({"category_id": "cat"}, "whole number as \"category_id\", got 'cat'"),
    "image id is a fraction": ({"image_id": 1.5}, 'whole number as "image_id"'),
    "id beyond int64": ({"id": 2**70}, 'whole number as "id"'),
    "id is there before": ({"id": 1}, "an annotation before it has the same id"),
    "negative area": ({"area": -1}, 'expected "area" to be a finite number, at least 0, got -1'),
    "neither crowd nor not": ({"iscrowd": 2}, 'expected "iscrowd" to be 0 or 1, got 2'),
}


@pytest.mark.parametrize("fields, reason", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_annotation_is_named_once_and_left_out(coco, caplog, fields, reason):
    coco.image(1, size=(40, 60))
    coco.annotation(1, 1, (0, 0, 5, 5))
    coco.annotation(2, **{"image_id": 1, **{k: v for k, v in fields.items() if k != "id"}})
    coco.content["annotations"][-1].update(fields)
    coco.annotation(3, 1, (5, 5, 5, 5))
    dataset = load(coco)
    said = only_bad_item(dataset)
    assert reason in said and str(coco.file) in said
    if "image_id" not in fields:
        assert "image 1 (1.png)" in said
    if "id" not in fields:
        assert "annotation 2" in said
    assert dataset[0].target["annotation_ids"] == dataset[0].target["annotation_ids"] == [1, 3]
    assert [annotation["id"] for annotation in dataset.ground_truth()["annotations"]] == [1, 3]
    assert len(caplog.records) == 1 and said in caplog.text
    with pytest.raises(BadItemError) as caught:
        load(coco, bad_items="stop")
    assert reason in str(caught.value)


@pytest.mark.parametrize("missing", ["id", "image_id", "category_id", "bbox"])
def test_an_annotation_that_lacks_a_field(coco, missing):
    coco.image(1)
    coco.annotation(1, 1)
    coco.annotation(2, 1)
    del coco.content["annotations"][1][missing]
    dataset = load(coco)
    said = only_bad_item(dataset)
    assert f'"{missing}"' in said and "got nothing" in said
    assert ('number 1 of "annotations"' if missing == "id" else "annotation 2") in said
    assert dataset[0].target["annotation_ids"] == [1]


def test_an_annotation_that_is_no_object(coco):
    coco.image(1)
    coco.content["annotations"] = [[1, 2, 3]]
    assert 'number 0 of "annotations": expected an object, got [1, 2, 3]' in only_bad_item(load(coco))


def test_area_and_crowd_may_be_left_out(coco):
    coco.image(1)
    coco.annotation(1, 1, (0, 0, 4, 5))
    del coco.content["annotations"][0]["iscrowd"]
    dataset = load(coco)
    assert dataset.bad_items.count == 0
    annotation = dataset.ground_truth()["annotations"][0]
    assert (annotation["area"], annotation["iscrowd"]) == (20.0, 0)


def test_a_box_may_overstep_the_image_by_a_pixel_of_rounding(coco):
    coco.image(1, size=(40, 60))
    coco.annotation(1, 1, (-0.6, -1, 61.4, 42))
    dataset = load(coco)
    assert dataset.bad_items.count == 0
    assert pixel_boxes(dataset[0]) == [[0, 0, 60, 40]]  # what a model is trained on
    assert dataset.ground_truth()["annotations"][0]["bbox"] == [-0.6, -1, 61.4, 42]  # what it is measured by


def test_images_that_share_an_id_are_left_out_with_their_annotations(coco):
    coco.image(1)
    coco.image(2, file_name="a.png")
    coco.image(2, file_name="b.png")
    for annotation_id, image_id in ((1, 1), (2, 2), (3, 2)):
        coco.annotation(annotation_id, image_id)
    dataset = load(coco)
    assert "image 2: 2 images have this id (a.png, b.png)" in only_bad_item(dataset)
    assert len(dataset) == 1 and dataset[0].target["image_id"] == 1
    truth = dataset.ground_truth()
    assert len(truth["images"]) == len(truth["annotations"]) == 1
    with pytest.raises(BadItemError, match="image 2"):
        load(coco, bad_items="stop")


def test_a_registry_may_be_shared(coco):
    coco.image(1)
    coco.annotation(1, 1, (0, 0, 0, 0))
    registry = BadItems("skip")
    load(coco, bad_items=registry)
    load(coco, bad_items=registry)
    assert registry.count == 1


# JSON that is not COCO


@pytest.mark.parametrize(
    "content, words",
    [
        ("", ["is not JSON"]),
        ('{"images": [', ["is not JSON"]),
        ("[" * 100_000, ["is not JSON"]),
        ([], ["holds a list", '"images"', '"annotations"', '"categories"']),
        ({}, ['has no "images" (it has nothing)']),
        ({"images": [], "labels": 3}, ['has no "annotations" (it has images, labels)', "COCO"]),
        ({"images": {}, "annotations": [], "categories": []}, ['"images" is a dict', "COCO"]),
        ({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}, ['"images" is empty']),
        ({"images": [{}], "annotations": [], "categories": []}, ['"categories" is empty']),
    ],
)
def test_what_is_not_coco_is_refused(coco, content, words):
    coco.write(json.dumps(content) if not isinstance(content, str) else content or " ")
    with pytest.raises(CocoFormatError) as caught:
        CocoDetection(coco.folder)
    assert str(coco.file) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_bytes_that_are_no_text_are_refused(coco):
    coco.file.write_bytes(b"\xff\xd8\xff\xe0 a picture, perhaps \x80")
    with pytest.raises(CocoFormatError, match="is not JSON"):
        CocoDetection(coco.folder)


@pytest.mark.parametrize(
    "field, value",
    [
        ("id", None),
        ("id", "1"),
        ("file_name", None),
        ("file_name", 3),
        ("width", None),
        ("height", 0),
        ("height", 1.5),
    ],
)
def test_an_image_that_lacks_a_field_is_left_out_with_its_annotations(coco, field, value):
    coco.image(1)
    coco.image(2)
    coco.annotation(1, 1)
    if field != "id":
        coco.annotation(2, 2)
    if value is None:
        del coco.content["images"][1][field]
    else:
        coco.content["images"][1][field] = value
    dataset = load(coco)
    said = only_bad_item(dataset)
    assert f'{coco.file}: number 1 of "images"' in said
    assert f'where "{field}" is missing or wrong' in said
    assert len(dataset) == 1 and dataset[0].target["annotation_ids"] == [1]
    with pytest.raises(BadItemError, match='number 1 of "images"'):
        load(coco, bad_items="stop")


def test_a_file_whose_images_are_all_broken_is_not_coco(coco):
    coco.image(1)
    coco.content["images"][0]["height"] = "tall"
    with pytest.raises(
        CocoFormatError, match='nothing in "images" is an image .* where "height" is missing or wrong'
    ):
        load(coco)


def test_an_empty_mask_is_named(coco):
    coco.image(1, size=(40, 60))
    coco.annotation(1, 1, (0, 0, 20, 20))
    coco.content["annotations"][0]["segmentation"] = {"size": [40, 60], "counts": [2400]}
    dataset = load(coco, masks=True)
    assert "image 1" in only_bad_item(dataset) and "its mask has no pixel" in only_bad_item(dataset)


@pytest.mark.parametrize(
    "categories, words",
    [
        ([{"id": 1}], 'number 0 of "categories"'),
        (["cat"], 'number 0 of "categories"'),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "category id 1 is used twice"),
        (
            [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}],
            "two categories, ids 1 and 2, have the same name 'a'",
        ),
    ],
)
def test_broken_categories_are_refused(coco, categories, words):
    coco.image(1)
    coco.content["categories"] = categories
    with pytest.raises(CocoFormatError) as caught:
        load(coco)
    assert words in str(caught.value) and str(coco.file) in str(caught.value)


# Pictures


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    return np.linspace(0, 255, height * width).reshape(height, width).round().astype(np.uint8)


def test_rgba_drops_the_transparency(coco):
    colours = np.dstack([gradient(), gradient()[::-1], gradient()[:, ::-1], gradient() // 2])
    coco.image(1, picture=Image.fromarray(colours, "RGBA"))
    assert np.array_equal(load(coco)[0].image.permute(1, 2, 0).numpy(), colours[..., :3])


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "CMYK"])
def test_grey_palette_and_other_modes(coco, mode):
    picture = Image.fromarray(np.where(gradient() > 99, 255, 0).astype(np.uint8)).convert(mode)
    coco.image(1, picture=picture, file_name="a.tif" if mode == "CMYK" else "a.png")
    expected = np.where(gradient() > 99, 255, 0)
    image = load(coco)[0].image.numpy()
    assert image.shape == (3, 40, 60)
    assert all(np.array_equal(channel, expected) for channel in image)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_its_shades(coco, suffix):
    coco.image(1, picture=Image.fromarray(gradient().astype(np.uint16) * 257), file_name=f"1{suffix}")
    image = load(coco)[0].image.numpy()
    assert all(np.array_equal(channel, gradient()) for channel in image)


def test_floats_and_32_bits_are_bad_items(coco):
    coco.image(1, picture=Image.fromarray(gradient().astype(np.float32)), file_name="1.tif")
    coco.image(2, picture=Image.fromarray(gradient().astype(np.int32) * 1000), file_name="2.tif")
    dataset = load(coco)
    assert "floats" in dataset[0].reason and "16 bits" in dataset[1].reason


def turned_picture(folder, name: str, orientation: int) -> np.ndarray:
    """Stores a picture 60 wide and 40 high with this EXIF orientation; gives its stored pixels."""
    stored = np.zeros((40, 60, 3), dtype=np.uint8)
    stored[:10, :20] = (255, 0, 0)  # red at the stored top left
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(folder / name, exif=exif)
    return stored


@pytest.mark.parametrize(
    "orientation, turn", [(6, lambda x: np.rot90(x, -1)), (8, np.rot90), (5, lambda x: x.swapaxes(0, 1))]
)
def test_annotations_say_which_way_up_a_turned_picture_is(coco, orientation, turn):
    stored = turned_picture(coco.pictures, "1.png", orientation)
    coco.image(1, size=(40, 60), picture=None)  # annotated as it is stored
    turned_picture(coco.pictures, "2.png", orientation)
    coco.image(2, size=(60, 40), picture=None)  # annotated as viewers show it
    dataset = load(coco)
    assert np.array_equal(dataset[0].image.permute(1, 2, 0).numpy(), stored)
    assert np.array_equal(dataset[1].image.permute(1, 2, 0).numpy(), turn(stored))
    assert dataset[1].target["original_size"] == (60, 40)


def test_where_both_ways_fit_the_picture_is_as_viewers_show_it(coco):
    stored = turned_picture(coco.pictures, "1.png", 3)  # upside down
    coco.image(1, size=(40, 60), picture=None)
    assert np.array_equal(load(coco)[0].image.permute(1, 2, 0).numpy(), stored[::-1, ::-1])


def test_a_picture_of_another_size_is_a_bad_item_with_both_sizes(coco):
    coco.image(1, size=(41, 60), picture=Image.new("RGB", (60, 40)))
    turned_picture(coco.pictures, "2.png", 6)
    coco.image(2, size=(30, 30), picture=None)
    first, second = load(coco)[0], load(coco)[1]
    assert first == BadItem(
        f"{coco.pictures / '1.png'} (image 1)",
        "the picture is 60 × 40 pixels, its annotations are for 60 × 41 (width × height)",
    )
    assert (
        "60 × 40 pixels (40 × 60 turned by its EXIF orientation 6), its annotations are for 30 × 30"
        in second.reason
    )


def test_unreadable_pictures_are_bad_items(coco):
    coco.image(1, picture=None)  # missing
    for image_id, suffix in ((2, "jpg"), (3, "png")):
        coco.image(
            image_id,
            size=(200, 200),
            file_name=f"{image_id}.{suffix}",
            picture=Image.effect_noise((200, 200), 99),
        )
        path = coco.pictures / f"{image_id}.{suffix}"
        os.truncate(path, path.stat().st_size // 2)
    coco.image(4, picture=None)
    (coco.pictures / "4.png").write_bytes(b"")
    coco.image(5, picture=None)
    (coco.pictures / "5.png").write_text("<html>404</html>")
    coco.image(6, picture=None)
    (coco.pictures / "6.png").mkdir()
    coco.image(7)
    dataset = load(coco)
    items = [dataset[i] for i in range(7)]
    assert all(isinstance(item, BadItem) for item in items[:6]) and isinstance(items[6], CocoItem)
    for image_id, item in enumerate(items[:6], start=1):
        assert str(coco.pictures) in item.where and f"(image {image_id})" in item.where and item.reason
    assert items[0].reason == "there is no such file"
    assert "truncated" in items[1].reason


# Resizing, augmentation, masks


def test_pixels_and_boxes_are_those_of_the_image_transform(coco):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    coco.image(1, picture=picture)
    coco.annotation(1, 1, (15, 10, 30, 20))
    transform = ImageTransform(shortest_edge=32, longest_edge=45)
    dataset = load(coco, transform=transform)
    batch = dataset.prepare(dataset.collate([dataset[0]]), "cpu")
    assert torch.equal(batch.images.pixels[0], transform(picture))
    assert torch.allclose(batch.targets[0]["boxes"], torch.tensor([[0.5, 0.5, 0.5, 0.5]]), atol=1e-6)


def test_the_seed_alone_drives_the_augmentation(coco):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    for image_id in (1, 2):
        coco.image(image_id, picture=picture)
        coco.annotation(image_id, image_id)
    dataset = load(coco, augment=DetrAugment().scaled(0.1))
    for seed in range(5):
        torch.manual_seed(seed)
        first = dataset[(0, 7)]
        again = pickle.loads(pickle.dumps(dataset))[(0, 7)]
        assert torch.equal(first.image, again.image)
        assert torch.equal(first.target["boxes"], again.target["boxes"])
    pixels = {dataset[(0, seed)].image.numpy().tobytes() for seed in range(10)}
    assert len(pixels) >= 8
    assert any(dataset[(0, seed)].image.shape != dataset[(1, seed)].image.shape for seed in range(10))
    assert torch.equal(dataset[0].image, dataset[(0, 0)].image)


def test_an_index_beyond_the_end(coco):
    coco.image(1)
    dataset = load(coco)
    assert dataset[-1].target["image_id"] == dataset[np.int64(0)].target["image_id"] == 1
    for key in (1, -2, (1, 5)):
        with pytest.raises(IndexError):
            dataset[key]


def test_masks_from_polygons_and_run_lengths(coco):
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:15, 10:40] = 1
    packed = mask_tools.encode(np.asfortranarray(mask))
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=9, append=9))).tolist()
    coco.image(1)
    for annotation_id, segmentation in enumerate(
        [
            [[10, 5, 40, 5, 40, 15, 10, 15]],
            {"size": [40, 60], "counts": packed["counts"].decode()},
            {"size": [40, 60], "counts": runs},
        ]
    ):
        coco.annotation(annotation_id, 1, (10, 5, 30, 10), segmentation=segmentation)
    coco.annotation(8, 1, iscrowd=1, segmentation={"size": [40, 60], "counts": runs})
    dataset = load(coco, masks=True)
    assert dataset.bad_items.count == 0
    masks = dataset[0].target["masks"]
    assert masks.dtype == torch.bool and masks.shape == (3, 40, 60)
    assert all(np.array_equal(m.numpy(), mask.astype(bool)) for m in masks)

    small = load(coco, masks=True, transform=ImageTransform(shortest_edge=20))[0]
    assert small.target["masks"].shape == (3, *small.image.shape[1:])
    augmented = load(coco, masks=True, augment=DetrAugment().scaled(0.1))[0]
    assert augmented.target["masks"].shape == (len(augmented.target["labels"]), *augmented.image.shape[1:])


@pytest.mark.parametrize(
    "segmentation, reason",
    [
        (
            {"size": [60, 40], "counts": [2400]},
            "its mask's size is [60, 40], its image's (height, width) is [40, 60]",
        ),
        ({"size": [40, 60], "counts": [100]}, "cannot be decoded"),
        ({"size": [40, 60], "counts": [3000]}, "cannot be decoded"),
        ({"size": [40, 60], "counts": "~~~~"}, "cannot be decoded"),
        ({"size": [40, 60]}, "cannot be decoded"),
        ([[1, 1, 5, 5]], "expected polygons"),
        ([[1, 1, 5, 5, 9]], "expected polygons"),
        ([[1, 1, 5, 5, 9, float("nan")]], "expected polygons"),
        ([1, 1, 5, 5, 9, 1], "expected polygons"),
        ([[1, 1, 5, 5, 90, 1]], "its polygon is not inside the image, which is 60 × 40 pixels"),
        ([], 'expected "segmentation" to be polygons or run lengths'),
        (None, 'expected "segmentation" to be polygons or run lengths'),
    ],
)
def test_a_broken_mask_is_named(coco, segmentation, reason):
    coco.image(1)
    coco.annotation(1, 1, segmentation=[[1, 1, 9, 1, 9, 9]])
    coco.annotation(2, 1, segmentation=segmentation)
    dataset = load(coco, masks=True)
    said = only_bad_item(dataset)
    assert reason in said and "image 1 (1.png), annotation 2" in said
    assert dataset[0].target["annotation_ids"] == [1]
    assert load(coco).bad_items.count == 0  # without masks, nobody needs them


# Batches


def test_a_batch_is_normalised_padded_and_keeps_bad_items_aside(coco):
    coco.image(1, size=(40, 60))
    coco.image(2, picture=None)
    coco.image(3, size=(50, 30))
    coco.annotation(1, 3)
    transform = ImageTransform(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    dataset = load(coco, transform=transform)
    raw = dataset.collate([dataset[i] for i in range(3)])
    batch = dataset.prepare(pickle.loads(pickle.dumps(raw)), "cpu")
    assert batch.images.pixels.shape == (2, 3, 50, 60)
    assert torch.allclose(batch.images.pixels[0, :, :40], torch.tensor((128 / 255 - 0.5) / 0.25), atol=1e-6)
    assert batch.images.pixels[0, :, 40:].eq(0).all() and batch.images.padding_mask[0, 40:].all()
    assert not batch.images.padding_mask[1, :50, :30].any()
    assert [target["image_id"] for target in batch.targets] == [1, 3]
    assert [item.reason for item in batch.bad_items] == ["there is no such file"]


def test_a_batch_of_nothing_but_bad_items(coco):
    coco.image(1, picture=None)
    dataset = load(coco)
    batch = dataset.prepare(dataset.collate([dataset[0]]), "cpu")
    assert len(batch.images.pixels) == len(batch.images.padding_mask) == len(batch.targets) == 0
    assert len(batch.bad_items) == 1


def test_through_a_loader_with_workers(coco):
    for image_id in range(6):
        coco.image(image_id, size=(40 + image_id, 60), picture=None if image_id == 4 else "plain")
        coco.annotation(image_id + 1, image_id)
    dataset = load(coco, augment=DetrAugment().scaled(0.1))
    keys = [(index, 100 + index) for index in range(6)]
    loader = DataLoader(dataset, batch_size=4, sampler=keys, num_workers=1, collate_fn=dataset.collate)
    batches = [dataset.prepare(raw, "cpu") for raw in loader]
    assert [len(batch.targets) for batch in batches] == [4, 1]
    assert "image 4" in str(batches[1].bad_items[0])
    direct = dataset[keys[5]]
    assert torch.equal(batches[1].targets[0]["boxes"], direct.target["boxes"])


def test_a_picture_without_annotations_is_as_viewers_show_it(tmp_path):
    stored = turned_picture(tmp_path, "photo.png", 6)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "photo.png")), np.rot90(stored, -1))
    with pytest.raises(FileNotFoundError):
        open_picture(tmp_path / "nothing.png")
