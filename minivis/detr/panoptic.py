"""A mask for every query: DETR with a segmentation head (Carion et al. 2020, section 4.4 and figure 8).

Where a query looks in the encoder's map is a first, coarse mask. Convolutions sharpen it step by step, with the help
of the backbone's finer maps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivis.detr.model import DETR, DETRConfig, build_detr, mini_config
from minivis.images import ImageBatch

FINER_MAPS = 3  # of the backbone that the head reads, at most


class MHAttentionMap(nn.Module):
    """Attention without values: how strongly each query looks at each cell, head by head.

    weights = softmax(Q Kᵀ / √d_head), over the heads and cells of a query *together*: they sum to one over all of them.
    So a head that sees nothing of its own gets little, where in ordinary attention it would have to spread a whole one.
    """

    def __init__(
        self, query_dim: int, hidden_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True
    ):
        super().__init__()
        if hidden_dim % num_heads:
            raise ValueError(f"hidden_dim={hidden_dim} cannot be split over num_heads={num_heads}")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(query_dim, hidden_dim, bias=bias)
        self.k_proj = nn.Linear(query_dim, hidden_dim, bias=bias)
        self.dropout = nn.Dropout(dropout)
        for projection in (self.q_proj, self.k_proj):
            nn.init.xavier_uniform_(projection.weight)
            if bias:
                nn.init.zeros_(projection.bias)

    def forward(
        self,
        q: Float[Tensor, "batch queries query_dim"],
        k: Float[Tensor, "batch query_dim height width"],
        mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch queries heads height width"]:
        """Cells where `mask` is True are padding, and get no weight."""
        height = k.shape[-2]
        q = rearrange(self.q_proj(q), "b q (heads d) -> b heads q d", heads=self.num_heads)
        k = self.k_proj(rearrange(k, "b d h w -> b (h w) d"))
        k = rearrange(k, "b n (heads d) -> b heads d n", heads=self.num_heads)
        scores = (q * q.shape[-1] ** -0.5) @ k
        if mask is not None:
            scores = scores.masked_fill(mask.flatten(1)[:, None, None, :], float("-inf"))
        weights = rearrange(scores, "b heads q n -> b q (heads n)").softmax(-1)
        return rearrange(
            self.dropout(weights), "b q (heads h w) -> b q heads h w", heads=self.num_heads, h=height
        )


class MaskHeadSmallConv(nn.Module):
    """Convolutions from a query's attention to its mask, upwards through the backbone's finer maps (as in an FPN).

        x ← the encoder's input and the query's attention, one behind the other: dim channels
        x ← ReLU(norm(conv₃ₓ₃(x))), twice
        x ← ReLU(norm(conv₃ₓ₃(upsampled(x) + conv₁ₓ₁(finer map)))), for each finer map
        mask ← conv₃ₓ₃(x)

    Args:
        dim: of what comes in: the model's width, and one for each attention head.
        fpn_dims: channels of the finer maps, from coarse to fine; three in the paper.
        context_dim: the model's width; each convolution after the first halves it once more.
        attention_gain: what attention is multiplied by. Weights that sum to one over hundreds of cells are tiny
            beside the encoder's input: at 1, as in the paper, it takes long until the first convolution hears them.
    """

    def __init__(self, dim: int, fpn_dims: Sequence[int], context_dim: int, attention_gain: float = 1.0):
        super().__init__()
        self.attention_gain = attention_gain
        widths = [dim] + [context_dim // 2 ** (i + 1) for i in range(len(fpn_dims) + 1)]
        for width in widths:
            if width < 1 or width % min(8, width):
                raise ValueError(
                    f"the mask head's widths are {widths}, from dim={dim} and context_dim={context_dim}: those of 8 "
                    "and more must be divisible by 8, for its group norms"
                )
        self.dim = dim
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, padding=1) for c_in, c_out in pairwise([dim, *widths])
        )
        self.norms = nn.ModuleList(nn.GroupNorm(min(8, width), width) for width in widths)
        self.adapters = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 1) for c_in, c_out in zip(fpn_dims, widths[1:], strict=False)
        )
        self.out_conv = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for conv in (*self.convs, *self.adapters, self.out_conv):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(
        self,
        x: Float[Tensor, "batch context_dim height width"],
        bbox_mask: Float[Tensor, "batch queries heads height width"],
        fpns: Sequence[Float[Tensor, "batch _ _ _"]],
    ) -> Float[Tensor, "batch queries fine_height fine_width"]:
        """Mask logits of every query, at the resolution of the last of `fpns` (from coarse to fine)."""
        batch, queries = bbox_mask.shape[:2]
        image = torch.arange(batch, device=x.device).repeat_interleave(queries)
        return self.of_pairs(x, bbox_mask.flatten(0, 1), fpns, image).unflatten(0, (batch, queries))

    def of_pairs(
        self,
        x: Float[Tensor, "batch context_dim height width"],
        bbox_mask: Float[Tensor, "pairs heads height width"],
        fpns: Sequence[Float[Tensor, "batch _ _ _"]],
        image: Int[Tensor, " pairs"],
    ) -> Float[Tensor, "pairs fine_height fine_width"]:
        """Mask logits of some queries only: for each its attention `bbox_mask`, and the image of the batch it is from.

        What does not depend on the query is computed once for an image: the adapters, and, a convolution being linear,
        W ∗ [x; attention] = Wₓ ∗ x + W_a ∗ attention, the larger part of the first convolution.
        """
        first = self.convs[0]
        of_image, of_query = first.weight.split([x.shape[1], bbox_mask.shape[1]], dim=1)
        attention = self.attention_gain * bbox_mask
        y = F.conv2d(x, of_image, padding=1)[image] + F.conv2d(attention, of_query, first.bias, padding=1)
        y = F.relu(self.norms[0](y))
        y = F.relu(self.norms[1](self.convs[1](y)))
        for adapter, finer, conv, norm in zip(
            self.adapters, fpns, self.convs[2:], self.norms[2:], strict=True
        ):
            y = F.interpolate(y, finer.shape[-2:], mode="nearest") + adapter(finer)[image]
            y = F.relu(norm(conv(y)))
        return self.out_conv(y)[:, 0]


class MaskInputs(NamedTuple):
    """What the masks of a batch are made from."""

    x: Float[Tensor, "batch d_model height width"]  # what the encoder was given
    attention: Float[Tensor, "batch queries heads height width"]
    fpns: list[Float[Tensor, "batch _ _ _"]]  # the backbone's finer maps, from coarse to fine


# From DETR's outputs to the queries that get a mask: (image, query), two index tensors of the same length.
Choice = Callable[[dict], tuple[Tensor, Tensor]]


class DETRsegm(nn.Module):
    """A DETR whose queries answer with a mask as well.

    The head reads the three finest of the backbone's maps that are no finer than `mask_stride` and no coarser than
    the one the DETR reads; the last of them gives the masks their resolution. In a ResNet those are of stride 16, 8, 4,
    as in the paper. The small backbone has strides 2, 4, 8, 16: its finest map is left out, so that masks have stride 4
    there as well, and the first of the three is the map that the DETR itself reads. With `mask_stride=2` it is the
    other three: masks twice as fine, at about four times the cost.

    Args:
        detr: trained already, or to be trained together with its masks.
        freeze_detr: only the masks are trained. The detector's parameters get no gradient, and it stays in evaluation
            mode, without dropout, also after `train()`.
        mask_stride: pixels of the image per cell of a mask. A side of N pixels becomes ceil(N / mask_stride) cells.
        attention_gain: see `MaskHeadSmallConv`.
        score_threshold: how sure of its class a query must be for its mask to take part in a panoptic map.
    """

    def __init__(
        self,
        detr: DETR,
        freeze_detr: bool = False,
        mask_stride: int = 4,
        attention_gain: float = 1.0,
        score_threshold: float = 0.85,
    ):
        super().__init__()
        self.score_threshold = score_threshold
        self.detr = detr
        self.freeze_detr = freeze_detr
        self.mask_stages = finer_stages(detr.backbone.strides, detr.feature_level, mask_stride)
        d_model, heads = detr.transformer.d_model, detr.transformer.nhead
        self.bbox_attention = MHAttentionMap(d_model, d_model, heads)
        channels = [detr.backbone.channels[stage] for stage in self.mask_stages]
        self.mask_head = MaskHeadSmallConv(d_model + heads, channels, d_model, attention_gain)
        self.num_classes, self.num_queries = detr.num_classes, detr.num_queries
        if hasattr(detr, "config"):
            of_masks = {
                "mask_stride": mask_stride,
                "attention_gain": attention_gain,
                "score_threshold": score_threshold,
            }
            self.config = PanopticConfig(**detr.config.to_dict() | of_masks)
        if freeze_detr:
            detr.requires_grad_(False)
            detr.eval()

    def train(self, mode: bool = True) -> "DETRsegm":
        super().train(mode)
        if self.freeze_detr:
            self.detr.eval()
        return self

    def forward(self, images: ImageBatch | Tensor | list[Tensor], choose: Choice | None = None) -> dict:
        """DETR's predictions, and masks.

        Args:
            images: as DETR takes them.
            choose: is given DETR's predictions and says whose masks are wanted: (image, query), two index tensors of
                the same length. Without it, all are made, which is slow: most queries say "no object".

        Returns:
            What `DETR.forward` gives, and `pred_masks`, logits of the padded images at 1 / `mask_stride` of their
            size: (B, Q, H/4, W/4), or (pairs, H/4, W/4) of those chosen.
        """
        outputs, inputs = self.detect(images)
        if choose is None:
            masks = self.mask_head(inputs.x, inputs.attention, inputs.fpns)
        else:
            masks = self.masks_of(inputs, *choose(outputs))
        return outputs | {"pred_masks": masks}

    def detect(self, images: ImageBatch | Tensor | list[Tensor]) -> tuple[dict, MaskInputs]:
        """DETR's predictions, and what `masks_of` makes masks from."""
        features = self.detr.forward_features(images)
        attention = self.bbox_attention(features.decoded[-1], features.memory, features.padding_mask)
        fpns = [features.maps[stage].features for stage in self.mask_stages]
        return self.detr.heads(features.decoded), MaskInputs(features.projected, attention, fpns)

    def masks_of(
        self, inputs: MaskInputs, image: Int[Tensor, " pairs"], query: Int[Tensor, " pairs"]
    ) -> Float[Tensor, "pairs height width"]:
        """The mask logits of the queries asked for, as `forward` gives them for all.

        Those that are sure of an object:

            outputs, inputs = model.detect(images)
            sure = outputs["pred_logits"].softmax(-1)[..., :-1].amax(-1) > 0.85
            masks = model.masks_of(inputs, *sure.nonzero(as_tuple=True))
        """
        image, query = (index.to(inputs.x.device) for index in (image, query))
        return self.mask_head.of_pairs(inputs.x, inputs.attention[image, query], inputs.fpns, image)


