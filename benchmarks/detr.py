"""DETR with a ResNet-50: this package beside the one in Hugging Face transformers, in one run.

Both have the same (random) weights, the same frozen parts, precision, dropout, images, targets and optimiser,
and each goes through its public door: `SetCriterion` here, `labels=` there.

    python benchmarks/detr.py [--quick] [--json] [--device cuda] [--threads 2]
"""

import warnings
from collections.abc import Callable
from contextlib import nullcontext

import torch
from common import Row, Step, fastest, machine, report
from memory import options_of, peak_rows
from torch import nn

CLASSES, QUERIES, LAYERS = 91, 100, 6


def both_models(device: str) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs, with random weights."""
    return with_reference("DetrForObjectDetection", CLASSES, ["stage4"], device)


def with_reference(kind: str, classes: int, maps: list[str], device: str) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs: the same random weights, the same of them frozen.

    Theirs is a DETR-R50 of transformers as its configuration makes it for training, of the class `kind`, which reads
    these maps of the backbone.
    """
    import transformers

    from minivis import from_transformers
    from minivis.pretrained.huggingface import FAMILIES

    torch.manual_seed(0)
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        backbone_config=transformers.ResNetConfig(out_features=maps),  # its defaults are the ResNet-50
        num_labels=classes,
        num_queries=QUERIES,
        decoder_layers=LAYERS,
        auxiliary_loss=True,
        dropout=0.1,
        attention_dropout=0.1,  # as in the paper's code; its default here is none
        activation_dropout=0.1,
    )
    theirs = getattr(transformers, kind)(config)
    for module in theirs.modules():  # random features would grow in each block; trained ones do not
        if type(module).__name__.endswith("BottleNeckLayer"):
            module.layer[-1].normalization.weight.fill_(0.2)
    ours = from_transformers(theirs.to(device))
    trained = {name: parameter.requires_grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        parameter.requires_grad_(trained[FAMILIES[kind].rename(name)])
    return ours.train(), theirs.train()


def random_targets(images: int, objects: int, device: str) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    targets = []
    for _ in range(images):
        size = 0.05 + 0.3 * torch.rand(objects, 2, generator=generator)
        centre = size / 2 + (1 - size) * torch.rand(objects, 2, generator=generator)
        boxes = torch.cat([centre, size], dim=1).to(device)
        labels = torch.randint(CLASSES, (objects,), generator=generator).to(device)
        targets.append({"labels": labels, "class_labels": labels, "boxes": boxes})  # they say class_labels
    return targets


def random_images(size: tuple[int, int], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images as a padded batch: pixels, and the mask of padding. The second is a quarter narrower."""
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    padding_mask = torch.zeros(2, *size, dtype=torch.bool)
    padding_mask[1, :, 3 * size[1] // 4 :] = True
    return pixels.masked_fill(padding_mask[:, None], 0).to(device), padding_mask.to(device)


def optimiser(model: nn.Module) -> torch.optim.Optimizer:
    """The paper's, fused as in the training loop: the backbone learns ten times slower."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if "backbone" in name], "lr": 1e-5},
        {"params": [p for name, p in trained if "backbone" not in name], "lr": 1e-4},
    ]
    return torch.optim.AdamW(groups, weight_decay=1e-4, fused=True)


def training_step(model: nn.Module, loss: Step, device: str, bf16: bool) -> Step:
    """Forward, loss, backward, clipping and the optimiser's step."""
    adamw = optimiser(model)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def step() -> None:
        adamw.zero_grad()
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 0.1)
        adamw.step()

    return step


def our_loss(model: nn.Module, size: tuple[int, int], device: str) -> Step:
    from minivis.detr import HungarianMatcher, SetCriterion
    from minivis.images import ImageBatch

    images, targets = ImageBatch(*random_images(size, device)), random_targets(2, 7, device)
    criterion = SetCriterion(CLASSES, HungarianMatcher()).to(device)
    return lambda: criterion.weighted_sum(criterion(model(images), targets))


def their_loss(model: nn.Module, size: tuple[int, int], device: str) -> Step:
    pixels, padding_mask = random_images(size, device)
    targets = random_targets(2, 7, device)
    return lambda: model(pixels, pixel_mask=(~padding_mask).long(), labels=targets).loss


def training_rows(
    ours: nn.Module, theirs: nn.Module, size: tuple[int, int], device: str, repeats: int
) -> list[Row]:
    """Seconds of a training step in fp32 and bf16, and on a GPU how often it waits."""
    steps = {
        (side, precision): training_step(model, loss(model, size, device), device, precision == "bf16")
        for (side, model, loss) in (("ours", ours, our_loss), ("theirs", theirs, their_loss))
        for precision in ("fp32", "bf16")
    }
    seconds = fastest(steps, repeats, wait=waiter(device))
    name = f"training step, {shape(size)}"
    rows = [
        Row(f"{name}, fp32", seconds["ours", "fp32"], seconds["theirs", "fp32"], "s"),
        Row(f"{name}, bf16", seconds["ours", "bf16"], seconds["theirs", "bf16"], "s"),
        Row(f"{name}, bf16 against fp32", seconds["ours", "bf16"], seconds["theirs", "fp32"], "s"),
    ]
    if device != "cpu":
        counts = [waits(steps[side, "fp32"]) for side in ("ours", "theirs")]
        rows.append(Row("waits for the device in a training step", *counts, "1"))
    return rows


