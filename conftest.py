"""After notebooks were executed again (`make test-notebooks`): their time, beside what their headers say."""

import os
from collections import defaultdict
from pathlib import Path

import pytest

# Notebooks side by side: two kernels with two threads each, on two cores, are many times slower than with one.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    seconds = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and ".ipynb::" in report.nodeid:
                seconds[report.nodeid.split("::")[0]] += report.duration
    if not seconds:
        return

    import course  # tools/ is on the path by now
    import make_notebooks

    terminalreporter.section("notebooks")
    for path, measured in sorted(seconds.items()):
        stated = course.stated_seconds(make_notebooks.read(Path(config.rootpath, path)))
        line = f"{Path(path).stem}: {measured:.0f} s"
        if stated is None or course.times_off(stated, measured) > 2:
            line = f"WARNING: {line}, more than a factor of two from what its header says: make notebooks"
        terminalreporter.write_line(line)
