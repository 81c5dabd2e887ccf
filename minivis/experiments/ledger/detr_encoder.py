"""What the document says about the encoder, attention and positions, and what became of it."""

from minivis.experiments.claims import Claim, Measured, Printed

CLAIMS = (
    Claim(
        id="D4",
        statement="Self-attention is invariant to the order of its inputs.",
        verdict="corrected",
        finding="It is equivariant: shuffle the cells, and the outputs are shuffled alike. Invariant would be the same "
        "output as before.",
        evidence=Printed(
            (
                "from the outputs as they were it differs by 76%",
                "from the same outputs, shuffled alike, by 0%",
            )
        ),
        notebook="02",
    ),
    Claim(
        id="D5",
        statement="In self-attention queries equal keys.",
        verdict="corrected",
        finding="They are made from the same input by different projections. The scores of one cell for another and "
        "back are different numbers, as with any two different matrices.",
        evidence=Printed(
            (
                "scores lopsided by 0.5 with trained Q and K, 0.0 with Q for both",
                "and by 0.5 with fresh random matrices",
            )
        ),
        notebook="02",
    ),
    Claim(
        id="D6",
        statement="Positions are added to queries and keys only; values carry none.",
        verdict="not decided at this scale",
        finding="So DETR does it. Whether values with positions would be worse, a small model does not say: seeds "
        "differ by more.",
        evidence=Measured("AP", ("queries and keys", "values too")),
        notebook="02",
    ),
    Claim(
        id="D7",
        statement="Positions are added in every layer of encoder and decoder, which is better than once.",
        verdict="confirmed",
        finding="By the paper: 39.2 instead of 40.6 AP with cells and queries once. Here AP50 is lower in three "
        "trainings of three with the cells once, in two of three with both.",
        evidence=Measured("AP50", ("every attention", "cells once", "both once")),
        notebook="02",
    ),
    Claim(
        id="D8",
        statement="The activation may be ReLU, GELU or GLU.",
        verdict="corrected",
        finding="GLU halves the width, so the matrix behind it does not fit; it needs a first matrix twice as wide.",
        evidence=Printed(
            (
                "GLU (1, 64, 512) -> (1, 64, 256)",
                "mat1 and mat2 shapes cannot be multiplied (64x256 and 512x128)",
            )
        ),
        notebook="02",
    ),
    Claim(
        id="D10",
        statement="The spatial encoding is learned from scratch.",
        verdict="corrected",
        finding="DETR's are fixed sines; learned ones differ by less in AP50 than seeds do. Without positions every "
        "training is worse than its twins, three of four by far (paper: 7.8 AP less). What is learned are the object "
        "queries.",
        evidence=Measured("AP50", ("sine", "learned", "none")),
        notebook="02",
    ),
    Claim(
        id="D30",
        statement="Encoder and decoder attention are quadratic in the size of the feature map.",
        verdict="qualified",
        finding="The time of self-attention has a part that is quadratic in the number of cells; cross-attention is "
        "linear. Memory is linear in both, as long as the weights are never stored.",
        evidence=Printed(
            (
                "stride 32 n = 850, quadratic part 25 %, weights 23 MB a layer",
                "stride 8 n = 13400, quadratic part 84 %, weights 5,746 MB a layer",
            )
        ),
        notebook="02",
    ),
    Claim(
        id="D32",
        statement="Q, K and V are learned parameters.",
        verdict="corrected",
        finding="They are activations, other ones for every picture; the projections that make them are learned.",
        evidence=Printed(
            (
                "learned: q_proj.weight, q_proj.bias, k_proj.weight, k_proj.bias, v_proj.weight, v_proj.bias",
                "the query of cell 27 in two pictures: cosine 0.76",
            )
        ),
        notebook="02",
    ),
    Claim(
        id="D34",
        statement="The transformer sees global context, and relations of things that lie far apart.",
        verdict="qualified",
        finding="It sees a mark at the far end of the picture, and takes no encoder for it: the decoder's queries "
        "read the whole picture too. All 24 trainings found it, those with encoder layers no sooner. Relations of "
        "particular things were not put to the test (paper: without its encoder DETR loses 3.9 AP).",
        evidence=Measured(
            "steps",
            (
                "2 encoder, 2 decoder",
                "4 encoder, 2 decoder",
                "0 encoder, 2 decoder",
                "0 encoder, 4 decoder",
            ),
        ),
        notebook="02",
    ),
)
