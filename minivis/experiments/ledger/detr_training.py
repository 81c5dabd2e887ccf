"""What the document says about DETR's strengths and weaknesses, and what became of it."""

from minivis.experiments.claims import Claim, Measured, Printed

CLAIMS = (
    Claim(
        id="D27",
        statement="Duplicates do occur, so non-maximum suppression is worth adding.",
        verdict="qualified",
        finding="They occur, and after the first decoder layer suppression helps. After the last, few are left, and it "
        "costs a little: at an IoU of 0.75 it loses objects, since it keeps the surer of two boxes and not the better.",
        evidence=Printed(("layer 1: AP 0.75, NMS adds +0.016", "layer 3: AP 0.80, NMS adds -0.004")),
        notebook="05",
    ),
    Claim(
        id="D29",
        statement="DETR is bad at small objects, because it reads one coarse scale of the backbone.",
        verdict="qualified",
        finding="It is worse on small objects. But a coarse map cost a small model time: trained twice as long, it is "
        "no worse on small or on large things than with cells a quarter as wide. Where both would end was not put to "
        "the test, nor crowds of small things (the paper, on COCO: a map twice as fine, DC5, gains 2 AP on small "
        "objects).",
        evidence=Measured("AP_small", ("stride 16", "stride 16, 3,200 steps", "stride 4")),
        notebook="05",
    ),
    Claim(
        id="D31",
        statement="Attention is what makes DETR slow: its quadratic cost dominates the time of inference.",
        verdict="corrected",
        finding="The backbone does most of the work, in operations and in time; attention's quadratic products are a "
        "few per cent. On finer maps it would be more.",
        evidence=Printed(("backbone 141.8 GFLOP 86.3 %", "of it attention's own products: 5.0 GFLOP, 3 %")),
        notebook="05",
    ),
    Claim(
        id="D33",
        statement="DETR needs an order of magnitude more epochs than classical detectors.",
        verdict="qualified",
        finding="It needs more: in a small world about five times the steps of a convolutional detector of its size at "
        "the start, twice as many later. "
        "The paper: 500 epochs against 109 of a long Faster R-CNN schedule.",
        evidence=Measured("AP50_400", ("DETR", "convolutions")),
        notebook="05",
    ),
)
