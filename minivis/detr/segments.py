"""From a model with a mask head to results: a panoptic map, or objects each with a mask of its own."""

from collections.abc import Collection, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from minivis.detr.merge import Panoptic, merge_masks
from minivis.detr.panoptic import DETRsegm, MaskInputs
from minivis.detr.postprocess import postprocess
from minivis.images import ImageBatch, as_image_batch

AT_ONCE = (
    2**24
)  # pixels of all masks that are made together: 64 MiB of floats, and some times that in the head


def predict_panoptic(
    model: DETRsegm,
    images: ImageBatch | Tensor | list[Tensor],
    things: Collection[int],
    image_sizes: Sequence[tuple[int, int]] | None = None,
    threshold: float | None = None,
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

    Masks take the most memory: 100 of them for a picture of 1333 by 800 pixels are 427 MB of floats. So they are made
    image by image, and of no more queries at once than `AT_ONCE` allows.

    Args:
        model: in evaluation mode.
        images: as the model takes them.
        image_sizes: (height, width) in pixels that the results are wanted in; None: of the images as they are given.

    Raises:
        ValueError: if there is not one size for each image.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: DETRsegm,
        images: ImageBatch | Tensor | list[Tensor],
        image_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.model, images = model, as_image_batch(images)
        self.padded_size = tuple(images.pixels.shape[-2:])
        self.own_sizes = images.sizes
        self.sizes = self.own_sizes if image_sizes is None else [(int(h), int(w)) for h, w in image_sizes]
        if len(self.sizes) != len(self.own_sizes):
            raise ValueError(f"expected the sizes of {len(self.own_sizes)} images, got {len(self.sizes)}")
        self.outputs, self.inputs = model.detect(images)

    def panoptic(
        self,
        things: Collection[int],
        threshold: float | None = None,
        stuff: Collection[int] | None = None,
        overlap: float = 0.0,
    ) -> list[Panoptic]:
        """The segments of each image; see `panoptic_of`."""
        return [self.panoptic_of(i, things, threshold, stuff, overlap) for i in range(len(self.sizes))]

    def instances(self, most: int = 100, things: Collection[int] | None = None) -> list[dict[str, Tensor]]:
        """The objects of each image; see `instances_of`."""
        return [self.instances_of(i, most, things) for i in range(len(self.sizes))]

    @torch.no_grad()
    def panoptic_of(
        self,
        i: int,
        things: Collection[int],
        threshold: float | None = None,
        stuff: Collection[int] | None = None,
        overlap: float = 0.0,
    ) -> Panoptic:
        """The segments of image i, from the queries whose best class is an object with a score above `threshold`.

        Args:
            things: the labels whose objects are counted.
            threshold: None: the model's `score_threshold`.
            stuff: the labels of stuff; None: all others. A query whose best class is neither (a label that no category
                has, as there are among COCO's) takes no part.
            overlap: the least share of its own mask that a segment must win; see `merge_masks`. 0: as in the paper.
        """
        scores, labels = self.outputs["pred_logits"][i].float().softmax(-1).max(-1)
        threshold = self.model.score_threshold if threshold is None else threshold
        known = set(range(self.model.num_classes)) if stuff is None else {*things, *stuff}
        is_known = torch.tensor([label in known for label in labels.tolist()], device=labels.device)
        queries = (is_known & (scores > threshold)).nonzero()[:, 0]
        masks = torch.cat([*self._masks(i, queries)])
        return merge_masks(masks, labels[queries], scores[queries], things, queries.tolist(), overlap=overlap)

    @torch.no_grad()
    def instances_of(
        self, i: int, most: int = 100, things: Collection[int] | None = None
    ) -> dict[str, Tensor]:
        """What `postprocess` gives for image i, of the `most` surest queries, and their `masks` (N, H, W), bool.

        With `things` only of those whose best class is one of these labels.
        """
        own = {name: self.outputs[name][i : i + 1] for name in ("pred_logits", "pred_boxes")}
        (found,) = postprocess(own, [self.sizes[i]])
        kept = [
            place for place, label in enumerate(found["labels"].tolist()) if things is None or label in things
        ]
        found = {name: values[kept[:most]] for name, values in found.items()}
        # a logit above 0 is a probability above one half
        return found | {"masks": torch.cat([masks > 0 for masks in self._masks(i, found["queries"])])}

    def _masks(self, i: int, queries: Int[Tensor, " n"]) -> Iterator[Float[Tensor, "_ height width"]]:
        """The mask logits of some queries of image i, in pixels of the result: some after some."""
        of_image = slice(i, i + 1)  # the head works on all images that it is given
        x, attention, fpns = self.inputs
        inputs = MaskInputs(x[of_image], attention[of_image], [finer[of_image] for finer in fpns])
        height, width = self.padded_size
        for some in queries.split(max(1, AT_ONCE // (height * width))):
            yield self._stretched(self.model.masks_of(inputs, torch.zeros_like(some), some).float(), i)

    def _stretched(self, masks: Float[Tensor, "n h w"], i: int) -> Float[Tensor, "n height width"]:
        """To the pixels of the padded batch; without the padding; to the size that is wanted."""
        (height, width), size = self.own_sizes[i], self.sizes[i]
        if not len(masks):
            return masks.new_zeros(0, *size)
        full = F.interpolate(masks[:, None], self.padded_size, mode="bilinear")[..., :height, :width]
        if size != (height, width):
            full = F.interpolate(full, size, mode="bilinear")
        return full[:, 0]
