"""A model on a data set: nothing but the model and the pictures decides the result."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from minivis.boxes import xyxy_to_cxcywh
from minivis.data.coco import CocoDetection
from minivis.data.items import BadItemError, BadItems, Categories
from minivis.data.scenes import Scenes
from minivis.detr import DETRConfig, build_detr
from minivis.evaluation import batches, detection, evaluate_detection
from minivis.images import ImageTransform
from minivis.pretrained.checkpoint import json_safe

SIZES = [(40, 64), (64, 40), (40, 64), (50, 50), (64, 64), (33, 47)]  # (height, width)
PLAIN = ImageTransform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey pictures, each of its own brightness, with two objects each, of the categories 3 and 7."""
    images, annotations = [], []
    (tmp_path / "val").mkdir()
    for i, (height, width) in enumerate(SIZES):
        name = f"{i}.png"
        Image.new("L", (width, height), 20 * (i + 1)).save(tmp_path / "val" / name)
        images.append({"id": 100 + i, "file_name": name, "height": height, "width": width})
        for j, category_id in enumerate([3, 7]):
            box = {"bbox": [2 + i, 3 + 10 * j, 10 + i, 12], "area": 12 * (10 + i), "iscrowd": 0}
            annotations.append({"id": 10 * i + j + 1, "image_id": 100 + i, "category_id": category_id, **box})
    categories = [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "val" / "annotations.json").write_text(json.dumps(coco))
    return tmp_path


class Oracle(nn.Module):
    """Knows a picture by its brightness, and puts out its objects, moved right by `shift` of its width."""

    def __init__(self, dataset: CocoDetection, shift: float = 0.0) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))
        self.targets = []
        truth = dataset.ground_truth()
        for image in truth["images"]:
            boxes = [a["bbox"] for a in truth["annotations"] if a["image_id"] == image["id"]]
            labels = [a["category_id"] for a in truth["annotations"] if a["image_id"] == image["id"]]
            corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes])
            size = torch.tensor([image["width"], image["height"]] * 2)
            moved = xyxy_to_cxcywh(corners / size) + torch.tensor([shift, 0, 0, 0])
            self.targets.append((torch.tensor([dataset.categories.label_of(i) for i in labels]), moved))
        self.num_classes = len(dataset.categories)

    def forward(self, images: torch.Tensor) -> dict:
        numbers = (images.mean((1, 2, 3)) * 255 / 20).round().long() - 1
        labels = torch.stack([self.targets[i][0] for i in numbers.tolist()])
        logits = 8 * nn.functional.one_hot(labels, self.num_classes + 1).float()
        return {
            "pred_logits": logits,
            "pred_boxes": torch.stack([self.targets[i][1] for i in numbers.tolist()]),
        }


def tiny_detr(num_classes: int) -> nn.Module:
    torch.manual_seed(0)
    config = DETRConfig(
        num_classes=num_classes,
        num_queries=6,
        backbone="small",
        backbone_norm="group",
        backbone_channels=(8, 8, 16, 16),
        d_model=32,
        num_heads=4,
        encoder_layers=1,
        decoder_layers=1,
        dim_feedforward=32,
    )
    return build_detr(config)


@pytest.mark.parametrize("categories", ["dense", "coco"])
@pytest.mark.parametrize("transform", [PLAIN, ImageTransform(PLAIN.mean, PLAIN.std, shortest_edge=70)])
def test_an_oracle_has_ap_one(folder, categories, transform):
    dataset = CocoDetection(folder, "val", categories, transform=transform)
    metrics = evaluate_detection(Oracle(dataset), dataset, batch_size=4, progress=False)
    assert metrics["AP"] == 1 and metrics["by_class"] == {"dog": 1, "cat": 1}
    assert metrics["images"] == len(SIZES) and metrics["seconds"] > 0
    assert evaluate_detection(Oracle(dataset), dataset, max_images=2, progress=False)["images"] == 2


def test_says_nothing_without_progress(folder, capfd):
    dataset = CocoDetection(folder, "val", transform=PLAIN)
    evaluate_detection(Oracle(dataset), dataset, progress=False)
    assert capfd.readouterr() == ("", "")
    evaluate_detection(Oracle(dataset), dataset)
    assert "evaluating" in capfd.readouterr().err


def test_labels_are_those_of_the_model(folder):
    dataset = CocoDetection(folder, "val", transform=PLAIN)
    # Its labels are in another order, and it knows a class that the data does not.
    model = Oracle(
        CocoDetection(folder, "val", Categories(("cat", "owl", "dog"), (7, 9, 3)), transform=PLAIN)
    )
    with pytest.raises(ValueError, match=r"image 10\d: label 2 is none of 0\.\.1"):
        evaluate_detection(model, dataset, progress=False)
    model.categories = Categories(("cat", "owl", "dog"), (7, 9, 3))
    assert evaluate_detection(model, dataset, progress=False)["AP"] == 1
    model.categories = Categories(("cat", "owl", "wolf"), (7, 9, 3))
    with pytest.raises(ValueError, match="category 3 is 'wolf' for the model and 'dog' in the data set"):
        evaluate_detection(model, dataset, progress=False)


