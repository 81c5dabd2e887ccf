"""A DETR so small that it learns to find shapes in about a minute on one CPU core, to compare ways to train it."""

from collections.abc import Callable
from statistics import fmean

import torch
from torch import nn
from tqdm import tqdm

from minivis.data.scenes import Scenes, World
from minivis.detr import DETR, DETRConfig, HungarianMatcher, SetCriterion, build_detr
from minivis.evaluation.detection import evaluate_detection
from minivis.experiments.matching import average_precision, predict

WORLD = World(
    size=64, shapes=("circle", "square", "triangle"), sizes=("medium", "large"), max_objects=3, max_hidden=0.2,
    ground="plain",
)  # fmt: skip
CONFIG = DETRConfig(
    num_classes=len(WORLD.shapes), num_queries=10, backbone="small", backbone_norm="group",
    backbone_channels=(16, 32, 64), d_model=64, num_heads=4, encoder_layers=2, decoder_layers=2, dim_feedforward=128,
    dropout=0.0, normalize_before=True, position_temperature=20.0,
)  # fmt: skip
STEPS, BATCH, LEARNING_RATE = 800, 32, 3e-3
EVALUATED = 300  # scenes that no training sees

History = dict[str, list[float]]


def small_criterion(
    matcher: HungarianMatcher | None = None,
    *,
    ce: float = 4.0,
    l1: float = 5.0,
    giou: float = 2.0,
    no_object: float = 0.1,
    kind: type[SetCriterion] = SetCriterion,
) -> SetCriterion:
    """DETR's loss with the paper's matcher and weights, except that classes count 4: so shapes are learned sooner."""
    weights = {"loss_ce": ce, "loss_bbox": l1, "loss_giou": giou}
    return kind(CONFIG.num_classes, matcher or HungarianMatcher(), weights, no_object)


def build_small() -> DETR:
    return build_detr(CONFIG)


def train_small(
    criterion: nn.Module,
    seed: int = 0,
    steps: int = STEPS,
    data: Scenes | None = None,
    on_step: Callable[[int, nn.Module], None] = lambda step, model: None,
    build: Callable[[], nn.Module] = build_small,
) -> tuple[nn.Module, History]:
    """Trains the small DETR, or what `build` makes. Runs of one seed begin with the same weights and see the same
    scenes.

    Args:
        criterion: the loss: a `SetCriterion`, or what is called and summed up like one.
        seed: of the first weights and of the scenes, which are drawn anew for every step.
        steps: updates of the weights.
        data: where the scenes come from.
        on_step: called before the first step with 0, and after every step with its number (from 1) and the model.
        build: makes the model, with fresh weights.

    Returns:
        The model in evaluation mode, and for every step its loss and those parts of it that it has (of the last
        decoder layer).
    """
    torch.manual_seed(seed)
    data = data or Scenes("train", WORLD)
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, steps + 1, pct_start=0.08, cycle_momentum=False
    )
    history: History = {name: [] for name in ("loss", "loss_ce", "loss_bbox", "loss_giou", "class_error")}

    on_step(0, model)
    for step in tqdm(range(1, steps + 1), "training", leave=False, disable=None):
        seeds = range((seed * 10**6 + step) * BATCH, (seed * 10**6 + step + 1) * BATCH)
        images, targets, _ = data.prepare(data.collate([data[0, s] for s in seeds]))
        losses = criterion(model(images), targets)
        loss = criterion.weighted_sum(losses)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        schedule.step()
        history["loss"].append(loss.item())
        for name in history.keys() & losses.keys():
            history[name].append(losses[name].item())
        on_step(step, model)
    return model.eval(), history


MEASURES = {
    "AP": "average precision, mean over IoU thresholds 0.50 to 0.95",
    "AP50": "average precision at IoU 0.50",
    "AP50_half": "AP50 after half of the training",
    "detections": "queries with a score of at least 0.5, for each object that is there",
    "loss_bbox": "L1 distance of a matched box, mean over the last tenth of the training",
    "loss_giou": "1 − GIoU of a matched box, mean over the last tenth of the training",
    "class_error": "matched queries surest of a wrong class or of none (%), mean over the last tenth of the training",
}


def train_and_measure(
    criterion: SetCriterion,
    seed: int,
    reduced: bool = False,
    make_data: Callable[..., Scenes] = Scenes,
    build: Callable[[], DETR] = build_small,
    world: World = WORLD,
    also: Callable[[dict, list[dict], Scenes], dict[str, float]] = lambda outputs, targets, data: {},
    steps: int = STEPS,
) -> dict[str, float]:
    """`MEASURES` of one training, and what `also` makes of the predictions for the validation scenes.

    `reduced`: an eightieth of the steps, and few scenes, to see that it works.
    """
    steps, images = (steps // 80, 20) if reduced else (steps, EVALUATED)
    validation, halfway = make_data("val", world, size=images), {}

    def look_halfway(step: int, model: DETR) -> None:
        if step == steps // 2:
            halfway.update(evaluate_detection(model, validation, batch_size=50, progress=False))

    model, history = train_small(criterion, seed, steps, make_data("train", world), look_halfway, build)
    outputs, targets = predict(model, validation)
    metrics = average_precision(outputs, targets, validation)
    scores = outputs["pred_logits"].softmax(-1)[..., :-1].amax(-1)
    return {
        "AP": metrics["AP"],
        "AP50": metrics["AP50"],
        "AP50_half": halfway["AP50"],
        "detections": int((scores >= 0.5).sum()) / sum(len(target["labels"]) for target in targets),
        **{name: fmean(history[name][-steps // 10 :]) for name in ("loss_bbox", "loss_giou", "class_error")},
        **also(outputs, targets, validation),
    }
