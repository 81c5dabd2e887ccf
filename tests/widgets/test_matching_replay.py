"""`MatchingRecorder` and `MatchingReplay`: what is kept of a training, and that keeping it changes nothing."""

import io
import json

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image, ImageColor
from torch import nn

from minivis.detr import DETRConfig, HungarianMatcher, SetCriterion, build_detr
from minivis.widgets.matching_recorder import GREY, NOBODY, ImageHistory
from minivis.widgets.matching_replay import (
    MatchingHistory,
    MatchingRecorder,
    MatchingReplay,
    roomy_ticks,
    tick_order,
)

CLASSES = ("circle", "square")
QUERIES = 4
BOXES = torch.tensor(
    [[0.25, 0.25, 0.3, 0.3], [0.75, 0.25, 0.2, 0.4], [0.5, 0.75, 0.6, 0.2]]
)  # of three objects
CORNER = torch.tensor([0.05, 0.95, 0.1, 0.1])  # where queries are that own nothing
TARGETS = [
    {"labels": torch.tensor([0, 1, 0]), "boxes": BOXES},
    {"labels": torch.tensor([1]), "boxes": BOXES[1:2]},
]
# The owners of the first image's objects at each record, and of the second image's.
SCRIPT = [([0, 1, 2], [0]), ([0, 2, 1], [0]), ([3, 2, 1], [3]), ([3, 2, 1], [3])]
STEPS = (0, 1, 5, 20)


class Scripted(nn.Module):
    """Answers with the true boxes, each from the query that shall own it, and is sure of their classes."""

    def __init__(self, queries: int = QUERIES, classes: int = len(CLASSES)):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Dropout().eval()
        self.owners, self.queries, self.classes = SCRIPT[0], queries, classes

    def forward(self, images):
        assert not self.training and not self.frozen.training and torch.is_inference_mode_enabled()
        logits = torch.zeros(2, self.queries, self.classes + 1)
        boxes = CORNER.expand(2, self.queries, 4).clone()
        for i, owners in enumerate(self.owners):
            for thing, query in enumerate(owners):
                boxes[i, query] = TARGETS[i]["boxes"][thing]
                logits[i, query, TARGETS[i]["labels"][thing]] = 2.0
        return {"pred_logits": logits + self.weight, "pred_boxes": boxes}


def new_recorder(**changed) -> MatchingRecorder:
    pictures = [Image.new("RGB", (60, 40), "navy"), torch.full((3, 40, 60), 90, dtype=torch.uint8)]
    arguments = {
        "images": torch.zeros(2, 3, 40, 60),
        "targets": TARGETS,
        "class_names": CLASSES,
        "pictures": pictures,
    }
    return MatchingRecorder(**{**arguments, **changed})


def record_script(losses: bool = False) -> MatchingRecorder:
    recorder, model = new_recorder(), Scripted()
    for step, owners in zip(STEPS, SCRIPT):
        model.owners = owners
        recorder.record(step, model, 10.0 - step / 4 if losses else None)
    return recorder


@pytest.fixture(scope="module")
def history() -> MatchingHistory:
    return record_script().history


# The record


def test_the_owners_are_those_of_the_matching(history):
    assert history.steps == STEPS
    for i in range(2):
        assert history.images[i].owners.tolist() == [owners[i] for owners in SCRIPT]
    assert history.images[0].names == ("circle", "square", "circle")


def test_changes_of_owner_by_hand(history):
    assert history.images[0].changed.tolist() == [0, 2, 1, 0]  # two swap, one gives up its object, all stay
    assert history.images[1].changed.tolist() == [0, 0, 1, 0]


def test_probability_and_cost_by_hand(history):
    p = np.exp(2) / (np.exp(2) + 2)  # softmax of (2, 0, 0)
    assert history.images[0].probability == pytest.approx(np.full((4, 3), p))
    assert history.images[0].cost == pytest.approx(np.full(4, 3 * (-p + 5 * 0 - 2 * 1)), abs=1e-5)


def test_boxes_are_corners_of_all_queries(history):
    image = history.images[0]
    assert image.boxes.shape == (4, QUERIES, 4)
    assert image.true_boxes[0] == pytest.approx([0.1, 0.1, 0.4, 0.4])
    for boxes, owners in zip(image.boxes, image.owners):
        assert boxes[owners] == pytest.approx(image.true_boxes)
        (idle,) = set(range(QUERIES)) - set(owners.tolist())
        assert boxes[idle] == pytest.approx([0, 0.9, 0.1, 1], abs=1e-6)


