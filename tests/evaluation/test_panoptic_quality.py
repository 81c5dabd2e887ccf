"""PQ by hand, by its definition written as loops, and against torchmetrics where the two define the same."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.detr.merge import Panoptic, Segment
from minivis.evaluation.panoptic import PanopticQuality

K, THINGS = 4, {0, 1}


def panoptic(rows, labels, crowds=()):
    """A map of ids, and for each id its label."""
    segments = [Segment(i, label, label in THINGS, is_crowd=i in crowds) for i, label in labels.items()]
    return Panoptic(torch.tensor(rows), segments)


def quality(*pairs):
    result = PanopticQuality(K, THINGS)
    for predicted, truth in pairs:
        result.add(predicted, truth, image=7)
    return result


def test_a_perfect_prediction():
    truth = panoptic([[3, 3, 9], [5, 5, 9]], {3: 0, 5: 0, 9: 2})
    metrics = quality((truth, truth)).metrics()
    assert metrics == {name + end: 1 for name in ("PQ", "SQ", "RQ") for end in ("", "_things", "_stuff")}


def test_by_hand():
    """Class 0: one found with IoU 4/5, one missed. Class 1: one too many. Stuff 2: IoU 6/8. Class 3 does not occur."""
    truth = panoptic([[1, 1, 1, 1, 1, 3, 3, 3], [2, 2, 3, 3, 3, 3, 3, 3]], {1: 0, 2: 0, 3: 2})
    found = panoptic([[8, 8, 8, 8, 6, 6, 6, 6], [7, 7, 9, 9, 6, 6, 6, 6]], {8: 0, 7: 1, 9: 2, 6: 2})
    # segment 6: 8 pixels, 7 of the true 9, union 10; segment 9: 2 pixels, no partner
    result = quality((found, truth))
    assert result.counts.tolist() == [
        [pytest.approx(0.8), 1, 0, 1],
        [0, 0, 1, 0],
        [pytest.approx(0.7), 1, 1, 0],
        [0, 0, 0, 0],
    ]
    by_class = result.by_class()
    assert by_class[0] == pytest.approx([0.8 / 1.5, 0.8, 1 / 1.5])
    assert by_class[1] == pytest.approx([0, 0, 0])
    assert by_class[2] == pytest.approx([0.7 / 1.5, 0.7, 1 / 1.5])
    assert np.isnan(by_class[3]).all()
    metrics = result.metrics()
    assert metrics["PQ"] == pytest.approx((0.8 + 0 + 0.7) / 1.5 / 3)
    assert metrics["PQ_things"] == pytest.approx(0.8 / 1.5 / 2)
    assert metrics["SQ_things"] == pytest.approx(0.4) and metrics["SQ_stuff"] == pytest.approx(0.7)
    assert metrics["RQ_stuff"] == pytest.approx(1 / 1.5)


def test_an_iou_of_one_half_is_no_match():
    truth = panoptic([[1, 1, 1, 1, 2, 2, 2, 2]], {1: 0, 2: 2})
    half = panoptic([[1, 1, 2, 2, 2, 2, 2, 2]], {1: 0, 2: 2})
    assert quality((half, truth)).counts.tolist() == [
        [0, 0, 1, 1],
        [0] * 4,
        [pytest.approx(4 / 6), 1, 0, 0],
        [0] * 4,
    ]


def test_void_pixels_of_the_truth_are_left_out():
    truth = panoptic([[1, 1, 1, 0, 0, 0, 0, 0, 2, 2]], {1: 0, 2: 2})
    # thing: 3 right and 2 on void, so IoU 3/3; two that lie on void: wholly, and by half; stuff exactly
    found = panoptic([[1, 1, 1, 1, 1, 3, 3, 0, 2, 2]], {1: 0, 3: 1, 2: 2})
    assert quality((found, truth)).counts.tolist() == [[1, 1, 0, 0], [0] * 4, [1, 1, 0, 0], [0] * 4]
    # half of it on void is not more than half: it counts
    found = panoptic([[0, 0, 3, 3, 0, 0, 0, 0, 2, 2]], {3: 1, 2: 2})
    assert quality((found, truth)).counts.tolist() == [[0, 0, 0, 1], [0, 0, 1, 0], [1, 1, 0, 0], [0] * 4]


def test_void_pixels_of_the_prediction_are_not():
    truth = panoptic([[1, 1, 1, 1]], {1: 0})
    found = panoptic([[1, 1, 1, 0]], {1: 0})
    assert quality((found, truth)).counts[0].tolist() == [0.75, 1, 0, 0]
    nothing = panoptic([[0, 0, 0, 0]], {})
    assert quality((nothing, truth)).counts[0].tolist() == [0, 0, 0, 1]


def test_a_crowd_is_nothing_to_be_found_and_excuses_its_class():
    truth = panoptic([[1, 1, 1, 1, 1, 1, 2, 2]], {1: 0, 2: 2}, crowds={1})
    found = panoptic([[5, 5, 6, 6, 7, 7, 2, 2]], {5: 0, 6: 0, 7: 1, 2: 2})
    assert quality((found, truth)).counts.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0] * 4]


def test_images_add_up_and_so_do_processes():
    truth = panoptic([[1, 1, 1, 2]], {1: 0, 2: 2})
    found = panoptic([[1, 1, 2, 2]], {1: 0, 2: 2})
    both = quality((found, truth), (truth, truth))
    one, other = quality((found, truth)), quality((truth, truth))
    one.counts += other.counts
    assert one.metrics() == both.metrics()
    assert both.metrics()["PQ_things"] == pytest.approx((2 / 3 + 1) / 2)


def test_segments_of_different_images_are_not_matched():
    left, right = panoptic([[1, 0]], {1: 0}), panoptic([[0, 1]], {1: 0})
    empty = panoptic([[0, 0]], {})
    result = quality((left, empty), (empty, right))
    assert result.counts[0].tolist() == [0, 0, 0, 1], "on void the first is excused"


def test_nothing_at_all_is_not_a_number():
    metrics = PanopticQuality(K, THINGS).metrics()
    assert len(metrics) == 9 and all(math.isnan(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (panoptic([[1, 2]], {1: 0}), "predicted map: segment 2 has pixels but is not listed"),
        (panoptic([[1, 1]], {1: 0, 4: 1}), "predicted map: segment 4 is listed but has no pixels"),
        (panoptic([[1, 1]], {1: 9}), "predicted map, segment 1: label 9, expected 0 to 3"),
        (panoptic([[0, 0]], {0: 1}), "segment id 0 is listed twice, or stands for void"),
        (panoptic([[1]], {1: 0}), r"the predicted map is \(1, 1\), the true one \(1, 2\)"),
        (
            Panoptic(torch.ones(1, 2, dtype=torch.int64), [Segment(1, 0, True)] * 2),
            "segment id 1 is listed twice",
        ),
    ],
)
def test_what_does_not_agree_is_named(found, words):
    with pytest.raises(ValueError, match=f"image 7.*{words}"):
        quality((found, panoptic([[1, 1]], {1: 0})))


def test_things_beyond_the_classes_are_named():
    with pytest.raises(ValueError, match=r"labels from 0 to 2, got \[3\]"):
        PanopticQuality(3, {0, 3})


# Against others


def by_loops(pairs):
    """The definition, one pair of segments at a time, on sets of pixels."""
    counts = np.zeros((K, 4))

    def sets(p):
        return {s: {tuple(x) for x in (p.segment_ids == s.id).nonzero().tolist()} for s in p.segments}

    for predicted, truth in pairs:
        mine, true = sets(predicted), sets(truth)
        void = {tuple(x) for x in (truth.segment_ids == 0).nonzero().tolist()}
        matched = set()
        for t, target in true.items():
            for p, found in mine.items():
                if t.label == p.label and len(target & found) / len(target | (found - void)) > 0.5:
                    counts[t.label, 0] += len(target & found) / len(target | (found - void))
                    counts[t.label, 1] += 1
                    matched |= {("true", t.id), ("mine", p.id)}
        for t in true:
            counts[t.label, 3] += ("true", t.id) not in matched
        for p, found in mine.items():
            counts[p.label, 2] += ("mine", p.id) not in matched and len(found & void) / len(found) <= 0.5
    return counts


@st.composite
def maps(draw, void=True):
    """Blocks of segments; stuff classes have one segment each."""
    count = draw(st.integers(1, 6))
    labels, taken = {}, set()
    for i in range(1, count + 1):
        label = draw(st.integers(0, K - 1))
        if label in THINGS or label not in taken:
            labels[i] = label
            taken.add(label)
    ids = draw(st.lists(st.sampled_from([*labels, *([0] if void else [])]), min_size=24, max_size=24))
    ids = torch.tensor(ids).reshape(4, 6).repeat_interleave(2, 0)
    present = set(ids.unique().tolist())
    return panoptic(ids.tolist(), {i: label for i, label in labels.items() if i in present})


@settings(deadline=None, max_examples=60)
@given(maps(), maps(), st.floats(0, 1))
def test_by_its_definition(predicted, truth, shared):
    ids = predicted.segment_ids.clone()  # two independent maps hardly overlap: take a part over
    rows = round(shared * len(ids))
    numbers = {0: 0} | {
        s.id: 100 + s.id
        for s in truth.segments
        if not (s.label not in THINGS and any(p.label == s.label for p in predicted.segments))
    }
    for row in range(rows):
        for column in range(ids.shape[1]):
            ids[row, column] = numbers.get(int(truth.segment_ids[row, column]), 0)
    present = set(ids.unique().tolist())
    segments = [*predicted.segments, *(s._replace(id=100 + s.id) for s in truth.segments)]
    mixed = Panoptic(ids, [s for s in segments if s.id in present])
    for pair in ((mixed, truth), (predicted, truth), (truth, mixed)):
        np.testing.assert_allclose(quality(pair).counts, by_loops([pair]))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(maps(void=False), maps()), min_size=1, max_size=3))
def test_torchmetrics_agrees_where_predictions_leave_no_pixel_void(pairs):
    """Elsewhere it is more lenient than the definition: it takes the void of predictions out of the union, too."""
    from torchmetrics.detection import PanopticQuality as Theirs

    theirs = Theirs(
        things=THINGS, stuffs=set(range(K)) - THINGS, allow_unknown_preds_category=True, return_sq_and_rq=True,
        return_per_class=True,
    )  # fmt: skip

    def coloured(p):
        label_of = {0: 99} | {s.id: s.label for s in p.segments}
        labels = torch.tensor([[label_of[int(i)] for i in row] for row in p.segment_ids])
        return torch.stack([labels, p.segment_ids], dim=-1)[None]

    half = [pair for predicted, truth in pairs for pair in ((predicted, truth), (filled(truth), truth))]
    for predicted, truth in half:
        theirs.update(coloured(predicted), coloured(truth))
    expected = theirs.compute().numpy()  # things in order, then stuff: the classes' own order here
    ours = quality(*half).by_class()
    np.testing.assert_allclose(np.nan_to_num(ours), expected.reshape(K, 3), atol=1e-6)


def filled(p):
    """The same map, its void given to a new thing: nothing is void, and much is right."""
    if not (p.segment_ids == 0).any():
        return p
    return Panoptic(torch.where(p.segment_ids == 0, 50, p.segment_ids), [*p.segments, Segment(50, 1, True)])
