"""What to look at when a training on one's own pictures does not work: annotations, curves with lines, answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor, nn

from minivis.boxes import cxcywh_to_xyxy
from minivis.data import CocoDetection
from minivis.data.coco import CocoItem
from minivis.data.items import BadItems
from minivis.detr import postprocess
from minivis.evaluation import evaluate_detection
from minivis.pretrained import load
from minivis.training.checkpoint import read_log
from minivis.widgets.named_boxes import draw_box
from minivis.widgets.pictures import show

CURVE, LINE, FOUND = "#0072B2", "#D55E00", "#E69F00"
SHOWN, SURE = 8, 0.5  # pictures; the score above which a detection is drawn


class Blind(NamedTuple):
    """What somebody reaches who sees no picture, and knows only how often each class occurs."""

    class_loss: float
    class_error: tuple[float, float]  # %: from always the commonest class to always "no object"
    l1: float  # of the mean box, given for every object


class Diagnosis(NamedTuple):
    """The numbers of `diagnose`."""

    skipped: int  # annotations and pictures
    blind: Blind
    answers_differ: float
    by_class: dict[str, float]  # AP


def blind_guess(
    labels: Int[Tensor, " objects"],
    boxes: Float[Tensor, "objects 4"],
    pictures: int,
    num_classes: int,
    num_queries: int,
    no_object_weight: float,
) -> Blind:
    """The losses of the best answer without sight, for all objects of some pictures.

    Args:
        boxes: (cx, cy, w, h) in 0..1.

    Raises:
        ValueError: if there are no objects.
    """
    if not len(labels):
        raise ValueError("there are no objects: nothing to learn, and nothing to compare with")
    counts = torch.bincount(labels, minlength=num_classes).double()
    weights = torch.cat([counts, torch.tensor([no_object_weight * (num_queries * pictures - len(labels))])])
    guess = weights / weights.sum()  # a weighted cross-entropy is least for it, and is then its entropy
    return Blind(
        class_loss=-torch.special.xlogy(guess, guess).sum().item(),
        class_error=(100 * (1 - counts.max().item() / len(labels)), 100.0),
        l1=(boxes - boxes.mean(0)).abs().sum(1).mean().item(),
    )


def answers_differ(answers: Float[Tensor, "pictures queries 4"], boxes: Float[Tensor, "objects 4"]) -> float:
    """How much a query's box differs from picture to picture, as a share of how much the true boxes differ.

    Below about 0.1 the pictures hardly matter to the model; above, the number does not say how good it is.
    """
    return (answers.std(0).mean() / boxes.std(0).mean()).item()


def diagnose(folder: str | Path, run: str | Path, pictures: int = 50) -> Diagnosis:
    """Shows, in the order in which to look: annotations, counts, curves, whether answers differ, answers, AP by class.

    Args:
        folder: a data set in COCO's format, with the splits "train" and "val".
        run: the folder that `minivis train` wrote for it.
        pictures: how many of "val" are looked at, at most.

    Raises:
        ValueError: if the training set has no objects.
    """
    model, items = load(str(run)).eval(), BadItems("skip")
    train, val = (
        CocoDetection(folder, split, model.categories, transform=model.image_transform, bad_items=items)
        for split in ("train", "val")
    )
    labels, boxes = objects_of(train)
    show_pictures(train, None, "annotations of the training set: does each box lie on what its name says?")
    show_counts(train, labels)
    print(items.summary())

    blind = blind_guess(
        labels, boxes, len(train), len(train.categories), model.config.num_queries,
        model.card["recipe"]["no_object_weight"],
    )  # fmt: skip
    log = [entry for entry in read_log(run) if "loss" in entry]
    show(
        curves(log, blind),
        f"Curves of the run with the lines of a blind guess: class loss {blind.class_loss:.2f}, class error "
        f"{blind.class_error[0]:.0f} to {blind.class_error[1]:.0f} %, L1 loss {blind.l1:.2f}.",
    )

    chosen = range(min(pictures, len(val)))
    differ = answers_differ(boxes_of(model, val, chosen), objects_of(val)[1])
    print(f"answers differ from picture to picture: {differ:.2f} of the truth (below 0.1: it does not look)")
    show_pictures(val, model, "what it finds in the validation set (score 0.5), over the dashed annotations")
    by_class = evaluate_detection(model, val, progress=False, max_images=len(chosen))["by_class"]
    print("AP by class:", ", ".join(f"{name} {ap:.2f}" for name, ap in by_class.items()))
    return Diagnosis(items.count, blind, differ, by_class)


def objects_of(data: CocoDetection) -> tuple[Int[Tensor, " objects"], Float[Tensor, "objects 4"]]:
    """Labels, and boxes (cx, cy, w, h) in 0..1, of all objects of a data set, crowds left out."""
    truth = data.ground_truth()
    size = {image["id"]: [image["width"], image["height"]] * 2 for image in truth["images"]}
    annotations = [each for each in truth["annotations"] if not each["iscrowd"]]
    labels = torch.tensor([data.categories.label_of(each["category_id"]) for each in annotations]).long()
    bbox = torch.tensor([each["bbox"] for each in annotations]).reshape(-1, 4)
    sizes = torch.tensor([size[each["image_id"]] for each in annotations]).reshape(-1, 4)
    corner, extent = (bbox / sizes).split(2, dim=1)  # COCO's are the upper left corner, width and height
    return labels, torch.cat([corner + extent / 2, extent], dim=1)


def show_counts(data: CocoDetection, labels: Int[Tensor, " objects"]) -> None:
    counts = torch.bincount(labels, minlength=len(data.categories)).tolist()
    print(f"{len(labels)} objects in {len(data)} pictures, at most {data.most_objects} in one:", end=" ")
    print(", ".join(f"{count} {name}" for name, count in zip(data.categories.names, counts)))


def first_items(data: CocoDetection) -> list[CocoItem]:
    items = [data[index] for index in range(min(SHOWN, len(data)))]
    return [item for item in items if isinstance(item, CocoItem)]


def show_pictures(data: CocoDetection, model: nn.Module | None, what: str) -> None:
    """The first pictures with their annotations, or with what a model finds above them."""
    items, found = first_items(data), None
    if model is not None:
        with torch.inference_mode():
            found = [
                postprocess(model(data.image_transform.normalise(image)[None]), [tuple(image.shape[-2:])])[0]
                for image, _ in items
            ]
    print(f"{what[0].upper()}{what[1:]}")
    show(annotated(items, data.categories.names, found), f"{len(items)} pictures: {what}")


def annotated(
    items: Sequence[CocoItem], names: Sequence[str], found: Sequence[dict[str, Tensor]] | None = None
) -> Figure:
    """Pictures with their true boxes, dashed, with names; or with what was `found` (score 0.5) named above them."""
    rows = -(-len(items) // 4)
    figure, axes = plt.subplots(
        max(rows, 1), 4, figsize=(9, 2.3 * max(rows, 1)), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (axis, (image, target)) in enumerate(zip(axes.flat, items)):
        axis.imshow(image.permute(1, 2, 0).numpy())
        height, width = image.shape[-2:]
        true = cxcywh_to_xyxy(target["boxes"]) * torch.tensor([width, height, width, height])
        for box, label in zip(true.tolist(), target["labels"].tolist()):
            draw_box(axis, box, "white", names[label] if found is None else "", style="--", halo="black")
        if found is not None:
            sure = found[number]["scores"] >= SURE
            for box, label in zip(
                found[number]["boxes"][sure].tolist(), found[number]["labels"][sure].tolist()
            ):
                draw_box(axis, box, FOUND, names[label], halo="black")
    return figure


def curves(log: list[dict[str, Any]], blind: Blind) -> Figure:
    """Class loss, class error and L1 loss of a run, each with what a blind guess reaches."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
    steps = [entry["step"] for entry in log]
    for axis, name, lines in zip(
        axes, ("loss_ce", "class_error", "loss_bbox"), ([blind.class_loss], blind.class_error, [blind.l1])
    ):
        axis.plot(steps, [entry.get(name, np.nan) for entry in log], color=CURVE)
        for level in lines:
            line = axis.axhline(level, color=LINE, linestyle="--")
        axis.legend([line], ["without a look"], fontsize=8)
        axis.set(title=name, xlabel="step", ylim=(0, None))
    return figure


@torch.inference_mode()
def boxes_of(model: nn.Module, data: CocoDetection, chosen: range) -> Float[Tensor, "pictures queries 4"]:
    """Each picture by itself: padding would be a difference as well."""
    items = [item for item in (data[index] for index in chosen) if isinstance(item, CocoItem)]
    return torch.cat([model(data.image_transform.normalise(image)[None])["pred_boxes"] for image, _ in items])
