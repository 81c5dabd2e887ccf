"""The command line: `minivis train | eval | predict | experiment | recipes`."""

import json
import logging
import math
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

# What takes seconds to import is imported by the command that needs it, so that `minivis --help` is quick.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="DETR, CLIP and DINO, small enough to read and real enough to train.",
    epilog="Errors are told in one line; MINIVIS_TRACEBACK=1 in the environment shows where they come from.",
)

BadItemsOption = Annotated[
    Literal["skip", "stop"],
    typer.Option("--bad-items", help="What cannot be read: skip it (each is named once) or stop."),
]
CpuOption = Annotated[bool, typer.Option("--cpu", help="Leave a GPU alone.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="A folder in COCO's format.", metavar="DIR")]
LARGEST_PICTURE = 1333  # pixels of its long side, as the paper has it

CheckpointArgument = Annotated[
    str, typer.Argument(help="A shipped checkpoint, a local folder, or a hub id.", metavar="CHECKPOINT")
]


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="See `minivis recipes`.", metavar="RECIPE")],
    data: DataOption = None,
    initial: Annotated[
        str | None, typer.Option("--from", help='Checkpoint to start from, or "none".', metavar="CHECKPOINT")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder [default: runs/RECIPE].", metavar="DIR")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the weights.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the recipe; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    bad_items: BadItemsOption = "skip",
    cpu: CpuOption = False,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="Draw a bar [default: on a terminal].")
    ] = None,
) -> None:
    """Train a model by a recipe."""
    from minivis.training.loop import train as run
    from minivis.training.recipes import get_recipe

    folder = (
        f"./{data}" if data == Path("scenes") else data
    )  # plain "scenes" in a recipe means generated ones
    given = {"data": folder, "initial": initial, "steps": steps, "seed": seed}
    changes = [f"{field}={value}" for field, value in given.items() if value is not None]
    chosen = get_recipe(recipe).with_settings(changes + (settings or []))
    out = out or Path("runs") / recipe
    try:
        metrics = run(chosen, out, resume=resume, bad_items=bad_items, cpu=cpu, progress=progress)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command with --resume goes on from the last state in {out}", err=True)
        raise typer.Exit(130) from None
    except FloatingPointError as error:
        kept = f"; {out}/state.pt is from before that" if (out / "state.pt").exists() else ""
        if (out / "best").exists():
            kept += (
                f"; other settings, such as a lower lr, need a run of their own: --from {out}/best --out ..."
            )
        typer.echo(f"minivis: {error}{kept}", err=True)
        raise typer.Exit(1) from None
    if int(os.environ.get("RANK", 0)) == 0:
        typer.echo(table(metrics) + f"weights: {out}")


@app.command("eval")
def evaluate(
    checkpoint: CheckpointArgument,
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="Which part of the data.")] = "val",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, last on stdout.")] = False,
    batch_size: Annotated[int, typer.Option(help="Images at once; the result does not depend on it.")] = 16,
    workers: Annotated[int, typer.Option(help="Processes that read images.")] = 0,
    bad_items: BadItemsOption = "skip",
    cpu: CpuOption = False,
) -> None:
    """Average precision of a checkpoint, and of masks panoptic quality, on the generated scenes or on --data."""
    import minivis
    from minivis.data.items import BadItems
    from minivis.detr import DETRsegm
    from minivis.evaluation.detection import evaluate_detection
    from minivis.evaluation.segmentation import evaluate_panoptic
    from minivis.pretrained.checkpoint import json_safe

    model, items = minivis.load(checkpoint), BadItems(bad_items)
    dataset = evaluation_data(model, data, split, items)
    measure = evaluate_panoptic if isinstance(model, DETRsegm) else evaluate_detection
    metrics = measure(
        model, dataset, device(cpu), batch_size, items, progress=sys.stderr.isatty(), workers=workers
    )
    if items.count:
        typer.echo(items.summary(), err=True)
    if not metrics["images"]:
        source = data or model.card["recipe"]["data"]
        raise ValueError(f"none of the {len(dataset)} images of {source} could be read")
    typer.echo(json.dumps(json_safe(metrics)) if as_json else table(metrics), nl=as_json)


