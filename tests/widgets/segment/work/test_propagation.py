"""An object followed through a stack in the window: with mouse and keys, on a preview first."""

import threading
import time
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.annotation.propagated import DOUBTFUL
from napari_simmat.engine.tracking.propagation import PropagationProgress
from napari_simmat.progress import Progress
from napari_simmat.widgets.segment.layers.outputs import DOUBTFUL_PLANES
from napari_simmat.widgets.segment.work.controller import COMMITS_THEN, OPEN_THERE
from napari_simmat.widgets.segment.work.object_actions import LEFT_OPEN
from napari_simmat.widgets.segment.work.plane_status import OPEN_ELSEWHERE
from napari_simmat.widgets.segment.work.propagation import KEPT, MARKED_SINCE, PROPAGATING
from tests.nightly import nightly_but
from tests.widgets.gate import Gate, click_without_waiting
from tests.widgets.scenes import iou, nucleus_in_cell

SHAPE = (7, 96, 128)
CENTER = (48, 60)


def ball(shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball on planes 1 to 5 and its mask."""
    z, y, x = np.indices(shape)
    radius = np.array([0, 18, 24, 26, 24, 18, 0])[z]
    mask = np.hypot(y - CENTER[0], x - CENTER[1]) < radius
    image = np.where(mask, 190, 40) + 3 * np.sin(y / 3) * np.cos(x / 4)
    return image.astype(np.uint8), mask


def open_stack(window: Any, image: np.ndarray, **options: Any) -> Any:
    """Show a stack on its middle plane."""
    window.viewer.add_image(image, name="ball", **options)
    window.open_widget()
    window.viewer.reset_view()
    window.show_plane(3)
    return window


@pytest.fixture
def stack(window):
    return open_stack(window, ball()[0], scale=(2, 1, 1))


@pytest.fixture
def two(window):
    """The window with the ball twice, both clicked and propagated."""
    open_stack(window, np.concatenate([ball()[0]] * 2, axis=2))
    window.click(*CENTER)
    window.key(Qt.Key.Key_N)
    window.click(CENTER[0], CENTER[1] + SHAPE[2])
    window.push(window.tab.stack_panel.start)
    return window


def test_propagate_then_commit_makes_one_object_on_its_planes(stack):
    _, mask = ball()
    stack.click(*CENTER)
    stack.key(Qt.Key.Key_S, Qt.KeyboardModifier.ShiftModifier)
    assert "1 object on 5 planes (1 to 5)" in stack.status.text
    assert iou(stack.mask, mask) > 0.85
    assert "SimMAT objects" not in stack.viewer.layers, "a preview first"
    encodes = stack.controller.inference.service.encodes
    stack.commit()
    assert iou(stack.objects == 1, mask) > 0.85
    assert not stack.mask.any()
    assert not stack.workspace.session.prompt_state
    assert stack.controller.inference.service.encodes == encodes
    stack.undo()
    assert not stack.objects.any(), "one step takes all planes back"
    assert len(stack.workspace.session.prompts.points) == 1
    stack.redo()
    assert iou(stack.objects == 1, mask) > 0.85


def test_propagate_starts_from_the_mask_chosen_with_q(window):
    open_stack(window, np.stack([nucleus_in_cell()] * 5))
    window.click(100, 90)
    usual = window.mask[3].copy()
    window.key(Qt.Key.Key_Q)
    chosen = window.mask[3].copy()
    assert iou(usual, chosen) < 0.9
    window.push(window.tab.stack_panel.start)
    assert np.array_equal(window.mask[3], chosen)
    assert iou(window.mask[2], chosen) > 0.5
    window.key(Qt.Key.Key_Q)
    window.commit()
    assert not np.array_equal(window.objects[3] == 1, chosen), "the other is propagated first"


def test_commit_while_propagating_waits_for_all_planes(stack):
    stack.click(*CENTER)
    stack.tab.act("propagate")
    stack.tap(Qt.Key.Key_C)
    assert stack.status.text == COMMITS_THEN
    stack.idle()
    assert iou(stack.objects == 1, ball()[1]) > 0.85
    assert not stack.workspace.session.prompt_state


def test_doubtful_planes_are_marked_and_their_bar_leads_there(window):
    contrast = np.array([0, 0.42, 1, 1, 1, 0.42, 0])[:, None, None]
    image = 40 + 150 * contrast * ball()[1] + 3 * np.sin(np.indices(SHAPE)[1] / 3)
    open_stack(window, image.astype(np.uint8), scale=(2, 1, 1))
    bars = window.tab.stack_panel.bars
    assert bars.isVisible(), "the section is open for a stack"
    assert not bars.bars
    window.click(*CENTER)
    window.key(Qt.Key.Key_S, Qt.KeyboardModifier.ShiftModifier)
    assert [bar.plane for bar in bars.bars] == [(1,), (2,), (3,), (4,), (5,)]
    assert [bar.plane for bar in bars.bars if bar.doubtful] == [(1,), (5,)]
    assert DOUBTFUL.format("planes 1, 5") in window.status.text
    assert bars.bars[2].certainty == 1, "the user annotated it"
    at = bars.area(4).center().toPoint()
    QTest.mouseClick(bars, Qt.MouseButton.LeftButton, pos=at)
    window.idle()
    assert window.viewer.dims.current_step[0] == 5
    window.commit()
    assert window.viewer.layers["SimMAT objects"].metadata[DOUBTFUL_PLANES] == {1: [(1,), (5,)]}
    assert not bars.bars, "it is written"
    window.close_widget()
    window.viewer.layers.clear()
    open_stack(window, image.astype(np.uint8), scale=(2, 1, 1))
    window.push(window.tab.status.offer)
    assert window.viewer.layers["SimMAT objects"].metadata[DOUBTFUL_PLANES] == {1: [(1,), (5,)]}


@pytest.mark.slow
def test_prompts_on_another_plane_are_named_until_propagated(stack):
    stack.click(*CENTER)
    stack.show_plane(1)
    assert stack.status.text.endswith(OPEN_ELSEWHERE.format(planes="plane 3", key="Shift+S"))
    stack.commit()
    assert stack.status.text == OPEN_THERE.format(planes="plane 3")
    stack.click(*CENTER)
    assert stack.status.text.endswith(OPEN_ELSEWHERE.format(planes="plane 3", key="Shift+S"))
    stack.commit()
    assert stack.status.text.endswith(LEFT_OPEN.format(planes="plane 3", key="Shift+S"))
    stack.undo()
    stack.key(Qt.Key.Key_S, Qt.KeyboardModifier.ShiftModifier)
    stack.commit()
    assert set(np.unique(stack.objects)) == {0, 1}
    assert stack.status.text.endswith("Next object.")


def test_propagate_ends_at_negative_points_and_at_its_range(stack):
    panel = stack.tab.stack_panel
    stack.click(*CENTER)
    panel.direction.setCurrentIndex(1)  # to later planes
    stack.push(panel.start)
    assert set(np.flatnonzero(stack.mask.any((1, 2)))) == {3, 4, 5}
    panel.direction.setCurrentIndex(0)
    panel.first.setValue(2)
    stack.push(panel.start)
    assert set(np.flatnonzero(stack.mask.any((1, 2)))) == {2, 3, 4, 5}
    stack.show_plane(5)
    stack.workspace.prompt_layers.flip()
    stack.click(*CENTER)
    stack.push(panel.start)
    assert set(np.flatnonzero(stack.mask.any((1, 2)))) == {2, 3, 4}
    stack.push(stack.tab.buttons.clear)
    assert not stack.mask[[2, 4]].any()
    assert stack.controller.propagation.result is None


@pytest.mark.slow
def test_a_correction_predicts_only_what_depends_on_it(stack):
    panel = stack.tab.stack_panel
    stack.click(*CENTER)
    stack.push(panel.start)
    before = stack.mask.copy()
    stack.show_plane(5)
    stack.click(CENTER[0], CENTER[1] - 10)
    stack.push(panel.start)
    propagator = stack.controller.inference.service._propagator[1]
    assert propagator.predictor.stack is stack.controller.inference.service.predictor.stack
    assert np.array_equal(stack.mask[1:4], before[1:4])
    stack.push(stack.tab.buttons.commit)
    assert set(np.flatnonzero((stack.objects == 1).any((1, 2)))) == {1, 2, 3, 4, 5}
    made = stack.workspace.session.editor.register.entry(1).provenance
    assert [each.plane for each in made] == [(3,), (5,)], "it opens again with its prompts"


def test_a_click_preempts_propagation_and_cancel_stops_it(stack):
    worker, propagation = stack.controller.inference.worker, stack.tab.controller.propagation
    stack.click(*CENTER)
    told: list[Any] = []
    worker.returned.connect(lambda task, _: told.append(task.rank))
    stack.tab.act("propagate")
    stack.tab.act("segment")
    stack.idle()
    assert told == [0, 1] or told == [1, 0]
    assert propagation.result is not None
    propagation.drop()
    stack.tab.act("propagate")
    assert not stack.tab.stack_panel.start.isVisible(), "the status line alone cancels"
    stack.tab.status.canceled.emit()  # the ball is followed before a hand is there
    assert propagation.result is None
    assert stack.status.kind == "canceled"


def test_planes_appear_as_they_are_found_and_cancel_keeps_them(stack):
    service = stack.controller.inference.service
    original = service.propagate_job

    def held_after_two_planes(*given: Any) -> Any:
        visited = 0
        for progress in original(*given):
            yield progress
            visited += isinstance(progress, PropagationProgress)
            while visited == 2:
                yield progress
                time.sleep(0.01)

    service.propagate_job = held_after_two_planes
    stack.click(*CENTER)
    stack.tab.act("propagate")
    stack.qtbot.waitUntil(lambda: stack.mask.any((1, 2)).sum() == 3)
    bars = stack.tab.stack_panel.bars
    assert [bar.plane for bar in bars.bars] == [(3,), (4,), (5,)]
    stack.qtbot.waitUntil(stack.tab.status.cancel.isVisible)
    stack.push(stack.tab.status.cancel)
    assert stack.status.text == KEPT.format(planes="3 planes")
    stack.commit()
    found = np.flatnonzero((stack.objects == 1).any((1, 2)))
    assert found.tolist() == [3, 4, 5]
    assert not stack.mask.any()


def test_a_click_while_it_propagates_is_seen_and_told(stack):
    service, clicked = stack.controller.inference.service, threading.Event()
    original = service.propagate_job

    def held_until_clicked(*given: Any) -> Any:
        while not clicked.is_set():
            yield Progress(0, 1)
            time.sleep(0.01)
        return (yield from original(*given))

    service.propagate_job = held_until_clicked
    stack.click(*CENTER)
    before = stack.mask[3].copy()
    stack.tab.act("propagate")
    click_without_waiting(stack, 8, 8)  # in a corner, far from the ball
    stack.qtbot.waitUntil(lambda: not stack.controller.inference.busy)
    clicked.set()
    stack.idle()
    assert stack.controller.propagation.result is not None
    assert stack.controller.propagation.needs_update
    assert stack.status.text.endswith(MARKED_SINCE)
    shown = stack.mask[3].copy()
    assert not np.array_equal(shown, before), "not the mask of one click"
    plane = stack.workspace.plane()
    assert np.array_equal(shown, stack.workspace.session.prediction(plane).masks[0])
    stack.commit()
    assert np.array_equal(stack.objects[3] == 1, shown)


@pytest.mark.slow
def test_propagation_keeps_its_progress_when_a_click_is_answered(stack):
    """It was started while the click was predicted, whose answer took the status line."""
    gate, said = Gate(stack, *CENTER), []
    stack.tab.act("propagate")
    # After the controller, which is connected first.
    stack.controller.inference.predicted.connect(lambda *_: said.append(stack.status))
    gate.release()
    assert [status.kind for status in said] == ["working"]
    assert said[0].text.startswith(PROPAGATING)
    assert stack.controller.propagation.result is not None


@pytest.mark.parametrize("ndisplay", nightly_but((2, 3), 2))
def test_commit_of_a_propagation_leaves_nothing_to_commit(stack, ndisplay):
    commit = stack.tab.buttons.commit
    stack.click(*CENTER)
    stack.key(Qt.Key.Key_S, Qt.KeyboardModifier.ShiftModifier)
    stack.viewer.dims.ndisplay = ndisplay
    stack.idle()
    assert commit.isEnabled()
    stack.push(commit)
    assert iou(stack.objects == 1, ball()[1]) > 0.85
    assert not stack.controller.can_commit
    assert not commit.isEnabled()


def test_prompts_that_cannot_be_propagated_give_a_message(stack):
    stack.tab.act("propagate")
    assert "click on an object first" in stack.status.text
    stack.workspace.prompt_layers.flip()
    stack.click(*CENTER)
    stack.tab.act("propagate")
    stack.idle()
    assert "negative points alone" in stack.status.text


def test_a_click_on_a_propagated_plane_corrects_its_mask(stack):
    stack.click(*CENTER)
    stack.push(stack.tab.stack_panel.start)
    before = stack.mask.copy()
    stack.show_plane(5)
    stack.workspace.prompt_layers.flip()
    at = CENTER[0], CENTER[1] + 13  # near the right edge of what was found there, 18 wide
    stack.click(*at)
    now = stack.mask
    assert not now[5][at], "the preview shows the correction before anything is followed again"
    changed = np.count_nonzero(now[5] ^ before[5])
    assert 0 < changed < 0.5 * np.count_nonzero(before[5]), "what was found is what is corrected"
    assert np.array_equal(now[:5], before[:5])
    corrected = now[5].copy()
    stack.commit()
    assert np.array_equal(stack.objects[5] == 1, corrected), "followed again, then committed"
    assert np.array_equal(stack.objects[1:4] == 1, before[1:4])
    stack.key(Qt.Key.Key_E)  # pointed at with the mouse that clicked
    stack.key_over(*CENTER, Qt.Key.Key_E)
    assert np.array_equal(stack.mask[5], corrected), "it opens again with its correction"


def test_undo_of_a_correction_of_the_second_of_two(two):
    assert "2 objects" in two.status.text
    before = two.mask.copy()
    two.show_plane(5)
    two.workspace.prompt_layers.flip()
    two.click(CENTER[0], CENTER[1] + SHAPE[2] + 13)
    assert np.array_equal(two.mask[5][:, : SHAPE[2]], before[5][:, : SHAPE[2]])
    assert not np.array_equal(two.mask[5], before[5])
    two.push(two.tab.stack_panel.start)
    assert np.array_equal(two.mask[..., : SHAPE[2]], before[..., : SHAPE[2]])
    assert not np.array_equal(two.mask[5], before[5])
    two.undo()
    two.push(two.tab.stack_panel.start)
    assert np.array_equal(two.mask, before)
    two.commit()
    assert iou(two.objects[..., : SHAPE[2]] == 1, ball()[1]) > 0.85
    assert iou(two.objects[..., SHAPE[2] :] == 2, ball()[1]) > 0.85


def flip_and_click(stack) -> None:
    stack.workspace.prompt_layers.flip()
    stack.click(CENTER[0], CENTER[1] + 13)


def correct(stack) -> None:
    stack.show_plane(5)
    flip_and_click(stack)


def correct_and_follow(stack) -> None:
    correct(stack)
    stack.push(stack.tab.stack_panel.start)


UNDONE = {
    "undo of a correction": (correct, lambda stack: stack.undo()),
    "another plane and back": (
        correct,
        lambda stack: stack.undo(),
        lambda stack: stack.show_plane(2),
        lambda stack: stack.show_plane(5),
    ),
    "redo and undo": (
        correct,
        lambda stack: stack.undo(),
        lambda stack: stack.redo(),
        lambda stack: stack.undo(),
    ),
    "a correction on another plane": (
        correct,
        lambda stack: stack.undo(),
        lambda stack: stack.show_plane(2),
        flip_and_click,
        lambda stack: stack.undo(),
    ),
}


@pytest.mark.parametrize("steps", nightly_but(UNDONE, "undo of a correction", "redo and undo"))
def test_what_was_propagated_is_shown_again_and_written(stack, steps):
    stack.click(*CENTER)
    stack.push(stack.tab.stack_panel.start)
    found = stack.mask.copy()
    for step in UNDONE[steps]:
        step(stack)
        stack.idle()
    assert np.array_equal(stack.mask, found)
    stack.commit()
    assert np.array_equal(stack.objects > 0, found > 0)


def test_undo_of_a_followed_correction_hides_it(stack):
    stack.click(*CENTER)
    stack.push(stack.tab.stack_panel.start)
    found = stack.mask.copy()
    correct_and_follow(stack)
    corrected = stack.mask.copy()
    stack.undo()
    stack.idle()
    assert not np.array_equal(stack.mask[5], corrected[5])
    stack.commit()
    assert np.array_equal(stack.objects > 0, found > 0), "followed again without it"


def test_nothing_propagated_is_shown_without_its_prompts(stack):
    stack.click(*CENTER)
    stack.push(stack.tab.stack_panel.start)
    stack.undo()
    stack.idle()
    assert not stack.mask.any()
    stack.commit()
    assert "SimMAT objects" not in stack.viewer.layers


@pytest.mark.parametrize(
    "what", nightly_but(("ball", "SimMAT points", "data", "other image"), "data")
)
def test_propagate_survives_layers_that_change(stack, what):
    viewer = stack.viewer
    stack.click(*CENTER)
    stack.tab.encoding_panel.ahead.setChecked(True)
    QTest.mouseClick(stack.tab.stack_panel.start, Qt.MouseButton.LeftButton)
    assert stack.tab.controller.propagation.busy
    if what in viewer.layers:
        viewer.layers.remove(what)
    elif what == "data":
        viewer.layers["ball"].data = ball()[0][:, ::-1].copy()
    else:
        viewer.add_image(np.zeros((3, 40, 50), np.uint8), name="small")
    stack.idle()
    assert not stack.tab.controller.propagation.busy
    if what == "ball":
        assert stack.status.kind == "nothing"
        viewer.add_image(ball()[0], name="ball")
        stack.show_plane(3)
    stack.click(*CENTER)  # the session goes on
    stack.push(stack.tab.stack_panel.start)
    stack.commit()
    assert (stack.objects > 0).any(), stack.status.text


def test_close_while_running_leaves_no_thread_and_can_go_on(stack):
    stack.click(*CENTER)
    stack.tab.encoding_panel.ahead.setChecked(True)
    QTest.mouseClick(stack.tab.stack_panel.start, Qt.MouseButton.LeftButton)
    assert stack.tab.controller.propagation.busy
    stack.close_widget()
    stack.open_widget()
    stack.viewer.layers.selection.active = stack.viewer.layers["ball"]
    stack.idle()
    stack.click(*CENTER)
    stack.push(stack.tab.stack_panel.start)
    assert iou(stack.mask, ball()[1]) > 0.85


@pytest.mark.parametrize("what", nightly_but(("model", "data", "scale"), "data"))
def test_propagation_is_dropped_for_another_model_or_image(stack, what, other_foundation):
    layer, propagation = stack.viewer.layers["ball"], stack.tab.controller.propagation
    stack.click(*CENTER)
    stack.push(stack.tab.stack_panel.start)
    if what == "model":
        stack.tab.models.set_value(other_foundation)
    elif what == "data":
        layer.data = layer.data[:, ::-1].copy()
    else:
        layer.scale = (2, 2, 2)
    stack.idle()
    assert propagation.result is None
    shown = stack.mask.copy()
    assert np.flatnonzero(shown.any((1, 2))).tolist() == [3], "the click is answered anew"
    stack.commit()
    assert np.array_equal(stack.objects == 1, shown), "what is shown is what is written"


@pytest.mark.slow
def test_propagate_stops_for_another_model(stack, other_foundation):
    stack.click(*CENTER)
    QTest.mouseClick(stack.tab.stack_panel.start, Qt.MouseButton.LeftButton)
    assert stack.tab.controller.propagation.busy
    stack.tab.models.set_value(other_foundation)
    assert not stack.tab.controller.propagation.busy
    stack.idle()
    assert stack.controller.propagation.result is None
