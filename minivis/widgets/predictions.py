"""What widgets take of a model's predictions and of a picture: checked, and small enough to send to a browser."""

import io
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

LONGEST_SIDE = 512  # pixels; a widget shows no picture larger


def one_image(outputs: dict[str, Any], image: int) -> tuple[Tensor, Tensor]:
    """Logits (Q, K + 1) and boxes (Q, 4) of one image, on the CPU."""
    logits, boxes = (
        outputs["pred_logits"].detach().float().cpu(),
        outputs["pred_boxes"].detach().float().cpu(),
    )
    if logits.ndim == 2 and boxes.ndim == 2:
        logits, boxes = logits[None], boxes[None]
    if logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4) or not logits.shape[1]:
        raise ValueError(
            "expected pred_logits (batch, queries, classes + 1) and pred_boxes (batch, queries, 4), or both without "
            f"batch, got {tuple(outputs['pred_logits'].shape)} and {tuple(outputs['pred_boxes'].shape)}"
        )
    if not 0 <= image < len(logits):
        raise ValueError(f"image {image}: the outputs are of {len(logits)} images")
    if not (logits[image].isfinite().all() and boxes[image].isfinite().all()):
        raise ValueError(f"the predictions for image {image} are not finite")
    return logits[image], boxes[image]


def rounded(values: Tensor) -> list:
    """The digits that float32 has, without those that float64 would add."""
    return [[round(value, 7) for value in row] for row in values.tolist()]


def as_png(picture: Image.Image | Tensor) -> bytes:
    """A picture of at most `LONGEST_SIDE` pixels a side, as a PNG; tensors are (3, H, W)."""
    if not isinstance(picture, Image.Image | Tensor):
        raise TypeError(f"expected a PIL picture or a tensor (3, H, W), got {type(picture).__name__}")
    picture = (to_pil_image(picture) if isinstance(picture, Tensor) else picture).convert("RGB")
    if max(picture.size) > LONGEST_SIDE:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    png = io.BytesIO()
    picture.save(png, format="png", optimize=True)
    return png.getvalue()
