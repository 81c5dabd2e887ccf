"""What the document says about DETR's decoder, and what became of it."""

from minivis.experiments.claims import IN_A_CELL, Claim

CLAIMS = (
    Claim(
        id="D9",
        statement="Parallel decoding refines an answer in k steps, and k ≤ m guarantees its quality.",
        verdict="corrected",
        finding="That is translation, decoded iteratively. DETR makes one pass. Its layers refine, with no guarantee: "
        "AP rises from layer to layer, and falls if the last layer is run once more.",
        evidence=f"{IN_A_CELL}; the paper says +8.2 AP from first to last layer (Carion et al. 2020, 4.2)",
        notebook="03",
    ),
    Claim(
        id="D11",
        statement="Object queries are zero vectors before the first layer.",
        verdict="corrected",
        finding="The content is zero; the queries are a learned embedding, added at every attention. So the first "
        "self-attention gives one vector, for every query and every picture.",
        evidence=IN_A_CELL,
        notebook="03",
    ),
    Claim(
        id="D12",
        statement="Cross-attention takes as Q the object queries summed with themselves after self-attention; as K and "
        "V the encoder's output, with positions and without.",
        verdict="qualified",
        finding="Q is the content, which self-attention was added to, normed, plus the query embedding. "
        "K and V are right.",
        evidence=IN_A_CELL,
        notebook="03",
    ),
    Claim(
        id="D13",
        statement="The decoder is that of 2017, except that it decodes in parallel.",
        verdict="qualified",
        finding="So it has no causal mask, and the order of the queries does not matter; and positions are added "
        "at every attention, not once at the input.",
        evidence=IN_A_CELL,
        notebook="03",
    ),
    Claim(
        id="D14",
        statement="The transformer is 512 wide.",
        verdict="corrected",
        finding="That is the default of the code's signature; DETR is built and trained with 256.",
        evidence=f"{IN_A_CELL}; 41 million parameters (Carion et al. 2020, table 1)",
        notebook="03",
    ),
    Claim(
        id="D28",
        statement="Attention heads learn independently of each other, each a part of the task.",
        verdict="qualified",
        finding="Several look at places of their own, though some look alike, and no one tells them to. But they learn "
        "together: the gradient of one depends on what each of the others gives.",
        evidence=IN_A_CELL,
        notebook="03",
    ),
    Claim(
        id="D36",
        statement="Cross-attention takes the place of RoI pooling, and may read the whole picture.",
        verdict="confirmed",
        finding="About half of it lies outside the query's box, most of that beside its edge, and it is needed in "
        "part: to read only the cells that RoIAlign would read costs 0.10 of 0.80 AP.",
        evidence=IN_A_CELL,
        notebook="03",
    ),
)
