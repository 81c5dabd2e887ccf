"""D6: values carry no positions. What if they did?"""

from torch import Tensor, nn

from minivis.attention import MultiHeadAttention
from minivis.detr import DETR
from minivis.experiments.experiment import Experiment
from minivis.experiments.small_detr import MEASURES, build_small, small_criterion, train_and_measure


class ValuesAreKeys(nn.Module):
    """An attention whose values are what its keys are: content with positions."""

    def __init__(self, attention: MultiHeadAttention):
        super().__init__()
        self.attention = attention

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None
    ) -> Tensor:
        return self.attention(query, key, key, key_padding_mask)


def build(variant: str) -> DETR:
    """The small DETR; with positions in the values of every attention that reads the image, if asked for."""
    model = build_small()
    if variant == "values too":
        for layer in model.transformer.encoder.layers:
            layer.self_attn = ValuesAreKeys(layer.self_attn)
        for layer in model.transformer.decoder.layers:
            layer.cross_attn = ValuesAreKeys(layer.cross_attn)
    return model


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    return train_and_measure(small_criterion(), seed, reduced, build=lambda: build(variant))


D6 = Experiment(
    id="D6",
    claim="Positions are added to queries and keys; values carry none.",
    question="Is something lost, or won, if values carry them too?",
    variants={
        "queries and keys": "DETR: positions say where to look; what is gathered has none",
        "values too": "what is gathered in the encoder and in the decoder's cross-attention carries positions",
    },
    measures=MEASURES,
    estimate="measured: 7 minutes on one CPU core",
    run=run,
)
