"""DETR's decoder (Carion et al. 2020, section 3.2 and figure 10)."""

from minivis.widgets.drawing import Arrow, Box, Drawing, Group

DECODER_LAYER = Drawing(
    "A decoder layer: everything for all Q queries at once",
    boxes=[
        Box("content", (0, 0), "zeros before\nthe first layer", "data"),
        Box("self attention", (1, 0), "queries hear\neach other", "learned"),
        Box("cross attention", (2, 0), "each query\nreads the picture", "learned"),
        Box("feed forward", (3, 0), "each query\nby itself", "learned"),
        Box("two heads", (4, 0), "class and box,\nafter every layer", "learned"),
        Box("object queries", (1, 1.45), "Q vectors, alike\nfor all pictures", "learned"),
        Box("memory", (2, 1.45), "M cells, from\nthe encoder", "data"),
        Box("positions", (2, -1.6), "of the M cells", "data"),
    ],
    arrows=[
        Arrow("content", "self attention", "(Q, d)"),
        Arrow("self attention", "cross attention", "(Q, d)"),
        Arrow("cross attention", "feed forward", "(Q, d)"),
        Arrow("feed forward", "two heads", "(Q, d)"),
        Arrow("object queries", "self attention", "to Q\nand K"),
        Arrow("object queries", "cross attention", "to Q"),
        Arrow("memory", "cross attention", "K, V\n(M, d)"),
        Arrow("positions", "cross attention", "added to K"),
    ],
    groups=[
        Group(
            "one layer: each step adds",
            ["self attention", "cross attention", "feed forward"],
        )
    ],
)
