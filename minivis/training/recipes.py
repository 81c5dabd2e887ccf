"""Recipes: everything that decides what a training run computes, as frozen dataclasses."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from minivis.detr.model import DETRConfig, mini_config
from minivis.detr.panoptic import PanopticConfig, mini_panoptic_config


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Data, model, optimiser, schedule, steps and precision of a run. Subclasses add what one kind of model needs.

    A step is one update of the weights. It sees `batch_size` images, however many processes share them and in however
    many parts each process takes its share (`accumulate`).
    """

    name: str
    about: str
    estimate: str  # what a run takes, marked as measured or as an estimate
    data: str | None  # "scenes", or a folder; None: the caller must name one

    steps: int
    batch_size: int
    accumulate: int = 1
    seed: int = 0

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    clip_norm: float | None = 0.1  # of the gradient of all parameters together
    warmup: int = 0  # steps in which the learning rate rises linearly
    schedule: Literal["constant", "step", "cosine"] = "constant"
    drop_at: int | None = None  # "step": after this step a tenth of the learning rate
    final_lr: float = 0.0  # "cosine": where it ends, as a fraction of lr
    ema: float | None = None  # decay of the moving average of the weights that is evaluated and saved

    precision: Literal["no", "bf16"] = "no"
    compile: bool = False
    checkpoint_activations: bool = (
        False  # compute activations again in the backward pass: less memory, more time
    )

    workers: int = 0  # processes that read data, for each training process
    log_every: int = 50
    eval_every: int | None = 1000
    save_every: int = 500

    def __post_init__(self) -> None:
        positive = ("lr", "clip_norm")
        at_least_0 = ("warmup", "weight_decay", "final_lr", "workers")
        at_least_1 = ("steps", "batch_size", "accumulate", "log_every", "eval_every", "save_every", "drop_at")
        self.check(positive, lambda value: value > 0, "above 0")
        self.check(at_least_0, lambda value: value >= 0, "at least 0")
        self.check(at_least_1, lambda value: value >= 1, "at least 1")
        if self.schedule == "step" and self.drop_at is None:
            raise ValueError(
                f'{self.name}: schedule "step" needs drop_at, the step where the learning rate falls'
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"{self.name}: ema is a decay between 0 and 1, or none; got {self.ema}")

    def check(self, names: Iterable[str], holds: Callable[[Any], bool], expected: str) -> None:
        """ValueError for the first of these fields that is not None, nor a finite number for which it holds."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and holds(value)):
                raise ValueError(f"{self.name}: {name} must be {expected}, got {value}")

    def lr_factor(self, step: int) -> float:
        """The learning rate of a step (from 1), as a fraction of the full one."""
        if step <= self.warmup:
            return step / self.warmup
        if self.schedule == "step":
            return 1.0 if step <= self.drop_at else 0.1
        if self.schedule == "cosine":
            done = (step - self.warmup) / max(1, self.steps - self.warmup)
            return self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * done)) / 2
        return 1.0

    def build_task(self, bad_items: str = "skip") -> Any:
        """The `Task` that this recipe trains (see `loop.py`); `bad_items` is "skip" or "stop"."""
        raise NotImplementedError

    def with_settings(self, settings: Iterable[str]) -> "Recipe":
        """This recipe with some fields changed, as `--set` gives them: "lr=1e-3", "model.d_model=64"."""
        pairs = []
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise ValueError(f"expected key=value, got {setting!r}")
            pairs.append((key.strip(), text.strip()))
        return _with_settings(self, pairs)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: tuples become lists."""
        return _plain(dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class DetrRecipe(Recipe):
    """A detector: the paper's losses and optimiser (Carion et al. 2020, section 4 and appendix A.4)."""

    model: DETRConfig  # its num_classes is replaced by the data's; where a checkpoint is the start, its model is used
    initial: str | None = None  # a checkpoint, or "imagenet" (for the backbone); None: from nothing
    num_queries: int | None = None  # None: the model's; a checkpoint's, or more if pictures need more
    freeze: tuple[
        str, ...
    ] = ()  # parts of the model that stay as they are: "backbone", "transformer.encoder"

    backbone_lr: float | None = None  # None: lr
    class_weight: float = 1.0  # of the losses
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    no_object_weight: float = 0.1
    match_class: float = 1.0  # of the matching's costs
    match_l1: float = 5.0
    match_giou: float = 2.0

    categories: Literal["dense", "coco"] = "dense"  # labels without gaps, or label = category id
    augment: Literal["paper"] | None = None  # with its lengths in pixels in proportion to shortest_edge / 800
    colour: float = 0.0  # strength of the change of colours in an augmented picture
    shortest_edge: int | None = (
        None  # pixels of a picture's short side; None: as it is, or as the checkpoint has it
    )
    longest_edge: int | None = None
    eval_images: int | None = None  # evaluate on the first so many only, while training; None: all

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (
            "class_weight",
            "l1_weight",
            "giou_weight",
            "no_object_weight",
            "match_class",
            "match_l1",
            "match_giou",
        )
        self.check((*weights, "colour", "backbone_lr"), lambda value: value >= 0, "at least 0")
        self.check(
            ("num_queries", "shortest_edge", "longest_edge", "eval_images"),
            lambda value: value >= 1,
            "at least 1",
        )
        if self.initial == "imagenet" and self.model.backbone == "small":
            raise ValueError(
                f"{self.name}: there are no ImageNet weights for the small backbone; its model needs a ResNet"
            )
        if self.model.backbone_norm == "frozen" and self.initial is None:
            raise ValueError(
                f"{self.name}: a frozen batch norm without trained weights normalises nothing, and the features "
                "explode. Start from ImageNet weights (--from imagenet) or a checkpoint, or train from nothing with "
                "group norm (--set model.backbone_norm=group)."
            )

    def with_settings(self, settings: Iterable[str]) -> "DetrRecipe":
        """See `Recipe`. Of a checkpoint's model only the number of queries and the auxiliary losses can be set."""
        changed = super().with_settings(settings)
        same = dataclasses.replace(changed.model, aux_loss=self.model.aux_loss) == self.model
        if changed.initial not in (None, "imagenet") and not same:
            raise ValueError(
                f"the model is that of the checkpoint {changed.initial}, which --set model.... cannot change; "
                "num_queries can be set, and --from none builds a new model"
            )
        return changed

    def build_task(self, bad_items: str = "skip") -> Any:
        from minivis.training.detection import DetectionTask

        return DetectionTask(self, bad_items)


@dataclass(frozen=True, kw_only=True)
class PanopticRecipe(DetrRecipe):
    """Things and stuff with masks (section 4.4). In the paper there are two stages, each with a recipe of its own:

    "boxes": a detector alone, to which stuff is one box around all there is of it.
    "masks": of a detector from the first stage, the masks alone; nothing else changes any more.
    "joint": both at once.
    """

    model: PanopticConfig
    stage: Literal["boxes", "masks", "joint"] = "joint"
    mask_lr: float | None = None  # of what makes masks; None: lr
    mask_weight: float = 1.0  # of the focal loss
    dice_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(("mask_weight", "dice_weight", "mask_lr"), lambda value: value >= 0, "at least 0")
        if self.stage == "masks" and self.initial in (None, "imagenet"):
            raise ValueError(
                f"{self.name}: masks alone are learned on top of a trained detector: name one with --from, such as the "
                "folder of a run with --set stage=boxes; or train both together with --set stage=joint"
            )

    def build_task(self, bad_items: str = "skip") -> Any:
        from minivis.training.panoptic import PanopticTask

        return PanopticTask(self, bad_items)


COCO_STEPS_PER_EPOCH = 118_287 // 64

# What the paper's ResNet-50 models have in common on COCO (section 4, appendix A.4).
PAPERS_ON_COCO: dict[str, Any] = {
    "data": None,
    "categories": "coco",
    "augment": "paper",
    "shortest_edge": 800,
    "longest_edge": 1333,
    "batch_size": 64,
    "lr": 1e-4,
    "backbone_lr": 1e-5,
    "clip_norm": 0.1,
    "schedule": "step",
    "workers": 8,
    "eval_every": COCO_STEPS_PER_EPOCH * 5,
    "save_every": 1000,
}

# How the small pre-norm models are trained, in an hour of one CPU core.
MINI: dict[str, Any] = {
    "betas": (0.9, 0.98),
    "schedule": "cosine",
    "final_lr": 0.01,
    "ema": 0.999,
    "precision": "bf16",
}

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        DetrRecipe(
            name="detr-mini",
            about="A small DETR on generated scenes, from nothing: what the course looks into.",
            estimate="measured: 56 minutes on one CPU core with bfloat16",
            data="scenes",
            model=mini_config(num_classes=6),
            steps=15_000,
            batch_size=16,
            lr=1e-3,
            clip_norm=0.1,
            warmup=200,
            class_weight=4.0,  # boxes are learned long before classes otherwise
            eval_every=3000,
            **MINI,
        ),
        DetrRecipe(
            name="detr-r50-coco",
            about="The paper's ResNet-50 DETR on COCO for 300 epochs, from ImageNet weights.",
            estimate="estimate: 3 days on 16 V100 (as the paper says), about a week on 8 A100 in float32",
            model=DETRConfig(),
            initial="imagenet",
            steps=300 * COCO_STEPS_PER_EPOCH,
            drop_at=200 * COCO_STEPS_PER_EPOCH,
            **PAPERS_ON_COCO,
        ),
        DetrRecipe(
            name="detr-finetune",
            about="The shipped detr-mini on your own folder of pictures with COCO annotations; small enough for a CPU.",
            estimate="measured: about an hour on one CPU core (4,500 steps on 205 pictures of blood cells)",
            data=None,
            model=mini_config(num_classes=1),
            initial="detr-mini",
            augment="paper",
            colour=0.2,
            shortest_edge=320,
            longest_edge=480,
            steps=4500,
            batch_size=8,
            lr=1e-3,
            warmup=100,
            class_weight=2.0,
            eval_every=500,
            save_every=200,
            log_every=20,
            **MINI,
        ),
        DetrRecipe(
            name="detr-r50-finetune",
            about="The released ResNet-50 DETR on your own folder of pictures with COCO annotations.",
            estimate="estimate: an hour or two on one recent GPU",
            data=None,
            model=DETRConfig(),
            initial="facebook/detr-resnet-50",
            augment="paper",
            shortest_edge=800,
            longest_edge=1333,
            steps=6000,
            batch_size=8,
            lr=1e-4,  # with the mini model's a trained post-norm transformer would fall apart
            backbone_lr=1e-5,
            schedule="step",
            drop_at=4500,
            precision="bf16",
            workers=4,
            eval_every=1000,
            log_every=20,
        ),
        PanopticRecipe(
            name="panoptic-mini",
            about="Boxes and masks of things and stuff on generated scenes, together, from the shipped detr-mini.",
            estimate="measured: 43 minutes on one CPU core with bfloat16",
            data="scenes",
            model=mini_panoptic_config(num_classes=10),
            initial="detr-mini",
            stage="joint",
            steps=6000,
            batch_size=16,
            lr=5e-4,
            mask_lr=2e-3,
            clip_norm=0.1,
            warmup=200,
            class_weight=4.0,
            eval_every=1500,
            save_every=250,
            **MINI,
        ),
        # Labels are class numbers, which end at 200; the paper's code counts 250, of which the last 49 are no class's.
        PanopticRecipe(
            name="panoptic-r50-coco-boxes",
            about="Stage 1 of the paper's panoptic model: boxes of COCO's things and stuff, from ImageNet weights.",
            estimate="estimate: as detr-r50-coco, about a week on 8 A100 in float32",
            model=PanopticConfig(num_classes=201),
            initial="imagenet",
            stage="boxes",
            steps=300 * COCO_STEPS_PER_EPOCH,
            drop_at=200 * COCO_STEPS_PER_EPOCH,
            **PAPERS_ON_COCO,
        ),
        PanopticRecipe(
            name="panoptic-r50-coco",
            about="Stage 2 of the paper's panoptic model: 25 epochs of masks alone, on the detector of stage 1.",
            estimate="estimate: about a day on 8 A100 in float32",
            model=PanopticConfig(num_classes=201),
            initial="./runs/panoptic-r50-coco-boxes",  # where stage 1 is, unless --out named another folder
            stage="masks",
            steps=25 * COCO_STEPS_PER_EPOCH,
            drop_at=15 * COCO_STEPS_PER_EPOCH,
            **PAPERS_ON_COCO,
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name; ValueError, naming the closest one, if there is none."""
    if name not in RECIPES:
        raise ValueError(
            f"there is no recipe {name!r}{_closest(name, RECIPES)}; there are {', '.join(RECIPES)}"
        )
    return RECIPES[name]


def _with_settings(settings: Any, pairs: Iterable[tuple[str, str]]) -> Any:
    """A dataclass with fields set from (field, text), or (field.field, text): all at once, so their order is free."""
    hints = typing.get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    inner: dict[str, list[tuple[str, str]]] = {}
    for path, text in pairs:
        key, _, rest = path.partition(".")
        if key not in hints:
            raise ValueError(f"{type(settings).__name__} has no field {key!r}{_closest(key, hints)}")
        if rest:
            if not dataclasses.is_dataclass(getattr(settings, key)):
                raise ValueError(f"{key!r} has no fields of its own, so {path!r} cannot be set")
            inner.setdefault(key, []).append((rest, text))
            continue
        try:
            changes[key] = _parse(text, hints[key])
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{key}: expected {_describe(hints[key])}, got {text!r}") from error
    changes |= {key: _with_settings(getattr(settings, key), rest) for key, rest in inner.items()}
    return dataclasses.replace(settings, **changes)


def _parse(text: str, hint: Any) -> Any:
    """The value that a text stands for, given the annotation of its field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        return _parse(text, next(kind for kind in arguments if kind is not type(None)))
    if origin is Literal and text in arguments:
        return text
    if origin in (tuple, Sequence):
        parts = [part.strip() for part in text.strip("()[] ").split(",") if part.strip()]
        any_length = origin is Sequence or arguments[-1] is Ellipsis
        kinds = arguments[:1] * len(parts) if any_length else arguments
        return tuple(_parse(part, kind) for part, kind in zip(parts, kinds, strict=True))
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if hint is int:
        if float(text) != int(float(text)):  # "1e3" is a whole number, too
            raise ValueError(text)
        return int(float(text))
    if hint in (float, str):
        return hint(text)
    raise ValueError(text)


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _closest(name: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
