"""D10: positions as fixed sines, as learned vectors, or not at all.

Of four seeds three are better with sines than with learned vectors, and one is worse by as much: between these two it
is not decided. Without positions all four are worse than with either; three learn next to nothing, one comes quite far.
"""

from minivis.detr import DETR
from minivis.experiments.experiment import Experiment
from minivis.experiments.small_detr import CONFIG, MEASURES, build_small, small_criterion, train_and_measure
from minivis.positions import POSITIONS

OPTIONS = {"sine": {"temperature": CONFIG.position_temperature}}


def build(positions: str) -> DETR:
    """The small DETR with other positions. They are put in last, so that all else begins with the same weights."""
    model = build_small()
    model.positions = POSITIONS[positions](CONFIG.d_model, **OPTIONS.get(positions, {}))
    return model


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    return train_and_measure(small_criterion(), seed, reduced, build=lambda: build(variant))


D10 = Experiment(
    id="D10",
    claim="The encoding of positions in the image is learned from scratch.",
    question="DETR's are fixed sines. Do learned ones serve better, and what happens without any?",
    variants={
        "sine": "fixed sines and cosines of row and column: DETR's, without parameters",
        "learned": "a learned vector for each row and each column",
        "none": "no positions, neither in the encoder nor in the decoder; the object queries stay",
    },
    measures=MEASURES,
    estimate="measured: 10 minutes on one CPU core",
    run=run,
)
