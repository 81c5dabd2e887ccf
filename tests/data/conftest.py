"""Tiny COCO folders, written by tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


class CocoWriter:
    """Collects images and annotations, and writes them as a COCO folder: `folder / split / annotations.json`."""

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.folder, self.split = folder, split
        self.content: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        }
        self.pictures = folder / split
        self.pictures.mkdir(parents=True, exist_ok=True)

    def image(
        self, image_id: int, size: tuple[int, int] = (40, 60), picture: Any = "plain", **fields: Any
    ) -> str:
        """An image of (height, width); `picture`: a PIL picture, "plain" for a grey one, None to write no file."""
        name = fields.get("file_name", f"{image_id}.png")
        if isinstance(picture, str):
            picture = Image.fromarray(np.full((*size, 3), 128, dtype=np.uint8))
        if picture is not None:
            picture.save(self.pictures / name)
        self.content["images"].append(
            {"id": image_id, "file_name": name, "height": size[0], "width": size[1], **fields}
        )
        return name

    def annotation(
        self, annotation_id: int, image_id: int, bbox: Any = (10, 10, 20, 10), **fields: Any
    ) -> None:
        bbox = list(bbox) if isinstance(bbox, tuple) else bbox
        entry = {"id": annotation_id, "image_id": image_id, "category_id": 3, "bbox": bbox, "iscrowd": 0}
        self.content["annotations"].append({**entry, **fields})

    @property
    def file(self) -> Path:
        return self.folder / self.split / "annotations.json"

    def write(self, content: Any = None) -> Path:
        """Writes the annotation file (or this content, text as it is, in its place); gives the folder."""
        content = self.content if content is None else content
        self.file.write_text(content if isinstance(content, str) else json.dumps(content))
        return self.folder


@pytest.fixture
def coco(tmp_path: Path) -> CocoWriter:
    """An empty training split in a folder of its own."""
    return CocoWriter(tmp_path)