def test_the_matchers_own_weights_count():
    """A query that is right about the class but far away wins where boxes cost nothing."""
    logits = torch.tensor([[[0.0, 0, 0], [0, 3, 0]]])
    boxes = torch.stack([BOXES[1], CORNER])[None]
    model = Scripted()
    model.forward = lambda images: {"pred_logits": logits, "pred_boxes": boxes}
    owners = []
    for matcher in (HungarianMatcher(), HungarianMatcher(cost_class=1, cost_bbox=0, cost_giou=0)):
        recorder = MatchingRecorder(
            torch.zeros(1, 3, 40, 60), TARGETS[1:], CLASSES, [Image.new("RGB", (60, 40))], matcher
        )
        recorder.record(0, model)
        owners.append(recorder.history.images[0].owners.tolist())
    assert owners == [[[0]], [[1]]]


def test_losses_are_kept_where_given():
    assert record_script(losses=True).history.losses == (10.0, 9.75, 8.75, 5.0)
    recorder = new_recorder()
    recorder.record(0, Scripted())
    recorder.record(1, Scripted(), torch.tensor(3.5))
    assert recorder.history.losses == (None, 3.5)


def test_objects_that_no_query_is_left_for():
    recorder, model = new_recorder(), Scripted(queries=2)
    for step, owners in enumerate([([0, 1], [0]), ([1, 0], [0])]):
        model.owners = owners
        recorder.record(step, model)
    image = recorder.history.images[0]
    assert image.owners.tolist() == [[0, 1, NOBODY], [1, 0, NOBODY]]
    assert image.probability[:, 2].tolist() == [0, 0] and NOBODY not in image.colours
    assert MatchingReplay(recorder).draw().size


# Recording changes nothing


def test_every_module_keeps_its_mode():
    recorder, model = new_recorder(), Scripted().train()
    model.frozen.eval()
    recorder.record(0, model)
    assert model.training and not model.frozen.training


def test_modes_come_back_after_an_error_too():
    model = Scripted(classes=5)
    with pytest.raises(ValueError, match="classes"):
        new_recorder().record(0, model)
    assert model.training


def small_detr() -> nn.Module:
    torch.manual_seed(0)
    config = DETRConfig(
        num_classes=2, num_queries=QUERIES, aux_loss=False, backbone="small", backbone_norm="group",
        backbone_channels=(8, 16), d_model=16, num_heads=2, encoder_layers=1, decoder_layers=1, dim_feedforward=16,
    )  # fmt: skip
    return build_detr(config)  # with dropout, which draws random numbers in training


def test_a_training_that_is_recorded_goes_as_one_that_is_not():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    criterion = SetCriterion(
        2, HungarianMatcher(), {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}, 0.1, ["labels", "boxes"]
    )

    def train(recorder: MatchingRecorder | None) -> tuple[list[float], torch.Tensor]:
        model, losses = small_detr(), []
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(3):
            loss = criterion.weighted_sum(criterion(model(images), TARGETS))
            loss.backward()
            if recorder:  # with gradients waiting to be used
                recorder.record(step, model, loss)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
        return losses, torch.get_rng_state()

    recorder = new_recorder(images=images)
    (plain, random_state), (recorded, random_state_after) = train(None), train(recorder)
    assert recorded == plain and torch.equal(random_state, random_state_after)
    assert recorder.history.losses == tuple(plain)


# Wrong input


def test_steps_must_rise():
    recorder = new_recorder()
    recorder.record(5, Scripted())
    for step in (5, 3):
        with pytest.raises(ValueError, match=f"step {step} cannot be recorded after step 5"):
            recorder.record(step, Scripted())
    assert recorder.history.steps == (5,)


def test_another_model_is_refused():
    recorder = new_recorder()
    recorder.record(0, Scripted())
    with pytest.raises(ValueError, match="step 1 has 7 queries, but the steps before it have 4"):
        recorder.record(1, Scripted(queries=7))
    with pytest.raises(ValueError, match=r'expected 2 classes and "no object", got 6 logits'):
        recorder.record(1, Scripted(classes=5))


def test_without_steps_there_is_nothing_to_replay():
    with pytest.raises(ValueError, match="no steps are recorded"):
        MatchingReplay(new_recorder())


