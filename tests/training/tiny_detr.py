"""The smallest DETR that trains, for the tests of the loop: on scenes, or on pictures that a test decides about."""

from dataclasses import dataclass, replace

import torch

from minivis.data.items import BadItem, Categories, DetectionBatch
from minivis.detr import DETRConfig
from minivis.images import ImageTransform, as_image_batch
from minivis.training.checkpoint import read_log
from minivis.training.detection import DetectionTask
from minivis.training.recipes import DetrRecipe
from minivis.training.sampling import StepSampler

MODEL = DETRConfig(
    num_classes=2, num_queries=6, backbone="small", backbone_norm="group", backbone_channels=(8, 8, 8, 16), d_model=16,
    num_heads=2, encoder_layers=1, decoder_layers=2, dim_feedforward=16, dropout=0.1,
)  # fmt: skip

TINY = DetrRecipe(
    name="tiny", about="", estimate="", data="scenes", model=MODEL, steps=6, batch_size=4, lr=1e-3, ema=0.9, warmup=2,
    schedule="cosine", log_every=2, eval_every=None, save_every=2,
)  # fmt: skip


class Pictures:
    """A data set of `size` random pictures of 32 × 32 with one to three objects, and what a test wants to be wrong.

    Args:
        empty: item seeds of pictures without objects.
        bad: item seeds, or indices, of those that cannot be read.
        nan: item seeds of those with a pixel that is not finite.
    """

    def __init__(self, size=8, empty=(), bad=(), nan=()):
        self.size, self.empty, self.bad, self.nan = size, set(empty), set(bad), set(nan)
        self.categories = Categories(names=("cat", "dog"), ids=(1, 2))
        self.image_transform = ImageTransform()
        self.most_objects = 3

    def __len__(self):
        return self.size

    def __getitem__(self, key):
        index, seed = key if isinstance(key, tuple) else (key, key)
        if seed in self.bad or index in self.bad:
            return BadItem(f"picture {index}", "it is broken")
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, 32, 32, generator=generator)
        if seed in self.nan:
            image[0, 0, 0] = torch.nan
        objects = 0 if seed in self.empty else 1 + index % 3
        boxes = torch.rand(objects, 4, generator=generator) * 0.2 + 0.3
        labels = torch.randint(2, (objects,), generator=generator)
        return image, {"labels": labels, "boxes": boxes, "image_id": 100 + index, "original_size": (32, 32)}

    def collate(self, items):
        return items

    def prepare(self, items, device):
        good = [item for item in items if not isinstance(item, BadItem)]
        images = [image for image, _ in good] or [torch.zeros(3, 1, 1)]
        targets = [target for _, target in good]
        return DetectionBatch(as_image_batch(images), targets, [i for i in items if isinstance(i, BadItem)])


@dataclass(frozen=True, kw_only=True)
class PicturesRecipe(DetrRecipe):
    """Trains on the `Pictures` that `pictures_recipe` was given; `task` is the last task that was built."""

    def build_task(self, bad_items="skip"):
        task = PicturesTask(self, bad_items)
        type(self).task = task
        return task


class PicturesTask(DetectionTask):
    pictures = Pictures()

    def _data(self):
        self.endless = False
        return self.pictures, None


def pictures_recipe(pictures=None, **changes):
    """A recipe for a test's own pictures."""
    PicturesTask.pictures = pictures or Pictures()
    fields = {name: getattr(TINY, name) for name in TINY.__dataclass_fields__}
    return replace(PicturesRecipe(**fields), name="pictures", data="pictures", **changes)


def seeds_of_step(recipe, size, step):
    """The item seeds of a step (from 1), in the order in which processes take them."""
    sampler = StepSampler(size, recipe.batch_size, recipe.steps, recipe.seed)
    return [seed for _, seed in sampler.batch(step - 1)]


def trace(folder):
    """What a run computed: its log without what depends on the clock."""
    timed = ("images_per_second", "seconds")
    return [{key: value for key, value in entry.items() if key not in timed} for entry in read_log(folder)]


def saved_state(folder):
    return torch.load(folder / "state.pt", weights_only=True)


def assert_same_run(expected, folder):
    """The same losses, weights and optimiser, bit for bit."""
    assert trace(folder) == trace(expected)
    a, b = saved_state(expected), saved_state(folder)
    for part in ("model", "average"):
        for name, tensor in a[part].items():
            assert torch.equal(tensor, b[part][name]), (part, name)
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    for number, moments in a["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, b["optimizer"]["state"][number][name])
    weights = "model.safetensors"
    assert (expected / weights).read_bytes() == (folder / weights).read_bytes()
