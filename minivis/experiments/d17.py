"""D17: what does training lose where objects are matched to queries in a simpler way than the best one?"""

from minivis.detr import HungarianMatcher
from minivis.experiments.experiment import Experiment
from minivis.experiments.matching import GreedyMatcher, ListOrderMatcher
from minivis.experiments.small_detr import MEASURES, small_criterion, train_and_measure

MATCHERS = {"optimal": HungarianMatcher(), "greedy": GreedyMatcher(), "list order": ListOrderMatcher()}


def run(variant: str, seed: int, reduced: bool) -> dict[str, float]:
    return train_and_measure(small_criterion(MATCHERS[variant]), seed, reduced)


D17 = Experiment(
    id="D17",
    claim="Giving every object the prediction nearest to it would not always be the best matching.",
    question="Does it matter to what is learned?",
    variants={
        "optimal": "the assignment of least total cost",
        "greedy": "the cheapest pair first, then the cheapest of what is left, and so on",
        "list order": "no matching: the first object in the list belongs to the first query, and so on",
    },
    measures=MEASURES,
    estimate="measured: 9 minutes on one CPU core",
    run=run,
)
