"""What detection data sets give: items, batches, categories, and what to do with broken items.

`Scenes` and `CocoDetection` both follow `DetectionDataset`: training and evaluation need to know neither.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from minivis.images import ImageBatch, ImageTransform

logger = logging.getLogger("minivis")

HOLE = "N/A"  # the name of a label that no category has (COCO's category ids have gaps: 12, 26, ...)


@dataclass(frozen=True)
class Categories:
    """Label (0..K-1, what the model is trained on) → category id and name (what the data calls it).

    A label may be a hole, with the name "N/A" and no id: COCO's recipes and the released checkpoints keep
    label = category id, so K = largest id + 1 = 91 although there are only 80 categories.
    """

    names: tuple[str, ...]  # K names
    ids: tuple[int | None, ...]  # K category ids, None where the label is a hole
    is_thing: tuple[bool, ...] | None = (
        None  # whether objects of it are counted; None: all are things, none stuff
    )

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids):
            raise ValueError(f"{len(self.names)} category names but {len(self.ids)} category ids")
        if self.is_thing is not None and len(self.is_thing) != len(self.ids):
            raise ValueError(f"is_thing says it of {len(self.is_thing)} labels, there are {len(self.ids)}")
        taken_ids: dict[int, str] = {}
        taken_names: dict[str, int] = {}
        for category_id, name in zip(self.ids, self.names):
            if category_id is None:
                continue
            if category_id in taken_ids:
                raise ValueError(
                    f"category id {category_id} is used twice, for {taken_ids[category_id]!r} and {name!r}"
                )
            if name in taken_names:
                raise ValueError(
                    f"two categories, ids {taken_names[name]} and {category_id}, have the same name {name!r}"
                )
            taken_ids[category_id], taken_names[name] = name, category_id

    @classmethod
    def dense(
        cls, categories: Iterable[tuple[int, str]], things: Collection[int] | None = None
    ) -> "Categories":
        """Labels without gaps, in the order of the category ids: what one's own data wants.

        `things` are category ids; None: all.
        """
        pairs = sorted(categories)
        ids = tuple(category_id for category_id, _ in pairs)
        is_thing = None if things is None else tuple(category_id in things for category_id in ids)
        return cls(names=tuple(name for _, name in pairs), ids=ids, is_thing=is_thing)

    @classmethod
    def by_id(
        cls, categories: Iterable[tuple[int, str]], things: Collection[int] | None = None
    ) -> "Categories":
        """label = category id, with holes, as COCO's recipes and the released checkpoints have it."""
        pairs = list(categories)
        cls.dense(pairs)  # raises if an id or a name is there twice
        if any(not 0 <= category_id < 2**16 for category_id, _ in pairs):
            raise ValueError(
                f"label = category id needs ids from 0 to 65535, got {sorted(pairs)}; use dense labels"
            )
        size = max((category_id for category_id, _ in pairs), default=-1) + 1
        names, ids = [HOLE] * size, [None] * size
        for category_id, name in pairs:
            names[category_id], ids[category_id] = name, category_id
        is_thing = None if things is None else tuple(category_id in things for category_id in ids)
        return cls(names=tuple(names), ids=tuple(ids), is_thing=is_thing)

    @property
    def things(self) -> frozenset[int]:
        """The labels whose objects are counted."""
        return frozenset(
            label
            for label, category_id in enumerate(self.ids)
            if category_id is not None and (self.is_thing is None or self.is_thing[label])
        )

    @property
    def stuff(self) -> frozenset[int]:
        """The labels of categories that are no things. Holes are neither."""
        known = {label for label, category_id in enumerate(self.ids) if category_id is not None}
        return frozenset(known - self.things)

    def __len__(self) -> int:
        """K, the number of labels, holes included."""
        return len(self.names)

    def label_of(self, category_id: int) -> int:
        """The label of a category id; KeyError if there is no such category."""
        try:
            return self.ids.index(category_id)
        except ValueError:
            known = [known_id for known_id in self.ids if known_id is not None]
            raise KeyError(f"no category has the id {category_id}; there are {known}") from None

    def label_named(self, name: str) -> int:
        """The label of a category's name; KeyError if there is no such category."""
        for label, (category_id, known) in enumerate(zip(self.ids, self.names)):
            if category_id is not None and known == name:
                return label
        raise KeyError(f"no category is named {name!r}; there are {[n for n in self.names if n != HOLE]}")

    def to_dict(self) -> list[dict[str, Any]]:
        """As JSON: a list of {"label", "category_id", "name"}, holes too, so that K is kept; with stuff, "is_thing"."""
        entries = [
            {"label": label, "category_id": category_id, "name": name}
            for label, (category_id, name) in enumerate(zip(self.ids, self.names))
        ]
        if self.is_thing is None:
            return entries
        return [entry | {"is_thing": thing} for entry, thing in zip(entries, self.is_thing, strict=True)]

    @classmethod
    def from_dict(cls, entries: list[dict[str, Any]]) -> "Categories":
        """The inverse of `to_dict`; labels that are left out are holes."""
        size = max((entry["label"] for entry in entries), default=-1) + 1
        names, ids = [HOLE] * size, [None] * size
        for entry in entries:
            names[entry["label"]], ids[entry["label"]] = entry["name"], entry["category_id"]
        if not any("is_thing" in entry for entry in entries):
            return cls(names=tuple(names), ids=tuple(ids))
        things = {entry["label"] for entry in entries if entry.get("is_thing", True)}
        return cls(
            names=tuple(names), ids=tuple(ids), is_thing=tuple(label in things for label in range(size))
        )


