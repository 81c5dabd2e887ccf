"""DETR in Hugging Face transformers: its configuration and its names for the same tensors, old and new."""

import dataclasses
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from minivis.data.items import HOLE, Categories
from minivis.detr import DETR, DETRConfig, DETRsegm, PanopticConfig
from minivis.images import ImageTransform

if TYPE_CHECKING:
    import transformers

# Without a preprocessing file: the paper's size for evaluation.
IMAGE_TRANSFORM = ImageTransform(shortest_edge=800, longest_edge=1333)

LAST_THING = 90  # of COCO's category ids; those of stuff come behind

# layer type, depths, widths → torchvision's name
RESNETS = {
    ("basic", (2, 2, 2, 2), (64, 128, 256, 512)): "resnet18",
    ("basic", (3, 4, 6, 3), (64, 128, 256, 512)): "resnet34",
    ("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048)): "resnet50",
    ("bottleneck", (3, 4, 23, 3), (256, 512, 1024, 2048)): "resnet101",
    ("bottleneck", (3, 8, 36, 3), (256, 512, 1024, 2048)): "resnet152",
}

RESNET_OPTIONS = {  # what else makes it torchvision's
    "embedding_size": 64,
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}


# transformers' name → ours, one after another. The first lines are what differs between its versions: 4.x says
# backbone.conv_encoder, out_proj and fc1, 5.x says backbone, o_proj and mlp.fc1; a timm backbone has torchvision's
# names. What neither knows stays as it is, and is then a tensor without a use.
RENAMES = (
    (r"^model\.backbone\.(conv_encoder\.)?model\.(_backbone\.)?", "backbone.body."),
    (r"^model\.(backbone\.)?position_embedding\.(row|column)_embeddings\.", r"positions.\2."),
    (r"\.o_proj\.", ".out_proj."),
    (r"\.(mlp\.)?fc([12])\.", r".ffn.linear\2."),
    (r"\.embedder\.embedder\.convolution\.", ".conv1."),
    (r"\.embedder\.embedder\.normalization\.", ".bn1."),
    *((rf"\.encoder\.stages\.{i}\.layers\.", f".layer{i + 1}.") for i in range(4)),
    *((rf"\.layer\.{i}\.convolution\.", f".conv{i + 1}.") for i in range(3)),
    *((rf"\.layer\.{i}\.normalization\.", f".bn{i + 1}.") for i in range(3)),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"^model\.(encoder|decoder)\.", r"transformer.\1."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"\.encoder\.layers\.(\d+)\.final_layer_norm\.", r".encoder.layers.\1.norm2."),
    (r"\.decoder\.layers\.(\d+)\.final_layer_norm\.", r".decoder.layers.\1.norm3."),
    (r"\.decoder\.layernorm\.", ".decoder.norm."),
    (r"^model\.query_position_embeddings\.", "query_embed."),
    (r"^model\.input_projection\.", "input_proj."),
    (r"^class_labels_classifier\.", "class_embed."),
    (r"^bbox_predictor\.", "bbox_embed."),
)
# Of a mask head around a DETR; 4.x and 5.x again.
MASK_HEAD_RENAMES = (
    (r"^bbox_attention\.([qk])_linear\.", r"bbox_attention.\1_proj."),
    (r"^mask_head\.(out_lay|output_conv)\.", "mask_head.out_conv."),
    *((rf"^mask_head\.(lay{i + 1}|conv{i + 1}\.conv)\.", f"mask_head.convs.{i}.") for i in range(2)),
    *((rf"^mask_head\.(gn{i + 1}|conv{i + 1}\.norm)\.", f"mask_head.norms.{i}.") for i in range(2)),
    *(
        (rf"^mask_head\.({old}{i + first}|fpn_stages\.{i}\.{new})\.", f"mask_head.{ours}.{i + first - 1}.")
        for i in range(3)
        for old, first, new, ours in (
            ("adapter", 1, "fpn_adapter", "adapters"),
            ("lay", 3, r"refine\.conv", "convs"),
            ("gn", 3, r"refine\.norm", "norms"),
        )
    ),
)
IGNORED = r"\.num_batches_tracked$"  # frozen batch norm counts no batches


def rename(name: str) -> str | None:
    """Our name of a tensor of transformers, of any version; None if the tensor is not needed."""
    if re.search(IGNORED, name):
        return None
    for pattern, ours in RENAMES:
        name = re.sub(pattern, ours, name)
    return name


def rename_segmentation(name: str) -> str | None:
    """Likewise of a tensor of `DetrForSegmentation`."""
    if name.startswith("detr."):
        inner = rename(name.removeprefix("detr."))
        return None if inner is None else f"detr.{inner}"
    for pattern, ours in MASK_HEAD_RENAMES:
        name = re.sub(pattern, ours, name)
    return name


