"""What notebooks show of experiments and claims."""

import pytest

from minivis.experiments import CLAIMS, load_result
from minivis.widgets import evidence, show_claims, show_experiment
from minivis.widgets.drawing import Drawing


@pytest.fixture
def outputs(monkeypatch):
    shown = []
    monkeypatch.setattr(evidence, "show", lambda picture, alt: shown.append((picture, alt)))
    monkeypatch.setattr(evidence, "display", lambda data, raw: shown.append(data))
    return shown


def test_an_experiment_is_drawn_with_its_numbers_in_words(outputs):
    show_experiment("D21", "AP50", "detections")
    [(figure, alt)] = outputs
    assert [axes.get_title() for axes in figure.axes] == ["D21: AP50", "D21: detections"]
    result = load_result("D21")
    for variant in result.variants:
        for measure in ("AP50", "detections"):
            assert f"{variant} {result.text(variant, measure)}" in alt


def test_what_was_not_measured_cannot_be_shown(outputs):
    with pytest.raises(ValueError, match="has no measure 'AP99'"):
        show_experiment("D21", "AP99")
    with pytest.raises(ValueError, match="expected a measure of D21: AP, AP50"):
        show_experiment("D21")
    assert not outputs


def test_claims_are_a_table_and_text(outputs):
    show_claims("D15", "D19")
    [data] = outputs
    assert data["text/markdown"] == data["text/plain"]
    assert CLAIMS["D15"].finding in data["text/markdown"] and "| D17 |" not in data["text/markdown"]


def test_every_architecture_can_be_drawn():
    from minivis.widgets import architectures

    for name in architectures.__all__:
        drawing = getattr(architectures, name)
        assert isinstance(drawing, Drawing)
        assert drawing.figure().get_figwidth() > 1 and drawing.title in drawing.alt()
