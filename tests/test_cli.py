"""The command line, in this process: what it prints, writes and exits with."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from minivis import cli

TINY_SETTINGS = [
    "batch_size=2", "log_every=1", "eval_images=2", "model.d_model=16", "model.num_heads=2", "model.encoder_layers=1",
    "model.decoder_layers=2", "model.dim_feedforward=16", "model.backbone_channels=8,8,8,16", "model.num_queries=6",
]  # fmt: skip


def minivis(*arguments):
    """Exit code of `minivis ARGUMENTS`."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def settings(*more):
    return [part for setting in (*TINY_SETTINGS, *more) for part in ("--set", setting)]


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A checkpoint: a mini model after two steps on scenes."""
    folder = tmp_path_factory.mktemp("cli") / "mini"
    assert (
        minivis(
            "train", "detr-mini", "--out", folder, "--steps", 2, "--seed", 5, "--cpu", *settings("lr=1e-4")
        )
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One's own data: three pictures in each split, with two categories, and one picture that is missing."""
    root = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split).mkdir()
        images, annotations = [], []
        for number in (1, 2, 3, 4):
            name = f"{number:04d}.png"
            images.append({"id": number, "file_name": name, "width": 60, "height": 40})
            box = [5.0 * number, 4.0, 20.0, 16.0]
            annotation = {"id": number, "image_id": number, "category_id": 3 + 4 * (number % 2), "bbox": box}
            annotations.append(annotation | {"area": 320.0, "iscrowd": 0})
            if number < 4:
                Image.fromarray(noise.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(root / split / name)
        categories = [{"id": 3, "name": "bolt"}, {"id": 7, "name": "nut"}]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (root / split / "annotations.json").write_text(text)
    return root


def test_help_is_quick_and_names_the_commands():
    code = "import sys; from minivis import cli\ntry: cli.main(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("False")
    for command in ("train", "eval", "predict", "experiment", "recipes"):
        assert command in done.stdout


def test_recipes_says_what_each_takes(capsys):
    assert minivis("recipes") == 0
    shown = capsys.readouterr().out
    for name in ("detr-mini", "detr-r50-coco", "detr-finetune"):
        assert name in shown
    assert minivis("recipes", "detr-mini") == 0
    shown = capsys.readouterr().out.splitlines()
    assert "name=detr-mini" in shown
    assert "model.d_model=128" in shown
    assert "initial=none" in shown


def test_train_writes_a_run(mini, capsys):
    card = json.loads((mini / "card.json").read_text())
    assert card["seed"] == 5
    assert card["training"]["steps"] == 2
    assert card["recipe"]["lr"] == 1e-4
    assert (
        minivis("train", "detr-mini", "--out", mini, "--steps", 2, "--seed", 5, "--cpu", *settings("lr=1e-4"))
        == 2
    )
    assert "add --resume" in capsys.readouterr().err
    arguments = ["train", "detr-mini", "--out", mini, "--seed", 5, "--cpu", "--resume", *settings("lr=1e-4")]
    assert minivis(*arguments, "--steps", 3) == 2
    assert "steps (there 2, now 3)" in capsys.readouterr().err
    assert minivis(*arguments, "--steps", 2) == 0
    assert f"weights: {mini}" in capsys.readouterr().out


def test_eval_prints_a_table_or_one_json_object(mini, folder, capsys):
    assert minivis("eval", mini, "--split", "novel", "--json", "--cpu", "--batch-size", 100) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert metrics["images"] == 500
    assert 0 <= metrics["AP"] <= 1
    assert metrics["AP_large"] is None
    assert metrics["by_class"].keys() == {"circle", "square", "triangle", "star", "cross", "ring"}

    assert minivis("eval", mini, "--data", folder, "--cpu") == 2
    assert "bolt, nut" in capsys.readouterr().err


def test_finetune_and_eval_on_ones_own_folder(mini, folder, tmp_path, capsys, caplog):
    out = tmp_path / "run"
    few = [
        "--steps",
        2,
        "--set",
        "batch_size=2",
        "--set",
        "shortest_edge=40",
        "--set",
        "longest_edge=60",
        "--cpu",
    ]
    few += ["--set", "num_queries=9"]
    arguments = ["train", "detr-finetune", "--data", folder, "--from", mini, "--out", out, *few]
    assert minivis(*arguments, "--bad-items", "stop") == 2
    assert "0004.png (image 4): there is no such file" in capsys.readouterr().err
    assert minivis(*arguments, "--resume") == 0
    shown = capsys.readouterr()
    assert "AP50" in shown.out
    assert "bolt" in shown.out
    assert "2 bad items skipped:" in caplog.text

    assert minivis("eval", out, "--cpu") == 0, "the card says where the data is"
    assert minivis("eval", out, "--data", folder, "--split", "train", "--json", "--cpu") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1])["images"] == 3
    assert "1 bad item skipped:" in shown.err
    assert minivis("eval", out, "--data", folder, "--split", "train", "--bad-items", "stop", "--cpu") == 2
    assert minivis("eval", out, "--data", folder, "--split", "test", "--cpu") == 2
    assert "no 'test' split" in capsys.readouterr().err

    gone = tmp_path / "gone"
    shutil.copytree(folder, gone)
    for picture in (gone / "val").glob("*.png"):
        picture.unlink()
    assert minivis("eval", out, "--data", gone, "--json", "--cpu") == 2
    shown = capsys.readouterr()
    assert f"none of the 4 images of {gone} could be read" in shown.err and shown.out == ""


