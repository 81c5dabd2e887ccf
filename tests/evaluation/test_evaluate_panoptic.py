"""A panoptic model on a data set: the truth itself is perfect, what is half right is by hand, batches do not matter."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask
from torch import nn

from minivis.data.items import BadItem, BadItemError, BadItems, Categories, DetectionBatch
from minivis.data.panoptic import PanopticDataset
from minivis.data.scenes import Scenes
from minivis.detr import DETRsegm, Panoptic, PanopticConfig, Segment, build_panoptic, segments
from minivis.detr.panoptic import MaskInputs
from minivis.evaluation import PanopticQuality, segmentation
from minivis.evaluation.segmentation import annotations_of, evaluate_panoptic, instance_results, run_lengths
from minivis.images import ImageTransform, as_image_batch
from minivis.pretrained.checkpoint import json_safe

# label 1 is a hole
CATEGORIES = Categories(
    ("dog", "N/A", "cat", "grass", "sky"), (1, None, 3, 8, 9), (True, True, True, False, False)
)
DOG, HOLE, CAT, GRASS, SKY = range(5)


def a_map(rows, labels, crowds=()):
    """A map of ids, each cell 4 x 4 pixels, and for each id its label."""
    ids = torch.tensor(rows).repeat_interleave(4, 0).repeat_interleave(4, 1)
    return Panoptic(
        ids, [Segment(i, c, c in CATEGORIES.things, is_crowd=i in crowds) for i, c in labels.items()]
    )


class Maps:
    """A `PanopticDataset` of a few maps; picture i is all of brightness i."""

    categories = CATEGORIES
    image_transform = ImageTransform()

    def __init__(self, *maps: Panoptic, bad: int | None = None) -> None:
        self.maps, self.bad = maps, bad

    def __len__(self):
        return len(self.maps)

    def __getitem__(self, key):
        return key if isinstance(key, int) else key[0]

    def collate(self, items):
        return items

    def prepare(self, batch, device="cpu"):
        good = [i for i in batch if i != self.bad]
        images = as_image_batch([torch.full((3, *self.maps[i].segment_ids.shape), float(i)) for i in good])
        targets = [{"image_id": 100 + i} for i in good]
        return DetectionBatch(
            images, targets, [BadItem(f"{i}.png", "no map") for i in batch if i == self.bad]
        )

    def truth(self, target):
        return self.maps[target["image_id"] - 100]

    def ground_truth(self):
        sizes = [panoptic.segment_ids.shape for panoptic in self.maps]
        return {"images": [{"id": 100 + i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)]}


class Oracle(DETRsegm):
    """Knows a picture by its brightness and gives the segments of its map; it has no layers."""

    def __init__(self, *maps: Panoptic) -> None:
        nn.Module.__init__(self)
        self.freeze_detr, self.num_classes = False, len(CATEGORIES)
        self.score_threshold = 0.85
        self.anything = nn.Parameter(torch.zeros(1))
        self.maps = maps

    def detect(self, images):
        most = max(len(panoptic.segments) for panoptic in self.maps) + 1
        numbers = images.pixels[:, 0, 0, 0].round().long()
        logits, boxes = (
            torch.zeros(len(numbers), most, self.num_classes + 1),
            torch.rand(len(numbers), most, 4),
        )
        logits[..., -1] = 20.0
        for i, number in enumerate(numbers.tolist()):
            ids, listed = self.maps[number]
            for query, segment in enumerate(listed):
                logits[i, query, -1] = 0.0
                logits[i, query, segment.label] = 20.0 * segment.score
                ys, xs = (ids == segment.id).nonzero(as_tuple=True)
                top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
                centre = torch.stack([left + right, top + bottom, 2 * (right - left), 2 * (bottom - top)]) / 2
                height, width = ids.shape
                boxes[i, query] = centre / torch.tensor([width, height, width, height])
        nothing = torch.zeros(len(numbers), most, 1, 1, 1)
        return {"pred_logits": logits, "pred_boxes": boxes}, MaskInputs(
            numbers[:, None, None, None].float(), nothing, []
        )

    def masks_of(self, inputs, image, query):
        ids, listed = self.maps[int(inputs.x[0, 0, 0, 0])]
        height, width = ids.shape
        found = torch.full((len(query), height, width), -9.0)  # of all pixels: as sharp as can be
        for place, q in enumerate(query.tolist()):
            if q < len(listed):
                found[place][ids == listed[q].id] = 9.0
        return found


PLAIN = a_map([[1, 1, 2, 2], [1, 1, 3, 3], [4, 4, 3, 3]], {1: DOG, 2: CAT, 3: SKY, 4: GRASS})
WIDE = a_map([[1, 2, 2, 3, 3, 3], [1, 2, 2, 3, 4, 4]], {1: DOG, 2: DOG, 3: GRASS, 4: CAT})
VOID = a_map([[0, 0, 5, 5], [6, 6, 5, 5], [6, 6, 0, 0]], {5: CAT, 6: SKY})


def test_the_truth_itself_is_perfect():
    dataset = Maps(PLAIN, WIDE, PLAIN)
    assert isinstance(dataset, PanopticDataset)
    metrics = evaluate_panoptic(Oracle(*dataset.maps), dataset, progress=False)
    for name in (
        "PQ",
        "SQ",
        "RQ",
        "PQ_things",
        "SQ_stuff",
        "AP",
        "mask_AP",
        "mask_AP75",
        "AR_100",
        "mask_AR_100",
    ):
        assert metrics[name] == pytest.approx(1), name
    assert metrics["PQ_by_class"] == pytest.approx({"dog": 1, "cat": 1, "grass": 1, "sky": 1})
    assert metrics["AP_by_class"] == pytest.approx({"dog": 1, "cat": 1})
    assert metrics["images"] == 3 and metrics["seconds"] > 0
    assert evaluate_panoptic(Oracle(*dataset.maps), dataset, max_images=2, progress=False)["images"] == 2


def test_half_right_by_hand():
    """A dog of 4 cells is found with 3 of them (IoU 3/4); the cat is called a dog; the sky has 5 cells for 4."""
    found = a_map([[1, 1, 2, 2], [1, 3, 3, 3], [4, 4, 3, 3]], {1: DOG, 2: DOG, 3: SKY, 4: GRASS})
    metrics = evaluate_panoptic(Oracle(found), Maps(PLAIN), progress=False)
    assert metrics["PQ_by_class"] == pytest.approx({"dog": 0.75 / 1.5, "cat": 0, "grass": 1, "sky": 4 / 5})
    assert metrics["PQ"] == pytest.approx((0.5 + 0 + 1 + 0.8) / 4)
    assert metrics["PQ_things"] == pytest.approx(0.25) and metrics["PQ_stuff"] == pytest.approx(0.9)
    # Six of the ten thresholds, 0.50 to 0.75, lie at or below 3/4. Both dogs have one score: 1 or 1/2 precise.
    assert metrics["mask_AR_100"] == pytest.approx(0.6 / 2)
    assert metrics["mask_AP"] in (pytest.approx(0.6 / 2), pytest.approx(0.6 / 4))
    assert metrics["AP_by_class"]["cat"] == 0


def test_void_and_crowds_are_not_held_against_a_model():
    crowd = a_map([[0, 0, 5, 5], [7, 7, 5, 5], [7, 7, 6, 6]], {5: CAT, 6: SKY, 7: DOG}, crowds=(7,))
    found = a_map([[8, 8, 5, 5], [7, 9, 5, 5], [7, 9, 6, 6]], {5: CAT, 6: SKY, 7: DOG, 8: DOG, 9: DOG})
    metrics = evaluate_panoptic(Oracle(found), Maps(crowd), progress=False)
    assert metrics["PQ"] == 1, "on void and in the crowd nothing is wrong"
    assert math.isnan(metrics["PQ_by_class"]["dog"]) and metrics["mask_AP"] == pytest.approx(1)
    assert metrics["AP_by_class"]["cat"] == pytest.approx(1)
    wrong = a_map([[0, 0, 5, 5], [6, 6, 5, 5], [6, 6, 6, 6]], {5: CAT, 6: SKY})
    assert evaluate_panoptic(Oracle(wrong), Maps(VOID), progress=False)["PQ"] == 1


def test_a_label_without_a_category_makes_no_segment():
    """The grass is called what is nothing: its pixels go to the first, the dog, and it is missed."""
    found = a_map([[1, 1, 2, 2], [1, 1, 3, 3], [4, 4, 3, 3]], {1: DOG, 2: CAT, 3: SKY, 4: HOLE})
    metrics = evaluate_panoptic(Oracle(found), Maps(PLAIN), progress=False)
    assert metrics["PQ_by_class"] == pytest.approx({"dog": 4 / 6, "cat": 1, "grass": 0, "sky": 1})
    assert metrics["PQ"] == pytest.approx((4 / 6 + 1 + 0 + 1) / 4)


def tiny(num_classes):
    torch.manual_seed(0)
    config = PanopticConfig(
        num_classes=num_classes, num_queries=6, backbone="small", backbone_norm="group",
        backbone_channels=(8, 8, 16, 16), d_model=64, num_heads=8, encoder_layers=1, decoder_layers=1,
        dim_feedforward=32,
    )  # fmt: skip
    model = build_panoptic(config)
    nn.init.normal_(model.detr.class_embed.weight, std=1.0)
    return model


def what_is_measured(model, dataset, monkeypatch, **options):
    """By image: the panoptic map's ids, and of each instance its numbers and its mask."""
    maps, instances = {}, {}

    def keep(joined, categories):
        for entry in joined["results"]:
            numbers = [entry["category_id"], *entry["bbox"], 100 * entry["score"]]
            mask = torch.from_numpy(coco_mask.decode(entry["segmentation"])).bool()
            instances.setdefault(entry["image_id"], []).append((torch.tensor(numbers), mask))
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(segmentation, "average_precision", keep)
        patch.setattr(
            PanopticQuality, "add", lambda self, found, truth, image: maps.update({image: found.segment_ids})
        )
        evaluate_panoptic(model, dataset, progress=False, threshold=0.0, **options)
    return maps, instances


