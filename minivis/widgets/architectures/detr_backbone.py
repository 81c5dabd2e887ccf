"""From pixels to what the transformer reads (Carion et al. 2020, section 3.2)."""

from minivis.widgets.drawing import Arrow, Box, Drawing

BACKBONE = Drawing(
    "From a batch of pictures to a sequence of vectors, stride s",
    boxes=[
        Box("pixels", (0, 0), "padded to one\nsize with zeros", "data"),
        Box("padding mask", (0, 1.5), "True where\npadded", "data"),
        Box("backbone", (1, 0), "convolutions", "learned"),
        Box("resize", (1, 1.5), "nearest pixel"),
        Box("1×1 convolution", (2, 0), "C → d channels", "learned"),
        Box("sine positions", (2, 1.5), "no parameters"),
        Box("flatten", (3, 0.75), "row after row:\nN = H·W"),
        Box("transformer", (4, 0.75), "notebooks 02, 03", "learned"),
    ],
    arrows=[
        Arrow("pixels", "backbone", "(B, 3,\nH₀, W₀)"),
        Arrow("padding mask", "resize", "(B,\nH₀, W₀)"),
        Arrow("backbone", "1×1 convolution", "(B, C,\nH, W)"),
        Arrow("resize", "sine positions", "(B,\nH, W)"),
        Arrow("1×1 convolution", "flatten", "(B, d,\nH, W)"),
        Arrow("sine positions", "flatten", "(B, d,\nH, W)"),
        Arrow("flatten", "transformer", "(B, N, d)\ntwice"),
    ],
)
