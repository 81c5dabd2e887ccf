"""What experiments have found, shown in a notebook: their numbers drawn, and the verdicts on the document's claims."""

from IPython.display import display

from minivis.experiments import claims_table, load_result, plot_result
from minivis.experiments.results import Result
from minivis.widgets.pictures import show


def show_experiment(id: str, *measures: str) -> None:
    """Display what the shipped experiment measured, a panel for each measure; each point is a training of its own.

    Raises:
        FileNotFoundError: if no result of that experiment is shipped.
        ValueError: if it has no such measure.
    """
    result = load_result(id)
    show(plot_result(result, *measures), in_words(result, *measures))


def in_words(result: Result, *measures: str) -> str:
    """The numbers of a plot: what stands in it, for those who do not see it."""
    panels = [
        f"{measure}: "
        + ", ".join(f"{variant} {result.text(variant, measure)}" for variant in result.variants)
        for measure in measures
    ]
    return f"Experiment {result.experiment}, {len(result.seeds)} seeds, mean (lowest–highest). {'; '.join(panels)}."


def show_claims(*ids: str) -> None:
    """Display the claims of these ids, or of all, as a table with verdicts and evidence."""
    table = claims_table(ids)
    display({"text/markdown": table, "text/plain": table}, raw=True)
