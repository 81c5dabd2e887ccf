"""The images of a data set, batch by batch, as every evaluation sees them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm import tqdm

from minivis.data.items import BadItems, DetectionDataset
from minivis.images import ImageBatch


def same_size_batches(
    dataset: DetectionDataset,
    images: list[dict[str, Any]],
    device: torch.device,
    batch_size: int,
    bad_items: BadItems,
    progress: bool,
    max_images: int | None,
    workers: int,
) -> Iterator[tuple[Tensor, list[dict[str, Any]]]]:
    """Pixels (n, 3, h, w) and targets: this process's share of the images that can be read, none of them padded.

    Images of a batch that differ in size come one size after another, since padding changes what convolutions see at an
    image's border. `images` are those of the ground truth, with `height` and `width`.
    """
    rank, processes = rank_and_processes()
    indices = range(len(dataset))[:max_images]
    if len(images) == len(dataset):
        # Images of equal size side by side, to go through the model together; the largest come first.
        sizes = [(image["height"], image["width"]) for image in images]
        indices = sorted(indices, key=lambda i: sizes[i], reverse=True)
    loader = DataLoader(
        dataset,
        batch_size,
        sampler=indices[rank::processes],
        collate_fn=dataset.collate,
        num_workers=workers,
        generator=torch.Generator(),  # its own, so that training goes on as if it had not been evaluated
    )
    for raw in tqdm(loader, "evaluating", leave=False, disable=not progress or rank > 0):
        batch = dataset.prepare(raw, device)
        for item in batch.bad_items:
            bad_items.report(item)
        for members, pixels in _by_size(batch.images):
            yield pixels, [batch.targets[i] for i in members]


def _by_size(images: ImageBatch) -> Iterator[tuple[list[int], Tensor]]:
    """The images of each size, without padding: their places in the batch, and their pixels (n, 3, h, w)."""
    sizes = images.sizes
    for height, width in dict.fromkeys(sizes):
        members = [i for i, size in enumerate(sizes) if size == (height, width)]
        yield members, images.pixels[members, :, :height, :width]


def placed(model: nn.Module, device: torch.device | str | None) -> tuple[nn.Module, torch.device]:
    """The model itself, on the device; None: where it is."""
    if isinstance(model, DistributedDataParallel):
        model = model.module  # the wrapper would wait, at every batch, for processes that have fewer of them
    model = model if device is None else model.to(device)
    return model, next(model.parameters()).device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in its own mode again (a frozen part's may be another)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def rank_and_processes() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def of_all_processes(share: Any) -> list[Any]:
    """Every process's share, in the order of their ranks."""
    _, processes = rank_and_processes()
    shares: list[Any] = [share] * processes
    if processes > 1:
        torch.distributed.all_gather_object(shares, share)
    return shares