def test_a_history_by_hand_is_checked(history):
    with pytest.raises(ValueError, match="must rise"):
        MatchingHistory((0, 2, 1, 5), (None,) * 4, history.images)
    with pytest.raises(ValueError, match="expected every image and loss to have 2 steps"):
        MatchingHistory((0, 1), (None, None), history.images)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": torch.zeros(3, 3, 40, 60)}, "as many images as targets and pictures, got 3, 2 and 2"),
        ({"pictures": [Image.new("RGB", (60, 40))]}, "got 2, 2 and 1"),
        ({"class_names": ("circle",)}, r"image 0 has labels \[0, 1, 0\], but there are 1 class names"),
        (
            {
                "targets": [
                    TARGETS[0],
                    {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)},
                ]
            },
            "image 1 has no objects",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        new_recorder(**changed)


@pytest.mark.parametrize(("trait", "value"), [("step_index", 4), ("step_index", -1), ("image", 2)])
def test_what_was_not_recorded_cannot_be_seen(history, trait, value):
    widget = MatchingReplay(history)
    with pytest.raises(traitlets.TraitError, match=f"{trait} is {value}; expected 0 to"):
        setattr(widget, trait, value)
    with pytest.raises(traitlets.TraitError):
        MatchingReplay(history, **{trait: value})


# Colours and ticks


def history_of(owners: list[list[int]]) -> ImageHistory:
    count = len(owners[0])
    return ImageHistory(
        picture=Image.new("RGB", (20, 20)),
        names=("circle",) * count,
        true_boxes=np.tile(np.float32([0.2, 0.2, 0.6, 0.6]), (count, 1)),
        boxes=np.zeros((len(owners), 40, 4), np.float32),
        owners=np.array(owners),
        probability=np.ones((len(owners), count), np.float32),
        cost=np.zeros(len(owners), np.float32),
    )


def test_the_last_owners_have_colours_first():
    image = history_of([[8, 1], [8, 1], [8, 2], [3, 2]])
    assert list(image.colours) == [3, 2, 8, 1]  # 8 owned for three records, 1 for two
    assert len(set(image.colours.values())) == 4


def test_there_are_only_as_many_colours_as_can_be_told_apart():
    image = history_of([[query] for query in range(12)])
    assert len(image.colours) == len(set(image.colours.values())) == 7
    assert next(iter(image.colours)) == 11 and GREY not in image.colours.values()


def test_an_axis_names_both_ends_and_round_steps():
    steps = [0, 1, 2, 10, 20, 37, 100, 110, 999]
    assert tick_order(steps)[:3] == [0, 8, 6]
    assert roomy_ticks(steps, least=2) == [0, 3, 6, 8]
    assert roomy_ticks([7], least=2) == [0]


# The widget, without a browser


def test_what_is_seen_in_words(history):
    widget = MatchingReplay(history, step_index=2)
    assert widget.describe() == (
        "Replay of a training, step 0 to 20 in 4 records, now at step 5. Image 1 of 2: a line joins each object "
        "(1 circle, 2 square, 3 circle) to the box of the one query out of 4 that owns it. Below, time runs to the "
        "right: the owner of each object, how many objects changed owner, and the cost of the matching."
    )
    widget.image = 1
    assert "Image 2 of 2" in repr(widget) and "(1 square)" in repr(widget)


def colours_of(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in picture.convert("RGB").getcolors(picture.width * picture.height)}


def test_the_picture_without_javascript(history):
    widget = MatchingReplay(history, step_index=3)
    picture = widget.draw()
    assert 800 <= picture.width <= 900
    wanted = {ImageColor.getrgb(colour) for colour in history.images[0].colours.values()}
    assert wanted <= colours_of(picture), "every query that owns something has its colour in the timeline"
    assert (0, 0, 128) in colours_of(picture)  # the first image, which is navy
    widget.image = 1
    assert (90, 90, 90) in colours_of(widget.draw())


def test_an_output_has_picture_and_words(history):
    widget = MatchingReplay(history)
    data, metadata = widget._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/png"]["alt"] == widget.describe()
    assert "application/vnd.jupyter.widget-view+json" in data


def test_what_the_browser_is_told(history):
    told = MatchingReplay(history).record
    image = told["images"][0]
    boxes = np.frombuffer(image.pop("boxes"), "<f4").reshape(4, QUERIES, 4)
    assert (boxes == history.images[0].boxes).all()
    told["images"][1].pop("boxes")
    assert json.loads(json.dumps(told)) == told  # all else is plain
    assert image["changed"] == [0, 2, 1, 0] and told["losses"] == [None] * 4 and told["steps"] == list(STEPS)


def test_a_history_can_be_kept(history):
    """By torch's or Python's own means: it is plain arrays and pictures."""
    file = io.BytesIO()
    torch.save(history, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert (again.images[0].owners == history.images[0].owners).all()
    assert MatchingReplay(again).describe() == MatchingReplay(history).describe()
