"""What the document says about DETR's decoder, and what became of it."""

from minivis.experiments.claims import Claim, Printed

CLAIMS = (
    Claim(
        id="D9",
        statement="Parallel decoding refines an answer in k steps, and k ≤ m guarantees its quality.",
        verdict="corrected",
        finding="That is translation, decoded iteratively. DETR makes one pass. Its layers refine, with no guarantee: "
        "AP rises from layer to layer (paper: by 8.2 from first to last), and falls if one is repeated or skipped.",
        evidence=Printed(
            (
                "AP after each layer: 0.749, 0.790, 0.796",
                "the last layer once more: 0.776; without layer 2: 0.707; without layer 1: 0.043",
            )
        ),
        notebook="03",
    ),
    Claim(
        id="D11",
        statement="Object queries are zero vectors before the first layer.",
        verdict="corrected",
        finding="The content is zero; the queries are a learned embedding, added at every attention. So the first "
        "self-attention gives one vector, for every query and every picture.",
        evidence=Printed(
            (
                "object queries: mean absolute value 0.8 (of N(0, 1): 0.8)",
                "self-attention 1: spread over queries 0.00, over pictures 0.00",
                "self-attention 2: spread over queries 1.11, over pictures 1.35",
            )
        ),
        notebook="03",
    ),
    Claim(
        id="D12",
        statement="Cross-attention takes as Q the object queries summed with themselves after self-attention; as K and "
        "V the encoder's output, with positions and without.",
        verdict="qualified",
        finding="Q is the content, which self-attention was added to, normed, plus the query embedding. "
        "K and V are right.",
        evidence=Printed(("Q is off by 0.00 from content + embedding, by 1.17 from content + content",)),
        notebook="03",
    ),
    Claim(
        id="D13",
        statement="The decoder is that of 2017, except that it decodes in parallel.",
        verdict="qualified",
        finding="So it has no causal mask, and the order of the queries does not matter; and positions are added "
        "at every attention, not once at the input.",
        evidence=Printed(
            (
                "25 shuffled queries: the same answers, shuffled",
                "AP as it is 0.80, with the mask 0.73",
                "of the sure answers 5 % and 34 % are duplicates",
            )
        ),
        notebook="03",
    ),
    Claim(
        id="D14",
        statement="The transformer is 512 wide.",
        verdict="corrected",
        finding="That is the default of the code's signature; DETR is built and trained with 256. 512 would make its "
        "transformer alone larger than the whole detector (paper: 41 million).",
        evidence=Printed(
            (
                "the paper's DETR is 256 wide",
                "millions of parameters in a transformer 256 wide: 17.4; 512 wide: 44.1",
            )
        ),
        notebook="03",
    ),
    Claim(
        id="D28",
        statement="Attention heads learn independently of each other, each a part of the task.",
        verdict="qualified",
        finding="Several look at places of their own, though some look alike, and no one tells them to. But they learn "
        "together: the gradient of one depends on what each of the others gives.",
        evidence=Printed(
            (
                "head 4's gradient with all heads, and without one; cosine, mean over 20 batches",
                "without head 0: 0.5, 1: 0.7, 2: 0.8, 3: 0.5, 5: 0.7, 6: 0.7, 7: 0.5",
                "and that of two different batches: mean 0.0, from -0.4 to 0.5",
            )
        ),
        notebook="03",
    ),
    Claim(
        id="D36",
        statement="Cross-attention takes the place of RoI pooling, and may read the whole picture.",
        verdict="confirmed",
        finding="About half of it lies outside the query's box, most of that beside its edge, and it is needed in "
        "part: to read only the cells that RoIAlign would read costs 0.10 of 0.80 AP.",
        evidence=Printed(
            (
                "layer 1: 51 % inside, 84 % within a cell of it",
                "those RoIAlign reads 12 cells, AP 0.692",
                "anywhere 64 cells, AP 0.796",
            )
        ),
        notebook="03",
    ),
)
