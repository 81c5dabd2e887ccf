"""Training a DETR: its model, data and losses, as the loop wants them."""

import dataclasses
import logging
import os
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from minivis.data.augment import DetrAugment
from minivis.data.coco import CocoDetection, CocoPictures
from minivis.data.items import BadItems, DetectionBatch, DetectionDataset
from minivis.data.scenes import Scenes, Split
from minivis.detr import DETR, DETRConfig, DETRsegm, HungarianMatcher, SetCriterion, build_detr
from minivis.detr.criterion import Normalisers
from minivis.evaluation.detection import evaluate_detection
from minivis.images import ImageTransform
from minivis.pretrained import load
from minivis.pretrained.checkpoint import with_use
from minivis.training.recipes import DetrRecipe

logger = logging.getLogger("minivis")


POST_NORM_LR = 3e-4  # the paper's is 1e-4; pre-norm ones, such as detr-mini, take ten times that


class StepSize(NamedTuple):
    """What the parts of a step are divided by."""

    normalisers: Normalisers
    images: int  # of this process


class DetectionTask:
    """A `Task` (see `task.py`): DETR on generated scenes or on a folder in COCO's format.

    Raises:
        FileNotFoundError, ValueError: if the recipe's data or checkpoint is not there or not what it should be.
    """

    logged = ("loss_ce", "loss_bbox", "loss_giou", "class_error", "cardinality_error")
    headline = "AP"

    def __init__(self, recipe: DetrRecipe, bad_items: str = "skip") -> None:
        if recipe.data is None:
            raise ValueError(f"{recipe.name} needs data: name a folder in COCO's format with --data")
        first = os.environ.get("RANK", "0") == "0"  # of several processes; all of them read the annotations
        self.recipe, self.bad_items = recipe, BadItems(bad_items, quiet=not first)
        self.endless = recipe.data == "scenes"
        pretrained = recipe.initial not in (None, "imagenet")
        self.initial = self._load(recipe.initial) if pretrained else None
        if self.initial and not self.initial.config.normalize_before and recipe.lr > POST_NORM_LR:
            logger.warning(
                "%s is a post-norm transformer, which may fall apart at a learning rate of %g: the recipe "
                "detr-r50-finetune has settings for it (or --set lr=1e-4 --set backbone_lr=1e-5)",
                recipe.initial,
                recipe.lr,
            )
        self.dataset, self.validation = self._data()
        weights, losses = self.weights(), ["labels", "boxes", "cardinality"]
        if "loss_mask" in weights:
            losses.append("masks")
        matcher = HungarianMatcher(recipe.match_class, recipe.match_l1, recipe.match_giou)
        classes = len(self.dataset.categories)
        self.criterion = SetCriterion(classes, matcher, weights, recipe.no_object_weight, losses)
        self.read = self.asked = 0  # images

    def _load(self, name: str) -> DETR:
        return detector_of(load(name))

    def weights(self) -> dict[str, float]:
        """What each loss counts."""
        recipe = self.recipe
        return {
            "loss_ce": recipe.class_weight,
            "loss_bbox": recipe.l1_weight,
            "loss_giou": recipe.giou_weight,
        }

    def _data(self) -> tuple[DetectionDataset, DetectionDataset | None]:
        recipe = self.recipe
        evaluated = recipe.eval_every is not None
        if self.endless:
            return self._scenes("train"), self._scenes("val", recipe.eval_images) if evaluated else None
        transform = self.initial.image_transform if self.initial else ImageTransform()
        if recipe.shortest_edge is not None:
            transform = dataclasses.replace(
                transform, shortest_edge=recipe.shortest_edge, longest_edge=recipe.longest_edge
            )
        options = {"transform": transform, "bad_items": self.bad_items}
        augment = None
        if recipe.augment == "paper":  # its lengths in pixels belong to a short side of 800
            augment = DetrAugment(colour=recipe.colour).scaled((recipe.shortest_edge or 800) / 800)
        train = self._folder("train", categories=recipe.categories, augment=augment, **options)
        if not len(train.file.ids) and self.bad_items.count:
            raise ValueError(f"no annotation of {train.file.path} can be used. {self.bad_items.summary()}")
        if not evaluated:
            return train, None
        try:
            return train, self._folder("val", categories=train.categories, **options)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}. (--set eval_every=none trains without)") from None

    def _scenes(self, split: Split, size: int | None = None) -> DetectionDataset:
        return Scenes(split, size=size)

    def _folder(self, split: str, **options: Any) -> CocoPictures:
        return CocoDetection(self.recipe.data, split, **options)

    def build_model(self) -> DETR | DETRsegm:
        """A model for the data's classes, with what fits of the checkpoint's weights.

        Raises:
            ValueError: if the recipe sets something of the model that the checkpoint has decided.
        """
        recipe = self.recipe
        model = self._build_detector()
        for part in recipe.freeze:
            try:
                model.get_submodule(part).requires_grad_(False)
            except AttributeError:
                parts = ", ".join(name for name, _ in model.named_children())
                raise ValueError(f"freeze: the model has no part {part!r}; it has {parts}") from None
        return model

    def _build_detector(self) -> DETR:
        recipe, initial = self.recipe, self.initial
        config = initial.config if initial else self._detector_config()
        config = dataclasses.replace(
            config,
            num_classes=len(self.dataset.categories),
            num_queries=self._num_queries(config.num_queries),
            aux_loss=recipe.model.aux_loss,
        )
        self.num_queries = config.num_queries
        model = build_detr(config)
        if recipe.initial == "imagenet":
            model.backbone.load_imagenet_weights()
        elif initial:
            adopt_weights(model, initial, same_classes=initial.categories == self.dataset.categories)
        model.checkpoint_backbone = recipe.checkpoint_activations
        return model

    def _detector_config(self) -> DETRConfig:
        """Of a detector that no checkpoint describes."""
        return self.recipe.model

    def _num_queries(self, of_model: int) -> int:
        """As the recipe says; but where a picture has more objects than a checkpoint has queries, twice as many."""
        most = self.dataset.world.max_objects if self.endless else self.dataset.most_objects
        if self.recipe.num_queries is None and self.initial and most > of_model:
            logger.info(
                "a picture has %d objects: %d queries, not the checkpoint's %d", most, 2 * most, of_model
            )
            return 2 * most
        queries = self.recipe.num_queries or of_model
        if most > queries:
            logger.warning(
                "a picture has %d objects, of which %d queries can find %d", most, queries, queries
            )
        return queries

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """What is trained, by its learning rate."""
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(self.lr_of(name.removeprefix("detr.")), []).append(parameter)
        return [{"params": parameters, "lr": lr} for lr, parameters in groups.items()]

    def lr_of(self, name: str) -> float:
        """The learning rate of a parameter: the backbone may have one of its own."""
        recipe = self.recipe
        in_backbone = name.startswith("backbone.")
        return recipe.backbone_lr if in_backbone and recipe.backbone_lr is not None else recipe.lr

    def prepare(self, collated: Any, device: torch.device) -> DetectionBatch:
        """The batch on the device; what could not be read is reported.

        Raises:
            ValueError: if a whole epoch had nothing that could be read.
        """
        batch = self.dataset.prepare(collated, device)
        for item in batch.bad_items:
            self.bad_items.report(item)
        self.read += len(batch.targets)
        self.asked += len(batch.targets) + len(batch.bad_items)
        if self.read == 0 and self.asked >= len(self.dataset):
            raise ValueError(f"none of the {len(self.dataset)} images in {self.recipe.data} could be read")
        return batch

    def names(self, batch: DetectionBatch) -> list[str]:
        return [f"image {target['image_id']}" for target in batch.targets]

    def normalisers(self, batches: list[DetectionBatch]) -> StepSize:
        self.criterion.to(batches[0].images.pixels.device)
        targets = [batch.targets for batch in batches]
        return StepSize(self.criterion.normalisers(targets, self.num_queries), sum(map(len, targets)))

    def loss(self, model: Any, batch: DetectionBatch, step: StepSize) -> tuple[Tensor, dict[str, Tensor]]:
        """The criterion's weighted sum. Where nothing could be read, a blank picture goes through and counts 0."""
        if not batch.targets:
            outputs = model(batch.images.pixels.new_zeros(1, 3, 64, 64))
            return 0 * sum(outputs[name].sum() for name in outputs if name.startswith("pred_")), {}
        losses = self._losses(model, batch, step)
        share = len(batch.targets) / step.images  # to be read only: nearly the mean of the whole step
        read_only = {name: share * losses[name] for name in ("class_error", "cardinality_error")}
        return self.criterion.weighted_sum(losses), losses | read_only

    def _losses(self, model: Any, batch: DetectionBatch, step: StepSize) -> dict[str, Tensor]:
        return self.criterion(model(batch.images), batch.targets, step.normalisers)

    def after_step(self, model: nn.Module, step: int) -> None:
        pass

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        recipe = self.recipe
        return evaluate_detection(
            model, self.validation, bad_items=self.bad_items, progress=False, max_images=recipe.eval_images,
            workers=recipe.workers,
        )  # fmt: skip

    def card(self, model: nn.Module) -> dict[str, Any]:
        data = self.dataset
        return {"categories": data.categories.to_dict(), "image_transform": data.image_transform.to_dict()}

    def summary(self) -> str:
        for item in gather_object(
            list(self.bad_items.items)
        ):  # of all processes; those not yet named are now
            self.bad_items.report(item)
        return self.bad_items.summary() if self.bad_items.count else ""


def detector_of(model: DETR | DETRsegm) -> DETR:
    """A loaded model's detector: of one with masks, what finds the boxes."""
    if not isinstance(model, DETRsegm):
        return model
    return with_use(model.detr, model.categories, model.image_transform)


def adopt_weights(model: DETR, source: DETR, same_classes: bool) -> None:
    """Gives a model the weights of another one with the same layers.

    Of the object queries as many as both have, so that the others begin as new ones; the class head only if the classes
    are the same.
    """
    weights = model.state_dict()
    for name, tensor in source.state_dict().items():
        if name == "query_embed.weight":
            shared = min(len(tensor), len(weights[name]))
            weights[name][:shared] = tensor[:shared]
        elif same_classes or not name.startswith("class_embed."):
            weights[name] = tensor
    model.load_state_dict(weights)
