"""DetectionExplorer: all of a detector's answers for a few pictures, and a threshold that decides which are shown."""

from collections.abc import Sequence
from typing import Any

import traitlets
from PIL import Image
from torch import Tensor

from minivis.widgets.base import Widget
from minivis.widgets.detection_picture import draw_answers
from minivis.widgets.predictions import as_png, one_image, rounded

NONE = -1  # no query is looked at


class DetectionExplorer(Widget):
    """A picture with a box for every query that is sure enough, beside the scores of all queries.

    In the browser one moves `threshold`, leafs through the pictures (`index`), and looks at a query (`query`, −1 for
    none): its box, and what it says of every class. `found` are the queries whose score, the probability of their best
    class that is not "no object", is at least the threshold: the surest first.

        DetectionExplorer([picture], model(images), model.class_names, targets)
    """

    pictures = traitlets.List(traitlets.Bytes()).tag(sync=True)  # PNG each
    class_names = traitlets.List().tag(sync=True)
    probabilities = traitlets.List().tag(sync=True)  # P × Q × (K + 1), "no object" last
    boxes = traitlets.List().tag(sync=True)  # P × Q × 4
    labels = traitlets.List().tag(
        sync=True
    )  # of the true objects of each picture; empty where none are known
    true_boxes = traitlets.List().tag(sync=True)
    has_truth = traitlets.Bool().tag(sync=True)
    threshold = traitlets.Float().tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)
    query = traitlets.Int(NONE).tag(sync=True)

    def __init__(
        self,
        pictures: Sequence[Image.Image | Tensor],
        outputs: dict[str, Any],
        class_names: Sequence[str],
        targets: Sequence[dict[str, Any]] | None = None,
        threshold: float = 0.5,
    ):
        """
        Args:
            pictures: what is looked at, as many as there are images in `outputs`; tensors are (3, H, W).
            outputs: `pred_logits` (P, Q, K + 1) and `pred_boxes` (P, Q, 4), cxcywh in fractions of the picture.
            class_names: K names.
            targets: `labels` (N,) and `boxes` (N, 4) of each picture, to be shown dashed; None if they are not known.
            threshold: the least score that is shown, 0 to 1.

        Raises:
            ValueError: if their numbers do not fit together, or a prediction is not finite.
        """
        if not pictures:
            raise ValueError("expected at least one picture, got none")
        if targets is not None and len(targets) != len(pictures):
            raise ValueError(f"expected targets of {len(pictures)} pictures, got {len(targets)}")
        answers = [one_image(outputs, image) for image in range(len(pictures))]
        if (columns := answers[0][0].shape[1]) != len(class_names) + 1:
            raise ValueError(
                f"expected pred_logits of {len(class_names) + 1} columns ({len(class_names)} class names and "
                f"“no object”), got {columns}"
            )
        truth = targets or [{}] * len(pictures)
        super().__init__(
            pictures=[as_png(picture) for picture in pictures],
            class_names=list(class_names),
            probabilities=[rounded(logits.softmax(-1)) for logits, _ in answers],
            boxes=[rounded(boxes) for _, boxes in answers],
            labels=[target["labels"].tolist() if target else [] for target in truth],
            true_boxes=[rounded(target["boxes"]) if target else [] for target in truth],
            has_truth=targets is not None,
            threshold=threshold,
        )

    @traitlets.validate("threshold")
    def _check_threshold(self, proposal: dict[str, Any]) -> float:
        if not 0 <= proposal["value"] <= 1:
            raise ValueError(f"expected a threshold in 0..1, got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("index", "query")
    def _check_place(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        least, count = (0, len(self.pictures)) if name == "index" else (NONE, len(self.probabilities[0]))
        if not least <= value < count:
            raise ValueError(f"expected {name} in {least}..{count - 1}, got {value}")
        return value

    def guesses(self) -> list[tuple[float, int]]:
        """(score, label) of each query of the picture that is shown: its best class that is not "no object"."""
        return [max((p, label) for label, p in enumerate(row[:-1])) for row in self.probabilities[self.index]]

    @property
    def found(self) -> list[int]:
        """The queries whose score is at least the threshold, the surest first."""
        scores = [score for score, _ in self.guesses()]
        order = sorted(range(len(scores)), key=lambda query: -scores[query])
        return [query for query in order if scores[query] >= self.threshold]

    def describe(self) -> str:
        queries, found = len(self.probabilities[0]), self.found
        words = (
            f"Picture {self.index + 1} of {len(self.pictures)}: {len(found)} of {queries} queries are surer "
        )
        words += f"than {self.threshold:.2f}"
        if found:
            guesses = self.guesses()
            names = [
                f"{self.class_names[label]} {score:.2f}" for score, label in map(guesses.__getitem__, found)
            ]
            words += f" ({', '.join(names)})"
        if self.has_truth:
            count = len(self.labels[self.index])
            words += f"; there {'is 1 object' if count == 1 else f'are {count} objects'}"
        return words + "."

    def draw(self) -> Image.Image:
        return draw_answers(self)