class BadItem(NamedTuple):
    """Something broken in a data set: where (file, image id, annotation id), and what is wrong with it."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class BadItemError(ValueError):
    """A broken item, where the caller asked to stop at the first."""

    def __init__(self, item: BadItem) -> None:
        super().__init__(item)
        self.item = item

    def __str__(self) -> str:
        return f"{self.item} (`--bad-items skip` leaves such items out and goes on)"


class BadItems:
    """Broken items met so far: each is named once and then skipped, or the first one stops the run."""

    def __init__(self, policy: str = "skip", quiet: bool = False) -> None:
        """`quiet`: keep what is reported, and name nothing: for all processes of a run but the first."""
        if policy not in ("skip", "stop"):
            raise ValueError(f"the policy for bad items is 'skip' or 'stop', not {policy!r}")
        self.policy, self.quiet = policy, quiet
        self.items: dict[BadItem, None] = {}  # a set that keeps the order

    def report(self, item: BadItem) -> None:
        """Warn of an item that was not reported before ("skip"), or raise `BadItemError` ("stop")."""
        if self.policy == "stop":
            raise BadItemError(item)
        if item not in self.items:
            self.items[item] = None
            if not self.quiet:
                logger.warning("skipped: %s", item)

    @property
    def count(self) -> int:
        """How many distinct items were bad."""
        return len(self.items)

    def summary(self, show: int = 10) -> str:
        """What to tell at the end of a run: the count, and the first `show` items."""
        if not self.items:
            return "no bad items"
        lines = [f"{self.count} bad item{'s' if self.count > 1 else ''} skipped:"]
        lines += [f"  {item}" for item in list(self.items)[:show]]
        if self.count > show:
            lines.append(f"  and {self.count - show} more, each named above when it was met")
        return "\n".join(lines)


class DetectionBatch(NamedTuple):
    """What the model is given: the images that could be read, one target each, and the items that could not.

    A target has `labels` (N,) int64, `boxes` (N, 4) cxcywh in 0..1 of the image as given, optionally `masks`
    (N, H, W) bool, and what names it: `image_id` (int), `original_size` (height, width), `annotation_ids`
    (list of N ints).
    """

    images: ImageBatch
    targets: list[dict[str, Any]]
    bad_items: list[BadItem]

    def to(self, device: torch.device | str) -> "DetectionBatch":
        """The same batch with its tensors on `device`."""
        targets = [
            {
                key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
                for key, value in target.items()
            }
            for target in self.targets
        ]
        return DetectionBatch(self.images.to(device), targets, self.bad_items)


@runtime_checkable
class DetectionDataset(Protocol):
    """What training and evaluation ask of a detection data set."""

    categories: Categories
    image_transform: ImageTransform

    def __len__(self) -> int: ...

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        """An item or a `BadItem`, by index or by (index, seed); the seed drives all that is random in it."""

    def collate(self, items: list[Any]) -> Any:
        """A picklable batch (this runs in a loader's worker process), bad items kept aside."""

    def prepare(self, batch: Any, device: torch.device | str) -> DetectionBatch:
        """The batch on the training device (in the main process); it has no images if all items were bad."""

    def ground_truth(self) -> dict[str, Any]:
        """COCO's `images`, `annotations` (bbox xywh in original pixels, area, iscrowd) and `categories`."""
