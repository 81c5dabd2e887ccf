"""Training a DETR with masks: the detector of things and stuff, its masks, or both together."""

from typing import Any

from torch import Tensor, nn

from minivis.data.coco_panoptic import CocoPanoptic
from minivis.data.items import DetectionBatch
from minivis.data.panoptic import PanopticDataset
from minivis.data.scenes import Scenes, Split
from minivis.detr import DETR, DETRConfig, DETRsegm
from minivis.evaluation.segmentation import evaluate_panoptic
from minivis.pretrained import load
from minivis.training.detection import DetectionTask, StepSize, detector_of
from minivis.training.recipes import PanopticRecipe


class PanopticTask(DetectionTask):
    """A `Task` (see `task.py`): things and stuff of generated scenes, or of a folder in COCO's panoptic format.

    Raises:
        FileNotFoundError, ValueError: if the recipe's data or checkpoint is not there or not what it should be.
    """

    recipe: PanopticRecipe
    dataset: PanopticDataset

    def __init__(self, recipe: PanopticRecipe, bad_items: str = "skip") -> None:
        self.initial_masks: DETRsegm | None = None  # the checkpoint, if it has masks
        super().__init__(recipe, bad_items)
        if recipe.stage != "boxes":
            self.logged = (*DetectionTask.logged, "loss_mask", "loss_dice")
            self.headline = "PQ"
        if recipe.stage == "masks" and self.initial.categories != self.dataset.categories:
            raise ValueError(
                f"{recipe.initial} detects {', '.join(self.initial.class_names)}; masks alone can only be learned for "
                f"the classes of the data, {', '.join(self.dataset.categories.names)}: train its boxes first, with "
                "--set stage=boxes, or both together, with --set stage=joint"
            )

    def _load(self, name: str) -> DETR:
        try:
            model = load(name)
        except FileNotFoundError as error:
            if self.recipe.stage != "masks":
                raise
            raise FileNotFoundError(
                f"{error}. Masks alone are learned on top of a detector of the same things and stuff: train it first, "
                "as minivis train panoptic-r50-coco-boxes does, or name one with --from"
            ) from None
        if not isinstance(model, DETRsegm):
            return model
        self.initial_masks = model
        return detector_of(model)

    def _scenes(self, split: Split, size: int | None = None) -> PanopticDataset:
        return Scenes(split, size=size, stuff=True)

    def _folder(self, split: str, **options: Any) -> CocoPanoptic:
        return CocoPanoptic(self.recipe.data, split, masks=self.recipe.stage != "boxes", **options)

    def weights(self) -> dict[str, float]:
        recipe = self.recipe
        of_masks = {"loss_mask": recipe.mask_weight, "loss_dice": recipe.dice_weight}
        match recipe.stage:
            case "boxes":
                return super().weights()
            case "masks":
                return of_masks
            case "joint":
                return super().weights() | of_masks

    def _detector_config(self) -> DETRConfig:
        return self.recipe.model.detr

    def _build_detector(self) -> DETR | DETRsegm:
        detr, recipe = super()._build_detector(), self.recipe
        if recipe.stage == "boxes":
            return detr
        model = DETRsegm(detr, recipe.stage == "masks", **recipe.model.of_masks)
        if self.initial_masks:
            adopt_masks(model, self.initial_masks)
        return model

    def lr_of(self, name: str) -> float:
        """The learning rate of a parameter: what makes masks may have one of its own as well."""
        makes_masks = name.startswith(("bbox_attention.", "mask_head."))
        return self.recipe.mask_lr if makes_masks and self.recipe.mask_lr is not None else super().lr_of(name)

    def _losses(self, model: Any, batch: DetectionBatch, step: StepSize) -> dict[str, Tensor]:
        if self.recipe.stage == "boxes":
            return super()._losses(model, batch, step)
        return self.criterion.with_matched_masks(model, batch.images, batch.targets, step.normalisers)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        if self.recipe.stage == "boxes":
            return super().evaluate(model)
        recipe = self.recipe
        return evaluate_panoptic(
            model, self.validation, bad_items=self.bad_items, progress=False, max_images=recipe.eval_images,
            workers=recipe.workers,
        )  # fmt: skip


def adopt_masks(model: DETRsegm, source: DETRsegm) -> None:
    """Gives a model the mask head of another one with the same layers; its detector stays as it is."""
    weights = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("detr.")}
    model.load_state_dict(model.state_dict() | weights)
