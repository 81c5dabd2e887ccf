"""DETR's loss: matched queries learn class, box and mask, the others to say "no object" (section 3.1, A.2, 4.4)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivis.boxes import cxcywh_to_xyxy, paired_generalized_box_iou
from minivis.detr.mask_losses import dice_loss, pad_masks, sigmoid_focal_loss
from minivis.detr.matcher import HungarianMatcher, Matching
from minivis.images import ImageBatch

WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}  # the paper's
MASK_WEIGHTS = {"loss_mask": 1.0, "loss_dice": 1.0}  # likewise


class Normalisers(NamedTuple):
    """What sums are divided by: totals of all processes over their number, so that losses average to the joint one."""

    boxes: float | Tensor
    class_weights: float | Tensor


class Matched(NamedTuple):
    """The matched pairs of all layers, layer by layer, as indices into stacked predictions and joined targets."""

    layer: Int[Tensor, " pairs"]
    image: Int[Tensor, " pairs"]
    query: Int[Tensor, " pairs"]
    target: Int[Tensor, " pairs"]
    layers: int

    @property
    def last_layer(self) -> tuple[Tensor, Tensor, Tensor]:
        """(image, query, target) of the last layer's pairs; every layer has as many as any other."""
        first = len(self.layer) - len(self.layer) // self.layers
        return self.image[first:], self.query[first:], self.target[first:]