def test_images_that_cannot_be_read_are_reported_and_left_out(folder):
    dataset = CocoDetection(folder, "val", transform=PLAIN)
    model = Oracle(dataset)
    (folder / "val" / "1.png").unlink()
    (folder / "val" / "4.png").write_bytes((folder / "val" / "4.png").read_bytes()[:60])
    bad_items = BadItems("skip")
    metrics = evaluate_detection(model, dataset, batch_size=1, bad_items=bad_items, progress=False)
    assert metrics["AP"] == 1 and metrics["AR_100"] == 1 and metrics["images"] == len(SIZES) - 2
    assert bad_items.count == 2 and "1.png" in bad_items.summary() and "4.png" in bad_items.summary()
    with pytest.raises(BadItemError, match="png"):
        evaluate_detection(model, dataset, bad_items=BadItems("stop"), progress=False)


def found_by(model, dataset, monkeypatch, **options):
    """The results that the evaluation computes the metrics of: numbers by image."""
    by_image = {}

    def spy(truth, results, categories):
        for entry in results:
            numbers = [entry["category_id"], *entry["bbox"], 100 * entry["score"]]
            by_image.setdefault(entry["image_id"], []).append(numbers)
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(detection, "detection_metrics", spy)
        evaluate_detection(model, dataset, progress=False, **options)
    return {image_id: torch.tensor(rows) for image_id, rows in by_image.items()}


def test_neither_batch_size_nor_padding_matter(folder, monkeypatch):
    dataset = CocoDetection(folder, "val", transform=ImageTransform(shortest_edge=48))
    for i, (height, width) in enumerate(SIZES):  # pictures with something to see
        noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(i))
        Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / "val" / f"{i}.png")
    model = tiny_detr(len(dataset.categories))
    alone = found_by(model, dataset, monkeypatch, batch_size=1)
    assert sorted(alone) == [100, 101, 102, 103, 104, 105]
    for batch_size in (2, 4, 6):
        together = found_by(model, dataset, monkeypatch, batch_size=batch_size)
        for image_id in alone:
            torch.testing.assert_close(together[image_id], alone[image_id], atol=1e-3, rtol=0)

    # It would matter: padded to one size, the same images give other boxes.
    batch = dataset.prepare(dataset.collate([dataset[i] for i in range(6)]), "cpu")
    with torch.inference_mode():
        padded = model.eval()(batch.images)["pred_boxes"]
        sizes = list(batches._by_size(batch.images))
        assert len(sizes) > 2
        for members, pixels in sizes:
            if pixels.shape[-2:] != batch.images.pixels.shape[-2:]:
                assert (padded[members] - model(pixels)["pred_boxes"]).abs().max() > 1e-4


def test_scenes_are_evaluated():
    dataset = Scenes("val", size=5)
    metrics = evaluate_detection(tiny_detr(len(dataset.categories)), dataset, batch_size=2, progress=False)
    assert metrics["images"] == 5 and 0 <= metrics["AP"] <= 1
    assert set(metrics["by_class"]) == set(dataset.categories.names)


def test_every_module_gets_its_mode_back(folder):
    dataset = CocoDetection(folder, "val", transform=PLAIN)
    model = Oracle(dataset).train()
    model.frozen = nn.BatchNorm2d(3).eval()
    modes = []
    model.register_forward_hook(lambda *_: modes.append((model.training, torch.is_inference_mode_enabled())))
    evaluate_detection(model, dataset, progress=False)
    assert set(modes) == {(False, True)}
    assert model.training and not model.frozen.training
    (folder / "val" / "0.png").unlink()
    with pytest.raises(BadItemError):
        evaluate_detection(model, dataset, bad_items=BadItems("stop"), progress=False)
    assert model.training and not model.frozen.training


def test_training_goes_on_as_if_it_had_not_been_evaluated(folder):
    dataset = CocoDetection(folder, "val", transform=PLAIN)
    before = torch.get_rng_state()
    evaluate_detection(Oracle(dataset), dataset, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def evaluate_in_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    dataset = CocoDetection(folder, "val", transform=PLAIN)
    metrics = evaluate_detection(Oracle(dataset, shift=0.02), dataset, batch_size=2, progress=False)
    (folder / f"metrics{rank}.json").write_text(json.dumps(json_safe(metrics)))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one(folder):
    (folder / "val" / "0.png").unlink()
    dataset = CocoDetection(folder, "val", transform=PLAIN)
    alone = json_safe(evaluate_detection(Oracle(dataset, shift=0.02), dataset, progress=False))
    assert 0.3 < alone["AP"] < 1
    torch.multiprocessing.spawn(evaluate_in_process, (folder,), nprocs=2)
    for rank in range(2):
        assert json.loads((folder / f"metrics{rank}.json").read_text()) | {"seconds": 0} == alone | {
            "seconds": 0
        }
