"""Categories, and what is said of broken items."""

import json
import logging
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.data import BadItem, BadItemError, BadItems, Categories, DetectionBatch
from minivis.images import as_image_batch

pairs = st.dictionaries(st.integers(0, 90), st.text("abc é", min_size=1), max_size=12).filter(
    lambda names: len(set(names.values())) == len(names)
)


def test_dense_labels_have_no_gaps_and_follow_the_ids():
    categories = Categories.dense([(7, "dog"), (3, "cat"), (90, "owl")])
    assert categories.names == ("cat", "dog", "owl")
    assert categories.ids == (3, 7, 90)
    assert [categories.label_of(i) for i in (3, 7, 90)] == [0, 1, 2]


def test_labels_by_id_keep_the_gaps():
    categories = Categories.by_id([(3, "cat"), (1, "dog")])
    assert len(categories) == 4
    assert categories.names == ("N/A", "dog", "N/A", "cat")
    assert categories.ids == (None, 1, None, 3)
    assert categories.label_of(3) == categories.label_named("cat") == 3


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_every_category_has_the_label_that_leads_back_to_it(names):
    for categories in (Categories.dense(names.items()), Categories.by_id(names.items())):
        for category_id, name in names.items():
            label = categories.label_of(category_id)
            assert label == categories.label_named(name)
            assert (categories.ids[label], categories.names[label]) == (category_id, name)
        assert sum(i is not None for i in categories.ids) == len(names)
        assert Categories.from_dict(json.loads(json.dumps(categories.to_dict()))) == categories


@settings(max_examples=40, deadline=None)
@given(pairs.filter(bool), st.data())
def test_things_and_stuff(names, data):
    things = data.draw(st.sets(st.sampled_from(sorted(names))))
    for make in (Categories.dense, Categories.by_id):
        categories = make(names.items(), things)
        assert {categories.ids[label] for label in categories.things} == things
        assert {categories.ids[label] for label in categories.stuff} == set(names) - things
        assert Categories.from_dict(json.loads(json.dumps(categories.to_dict()))) == categories
        all_of_them = make(names.items())
        assert {all_of_them.ids[label] for label in all_of_them.things} == set(names), (
            "without stuff, all are things"
        )
        assert not any("is_thing" in entry for entry in all_of_them.to_dict())


def test_a_thing_or_stuff_must_be_said_of_every_label():
    with pytest.raises(ValueError, match="is_thing says it of 1 labels, there are 2"):
        Categories(("a", "b"), (1, 2), (True,))


def test_labels_left_out_of_a_card_are_holes():
    categories = Categories.from_dict([{"label": 2, "category_id": 5, "name": "cat"}])
    assert categories == Categories(("N/A", "N/A", "cat"), (None, None, 5))


@pytest.mark.parametrize("make", [Categories.dense, Categories.by_id])
def test_an_id_or_a_name_that_is_there_twice_is_named(make):
    with pytest.raises(ValueError, match="category id 3 is used twice, for 'cat' and 'dog'"):
        make([(3, "cat"), (3, "dog")])
    with pytest.raises(ValueError, match="two categories, ids 3 and 4, have the same name 'cat'"):
        make([(3, "cat"), (4, "cat")])


def test_ids_that_cannot_be_labels_are_refused():
    with pytest.raises(ValueError, match="from 0 to 65535.*use dense labels"):
        Categories.by_id([(-1, "cat")])
    with pytest.raises(ValueError, match="from 0 to 65535.*use dense labels"):
        Categories.by_id([(10**12, "cat")])


def test_what_is_not_there_is_named():
    categories = Categories.by_id([(1, "dog")])
    with pytest.raises(KeyError, match=r"no category has the id 2; there are \[1\]"):
        categories.label_of(2)
    with pytest.raises(KeyError, match="'N/A'"):
        categories.label_named("N/A")  # a hole is no category


def test_a_bad_item_is_named_once(caplog):
    registry = BadItems("skip")
    with caplog.at_level(logging.WARNING, logger="minivis"):
        for item in (BadItem("a.jpg (image 1)", "truncated"), BadItem("b.jpg (image 2)", "missing")) * 3:
            registry.report(item)
    assert [record.getMessage() for record in caplog.records] == [
        "skipped: a.jpg (image 1): truncated",
        "skipped: b.jpg (image 2): missing",
    ]
    assert registry.count == 2
    assert (
        registry.summary() == "2 bad items skipped:\n  a.jpg (image 1): truncated\n  b.jpg (image 2): missing"
    )


def test_a_long_summary_is_cut():
    registry = BadItems()
    for i in range(30):
        registry.report(BadItem(f"{i}.jpg", "missing"))
    assert registry.summary().splitlines()[0] == "30 bad items skipped:"
    assert "and 20 more" in registry.summary()
    assert BadItems().summary() == "no bad items"


def test_stop_stops_at_the_first():
    item = BadItem("a.jpg (image 1)", "truncated")
    with pytest.raises(BadItemError, match=r"a.jpg \(image 1\): truncated") as caught:
        BadItems("stop").report(item)
    assert caught.value.item == item
    assert pickle.loads(pickle.dumps(caught.value)).item == item  # it may come out of a worker process
    with pytest.raises(ValueError, match="'ignore'"):
        BadItems("ignore")


def test_a_batch_moves_its_tensors_only():
    target = {"labels": torch.zeros(1, dtype=torch.int64), "image_id": 5, "annotation_ids": [9]}
    batch = DetectionBatch(as_image_batch([torch.zeros(3, 4, 4)]), [target], [BadItem("a", "b")]).to("meta")
    assert batch.images.pixels.device.type == batch.targets[0]["labels"].device.type == "meta"
    assert batch.targets[0]["image_id"] == 5 and batch.targets[0]["annotation_ids"] == [9]
    assert batch.bad_items == [BadItem("a", "b")]


def test_a_quiet_registry_keeps_what_it_does_not_name(caplog):
    registry = BadItems(quiet=True)
    registry.report(BadItem("a.png (image 1)", "cannot be read"))
    assert registry.count == 1 and "a.png" in registry.summary()
    assert caplog.text == ""
