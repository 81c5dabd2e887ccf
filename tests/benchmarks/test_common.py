"""The pieces of the benchmarks: fair turns, ratios, one JSON object at the end."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from common import Row, arguments, fastest, machine, report


def test_sides_take_turns_and_warm_up_is_not_counted(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr("common.time.perf_counter", lambda: clock[0])

    def side(name, durations):
        def run():
            clock[0] += durations[sum(call == name for call in calls)]
            calls.append(name)

        return run

    sides = {"ours": side("ours", [99, 1, 2, 30]), "theirs": side("theirs", [99, 4, 8, 6])}
    waited = []
    assert fastest(sides, repeats=3, wait=lambda: waited.append(len(calls))) == {"ours": 1, "theirs": 4}
    assert calls == ["ours", "theirs", "theirs", "ours"] * 2
    assert len(waited) == 2 * len(calls)  # before the clock is read, both times


def test_report_ends_with_one_json_object(capsys):
    rows = [Row("step", 2.0, 3.0, "s"), Row("waits", 0, 70, "1")]
    report("DETR", rows, machine("cpu"), as_json=True)
    lines = capsys.readouterr().out.splitlines()
    told = json.loads(lines[-1])
    assert told["rows"]["step"] == {"name": "step", "ours": 2.0, "theirs": 3.0, "unit": "s", "ratio": 1.5}
    assert told["rows"]["waits"]["ratio"] is None
    assert told["machine"]["threads"] >= 1 and told["machine"]["processor"] and "torch" in told["machine"]
    table = next(line for line in lines if line.startswith("step"))
    assert table.split() == ["step", "2", "3", "s", "1.50"]

    report("DETR", rows, {"torch": "2"}, as_json=False)
    assert "{" not in capsys.readouterr().out


def test_options():
    options = arguments("what it does").parse_args(["--quick", "--json", "--threads", "2"])
    assert options.quick and options.json and options.threads == 2
    with pytest.raises(SystemExit):
        arguments("what it does").parse_args(["--slow"])
