"""Small scenes as a folder in COCO's format, as a reader has one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from minivis.data import Scenes
from minivis.experiments.small_detr import WORLD


def write_split(
    folder: Path,
    split: str,
    count: int,
    change: Callable[[list[Image.Image], dict[str, Any]], None] = lambda pictures, truth: None,
) -> None:
    """Writes `folder/split`; `change` may change its pictures and its annotations before."""
    scenes = Scenes(split, WORLD, size=count)
    truth, pictures = scenes.ground_truth(), [scenes.scene_image(index) for index in range(count)]
    for index, image in enumerate(truth["images"]):
        image["file_name"] = f"{index}.png"
    change(pictures, truth)
    (folder / split).mkdir()
    for image, picture in zip(truth["images"], pictures, strict=True):
        picture.save(folder / split / image["file_name"])
    (folder / split / "annotations.json").write_text(json.dumps(truth))
