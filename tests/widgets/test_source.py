"""`show_source`: the package's own code, the same everywhere, and never out of date."""

import re

import pytest
import torch
from torchvision.ops import box_iou

from minivis.detr import HungarianMatcher, SetCriterion
from minivis.widgets.source import PACKAGE, coloured, show_source, source_of


def body_of(shown: str) -> str:
    return shown.split("\n", 1)[1]


def test_a_method_is_shown_as_it_stands_in_its_file():
    path, code = source_of(HungarianMatcher.cost).split("\n", 1)
    assert path == "# minivis/detr/matcher.py"
    assert code.startswith("def cost(")  # although it is indented there
    file = (PACKAGE / "detr/matcher.py").read_text()
    assert all(line.strip() in file for line in code.splitlines())


def test_decorators_and_wrappers_do_not_hide_the_code():
    assert body_of(source_of(HungarianMatcher.match_layers)).startswith("@torch.no_grad()\ndef match_layers(")


def test_a_class_is_shown_whole():
    code = source_of(HungarianMatcher)
    assert "class HungarianMatcher:" in code and "    def cost(" in code and '"""Finds the' in code


def test_without_docstrings_the_same_code_is_left():
    code = body_of(source_of(SetCriterion, docstring=False))
    assert '"""' not in code
    assert "# Every layer has as many pairs as any other" in code  # comments stay
    assert "class SetCriterion(nn.Module):\n    def __init__(" in code  # and no hole is left
    compile(code, "shown", "exec")


def test_lines_between_two_markers():
    shown = source_of(HungarianMatcher.cost, first="distance =", last="cost = self")
    assert shown == (
        "# minivis/detr/matcher.py\n"
        "...\n"
        "distance = torch.cdist(boxes, targets.boxes.expand(layers, -1, -1, -1), p=1)\n"
        "giou = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets.boxes)[None])\n"
        "cost = self.cost_bbox * distance - self.cost_class * of_class - self.cost_giou * giou\n"
        "..."
    )


def test_one_marker_shows_to_the_end_or_from_the_beginning():
    whole = body_of(source_of(HungarianMatcher.cost))
    assert body_of(source_of(HungarianMatcher.cost, first="def cost")) == whole
    assert body_of(source_of(HungarianMatcher.cost, last="return cost")) == whole
    assert body_of(source_of(HungarianMatcher.cost, first="return cost")).startswith("...\nreturn cost")


@pytest.mark.parametrize("markers", [dict(first="no such"), dict(first="giou =", last="distance =")])
def test_a_marker_that_is_not_there_is_named(markers):
    with pytest.raises(
        ValueError, match=r"no line of HungarianMatcher\.cost contains '(no such|distance =)'"
    ):
        source_of(HungarianMatcher.cost, **markers)


@pytest.mark.parametrize("thing", [torch.nn.Linear, box_iou])
def test_only_minivis_is_shown(thing):
    """What others wrote differs from one version of theirs to the next."""
    with pytest.raises(ValueError, match=r"minivis's own code, and torch\S* is not"):
        show_source(thing)


def test_colours_change_no_character():
    code = source_of(HungarianMatcher)
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured(code)) == code
    assert coloured("def f(): # why\n    return 'x'") == (
        "\x1b[1mdef\x1b[0m \x1b[1;38;5;32mf\x1b[0m(): \x1b[38;5;65m# why\x1b[0m\n"
        "    \x1b[1mreturn\x1b[0m \x1b[38;5;132m'x'\x1b[0m"
    )


def test_what_is_printed_does_not_depend_on_the_folder(tmp_path, monkeypatch, capsys):
    show_source(SetCriterion.weighted_sum)
    here = capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    show_source(SetCriterion.weighted_sum)
    assert capsys.readouterr().out == here
