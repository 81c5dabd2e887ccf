"""D20: what weights and what class cost should the matching have?"""

from minivis.detr import HungarianMatcher
from minivis.experiments.experiment import Experiment
from minivis.experiments.matching import CrossEntropyMatcher
from minivis.experiments.small_detr import MEASURES, small_criterion, train_and_measure

MATCHERS = {
    "weights 1, 5, 2": HungarianMatcher(1, 5, 2),
    "weights 1, 1, 1": HungarianMatcher(1, 1, 1),
    "class cost −log p": CrossEntropyMatcher(1, 5, 2),
}


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    return train_and_measure(small_criterion(MATCHERS[variant]), seed, reduced)


D20 = Experiment(
    id="D20",
    claim="The matching cost is the sum of the three losses, all with weight 1.",
    question="DETR matches by −p(class) + 5 · L1 − 2 · GIoU. Does it matter to what is learned?",
    variants={
        "weights 1, 5, 2": "DETR's weights of −p(class), L1 and −GIoU",
        "weights 1, 1, 1": "the same with all weights 1",
        "class cost −log p": "DETR's weights, with −log p(class) in place of −p(class)",
    },
    measures=MEASURES,
    estimate="measured: 9 minutes on one CPU core",
    run=run,
)
