"""Merging masks to a panoptic result: who wins a pixel, what stuff is merged, which specks go."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.detr.merge import VOID, Segment, merge_masks

THINGS = {0, 1}  # labels 2 and 3 are stuff


def strips(*rows):
    """Masks of one row: for each query its logits from left to right."""
    return torch.tensor([[row] for row in rows])


def merge(masks, labels, scores=None, **options):
    scores = torch.linspace(0.9, 0.99, len(labels)) if scores is None else torch.tensor(scores)
    return merge_masks(masks, torch.tensor(labels, dtype=torch.int64), scores, THINGS, **options)


def rectangle(height, width, top, left, bottom, right, inside=5.0, outside=-5.0):
    mask = torch.full((height, width), outside)
    mask[top:bottom, left:right] = inside
    return mask


def test_every_pixel_goes_to_the_surest_mask():
    masks = torch.stack([rectangle(6, 8, 0, 0, 6, 5, 3.0), rectangle(6, 8, 0, 3, 6, 8, 4.0)])
    ids, segments = merge(masks, [0, 0], [0.9, 0.95])
    assert ids.tolist() == [[1, 1, 1, 2, 2, 2, 2, 2]] * 6
    assert segments == [
        Segment(1, 0, True, pytest.approx(0.9), (0,)),
        Segment(2, 0, True, pytest.approx(0.95), (1,)),
    ]


def test_stuff_of_one_class_is_merged_and_things_are_not():
    masks = torch.stack([rectangle(4, 9, 0, 3 * i, 4, 3 * i + 3) for i in range(3)])
    ids, segments = merge(masks, [2, 0, 2], [0.9, 0.95, 0.92], queries=[7, 11, 20])
    assert ids[0].tolist() == [1, 1, 1, 2, 2, 2, 1, 1, 1]
    assert segments == [
        Segment(1, 2, False, pytest.approx(0.92), (7, 20)),
        Segment(2, 0, True, pytest.approx(0.95), (11,)),
    ]
    ids, segments = merge(masks, [0, 1, 0])
    assert ids[0].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3] and len(segments) == 3


def test_a_mask_that_wins_no_pixel_is_not_listed():
    masks = torch.stack([rectangle(4, 4, 0, 0, 4, 4, 5.0), rectangle(4, 4, 1, 1, 3, 3, 4.0)])
    for labels in ([0, 1], [2, 2]):
        ids, segments = merge(masks, labels)
        assert (ids == 1).all() and [s.queries for s in segments] == [(0,)]


@pytest.mark.parametrize(("pixels", "kept"), [(3, False), (4, False), (5, True)])
def test_segments_of_at_most_4_pixels_go_and_their_pixels_are_decided_again(pixels, kept):
    wide = rectangle(2, 10, 0, 0, 2, 10, 1.0)
    second = rectangle(2, 10, 0, 0, 2, 10, 0.5)
    small = torch.full((2, 10), -5.0)
    small[0, :pixels] = 3.0
    ids, segments = merge(torch.stack([wide, second, small]), [0, 0, 1])
    assert [s.queries for s in segments] == ([(0,), (2,)] if kept else [(0,)])
    assert (ids == 1).sum() == (20 - pixels if kept else 20)


def test_specks_are_all_removed_at_once():
    """As in the paper's code: also one that would have been larger, had another speck not lain on it."""
    a = torch.tensor([[9.0] * 3 + [-9.0] * 9])
    b = torch.tensor([[5.0] * 6 + [-9.0] * 6])  # wins 3 of its 6 pixels
    c = torch.zeros(1, 12)
    ids, segments = merge(torch.stack([a, b, c]), [0, 0, 0])
    assert (ids == 1).all() and [s.queries for s in segments] == [(2,)]
    ids, segments = merge(torch.stack([b, c]), [0, 0])
    assert ids[0].tolist() == [1] * 6 + [2] * 6


def by_the_papers_code(masks, labels, speck):
    """Its rule in short: which query has each pixel. Stuff is merged at the first decision only."""
    left = list(range(len(masks)))
    winner = masks.argmax(0)
    for i, label in enumerate(labels):
        if label not in THINGS:
            winner[winner == i] = labels.index(label)
    while small := [i for i in left if (winner == i).sum() <= speck]:
        left = [i for i in left if i not in small]
        winner = torch.tensor(left)[masks[left].argmax(0)]
    return winner


