"""Weights from and to Hugging Face transformers, from its models in memory and from its folders.

A class of transformers is supported by one entry of `FAMILIES`: which of our models it is, how its configuration
translates, and how its tensors are called.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from minivis.data.items import Categories
from minivis.images import IMAGENET_MEAN, IMAGENET_STD, ImageTransform
from minivis.pretrained import detr_weights
from minivis.pretrained.checkpoint import (
    FORMAT,
    KINDS,
    WEIGHTS,
    CheckpointError,
    config_of,
    fill,
    read_json,
    read_tensors,
    some,
    with_use,
)

if TYPE_CHECKING:
    import transformers

logger = logging.getLogger("minivis")

CONFIG, PREPROCESSING, INDEX = "config.json", "preprocessor_config.json", f"{WEIGHTS}.index.json"
BILINEAR = 2  # PIL's number


class Family(NamedTuple):
    """What must be known of a class of transformers."""

    kind: str  # of our model, as in `checkpoint.KINDS`
    read_config: Callable[[dict[str, Any]], Any]  # what config.json holds → their configuration
    config_from: Callable[..., Any]  # their configuration → ours
    config_to: Callable[..., Any]  # our model → their configuration
    categories_from: Callable[..., Categories]  # their configuration → categories
    rename: Callable[[str], str | None]  # their name of a tensor → ours, or None if it is not needed
    image_transform: ImageTransform  # where no preprocessing is given


FAMILIES = {
    "DetrForObjectDetection": Family(
        kind="detr",
        read_config=detr_weights.read_config,
        config_from=detr_weights.config_from,
        config_to=detr_weights.config_to,
        categories_from=detr_weights.categories_from,
        rename=detr_weights.rename,
        image_transform=detr_weights.IMAGE_TRANSFORM,
    ),
    "DetrForSegmentation": Family(
        kind="panoptic",
        read_config=detr_weights.read_config,
        config_from=detr_weights.segmentation_config_from,
        config_to=detr_weights.segmentation_config_to,
        categories_from=detr_weights.segmentation_categories_from,
        rename=detr_weights.rename_segmentation,
        image_transform=detr_weights.IMAGE_TRANSFORM,
    ),
}


def from_transformers(
    hf_model: "transformers.PreTrainedModel", image_processor: "transformers.BaseImageProcessor | None" = None
) -> nn.Module:
    """The minivis model with the same weights (a copy), in evaluation mode.

    Args:
        hf_model: a `DetrForObjectDetection` or `DetrForSegmentation`, with timm's ResNet as its backbone or with
            transformers' own.
        image_processor: its preprocessing, to be kept as `image_transform`. Without one, it is the paper's.

    Returns:
        The model, of the same precision and on the same device, with `categories`, `class_names`, `image_transform`.

    Raises:
        TypeError: for another class.
        ValueError: for a configuration minivis has no counterpart of; it says of what.
    """
    name = type(hf_model).__name__
    if name not in FAMILIES:
        raise TypeError(f"from_transformers reads {' or '.join(FAMILIES)}, not {name}")
    preprocessing = None if image_processor is None else image_processor.to_dict()
    model = translate(name, hf_model.config, hf_model.state_dict(), preprocessing, f"this {name}")
    return model.to(device=hf_model.device, dtype=hf_model.dtype)


def to_transformers(model: nn.Module) -> "transformers.PreTrainedModel":
    """The model of transformers with the same weights (a copy), in evaluation mode.

    Its `auxiliary_loss` is off: in transformers that switch changes what the decoder computes (`norm_between_layers`).

    Raises:
        TypeError: for a model transformers has no class for, or one that was not built from a configuration.
        ValueError: for a configuration it has no counterpart of, as the small backbone; it says of what.
    """
    import transformers

    for name, family in FAMILIES.items():
        if type(model) is KINDS[family.kind].model:
            config_of(model)
            hf_model = getattr(transformers, name)(family.config_to(model))
            tensors = model.state_dict()
            hf_model.load_state_dict(
                {theirs: tensors[family.rename(theirs)] for theirs in hf_model.state_dict()}
            )
            parameter = next(model.parameters())
            return hf_model.to(device=parameter.device, dtype=parameter.dtype).eval()
    supported = " or ".join(KINDS[family.kind].model.__name__ for family in FAMILIES.values())
    raise TypeError(f"to_transformers takes {supported}, not {type(model).__name__}")


def load_huggingface(folder: Path) -> nn.Module:
    """The model in a folder as transformers saves it: config.json, safetensors, preprocessor_config.json.

    Files that transformers 4.x or 5.x has written, with timm's names for the backbone or with its own.
    """
    config_file, preprocessing_file = folder / CONFIG, folder / PREPROCESSING
    config = read_json(config_file)
    names = config.get("architectures") or []
    name = next((name for name in names if name in FAMILIES), None)
    if name is None:
        raise CheckpointError(
            f"{config_file}: the architecture is {' or '.join(names) or 'not given'}, "
            f"supported is {' or '.join(FAMILIES)}"
        )
    try:
        theirs = FAMILIES[name].read_config(config)
    except Exception as error:  # which kind differs from one version of transformers to another
        raise CheckpointError(f"{config_file}: transformers cannot read it: {error}") from error
    preprocessing = None
    if preprocessing_file.exists():
        preprocessing = read_json(preprocessing_file)
    else:
        logger.warning("%s has no %s: pictures are prepared as in the paper", folder, PREPROCESSING)
    tensors = read_weights(folder)
    try:
        return translate(name, theirs, tensors, preprocessing, str(folder))
    except CheckpointError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: {error}") from error


def translate(
    name: str,
    theirs: "transformers.PretrainedConfig",
    tensors: Mapping[str, Tensor],
    preprocessing: dict[str, Any] | None,
    source: str,
) -> nn.Module:
    """Our model from the parts of theirs: every tensor is used or known to be superfluous, all of ours are filled."""
    family = FAMILIES[name]
    config = family.config_from(theirs)
    categories = family.categories_from(theirs)
    transform = family.image_transform if preprocessing is None else image_transform_from(preprocessing)
    model = KINDS[family.kind].build(config)

    expected = model.state_dict().keys()
    renamed, leftover = {}, []
    for key, tensor in tensors.items():
        ours = family.rename(key)
        if ours in expected and ours not in renamed:
            renamed[ours] = tensor
        elif ours is not None:
            leftover.append(key)
    if leftover:
        raise CheckpointError(
            f"{source}: tensors that the {type(model).__name__} has no use for: {some(leftover)}"
        )
    fill(model, renamed, source)

    model.card = {
        "format": FORMAT,
        "model": family.kind,
        "config": config.to_dict(),
        "categories": categories.to_dict(),
        "image_transform": transform.to_dict(),
        "training": {"source": source},
    }
    return with_use(model, categories, transform)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, from one safetensors file or from the several that an index lists."""
    if (folder / WEIGHTS).exists():
        return read_tensors(folder / WEIGHTS)
    if (folder / INDEX).exists():
        index = read_json(folder / INDEX)
        if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
            raise CheckpointError(
                f"{folder / INDEX}: expected a weight_map, from the tensors' names to their files"
            )
        tensors = {}
        for file in sorted(set(index["weight_map"].values())):
            tensors |= read_tensors(folder / file)
        return tensors
    pickled = sorted(
        file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt")
    )
    found = f" {', '.join(pickled)} is pickled, and to unpickle a file is to run it." if pickled else ""
    raise CheckpointError(
        f"{folder} has no {WEIGHTS} and no {INDEX}. Only safetensors are read;{found} "
        "`model.save_pretrained(folder)` in a current transformers writes them."
    )


