"""What the document says about matching and loss, and what became of it."""

from minivis.experiments.claims import IN_A_CELL, Claim, Measured, Printed

CLAIMS = (
    Claim(
        id="D15",
        statement="A box is written as (cx, cy, height, width).",
        verdict="corrected",
        finding="It is (cx, cy, width, height). Swapped in the loss, training looks healthy and nothing is found.",
        evidence=Measured("AP50", ("width first", "loss: height first", "GIoU: height first")),
        notebook="04",
    ),
    Claim(
        id="D16",
        statement="No more objects can be found in a picture than there are queries.",
        verdict="confirmed",
        finding="Objects that are left over after the matching teach nothing.",
        evidence=Printed(("9 objects, 5 queries: 5 pairs",)),
        notebook="04",
    ),
    Claim(
        id="D17",
        statement="Matching every object to the box nearest to it would not always be the best matching.",
        verdict="qualified",
        finding="A greedy matching costs more now and then; trained with it, a small model is as good within the "
        "spread of the seeds. Without any matching it learns next to nothing.",
        evidence=Measured("AP50", ("optimal", "greedy", "list order")),
        notebook="04",
    ),
    Claim(
        id="D18",
        statement="The Hungarian algorithm takes O(n³) time; scipy has a faster variant of it.",
        verdict="confirmed",
        finding="scipy's is a modified Jonker–Volgenant algorithm; at DETR's sizes it takes microseconds.",
        evidence=IN_A_CELL,
        notebook="04",
    ),
    Claim(
        id="D19",
        statement="The order in which predictions come does not matter.",
        verdict="confirmed",
        finding="Nor does the order of the objects: the loss is the same.",
        evidence=Printed(("the loss is the same, to five digits",)),
        notebook="04",
    ),
    Claim(
        id="D20",
        statement="The matching cost is the sum of the three losses, all weighted 1.",
        verdict="corrected",
        finding="DETR is trained with class 1, L1 5, GIoU 2; and the class part is −p, not the loss's −log p.",
        evidence=Measured("AP50", ("weights 1, 5, 2", "weights 1, 1, 1", "class cost −log p")),
        notebook="04",
    ),
    Claim(
        id="D21",
        statement="The loss is the sum of cross-entropy, L1 and GIoU.",
        verdict="qualified",
        finding='Weighted 1, 5 and 2, at every decoder layer; and "no object" counts a tenth: otherwise most '
        "objects are passed over in silence.",
        evidence=Measured("AP50", ("the whole loss", "no-object weight 1", "without GIoU", "without L1")),
        notebook="04",
    ),
    Claim(
        id="D22",
        statement='Surplus predictions become "no object" and are left out of the result.',
        verdict="qualified",
        finding="Out of a picture, yes. To measure AP all are kept, each with its best real class: AP is higher.",
        evidence=Printed(
            (
                "every answer 5000 detections, AP 0.803",
                "only those that say a class 893 detections, AP 0.797",
            )
        ),
        notebook="04",
    ),
    Claim(
        id="D35",
        statement="The matching gives the smallest loss that is possible.",
        verdict="corrected",
        finding="It gives the least matching cost; under some other matching the loss is smaller now and then.",
        evidence=Printed(
            (
                "first decoder layer: another matching has a smaller loss in 12 % of scenes",
                "last decoder layer: another matching has a smaller loss in 0 % of scenes",
            )
        ),
        notebook="04",
    ),
)
