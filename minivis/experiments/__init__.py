"""Claims put to the test: what takes longer than a notebook has, run from the command line, its numbers kept."""

from minivis.experiments.claims import Claim, Measured, Printed
from minivis.experiments.d06 import D6
from minivis.experiments.d07 import D7
from minivis.experiments.d10 import D10
from minivis.experiments.d15 import D15
from minivis.experiments.d17 import D17
from minivis.experiments.d20 import D20
from minivis.experiments.d21 import D21
from minivis.experiments.d26 import D26
from minivis.experiments.d29 import D29
from minivis.experiments.d33 import D33
from minivis.experiments.d34 import D34
from minivis.experiments.experiment import Experiment
from minivis.experiments.ledger import CLAIMS, claims_table
from minivis.experiments.results import Result, ResultError, Run, load_result, plot_result, read_result
from minivis.experiments.runner import run_experiment
from minivis.shipped_files import near

EXPERIMENTS: dict[str, Experiment] = {
    experiment.id: experiment for experiment in (D6, D7, D10, D15, D17, D20, D21, D26, D29, D33, D34)
}

__all__ = [
    "CLAIMS",
    "EXPERIMENTS",
    "Claim",
    "Experiment",
    "Measured",
    "Printed",
    "Result",
    "ResultError",
    "Run",
    "claims_table",
    "get_experiment",
    "load_result",
    "plot_result",
    "read_result",
    "run_experiment",
]


def get_experiment(id: str) -> Experiment:
    """The experiment of that id; ValueError, naming those that there are, if there is none."""
    if id not in EXPERIMENTS:
        there = list(EXPERIMENTS)
        raise ValueError(f"there is no experiment {id!r}{near(id, there)}; there are {', '.join(there)}")
    return EXPERIMENTS[id]
