"""DetectionExplorer in Python: what it takes, refuses, says and draws."""

import numpy as np
import pytest
import torch
from PIL import Image

from minivis.widgets import DetectionExplorer

NAMES = ["cat", "dog"]


def outputs_of(*probabilities):
    """Pictures with the given class probabilities, all boxes in the middle."""
    logits = torch.tensor(probabilities).log()
    return {"pred_logits": logits, "pred_boxes": torch.full((*logits.shape[:2], 4), 0.5)}


FIRST = [[0.1, 0.8, 0.1], [0.3, 0.1, 0.6], [0.05, 0.05, 0.9]]
SECOND = [[0.1, 0.1, 0.8], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]]
TARGETS = [
    {"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]])},
    {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)},
]


def explorer(**changes):
    options = dict(outputs=outputs_of(FIRST, SECOND), class_names=NAMES, targets=TARGETS) | changes
    return DetectionExplorer([Image.new("RGB", (60, 40), "gray")] * 2, **options)


def test_found_are_the_queries_above_the_threshold_the_surest_first():
    widget = explorer()
    assert widget.found == [0]
    widget.threshold = 0.04
    assert widget.found == [0, 1, 2]
    widget.index = 1
    assert widget.found == [2, 0, 1]
    widget.threshold = 0.95
    assert widget.found == []


def test_no_object_is_no_answer_however_likely():
    score, label = explorer().guesses()[1]
    assert (label, round(score, 4)) == (0, 0.3)


def test_it_says_what_is_seen():
    widget = explorer()
    assert repr(widget) == (
        "Picture 1 of 2: 1 of 3 queries are surer than 0.50 (dog 0.80); there is 1 object."
    )
    widget.index = 1
    assert repr(widget).endswith("(cat 0.90); there are 0 objects.")
    assert repr(explorer(targets=None)).endswith("(dog 0.80).")


def test_without_javascript_there_is_a_picture_that_follows():
    widget = explorer()
    before = np.asarray(widget.draw())
    widget.threshold = 0.95
    after = np.asarray(widget.draw())
    assert before.shape == after.shape and (before != after).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(class_names=["cat"]), r"expected pred_logits of 2 columns .* got 3"),
        (dict(targets=TARGETS[:1]), "expected targets of 2 pictures, got 1"),
        (dict(outputs=outputs_of(FIRST)), "image 1: the outputs are of 1 images"),
        (dict(outputs=outputs_of(FIRST, SECOND) | {"pred_boxes": torch.full((2, 3, 4), torch.nan)}), "not finite"),
        (dict(threshold=1.5), r"expected a threshold in 0..1, got 1.5"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        explorer(**changes)


def test_a_place_that_is_not_there_is_refused():
    widget = explorer()
    with pytest.raises(ValueError, match=r"expected index in 0..1, got 2"):
        widget.index = 2
    with pytest.raises(ValueError, match=r"expected query in -1..2, got 3"):
        widget.query = 3
    with pytest.raises(ValueError, match="expected at least one picture"):
        DetectionExplorer([], outputs_of(FIRST), NAMES)