def image_transform_from(preprocessing: dict[str, Any]) -> ImageTransform:
    """The transform a preprocessor_config.json describes, in any of the forms its sizes have had."""
    if preprocessing.get("do_rescale", True):
        factor = preprocessing.get("rescale_factor", 1 / 255)
        if abs(factor * 255 - 1) > 1e-4:
            raise ValueError(f"{PREPROCESSING}: rescale_factor is {factor}, expected 1/255")
    elif "do_rescale" in preprocessing:
        raise ValueError(f"{PREPROCESSING}: do_rescale is false, but pixels are normalised in 0..1")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if preprocessing.get("do_normalize", True):
        mean = tuple(preprocessing.get("image_mean") or IMAGENET_MEAN)
        std = tuple(preprocessing.get("image_std") or IMAGENET_STD)
    if not preprocessing.get("do_resize", True):
        return ImageTransform(mean, std)
    if preprocessing.get("resample", BILINEAR) != BILINEAR:
        raise ValueError(
            f"{PREPROCESSING}: resample is {preprocessing['resample']}, expected {BILINEAR} (bilinear)"
        )

    size = preprocessing.get("size", 800)
    if isinstance(size, int):  # as the first versions wrote it
        size = {"shortest_edge": size, "longest_edge": preprocessing.get("max_size", 1333)}
    elif isinstance(size, dict) and "longest_edge" not in size and "max_size" in preprocessing:
        size = size | {"longest_edge": preprocessing["max_size"]}
    sides = {side: length for side, length in size.items() if length is not None}
    if not sides.keys() <= {"shortest_edge", "longest_edge"} or "shortest_edge" not in sides:
        raise ValueError(
            f"{PREPROCESSING}: size is {size}, expected a shortest_edge and perhaps a longest_edge"
        )
    return ImageTransform(mean, std, sides["shortest_edge"], sides.get("longest_edge"))
