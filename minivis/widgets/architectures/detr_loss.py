"""DETR's loss (Carion et al. 2020, section 3.1)."""

from minivis.widgets.drawing import Arrow, Box, Drawing, Group

HUNGARIAN_LOSS = Drawing(
    "DETR's loss, for one image and one decoder layer",
    boxes=[
        Box("predictions", (0, 0.5), "Q classes\nand boxes", "data"),
        Box("targets", (0, 1.5), "N labels\nand boxes", "data"),
        Box("cost matrix", (1, 0.5), "−p, L1, −GIoU"),
        Box("Hungarian matching", (1, 1.5), "least total cost"),
        Box("matched pairs", (2, 0), "N queries, each\nwith its object", "data"),
        Box("the rest", (2, 2), "Q − N queries:\n“no object”", "data"),
        Box("box losses", (3, 0), "L1, GIoU", "loss"),
        Box("class loss", (3, 2), "cross-entropy\nof all Q", "loss"),
        Box("weighted sum", (4, 1), "1·CE + 5·L1\n+ 2·GIoU", "loss"),
    ],
    arrows=[
        Arrow("predictions", "cost matrix", "(Q, K + 1)\n(Q, 4)"),
        Arrow("targets", "cost matrix", "(N,)\n(N, 4)"),
        Arrow("cost matrix", "Hungarian matching", "(Q, N)"),
        Arrow("Hungarian matching", "matched pairs"),
        Arrow("Hungarian matching", "the rest"),
        Arrow("matched pairs", "box losses"),
        Arrow("matched pairs", "class loss"),
        Arrow("the rest", "class loss"),
        Arrow("box losses", "weighted sum"),
        Arrow("class loss", "weighted sum"),
    ],
    groups=[Group("chooses pairs: no gradient", ["cost matrix", "Hungarian matching"])],
)