def inference_rows(
    ours: nn.Module, theirs: nn.Module, size: tuple[int, int], device: str, repeats: int
) -> list[Row]:
    """Seconds from pixels to logits and boxes, for two images."""
    from minivis.images import ImageBatch

    ours.eval()
    theirs.eval()
    pixels, padding_mask = random_images(size, device)
    rows = []
    for precision in ("fp32", "bf16"):

        def run(forward: Step, bf16: bool = precision == "bf16") -> None:
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
                forward()

        sides = {
            "ours": lambda run=run: run(lambda: ours(ImageBatch(pixels, padding_mask))),
            "theirs": lambda run=run: run(lambda: theirs(pixels, pixel_mask=(~padding_mask).long())),
        }
        seconds = fastest(sides, repeats, wait=waiter(device))
        rows.append(Row(f"inference, {shape(size)}, {precision}", seconds["ours"], seconds["theirs"], "s"))
    return rows


def criterion_rows(device: str, repeats: int) -> list[Row]:
    """Milliseconds from predictions to their gradients: matching and losses of all decoder layers."""
    from transformers import DetrConfig
    from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

    from minivis.detr import HungarianMatcher, SetCriterion

    criterion = SetCriterion(CLASSES, HungarianMatcher()).to(device)
    config = DetrConfig(num_labels=CLASSES, auxiliary_loss=True, decoder_layers=LAYERS)

    def our_criterion(logits: torch.Tensor, boxes: torch.Tensor, targets: list[dict]) -> torch.Tensor:
        layers = [{"pred_logits": c, "pred_boxes": b} for c, b in zip(logits, boxes, strict=True)]
        return criterion.weighted_sum(criterion(layers[-1] | {"aux_outputs": layers[:-1]}, targets))

    def their_criterion(logits: torch.Tensor, boxes: torch.Tensor, targets: list[dict]) -> torch.Tensor:
        return ForObjectDetectionLoss(logits[-1], targets, device, boxes[-1], config, logits, boxes)[0]

    rows = []
    for images, objects in ((2, 7), (16, 20), (64, 20)):
        targets = random_targets(images, objects, device)
        generator = torch.Generator().manual_seed(1)
        logits = torch.randn(LAYERS, images, QUERIES, CLASSES + 1, generator=generator)
        boxes = torch.rand(LAYERS, images, QUERIES, 4, generator=generator)
        logits, boxes = logits.to(device).requires_grad_(), boxes.to(device).requires_grad_()

        def gradients(loss: Callable, inputs: tuple = (logits, boxes), targets: list = targets) -> None:
            torch.autograd.grad(loss(*inputs, targets), inputs)

        sides = {
            "ours": lambda run=gradients: run(our_criterion),
            "theirs": lambda run=gradients: run(their_criterion),
        }
        seconds = fastest(sides, repeats, wait=waiter(device))
        name = f"matcher and criterion, {images} images, {objects} objects each"
        rows.append(Row(name, 1000 * seconds["ours"], 1000 * seconds["theirs"], "ms"))
    return rows


def memory_rows(size: tuple[int, int], device: str, precisions: tuple[str, ...]) -> list[Row]:
    """MiB that training takes at its peak, above the weights."""
    names = {precision: f"peak memory of training, {shape(size)}, {precision}" for precision in precisions}
    return peak_rows(__file__, names, size, device)


def training_task(side: str, precision: str, size: tuple[int, int], device: str) -> Step:
    """A training step of one side."""
    ours, theirs = both_models(device)
    model, loss = (ours, our_loss) if side == "ours" else (theirs, their_loss)
    return training_step(model, loss(model, size, device), device, precision == "bf16")


def waits(step: Step) -> int:
    """How often Python stands still until the GPU is done, in one call."""
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def shape(size: tuple[int, int]) -> str:
    return f"2 images of {size[1]}x{size[0]}"


def waiter(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device != "cpu" else lambda: None


def main() -> None:
    options = options_of(__doc__, training_task)
    size, repeats = ((224, 224), 2) if options.quick else ((512, 640), 10)
    models = both_models(options.device)
    rows = [
        *training_rows(*models, size, options.device, repeats),
        *inference_rows(*models, size, options.device, repeats + 1),
        *criterion_rows(options.device, repeats + 1),
        *memory_rows(size, options.device, ("fp32",) if options.quick else ("fp32", "bf16")),
    ]
    report("DETR-R50, this package and transformers", rows, machine(options.device), options.json)


if __name__ == "__main__":
    main()
