"""What the document says about DETR's panoptic head, and what became of it."""

from minivis.experiments.claims import Claim, Measured, Printed

CLAIMS = (
    Claim(
        id="D23",
        statement="Panoptic segmentation means to tell apart objects of one class as well.",
        verdict="corrected",
        finding="That is instance segmentation. Panoptic segmentation gives every pixel one segment: each thing by "
        "itself, and of each stuff class all there is of it.",
        evidence=Printed(
            (
                "scenes with two things of one class, which a semantic map does not count: 64 %",
                "pixels of no thing, of which instance masks say nothing: 84 %",
            )
        ),
        notebook="06",
    ),
    Claim(
        id="D24",
        statement="Masks begin with the attention map of the multi-head attention.",
        verdict="corrected",
        finding="The head has a query–key attention of its own, without values, softmaxed over heads and cells "
        "together. The decoder's map does not do in its place, nor its own with each head by itself.",
        evidence=Printed(
            (
                "PQ with its own attention 0.88, with the decoder's 0.01, with its own, each head by itself 0.60",
            )
        ),
        notebook="06",
    ),
    Claim(
        id="D25",
        statement="The mask head builds maps from large to small, which are then added up.",
        verdict="corrected",
        finding="From small to large, and a finer map of the backbone is added at each step: from stride 32 to 4 in "
        "the paper, from 16 to 4 in the small model.",
        evidence=Printed(("side of y, step by step: [8, 8, 16, 32]",)),
        notebook="06",
    ),
    Claim(
        id="D26",
        statement="The detector can be frozen while the masks are trained, without loss.",
        verdict="confirmed",
        finding="With as many steps for each part, masks on a frozen detector come out better than those of a joint "
        "training, and boxes alike. To freeze its parameters is not enough: dropout that is left on makes masks a "
        "little worse.",
        evidence=Measured("PQ", ("two stages", "dropout left on", "joint")),
        notebook="06",
    ),
    Claim(
        id="D37",
        statement="The size of the masks' tensor depends on the number of boxes.",
        verdict="corrected",
        finding="On the number of queries, whatever is in the picture. A mask depends on no other query, so that "
        "only those needed have to be made.",
        evidence=Printed(("objects in the two scenes: [7, 7]", "masks: (2, 25, 32, 32)")),
        notebook="06",
    ),
)
