"""DETR: end-to-end object detection with transformers (Carion et al., ECCV 2020)."""

from minivis.detr.backbone import ResNetBackbone, SmallConvBackbone
from minivis.detr.criterion import SetCriterion
from minivis.detr.matcher import HungarianMatcher
from minivis.detr.merge import Panoptic, Segment, merge_masks
from minivis.detr.model import DETR, MLP, DETRConfig, build_detr, detr_mini, detr_resnet50, mini_config
from minivis.detr.panoptic import (
    DETRsegm,
    MaskHeadSmallConv,
    MHAttentionMap,
    PanopticConfig,
    build_panoptic,
    detr_mini_panoptic,
    detr_resnet50_panoptic,
    mini_panoptic_config,
)
from minivis.detr.postprocess import postprocess
from minivis.detr.segments import Segmenter, predict_instances, predict_panoptic
from minivis.detr.transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)

__all__ = [
    "DETR",
    "MLP",
    "DETRConfig",
    "DETRsegm",
    "HungarianMatcher",
    "MHAttentionMap",
    "MaskHeadSmallConv",
    "Panoptic",
    "PanopticConfig",
    "ResNetBackbone",
    "Segment",
    "Segmenter",
    "SetCriterion",
    "SmallConvBackbone",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "build_detr",
    "build_panoptic",
    "detr_mini",
    "detr_mini_panoptic",
    "detr_resnet50",
    "detr_resnet50_panoptic",
    "merge_masks",
    "mini_config",
    "mini_panoptic_config",
    "postprocess",
    "predict_instances",
    "predict_panoptic",
]
