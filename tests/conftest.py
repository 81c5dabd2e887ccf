"""What all tests share: annotations are checked at run time, and one process keeps to one core."""

import importlib.util
import os

import pytest

# Before torch is imported, so that the workers of pytest-xdist do not fight for the cores.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if os.environ.get("MINIVIS_NETWORK") != "1":  # a test without the marker `network` must not go out
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

CHECKED = all(importlib.util.find_spec(name) for name in ("jaxtyping", "beartype"))
if CHECKED:
    import jaxtyping

    # Every call of an annotated function is checked: what says Float[Tensor, "batch queries 4"] must be that.
    jaxtyping.install_import_hook("minivis", "annotation_checker.check")


if importlib.util.find_spec("hypothesis"):
    from hypothesis import settings

    # New examples at every run are for those who watch; a run that decides gives the same answer twice.
    settings.register_profile("repeatable", derandomize=True, deadline=None)
    if os.environ.get("CI"):
        settings.load_profile("repeatable")


def pytest_report_header(config: pytest.Config) -> str:
    return f"minivis: annotations are {'checked' if CHECKED else 'NOT checked (beartype is not installed)'}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was left out for want of a browser: of skipped tests one sees else only their number."""
    skipped = [
        report for report in terminalreporter.stats.get("skipped", []) if "Chromium" in str(report.longrepr)
    ]
    if skipped:
        reason = str(skipped[0].longrepr[-1]).removeprefix("Skipped: ")
        terminalreporter.section("browser")
        terminalreporter.write_line(f"{len(skipped)} tests of widgets were left out: {reason}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        import torch

        if not torch.cuda.is_available():
            for item in gpu:
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))
    if os.environ.get("MINIVIS_NETWORK") != "1":
        for item in items:
            if item.get_closest_marker("network"):
                item.add_marker(pytest.mark.skip(reason="needs a network: set MINIVIS_NETWORK=1"))
