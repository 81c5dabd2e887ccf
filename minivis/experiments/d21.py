"""D21: what does each part of the loss do?"""

from minivis.experiments.experiment import Experiment
from minivis.experiments.small_detr import MEASURES, small_criterion, train_and_measure

CHANGES = {
    "the whole loss": {},
    "no-object weight 1": {"no_object": 1.0},
    "without GIoU": {"giou": 0.0},
    "without L1": {"l1": 0.0},
}


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    return train_and_measure(small_criterion(**CHANGES[variant]), seed, reduced)


D21 = Experiment(
    id="D21",
    claim="The loss is the sum of cross-entropy, L1 and GIoU.",
    question='DETR weights the parts, and "no object" by 0.1. What is learned without each of these choices?',
    variants={
        "the whole loss": 'cross-entropy with "no object" weighted 0.1, 5 · L1, 2 · GIoU',
        "no-object weight 1": '"no object" counts as much as every other class',
        "without GIoU": "the loss has no GIoU; the matching stays as it is",
        "without L1": "the loss has no L1; the matching stays as it is",
    },
    measures=MEASURES,
    estimate="measured: 11 minutes on one CPU core",
    run=run,
)