def test_finetune_from_nothing(folder, tmp_path):
    arguments = ["--data", folder, "--from", "none", "--out", tmp_path / "run", "--steps", 1, "--cpu"]
    small = ["shortest_edge=40", "longest_edge=60", "eval_every=none"]
    assert minivis("train", "detr-finetune", *arguments, *settings(*small)) == 0
    assert json.loads((tmp_path / "run" / "card.json").read_text())["recipe"]["initial"] is None


def test_predict_writes_pictures_and_cocos_results(mini, folder, tmp_path, capsys):
    pictures = [folder / "val" / "0001.png", folder / "val" / "0003.png"]
    assert minivis("predict", mini, *pictures, "--out", tmp_path, "--threshold", 0, "--cpu") == 0
    shown = capsys.readouterr().out
    assert "0001.png: " in shown
    results = json.loads((tmp_path / "predictions.json").read_text())
    assert {result["image_id"] for result in results} == {1, 3}, "files named by their ids keep them"
    assert len(results) == 2 * 6
    for result in results:
        assert {"image_id", "category_id", "bbox", "score", "file_name"} == result.keys()
        left, top, width, height = result["bbox"]
        assert width > 0 and height > 0
        assert -width / 2 <= left <= 60 - width / 2 and -height / 2 <= top <= 40 - height / 2, (
            "its centre is inside"
        )
    assert Image.open(tmp_path / "0001.png").width >= 60


