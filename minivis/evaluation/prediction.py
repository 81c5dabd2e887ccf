"""What a model sees in one picture: results in COCO's format, and a drawing of those it is sure of."""

from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from minivis.detr import DETR, DETRsegm, Panoptic, Segmenter, postprocess
from minivis.evaluation.detection import results_of
from minivis.evaluation.draw import draw_detections, draw_panoptic
from minivis.evaluation.segmentation import enlarged, instance_results


class Seen(NamedTuple):
    """What was found in a picture, in its own pixels."""

    results: list[dict[str, Any]]  # in COCO's results format, all of them; of a panoptic model with masks
    labels: list[int]  # of what is drawn
    drawing: Image.Image
    panoptic: Panoptic | None = None  # of a panoptic model


def see(
    model: DETR | DETRsegm,
    picture: Image.Image,
    pixels: Tensor,
    image_id: int = 1,
    threshold: float | None = None,
    map_size: tuple[int, int] | None = None,
) -> Seen:
    """A loaded model on one picture.

    Args:
        model: with its `categories`.
        picture: what is drawn on; results are in its pixels.
        pixels: (3, h, w), the picture as the model wants it.
        image_id: of the results.
        threshold: the least score that is drawn. None: 0.5 for boxes, the model's own for segments.
        map_size: (height, width) that masks are made in, to be enlarged to the picture's, pixel by pixel; None: the
            picture's own. Of a photograph of 12 megapixels twenty masks would be a gigabyte, and no finer.
    """
    pixels = pixels.to(next(model.parameters()).device)
    if isinstance(model, DETRsegm):
        size = (picture.height, picture.width) if map_size is None else map_size
        return _segments(model, picture, pixels, image_id, threshold, size)
    return _boxes(model, picture, pixels, image_id, 0.5 if threshold is None else threshold)


@torch.inference_mode()
def _boxes(model: DETR, picture: Image.Image, pixels: Tensor, image_id: int, threshold: float) -> Seen:
    (found,) = postprocess(model([pixels]), [(picture.height, picture.width)])
    found = {name: values.cpu() for name, values in found.items()}
    return Seen(
        results_of([found], [image_id], model.categories),
        found["labels"][found["scores"] >= threshold].tolist(),
        draw_detections(picture, found, model.class_names, threshold),
    )


@torch.inference_mode()
def _segments(
    model: DETRsegm,
    picture: Image.Image,
    pixels: Tensor,
    image_id: int,
    threshold: float | None,
    size: tuple[int, int],
) -> Seen:
    categories, own_size = model.categories, (picture.height, picture.width)
    seen = Segmenter(model, [pixels], [size])
    ids, segments = seen.panoptic_of(0, categories.things, threshold, categories.stuff)
    panoptic = Panoptic(enlarged(ids.cpu(), own_size), segments)
    found = seen.instances_of(0, things=categories.things)
    by = torch.tensor([own_size[1] / size[1], own_size[0] / size[0]] * 2, device=found["boxes"].device)
    found["boxes"] = found["boxes"] * by
    return Seen(
        instance_results(found, image_id, categories, own_size),
        [segment.label for segment in segments],
        draw_panoptic(picture, panoptic, model.class_names),
        panoptic,
    )