def test_neither_batch_size_nor_pieces_matter(monkeypatch):
    dataset = Scenes("val", size=5, stuff=True)
    model = tiny(len(dataset.categories))
    maps, instances = what_is_measured(model, dataset, monkeypatch, batch_size=1)
    assert sorted(maps) == [0, 1, 2, 3, 4] and sum(map(len, instances.values())) >= 5
    assert any(len(ids.unique()) > 1 for ids in maps.values())
    for batch_size, at_once in ((2, segments.AT_ONCE), (5, 4 * 128 * 128)):
        monkeypatch.setattr(segments, "AT_ONCE", at_once)
        other_maps, others = what_is_measured(model, dataset, monkeypatch, batch_size=batch_size)
        assert sorted(other_maps) == sorted(maps) and others.keys() == instances.keys()
        for image, ids in maps.items():
            assert (other_maps[image] == ids).float().mean() > 0.98  # its masks are much alike: ties, nearly
            for (own, mask), (other, other_mask) in zip(instances[image], others[image], strict=True):
                torch.testing.assert_close(other, own, atol=1e-3, rtol=0)
                assert (mask == other_mask).float().mean() > 0.995
    assert model.training, "every module gets its mode back"


def test_a_model_with_other_classes_is_refused():
    dataset, model = Maps(PLAIN), Oracle(PLAIN)
    names, ids, things = CATEGORIES.names, CATEGORIES.ids, CATEGORIES.is_thing
    others = {
        "category 1 is 'wolf' for the model and 'dog' in the data set": (("wolf", *names[1:]), ids, things),
        "label 1 is category 7 'owl', a thing, for the model and no category in": (
            ("dog", "owl", *names[2:]), (1, 7, *ids[2:]), things
        ),
        "label 3 is category 8 'grass', a thing, for the model and category 8 'grass', stuff, in": (
            names, ids, (True,) * 5
        ),
        "label 4 is no category for the model and category 9 'sky', stuff, in": (names[:4], ids[:4], things[:4]),
    }  # fmt: skip
    for message, categories in others.items():
        model.categories = Categories(*categories)
        with pytest.raises(ValueError, match=message):
            evaluate_panoptic(model, dataset, progress=False)
    model.categories = Categories(names, ids)  # says nothing of things and stuff
    assert evaluate_panoptic(model, dataset, progress=False)["PQ"] == 1


