"""The curves of a run, from its log."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minivis.training.checkpoint import read_log


def plot_curves(folder: str | Path) -> Path:
    """Draws `curves.png` from a run's `metrics.jsonl`: its losses, its metrics, and the learning rate.

    Returns:
        the path of the picture.
    """
    entries = read_log(folder)
    losses = [entry for entry in entries if "loss" in entry]
    metrics = [entry for entry in entries if "loss" not in entry]
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, metric_axes, rate_axes = figure.subplots(1, 3)
    steps = [entry["step"] for entry in losses]
    for name in [name for name in (losses[-1] if losses else ()) if name.startswith("loss")]:
        loss_axes.plot(
            steps, [entry.get(name) for entry in losses], label=name, linewidth=2 if name == "loss" else 1
        )
    for name in (
        [name for name in metrics[-1] if name != "step"][:3] if metrics else []
    ):  # the first are the main ones
        metric_axes.plot(
            [e["step"] for e in metrics], [e.get(name) for e in metrics], "o-", markersize=3, label=name
        )
    rate_axes.plot(steps, [entry["lr"] for entry in losses])
    for axes, title in (
        (loss_axes, "training loss"),
        (metric_axes, "validation"),
        (rate_axes, "learning rate"),
    ):
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    loss_axes.set_yscale("log")
    path = Path(folder) / "curves.png"
    figure.savefig(path, dpi=90)
    return path
