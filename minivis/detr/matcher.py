"""One prediction for every object, one object for at most one prediction, at the least total cost (section 3.1)."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minivis.boxes import cxcywh_to_xyxy, generalized_box_iou
from minivis.detr.targets import PaddedTargets, explain_broken_targets, image_name, pad_targets

Matching = list[tuple[Tensor, Tensor]]


class HungarianMatcher:
    """Finds the assignment of objects to queries that costs least.

        cost(query, object) = − cost_class · p(class of the object)
                              + cost_bbox · ‖box − box of the object‖₁
                              − cost_giou · GIoU(box, box of the object)

    The class part is a probability, not a cross-entropy: it is then of the same size as the other two.
    scipy solves each image's problem with a modified Jonker–Volgenant algorithm, O(n³).
    """

    def __init__(self, cost_class: float = 1, cost_bbox: float = 5, cost_giou: float = 2):
        if cost_class == 0 and cost_bbox == 0 and cost_giou == 0:
            raise ValueError("all three matching weights are 0: every assignment would cost the same")
        self.cost_class = cost_class
        self.cost_bbox = cost_bbox
        self.cost_giou = cost_giou

    def __call__(self, outputs: dict, targets: list[dict]) -> Matching:
        """The matching of one layer's predictions.

        Args:
            outputs: `pred_logits` (B, Q, K + 1), `pred_boxes` (B, Q, 4).
            targets: for each image `labels` (N,) and `boxes` (N, 4) as (cx, cy, w, h) in 0..1.

        Returns:
            For each image `(query_idx, target_idx)`, int64 on the CPU, query_idx rising, min(Q, N) pairs.
        """
        log_probability = outputs["pred_logits"][None].float().log_softmax(-1)
        return self.match_layers(log_probability, outputs["pred_boxes"][None].float(), targets)[0]

    @torch.no_grad()
    def match_layers(
        self,
        log_probability: Float[Tensor, "layers batch queries classes"],
        boxes: Float[Tensor, "layers batch queries 4"],
        targets: list[dict],
    ) -> list[Matching]:
        """The matchings of several decoder layers, with a single wait for the device.

        Args:
            log_probability: log softmax of the logits, which the class loss needs as well.
            boxes: (cx, cy, w, h) in 0..1.
            targets: as above.

        Raises:
            ValueError: if a target is broken; it names image and annotation.
            FloatingPointError: if a prediction is not finite; it names layer and image.
        """
        num_classes = log_probability.shape[-1] - 1
        cost = self.cost(log_probability, boxes, pad_targets(targets, num_classes, boxes.device))
        # One column more: 0, or NaN if the prediction is not finite. It looks at images without objects too.
        probe = 0 * (log_probability.sum(-1) + boxes.sum(-1))
        cost = torch.cat([cost, probe[..., None]], dim=-1).cpu().numpy()  # the one wait

        if not np.isfinite(cost).all():
            explain_broken_targets(targets, num_classes)
            layer, image, *_ = np.argwhere(~np.isfinite(cost))[0].tolist()
            raise FloatingPointError(
                f"the predictions of decoder layer {layer} for image {image_name(targets, image)} are not finite"
            )
        counts = [len(target["labels"]) for target in targets]
        return [
            [
                tuple(torch.from_numpy(index) for index in linear_sum_assignment(block[:, :count]))
                for block, count in zip(layer, counts, strict=True)
            ]
            for layer in cost
        ]

    def cost(
        self,
        log_probability: Float[Tensor, "layers batch queries classes"],
        boxes: Float[Tensor, "layers batch queries 4"],
        targets: PaddedTargets,
    ) -> Float[Tensor, "layers batch queries objects"]:
        """Each image's queries against its own objects only; NaN in the columns of broken objects.

        Images with fewer objects than the largest have columns of no meaning at the end.
        """
        layers, _, queries, _ = log_probability.shape
        labels = targets.labels[None, :, None, :].expand(layers, -1, queries, -1)
        of_class = log_probability.gather(-1, labels).exp()
        distance = torch.cdist(boxes, targets.boxes.expand(layers, -1, -1, -1), p=1)
        giou = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets.boxes)[None])
        cost = self.cost_bbox * distance - self.cost_class * of_class - self.cost_giou * giou
        return cost.masked_fill(targets.broken[:, None, :], float("nan"))
