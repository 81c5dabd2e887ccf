"""D7: positions at every attention of every layer, or once, where the transformer begins?"""

import torch
from torch import Tensor, nn

from minivis.detr import DETR
from minivis.detr.transformer import Transformer, TransformerDecoder
from minivis.experiments.experiment import Experiment
from minivis.experiments.small_detr import MEASURES, build_small, small_criterion, train_and_measure


class PositionsOnce(nn.Module):
    """A transformer whose cells get their positions added as they come in, and never again."""

    def __init__(self, transformer: Transformer):
        super().__init__()
        self.transformer = transformer

    def forward(
        self, features: Tensor, padding_mask: Tensor, query_embed: Tensor, pos: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.transformer(features + pos, padding_mask, query_embed, torch.zeros_like(pos))


class QueriesOnce(nn.Module):
    """A decoder which begins with the object queries in place of zeros, and never adds them again."""

    def __init__(self, decoder: TransformerDecoder):
        super().__init__()
        self.decoder = decoder

    def forward(
        self, x: Tensor, memory: Tensor, padding_mask: Tensor, pos: Tensor, query_pos: Tensor
    ) -> Tensor:
        return self.decoder(x + query_pos, memory, padding_mask, pos)


def build(variant: str) -> DETR:
    model = build_small()
    if variant != "every attention":
        model.transformer = PositionsOnce(model.transformer)
    if variant == "both once":
        model.transformer.transformer.decoder = QueriesOnce(model.transformer.transformer.decoder)
    return model


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    return train_and_measure(small_criterion(), seed, reduced, build=lambda: build(variant))


D7 = Experiment(
    id="D7",
    claim="Adding positions in every layer is better than adding them once.",
    question="Is it, in a small model? The paper: 40.6 AP against 39.2 with cells and queries once.",
    variants={
        "every attention": "DETR: positions of cells and object queries are added at every attention",
        "cells once": "positions of cells only to what goes into the encoder; object queries as in DETR",
        "both once": "and the object queries only to what goes into the decoder",
    },
    measures=MEASURES,
    estimate="measured: 10 minutes on one CPU core",
    run=run,
)
