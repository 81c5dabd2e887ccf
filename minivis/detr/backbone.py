"""From pixels to feature maps: a ResNet, or a small stack of convolutions (DETR, section 3.2).

A backbone is called with an `ImageBatch` and gives one feature map for each of its stages, from fine to coarse, each
with the padding mask at its own resolution. A side of N pixels becomes ceil(N / stride) cells.
"""

from typing import NamedTuple

import torch
import torchvision
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.ops import FrozenBatchNorm2d

from minivis.images import ImageBatch, resize_mask


class FeatureMap(NamedTuple):
    features: Float[Tensor, "batch channels height width"]
    padding_mask: Bool[Tensor, "batch height width"]


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalises every image by itself: batches may be small, and several processes agree.

    Its mean and spread are of the whole map, padding included. So a picture padded to the size of a larger one is
    seen a little differently than alone; `evaluate_detection` therefore puts only pictures of one size together.
    """
    return nn.GroupNorm(min(32, channels // 4), channels)


class FrozenBatchNorm(FrozenBatchNorm2d):
    """y = (x − mean) / sqrt(var + ε) · weight + bias, all four constant: torchvision's, with less memory traffic."""

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        gain = self.weight * torch.rsqrt(self.running_var + self.eps)
        offset = self.bias - self.running_mean * gain
        gain, offset = (c[:, None, None].to(x.dtype) for c in (gain, offset))  # float32 would widen bf16 maps
        return (x * gain).add_(offset)


class ResNetBackbone(nn.Module):
    """torchvision's ResNet without its classifier: four stages of stride 4, 8, 16, 32.

    Args:
        name: "resnet18" to "resnet101".
        norm: "frozen" batch norm, whose statistics and gains never change, for ImageNet weights; or "group", for
            training from scratch. Frozen batch norm without trained statistics normalises nothing: features explode.
        dilation: the "DC5" variant. The last stage keeps its resolution (stride 16) and dilates its kernels instead.
    """

    def __init__(self, name: str = "resnet50", norm: str = "frozen", dilation: bool = False):
        super().__init__()
        if norm not in ("frozen", "group"):
            raise ValueError(f'norm is "frozen" or "group", got {norm!r}')
        if not (name.startswith("resnet") and hasattr(torchvision.models, name)):
            raise ValueError(f"{name!r} is not one of torchvision's ResNets: resnet18, 34, 50, 101, …")
        if dilation and name in ("resnet18", "resnet34"):
            raise ValueError(
                f"{name} is made of basic blocks, which cannot dilate: use resnet50 or resnet101"
            )
        self.name = name
        body = get_model(
            name,
            weights=None,
            norm_layer=FrozenBatchNorm if norm == "frozen" else group_norm,
            replace_stride_with_dilation=[False, False, dilation],
        )
        last = body.fc.in_features
        del body.fc, body.avgpool
        self.body = body
        self.channels = (last // 8, last // 4, last // 2, last)
        self.strides = (4, 8, 16, 16 if dilation else 32)
        if norm == "frozen":  # ImageNet's edges and colours serve as they are
            for part in (body.conv1, body.layer1):
                part.requires_grad_(False)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        return self.body.layer1, self.body.layer2, self.body.layer3, self.body.layer4

    def forward(self, images: ImageBatch) -> list[FeatureMap]:
        pixels = images.pixels
        if torch.is_autocast_enabled(pixels.device.type):
            # The layout that convolutions are fastest in. In fp32 the reference's own stays, for its very rounding.
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        x = self.body.conv1(pixels)
        x = self.body.maxpool(self.body.relu(self.body.bn1(x)))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(FeatureMap(x, resize_mask(images.padding_mask, x.shape[-2:])))
        return maps

    def load_imagenet_weights(self) -> None:
        """torchvision's ImageNet weights (version 1, which the paper used), downloaded at the first call.

        Raises:
            ValueError: with group norm, which those weights were not trained for.
        """
        if not isinstance(self.body.bn1, FrozenBatchNorm):
            raise ValueError('ImageNet weights belong to batch norm: build the backbone with norm="frozen"')
        weights = get_model_weights(self.name).IMAGENET1K_V1
        state = weights.get_state_dict(progress=False, check_hash=True)
        state = {k: v for k, v in state.items() if not k.startswith("fc.") and "num_batches_tracked" not in k}
        self.body.load_state_dict(state)


class SmallConvBackbone(nn.Module):
    """A few residual stages for pictures of about 100 pixels; every stage halves the resolution.

    Args:
        channels: of each stage; the first has stride 2, the next 4, and so on.
        blocks: residual blocks after the convolution that halves, in every stage but the first.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 96, 128), blocks: int = 1):
        super().__init__()
        if not channels:
            raise ValueError("the small backbone needs the channels of at least one stage, got none")
        self.channels = tuple(channels)
        self.strides = tuple(2 ** (i + 1) for i in range(len(channels)))
        self.stages = nn.ModuleList()
        for i, (c_in, c_out) in enumerate(zip((3, *channels), channels, strict=False)):
            halve = nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False), group_norm(c_out), nn.ReLU()
            )
            # The first stage sees the most pixels, so it stays as cheap as it can be.
            residual = [ResidualBlock(c_out) for _ in range(blocks if i > 0 else 0)]
            self.stages.append(nn.Sequential(halve, *residual))

    def forward(self, images: ImageBatch) -> list[FeatureMap]:
        x, maps = images.pixels, []
        for stage in self.stages:
            x = stage(x)
            maps.append(FeatureMap(x, resize_mask(images.padding_mask, x.shape[-2:])))
        return maps


class ResidualBlock(nn.Module):
    """y = ReLU(x + norm(conv(ReLU(norm(conv(x))))))"""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            group_norm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            group_norm(channels),
        )

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return torch.relu(x + self.branch(x))