def read_config(values: dict[str, Any]) -> "transformers.DetrConfig":
    """What a config.json says, whichever version wrote it and whichever reads it.

    4.x names a timm backbone beside the rest, 5.x in a configuration of its own. All are brought to the second form:
    as it stands, either version refuses what the other wrote, or asks the hub about it.
    """
    from transformers import DetrConfig

    beside = ("use_timm_backbone", "use_pretrained_backbone", "backbone", "backbone_kwargs")
    rest = {key: value for key, value in values.items() if key not in beside}
    if values.get("use_timm_backbone", True) and values.get("backbone_config") is None:
        options = values.get("backbone_kwargs") or {}
        rest["backbone_config"] = {
            "model_type": "timm_backbone",
            "backbone": values.get("backbone") or "resnet50",
            "out_indices": options.get("out_indices", [1, 2, 3, 4]),
            "output_stride": options.get("output_stride") or (16 if values.get("dilation") else None),
        }
    return DetrConfig.from_dict(rest | {"use_timm_backbone": False, "use_pretrained_backbone": False})


def config_from(theirs: "transformers.DetrConfig") -> DETRConfig:
    """Our configuration for the same function.

    transformers' `dropout` acts at fewer places (its `attention_dropout` is another number), which only training sees.
    """
    expect(theirs.num_channels == 3, f"pictures of {theirs.num_channels} channels, expected 3")
    expect(
        theirs.encoder_attention_heads == theirs.decoder_attention_heads,
        f"{theirs.encoder_attention_heads} heads in the encoder and {theirs.decoder_attention_heads} in the decoder, "
        "expected the same number",
    )
    expect(
        theirs.encoder_ffn_dim == theirs.decoder_ffn_dim,
        f"feed-forward width {theirs.encoder_ffn_dim} in the encoder and {theirs.decoder_ffn_dim} in the decoder, "
        "expected the same width",
    )
    backbone = backbone_from(theirs)
    return DETRConfig(
        num_classes=theirs.num_labels,
        num_queries=theirs.num_queries,
        aux_loss=theirs.auxiliary_loss,
        # With auxiliary losses transformers hands each layer's normed output to the next; the paper's code does not.
        norm_between_layers=theirs.auxiliary_loss,
        backbone=backbone.name,
        dilation=backbone.dilation,
        feature_level=backbone.stage - 5,
        positions=theirs.position_embedding_type,
        d_model=theirs.d_model,
        num_heads=theirs.encoder_attention_heads,
        encoder_layers=theirs.encoder_layers,
        decoder_layers=theirs.decoder_layers,
        dim_feedforward=theirs.encoder_ffn_dim,
        dropout=theirs.dropout,
        activation=theirs.activation_function,
    )


def segmentation_config_from(theirs: "transformers.DetrConfig") -> PanopticConfig:
    """Likewise with masks. Their head reads the first three maps of the backbone: of strides 4, 8, 16."""
    inner = getattr(theirs, "backbone_config", None)
    if inner is not None and inner.model_type == "resnet":
        expect(
            inner.out_features[:3] == ["stage1", "stage2", "stage3"],
            f"a mask head on the maps {', '.join(inner.out_features)}, expected stage1, stage2, stage3 to begin with",
        )
    expect(
        theirs.activation_function == "relu",
        f"a mask head in a model with {theirs.activation_function!r}, which transformers 4 and 5 compute differently; "
        "expected 'relu'",
    )
    return PanopticConfig(**config_from(theirs).to_dict())


class BackboneConfig(NamedTuple):
    name: str  # torchvision's
    dilation: bool
    stage: int  # the one that is read, 1 to 4


def backbone_from(theirs: "transformers.DetrConfig") -> BackboneConfig:
    """A timm backbone, which a model of 4.x names itself and one of 5.x inside, or transformers' own ResNet."""
    inner = getattr(theirs, "backbone_config", None)
    if inner is None or inner.model_type == "timm_backbone":
        name = theirs.backbone if inner is None else inner.backbone
        options = (getattr(theirs, "backbone_kwargs", None) or {}) if inner is None else inner.to_dict()
        stride = options.get("output_stride") or (16 if theirs.dilation else 32)
        expect(stride in (16, 32), f"a backbone of stride {stride}, expected 32, or 16 by dilation")
        stage = (options.get("out_indices") or [-1])[
            -1
        ] % 5  # timm counts the stem as stage 0; −1 is the last
        expect(stage > 0, "the stem of the backbone is read, expected one of its four stages")
        return BackboneConfig(name.partition(".")[0], dilation=stride == 16, stage=stage)

    expect(inner.model_type == "resnet", f"a backbone of type {inner.model_type!r}, expected a ResNet")
    shape = (inner.layer_type, tuple(inner.depths), tuple(inner.hidden_sizes))
    expect(shape in RESNETS, f"a ResNet of {shape}, expected one of {', '.join(map(str, RESNETS))}")
    for option, expected in RESNET_OPTIONS.items():
        value = getattr(inner, option)
        expect(value == expected, f"a ResNet with {option}={value!r}, expected {expected!r}")
    stage = inner.out_features[-1]
    expect(stage != "stem", "the stem of the backbone is read, expected one of its four stages")
    return BackboneConfig(RESNETS[shape], dilation=False, stage=int(stage.removeprefix("stage")))