def finer_stages(strides: Sequence[int], feature_level: int, mask_stride: int) -> list[int]:
    """Which of the backbone's maps the mask head reads, from coarse to fine; see `DETRsegm`.

    Raises:
        ValueError: if no map has the stride of the masks.
    """
    read = feature_level % len(strides)
    stages = [stage for stage in range(read + 1) if strides[stage] >= mask_stride][:FINER_MAPS]
    if not stages or strides[stages[0]] != mask_stride:
        raise ValueError(
            f"masks of stride {mask_stride} need a map of that stride; the backbone's, up to the one that is read, "
            f"have stride {', '.join(map(str, strides[: read + 1]))}"
        )
    return stages[::-1]


@dataclass(frozen=True)
class PanopticConfig(DETRConfig):
    """A DETR's configuration, and that of its masks."""

    mask_stride: int = 4
    attention_gain: float = 1.0
    score_threshold: float = 0.85  # the paper's

    @property
    def detr(self) -> DETRConfig:
        return DETRConfig(**{field.name: getattr(self, field.name) for field in fields(DETRConfig)})

    @property
    def of_masks(self) -> dict[str, float]:
        """What `DETRsegm` is told beside the detector."""
        of_detr = {field.name for field in fields(DETRConfig)}
        return {name: value for name, value in self.to_dict().items() if name not in of_detr}


