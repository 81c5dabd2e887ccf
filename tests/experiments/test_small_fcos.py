"""The convolutional detector which the small DETR is compared with."""

import pytest
import torch

from minivis.data.scenes import Scenes
from minivis.evaluation.detection import detection_metrics, evaluate_detection, results_of
from minivis.experiments import d33
from minivis.experiments.small_detr import WORLD, build_small, train_small
from minivis.experiments.small_fcos import FCOSCriterion, assign, cell_centres, fcos_detections


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return d33.build_fcos().eval()


def test_it_has_a_box_for_every_cell_around_the_cells_centre(model):
    outputs = model(torch.randn(2, 3, 64, 72))
    assert outputs["logits"].shape == (2, 72, 3)
    assert outputs["boxes"].shape == (2, 72, 4) and outputs["centreness"].shape == (2, 72)
    points = outputs["points"]
    assert points[:2].tolist() == [[4, 4], [12, 4]] and points[-1].tolist() == [68, 60]
    assert (outputs["boxes"][..., :2] < points).all() and (points < outputs["boxes"][..., 2:]).all()
    assert outputs["logits"].sigmoid().mean() < 0.05, "it begins by seeing nothing"


def test_it_is_of_the_small_detrs_size(model):
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, build_small())]
    assert 0.9 < sizes[0] / sizes[1] < 1.1


def target(boxes, labels, side=32):
    return {
        "labels": torch.tensor(labels), "boxes": torch.tensor(boxes) / side, "original_size": (side, side),
    }  # fmt: skip


def test_cells_in_a_box_answer_for_it_and_the_smallest_comes_first():
    points = cell_centres(4, 4, 8, torch.device("cpu"))
    found = assign(points, target([[16.0, 16, 30, 30], [20, 12, 14, 12]], [2, 0]))
    labels = torch.where(found.has_object, found.label, -1).view(4, 4)
    assert labels.tolist() == [[2, 2, 2, 2], [2, 2, 0, 2], [2, 2, 2, 2], [2, 2, 2, 2]]
    at = 1 * 4 + 2  # the centre of this cell is exactly that of the smaller box
    assert found.centreness[at] == pytest.approx(1)
    assert found.box[at].tolist() == [13, 6, 27, 18]
    # cell (0, 0): 3 pixels from left and top, 27 from right and bottom
    assert found.centreness[0] == pytest.approx(3 / 27)
    alone = assign(points, target([[12.0, 12, 9, 9]], [1]))
    assert alone.has_object.nonzero().flatten().tolist() == [5]
    assert alone.centreness.isfinite().all()


def perfect(targets, points, classes=3):
    assigned = [assign(points, t) for t in targets]
    box = torch.stack([a.box for a in assigned])
    has_object = torch.stack([a.has_object for a in assigned])
    logits = torch.full((*has_object.shape, classes), -12.0)
    for i, a in enumerate(assigned):
        logits[i, a.has_object, a.label[a.has_object]] = 12.0
    centreness = torch.stack([a.centreness for a in assigned]).clamp(1e-4, 1 - 1e-4).logit()
    return {"logits": logits, "boxes": box, "centreness": centreness, "points": points}


def test_what_the_loss_asks_for_is_what_is_evaluated_as_right():
    data = Scenes("val", WORLD, size=40)
    targets = data.prepare(data.collate([data[i] for i in range(40)])).targets
    outputs = perfect(targets, cell_centres(8, 8, 8, torch.device("cpu")))
    losses = FCOSCriterion()(outputs, targets)
    assert losses["loss_ce"] < 1e-3 and losses["loss_giou"] < 1e-5
    found = fcos_detections(outputs)
    results = results_of(found, [t["image_id"] for t in targets], data.categories)
    assert detection_metrics(data.ground_truth(), results, data.categories)["AP"] > 0.98

    outputs["boxes"] = outputs["boxes"] + 20
    assert FCOSCriterion()(outputs, targets)["loss_giou"] > 0.5
    outputs["logits"] = -outputs["logits"]
    assert FCOSCriterion()(outputs, targets)["loss_ce"] > 1


def test_a_scene_without_cells_in_boxes_gives_finite_losses_and_gradients(model):
    outputs = model(torch.randn(1, 3, 64, 64))
    losses = FCOSCriterion()(outputs, [target([[8.0, 8, 4, 4]], [0], side=64)])
    loss = FCOSCriterion().weighted_sum(losses)
    loss.backward()
    assert losses["loss_giou"] == 0 and loss > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()


def test_of_boxes_that_overlap_the_surest_stays():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]])
    logits = torch.tensor([[[2.0, -9], [1, -9], [-9, 0]]])
    (found,) = fcos_detections({"logits": logits, "boxes": boxes, "centreness": torch.zeros(1, 3)}, 0.6)
    assert found["labels"][:2].tolist() == [0, 1]
    assert found["boxes"][:2].tolist() == [[0, 0, 10, 10], [20, 20, 30, 30]]
    assert found["scores"][0] == pytest.approx((torch.tensor(2.0).sigmoid() * 0.5).sqrt().item())
    assert not any(
        box == [0, 0, 10, 9] and s > 0.2 for box, s in zip(found["boxes"].tolist(), found["scores"])
    )
    (all_,) = fcos_detections(
        {"logits": logits, "boxes": boxes, "centreness": torch.zeros(1, 3)}, 1.0, most=4
    )
    assert len(all_["scores"]) == 4 and (all_["scores"].diff() <= 0).all()


def test_it_learns():
    _, history = train_small(FCOSCriterion(), steps=30, build=d33.build_fcos)
    assert sum(history["loss"][-5:]) < 0.8 * sum(history["loss"][:5])
    assert len(history["loss_giou"]) == 30 and history["loss_bbox"] == []


def test_both_detectors_are_evaluated_alike(model):
    data = Scenes("val", WORLD, size=6)
    torch.manual_seed(0)
    for detector in (model, build_small().eval()):
        some, all_ = (d33.average_precision_of(detector, data, batch_size=n) for n in (4, 6))
        assert some.pop("by_class") == pytest.approx(all_.pop("by_class"))
        assert some == pytest.approx(all_, nan_ok=True)
    expected = evaluate_detection(detector, data, progress=False)
    assert (some["AP"], some["AP50"]) == pytest.approx((expected["AP"], expected["AP50"]))
