"""From outputs to detections: the best class of every query, the surest first, boxes in pixels of each image."""

import pytest
import torch
from detr_problems import random_outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from minivis.detr import postprocess


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=3),
)
def test_against_plain_loops(seed, sizes):
    outputs = random_outputs(batch=len(sizes), queries=6, seed=seed)
    results = postprocess(outputs, sizes)
    assert len(results) == len(sizes)
    for i, ((height, width), result) in enumerate(zip(sizes, results, strict=True)):
        expected = []
        for q in range(6):
            probability = outputs["pred_logits"][i, q].softmax(0).tolist()[:-1]
            cx, cy, w, h = outputs["pred_boxes"][i, q].tolist()
            box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
            pixels = [v * s for v, s in zip(box, (width, height) * 2, strict=True)]
            expected.append((max(probability), probability.index(max(probability)), pixels))
        expected.sort(key=lambda detection: -detection[0])
        assert result["scores"].tolist() == pytest.approx([score for score, _, _ in expected], abs=1e-5)
        assert result["labels"].tolist() == [label for _, label, _ in expected]
        for box, (_, _, by_hand) in zip(result["boxes"].tolist(), expected, strict=True):
            assert box == pytest.approx(by_hand, abs=1e-3)


def test_no_object_is_never_the_answer_and_nothing_is_left_out():
    logits = torch.full((1, 7, 4), -5.0)
    logits[..., 3] = 10  # all queries say "no object"
    logits[0, :, 1] = torch.arange(7).float()
    (result,) = postprocess({"pred_logits": logits, "pred_boxes": torch.full((1, 7, 4), 0.5)}, [(10, 20)])
    assert result["labels"].tolist() == [1] * 7
    assert len(result["scores"]) == 7
    assert result["scores"].max() < 0.1
    assert (result["scores"].diff() <= 0).all()
    assert result["boxes"][0].tolist() == [5, 2.5, 15, 7.5]
    assert result["queries"].tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_a_whole_number_tensor_of_sizes_is_the_same_as_a_list():
    outputs = random_outputs(batch=2)
    sizes = [(480, 640), (100, 50)]
    for a, b in zip(postprocess(outputs, sizes), postprocess(outputs, torch.tensor(sizes)), strict=True):
        assert a.keys() == b.keys() == {"scores", "labels", "boxes", "queries"}
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_equal_scores_keep_the_order_of_queries():
    boxes = torch.tensor([[[0.1, 0.5, 0.1, 0.1], [0.2, 0.5, 0.1, 0.1], [0.3, 0.5, 0.1, 0.1]]])
    (result,) = postprocess({"pred_logits": torch.zeros(1, 3, 3), "pred_boxes": boxes}, [(100, 100)])
    assert result["boxes"][:, 0].tolist() == pytest.approx([5, 15, 25])


def test_half_precision_and_gradients_do_not_reach_the_results():
    outputs = random_outputs(requires_grad=True)
    low = {key: outputs[key].bfloat16() for key in ("pred_logits", "pred_boxes")}
    for result in postprocess(low, [(10, 10), (20, 20)]):
        assert result["scores"].dtype == result["boxes"].dtype == torch.float32
        assert result["labels"].dtype == torch.int64
        assert not any(value.requires_grad for value in result.values())


def test_a_size_for_every_image_is_asked_for():
    outputs = {"pred_logits": torch.zeros(2, 3, 5), "pred_boxes": torch.full((2, 3, 4), 0.5)}
    with pytest.raises(ValueError, match=r"of 2 images, got sizes of shape \(1, 2\)"):
        postprocess(outputs, [(10, 20)])
