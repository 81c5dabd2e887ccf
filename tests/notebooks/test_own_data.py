"""The cell of notebook 05 for a reader's own pictures: run by itself on a folder in COCO's format."""

from pathlib import Path

import make_notebooks
import one_cell
import pytest
from scene_folders import write_split

from minivis.training.loop import train
from minivis.training.recipes import get_recipe

[NOTEBOOK] = make_notebooks.NOTEBOOKS.glob("05_*.py")
TINY = "num_queries=5 backbone_channels=8,8,8 d_model=16 num_heads=2 encoder_layers=1 decoder_layers=2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small pictures a split; of "val" one has no objects, and one is wider than the others."""
    folder = tmp_path_factory.mktemp("pictures")

    def widen(pictures: list, truth: dict) -> None:
        pictures[1], truth["images"][1]["width"] = pictures[1].crop((0, 0, 80, 64)), 80

    def widen_and_empty(pictures: list, truth: dict) -> None:
        widen(pictures, truth)
        empty = truth["images"][0]["id"]
        truth["annotations"] = [each for each in truth["annotations"] if each["image_id"] != empty]

    write_split(folder, "train", 6, widen)
    write_split(folder, "val", 6, widen_and_empty)
    return folder


def run_with(monkeypatch: pytest.MonkeyPatch, **values: object) -> list[str]:
    """The cell with other values of its constants. Returns what is said of each picture that it shows."""
    cells, shown = one_cell.code_cells(NOTEBOOK), []
    [number] = [number for number, source in enumerate(cells) if source.count("\nDATA = None")]
    changed = cells[number]
    for name, value in values.items():
        lines = [line for line in changed.splitlines() if line.startswith(f"{name} = ")]
        assert len(lines) == 1, f"the cell does not set {name}"
        changed = changed.replace(lines[0], f"{name} = {value!r}")

    def display(data: dict, **options: object) -> None:
        assert data["image/png"]
        shown.append(data["text/plain"])

    monkeypatch.setattr("minivis.widgets.pictures.display", display)
    one_cell.run_cell(cells, number, changed)
    return shown


def assert_taken_apart(words: str, shown: list[str], layers: int) -> None:
    assert "AP by class" in words and "answers differ" in words
    for layer in range(1, layers + 1):
        assert f"layer {layer}: AP 0." in words and "NMS adds" in words
    assert "AP small 0." in words and "large nan" in words, "all objects are below 96 pixels a side"
    assert "backbone" in words and "decoder" in words and "milliseconds" in words
    assert [text.split(":")[0] for text in shown[1::2]] == [
        "Curves of the run with the lines of a blind guess",
        "Wrong detections by reason, layer after layer",
    ]


def test_without_a_folder_it_says_what_to_do(monkeypatch, capsys):
    assert run_with(monkeypatch) == []
    assert "name a folder" in capsys.readouterr().out


def test_a_run_is_taken_apart(folder, tmp_path, monkeypatch, capsys):
    settings = [f"model.{each}" for each in TINY.split()] + [f"data={folder}", "steps=4", "eval_every=4"]
    settings += ["batch_size=2", "log_every=1", "ema=none", "precision=no"]
    train(get_recipe("detr-mini").with_settings(settings), tmp_path / "run", cpu=True)
    capsys.readouterr()
    shown = run_with(monkeypatch, DATA=str(folder), RUN=str(tmp_path / "run"), PICTURES=5)
    words = capsys.readouterr().out
    assert_taken_apart(words, shown, layers=2)
    assert shown[-1].count(";") == 1, "of each layer the reasons"


@pytest.mark.slow
def test_without_a_run_the_shipped_model_is_trained_first(folder, monkeypatch, capsys):
    shown = run_with(monkeypatch, DATA=str(folder), STEPS=2, PICTURES=3)
    assert_taken_apart(capsys.readouterr().out, shown, layers=3)
