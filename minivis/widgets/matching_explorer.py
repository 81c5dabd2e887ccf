"""MatchingExplorer: a picture's predictions and objects, and the assignment that costs least, to be played with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from jaxtyping import Float
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minivis.detr import HungarianMatcher
from minivis.detr.targets import explain_broken_targets, pad_targets
from minivis.widgets.base import Widget
from minivis.widgets.matching_picture import draw_matching, letter
from minivis.widgets.predictions import as_png, one_image, rounded

DETR_WEIGHTS = (1, 5, 2)  # of class, L1 and GIoU
LARGEST_WEIGHT = 10

Pairs = list[list[int]]


class MatchingExplorer(Widget):
    """The picture with predicted and true boxes and lines between the matched ones, beside the cost matrix.

    In the browser one moves the three weights and the boxes, and the assignment follows in the same frame. What was
    moved is in `weights` (class, L1, GIoU), `boxes` and `true_boxes` (lists of (cx, cy, w, h) in fractions of the
    picture) and `method` ("optimal" or "greedy"); all of them can be set from Python as well. `matching` is the
    assignment that follows from them: a list of [query, object], query rising.

        explorer = MatchingExplorer(picture, model(images), targets[0], model.class_names)
        explorer.weights = [0, 5, 2]
        explorer.matching
    """

    parts = ("assignment.js", "movable_boxes.js", "cost_matrix.js")

    picture = traitlets.Bytes().tag(sync=True)  # PNG
    class_names = traitlets.List().tag(sync=True)
    probabilities = traitlets.List().tag(sync=True)  # Q × (K + 1), "no object" last
    labels = traitlets.List().tag(sync=True)  # N
    boxes = traitlets.List().tag(sync=True)  # Q × 4
    true_boxes = traitlets.List().tag(sync=True)  # N × 4
    weights = traitlets.List().tag(sync=True)
    method = traitlets.Enum(["optimal", "greedy"], "optimal").tag(sync=True)
    matching = traitlets.List()

    def __init__(
        self,
        picture: Image.Image | Tensor,
        outputs: dict[str, Any],
        target: dict[str, Any],
        class_names: Sequence[str],
        weights: Sequence[float] = DETR_WEIGHTS,
        image: int = 0,
    ):
        """A widget for one image.

        Args:
            picture: what the boxes lie on: a picture, or a (3, H, W) tensor (uint8, or floats in 0..1).
            outputs: DETR's `pred_logits` (B, Q, K + 1) and `pred_boxes` (B, Q, 4), or those of one image without B.
            target: `labels` (N,) int64 and `boxes` (N, 4) as (cx, cy, w, h) in 0..1.
            class_names: the names of the K classes.
            weights: of class, L1 and GIoU in the cost, each in 0..10.
            image: which image of the batch.

        Raises:
            ValueError: if shapes, classes or numbers do not fit together.
        """
        _expect("outputs", outputs, ("pred_logits", "pred_boxes"))
        _expect("target", target, ("labels", "boxes"))
        logits, boxes = one_image(outputs, image)
        if logits.shape[1] != len(class_names) + 1:
            raise ValueError(
                f"expected pred_logits of {len(class_names) + 1} columns ({len(class_names)} class names and "
                f"'no object'), got {logits.shape[1]}"
            )
        pad_targets([target], len(class_names), torch.device("cpu"))  # raises where shapes do not fit
        explain_broken_targets([target], len(class_names))
        super().__init__(
            picture=as_png(picture),
            class_names=list(class_names),
            probabilities=rounded(logits.softmax(-1)),
            labels=target["labels"].tolist(),
            boxes=rounded(boxes),
            true_boxes=rounded(target["boxes"]),
            weights=list(weights),
        )

    @classmethod
    def toy(cls) -> "MatchingExplorer":
        """Three predictions and three objects on an empty picture: small enough to be matched by hand.

        Two predictions lie nearest to the same object: who takes the cheapest pair first pays for it in the end.
        """
        boxes = [[0.40, 0.75, 0.20, 0.30], [0.65, 0.75, 0.20, 0.30], [0.70, 0.25, 0.20, 0.30]]
        true_boxes = [[0.20, 0.70, 0.20, 0.30], [0.50, 0.70, 0.20, 0.30], [0.75, 0.30, 0.20, 0.30]]
        probabilities = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.7, 0.2]])
        return cls(
            Image.new("RGB", (400, 400), "#f4f4f0"),
            {"pred_logits": probabilities.log(), "pred_boxes": torch.tensor(boxes)},
            {"labels": torch.tensor([0, 0, 1]), "boxes": torch.tensor(true_boxes)},
            class_names=["cat", "dog"],
        )

    @traitlets.validate("weights")
    def _check_weights(self, proposal: dict[str, Any]) -> list[float]:
        weights = proposal["value"]
        if len(weights) != 3 or not all(0 <= weight <= LARGEST_WEIGHT for weight in weights):
            raise ValueError(
                f"expected three weights (class, L1, GIoU) in 0..{LARGEST_WEIGHT}, got {weights}"
            )
        return weights

    @traitlets.validate("boxes", "true_boxes")
    def _check_boxes(self, proposal: dict[str, Any]) -> list[list[float]]:
        name, boxes = proposal["trait"].name, proposal["value"]
        count = len(self.probabilities if name == "boxes" else self.labels)
        if len(boxes) != count or not all(len(box) == 4 and np.isfinite(box).all() for box in boxes):
            raise ValueError(f"{name}: expected {count} boxes (cx, cy, w, h) of finite numbers, got {boxes}")
        if name == "true_boxes" and count:
            target = {"labels": torch.tensor(self.labels), "boxes": torch.tensor(boxes)}
            explain_broken_targets([target], len(self.class_names))
        return boxes

    @traitlets.observe("weights", "boxes", "true_boxes", "method")
    def _match(self, change: Any = None) -> None:
        self.matching = self.solve(self.method)

    def cost_parts(self) -> Float[Tensor, "3 queries objects"]:
        """What is weighted: −p(class of the object), the L1 distance of the boxes, −GIoU; from the matcher itself."""
        log_probability = torch.tensor(self.probabilities).log()[None, None]
        boxes, true_boxes = torch.tensor(self.boxes), torch.tensor(self.true_boxes).reshape(-1, 4)
        target = {"labels": torch.tensor(self.labels, dtype=torch.int64), "boxes": true_boxes}
        targets = pad_targets([target], len(self.class_names), boxes.device)
        return torch.cat(
            [HungarianMatcher(*one).cost(log_probability, boxes[None, None], targets)[0] for one in np.eye(3)]
        )

    def cost(self, weights: Sequence[float] | None = None) -> np.ndarray:
        """The cost matrix (Q, N), with the widget's own weights or others."""
        return np.tensordot(
            self.weights if weights is None else weights, self.cost_parts().double().numpy(), 1
        )

    def solve(self, method: str = "optimal", weights: Sequence[float] | None = None) -> Pairs:
        """[query, object] pairs, query rising: the assignment that costs least, or the greedy one."""
        cost = self.cost(weights)
        if method == "optimal":
            return np.stack(linear_sum_assignment(cost), axis=-1).tolist()
        pairs = []
        for cell in cost.argsort(axis=None, kind="stable"):  # again and again the cheapest pair that is left
            query, thing = divmod(int(cell), cost.shape[1])
            if all(query != q and thing != t for q, t in pairs):
                pairs.append([query, thing])
        return sorted(pairs)

    def total_cost(self, pairs: Pairs | None = None) -> float:
        """Of these pairs, by default of `matching`."""
        cost = self.cost()
        return float(sum(cost[query, thing] for query, thing in (self.matching if pairs is None else pairs)))

    def describe(self) -> str:
        queries, objects = len(self.boxes), len(self.labels)
        words = f"Matching of {queries} quer{_ies(queries)} to {objects} object{'s' * (objects != 1)}"
        words += f" with weights {', '.join(f'{weight:g}' for weight in self.weights)} ({self.method})"
        if not objects:
            return words + ": nothing to match."
        pairs = [f"query {query} to {self.name_of(thing)}" for query, thing in self.matching]
        return f"{words}: {', '.join(pairs)}; total cost {self.total_cost():z.2f}."

    def name_of(self, thing: int) -> str:
        """Of a true object: its letter and its class."""
        return f"{letter(thing)} ({self.class_names[self.labels[thing]]})"

    def draw(self) -> Image.Image:
        return draw_matching(self)


def _ies(count: int) -> str:
    return "y" if count == 1 else "ies"


def _expect(what: str, given: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if name not in given:
            raise ValueError(f"{what}: expected {name!r}, got {sorted(given)}")
