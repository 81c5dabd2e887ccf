"""What an experiment is: a question to a claim, the variants it compares, and what is measured of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A claim put to the test by training the same model in several variants.

    `run(variant, seed, reduced)` trains one variant with one seed and gives its measures by name. Variants of one
    seed differ in nothing but what they are called after. `reduced` takes seconds and decides nothing: it is for
    tests, and to see that everything works.
    """

    id: str  # of the claim: "D21"
    claim: str  # what is claimed
    question: str  # what the experiment asks
    variants: Mapping[str, str]  # name → what it is; the first is what others are compared with
    measures: Mapping[str, str]  # name → what the number means
    estimate: str  # what it takes, marked as measured or as an estimate
    run: Callable[[str, int, bool], dict[str, float]] = field(repr=False)