def config_to(model: DETR | DETRsegm) -> "transformers.DetrConfig":
    """The configuration of transformers' model of the same function. A dilated backbone needs timm there."""
    from transformers import DetrConfig, ResNetConfig

    ours = model.config
    expect(
        ours.backbone != "small",
        "transformers has no counterpart of the small convolutional backbone, only of resnet18 to resnet152",
    )
    expect(
        ours.backbone_norm == "frozen",
        f"transformers' DETR has frozen batch norm in its backbone, not {ours.backbone_norm} norm",
    )
    expect(not ours.normalize_before, "transformers has no pre-norm DETR")
    expect(ours.positions != "none", "transformers has no DETR without positions")
    expect(
        ours.positions != "sine" or ours.position_temperature == 10_000,
        f"transformers' sine positions have temperature 10000, not {ours.position_temperature:g}",
    )
    stage = ours.feature_level + 5 if ours.feature_level < 0 else ours.feature_level + 1
    if ours.dilation:
        backbone: dict[str, Any] = {"use_timm_backbone": True, "backbone": ours.backbone, "dilation": True}
        expect(stage == 4, f"transformers reads a dilated backbone's last stage, not its stage {stage}")
    else:
        layer_type, depths, widths = next(shape for shape, name in RESNETS.items() if name == ours.backbone)
        resnet = ResNetConfig(
            layer_type=layer_type,
            depths=list(depths),
            hidden_sizes=list(widths),
            # a mask head reads the finer ones too
            out_features=[f"stage{i}" for i in range(1 if isinstance(model, DETRsegm) else stage, stage + 1)],
        )
        backbone = {"use_timm_backbone": False, "backbone": None, "backbone_config": resnet}
    names = (
        model.class_names
        if hasattr(model, "class_names")
        else [f"LABEL_{i}" for i in range(ours.num_classes)]
    )
    return DetrConfig(
        **backbone,
        use_pretrained_backbone=False,
        id2label=dict(enumerate(names)),
        label2id={name: label for label, name in enumerate(names)},
        num_queries=ours.num_queries,
        auxiliary_loss=ours.norm_between_layers,
        position_embedding_type=ours.positions,
        d_model=ours.d_model,
        encoder_attention_heads=ours.num_heads,
        decoder_attention_heads=ours.num_heads,
        encoder_layers=ours.encoder_layers,
        decoder_layers=ours.decoder_layers,
        encoder_ffn_dim=ours.dim_feedforward,
        decoder_ffn_dim=ours.dim_feedforward,
        dropout=ours.dropout,
        attention_dropout=ours.dropout,
        activation_dropout=ours.dropout,
        activation_function=ours.activation,
    )


def segmentation_config_to(model: DETRsegm) -> "transformers.DetrConfig":
    """Likewise with masks."""
    ours = model.config
    expect(ours.activation == "relu", f"transformers' mask head is one with 'relu', not {ours.activation!r}")
    expect(ours.mask_stride == 4, f"transformers' masks have stride 4, not {ours.mask_stride}")
    expect(
        ours.attention_gain == 1, f"transformers' mask head has attention_gain 1, not {ours.attention_gain}"
    )
    expect(len(model.mask_stages) == 3, f"transformers' mask head reads 3 maps, not {len(model.mask_stages)}")
    return config_to(model)


def categories_from(theirs: "transformers.DetrConfig") -> Categories:
    """label = category id, as COCO's released models have it; a label called "N/A" is a hole.

    So is one that has only the name transformers makes up, "LABEL_12", where others have names of their own.
    """
    labels = {int(label): name for label, name in theirs.id2label.items()}
    count = theirs.num_labels
    expect(
        set(labels) == set(range(count)),
        f"id2label has the labels {sorted(labels)}, expected 0 to {count - 1}",
    )
    names = [labels[label] for label in range(count)]
    made_up = [name == f"LABEL_{label}" for label, name in enumerate(names)]
    if not all(made_up):
        names = [HOLE if nobody_named else name for name, nobody_named in zip(names, made_up, strict=True)]
    return Categories(tuple(names), tuple(None if name == HOLE else i for i, name in enumerate(names)))


def segmentation_categories_from(theirs: "transformers.DetrConfig") -> Categories:
    """Likewise, with things and stuff. The configuration does not tell them apart: things are COCO's, ids 1 to 90.

    A model with no label above 90 has things only.
    """
    categories = categories_from(theirs)
    if len(categories) <= LAST_THING + 1:
        return categories
    is_thing = tuple(id_ is not None and id_ <= LAST_THING for id_ in categories.ids)
    return dataclasses.replace(categories, is_thing=is_thing)


def expect(right: bool, message: str) -> None:
    if not right:
        raise ValueError(message)
