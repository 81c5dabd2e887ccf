"""Small random problems that the tests of DETR share."""

import numpy as np
import torch

from minivis.detr import DETRConfig

TINY = dict(
    num_classes=4,
    num_queries=5,
    backbone="small",
    backbone_channels=(8, 16),
    d_model=16,
    num_heads=2,
    encoder_layers=2,
    decoder_layers=3,
    dim_feedforward=32,
    dropout=0.0,
)


def tiny_config(**changes) -> DETRConfig:
    """A DETR of a few thousand parameters: stride 4, three decoder layers."""
    return DETRConfig(**(TINY | changes))


def random_outputs(
    layers=1, batch=2, queries=5, num_classes=4, seed=0, dtype=torch.float32, requires_grad=False
):
    """What a model gives: `pred_logits`, `pred_boxes`, and `aux_outputs` for all layers but the last."""
    generator = torch.Generator().manual_seed(seed)
    outputs = []
    for _ in range(layers):
        logits = torch.randn(batch, queries, num_classes + 1, generator=generator, dtype=dtype)
        boxes = torch.randn(batch, queries, 4, generator=generator, dtype=dtype).sigmoid()
        outputs.append(
            {
                "pred_logits": logits.requires_grad_(requires_grad),
                "pred_boxes": boxes.requires_grad_(requires_grad),
            }
        )
    return {**outputs[-1], "aux_outputs": outputs[:-1]}


def random_targets(counts, num_classes=4, seed=0):
    """One target for each image, with so many objects; all boxes lie within the image."""
    generator = torch.Generator().manual_seed(seed + 1000)
    targets = []
    for image, count in enumerate(counts):
        size = torch.rand(count, 2, generator=generator) * 0.5 + 0.05
        centre = size / 2 + torch.rand(count, 2, generator=generator) * (1 - size)
        targets.append(
            {
                "labels": torch.randint(0, num_classes, (count,), generator=generator),
                "boxes": torch.cat([centre, size], dim=1),
                "image_id": 100 + image,
                "annotation_ids": [10 * (100 + image) + j for j in range(count)],
            }
        )
    return targets


def layers_of(outputs):
    return [*outputs["aux_outputs"], outputs]


def giou_by_hand(a, b):
    """GIoU of two boxes (cx, cy, w, h), written out with scalars (floats or 0-dim tensors)."""
    (al, at, ar, ab), (bl, bt, br, bb) = (
        (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2) for cx, cy, w, h in (a, b)
    )
    width, height = min(ar, br) - max(al, bl), min(ab, bb) - max(at, bt)
    overlap = width * height if width > 0 and height > 0 else 0.0
    union = (ar - al) * (ab - at) + (br - bl) * (bb - bt) - overlap
    hull = (max(ar, br) - min(al, bl)) * (max(ab, bb) - min(at, bt))
    return overlap / union - (hull - union) / hull


def cost_by_hand(logits, boxes, target, weights=(1, 5, 2)):
    """The matcher's cost[query][object] for one image, with scalars."""
    cost = np.zeros((len(logits), len(target["labels"])))
    for q in range(len(logits)):
        exps = np.exp(logits[q].double().numpy() - float(logits[q].max()))
        for j in range(cost.shape[1]):
            a, b = boxes[q].double().tolist(), target["boxes"][j].double().tolist()
            probability = exps[int(target["labels"][j])] / exps.sum()
            distance = sum(abs(x - y) for x, y in zip(a, b, strict=True))
            cost[q, j] = -weights[0] * probability + weights[1] * distance - weights[2] * giou_by_hand(a, b)
    return cost