def test_bad_items_are_reported_and_left_out():
    dataset = Maps(PLAIN, WIDE, PLAIN, bad=1)
    bad_items = BadItems("skip")
    metrics = evaluate_panoptic(Oracle(*dataset.maps), dataset, bad_items=bad_items, progress=False)
    assert metrics["PQ"] == 1 and metrics["mask_AR_100"] == pytest.approx(1) and metrics["images"] == 2
    assert bad_items.count == 1 and "1.png" in bad_items.summary()
    with pytest.raises(BadItemError, match=r"1\.png"):
        evaluate_panoptic(Oracle(*dataset.maps), dataset, bad_items=BadItems("stop"), progress=False)


def test_annotations_and_run_lengths():
    annotations = annotations_of(WIDE, 7, CATEGORIES)
    assert [a["category_id"] for a in annotations] == [1, 1, 3]
    assert [a["bbox"] for a in annotations] == [[0, 0, 4, 8], [4, 0, 8, 8], [16, 4, 8, 4]]
    assert [a["area"] for a in annotations] == [32, 64, 32]
    assert json.loads(json.dumps(annotations)) == annotations
    mask = np.random.default_rng(0).random((7, 9)) > 0.5
    assert np.array_equal(coco_mask.decode(run_lengths(mask)), mask)


