"""The simulated user: actions that can be counted by hand."""

import numpy as np
import pytest

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.datasets.labeled_image import LabeledImage
from simmat_research import finishing
from simmat_research.finishing import (
    HEAD,
    MAX_CLICKS,
    STROKES,
    TAUGHT,
    WAYS,
    Finished,
    Offer,
    Setting,
    SimulatedUser,
    finish_folder,
    finish_image,
    table,
)
from simmat_research.strokes import OUTLINE_UNSTEADINESS
from simmat_research.user_time import (
    AT_EASE,
    BOX,
    EFFECTIVE_WIDTH,
    LINE,
    LOOK,
    PER_PIXEL,
    PRESS,
    REACTION,
)
from tests.scripted_predictor import Scripted


def squares(count=3):
    """Labels (40, 20 * count): a square of 10 x 10 in each part."""
    labels = np.zeros((40, 20 * count), np.int32)
    for number in range(count):
        labels[15:25, 20 * number + 5 : 20 * number + 15] = number + 1
    return labels


def grown(mask, columns):
    """A square with more columns on its right: of 10, IoU 10 / (10 + columns)."""
    return mask | np.roll(mask, columns, axis=1)


def setting(labels):
    """Of an image that nobody looks at."""
    return Setting(
        None, LabeledImage("squares", np.zeros(labels.shape), labels), SimulatedUser(labels)
    )


def proposing(monkeypatch, labels, answers, **more):
    """A way that proposes `labels` after a button, or none; a predictor then gives `answers`."""
    blank = [np.zeros(labels.shape, bool)]

    def way(setting):
        setting.user.time.press(int(labels.any()))
        return Offer(labels, Scripted(*(answers or blank)), **more)

    monkeypatch.setitem(WAYS, "scripted", way)


def test_clicks_are_counted_until_an_object_is_done(monkeypatch):
    labels = squares(2)
    first, second = labels == 1, labels == 2
    answers = [grown(first, 8), grown(first, 3), second]  # IoU 10/18, 10/13, 1
    proposing(monkeypatch, np.zeros_like(labels), answers)
    done = finish_image("scripted", setting(labels))
    assert (done.objects, done.actions, done.left, done.wrong) == (2, 3, 0, 0)
    assert done.seconds == pytest.approx(3 * PRESS)