@app.command()
def predict(
    checkpoint: CheckpointArgument,
    images: Annotated[list[Path], typer.Argument(help="Picture files.", metavar="IMAGE...")],
    out: Annotated[
        Path, typer.Option(help="Gets a drawing of each picture, and what was found as JSON.", metavar="DIR")
    ],
    threshold: Annotated[
        float | None,
        typer.Option(
            help="The least score that is drawn; predictions.json has all "
            "[default: 0.5 for boxes, the model's own for segments]."
        ),
    ] = None,
    cpu: CpuOption = False,
) -> None:
    """Find objects in pictures, or with a panoptic model segments.

    predictions.json is in COCO's results format, with `file_name` beside `image_id`; of a panoptic model with masks
    (`segmentation`). That one's maps, as they are drawn, are in panoptic.json and panoptic/, in COCO's panoptic format.
    """
    import minivis
    from minivis.data.panoptic_json import write_panoptic
    from minivis.data.pictures import open_picture
    from minivis.detr import DETRsegm
    from minivis.evaluation.prediction import see
    from minivis.images import fitted_size

    model = minivis.load(checkpoint).to(device(cpu))
    # A model that names no size takes pictures as they are; of a photograph of 12 megapixels that would be minutes.
    transform = model.image_transform.no_larger(None, otherwise=LARGEST_PICTURE)
    out.mkdir(parents=True, exist_ok=True)
    results, unread = [], []
    taken = {path.resolve() for path in images}  # what lies in `out` already is not drawn over

    def look() -> Iterator[tuple[str, int, Any]]:
        """Picture by picture: its file, its id, and its panoptic map or None."""
        for path, image_id in zip(images, image_ids(images), strict=True):
            try:
                picture = open_picture(path)
            except (OSError, ValueError) as error:
                reason = "there is no such file" if isinstance(error, FileNotFoundError) else error
                typer.echo(f"minivis: {path}: {reason}", err=True)
                unread.append(path)
                continue
            longest = transform.longest_edge or math.inf
            if model.image_transform.longest_edge is None and max(picture.size) > longest:
                note = f"seen at {LARGEST_PICTURE} pixels on its long side, since the model names no size"
                typer.echo(f"minivis: {path} is {picture.width} × {picture.height}: {note}", err=True)
            map_size = fitted_size(picture.height, picture.width, None, LARGEST_PICTURE)
            seen = see(model, picture, transform(picture), image_id, threshold, map_size)
            results.extend({**entry, "file_name": str(path)} for entry in seen.results)
            target = free_path(out / f"{path.stem}.png", taken)
            taken.add(target.resolve())
            seen.drawing.save(target)
            counts = ", ".join(f"{n} {model.class_names[label]}" for label, n in Counter(seen.labels).items())
            typer.echo(f"{path} → {target}: {counts or 'nothing'}")
            yield str(path), image_id, seen.panoptic

    if isinstance(model, DETRsegm):
        write_panoptic(out, "panoptic", look(), model.categories)
    else:
        deque(look(), maxlen=0)
    (out / "predictions.json").write_text(json.dumps(results))
    if unread:
        raise typer.Exit(2)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show the fields of this one.", metavar="RECIPE")] = None,
) -> None:
    """What can be trained, and what it takes; or all fields of a recipe, for `train --set`."""
    from minivis.training.checkpoint import flat
    from minivis.training.recipes import RECIPES, get_recipe

    if name is not None:
        for key, value in flat(get_recipe(name).to_dict()).items():
            typer.echo(f"{key}={'none' if value is None else value}")
        return
    for recipe in RECIPES.values():
        typer.echo(f"{recipe.name}\n    {recipe.about}\n    {recipe.estimate}")


