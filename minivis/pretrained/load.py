"""One name for every place a model may come from."""

import logging
import re
from pathlib import Path

from torch import nn

from minivis.pretrained.checkpoint import (
    CARD,
    WEIGHTS,
    CheckpointError,
    load_checkpoint,
    shipped_checkpoints,
)
from minivis.pretrained.huggingface import CONFIG, INDEX, PREPROCESSING, load_huggingface
from minivis.shipped_files import near, shipped

logger = logging.getLogger("minivis")

HUB_ID = r"[A-Za-z0-9][\w.-]*/[\w.-]+"
# No file that would have to be unpickled, and none of the other copies of the weights a repository may hold.
HUB_FILES = [WEIGHTS, INDEX, "model-*.safetensors", CARD, CONFIG, PREPROCESSING]


def load(name_or_path: str | Path) -> nn.Module:
    """A trained model in evaluation mode.

    Args:
        name_or_path: a shipped checkpoint ("detr-mini"); a local folder, written by `save_checkpoint` or by
            transformers; or the id of a repository on the Hugging Face hub ("facebook/detr-resnet-50").

    Returns:
        The model, with `categories`, `class_names` (a list of K), `image_transform` and `card`.

    Raises:
        CheckpointError: if something is wrong with the files; the message names the file.
        FileNotFoundError: if there is no such checkpoint, or the hub cannot be reached.
    """
    name, folder = str(name_or_path), Path(name_or_path)
    if name in shipped_checkpoints():
        if folder.is_dir() and folder.resolve() != shipped(name).resolve():
            logger.warning(
                "loading the %s that ships with minivis; for the folder here, say ./%s", name, name
            )
        folder = shipped(name)
    elif not folder.exists():
        if not re.fullmatch(HUB_ID, name):
            known = shipped_checkpoints()
            raise FileNotFoundError(
                f"no checkpoint {name!r}: minivis ships {', '.join(known) or 'none'}{near(name, known)}, there is no "
                "such folder here, and an id on the Hugging Face hub looks like facebook/detr-resnet-50"
            )
        folder = download(name)
    elif not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a checkpoint is the folder it lies in")

    if (folder / CARD).exists():
        return load_checkpoint(folder)
    if (folder / CONFIG).exists():
        return load_huggingface(folder)
    raise CheckpointError(f"{folder} has neither {CARD} (minivis) nor {CONFIG} (Hugging Face transformers)")


def load_released(repo_id: str, wanted: bool = False) -> nn.Module | None:
    """A released model for a cell of a notebook that goes on without it.

    Args:
        repo_id: of a repository on the Hugging Face hub ("facebook/detr-resnet-50").
        wanted: whether it may be downloaded. If not, it is loaded only from the hub's cache on this machine.

    Returns:
        The model, as `load` gives it; or None, after a printed line that says why, where it cannot be had.
    """
    from huggingface_hub import try_to_load_from_cache

    if not wanted and not any(
        isinstance(try_to_load_from_cache(repo_id, file), str) for file in (WEIGHTS, INDEX)
    ):
        print(f"{repo_id} is not on this machine: set wanted = True to download it")
        return None
    try:
        return load(repo_id)
    except FileNotFoundError as error:
        print(f"{repo_id} could not be downloaded, so this cell shows nothing: {error}")
        return None


def download(repo_id: str) -> Path:
    """The local copy of a repository's files, from the hub's cache where they are there already."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:  # the hub's errors are one or the other
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"there is no folder {repo_id!r} here, and it cannot be had from the Hugging Face hub: "
            f"{type(error).__name__}: {reason} Without a network, load a local folder with the repository's "
            f"{CONFIG}, {PREPROCESSING} and {WEIGHTS}."
        ) from error
