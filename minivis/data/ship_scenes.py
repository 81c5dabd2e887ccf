"""Make the files that `Scenes` ships with.

python -m minivis.data.ship_scenes textures     minivis/data/textures.png, from scikit-image's photographs
python -m minivis.data.ship_scenes val DIR      DIR/val.parquet and DIR/val.json, the split "val"
"""

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import minivis
from minivis.data.scenes import OBJECT_VALUE, STUFF_VALUE, Scenes, captions, render, to_picture
from minivis.data.world import COLOURS, MATERIALS, SIZES

TEXTURES = Path(__file__).with_name("textures.png")


def make_textures(side: int = 256, levels: int = 24) -> None:
    """Write four grey tiles, one below the other, in the order of `MATERIALS`.

    Grass, brick and gravel are scikit-image's bundled photographs, all CC0 (`skimage.data.grass`, `brick`,
    `gravel`, which name their sources), halved in size; water is smoothed noise, longer than high.
    """
    from skimage import data

    LANCZOS = Image.Resampling.LANCZOS
    photos = [Image.fromarray(photo) for photo in (data.grass(), data.brick(), data.gravel())]
    grass, brick, gravel = (np.asarray(photo.resize((side, side), LANCZOS), dtype=float) for photo in photos)
    tiles = np.concatenate(
        [even(tile) for tile in (grass, brick.T, gravel, ripples(side))]
    )  # bricks that lie
    steps = np.round(np.clip(tiles / 2, -1, 1) * (levels // 2))
    Image.fromarray(np.uint8(128 + steps * (254 // levels))).save(TEXTURES, optimize=True)


def even(tile: np.ndarray) -> np.ndarray:
    """Mean 0, deviation 1, without the slow changes of light that a photograph has."""
    frequency = np.hypot(np.fft.fftfreq(len(tile))[:, None], np.fft.fftfreq(len(tile)))
    tile = np.fft.ifft2(np.fft.fft2(tile) * (frequency > 1.5 / len(tile))).real
    return tile / tile.std()


def ripples(side: int) -> np.ndarray:
    """Noise of a band of wave lengths, stretched along the rows."""
    noise = np.fft.fft2(np.random.default_rng(0).normal(size=(side, side)))
    waves = np.hypot(np.fft.fftfreq(side) * side / 0.35, np.fft.fftfreq(side)[:, None] * side)
    return np.fft.ifft2(noise * np.exp(-(((waves - 26) / 10) ** 2))).real


def make_val(folder: Path) -> None:
    """Write the validation split as parquet for `datasets`, and a JSON that tells of which world it is.

    This takes minutes: at quality 100 and method 6, WebP tries everything, which saves a sixth of the file.
    """
    import datasets

    split = Scenes("val")
    columns = {
        "image": datasets.Image(),
        "image_id": datasets.Value("int64"),
        "seed": datasets.Value("int64"),
        "height": datasets.Value("int32"),
        "width": datasets.Value("int32"),
        "objects": {
            "id": datasets.Sequence(datasets.Value("int64")),
            "category": datasets.Sequence(datasets.ClassLabel(names=list(split.categories.names))),
            "category_id": datasets.Sequence(datasets.Value("int64")),
            "bbox": datasets.Sequence(datasets.Sequence(datasets.Value("int32"), length=4)),
            "area": datasets.Sequence(datasets.Value("int32")),
            "colour": datasets.Sequence(datasets.ClassLabel(names=list(COLOURS))),
            "size": datasets.Sequence(datasets.ClassLabel(names=list(SIZES))),
        },
        "captions": datasets.Sequence(datasets.Value("string")),
        "panoptic": datasets.Image(),
    }
    rows = [make_row(split, index, objects) for index, objects in enumerate(split.objects_of_images())]
    table = datasets.Dataset.from_list(rows, features=datasets.Features(columns))
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / "val.parquet", batch_size=100)
    about = {"minivis": minivis.__version__, "split": "val", "seeds": [0, len(split) - 1],
             "object_value": OBJECT_VALUE, "stuff_value": STUFF_VALUE, "materials": list(MATERIALS),
             "world": dataclasses.asdict(split.world)}  # fmt: skip
    (folder / "val.json").write_text(json.dumps(about, indent=2) + "\n")


def make_row(split: Scenes, index: int, objects: Any) -> dict[str, Any]:
    scene, seed = split[index]
    rendered = render([scene])
    objects_seen, stuff = rendered.object_map[0], rendered.stuff_map[0]
    panoptic = torch.where(objects_seen >= 0, OBJECT_VALUE + objects_seen, STUFF_VALUE + stuff)
    return {
        "image": encoded(to_picture(rendered.pixels[0]), "WEBP", lossless=True, quality=100, method=6),
        "image_id": objects.image_id,
        "seed": seed,
        "height": objects.size[0],
        "width": objects.size[1],
        "objects": {
            "id": objects.ids,
            "category": objects.labels,
            "category_id": [split.categories.ids[label] for label in objects.labels],
            "bbox": objects.boxes,
            "area": objects.areas,
            "colour": [thing.colour for thing in scene.objects],
            "size": [thing.size for thing in scene.objects],
        },
        "captions": captions(scene),
        "panoptic": encoded(Image.fromarray(panoptic.to(torch.uint8).numpy()), "PNG", optimize=True),
    }


def encoded(picture: Image.Image, kind: str, **options: Any) -> dict[str, Any]:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": None}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["textures"]:
            make_textures()
        case ["val", folder]:
            make_val(Path(folder))
        case _:
            sys.exit(__doc__)