def discs(radius, count=2):
    """Labels of discs in a row."""
    y, x = np.indices((4 * radius, 4 * radius * count))
    labels = np.zeros(y.shape, np.int32)
    for number in range(count):
        center = 2 * radius, 4 * radius * number + 2 * radius
        labels[(y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2] = number + 1
    return labels


def test_discs_take_a_line_each_by_hand():
    labels = discs(radius=40)
    done = finish_image("by hand", setting(labels))
    circle = 2 * np.pi * 40
    assert (done.actions, done.left, done.waited, done.wrong) == (2, 0, 0, 0)
    assert done.seconds == pytest.approx(2 * (LINE + circle * PER_PIXEL), rel=0.06)
    assert done.drawn == pytest.approx(1)


def test_small_discs_take_longer_by_the_steering_law():
    seconds = {}
    for radius in (5, 10, 40):
        steady = finish_image("by hand", setting(discs(radius)))
        seconds[radius] = finish_image("by hand, steering", setting(discs(radius))).seconds
        width = EFFECTIVE_WIDTH * OUTLINE_UNSTEADINESS * radius
        slower = max(1, AT_EASE / width)
        expected = 2 * LINE + (steady.seconds - 2 * LINE) * slower
        assert seconds[radius] == pytest.approx(expected, rel=0.15), "half widths are of pixels"
        assert (slower > 1) == (radius < 24)
    assert seconds[5] == pytest.approx(seconds[10], rel=0.1), "length and width grow alike"


def test_hand_that_is_too_unsteady_outlines_nothing_right():
    labels = discs(radius=10)
    task = setting(labels)
    task.user.hand = 8.0
    assert finish_image("by hand", task).left == 2


def test_answers_are_waited_for_beyond_the_reaction(monkeypatch):
    labels = squares(2)
    answers = [labels == 1, labels == 2]
    proposing(monkeypatch, np.zeros_like(labels), answers)
    ticks = iter([0.0, 0.1, 10.0, 10.0 + REACTION + 1.5])
    monkeypatch.setattr("simmat_research.user_time.monotonic", lambda: next(ticks))
    done = finish_image("scripted", setting(labels))
    assert done.waited == pytest.approx(1.5)
    assert done.seconds == pytest.approx(2 * PRESS + 1.5)


def test_prompts_are_placed_by_an_unsteady_hand(monkeypatch):
    labels = squares(2)

    def asked(by, hand):
        predictor = Scripted(labels == 1, labels == 2)
        offer = Offer(np.zeros_like(labels), predictor, by=by)
        monkeypatch.setitem(WAYS, "scripted", lambda _: offer)
        task = setting(labels)
        task.user.hand = hand
        finish_image("scripted", task)
        return predictor.asked

    for by in ("clicks", "boxes"):
        steady, once, again = asked(by, 0.0), asked(by, 1.0), asked(by, 1.0)
        assert once == again != steady
    middles = [prompt.points[0] for prompt in asked("clicks", 0.0)]
    assert middles == [truth.middle for truth in SimulatedUser(labels).objects.values()]


@pytest.mark.parametrize(("radius", "outlined"), [(14, True), (40, False)])
def test_what_is_outlined_sooner_than_boxed_is_outlined(monkeypatch, radius, outlined):
    labels = discs(radius)
    predictor = Scripted(labels == 1, labels == 2)
    offer = Offer(np.zeros_like(labels), predictor, by="pen or box")
    monkeypatch.setitem(WAYS, "scripted", lambda _: offer)
    done = finish_image("scripted", setting(labels))
    assert [prompt.box is None for prompt in predictor.asked] == [outlined] * 2
    line = LINE + 2 * np.pi * radius * PER_PIXEL
    assert done.seconds == pytest.approx(2 * (line if outlined else BOX), rel=0.06)
    assert (line < BOX) == outlined


def test_boxes_that_took_long_give_way_to_outlines(monkeypatch):
    labels = discs(40, count=3)
    first, second, third = (labels == number for number in (1, 2, 3))
    predictor = Scripted(grown(first, 60), first, second, third)
    offer = Offer(np.zeros_like(labels), predictor, by="pen or box")
    monkeypatch.setitem(WAYS, "scripted", lambda _: offer)
    task = setting(labels)
    finish_image("scripted", task)
    outlined = [prompt.box is None for prompt in predictor.asked]
    assert outlined == [False, False, True, True], "the first is a box and its correction"
    [took] = task.user.boxes_took
    line = LINE + 2 * np.pi * 40 * PER_PIXEL
    assert took > 2 * line - BOX, "so that box and lines take longer than an outline in the mean"


def test_object_that_is_never_met_costs_ten_clicks_and_is_left(monkeypatch):
    labels = squares(1)
    bad = grown(labels == 1, 8)
    proposing(monkeypatch, np.zeros_like(labels), [bad] * MAX_CLICKS)
    done = finish_image("scripted", setting(labels))
    assert (done.actions, done.left) == (MAX_CLICKS, 1)


def test_wrong_proposals_are_deleted_and_missing_objects_clicked(monkeypatch):
    labels = squares(3)
    proposals = np.where(labels == 1, 7, 0)  # right
    proposals[15:25, 25:41] = 8  # IoU 10 / 16 with the second: found at .5 only
    proposals[2:6, 2:6] = 9  # nothing
    proposing(monkeypatch, proposals, [labels == 2, labels == 3])
    done = finish_image("scripted", setting(labels))
    assert (done.found_75, done.found_50, done.confirmed, done.remaining) == (1, 2, 1, 3)
    assert done.wrong == 2
    assert done.actions == 1 + 2 + 2, "a button, two deletions, two clicks"
    assert done.seconds == pytest.approx(5 * PRESS + 3 * LOOK), "all proposals are looked at"
    assert done.left == 0


def test_objects_that_were_made_before_are_not_made_again(monkeypatch):
    labels = squares(7)
    task = setting(labels)
    rest = [label for label in range(1, 8) if label not in task.user.taught]
    made = np.where(np.isin(labels, task.user.taught), labels, 0)
    made[made == task.user.taught[0]] = 0  # one of them was given up
    answers = [labels == label for label in rest]
    proposing(monkeypatch, np.zeros_like(labels), answers, made=made)
    done = finish_image("scripted", task)
    assert len(rest) == 7 - TAUGHT
    assert (done.remaining, done.actions, done.left) == (2, 2, 1)


def test_strokes_lie_on_the_ground_alone():
    user = SimulatedUser(squares(3))
    strokes = user.strokes()
    assert strokes.any()
    assert not (strokes & (user.labels > 0)).any()
    np.testing.assert_array_equal(strokes, SimulatedUser(squares(3)).strokes())
    full = SimulatedUser(np.ones((30, 30), np.int32))
    assert not full.strokes().any()


def test_table_shows_means_over_images():
    one = Finished(10, 31.0, 20, 4, 8, 4, 6, 1, 0, True, 2.0, 4.0)
    other = Finished(5, 6.0, 5, 0, 5, 5, 5, 0, 1, False, 4.0, 8.0)
    lines = table([("forest", one), ("forest", other), ("clicks", other)]).splitlines()
    assert lines[0] == HEAD
    means = "2.15 | 1.50 | 1.70 | 0.75 | 0.88 | 0.05 | 0.10 | 0.00 | 1 of 2 | 3 | 6"
    assert lines[2] == f"| forest | {means} |"
    assert lines[3].startswith("| clicks | 1.20 | 1.00 | 1.00 |")
    assert {line.count("|") for line in lines} == {HEAD.count("|")}


@pytest.mark.parametrize(
    "way", ["clicks", "boxes", "everything", "everything, pen or box", "forest"]
)
def test_drawn_discs_are_finished_in_each_way(way):
    y, x = np.indices((160, 200))
    labels = np.zeros((160, 200), np.int32)
    for number, (row, column) in enumerate(
        ((row, column) for row in (30, 80, 130) for column in (30, 80, 130)), start=1
    ):
        labels[(y - row) ** 2 + (x - column) ** 2 <= 14**2] = number
    shown = 40 + 120 * (labels > 0) + np.random.default_rng(0).normal(0, 3, labels.shape)
    image = LabeledImage("discs", shown.astype(np.uint8), labels)
    done = finish_image(way, Setting(load_model("tiny"), image, SimulatedUser(labels)))
    assert (done.objects, done.left) == (9, 0)
    if way.startswith("everything"):
        assert done.actions < 4
        assert done.found_75 == 9
    elif way == "forest":
        assert done.actions <= TAUGHT + STROKES + 1 + 1
        assert (done.remaining, done.found_75) == (4, 4)
    else:
        assert done.actions == 9
    assert done.waited > 0, "the encoder takes its time"


def drawn_image(seed, count=12):
    """An image (160, 160) of bright discs on noise, with their labels."""
    rng, labels = np.random.default_rng(seed), np.zeros((160, 160), np.int32)
    y, x = np.indices(labels.shape)
    for number in range(count):
        row, column = 22 + 38 * (number // 4), 22 + 38 * (number % 4)
        labels[(y - row) ** 2 + (x - column) ** 2 <= 9**2] = number + 1
    image = 40 + 120 * (labels > 0) + rng.normal(0, 6, labels.shape)
    return LabeledImage(f"discs {seed}", np.clip(image, 0, 255).astype(np.uint8), labels)


def test_drafts_give_way_to_objects_in_their_place(monkeypatch):
    labels = squares(3)
    proposed = np.zeros_like(labels)
    proposed[15:25, 5:15] = 1  # right
    proposed[15:25, 25:30] = 2  # half of the second object, which the user makes
    proposed[0:5, 0:5] = 3  # on nothing
    proposing(monkeypatch, proposed, [labels == 2, labels == 3], drafts=True, by="boxes")
    done = finish_image("scripted", setting(labels))
    assert (done.wrong, done.found_75, done.actions) == (2, 1, 1 + 2 + 1)
    assert done.seconds == pytest.approx(3 * LOOK + 2 * PRESS + 2 * BOX)


def test_one_kind_of_objects_is_finished_with_few_actions():
    model = load_model("tiny")
    first, second = finish_folder(model, [drawn_image(0), drawn_image(1)])
    assert first.objects == 12
    assert first.left == second.left == 0
    assert second.actions <= 12


def test_few_missing_objects_are_boxed_without_teaching(monkeypatch):
    labels = drawn_image(0).labels
    proposed = np.where(labels <= 9, labels, 0)
    everything = Offer(proposed, Scripted(labels == 10))
    monkeypatch.setattr(finishing, "_first_drafts", lambda *_: everything)
    monkeypatch.setattr(Setting, "predictor", lambda *_: None)
    offer = finishing.by_kind(setting(labels))
    assert (offer.labels is proposed, offer.made, offer.by) == (True, None, "boxes")
