"""QueryExplorer: one object query, its box and its attention layer by layer, and what it is good for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from einops import rearrange
from jaxtyping import Float, Int
from PIL import Image

from minivis.attention import record_attention
from minivis.data.items import DetectionDataset
from minivis.detr import DETR
from minivis.experiments.matching import average_precision
from minivis.experiments.queries import cells_inside, confident, decode, encode_scenes
from minivis.widgets.base import Widget
from minivis.widgets.predictions import as_png
from minivis.widgets.query_answers import MOST_QUERIES, SceneAnswers, objects_per_class, ranked, spots
from minivis.widgets.query_picture import draw_query

MEAN = -1  # in place of a head's number


class QueryExplorer(Widget):
    """A scene with the boxes of all queries; of the chosen one the cross-attention, the classes, and its habits.

    One chooses `scene` (which of those shown, from 0), `query`, `layer` (after which decoder layer, from 1) and `head`
    (−1: the mean of all), and which queries are `dropped`: their answers are left out, and the average precision over
    all evaluated scenes is that of the rest. The browser computes it; `average_precision` gives it in Python.

        explorer = QueryExplorer(model, dataset, scenes=[181, 7])
        explorer.dropped = [3, 23]
        explorer.average_precision()

    Dropping a query takes away answers that were given. The other queries have heard the dropped ones all the same. A
    layer is dropped from the end only: the answers after layer l are those of the decoder without the layers behind it,
    read by the same norm and heads.
    """

    parts = ("average_precision.js", "query_picture.js", "query_field.js")

    class_names = traitlets.List().tag(sync=True)
    scenes = traitlets.List(help="pictures, true boxes, and what is answered there").tag(sync=True)
    answers = traitlets.Dict(help="all answers on all evaluated scenes").tag(sync=True)
    scene = traitlets.Int(0, help="which of the scenes, from 0").tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(1, help="after which decoder layer, from 1").tag(sync=True)
    head = traitlets.Int(MEAN, help="from 0; −1 is the mean over all").tag(sync=True)
    dropped = traitlets.List(traitlets.Int(), help="queries whose answers are left out").tag(sync=True)

    def __init__(
        self,
        model: DETR,
        dataset: DetectionDataset,
        scenes: Sequence[int] = (0,),
        evaluated: int | None = None,
        **traits: Any,
    ):
        """Runs the model over the data.

        Args:
            model: built with `aux_loss`, so that every decoder layer answers.
            dataset: pictures of one size, with `scene_image`.
            scenes: which of them are shown.
            evaluated: AP and habits are those on the first so many; None: on all.
            traits: what is chosen first. By default the last layer, and the surest query of the first scene.

        Raises:
            ValueError: if there is no scene to show, if the model's classes are not as many as those of the data, or if
                there are more queries or objects than the browser gets numbers for.
        """
        if not len(scenes):
            raise ValueError("expected at least one scene to show, got none")
        if model.num_queries > MOST_QUERIES:
            raise ValueError(
                f"at most {MOST_QUERIES} queries can be shown, the model has {model.num_queries}"
            )
        names = list(dataset.categories.names)
        if model.num_classes != len(names):
            raise ValueError(f"the model tells {model.num_classes} classes apart, the data has {len(names)}")
        memory, targets = encode_scenes(model, dataset, range(len(dataset))[:evaluated])
        with torch.no_grad():
            layers = [{key: v.cpu() for key, v in layer.items()} for layer in decode(model, memory)]
        self._layers = layers
        self._targets = [
            {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in t.items()} for t in targets
        ]
        self._dataset, self._known = dataset, {}
        self._shown = [_answers_in(model, dataset, index) for index in scenes]
        super().__init__(
            class_names=names,
            scenes=[
                {
                    "name": f"scene {index}",
                    "picture": as_png(dataset.scene_image(index)),
                    "labels": target["labels"].tolist(),
                    "true_boxes": [[round(side, 6) for side in box] for box in target["boxes"].tolist()],
                    **shown.as_plain_values(),
                }
                for index, (shown, target) in zip(scenes, self._shown)
            ],
            answers={
                "images": len(self._targets),
                "queries": model.num_queries,
                "objects": objects_per_class(self._targets, len(names)),
                "sure": [confident(layer).sum(0).tolist() for layer in layers],
                "ranked": [ranked(layer, self._targets) for layer in layers],
                "spots": [spots(layer) for layer in layers],
            },
            **{"layer": len(layers), "query": self._shown[0][0].surest()} | traits,
        )

    @traitlets.validate("scene", "query", "layer", "head")
    def _in_range(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        layers, queries, heads, *_ = self._shown[0][0].attention.shape
        least, most = {
            "scene": (0, len(self._shown) - 1),
            "query": (0, queries - 1),
            "layer": (1, layers),
            "head": (MEAN, heads - 1),
        }[name]
        if not least <= value <= most:
            raise traitlets.TraitError(f"{name} is {value}; expected {least} to {most}")
        return value

    @traitlets.validate("dropped")
    def _are_queries(self, proposal: dict[str, Any]) -> list[int]:
        queries = self._shown[0][0].boxes.shape[1]
        unknown = [query for query in proposal["value"] if not 0 <= query < queries]
        if unknown:
            raise traitlets.TraitError(
                f"dropped: there is no query {unknown[0]}; there are 0 to {queries - 1}"
            )
        return sorted(set(proposal["value"]))

    @property
    def shown(self) -> SceneAnswers:
        """What is answered in the scene that is seen."""
        return self._shown[self.scene][0]

    def attention(self, layer: int | None = None) -> Float[np.ndarray, "height width"]:
        """Where the chosen query looks in a decoder layer (from 1), with the chosen head or all."""
        maps = self.shown.attention[(layer or self.layer) - 1, self.query]
        return maps.mean(0) if self.head == MEAN else maps[self.head]

    def share_inside(self, layer: int | None = None) -> float:
        """The share of that attention on cells whose middle lies in the query's box after the same layer."""
        attention = self.attention(layer)
        box = torch.from_numpy(self.shown.boxes[(layer or self.layer) - 1, self.query])
        return float(attention.flatten()[cells_inside(box, attention.shape).numpy()].sum())

    def average_precision(self, layer: int | None = None) -> float:
        """COCO's AP over the evaluated scenes of the answers after a layer (from 1), without the dropped queries."""
        layer = layer or self.layer
        key = (layer, tuple(self.dropped))
        if key not in self._known:
            kept = [q for q in range(self.answers["queries"]) if q not in self.dropped]
            outputs = {name: values[:, kept] for name, values in self._layers[layer - 1].items()}
            self._known[key] = average_precision(outputs, self._targets, self._dataset)["AP"]
        return self._known[key]

    def spots_of(
        self, query: int
    ) -> tuple[Float[np.ndarray, "images 4"], Float[np.ndarray, " images"], Int[np.ndarray, " images"]]:
        """A query's boxes and scores, in steps of 1/255, and classes on the evaluated scenes after the chosen layer."""
        spots, shape = (
            self.answers["spots"][self.layer - 1],
            (self.answers["images"], self.answers["queries"]),
        )
        boxes, scores = (np.frombuffer(spots[name], np.uint8) / 255 for name in ("box", "score"))
        labels = np.frombuffer(spots["label"], np.uint8).astype(int).reshape(shape)
        return boxes.reshape(*shape, 4)[:, query], scores.reshape(shape)[:, query], labels[:, query]

    def describe(self) -> str:
        layers, queries = self.shown.boxes.shape[:2]
        head = "the mean of all heads" if self.head == MEAN else f"head {self.head}"
        kept = queries - len(self.dropped)
        words = (
            f"{self.scenes[self.scene]['name'].capitalize()} and query {self.query} of {queries}. It says "
        )
        words += ", then ".join(self.says(layer) for layer in range(1, layers + 1))
        words += (
            f", after decoder layers 1 to {layers}; seen is layer {self.layer}. Of its cross-attention there "
        )
        words += f"({head}) {100 * self.share_inside():.0f} % lies in its box. Dots show its answers on "
        words += f"{self.answers['images']} scenes, where {kept} of {queries} queries reach an AP of "
        return f"{words}{self.average_precision():.2f} after this layer."

    def says(self, layer: int) -> str:
        """The likeliest class of the chosen query after a layer (from 1), "no object" among them."""
        row = self.shown.probabilities[layer - 1, self.query]
        best = int(row.argmax())
        return f"{[*self.class_names, 'no object'][best]} ({100 * row[best]:.0f} %)"

    def draw(self) -> Image.Image:
        return draw_query(self)


@torch.no_grad()
def _answers_in(model: DETR, dataset: DetectionDataset, index: int) -> tuple[SceneAnswers, dict[str, Any]]:
    memory, (target,) = encode_scenes(model, dataset, [index])
    with record_attention(model) as maps:
        layers = decode(model, memory)
    attention = torch.stack([weights[0] for name, weights in maps.items() if "cross_attn" in name])
    height, width = memory.size
    answers = SceneAnswers(
        boxes=torch.stack([layer["pred_boxes"][0] for layer in layers]).cpu().numpy(),
        probabilities=torch.stack([layer["pred_logits"][0].softmax(-1) for layer in layers]).cpu().numpy(),
        attention=rearrange(attention, "l heads q (h w) -> l q heads h w", h=height, w=width).cpu().numpy(),
    )
    return answers, {name: target[name].cpu() for name in ("labels", "boxes")}