def test_predict_goes_on_after_a_picture_that_cannot_be_read(mini, folder, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("no picture")
    other = tmp_path / "other" / "0001.png"
    other.parent.mkdir()
    other.write_bytes((folder / "val" / "0001.png").read_bytes())
    paths = ["nowhere.png", tmp_path / "text.jpg", folder / "val" / "0001.png", other]
    assert minivis("predict", mini, *paths, "--out", tmp_path / "out", "--cpu") == 2
    shown = capsys.readouterr().err
    assert "nowhere.png: there is no such file" in shown
    assert "text.jpg: the picture cannot be read" in shown
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "0001-2.png",
        "0001.png",
        "predictions.json",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "detr-maxi"], "minivis: there is no recipe 'detr-maxi'"),
        (["train", "detr-mini", "--set", "lrr=1"], "did you mean 'lr'"),
        (["train", "detr-r50-coco", "--from", "none"], "features explode"),
        (["train", "detr-finetune"], "--data"),
        (["train", "detr-finetune", "--data", "/nowhere", "--from", "none"], "/nowhere does not exist"),
        (
            ["train", "detr-finetune", "--data", "x", "--from", "no-such-folder"],
            "no checkpoint 'no-such-folder'",
        ),
        (["eval", "no-such-folder"], "no checkpoint 'no-such-folder'"),
        (["predict", "no-such-folder", "a.png", "--out", "x"], "no checkpoint 'no-such-folder'"),
        (["experiment", "D2l"], "no experiment 'D2l' (did you mean D2"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert minivis(*arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert len([line for line in shown.err.splitlines() if line.startswith("minivis: ")]) == 1
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_the_environment_can_ask_for_the_traceback(monkeypatch):
    monkeypatch.setenv("MINIVIS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no recipe"):
        minivis("train", "nope")


def test_a_run_that_diverges_says_where_and_exits_with_1(tmp_path, monkeypatch, capsys):
    from minivis.training.detection import DetectionTask

    original, calls = DetectionTask.loss, []

    def spoilt(*arguments):
        loss, values = original(*arguments)
        calls.append(loss)
        return loss * (float("nan") if len(calls) == 2 else 1.0), values

    monkeypatch.setattr(DetectionTask, "loss", spoilt)
    run = ["train", "detr-mini", "--out", tmp_path / "run", "--steps", 3, "--cpu", *settings("save_every=1")]
    assert minivis(*run) == 1
    shown = capsys.readouterr().err
    assert "minivis: step 2: the loss is nan" in shown
    assert "state.pt is from before that" in shown


@pytest.fixture
def pears(monkeypatch):
    """An experiment without training; gives the list of its runs so far."""
    from minivis import experiments

    calls = []

    def run(variant, seed, reduced):
        calls.append((variant, seed, reduced))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {"AP": 0.25 + seed}

    pears = experiments.Experiment(
        id="D0", claim="Apples fall.", question="Do pears?", variants={"pear": "no apple"}, measures={"AP": "pears"},
        estimate="no time", run=run,
    )  # fmt: skip
    monkeypatch.setitem(experiments.EXPERIMENTS, "D0", pears)
    return calls


def test_experiment_lists_what_can_be_run(pears, capsys):
    assert minivis("experiment") == 0
    shown = capsys.readouterr().out
    assert "D0\n    Apples fall.\n    Do pears?\n    no time" in shown
    assert "D21" in shown
    assert pears == []


def test_experiment_keeps_its_numbers_and_goes_on(pears, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "runs" / "experiments" / "D0.json"
    assert minivis("experiment", "D0", "--seeds", 2, "--json") == 0
    shown = capsys.readouterr()
    assert "| pear | 0.75 (0.25–1.25) |" in shown.out
    assert json.loads(shown.out.splitlines()[-1]) == json.loads(file.read_text())
    assert shown.err == "", "no bar but on a terminal"
    assert minivis("experiment", "D0", "--seeds", 4) == 130
    assert "goes on" in capsys.readouterr().err
    assert minivis("experiment", "D0", "--seeds", 4) == 0
    assert pears == [("pear", seed, False) for seed in (0, 1, 2, 3, 3)]

    assert minivis("experiment", "D0", "--quick", "--seeds", 1, "--out", file) == 2
    assert "D0.json: expected reduced True, but it has False" in capsys.readouterr().err
    assert minivis("experiment", "D0", "--quick", "--seeds", 1) == 0
    assert pears[-1] == ("pear", 0, True)
    assert file.with_name("D0-quick.json").exists()


def test_predict_shrinks_what_the_model_has_no_size_for(mini, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minivis.cli.LARGEST_PICTURE", 64)
    Image.new("RGB", (200, 100), "gray").save(tmp_path / "large.png")
    Image.new("RGB", (64, 32), "gray").save(tmp_path / "small.png")
    pictures = [tmp_path / "large.png", tmp_path / "small.png"]
    assert minivis("predict", mini, *pictures, "--out", tmp_path / "found", "--threshold", 0, "--cpu") == 0
    said = capsys.readouterr().err
    assert "large.png is 200 × 100: seen at 64 pixels on its long side" in said and "small.png" not in said
    assert Image.open(tmp_path / "found" / "large.png").width > 200  # what is drawn on is the picture itself
    results = json.loads((tmp_path / "found" / "predictions.json").read_text())
    right = [entry["bbox"][0] + entry["bbox"][2] for entry in results if "large" in entry["file_name"]]
    assert max(right) > 64  # boxes are in its own pixels


def test_predict_draws_over_no_picture(mini, tmp_path):
    pictures = []
    for name in ("pics/a.png", "pics/x.png", "pics/x-2.png", "more/x.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), "white").save(path)
        pictures.append(path)
    before = [path.read_bytes() for path in pictures]
    assert minivis("predict", mini, *pictures, "--out", tmp_path / "pics", "--cpu") == 0
    assert [path.read_bytes() for path in pictures] == before
    drawn = {path.name for path in (tmp_path / "pics").glob("*.png")} - {"a.png", "x.png", "x-2.png"}
    assert drawn == {"a-2.png", "x-3.png", "x-2-2.png", "x-4.png"}


def test_a_folder_called_scenes_is_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert minivis("train", "detr-mini", "--data", "scenes", "--out", "run", "--steps", 1, *settings()) == 2
    assert "scenes does not exist" in capsys.readouterr().err


def test_a_folder_with_nothing_right_in_it_is_an_error(folder, tmp_path, mini, capsys):
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    file = copy / "train" / "annotations.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])
    file.write_text(json.dumps(content))
    arguments = ["--data", copy, "--from", mini, "--out", tmp_path / "run", "--steps", 1, "--cpu"]
    assert minivis("train", "detr-finetune", *arguments) == 2
    assert "no annotation of" in capsys.readouterr().err


def test_a_missing_val_split_says_how_to_do_without(folder, tmp_path, mini, capsys):
    shutil.copytree(folder / "train", tmp_path / "data" / "train")
    arguments = [
        "--data",
        tmp_path / "data",
        "--from",
        mini,
        "--out",
        tmp_path / "run",
        "--steps",
        1,
        "--cpu",
    ]
    assert minivis("train", "detr-finetune", *arguments) == 2
    assert "--set eval_every=none trains without" in capsys.readouterr().err


def test_a_run_folder_that_cannot_be_one(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert minivis("train", "detr-mini", "--out", tmp_path / "file", "--cpu") == 2
    assert "file is a file; a run needs a folder" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text("{")
    assert minivis("train", "detr-mini", "--out", tmp_path / "run", "--resume", "--cpu") == 2
    assert "recipe.json is not JSON" in capsys.readouterr().err


# Panoptic models


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    """A checkpoint with masks, as a training on scenes leaves it, of weights that are not trained."""
    import torch

    from minivis.data import Scenes
    from minivis.detr import PanopticConfig, build_panoptic
    from minivis.pretrained import save_checkpoint

    scenes = Scenes("val", stuff=True)
    torch.manual_seed(0)
    config = PanopticConfig(
        num_classes=10, num_queries=6, backbone="small", backbone_norm="group", backbone_channels=(8, 8, 8, 16),
        d_model=64, num_heads=8, encoder_layers=1, decoder_layers=1, dim_feedforward=16,
    )  # fmt: skip
    card = {"categories": scenes.categories.to_dict(), "image_transform": scenes.image_transform.to_dict()}
    folder = tmp_path_factory.mktemp("cli") / "panoptic"
    return save_checkpoint(build_panoptic(config), folder, card | {"recipe": {"data": "scenes"}})


def test_eval_of_a_panoptic_model_gives_pq_and_ap(panoptic, capsys):
    assert minivis("eval", panoptic, "--split", "novel", "--json", "--cpu", "--batch-size", 100) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert metrics["images"] == 500
    assert metrics["PQ_by_class"].keys() >= {"circle", "ring", "grass", "water"}
    for name in ("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff", "AP", "mask_AP"):
        assert 0 <= metrics[name] <= 1, name


def test_eval_of_a_panoptic_model_on_a_folder(panoptic, tmp_path, capsys):
    """Scenes, written in COCO's panoptic format."""
    from minivis.data import Scenes
    from minivis.data.panoptic_json import write_panoptic

    data, scenes = tmp_path / "data" / "val", Scenes("val", size=3, stuff=True)
    batch = scenes.prepare(scenes.collate([scenes[i] for i in range(3)]))
    data.mkdir(parents=True)
    for i in range(3):
        scenes.scene_image(i).save(data / f"{i + 1}.png")
    maps = [(f"{i + 1}.png", i + 1, scenes.truth(target)) for i, target in enumerate(batch.targets)]
    write_panoptic(data, "panoptic", maps, scenes.categories)
    (data / "2.png").unlink()
    assert minivis("eval", panoptic, "--data", tmp_path / "data", "--json", "--cpu") == 0
    shown = capsys.readouterr()
    metrics = json.loads(shown.out.splitlines()[-1])
    assert metrics["images"] == 2 and "1 bad item skipped:" in shown.err and "2.png" in shown.err
    assert 0 <= metrics["PQ"] <= 1
    assert minivis("eval", panoptic, "--data", tmp_path / "data", "--bad-items", "stop", "--cpu") == 2


def test_predict_of_a_panoptic_model_writes_maps_and_masks(panoptic, folder, tmp_path, capsys, monkeypatch):
    from faster_coco_eval.core import mask as coco_mask

    from minivis.data.panoptic_json import ids_of_png

    monkeypatch.setattr("minivis.cli.LARGEST_PICTURE", 64)
    Image.new("RGB", (200, 100), "gray").save(tmp_path / "7.png")
    pictures = [folder / "val" / "0001.png", tmp_path / "7.png"]
    out = tmp_path / "seen"
    assert minivis("predict", panoptic, *pictures, "--out", out, "--threshold", 0, "--cpu") == 0
    told = {
        entry["image_id"]: entry for entry in json.loads((out / "panoptic.json").read_text())["annotations"]
    }
    assert told.keys() == {1, 7}
    for image_id, (width, height) in ((1, (60, 40)), (7, (200, 100))):
        ids = ids_of_png(np.asarray(Image.open(out / "panoptic" / told[image_id]["file_name"])))
        assert ids.shape == (height, width)
        infos = told[image_id]["segments_info"]
        assert {info["id"] for info in infos} == set(np.unique(ids).tolist()) - {0}
        assert all(info["area"] == (ids == info["id"]).sum() for info in infos)
    results = json.loads((out / "predictions.json").read_text())
    for entry in results:
        assert {"image_id", "category_id", "bbox", "score", "segmentation", "file_name"} == entry.keys()
        size = {1: [40, 60], 7: [100, 200]}[entry["image_id"]]
        assert (
            entry["segmentation"]["size"] == size
            and list(coco_mask.decode(entry["segmentation"]).shape) == size
        )
    assert Image.open(out / "0001.png").size == (540, 360) and Image.open(out / "7.png").width >= 400
