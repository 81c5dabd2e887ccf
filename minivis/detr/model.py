"""DETR: a backbone, a transformer, and two heads on each object query (Carion et al. 2020, section 3.2)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minivis.detr.backbone import FeatureMap, ResNetBackbone, SmallConvBackbone
from minivis.detr.transformer import Transformer
from minivis.images import ImageBatch, as_image_batch
from minivis.positions import POSITIONS


class MLP(nn.Module):
    """Linear layers with ReLU between them: here, from a query's output to its box."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int):
        super().__init__()
        sizes = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))

    def forward(self, x: Float[Tensor, "*any input_dim"]) -> Float[Tensor, "*any output_dim"]:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class DETRFeatures(NamedTuple):
    """What a DETR has computed before its heads; a mask head builds on it."""

    maps: list[FeatureMap]  # of the backbone, from fine to coarse
    projected: Float[Tensor, "batch d_model height width"]  # what the encoder was given
    padding_mask: Bool[Tensor, "batch height width"]
    memory: Float[Tensor, "batch d_model height width"]  # what the encoder made of it
    decoded: Float[Tensor, "layers batch queries d_model"]


class DETR(nn.Module):
    """Detection as the prediction of a set: every object query answers with one class and one box.

    Args:
        backbone: called with an `ImageBatch`, gives feature maps from fine to coarse; the last one is used.
        transformer: its `d_model` is the width of everything after the backbone.
        num_classes: K. There is one output more, the last, for "no object".
        num_queries: the largest number of objects in an image that can be found.
        aux_loss: also give the predictions of every decoder layer but the last, to be trained as well.
        positions: "sine" (the paper's), "learned" or "none".
        position_temperature: of the sines. Lower ones turn faster, and tell neighbouring cells of a small map apart.
        feature_level: which of the backbone's maps is read; −1 is the coarsest.
    """

    def __init__(
        self,
        backbone: nn.Module,
        transformer: Transformer,
        num_classes: int,
        num_queries: int,
        aux_loss: bool = False,
        positions: str = "sine",
        feature_level: int = -1,
        position_temperature: float = 10_000.0,
    ):
        super().__init__()
        if positions not in POSITIONS:
            raise ValueError(f"positions is one of {', '.join(POSITIONS)}; got {positions!r}")
        d_model = transformer.d_model
        self.backbone = backbone
        self.transformer = transformer
        options = {"temperature": position_temperature} if positions == "sine" else {}
        self.positions = POSITIONS[positions](d_model, **options)
        self.input_proj = nn.Conv2d(backbone.channels[feature_level], d_model, kernel_size=1)
        self.query_embed = nn.Embedding(num_queries, d_model)  # N(0, 1)
        self.class_embed = nn.Linear(d_model, num_classes + 1)
        self.bbox_embed = MLP(d_model, d_model, 4, 3)
        self.num_classes = num_classes
        self.num_queries = num_queries
        self.aux_loss = aux_loss
        self.feature_level = feature_level
        self.checkpoint_backbone = False  # a switch of training: recompute the backbone in the backward pass

    def forward(self, images: ImageBatch | Tensor | list[Tensor]) -> dict:
        """Predictions for every query.

        Returns:
            A dict with `pred_logits` (B, Q, K + 1), `pred_boxes` (B, Q, 4) as (cx, cy, w, h) in fractions of each image
            without its padding, and with `aux_loss` also `aux_outputs`: such a dict for each earlier decoder layer.
        """
        return self.heads(self.forward_features(images).decoded)

    def forward_features(self, images: ImageBatch | Tensor | list[Tensor]) -> DETRFeatures:
        """Backbone and transformer, without the heads."""
        images = as_image_batch(images)
        run_backbone = self.backbone
        if self.checkpoint_backbone and self.training:
            run_backbone = lambda batch: checkpoint(self.backbone, batch, use_reentrant=False)  # noqa: E731
        maps = run_backbone(images)
        features, padding_mask = maps[self.feature_level]
        projected = self.input_proj(features)
        decoded, memory = self.transformer(
            projected, padding_mask, self.query_embed.weight, self.positions(padding_mask)
        )
        return DETRFeatures(maps, projected, padding_mask, memory, decoded)

    def heads(self, decoded: Float[Tensor, "layers batch queries d_model"]) -> dict:
        """The same two heads on every decoder layer's output."""
        if not self.aux_loss:
            decoded = decoded[-1:]
        logits = self.class_embed(decoded)
        boxes = self.bbox_embed(decoded).float().sigmoid()  # in bf16, steps near 1 are 1/256 of the image
        layers = [{"pred_logits": c, "pred_boxes": b} for c, b in zip(logits, boxes, strict=True)]
        outputs = layers[-1]
        if self.aux_loss:
            outputs["aux_outputs"] = layers[:-1]
        return outputs


