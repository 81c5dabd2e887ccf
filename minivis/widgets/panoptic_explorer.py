"""PanopticExplorer: pictures in segments, which queries they come from, and what two thresholds make of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from minivis.data.items import Categories
from minivis.data.panoptic import PanopticDataset
from minivis.data.scenes import load_shipped_scenes
from minivis.detr import DETRsegm, Panoptic, Segment, merge_masks
from minivis.evaluation.batches import evaluating
from minivis.evaluation.panoptic import PanopticQuality
from minivis.evaluation.segmentation import check_classes
from minivis.images import ImageTransform
from minivis.widgets.base import Widget
from minivis.widgets.panoptic_answers import Answers, answers_of, packed_truth, resized
from minivis.widgets.panoptic_picture import draw_explorer
from minivis.widgets.predictions import as_png

SUREST = -1  # in place of a query's number
FLOOR = 0.2  # queries whose score is lower are not sent to the browser


class PanopticExplorer(Widget):
    """Pictures in segments. Of the query behind a segment: its score, its attention by head, its mask by stages.

    In the browser one points at a segment, and moves two thresholds: a query takes part if its `score` is higher, and
    its segment stays if it wins at least the share `overlap` of its own mask (`merge_masks`; 0 is the paper's way).
    Segments and panoptic quality follow in the same frame. PQ is that of the pictures shown, and no other.

    One chooses `scene` (which picture, from 0), `query` (its number in the model; −1: the surest one), `score`,
    `overlap` and `truth` (whether the true segments are seen). All of them can be set from Python as well; `merged` and
    `quality` say what follows.

        explorer = PanopticExplorer.on_scenes(minivis.load("panoptic-mini"))
        explorer.overlap = 0.5
        explorer.quality()["PQ"]

    Masks are merged in the pixels of the model's picture, or in fewer where that has more than 512 a side, and their
    logits are rounded to numbers of 16 bits: a pixel that two masks want equally may go to the other one than in
    `Segmenter.panoptic`. Python and browser merge the same numbers and agree.
    """

    parts = ("token_grid.js", "panoptic_merge.js", "panoptic_picture.js", "panoptic_detail.js")

    class_names = traitlets.List().tag(sync=True)
    is_thing = traitlets.List(help="of each class").tag(sync=True)
    scenes = traitlets.List(help="pictures, what is answered there, and the truth").tag(sync=True)
    model_queries = traitlets.Int(help="how many the model has").tag(sync=True)
    floor = traitlets.Float(help="the least score of what was sent").tag(sync=True)
    scene = traitlets.Int(0, help="which of the pictures, from 0").tag(sync=True)
    query = traitlets.Int(SUREST).tag(sync=True)
    score = traitlets.Float().tag(sync=True)
    overlap = traitlets.Float(0.0).tag(sync=True)
    truth = traitlets.Bool(False, help="whether the true segments are seen").tag(sync=True)

    def __init__(
        self,
        model: DETRsegm,
        pictures: Image.Image | Tensor | Sequence[Image.Image | Tensor],
        truths: Panoptic | Sequence[Panoptic] | None = None,
        categories: Categories | None = None,
        names: Sequence[str] | None = None,
        floor: float = FLOOR,
        **traits: Any,
    ):
        """Runs the model on each picture.

        Args:
            model: as `minivis.load` gives it.
            pictures: one or several; a picture, or a uint8 (3, H, W) tensor. Each is made as large as the model wants
                it, and its sides multiples of the masks' stride, so that a cell of a mask is a whole number of pixels.
            truths: the true segments of each, in the picture's size. None: not known, and there is no PQ.
            categories: of the labels; by default the model's own.
            names: of the pictures; by default "picture 1" and so on.
            floor: queries with a lower score are not sent to the browser.
            traits: what is chosen first. By default as the model does: its `score_threshold`, overlap 0.

        Raises:
            ValueError: if there is no picture, if numbers do not fit together, or a truth has not its picture's size.
        """
        pictures = [pictures] if isinstance(pictures, Image.Image | Tensor) else list(pictures)
        truths = [truths] if isinstance(truths, Panoptic) else truths
        if not pictures:
            raise ValueError("expected at least one picture, got none")
        if truths is not None and len(truths) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures, but {len(truths)} truths")
        names = [f"picture {i}" for i in range(1, len(pictures) + 1)] if names is None else list(names)
        if len(names) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures, but {len(names)} names")
        if categories is None and not hasattr(model, "categories"):
            raise ValueError("the model has no categories: load it with minivis.load, or pass them")
        categories = model.categories if categories is None else categories
        if len(categories) != model.num_classes:
            raise ValueError(f"{len(categories)} categories, but the model has {model.num_classes} classes")

        self._things, known = categories.things, categories.things | categories.stuff
        self._answers: list[Answers] = []
        self._truths: list[Panoptic] | None = None if truths is None else []
        self._merged: dict[tuple, Panoptic] = {}
        scenes = []
        transform = getattr(model, "image_transform", ImageTransform())
        for i, picture in enumerate(pictures):
            if truths is not None and truths[i].segment_ids.shape != _size_of(picture):
                raise ValueError(
                    f"{names[i]}: the picture is {_size_of(picture)}, its truth {tuple(truths[i].segment_ids.shape)}"
                )
            pixels = _in_whole_cells(transform(picture), _mask_stride(model))
            with evaluating(model):
                answers = answers_of(model, pixels.to(next(model.parameters()).device), known, floor)
            self._answers.append(answers)
            shown = to_pil_image(transform.denormalise(pixels))
            scene = {"name": names[i], "picture": as_png(shown), **answers.as_plain_values(), "truth": None}
            if truths is not None:
                height, width = (side * answers.factor for side in answers.masks.shape[1:])
                self._truths.append(resized(truths[i], (height, width)))
                scene["truth"] = packed_truth(self._truths[-1])
            scenes.append(scene)
        super().__init__(
            class_names=list(categories.names),
            is_thing=[label in self._things for label in range(len(categories))],
            scenes=scenes,
            model_queries=model.num_queries,
            floor=floor,
            **{"score": model.score_threshold} | traits,
        )

    @classmethod
    def on_scenes(
        cls,
        model: DETRsegm,
        count: int = 8,
        scenes: Sequence[int] | None = None,
        dataset: PanopticDataset | None = None,
        **options: Any,
    ) -> "PanopticExplorer":
        """On validation scenes, with their truth.

        Args:
            model: of the scenes' classes.
            count: the first so many of the scenes.
            scenes: or these.
            dataset: with `scene_image`; by default the scenes that ship with minivis.
            options: as the constructor has them.

        Raises:
            ValueError: if model and data number or name their classes differently.
        """
        dataset = load_shipped_scenes(stuff=True) if dataset is None else dataset
        indices = range(count) if scenes is None else scenes
        check_classes(model, dataset.categories)
        targets = [dataset.prepare(dataset.collate([dataset[i]]), "cpu").targets[0] for i in indices]
        return cls(
            model,
            [dataset.scene_image(i) for i in indices],
            [dataset.truth(target) for target in targets],
            dataset.categories,
            [f"scene {i}" for i in indices],
            **options,
        )

    @traitlets.validate("score", "overlap")
    def _is_share(self, proposal: dict[str, Any]) -> float:
        if not 0 <= proposal["value"] <= 1:
            raise traitlets.TraitError(f"{proposal['trait'].name} is {proposal['value']}; expected 0 to 1")
        return proposal["value"]

    @traitlets.validate("scene", "query")
    def _in_range(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        least, count = (0, len(self.scenes)) if name == "scene" else (SUREST, self.model_queries)
        if not least <= value < count:
            raise traitlets.TraitError(f"{name} is {value}; expected {least} to {count - 1}")
        return value

    @property
    def answers(self) -> Answers:
        """What is answered for the picture that is seen."""
        return self._answers[self.scene]

    @property
    def chosen(self) -> int | None:
        """The query that is looked at: `query`, or the surest one where that has no mask; None if no query has one."""
        if self.query in self.answers.queries:
            return self.query
        scores = self.answers.scores
        return self.answers.queries[int(np.argmax(scores))] if scores else None

    def merged(self, scene: int | None = None) -> Panoptic:
        """The segments of a picture, by default of the one that is seen, with these thresholds."""
        scene = self.scene if scene is None else scene
        key = (scene, self.score, self.overlap)
        if key not in self._merged:
            answers = self._answers[scene]
            sure = [place for place, score in enumerate(answers.scores) if score > self.score]
            self._merged[key] = merge_masks(
                answers.stretched()[sure],
                torch.tensor(answers.labels, dtype=torch.int64)[sure],
                torch.tensor(answers.scores)[sure],
                self._things,
                [answers.queries[place] for place in sure],
                overlap=self.overlap,
            )
        return self._merged[key]

    def true_segments(self, scene: int | None = None) -> Panoptic | None:
        """Of a picture, by default of the one that is seen; None if they are not known."""
        return None if self._truths is None else self._truths[self.scene if scene is None else scene]

    def quality(self, scene: int | None = None) -> dict[str, float] | None:
        """`PQ`, `SQ`, `RQ` and so on of one picture, or of all that are shown; None if the truth is not known."""
        if self._truths is None:
            return None
        quality = PanopticQuality(len(self.class_names), self._things)
        for i in range(len(self.scenes)) if scene is None else [scene]:
            quality.add(self.merged(i), self._truths[i], self.scenes[i]["name"])
        return quality.metrics()

    def segment_of(self, query: int) -> Segment | None:
        """The segment of the picture that is seen which a query is part of."""
        return next((segment for segment in self.merged().segments if query in segment.queries), None)

    def attention(self, query: int) -> Float[np.ndarray, "heads rows columns"]:
        """Where the mask head's attention looks for a query; it sums to 1 over heads and cells."""
        return self.answers.attention[self.answers.queries.index(query)]

    def drafts(self, query: int) -> dict[int, Float[np.ndarray, "height width"]]:
        """A query's mask as probabilities, drawn from maps averaged over cells of so many pixels; the last is the mask.

        In steps of 1/255.
        """
        place, answers = self.answers.queries.index(query), self.answers
        return {
            cell: draft[place].numpy() / 255
            for cell, draft in zip(answers.cells, answers.drafts, strict=True)
        }

    def describe(self) -> str:
        segments = self.merged().segments
        words = f"Panoptic segmentation of {self.scenes[self.scene]['name']}"
        if len(self.scenes) > 1:
            words += f" (of {len(self.scenes)} pictures)"
        words += f", queries with a score above {self.score:.2f}"
        if self.overlap:
            words += f", segments that win at least {self.overlap:.2f} of their own mask"
        listed = ", ".join(f"{self.class_names[s.label]} {s.score:.2f}" for s in segments)
        words += f": {len(segments)} segment{'s' * (len(segments) != 1)}{f' ({listed})' if listed else ''}."
        if self._truths is not None:
            here, whole = self.quality(self.scene), self.quality()
            words += (
                f" There are {len(self.true_segments().segments)} true ones; PQ here {_share(here['PQ'])}"
            )
            if len(self.scenes) > 1:
                words += f", of all {len(self.scenes)} pictures {_share(whole['PQ'])} (things "
                words += f"{_share(whole['PQ_things'])}, stuff {_share(whole['PQ_stuff'])})"
            words += "."
        return f"{words} {self._says_of_chosen()}"

    def _says_of_chosen(self) -> str:
        if self.chosen is None:
            return f"No query is sure of an object with a score of {self.floor:.2f} or more."
        place = self.answers.queries.index(self.chosen)
        heads = ", ".join(f"{100 * share:.0f}" for share in self.attention(self.chosen).sum((1, 2)))
        return (
            f"Of query {self.chosen} ({self.class_names[self.answers.labels[place]]} "
            f"{self.answers.scores[place]:.2f}) the heads have {heads} % of the attention."
        )

    def draw(self) -> Image.Image:
        return draw_explorer(self)


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def _mask_stride(model: DETRsegm) -> int:
    return model.detr.backbone.strides[model.mask_stages[-1]]


def _size_of(picture: Image.Image | Tensor) -> tuple[int, int]:
    if isinstance(picture, Tensor):
        return tuple(picture.shape[-2:])
    return picture.height, picture.width


def _in_whole_cells(pixels: Float[Tensor, "3 h w"], stride: int) -> Float[Tensor, "3 height width"]:
    """Sides that are no multiples of the stride lose what is over, by a slight shrinking."""
    size = [max(side // stride, 1) * stride for side in pixels.shape[1:]]
    if size == list(pixels.shape[1:]):
        return pixels
    return F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
