"""MatchingExplorer in Python: what it takes, what follows from weights and boxes, words and picture."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image
from scipy.optimize import linear_sum_assignment

from minivis.detr import HungarianMatcher
from minivis.detr.targets import pad_targets
from minivis.widgets import base, matching_picture
from minivis.widgets.matching_explorer import MatchingExplorer

NAMES = ["circle", "square", "star"]
PICTURE = Image.new("RGB", (60, 40), "#888")


def problem(queries=6, objects=3, batch=2, seed=0):
    """Random outputs and targets of a batch of images."""
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "pred_logits": 2 * torch.randn(batch, queries, len(NAMES) + 1, generator=generator),
        "pred_boxes": torch.rand(batch, queries, 4, generator=generator),
    }
    targets = []
    for _ in range(batch):
        size = 0.1 + 0.4 * torch.rand(objects, 2, generator=generator)
        centre = size / 2 + (1 - size) * torch.rand(objects, 2, generator=generator)
        labels = torch.randint(0, len(NAMES), (objects,), generator=generator)
        targets.append({"labels": labels, "boxes": torch.cat([centre, size], dim=1)})
    return outputs, targets


def explorer_of(image=1, weights=(1, 5, 2), **size):
    outputs, targets = problem(**size)
    return MatchingExplorer(PICTURE, outputs, targets[image], NAMES, weights, image=image)


@pytest.mark.parametrize("size", [(6, 3), (2, 4), (5, 1), (3, 0)])
@pytest.mark.parametrize("weights", [(1, 5, 2), (1, 0, 0), (0, 0.5, 10)])
def test_cost_and_matching_are_the_matchers(size, weights):
    outputs, targets = problem(*size)
    matcher = HungarianMatcher(*weights)
    explorer = MatchingExplorer(PICTURE, outputs, targets[1], NAMES, weights, image=1)
    cost = matcher.cost(
        outputs["pred_logits"].log_softmax(-1)[None],
        outputs["pred_boxes"][None],
        pad_targets(targets, 3, torch.device("cpu")),
    )
    assert explorer.cost() == pytest.approx(cost[0, 1].numpy(), abs=1e-5)
    queries, objects = matcher(outputs, targets)[1]
    if weights[1]:  # by classes alone, objects of one class are worth the same
        assert explorer.matching == torch.stack([queries, objects], dim=1).tolist()
    assert explorer.total_cost() == pytest.approx(cost[0, 1][queries, objects].sum().item(), abs=1e-4)


def test_one_image_without_a_batch_is_the_same():
    outputs, targets = problem()
    alone = {name: values[1] for name, values in outputs.items()}
    explorer = MatchingExplorer(PICTURE, alone, targets[1], NAMES)
    assert explorer.own_state() == explorer_of().own_state()


def test_the_matching_follows_weights_boxes_and_method():
    explorer = explorer_of()
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), "matching")
    explorer.boxes = explorer.boxes[::-1]
    assert explorer.matching != explorer_of().matching
    assert explorer.matching == np.stack(linear_sum_assignment(explorer.cost()), axis=1).tolist()
    explorer.weights = [10, 0, 0]
    assert explorer.matching == explorer.solve("optimal", [10, 0, 0])
    explorer.true_boxes = explorer.true_boxes[::-1]
    explorer.method = "greedy"
    assert explorer.matching == explorer.solve("greedy") == seen[-1]


def test_the_toy_is_one_that_greed_gets_wrong():
    toy = MatchingExplorer.toy()
    assert toy.matching == [[0, 0], [1, 1], [2, 2]]
    assert toy.solve("greedy") == [[0, 1], [1, 0], [2, 2]]
    # By hand: −1·p + 5·L1 − 2·GIoU. Query 0 and object A overlap in nothing: GIoU = (0.12 − 0.14) / 0.14.
    assert toy.cost_parts()[:, 0, 0].tolist() == pytest.approx([-0.8, 0.25, 1 / 7], abs=1e-5)
    assert toy.cost()[0, 0] == pytest.approx(-0.8 + 5 * 0.25 + 2 / 7, abs=1e-5)
    assert toy.total_cost(toy.solve("greedy")) - toy.total_cost() > 1


@pytest.mark.parametrize("seed", range(20))
def test_greedy_takes_the_cheapest_pair_left_and_never_costs_less(seed):
    explorer = explorer_of(queries=4 + seed % 4, objects=5, seed=seed)
    cost, pairs = explorer.cost(), []
    while np.isfinite(cost).any():
        query, thing = np.unravel_index(cost.argmin(), cost.shape)
        pairs.append([int(query), int(thing)])
        cost[query], cost[:, thing] = np.inf, np.inf
    assert explorer.solve("greedy") == sorted(pairs)
    assert explorer.total_cost(sorted(pairs)) >= explorer.total_cost() - 1e-9


def test_weights_may_all_be_zero():
    explorer = explorer_of(weights=(0, 0, 0))
    assert len(explorer.matching) == 3 and explorer.total_cost() == 0
    assert "total cost 0.00" in explorer.describe()
    explorer.draw()


# --------------------------------------------------------------------------- words and picture


def test_words():
    assert MatchingExplorer.toy().describe() == (
        "Matching of 3 queries to 3 objects with weights 1, 5, 2 (optimal): "
        "query 0 to A (cat), query 1 to B (cat), query 2 to C (dog); total cost 0.15."
    )
    assert explorer_of(queries=1, objects=0).describe() == (
        "Matching of 1 query to 0 objects with weights 1, 5, 2 (optimal): nothing to match."
    )
    assert explorer_of().describe() == explorer_of().describe() == repr(explorer_of())


def colours_along(picture: np.ndarray, row: int, left: int, right: int) -> set[str]:
    return {"#" + bytes(pixel).hex().upper() for pixel in picture[row, left:right]}


def test_the_picture_has_the_boxes_where_they_are():
    toy = MatchingExplorer.toy()
    picture = np.asarray(toy.draw())
    assert picture.shape[1] <= 900
    left, top, width = matching_picture.PICTURE_LEFT, 20, matching_picture.PICTURE_WIDTH
    for boxes in (toy.boxes, toy.true_boxes):
        for number, (x, y, w, h) in enumerate(boxes):  # each toy query is matched to the object of its number
            row = round(top + (y - h / 2) * width)
            span = round(left + (x - w / 4) * width), round(left + (x + w / 4) * width)
            near = set().union(*(colours_along(picture, row + shift, *span) for shift in (-1, 0, 1)))
            assert matching_picture.COLOURS[number] in near
    assert picture[:, matching_picture.MATRIX_LEFT :].std() > 10, "the matrix is there"


@pytest.mark.parametrize(("queries", "objects"), [(100, 20), (3, 0), (2, 5), (30, 30)])
def test_every_size_can_be_drawn(queries, objects):
    picture = explorer_of(queries=queries, objects=objects).draw()
    assert picture.width >= 900 and picture.height < 1000


def test_what_is_drawn_is_what_the_live_widget_shows():
    """Two sources of the same constants, in two languages."""
    folder = Path(base.__file__).parent
    shared, matrix = (folder / "shared.js").read_text(), (folder / "cost_matrix.js").read_text()
    colours = re.findall(r'"(#\w{6})"', re.search(r"COLOURS = \[(.*?)\]", shared).group(1))
    assert tuple(colours[:7]) == matching_picture.COLOURS
    for name in ("NUMBERED_OBJECTS", "FURTHER_QUERIES"):
        assert f"const {name} = {getattr(matching_picture, name)};" in matrix


def test_without_javascript_there_is_a_picture_with_words():
    toy = MatchingExplorer.toy()
    data, metadata = toy._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain", base.VIEW}
    assert data["text/plain"] == toy.describe() == metadata["image/png"]["alt"]
    assert f'alt="{toy.describe()}"' in toy.page()


def test_letters():
    assert [matching_picture.letter(i) for i in (0, 25, 26, 51, 52, 702)] == [
        "A",
        "Z",
        "AA",
        "AZ",
        "BA",
        "AAA",
    ]


def test_a_large_picture_is_carried_small():
    outputs, targets = problem()
    large = MatchingExplorer(torch.rand(3, 1000, 2000), outputs, targets[0], NAMES)
    assert len(large.picture) < 400_000


# --------------------------------------------------------------------------- what is refused


def test_wrong_input_is_named():
    outputs, targets = problem()

    def refused(match, **changes):
        given = dict(picture=PICTURE, outputs=outputs, target=targets[0], class_names=NAMES) | changes
        with pytest.raises(ValueError, match=match):
            MatchingExplorer(**given)

    refused(r"5 columns \(4 class names and 'no object'\), got 4", class_names=[*NAMES, "ring"])
    refused("image 2: the outputs are of 2 images", image=2)
    refused(r"got \(6, 4\) and \(2, 6, 4\)", outputs=outputs | {"pred_logits": outputs["pred_logits"][0]})
    refused("image 0 are not finite", outputs=outputs | {"pred_boxes": outputs["pred_boxes"] * np.nan})
    refused("outputs: expected 'pred_boxes'", outputs={"pred_logits": outputs["pred_logits"]})
    refused("target: expected 'labels'", target={"boxes": targets[0]["boxes"]})
    refused(r"expected labels \(N,\) of int64", target=targets[0] | {"labels": targets[0]["labels"].float()})
    refused("label 7, expected 0 to 2", target=targets[0] | {"labels": torch.tensor([0, 7, 1])})
    refused("within it", target=targets[0] | {"boxes": targets[0]["boxes"] * 60})
    refused("three weights", weights=(1, 5))
    refused(r"in 0\.\.10", weights=(1, 50, 2))
    refused(r"in 0\.\.10", weights=(1, float("nan"), 2))


@pytest.mark.parametrize("name", ["boxes", "true_boxes"])
@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: [b[0][:3], *b[1:]], lambda b: [[np.inf] * 4, *b[1:]]]
)
def test_boxes_that_do_not_fit_are_refused(name, change):
    explorer = explorer_of()
    before = getattr(explorer, name)
    with pytest.raises(ValueError, match=rf"{name}: expected \d boxes \(cx, cy, w, h\) of finite numbers"):
        setattr(explorer, name, change(before))
    assert getattr(explorer, name) == before


def test_a_true_box_beyond_the_picture_is_refused():
    explorer = explorer_of()
    with pytest.raises(ValueError, match=r"number 1: box .* within it"):
        explorer.true_boxes = [explorer.true_boxes[0], [0.9, 0.5, 0.4, 0.2], explorer.true_boxes[2]]


def test_there_are_two_methods():
    with pytest.raises(traitlets.TraitError, match="greedy"):
        explorer_of().method = "nearest"