def test_the_merge_of_stuff_holds_when_pixels_are_decided_again():
    """Two masks of the sky, a thing at the right that would also take the second one's place, and a speck."""
    sky_left = [5.0] * 6 + [-5.0] * 9
    sky_right = [-5.0] * 6 + [5.0] * 6 + [-5.0] * 3
    thing = [-4.0] * 6 + [4.0] * 6 + [6.0] * 3
    speck = [9.0] * 2 + [-9.0] * 13
    masks, labels = strips(sky_left, sky_right, thing, speck), [2, 2, 0, 1]
    ids, segments = merge(masks, labels, speck=2)
    assert ids[0].tolist() == [1] * 12 + [2] * 3
    assert [(s.label, s.queries) for s in segments] == [(2, (0, 1)), (0, (2,))]
    assert by_the_papers_code(masks, labels, speck=2)[0].tolist() == [0] * 6 + [2] * 9, (
        "half of the sky is lost"
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 8))
def test_without_stuff_it_is_the_papers_rule(seed, count, speck):
    masks = torch.randn(count, 5, 7, generator=torch.Generator().manual_seed(seed))
    ids, segments = merge(masks, [0] * count, speck=speck)
    if segments:
        query = torch.tensor([-1] + [s.queries[0] for s in segments])
        assert torch.equal(query[ids], by_the_papers_code(masks, [0] * count, speck))
    else:
        assert all((masks.argmax(0) == i).sum() <= speck for i in range(count))


def test_stuff_counts_as_large_as_all_its_masks_together():
    """Three pixels each: specks by themselves, a segment together."""
    masks = torch.stack(
        [rectangle(1, 12, 0, 0, 1, 3), rectangle(1, 12, 0, 3, 1, 6), rectangle(1, 12, 0, 6, 1, 12)]
    )
    ids, segments = merge(masks, [3, 3, 0])
    assert ids[0].tolist() == [1] * 6 + [2] * 6 and segments[0].queries == (0, 1)
    ids, segments = merge(masks, [3, 2, 0])  # of different classes: both go
    assert (ids == 1).all() and segments[0].queries == (2,)


@pytest.mark.parametrize(
    ("overlap", "kept"), [(0.0, True), (0.3, True), (0.4, True), (0.41, False), (1.0, False)]
)
def test_a_segment_that_wins_too_little_of_its_own_mask_goes(overlap, kept):
    """The second mask says ten pixels are its own, and wins four of them."""
    first, second = [5.0] * 6 + [-1.0] * 6, [2.0] * 10 + [-5.0] * 2
    ids, segments = merge(strips(first, second), [0, 0], speck=0, overlap=overlap)
    assert [s.queries for s in segments] == ([(0,), (1,)] if kept else [(0,)])
    assert ids[0].tolist() == ([1] * 6 + [2] * 4 + [1] * 2 if kept else [1] * 12), (
        "decided again among the rest"
    )


def test_for_the_overlap_only_pixels_count_that_a_mask_says_are_its_own():
    """The first wins all there is, with a logit of −1 in the last two places: that is not more than one."""
    ids, segments = merge(strips([5.0] * 2 + [-1.0] * 2), [0], speck=0, overlap=1.0)
    assert (ids == 1).all() and len(segments) == 1
    ids, segments = merge(strips([-1.0] * 4), [0], speck=0, overlap=1.0)
    assert (ids == 1).all(), "nothing is its own, so that nothing of it is lost"


def test_masks_of_one_stuff_class_do_not_take_their_own_from_each_other():
    masks = strips([5.0] * 8 + [-5.0] * 4, [4.0] * 8 + [-5.0] * 4, [-5.0] * 8 + [1.0] * 4)
    ids, segments = merge(masks, [2, 2, 0], speck=0, overlap=1.0)
    assert [s.queries for s in segments] == [(0,), (2,)] and ids[0].tolist() == [1] * 8 + [2] * 4
    ids, segments = merge(masks, [2, 3, 0], speck=0, overlap=1.0)
    assert [s.queries for s in segments] == [(0,), (2,)]
    masks = strips(
        [5.0] * 4 + [-5.0] * 8, [-5.0] * 4 + [3.0] * 4 + [2.0] * 4, [-5.0] * 4 + [4.0] * 4 + [-5.0] * 4
    )
    ids, segments = merge(masks, [2, 2, 0], speck=0, overlap=0.6)
    assert [s.queries for s in segments] == [(0, 1), (2,)], (
        "together they win eight of twelve; the second alone four of eight"
    )
    ids, segments = merge(masks, [2, 3, 0], speck=0, overlap=0.6)
    assert [s.queries for s in segments] == [(0,), (2,)]


