"""Running an experiment, keeping its numbers, and reading them."""

import dataclasses
import json
import os

import pytest

from minivis import experiments
from minivis.experiments import Experiment, ResultError, load_result, plot_result, read_result, run_experiment
from minivis.shipped_files import shipped_folder


def numbers(variant, seed, reduced):
    return {"AP": len(variant) + seed / 10, "loss": 1.0 if reduced else 2.0}


def experiment(run=numbers, **changes):
    fields = dict(
        id="D0", claim="Apples fall.", question="Do pears?", variants={"apple": "an apple", "pear": "no apple"},
        measures={"AP": "average pear", "loss": "what is lost"}, estimate="none", run=run,
    )  # fmt: skip
    return Experiment(**fields | changes)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "folder" / "D0.json"


def test_every_number_is_kept_by_variant_and_seed(file):
    result = run_experiment(experiment(), file, seeds=3)
    assert result.values("apple", "AP") == [5.0, 5.1, 5.2]
    assert result.mean("pear", "AP") == pytest.approx(4.1)
    assert result.spread("pear", "AP") == (4.0, 4.2)
    assert result.seeds == [0, 1, 2]
    assert read_result(file) == result
    content = json.loads(file.read_text())
    assert [(run["seed"], run["variant"]) for run in content["runs"]] == [
        (seed, variant) for seed in range(3) for variant in ("apple", "pear")
    ]
    assert all(run["cpu_seconds"] >= 0 and "CPU" in run["machine"] for run in content["runs"])
    assert "| pear | 4.10 (4.00–4.20) |" in result.table(["AP"])
    with pytest.raises(ValueError, match="no variant 'plum'; it has apple, pear"):
        result.values("plum", "AP")
    with pytest.raises(ValueError, match="no measure 'AR'; it has AP, loss"):
        result.mean("pear", "AR")


def test_numbers_of_hundreds_are_written_without_decimals(file):
    run = lambda variant, seed, reduced: {"AP": 0.5 + seed / 10, "loss": 900.0 + 100 * seed}  # noqa: E731
    result = run_experiment(experiment(run), file, seeds=3)
    assert result.text("pear", "AP") == "0.60 (0.50–0.70)"
    assert result.text("pear", "loss") == "1,000 (900–1,100)"


def test_a_run_that_was_stopped_goes_on_and_runs_nothing_twice(file):
    calls = []

    def stopped_at_third(variant, seed, reduced):
        calls.append((seed, variant))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return numbers(variant, seed, reduced)

    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment(stopped_at_third), file, seeds=2)
    assert len(read_result(file).runs) == 2
    run_experiment(experiment(stopped_at_third), file, seeds=2)
    assert calls == [(0, "apple"), (0, "pear"), (1, "apple"), (1, "apple"), (1, "pear")]
    before = file.read_bytes()
    run_experiment(experiment(stopped_at_third), file, seeds=1)
    assert len(calls) == 5
    assert file.read_bytes() == before, "fewer seeds than there are: nothing to do, nothing lost"
    assert run_experiment(experiment(stopped_at_third), file, seeds=3).seeds == [0, 1, 2]


def test_a_write_that_is_interrupted_loses_nothing(file, monkeypatch):
    run_experiment(experiment(), file, seeds=1)
    before = file.read_bytes()

    def killed(*paths):
        raise OSError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(OSError, match="no power"):
            run_experiment(experiment(), file, seeds=2)
    assert file.read_bytes() == before
    assert run_experiment(experiment(), file, seeds=2).seeds == [0, 1]
    assert [path.name for path in file.parent.iterdir()] == ["D0.json"]


@pytest.mark.parametrize(
    ("other", "reduced", "message"),
    [
        (experiment(id="D1"), False, "expected experiment 'D1', but it has 'D0'"),
        (experiment(variants={"apple": "", "plum": ""}), False, r"variants \['apple', 'plum'\]"),
        (experiment(measures={"AP": ""}), False, "measures"),
        (experiment(), True, "expected reduced True, but it has False"),
    ],
)
def test_another_experiments_file_is_left_alone(file, other, reduced, message):
    run_experiment(experiment(), file, seeds=1)
    before = file.read_bytes()
    with pytest.raises(ResultError, match=message) as error:
        run_experiment(other, file, seeds=1, reduced=reduced)
    assert str(file) in str(error.value)
    assert file.read_bytes() == before


def test_another_version_does_not_add_to_a_result(file, monkeypatch):
    run_experiment(experiment(), file, seeds=1)
    monkeypatch.setattr("minivis.__version__", "99")
    with pytest.raises(ResultError, match="expected minivis '99', but it has '"):
        run_experiment(experiment(), file, seeds=2)


