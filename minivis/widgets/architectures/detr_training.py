"""How a DETR is trained, and how it is measured (Carion et al. 2020, section 4; Lin et al. 2014 for the measure)."""

from minivis.widgets.drawing import Arrow, Box, Drawing, Group

DETR_TRAINING = Drawing(
    "Above: one step of training. Below: how good the model is",
    boxes=[
        Box("pictures", (0, 1), "with their\ntrue objects", "data"),
        Box("DETR", (1, 1), "backbone\ntransformer\nheads", "learned"),
        Box("set loss", (2, 0), "matching, then\nclass, L1, GIoU", "loss"),
        Box("gradients", (3, 0), "clipped\nat a norm of 0.1"),
        Box("AdamW", (4, 0), "changes\nthe weights"),
        Box("postprocess", (2, 2), "best class of\neach query"),
        Box("match by IoU", (3, 2), "right or wrong,\nthe surest first"),
        Box("AP", (4, 2), "area below precision\nover recall", "loss"),
    ],
    arrows=[
        Arrow("pictures", "DETR", "(B, 3, H, W)"),
        Arrow("DETR", "set loss", "every layer’s\n(B, Q, K + 1)\n(B, Q, 4)"),
        Arrow("set loss", "gradients"),
        Arrow("gradients", "AdamW"),
        Arrow("DETR", "postprocess", "last layer’s"),
        Arrow("postprocess", "match by IoU", "score, class,\nbox in pixels"),
        Arrow("match by IoU", "AP"),
    ],
    groups=[Group("training, with gradient", ["set loss", "gradients", "AdamW"]),
            Group("evaluation, no gradient", ["postprocess", "match by IoU", "AP"])],
)  # fmt: skip