class SetCriterion(nn.Module):
    """Losses of all decoder layers, each with its own matching.

    Args:
        num_classes: K; class number K means "no object".
        matcher: gives the pairs.
        weight_dict: what each loss counts in `weighted_sum`; a layer's `loss_ce_0` counts as `loss_ce`, unless named.
            None: as in the paper, 1, 5, 2 for class, L1, GIoU, and with "masks" 1 and 1 for `loss_mask`, `loss_dice`.
        eos_coef: the weight of "no object" in the class loss. Most queries have no object, so it is small: 0.1.
        losses: out of "labels", "boxes", "cardinality", "masks".
    """

    def __init__(
        self,
        num_classes: int,
        matcher: HungarianMatcher,
        weight_dict: dict[str, float] | None = None,
        eos_coef: float = 0.1,
        losses: Sequence[str] = ("labels", "boxes", "cardinality"),
    ):
        super().__init__()
        self.available = {
            "labels": self.loss_labels,
            "boxes": self.loss_boxes,
            "cardinality": self.loss_cardinality,
            "masks": self.loss_masks,
        }
        unknown = set(losses) - set(self.available)
        if unknown:
            raise ValueError(
                f"losses are out of {', '.join(self.available)}; got {', '.join(sorted(unknown))}"
            )
        self.num_classes = num_classes
        self.matcher = matcher
        if weight_dict is None:
            weight_dict = WEIGHTS | (MASK_WEIGHTS if "masks" in losses else {})
        self.weight_dict = dict(weight_dict)
        self.eos_coef = eos_coef
        self.losses = tuple(losses)
        class_weight = torch.ones(num_classes + 1)
        class_weight[-1] = eos_coef
        self.register_buffer("class_weight", class_weight)

    def forward(
        self,
        outputs: dict,
        targets: list[dict],
        normalisers: Normalisers | None = None,
        matched: Matched | None = None,
    ) -> dict[str, Tensor]:
        """Losses, not yet weighted, each a scalar.

        Args:
            outputs: `pred_logits` (B, Q, K + 1), `pred_boxes` (B, Q, 4), perhaps `aux_outputs`; for "masks" also
                `pred_masks`, of all queries (B, Q, h, w), or only of the last layer's matched pairs (pairs, h, w).
            targets: for each image `labels` (N,) and `boxes` (N, 4) as (cx, cy, w, h) in 0..1; for "masks" also
                `masks` (N, H, W), bool, in the pixels of the image as the model was given it.
            normalisers: of the whole optimiser step, if this is a part of it. Otherwise this batch's own.
            matched: what `match` gave, if it was asked before.

        Returns:
            `loss_ce`, `loss_bbox`, `loss_giou`, `loss_mask`, `loss_dice`, and to be read only `class_error` (%),
            `cardinality_error`. Those of earlier decoder layers end in `_0`, `_1`, and so on; masks have none.
        """
        if matched is None:
            matched = self.match(outputs, targets)
        log_probability, boxes = stacked(outputs)
        if normalisers is None:
            normalisers = self.normalisers([targets], log_probability.shape[2])

        losses = {}
        for name in self.losses:
            if name == "masks":
                losses |= self.loss_masks(outputs, targets, matched, normalisers)
                continue
            for key, per_layer in self.available[name](
                log_probability, boxes, targets, matched, normalisers
            ).items():
                *earlier, losses[key] = per_layer.unbind()
                losses |= {f"{key}_{i}": value for i, value in enumerate(earlier)}
        return losses

    @torch.no_grad()
    def match(self, outputs: dict, targets: list[dict]) -> Matched:
        """The matched pairs of all decoder layers: which queries need a mask is known before masks are made."""
        if len(targets) != len(outputs["pred_logits"]):
            raise ValueError(
                f"{len(outputs['pred_logits'])} images were predicted, but there are {len(targets)} targets"
            )
        if outputs["pred_logits"].shape[-1] != self.num_classes + 1:
            raise ValueError(
                f"expected {self.num_classes + 1} class logits ({self.num_classes} classes and no object), "
                f"got {outputs['pred_logits'].shape[-1]}"
            )
        log_probability, boxes = stacked(outputs)
        return joined_pairs(self.matcher.match_layers(log_probability, boxes, targets), targets, boxes.device)

    def with_matched_masks(
        self,
        model: Callable[..., dict],
        images: ImageBatch,
        targets: list[dict],
        normalisers: Normalisers | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a `DETRsegm`, called once: between boxes and masks comes the matching, and only matched queries
        get a mask.

        Args:
            model: called with the images, and with the choice of queries that `DETRsegm.forward` asks for.
        """
        matched: Matched

        def choose(outputs: dict) -> tuple[Tensor, Tensor]:
            nonlocal matched
            matched = self.match(outputs, targets)
            image, query, _ = matched.last_layer
            return image, query

        return self(model(images, choose), targets, normalisers, matched)

    def loss_labels(
        self, log_probability, boxes, targets, matched, normalisers
    ) -> dict[str, Float[Tensor, " _"]]:
        """Cross-entropy of every query: L = Σ w(c) · (−log p(c)) / Σ w(c), where w is `eos_coef` for no object, else 1.

        Beside it, of the last layer alone, how many of the matched queries are not surest of the right class, in %.
        """
        target_class = torch.full(log_probability.shape[:3], self.num_classes, device=log_probability.device)
        labels = torch.cat([target["labels"] for target in targets])[matched.target]
        target_class[matched.layer, matched.image, matched.query] = labels
        ce = F.nll_loss(
            log_probability.flatten(0, 2), target_class.flatten(), self.class_weight, reduction="none"
        )
        loss = ce.view(target_class.shape).sum((1, 2)) / normalisers.class_weights

        with torch.no_grad():
            pairs = len(labels) // len(log_probability)  # of one layer, as of any other
            image, query, true = (index[-pairs:] for index in (matched.image, matched.query, labels))
            wrong = log_probability[-1, image, query].argmax(-1) != true
            error = 100 * wrong.sum() / max(pairs, 1)
        return {"loss_ce": loss, "class_error": error[None]}

    def loss_boxes(
        self, log_probability, boxes, targets, matched, normalisers
    ) -> dict[str, Float[Tensor, " layers"]]:
        """L1 = Σ ‖b − b*‖₁ / N and GIoU loss = Σ (1 − GIoU(b, b*)) / N over the matched pairs; N counts true boxes."""
        predicted = boxes[matched.layer, matched.image, matched.query]
        true = torch.cat([target["boxes"] for target in targets]).float()[matched.target]
        distance = (predicted - true).abs().sum(-1)
        giou = paired_generalized_box_iou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(true))
        # Every layer has as many pairs as any other, so a row is a layer.
        sums = torch.stack([distance, 1 - giou]).view(2, len(boxes), -1).sum(-1) / normalisers.boxes
        return {"loss_bbox": sums[0], "loss_giou": sums[1]}

    @torch.no_grad()
    def loss_cardinality(
        self, log_probability, boxes, targets, matched, normalisers
    ) -> dict[str, Float[Tensor, " layers"]]:
        """How far the number of predicted objects is from the true number: for people to read, without gradient."""
        predicted = (log_probability.amax(-1) > log_probability[..., -1]).sum(-1).float()
        true = torch.tensor([float(len(target["labels"])) for target in targets]).to(
            log_probability.device, non_blocking=True
        )
        return {"cardinality_error": (predicted - true).abs().mean(-1)}

    def loss_masks(
        self, outputs: dict, targets: list[dict], matched: Matched, normalisers: Normalisers
    ) -> dict[str, Float[Tensor, ""]]:
        """Focal loss Σ (mean over pixels) / N and dice loss Σ / N over the last layer's pairs, at full resolution.

        True masks are padded to the largest, as the images were, and predictions stretched to that size: the padding
        of the images must be that of the masks. Padding counts as "not the object", as in the paper's code; so the
        mean over pixels, unlike the other losses, depends a little on which images are in a batch together.
        """
        image, query, target = matched.last_layer
        predicted = outputs["pred_masks"]
        if predicted.ndim == 4:
            predicted = predicted[image, query]
        if len(predicted) != len(target):
            raise ValueError(f"expected masks of the {len(target)} matched queries, got {len(predicted)}")
        true = pad_masks(targets)[target].to(predicted.device, torch.float32)
        predicted = F.interpolate(predicted[:, None].float(), true.shape[-2:], mode="bilinear")[:, 0]
        focal = sigmoid_focal_loss(predicted, true).mean((1, 2))
        dice = dice_loss(predicted, true)
        return {"loss_mask": focal.sum() / normalisers.boxes, "loss_dice": dice.sum() / normalisers.boxes}

    def normalisers(self, steps_targets: Sequence[list[dict]], num_queries: int) -> Normalisers:
        """The number of boxes, at least 1, and the sum of class weights: over a step's micro-batches and all processes.

        The paper's code averages the number of boxes over the processes and leaves the class weights to each process;
        here both are joint, so that several processes give the loss that one would give for the whole batch.
        """
        counts = [len(target["labels"]) for targets in steps_targets for target in targets]
        matched = sum(min(count, num_queries) for count in counts)
        sums = [float(sum(counts)), matched + self.eos_coef * (len(counts) * num_queries - matched)]
        if not (dist.is_available() and dist.is_initialized()):
            return Normalisers(max(sums[0], 1.0), max(sums[1], 1e-8))
        total = torch.tensor(sums, device=self.class_weight.device)
        dist.all_reduce(total)
        world = dist.get_world_size()
        return Normalisers(total[0].clamp(min=1) / world, total[1].clamp(min=1e-8) / world)

    def weighted_sum(self, losses: dict[str, Tensor]) -> Tensor:
        """L = Σ weight · loss over all layers: what is differentiated."""
        total = 0
        for key, value in losses.items():
            base = key.rstrip("0123456789").rstrip("_") if key[-1].isdigit() else key
            weight = self.weight_dict.get(key, self.weight_dict.get(base))
            if weight is not None:
                total = total + weight * value
        if not isinstance(total, Tensor):
            raise ValueError(
                f"there are weights for {', '.join(self.weight_dict)}, and none for any of {', '.join(losses)}"
            )
        return total


def stacked(
    outputs: dict,
) -> tuple[Float[Tensor, "layers batch queries classes"], Float[Tensor, "layers batch queries 4"]]:
    """All layers' log-probabilities of the classes, and boxes, the last layer at the end, in float32."""
    layers = [*outputs.get("aux_outputs", []), outputs]
    logits = torch.stack([layer["pred_logits"] for layer in layers]).float()
    boxes = torch.stack([layer["pred_boxes"] for layer in layers]).float()
    return logits.log_softmax(-1), boxes


def joined_pairs(matchings: list[Matching], targets: list[dict], device: torch.device) -> Matched:
    """All layers' matchings as four index tensors, sent to the device at once."""
    pairs = torch.tensor([len(query) for query, _ in matchings[0]])  # of each image; the same in every layer
    objects = torch.tensor([len(target["labels"]) for target in targets])
    layer = torch.arange(len(matchings)).repeat_interleave(pairs.sum())
    image = torch.arange(len(targets)).repeat_interleave(pairs).repeat(len(matchings))
    query, target = (torch.cat(side) for side in zip(*(p for m in matchings for p in m), strict=True))
    first = objects.cumsum(0) - objects  # where an image's objects begin among all
    pairs = torch.stack([layer, image, query, target + first[image]]).to(device, non_blocking=True)
    return Matched(*pairs, layers=len(matchings))
