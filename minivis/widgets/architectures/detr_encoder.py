"""DETR's encoder layer (Carion et al. 2020, section 3.2 and appendix A.3)."""

from minivis.widgets.drawing import Arrow, Box, Drawing, Group

ENCODER_LAYER = Drawing(
    "One layer of DETR's encoder",
    boxes=[
        Box("positions", (0, 0), "(B, n, d), alike\nin every layer", "data"),
        Box("cells", (0, 1), "x: (B, n, d)", "data"),
        Box("Q and K", (1, 0), "x + positions"),
        Box("V", (1, 1), "x alone"),
        Box("self-attention", (2, 0.5), "8 heads: W_Q,\nW_K, W_V, W_O", "learned"),
        Box("add and norm 1", (3, 0.5), "x ← norm(x + …)", "learned"),
        Box("feed-forward", (3, 1.5), "W₂ ReLU(W₁ x),\ncell by cell", "learned"),
        Box("add and norm 2", (4, 0.5), "x ← norm(x + …)", "learned"),
        Box("padding mask", (2, 2), "no weight for\npadded cells", "data"),
    ],
    arrows=[
        Arrow("positions", "Q and K"),
        Arrow("cells", "Q and K"),
        Arrow("cells", "V"),
        Arrow("Q and K", "self-attention"),
        Arrow("V", "self-attention"),
        Arrow("padding mask", "self-attention", "(B, n)"),
        Arrow("self-attention", "add and norm 1", "(B, n, d)"),
        Arrow("add and norm 1", "feed-forward"),
        Arrow("add and norm 1", "add and norm 2"),
        Arrow("feed-forward", "add and norm 2"),
    ],
    groups=[Group("cells talk to each other", ["Q and K", "V", "self-attention"])],
)