def test_without_masks_or_with_specks_only_all_is_void():
    for masks, labels in (
        (torch.zeros(0, 3, 4), []),
        (torch.zeros(1, 2, 2), [0]),
        (torch.zeros(2, 2, 2), [2, 2]),
    ):
        ids, segments = merge(masks, labels)
        assert (ids == VOID).all() and ids.shape == masks.shape[1:] and segments == []
    ids, segments = merge(torch.zeros(1, 2, 2), [0], speck=0)
    assert (ids == 1).all() and len(segments) == 1


@st.composite
def problems(draw):
    count = draw(st.integers(0, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    masks = torch.randn(count, 5, 7, generator=generator)
    coarse = torch.nn.functional.interpolate(torch.randn(count, 1, 2, 3, generator=generator), (5, 7))[:, 0]
    return masks + 3 * coarse, draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))


@settings(deadline=None, max_examples=60)
@given(problems(), st.integers(0, 8))
def test_what_holds_for_every_result(problem, speck):
    masks, labels = problem
    ids, segments = merge(masks, labels, speck=speck)
    assert [s.id for s in segments] == list(range(1, len(segments) + 1))
    assert set(ids.unique().tolist()) == ({s.id for s in segments} or {VOID})
    stuff = [s.label for s in segments if not s.is_thing]
    assert len(stuff) == len(set(stuff)), "one segment for each stuff class"
    assert all(len(s.queries) == 1 for s in segments if s.is_thing)
    used = [q for s in segments for q in s.queries]
    assert len(used) == len(set(used))
    for segment in segments:
        assert (ids == segment.id).sum() > speck
        assert {labels[q] for q in segment.queries} == {segment.label}
        assert segment.is_thing == (segment.label in THINGS)
    if segments:  # every pixel belongs to the surest of the masks that are left
        best = masks[used].argmax(0)
        owner = torch.tensor([s.id for s in segments for _ in s.queries])
        assert torch.equal(owner[best], ids)


@settings(deadline=None, max_examples=60)
@given(problems(), st.integers(0, 4), st.floats(0, 1))
def test_the_overlap_by_loops(problem, speck, overlap):
    masks, labels = problem
    _, segments = merge(masks, labels, speck=speck, overlap=overlap)
    groups = {(q if label in THINGS else f"stuff {label}"): [] for q, label in enumerate(labels)}
    for q, label in enumerate(labels):
        groups[q if label in THINGS else f"stuff {label}"].append(q)
    stay = set()
    for queries in groups.values():
        area = own = won = 0
        for y in range(masks.shape[1]):
            for x in range(masks.shape[2]):
                logits = masks[:, y, x].tolist()
                wins = logits.index(max(logits)) in queries
                claims = any(logits[q] > 0 for q in queries)
                area, own, won = area + wins, own + claims, won + (wins and claims)
        if area > speck and (won >= overlap * own):
            stay.update(queries)
    if not stay:
        assert segments == []
        return
    left = sorted(stay)
    winners = torch.tensor(left)[masks[left].argmax(0)].unique().tolist()
    assert sorted(q for s in segments for q in s.queries) == winners


@settings(deadline=None, max_examples=60)
@given(problems())
def test_the_order_of_the_queries_does_not_matter(problem):
    masks, labels = problem
    ids, segments = merge(masks, labels)
    backwards_ids, backwards = merge(masks.flip(0), labels[::-1])

    def described(ids, segments, queries):
        return {
            (s.label, frozenset(queries[q] for q in s.queries), (ids == s.id).sum().item()) for s in segments
        }

    n = len(labels)
    assert described(ids, segments, range(n)) == described(backwards_ids, backwards, range(n - 1, -1, -1))