@dataclass(frozen=True)
class DETRConfig:
    """Everything that tells one DETR from another. The defaults are the paper's ResNet-50 model for COCO."""

    num_classes: int = 91
    num_queries: int = 100
    aux_loss: bool = True
    backbone: str = "resnet50"  # torchvision's name, or "small"
    backbone_norm: str = "frozen"
    dilation: bool = False
    backbone_channels: Sequence[int] = ()  # of the small backbone's stages
    backbone_blocks: int = 1
    feature_level: int = -1
    positions: str = "sine"
    position_temperature: float = 10_000.0
    d_model: int = 256
    num_heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    dim_feedforward: int = 2048
    dropout: float = 0.1
    activation: str = "relu"
    normalize_before: bool = False
    norm_between_layers: bool = False  # in the decoder; see `TransformerDecoder`

    def __post_init__(self):
        object.__setattr__(self, "backbone_channels", tuple(self.backbone_channels))  # JSON gives a list
        least = dict(
            num_classes=1, num_queries=1, d_model=1, num_heads=1, dim_feedforward=1, encoder_layers=0
        )
        for name, value in (
            least | dict(decoder_layers=1, backbone_blocks=0, position_temperature=1)
        ).items():
            if not getattr(self, name) >= value:
                raise ValueError(f"{name} must be at least {value}, got {getattr(self, name)}")
        if any(channels < 4 for channels in self.backbone_channels):
            raise ValueError(f"backbone_channels must be 4 or more each, got {self.backbone_channels}")
        stages = len(self.backbone_channels) if self.backbone == "small" else 4
        if stages and not -stages <= self.feature_level < stages:
            raise ValueError(
                f"feature_level must be from {-stages} to {stages - 1}, got {self.feature_level}"
            )

    def to_dict(self) -> dict:
        return asdict(self)


def build_detr(config: DETRConfig) -> DETR:
    """The model a configuration describes, with fresh weights; it keeps the configuration as `model.config`."""
    if config.backbone == "small":
        backbone = SmallConvBackbone(config.backbone_channels, config.backbone_blocks)
    else:
        backbone = ResNetBackbone(config.backbone, config.backbone_norm, config.dilation)
    for unread in backbone.stages[config.feature_level :][1:]:  # no gradient would reach them
        unread.requires_grad_(False)
    transformer = Transformer(
        config.d_model,
        config.num_heads,
        config.encoder_layers,
        config.decoder_layers,
        config.dim_feedforward,
        config.dropout,
        config.activation,
        config.normalize_before,
        config.norm_between_layers,
    )
    model = DETR(
        backbone,
        transformer,
        config.num_classes,
        config.num_queries,
        config.aux_loss,
        config.positions,
        config.feature_level,
        config.position_temperature,
    )
    model.config = config
    return model


def detr_resnet50(num_classes: int = 91, num_queries: int = 100, aux_loss: bool = True) -> DETR:
    """The paper's baseline: 41,524,768 parameters with COCO's 91 class numbers, 41,302,368 of them trained.

    Its frozen batch norm expects ImageNet weights: `model.backbone.load_imagenet_weights()`, or a trained checkpoint.
    """
    return build_detr(DETRConfig(num_classes=num_classes, num_queries=num_queries, aux_loss=aux_loss))


def detr_mini(num_classes: int) -> DETR:
    """The same model for pictures of about 128 pixels, small enough to be trained on two CPU cores."""
    return build_detr(mini_config(num_classes))


def mini_config(num_classes: int) -> DETRConfig:
    return DETRConfig(
        num_classes=num_classes,
        num_queries=25,
        backbone="small",
        backbone_norm="group",
        backbone_channels=(32, 64, 128, 128),
        d_model=128,
        num_heads=8,
        encoder_layers=3,
        decoder_layers=3,
        dim_feedforward=512,
        dropout=0.0,
        normalize_before=True,
        position_temperature=20.0,
    )
