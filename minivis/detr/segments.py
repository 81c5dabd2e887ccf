"""From a model with a mask head to results: a panoptic map, or objects each with a mask of its own."""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minivis.detr.merge import Panoptic, merge_masks
from minivis.detr.panoptic import DETRsegm
from minivis.detr.postprocess import postprocess
from minivis.images import ImageBatch, as_image_batch


def predict_panoptic(
    model: DETRsegm,
    images: ImageBatch | Tensor | list[Tensor],
    things: Collection[int],
    image_sizes: Sequence[tuple[int, int]] | None = None,
    threshold: float = 0.85,
) -> list[Panoptic]:
    """The segments of each image; see `Segmenter`."""
    return Segmenter(model, images, image_sizes).panoptic(things, threshold)


def predict_instances(
    model: DETRsegm,
    images: ImageBatch | Tensor | list[Tensor],
    image_sizes: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Tensor]]:
    """The objects of each image, with masks that may overlap; see `Segmenter`."""
    return Segmenter(model, images, image_sizes).instances()


class Segmenter:
    """What a model sees in some images. The detector runs once; masks are made of the queries that need one.

    Args:
        model: in evaluation mode.
        images: as the model takes them.
        image_sizes: (height, width) in pixels that the results are wanted in; None: of the images as they are given.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: DETRsegm,
        images: ImageBatch | Tensor | list[Tensor],
        image_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.model, images = model, as_image_batch(images)
        within = ~images.padding_mask
        self.padded_size = tuple(images.pixels.shape[-2:])
        self.own_sizes = torch.stack([within.any(2).sum(1), within.any(1).sum(1)], dim=1).tolist()
        self.sizes = self.own_sizes if image_sizes is None else [list(map(int, size)) for size in image_sizes]
        if len(self.sizes) != len(self.own_sizes):
            raise ValueError(f"expected the sizes of {len(self.own_sizes)} images, got {len(self.sizes)}")
        self.outputs, self.inputs = model.detect(images)

    @torch.no_grad()
    def panoptic(self, things: Collection[int], threshold: float = 0.85) -> list[Panoptic]:
        """The segments of each image, from the queries whose best class is an object with a score above `threshold`.

        `things` are the labels whose objects are counted; all others are stuff.
        """
        scores, labels = self.outputs["pred_logits"].float().softmax(-1).max(-1)
        sure = (labels < self.model.num_classes) & (scores > threshold)
        queries = [one.nonzero()[:, 0] for one in sure]
        return [
            merge_masks(masks, labels[i, chosen], scores[i, chosen], things, chosen.tolist())
            for i, (chosen, masks) in enumerate(zip(queries, self.masks(queries), strict=True))
        ]

    @torch.no_grad()
    def instances(self, most: int = 100) -> list[dict[str, Tensor]]:
        """For each image what `postprocess` gives, of the `most` surest queries, and their `masks` (N, H, W), bool."""
        results = postprocess(self.outputs, [tuple(size) for size in self.sizes])
        results = [{name: values[:most] for name, values in found.items()} for found in results]
        masks = self.masks([found["queries"] for found in results])
        # a logit above 0 is a probability above one half
        return [found | {"masks": own > 0} for found, own in zip(results, masks, strict=True)]

    def masks(self, queries: Sequence[Tensor]) -> list[Float[Tensor, "_ height width"]]:
        """The mask logits of some queries of each image, in pixels of the results."""
        counts = torch.tensor([len(chosen) for chosen in queries])
        image = torch.arange(len(queries)).repeat_interleave(counts)
        coarse = self.model.masks_of(self.inputs, image, torch.cat(list(queries))).float()
        return [self._stretched(own, i) for i, own in enumerate(coarse.split(counts.tolist()))]

    def _stretched(self, masks: Float[Tensor, "n h w"], i: int) -> Float[Tensor, "n height width"]:
        """To the pixels of the padded batch; without the padding; to the size that is wanted."""
        (height, width), size = self.own_sizes[i], self.sizes[i]
        if not len(masks):
            return masks.new_zeros(0, *size)
        full = F.interpolate(masks[:, None], self.padded_size, mode="bilinear")[..., :height, :width]
        if size != [height, width]:
            full = F.interpolate(full, tuple(size), mode="bilinear")
        return full[:, 0]