def test_descriptions_may_be_worded_anew(file):
    run_experiment(experiment(), file, seeds=1)
    reworded = experiment(variants={"apple": "a red one", "pear": "a green one"})
    assert run_experiment(reworded, file, seeds=2).variants["pear"] == "a green one"


def broken(file, change):
    """The file of a complete result after a change to its content."""
    run_experiment(experiment(), file, seeds=2)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format=7), 'a JSON object with "format": 1'),
        (lambda content: content.pop("claim"), "claim"),
        (lambda content: content.update(colour="red"), "colour"),
        (lambda content: content["runs"][1].pop("seed"), "seed"),
        (lambda content: content["runs"][1].update(variant="plum"), "'plum' with seed 0: expected one of the"),
        (lambda content: content["runs"][2]["measures"].pop("AP"), "'apple' with seed 1: expected a number for AP"),
        (lambda content: content["runs"][2]["measures"].update(loss=None), "expected a number for loss"),
        (lambda content: content["runs"].append(content["runs"][0]), "there twice"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named(file, change, message):
    with pytest.raises(ResultError, match=message) as error:
        read_result(broken(file, change))
    assert str(file) in str(error.value)


def test_a_file_that_is_not_json_is_named(tmp_path):
    file = tmp_path / "D0.json"
    file.write_text('{"format": 1,')
    with pytest.raises(ResultError, match=r"D0\.json is not JSON"):
        read_result(file)


@pytest.fixture
def shipping(tmp_path, monkeypatch):
    """A folder of shipped files of a test's own; gives the file of D0's result there."""
    for module in ("minivis.shipped_files", "minivis.experiments.results"):
        monkeypatch.setattr(f"{module}.shipped_folder", lambda: tmp_path)
    return tmp_path / "experiments" / "D0.json"


def test_shipped_results_are_complete_or_refused(shipping):
    with pytest.raises(FileNotFoundError, match=r"'D0' in .*D0\.json; there are results of no experiment"):
        load_result("D0")
    result = run_experiment(experiment(), shipping, seeds=2)
    assert load_result("D0") == result
    with pytest.raises(FileNotFoundError, match=r"D00\.json; there are results of D0 \(did you mean D0\?\)"):
        load_result("D00")
    shipping.with_name("D1.json").write_bytes(shipping.read_bytes())
    with pytest.raises(ResultError, match=r"D1\.json: expected full runs of experiment D1, got 4 runs of D0"):
        load_result("D1")
    broken(shipping, lambda content: content["runs"].pop())
    with pytest.raises(
        ResultError, match=r"D0\.json: expected every variant with every seed, but 'pear' lacks seed 1"
    ):
        load_result("D0")
    shipping.unlink()
    run_experiment(experiment(), shipping, seeds=2, reduced=True)
    with pytest.raises(ResultError, match="expected full runs of experiment D0, got 4 reduced runs of D0"):
        load_result("D0")


def test_the_plot_has_a_point_for_every_seed_and_a_bar_for_every_mean(file):
    result = run_experiment(experiment(), file, seeds=3)
    (axes,) = plot_result(result, "AP").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["apple", "pear"]
    assert [patch.get_width() for patch in axes.patches] == pytest.approx([5.1, 4.1])
    points = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    assert points == [[5.0, 5.1, 5.2], [4.0, 4.1, 4.2]]
    assert axes.get_xlabel() == "average pear"


@pytest.mark.parametrize("seeds", [3, 6, 20])
def test_all_points_of_a_variant_lie_on_its_bar(file, seeds):
    (axes,) = plot_result(run_experiment(experiment(), file, seeds=seeds), "AP").axes
    for patch, line in zip(axes.patches, axes.lines):
        rows = line.get_ydata()
        assert len(set(rows)) == seeds
        assert patch.get_y() < min(rows) and max(rows) < patch.get_y() + patch.get_height()


SHIPPED = sorted(path.stem for path in (shipped_folder() / "experiments").glob("*.json"))


@pytest.mark.parametrize("id", SHIPPED)
def test_what_ships_is_a_whole_experiment_of_at_least_three_seeds(id):
    result, known = load_result(id), experiments.EXPERIMENTS[id]
    assert len(result.seeds) >= 3
    assert list(result.variants) == list(known.variants)
    assert list(result.measures) == list(known.measures)
    assert dataclasses.asdict(result).keys() == result.to_dict().keys() - {"format"}
