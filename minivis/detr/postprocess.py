"""From a model's outputs to detections: scores, classes and boxes in pixels."""

import torch
from jaxtyping import Int
from torch import Tensor

from minivis.boxes import cxcywh_to_xyxy


@torch.no_grad()
def postprocess(
    outputs: dict, image_sizes: Int[Tensor, "batch 2"] | list[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """What each query found, the surest first.

    Every query keeps its best class that is not "no object", however low its score: COCO's average precision ranks
    detections, and the paper gains 2 AP by not throwing any away (section 4). Whoever wants a picture sets a threshold.

    Args:
        outputs: `pred_logits` (B, Q, K + 1), `pred_boxes` (B, Q, 4) in fractions of the image.
        image_sizes: (height, width) in pixels of each image that the boxes are to be given in.

    Returns:
        For each image `scores` (Q,), `labels` (Q,), `queries` (Q,), which of them it was, and `boxes` (Q, 4) as
        (left, top, right, bottom) in pixels. A box may reach beyond the image, as it does where published results
        were measured.

    Raises:
        ValueError: if there is not one size for each image.
    """
    probability = outputs["pred_logits"].float().softmax(-1)
    scores, labels = probability[..., :-1].max(-1)
    scores, order = scores.sort(dim=-1, descending=True, stable=True)
    labels = labels.gather(-1, order)
    boxes = cxcywh_to_xyxy(outputs["pred_boxes"].float())
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    sizes = torch.as_tensor(image_sizes, device=boxes.device)
    if sizes.shape != (len(boxes), 2):
        raise ValueError(
            f"expected (height, width) of {len(boxes)} images, got sizes of shape {tuple(sizes.shape)}"
        )
    height, width = sizes.unbind(-1)
    boxes = boxes * torch.stack([width, height, width, height], dim=-1)[:, None, :]
    return [
        {"scores": s, "labels": c, "boxes": b, "queries": q}
        for s, c, b, q in zip(scores, labels, boxes, order, strict=True)
    ]