@app.command()
def experiment(
    id: Annotated[
        str | None, typer.Argument(help="Of the claim; without it, all are listed.", metavar="ID")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every variant: seeds 0, 1, ...")] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds instead of minutes; the numbers mean nothing.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The JSON file, which a later run goes on with [default: runs/experiments/ID.json].",
            metavar="FILE",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="All numbers as one JSON object, last on stdout.")
    ] = False,
) -> None:
    """Put a claim to the test; what was measured before it was stopped is kept."""
    from minivis.experiments import EXPERIMENTS, get_experiment, run_experiment

    if id is None:
        for known in EXPERIMENTS.values():
            typer.echo(f"{known.id}\n    {known.claim}\n    {known.question}\n    {known.estimate}")
        return
    chosen = get_experiment(id)
    out = out or Path("runs") / "experiments" / f"{chosen.id}{'-quick' * quick}.json"
    try:
        result = run_experiment(chosen, out, seeds, reduced=quick)
    except KeyboardInterrupt:
        typer.echo(f"stopped; the same command goes on after the last training in {out}", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{chosen.question}\n\n{result.table()}\nall numbers: {out}")
    if as_json:
        typer.echo(json.dumps(result.to_dict()))


def evaluation_data(model: Any, data: Path | None, split: str, bad_items: Any) -> Any:
    """The data set that a model is evaluated on: `data`, or else what its card says it was trained on.

    A model that has masks, or whose classes are things and stuff, gets a panoptic one.
    """
    from minivis.data.coco import CocoDetection
    from minivis.data.coco_panoptic import CocoPanoptic
    from minivis.data.scenes import Scenes, load_shipped_scenes
    from minivis.detr import DETRsegm

    source = data or (model.card.get("recipe") or {}).get("data")
    if source is None:
        raise ValueError("the checkpoint does not say what it was trained on: name a folder with --data")
    transform, stuff = model.image_transform, model.categories.is_thing is not None
    if source == "scenes" and split == "val":
        return load_shipped_scenes(image_transform=transform, stuff=stuff)
    if source == "scenes":
        return Scenes(split, image_transform=transform, stuff=stuff)
    kind = CocoPanoptic if stuff or isinstance(model, DETRsegm) else CocoDetection
    return kind(source, split, model.categories, transform=transform, bad_items=bad_items)


def image_ids(paths: list[Path]) -> list[int]:
    """COCO's ids, where all files are named by them (000000000139.jpg), else 1, 2, 3, ..."""
    stems = [path.stem for path in paths]
    ids = [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]
    return ids if len(set(ids)) == len(stems) else list(range(1, len(stems) + 1))


def free_path(path: Path, taken: set[Path]) -> Path:
    """The path, or, if it is taken, the first of NAME-2, NAME-3, ... that is not."""
    names = (path.with_name(f"{path.stem}-{i}{path.suffix}") for i in count(2))
    return next(candidate for candidate in chain([path], names) if candidate.resolve() not in taken)


def device(cpu: bool) -> Any:
    """The GPU, if there is one and it is wanted."""
    import torch

    has_gpu = torch.accelerator.is_available() and not cpu
    return torch.accelerator.current_accelerator() if has_gpu else torch.device("cpu")


def table(metrics: dict[str, Any]) -> str:
    """Metrics as lines of names and numbers."""
    lines = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            lines += [name, *(f"  {line}" for line in table(value).splitlines())]
        else:
            number = f"{value:.4f}" if isinstance(value, float) else str(value)
            lines.append(f"{name:14} {'–' if value is None or value != value else number}")
    return "".join(line + "\n" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    """What `minivis` runs. What a user can mend is told in one line, with exit code 2."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("minivis").setLevel(logging.INFO)
    try:
        app(arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("MINIVIS_TRACEBACK"):
            raise
        typer.echo(f"minivis: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
