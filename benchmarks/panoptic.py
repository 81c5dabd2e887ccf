"""DETR with masks on a ResNet-50: this package beside the one in Hugging Face transformers, in one run.

Both have the same (random) weights, the same frozen parts, precision, images, targets and optimiser. There, masks are
made of all queries, always; here of those that are asked for: of the matched ones in training, of the kept ones in
inference. Where both make all of them, the same work is compared.

    python benchmarks/panoptic.py [--quick] [--json] [--device cuda] [--threads 2]
"""

import torch
from common import Row, Step, fastest, machine, report
from detr import QUERIES, random_images, random_targets, shape, training_step, waiter, with_reference
from memory import options_of, peak_rows
from torch import nn

CLASSES, HEADS, WIDTH = 250, 8, 256
MATCHED = 7  # objects of an image: so many queries get a mask


def both_models(device: str) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs, with random weights."""
    return with_reference("DetrForSegmentation", CLASSES, ["stage1", "stage2", "stage3", "stage4"], device)


def head_rows(
    ours: nn.Module, theirs: nn.Module, size: tuple[int, int], device: str, repeats: int
) -> list[Row]:
    """Seconds of the mask head alone, from the attention of queries to their masks, for one image."""
    generator = torch.Generator().manual_seed(0)
    strides = (32, 16, 8, 4)
    channels = (WIDTH, 1024, 512, 256)
    x, *finer = (
        torch.randn(1, c, size[0] // s, size[1] // s, generator=generator).to(device)
        for c, s in zip(channels, strides, strict=True)
    )
    attention = torch.rand(1, QUERIES, HEADS, *x.shape[-2:], generator=generator).flatten(2).softmax(-1)
    attention = attention.view(1, QUERIES, HEADS, *x.shape[-2:]).to(device)
    kept = torch.arange(MATCHED, device=device)

    def of_ours(queries: torch.Tensor) -> torch.Tensor:
        image = torch.zeros_like(queries)
        return ours.mask_head.of_pairs(x, attention[0, queries], finer, image)

    def of_theirs() -> torch.Tensor:
        return theirs.mask_head(features=x, attention_masks=attention, fpn_features=finer)

    sides = {
        "ours": lambda: ours.mask_head(x, attention, finer),
        "kept": lambda: of_ours(kept),
        "theirs": of_theirs,
    }
    with torch.inference_mode():
        seconds = fastest(sides, repeats, wait=waiter(device))
    name = f"mask head, an image of {size[1]}x{size[0]}"
    return [
        Row(f"{name}, all {QUERIES} queries", seconds["ours"], seconds["theirs"], "s"),
        Row(f"{name}, the {MATCHED} kept (there all)", seconds["kept"], seconds["theirs"], "s"),
    ]


def inference_sides(
    ours: nn.Module, theirs: nn.Module, size: tuple[int, int], device: str
) -> dict[str, Step]:
    """From the pixels of two images to classes, boxes and masks: of all queries, of some, and there of all."""
    from minivis.images import ImageBatch

    pixels, padding_mask = random_images(size, device)
    image = torch.arange(2, device=device).repeat_interleave(MATCHED)
    query = torch.arange(MATCHED, device=device).repeat(2)
    sides = {
        "all": lambda: ours(ImageBatch(pixels, padding_mask)),
        "kept": lambda: ours(ImageBatch(pixels, padding_mask), lambda outputs: (image, query)),
        "theirs": lambda: theirs(pixels, pixel_mask=(~padding_mask).long()),
    }
    return {name: torch.inference_mode()(side) for name, side in sides.items()}


def inference_rows(
    ours: nn.Module, theirs: nn.Module, size: tuple[int, int], device: str, repeats: int
) -> list[Row]:
    """Seconds of inference, for two images."""
    seconds = fastest(inference_sides(ours.eval(), theirs.eval(), size, device), repeats, wait=waiter(device))
    name = f"inference, {shape(size)}"
    return [
        Row(f"{name}, masks of all", seconds["all"], seconds["theirs"], "s"),
        Row(f"{name}, of {MATCHED} each (there all)", seconds["kept"], seconds["theirs"], "s"),
    ]


def targets_with_masks(size: tuple[int, int], device: str) -> list[dict]:
    """Two images' boxes with masks that fill them; the second image is a quarter narrower."""
    targets = random_targets(2, MATCHED, device)
    for target, width in zip(targets, (size[1], 3 * size[1] // 4), strict=True):
        y, x = torch.arange(size[0], device=device) / size[0], torch.arange(width, device=device) / width
        cx, cy, w, h = target["boxes"][:, :, None, None].unbind(1)
        target["masks"] = ((x - cx).abs() <= w / 2) & ((y[:, None] - cy).abs() <= h / 2)
    return targets


def our_loss(model: nn.Module, size: tuple[int, int], device: str) -> Step:
    from minivis.detr import HungarianMatcher, SetCriterion
    from minivis.images import ImageBatch

    images, targets = ImageBatch(*random_images(size, device)), targets_with_masks(size, device)
    losses = ["labels", "boxes", "cardinality", "masks"]
    criterion = SetCriterion(CLASSES, HungarianMatcher(), losses=losses).to(device)
    return lambda: criterion.weighted_sum(criterion.with_matched_masks(model, images, targets))


def their_loss(model: nn.Module, size: tuple[int, int], device: str) -> Step:
    pixels, padding_mask = random_images(size, device)
    targets = targets_with_masks(size, device)
    return lambda: model(pixels, pixel_mask=(~padding_mask).long(), labels=targets).loss


def training_rows(
    ours: nn.Module, theirs: nn.Module, size: tuple[int, int], device: str, repeats: int
) -> list[Row]:
    """Seconds of a training step, all parts of the model learning, as in the paper's joint training."""
    ours.train()
    theirs.train()
    rows = []
    for precision in ("fp32", "bf16"):
        sides = {
            "ours": training_step(ours, our_loss(ours, size, device), device, precision == "bf16"),
            "theirs": training_step(theirs, their_loss(theirs, size, device), device, precision == "bf16"),
        }
        seconds = fastest(sides, repeats, wait=waiter(device))
        name = f"training step, {shape(size)}, {precision}"
        rows.append(Row(name, seconds["ours"], seconds["theirs"], "s"))
    return rows


def memory_rows(size: tuple[int, int], device: str) -> list[Row]:
    """MiB above the weights at the peak."""
    tasks = {"training": "training", "inference": f"inference, {MATCHED} each (there all)"}
    names = {task: f"peak memory of {name}, {shape(size)}, fp32" for task, name in tasks.items()}
    return peak_rows(__file__, names, size, device)


def memory_task(side: str, task: str, size: tuple[int, int], device: str) -> Step:
    """A training step of one side, or its inference of two images."""
    ours, theirs = both_models(device)
    if task == "training":
        model, loss = (ours, our_loss) if side == "ours" else (theirs, their_loss)
        return training_step(model, loss(model, size, device), device, bf16=False)
    return inference_sides(ours.eval(), theirs.eval(), size, device)["kept" if side == "ours" else "theirs"]


def main() -> None:
    options = options_of(__doc__, memory_task)
    size, repeats = ((128, 160), 1) if options.quick else ((512, 640), 10)
    models = both_models(options.device)
    rows = [
        *head_rows(*models, size, options.device, repeats + 1),
        *inference_rows(*models, size, options.device, repeats),
        *training_rows(*models, size, options.device, repeats),
        *memory_rows(size, options.device),
    ]
    report("Panoptic DETR-R50, this package and transformers", rows, machine(options.device), options.json)


if __name__ == "__main__":
    main()
