"""A checkpoint is a folder: `model.safetensors`, and `card.json`, which says what the weights belong to.

The card holds what is needed to build the model (`model`, `config`), to use it (`categories`, `image_transform`) and to
judge it (`recipe`, `seed`, `minivis`, `metrics`, `training`). Nothing is ever unpickled.
"""

import json
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

import minivis
from minivis.data.files import write_atomically
from minivis.data.items import Categories
from minivis.detr import DETR, DETRConfig, DETRsegm, PanopticConfig, build_detr, build_panoptic
from minivis.images import ImageTransform
from minivis.shipped_files import shipped_folder

FORMAT = 1  # of the folder; a change that older code would misread makes it 2
WEIGHTS, CARD = "model.safetensors", "card.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names the file."""


class Kind(NamedTuple):
    """One kind of model that checkpoints are made of."""

    model: type[nn.Module]
    config: type
    build: Callable[[Any], nn.Module]


KINDS = {
    "detr": Kind(DETR, DETRConfig, build_detr),
    "panoptic": Kind(DETRsegm, PanopticConfig, build_panoptic),
}


def save_checkpoint(
    model: nn.Module, folder: Path | str, card: dict[str, Any], dtype: torch.dtype | None = None
) -> Path:
    """Write `folder/model.safetensors` and `folder/card.json`, each either whole or not at all.

    Args:
        model: built from a configuration, which it keeps as `model.config`.
        folder: made if it does not exist; what is there under these two names is replaced.
        card: `categories`, `image_transform`, `recipe`, `seed`, `metrics`, `training`, as JSON would hold them. The
            first two may be left out for a model that has them as attributes. The other entries are written here.
        dtype: what floating-point weights are stored as; None: as they are. `load` gives float32 whatever it is.

    Returns:
        The folder.
    """
    kind = next((name for name, kind in KINDS.items() if type(model) is kind.model), None)
    if kind is None:
        raise TypeError(f"checkpoints hold {' or '.join(KINDS)}, not {type(model).__name__}")
    card = dict(card)
    for entry in ("categories", "image_transform"):
        if entry not in card and hasattr(model, entry):
            card[entry] = getattr(model, entry).to_dict()
    card |= {
        "format": FORMAT,
        "model": kind,
        "config": config_of(model).to_dict(),
        "minivis": minivis.__version__,
    }
    text = json.dumps(json_safe(card), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)

    folder = Path(folder)
    check_card(json.loads(text), folder / CARD)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().contiguous().to(dtype if tensor.is_floating_point() else None)
        for name, tensor in model.state_dict().items()
    }
    write_atomically(folder / WEIGHTS, to_safetensors(tensors))
    write_atomically(folder / CARD, (text + "\n").encode())
    return folder


def load_checkpoint(folder: Path) -> nn.Module:
    """The model a folder written by `save_checkpoint` holds, in evaluation mode."""
    card_file, weights_file = folder / CARD, folder / WEIGHTS
    card = read_json(card_file)
    check_card(card, card_file)
    kind = KINDS[card["model"]]
    try:
        model = kind.build(kind.config(**card["config"]))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{card_file}: no model can be built from its config: {error}") from error
    fill(model, read_tensors(weights_file), weights_file)
    model.card = card
    return with_use(
        model, Categories.from_dict(card["categories"]), ImageTransform.from_dict(card["image_transform"])
    )


def with_use(model: nn.Module, categories: Categories, image_transform: ImageTransform) -> nn.Module:
    """The model in evaluation mode, with what whoever uses it needs beside it."""
    model.categories = categories
    model.class_names = list(categories.names)
    model.image_transform = image_transform
    return model.eval()


def check_card(card: Any, file: Path) -> None:
    """Raises a `CheckpointError` that names what is wrong, if a model cannot be built from the card."""

    def expect(right: bool, message: str) -> None:
        if not right:
            raise CheckpointError(f"{file}: {message}")

    expect(isinstance(card, dict), f"expected a JSON object, got {type(card).__name__}")
    missing = {"format", "model", "config", "categories", "image_transform"} - card.keys()
    expect(not missing, f"the card lacks {', '.join(sorted(missing))}")
    expect(
        card["format"] == FORMAT,
        f"the card has format {card['format']!r}, minivis {minivis.__version__} reads format {FORMAT}",
    )
    expect(card["model"] in KINDS, f"unknown kind of model {card['model']!r}, expected {' or '.join(KINDS)}")
    expect(isinstance(card["config"], dict), f"config is {card['config']!r}, expected a JSON object")
    # A field that the card lacks is younger than the card: its default means what was done before there was a choice.
    unknown = set(card["config"]) - {field.name for field in fields(KINDS[card["model"]].config)}
    expect(not unknown, f"the config has unknown entries: {', '.join(sorted(unknown))}")
    try:
        categories = Categories.from_dict(card["categories"])
        ImageTransform.from_dict(card["image_transform"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file}: categories or image_transform cannot be read: {error!r}") from error
    classes = card["config"].get("num_classes", len(categories))
    expect(classes == len(categories), f"{classes} classes in config, {len(categories)} in categories")


def fill(model: nn.Module, tensors: dict[str, Tensor], file: Path | str) -> None:
    """Copy tensors into the model: all of them, and every parameter and buffer gets its own."""
    expected = model.state_dict()
    problems = [
        f"{what}: {some(names)}"
        for what, names in (
            ("missing", sorted(expected.keys() - tensors.keys())),
            ("not known to the model", sorted(tensors.keys() - expected.keys())),
            (
                "of another shape",
                [
                    f"{name} is {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
                    for name, tensor in expected.items()
                    if name in tensors and tensors[name].shape != tensor.shape
                ],
            ),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{file}: the tensors do not fit the {type(model).__name__}; {'; '.join(problems)}"
        )
    model.load_state_dict(tensors)


def some(names: list[str], show: int = 5) -> str:
    return ", ".join(names[:show]) + (f" and {len(names) - show} more" if len(names) > show else "")


def read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist") from None
    except (SafetensorError, OSError) as error:
        size = f"{file.stat().st_size} bytes" if file.is_file() else "no file"
        raise CheckpointError(f"{file} ({size}) is truncated or not safetensors: {error}") from error


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error


def json_safe(value: Any) -> Any:
    """JSON has no NaN: a metric that is not defined becomes null."""
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def config_of(model: nn.Module) -> Any:
    """The configuration that a model was built from; TypeError if it was not."""
    if not hasattr(model, "config"):
        raise TypeError(
            f"this {type(model).__name__} was put together by hand; one built from a configuration (as by build_detr) "
            "keeps it, and can be saved and converted"
        )
    return model.config


def shipped_checkpoints() -> list[str]:
    """The names `load` knows by itself."""
    return sorted(file.parent.name for file in shipped_folder().glob(f"*/{CARD}"))
