"""Which query owns which object, recorded while a model is trained.

Fresh queries answer nearly the same, so which of them is the cheapest for an object changes from step to step, and with
it the query that is taught this object. Once a query has learned its part, objects like this one stay with it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from minivis.boxes import cxcywh_to_xyxy
from minivis.detr import HungarianMatcher
from minivis.detr.targets import pad_targets
from minivis.evaluation.draw import PALETTE
from minivis.images import ImageBatch, as_image_batch

NOBODY = -1  # owns an object that is left over because there are more objects than queries

GREY = "#9A9A9A"  # of queries that are left without a colour of their own: they go by their number


@dataclass(frozen=True)
class ImageHistory:
    """One image: what its queries answered at every recorded step, and which of them owned which object."""

    picture: Image.Image
    names: tuple[str, ...]  # the class of each object
    true_boxes: Float[np.ndarray, "objects 4"]  # (left, top, right, bottom) in fractions of the image
    boxes: Float[np.ndarray, "steps queries 4"]  # likewise
    owners: Int[np.ndarray, "steps objects"]  # the query that the matching gives each object to
    probability: Float[np.ndarray, "steps objects"]  # of the object's class, as its owner says
    cost: Float[np.ndarray, " steps"]  # of the whole matching

    @cached_property
    def changed(self) -> Int[np.ndarray, " steps"]:
        """How many objects have another owner than at the record before; 0 at the first.

        DN-DETR (Li et al. 2022) follows the instability of the matching alike, but counts queries, over all images and
        from epoch to epoch: a query that loses its object and one that wins it count both.
        """
        changed = (self.owners[1:] != self.owners[:-1]).sum(axis=1)
        return np.concatenate([[0], changed]).astype(np.int64)

    @cached_property
    def colours(self) -> dict[int, str]:
        """Colours for the queries that own something: for the last owners first, then for those that own longest."""
        longest = Counter(self.owners.ravel().tolist()).most_common()
        queries = dict.fromkeys([*self.owners[-1].tolist(), *(query for query, _ in longest)])
        queries.pop(NOBODY, None)
        return dict(zip(queries, PALETTE))


@dataclass(frozen=True)
class MatchingHistory:
    """What a `MatchingRecorder` has seen.

    Args:
        steps: the training steps that were recorded, rising.
        losses: the loss at each of them, None where it was not given.
        images: the same steps of every image.
    """

    steps: tuple[int, ...]
    losses: tuple[float | None, ...]
    images: tuple[ImageHistory, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("no steps are recorded: call `recorder.record(step, model)` while training")
        if any(later <= step for step, later in pairwise(self.steps)):
            raise ValueError(f"recorded steps must rise, got {self.steps}")
        lengths = {len(self.steps), len(self.losses), *(len(image.owners) for image in self.images)}
        if len(lengths) > 1:
            raise ValueError(f"expected every image and loss to have {len(self.steps)} steps, got {lengths}")


class MatchingRecorder:
    """Looks at the matching of a few fixed images while a model is trained, and leaves the training as it was.

        recorder = MatchingRecorder(batch.images, batch.targets, class_names, pictures)
        for step in range(steps):
            if step % 10 == 0:
                recorder.record(step, model)
            ...
        MatchingReplay(recorder)

    Args:
        images: what the model is called with: normalised pixels, as a list, a tensor or an `ImageBatch`.
        targets: for each image `labels` (N,) and `boxes` (N, 4) as (cx, cy, w, h) in 0..1, at least one object.
        class_names: the name of each label.
        pictures: the same images to look at: PIL pictures or uint8 tensors (3, H, W), without padding.
        matcher: with the training's own weights; None: DETR's.

    Raises:
        ValueError: if these do not belong together; the message names the image.
    """

    def __init__(
        self,
        images: ImageBatch | Tensor | Sequence[Tensor],
        targets: Sequence[dict[str, Any]],
        class_names: Sequence[str],
        pictures: Sequence[Image.Image | Tensor],
        matcher: HungarianMatcher | None = None,
    ) -> None:
        self.images = as_image_batch(images)
        self.targets = list(targets)
        self.class_names = tuple(class_names)
        self.pictures = [p if isinstance(p, Image.Image) else to_pil_image(p.cpu()) for p in pictures]
        self.matcher = matcher or HungarianMatcher()
        counts = len(self.images.pixels), len(self.targets), len(self.pictures)
        if len(set(counts)) > 1:
            raise ValueError(
                "expected as many images as targets and pictures, got {}, {} and {}".format(*counts)
            )
        for i, target in enumerate(self.targets):
            labels = target["labels"].tolist()
            if not labels:
                raise ValueError(f"image {i} has no objects, so no query can own one")
            if not all(0 <= label < len(self.class_names) for label in labels):
                raise ValueError(
                    f"image {i} has labels {labels}, but there are {len(self.class_names)} class names"
                )
        self._steps: list[int] = []
        self._losses: list[float | None] = []
        self._seen: list[
            list[dict[str, np.ndarray]]
        ] = []  # for each step and image, the columns of ImageHistory

    def record(self, step: int, model: nn.Module, loss: Float[Tensor, ""] | float | None = None) -> None:
        """Keep what the model answers now, before or after training step `step`.

        Raises:
            ValueError: if the step does not come after the last one, or the model has other queries or classes.
            FloatingPointError: if a prediction is not finite.
        """
        if self._steps and step <= self._steps[-1]:
            raise ValueError(f"step {step} cannot be recorded after step {self._steps[-1]}: steps must rise")
        outputs = self._answers_of(model)
        queries, classes = outputs["pred_logits"].shape[1:]
        if classes != len(self.class_names) + 1:
            raise ValueError(
                f'expected {len(self.class_names)} classes and "no object", got {classes} logits'
            )
        if self._seen and queries != (before := len(self._seen[0][0]["boxes"])):
            raise ValueError(f"step {step} has {queries} queries, but the steps before it have {before}")
        seen = self._match(outputs)
        self._steps.append(int(step))
        self._losses.append(None if loss is None else torch.as_tensor(loss).item())
        self._seen.append(seen)

    @property
    def history(self) -> MatchingHistory:
        """All that was recorded until now."""
        columns = [
            {name: np.stack([step[i][name] for step in self._seen]) for name in self._seen[0][i]}
            for i in range(len(self.targets) if self._seen else 0)
        ]
        images = [
            ImageHistory(
                picture=picture,
                names=tuple(self.class_names[label] for label in target["labels"].tolist()),
                true_boxes=cxcywh_to_xyxy(target["boxes"].float().cpu()).numpy(),
                **columns_of_image,
            )
            for picture, target, columns_of_image in zip(self.pictures, self.targets, columns)
        ]
        return MatchingHistory(tuple(self._steps), tuple(self._losses), tuple(images))

    def _answers_of(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's outputs in evaluation mode; afterwards each of its modules is in its own mode again."""
        parameter = next(model.parameters(), None)
        images = self.images if parameter is None else self.images.to(parameter.device)
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.inference_mode():
                return model(images)
        finally:
            for module, training in modes:
                module.training = training

    @torch.inference_mode()
    def _match(self, outputs: dict[str, Tensor]) -> list[dict[str, np.ndarray]]:
        log_probability = outputs["pred_logits"].float().log_softmax(-1)
        boxes = outputs["pred_boxes"].float()
        layers = (
            log_probability[None],
            boxes[None],
        )  # the matcher takes several decoder layers; this is the last
        matching = self.matcher.match_layers(*layers, self.targets)[0]
        padded = pad_targets(self.targets, len(self.class_names), boxes.device)
        cost = self.matcher.cost(*layers, padded)[0].cpu()
        probability, corners = log_probability.exp().cpu(), cxcywh_to_xyxy(boxes).cpu()

        seen = []
        for i, (query, thing) in enumerate(matching):
            labels = self.targets[i]["labels"].cpu()
            owners = torch.full((len(labels),), NOBODY)
            owners[thing] = query
            of_class = torch.zeros(len(labels))
            of_class[thing] = probability[i, query, labels[thing]]
            seen.append(
                {
                    "boxes": corners[i].numpy(),
                    "owners": owners.numpy(),
                    "probability": of_class.numpy(),
                    "cost": cost[i, query, thing].sum().numpy(),
                }
            )
        return seen