def build_panoptic(config: PanopticConfig, freeze_detr: bool = False) -> DETRsegm:
    """The model a configuration describes, with fresh weights; it keeps the configuration as `model.config`."""
    return DETRsegm(build_detr(config.detr), freeze_detr, **config.of_masks)


def detr_resnet50_panoptic(num_classes: int = 250, num_queries: int = 100, aux_loss: bool = True) -> DETRsegm:
    """The paper's panoptic model: 42,899,288 parameters with COCO's 250 class numbers, things and stuff.

    Its frozen batch norm expects ImageNet weights: `model.detr.backbone.load_imagenet_weights()`, or a checkpoint.
    """
    return build_panoptic(PanopticConfig(num_classes, num_queries, aux_loss))


def detr_mini_panoptic(num_classes: int) -> DETRsegm:
    """The same model for pictures of about 128 pixels: `detr_mini` with masks of stride 4."""
    return build_panoptic(mini_panoptic_config(num_classes))


def mini_panoptic_config(num_classes: int) -> PanopticConfig:
    """It trains for an hour, not for days. So it hears its attention from the start, times 8 heads × 8 × 8 cells; and
    a mask takes part that is more likely right than not, since so short a training makes few queries surer than that.
    """
    return PanopticConfig(**mini_config(num_classes).to_dict(), attention_gain=512.0, score_threshold=0.5)
