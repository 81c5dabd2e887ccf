"""Batches of images of different sizes: pixels, and a mask that says which of them are padding."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageBatch(NamedTuple):
    """Images padded at the right and at the bottom to the size of the largest.

    Pixels are already normalised; the mask is True where a pixel is padding.
    """

    pixels: Float[Tensor, "batch 3 height width"]
    padding_mask: Bool[Tensor, "batch height width"]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each image, without its padding."""
        inside = ~self.padding_mask
        return list(zip(inside.any(2).sum(1).tolist(), inside.any(1).sum(1).tolist(), strict=True))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ImageBatch":
        return ImageBatch(*(tensor.to(device, non_blocking=non_blocking) for tensor in self))


def as_image_batch(images: ImageBatch | Tensor | Sequence) -> ImageBatch:
    """Whatever a model may be called with, as one batch.

    Args:
        images: a list of `(3, H, W)` tensors of any sizes, one `(B, 3, H, W)` tensor, or an `ImageBatch`.

    Raises:
        ValueError: if it is none of these; the message names the image and its shape.
    """
    if isinstance(images, ImageBatch):
        pixels, mask = (tuple(tensor.shape) for tensor in images)
        if len(pixels) != 4 or mask != (pixels[0], *pixels[2:]):
            raise ValueError(
                f"expected pixels (B, 3, H, W) and a padding mask (B, H, W), got {pixels} and {mask}"
            )
        return images
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images of shape (B, 3, H, W), got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(f"expected images of normalised floats, got {images.dtype}")
        batch, _, height, width = images.shape
        return ImageBatch(images, images.new_zeros((batch, height, width), dtype=torch.bool))
    if len(images) == 0:
        raise ValueError("expected at least one image, got an empty list")
    for i, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise ValueError(f"expected image {i} to be a tensor, got {type(image).__name__}")
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"expected image {i} to have shape (3, H, W), got {tuple(image.shape)}")
        if not image.is_floating_point():
            raise ValueError(f"expected image {i} to hold normalised floats, got {image.dtype}")

    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    pixels = images[0].new_zeros((len(images), 3, height, width))
    padding_mask = torch.ones((len(images), height, width), dtype=torch.bool, device=pixels.device)
    for i, image in enumerate(images):
        _, h, w = image.shape
        pixels[i, :, :h, :w] = image
        padding_mask[i, :h, :w] = False
    return ImageBatch(pixels, padding_mask)


def resize_mask(
    mask: Bool[Tensor, "batch height width"], size: tuple[int, int]
) -> Bool[Tensor, "batch new_height new_width"]:
    """The padding mask at the resolution of a feature map: each cell takes its nearest pixel."""
    return F.interpolate(mask[:, None].float(), size=size)[:, 0].bool()


def fitted_size(
    height: int, width: int, shortest_edge: int | None, longest_edge: int | None = None
) -> tuple[int, int]:
    """(height, width) with the short side at `shortest_edge` pixels, unless the long one would pass `longest_edge`.

    With no `shortest_edge` the size stays, except that a long side above `longest_edge` is brought down to it.
    To the pixel what transformers' DETR does: the short side is rounded to the nearest, the long one down.
    """
    short, long = min(height, width), max(height, width)
    if shortest_edge is None:
        if longest_edge is None or long <= longest_edge:
            return height, width
        shortest_edge = short
    target = shortest_edge
    if longest_edge is not None and long / short * shortest_edge > longest_edge:
        target = longest_edge * short / long
    if round(target) == short:
        return height, width
    new_short, new_long = max(1, round(target)), int(target * long / short)
    return (new_short, new_long) if height <= width else (new_long, new_short)


def as_rgb(picture: "Image.Image") -> "Image.Image":
    """A picture of any mode as 8-bit RGB; 16-bit grey is divided by 257, so that 0..65535 becomes 0..255.

    Raises:
        ValueError: if the range of its values is not known.
    """
    if picture.mode.startswith("I"):  # Pillow's own conversion would cut everything above 255 to white
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"the picture's values, {values.min()}..{values.max()}, do not fit into 16 bits")
        picture = Image.fromarray((values / 257).round().astype(np.uint8))
    elif picture.mode == "F":
        raise ValueError("the picture holds floats, whose range is not known; expected 8 or 16 bits")
    return picture.convert("RGB")


@dataclass(frozen=True)
class ImageTransform:
    """How a model wants a picture: its size in pixels, and the mean and spread of each colour (for values in 0..1)."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    shortest_edge: int | None = None
    longest_edge: int | None = None

    def __call__(self, image: "Image.Image | Tensor") -> Float[Tensor, "3 height width"]:
        """A PIL picture (see `as_rgb`; what its EXIF says is not looked at), or a uint8 `(3, H, W)` tensor, resized and
        normalised.
        """
        pixels = image if isinstance(image, Tensor) else TF.pil_to_tensor(as_rgb(image))
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3:
            raise ValueError(
                f"expected a picture or a uint8 tensor (3, H, W), got one of {pixels.dtype}, {tuple(pixels.shape)}"
            )
        size = fitted_size(*pixels.shape[-2:], self.shortest_edge, self.longest_edge)
        if size != tuple(pixels.shape[-2:]):
            pixels = TF.resize(pixels, list(size), antialias=True)
        return self.normalise(pixels)

    def no_larger(self, longest_side: int | None, otherwise: int) -> "ImageTransform":
        """The same with a long side of at most `longest_side`; None: of `otherwise`, where nothing is said of sizes."""
        if longest_side is not None:
            return replace(self, longest_edge=min(longest_side, self.longest_edge or longest_side))
        if self.shortest_edge is None and self.longest_edge is None:
            return replace(self, longest_edge=otherwise)
        return self

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 pixels `(..., 3, H, W)` → floats of mean about 0 and spread about 1: `(x / 255 − mean) / std`."""
        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std

    def denormalise(self, pixels: Tensor) -> Tensor:
        """The inverse of `normalise`: floats → uint8, for pictures people look at."""
        mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (self.mean, self.std))
        return ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "ImageTransform":
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
