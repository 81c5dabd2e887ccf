"""What the document says about DETR's backbone, and what became of it."""

from minivis.experiments.claims import Claim, Printed

CLAIMS = (
    Claim(
        id="D1",
        statement="The backbone's map has 2048 channels and H0/32 × W0/32 cells.",
        verdict="qualified",
        finding="With ResNet-50, and rounded up: a side that 32 does not divide has one cell more.",
        evidence=Printed(("65 × 97 pixels: 3 × 4 cells of 2048 channels; divided by 32: 2.03 × 3.03",)),
        notebook="01",
    ),
    Claim(
        id="D2",
        statement="A one-dimensional convolution brings the 2048 channels down to d.",
        verdict="corrected",
        finding="A two-dimensional one with a 1 × 1 kernel: it mixes no cells.",
        evidence=Printed(
            (
                "the convolution's weight: (128, 128, 1, 1) = (d, C, 1, 1)",
                "equal to one Linear at every cell",
            )
        ),
        notebook="01",
    ),
    Claim(
        id="D3",
        statement="The map is turned into a one-dimensional vector for the encoder.",
        verdict="corrected",
        finding="Into a sequence of H·W vectors of d numbers, row after row.",
        evidence=Printed(("sequence: (2, 64, 128) = (B, H·W, d)",)),
        notebook="01",
    ),
)
