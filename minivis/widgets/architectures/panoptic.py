"""DETR's mask head, and the merge (Carion et al. 2020, section 4.4 and figure 8)."""

from minivis.widgets.drawing import Arrow, Box, Drawing, Group

PANOPTIC_HEAD = Drawing(
    "From queries to a panoptic map, in the small model",
    boxes=[
        Box("decoded queries", (0, 0), "from the\ndecoder", "data"),
        Box("memory", (0, 1), "what the\nencoder gave", "data"),
        Box("input map", (0, 2), "what the\nencoder got", "data"),
        Box("attention without values", (1, 0.5), "heads and cells\nin one softmax", "learned"),
        Box("convolutions", (2, 1), "two, at stride 16", "learned"),
        Box("16 → 8 → 4", (3, 1), "upsample, add,\nconvolve", "learned"),
        Box("finer maps", (3, 2.2), "of the backbone,\nthrough adapters", "data"),
        Box("masks", (4, 1), "one for each query\n(Q, H/4, W/4)", "data"),
        Box("merge", (4, 2.2), "sure queries only:\nwho is surest?"),
        Box("panoptic map", (4, 3.3), "a segment for\neach pixel, (H, W)", "data"),
    ],
    arrows=[
        Arrow("decoded queries", "attention without values", "Q\n(Q, d)"),
        Arrow("memory", "attention without values", "K\n(d, h, w)"),
        Arrow("input map", "convolutions", "(d, h, w)"),
        Arrow("attention without values", "convolutions", "(Q, heads,\nh, w)"),
        Arrow("convolutions", "16 → 8 → 4"),
        Arrow("finer maps", "16 → 8 → 4"),
        Arrow("16 → 8 → 4", "masks"),
        Arrow("masks", "merge"),
        Arrow("merge", "panoptic map"),
    ],
    groups=[Group("the mask head, query by query", ["convolutions", "16 → 8 → 4"])],
)
