"""One name for every place a model may come from."""

import logging
from pathlib import Path

from torch import nn

from minivis.pretrained.checkpoint import (
    CARD,
    CheckpointError,
    load_checkpoint,
    near,
    shipped,
    shipped_checkpoints,
)

logger = logging.getLogger("minivis")


def load(name_or_path: str | Path) -> nn.Module:
    """A trained model in evaluation mode.

    Args:
        name_or_path: a shipped checkpoint ("detr-mini"), or a local folder with `card.json` and `model.safetensors`.

    Returns:
        The model, with `categories`, `class_names` (a list of K), `image_transform` and `card`.

    Raises:
        CheckpointError: if something is wrong with the files; the message names the file.
        FileNotFoundError: if there is no such checkpoint.
    """
    name, folder = str(name_or_path), Path(name_or_path)
    if name in shipped_checkpoints():
        if folder.is_dir() and folder.resolve() != shipped(name).resolve():
            logger.warning("loading the %s that ships with minivis; for the folder here, say ./%s", name, name)
        folder = shipped(name)
    if not folder.is_dir():
        if folder.exists():
            raise CheckpointError(f"{folder} is a file; a checkpoint is the folder with {CARD} in it")
        known = shipped_checkpoints()
        raise FileNotFoundError(
            f"no checkpoint {name!r}: it is no folder here, and minivis ships {', '.join(known)}{near(name, known)}"
        )
    if (folder / CARD).exists():
        return load_checkpoint(folder)
    raise CheckpointError(f"{folder} has no {CARD}")