def test_masks_of_results_may_be_enlarged():
    found = {"scores": torch.tensor([0.9, 0.8, 0.7]), "labels": torch.tensor([CAT, SKY, DOG])}
    found |= {"boxes": torch.tensor([[0.0, 0, 6, 4]] * 3), "masks": torch.rand(3, 3, 2) > 0.5}
    cat, dog = instance_results(found, 5, CATEGORIES, (6, 6))
    assert (cat["category_id"], dog["category_id"], cat["image_id"], cat["bbox"]) == (3, 1, 5, [0, 0, 6, 4])
    for entry, mask in ((cat, found["masks"][0]), (dog, found["masks"][2])):
        plain = mask.repeat_interleave(2, 0).repeat_interleave(3, 1).numpy()
        assert np.array_equal(coco_mask.decode(entry["segmentation"]), plain)


def some_maps():
    """Found ones are the true ones moved a little: right, half right and wrong."""
    generator = torch.Generator().manual_seed(0)
    true, found = [], []
    for _ in range(5):
        ids = torch.randint(0, 5, (3, 5), generator=generator)
        labels = {i: [DOG, CAT, GRASS, SKY][i - 1] for i in ids.unique().tolist() if i}
        panoptic = a_map(ids.tolist(), labels)
        moved = panoptic.segment_ids.roll(1, dims=1)
        listed = [s._replace(score=0.7 + 0.05 * n) for n, s in enumerate(panoptic.segments)]
        true.append(panoptic)
        found.append(Panoptic(moved, listed))
    return true, found


def test_mask_ap_agrees_with_torchmetrics():
    reference = pytest.importorskip("torchmetrics.detection").MeanAveragePrecision(
        iou_type="segm",
        backend="faster_coco_eval",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    true, found = some_maps()
    ours = evaluate_panoptic(Oracle(*found), Maps(*true), progress=False)
    for panoptic, mine in zip(true, found, strict=True):
        things = [s for s in panoptic.segments if s.is_thing]
        labels = torch.tensor([s.label for s in things], dtype=torch.int64)
        masks = [torch.stack([p.segment_ids == s.id for s in things]) for p in (mine, panoptic) if things]
        if not things:
            masks = [torch.zeros(0, *panoptic.segment_ids.shape, dtype=torch.bool)] * 2
        scores = torch.tensor([s.score for s in mine.segments if s.is_thing])
        reference.update(
            [{"masks": masks[0], "labels": labels, "scores": scores}], [{"masks": masks[1], "labels": labels}]
        )
    expected = reference.compute()
    assert 0.2 < ours["mask_AP"] < 0.95
    for name, theirs in {
        "mask_AP": "map",
        "mask_AP50": "map_50",
        "mask_AP75": "map_75",
        "mask_AR_100": "mar_100",
    }.items():
        assert ours[name] == pytest.approx(expected[theirs].item(), abs=1e-6), name


def evaluate_share(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    true, found = some_maps()
    metrics = evaluate_panoptic(Oracle(*found), Maps(*true, bad=0), batch_size=2, progress=False)
    (folder / f"metrics{rank}.json").write_text(json.dumps(json_safe(metrics)))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_the_shares_of_two_processes_add_up(tmp_path):
    true, found = some_maps()
    alone = json_safe(evaluate_panoptic(Oracle(*found), Maps(*true, bad=0), progress=False))
    assert 0.2 < alone["PQ"] < 0.95 and alone["images"] == 4
    torch.multiprocessing.spawn(evaluate_share, (tmp_path,), nprocs=2)
    for rank in range(2):
        metrics = json.loads((tmp_path / f"metrics{rank}.json").read_text())
        assert metrics.keys() == alone.keys()
        for name in alone.keys() - {"seconds"}:
            assert metrics[name] == pytest.approx(alone[name]), name
