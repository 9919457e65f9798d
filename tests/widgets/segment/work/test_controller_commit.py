"""C while the answer is still awaited, and then another plane or another view."""

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_simmat.widgets.segment.work.controller import MISSED_COMMIT
from tests.widgets.gate import Gate, click_without_waiting
from tests.widgets.scenes import CENTERS, discs, iou


@pytest.fixture
def stack(window):
    """The window on the middle one of three planes with two discs; a disc of the last is open."""
    image, _ = discs()
    planes = np.stack([np.roll(image, 3 * shift, axis=1) for shift in range(3)])
    window.open((255 * planes).astype(np.uint8), name="stack")
    window.show_plane(2)
    y, x = CENTERS[1]
    window.click(y, x + 6)
    window.show_plane(1)
    return window


def click_and_commit(window: Any) -> Gate:
    """A click and C, while the worker is held before its answer."""
    gate = Gate(window, CENTERS[0][0], CENTERS[0][1] + 3)
    window.tap(Qt.Key.Key_C)
    return gate


def test_commit_awaited_writes_the_plane_of_the_key(stack):
    truth = discs()[1]
    gate = click_and_commit(stack)
    assert stack.status.text.endswith(", then commits"), "a commit that waits is seen"
    stack.viewer.dims.set_current_step(0, 2)  # where an object is open
    stack.qtbot.wait(50)
    gate.release()
    labels = stack.objects
    assert set(np.unique(labels)) == {0, 1}
    assert not labels[[0, 2]].any(), "what is open on the plane that is shown stays open"
    assert iou(labels[1] == 1, np.roll(truth == 1, 3, axis=1)) > 0.8
    shown = stack.mask
    assert iou(shown[2], np.roll(truth == 2, 6, axis=1)) > 0.8
    assert not shown[:2].any()
    stack.commit()
    assert iou(stack.objects[2] == 2, np.roll(truth == 2, 6, axis=1)) > 0.8


def test_click_on_another_plane_waits_for_the_commit(stack):
    truth, (y, x) = discs()[1], CENTERS[0]
    gate = click_and_commit(stack)
    stack.viewer.dims.set_current_step(0, 0)
    click_without_waiting(stack, y, x)
    gate.release()
    labels = stack.objects
    assert not labels[[0, 2]].any()
    assert iou(labels[1] == 1, np.roll(truth == 1, 3, axis=1)) > 0.8
    shown = stack.mask
    assert iou(shown[0], truth == 1) > 0.8


def test_click_after_an_awaited_commit_is_a_new_object(stack):
    truth = discs()[1]
    gate = click_and_commit(stack)
    click_without_waiting(stack, *CENTERS[1])
    gate.release()
    labels = stack.objects
    assert set(np.unique(labels)) == {0, 1}
    assert iou(labels[1] == 1, np.roll(truth == 1, 3, axis=1)) > 0.8
    assert iou(stack.mask[1], np.roll(truth == 2, 3, axis=1)) > 0.8
    stack.commit()
    assert iou(stack.objects[1] == 2, np.roll(truth == 2, 3, axis=1)) > 0.8
    stack.undo(2)
    assert not stack.objects.any()
    points, plane = stack.workspace.session.prompts, (1,)
    assert len(points.on(plane).points) == 2
    assert len(set(points.on(plane).groups)) == 2, "two objects again"


def test_line_after_an_awaited_commit_is_a_new_object(stack):
    truth, (y, x) = discs()[1], CENTERS[1]
    gate = click_and_commit(stack)
    ring = [(y + 34 * np.sin(at), x + 3 + 34 * np.cos(at)) for at in np.linspace(0, 2 * np.pi, 40)]
    stack.take(stack.tab.buttons.tools["pen"])
    stack.begin_stroke(ring)
    stack.release_mouse(*ring[-1])
    gate.release()
    assert set(np.unique(stack.objects)) == {0, 1}
    assert iou(stack.objects[1] == 1, np.roll(truth == 1, 3, axis=1)) > 0.8
    assert iou(stack.mask[1], np.roll(truth == 2, 3, axis=1)) > 0.7


def test_second_commit_while_one_waits_follows_it(stack):
    truth = discs()[1]
    gate = click_and_commit(stack)
    for number in (1, 2):
        click_without_waiting(stack, *CENTERS[number])
        stack.tap(Qt.Key.Key_C)
        stack.tap(Qt.Key.Key_C)  # once more changes nothing
    click_without_waiting(stack, *CENTERS[3])
    gate.release()
    labels = stack.objects[1]
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    for number in (1, 2, 3):  # in their order
        assert iou(labels == number, np.roll(truth == number, 3, axis=1)) > 0.7
    assert iou(stack.mask[1], np.roll(truth == 4, 3, axis=1)) > 0.7, "this one stays open"
    stack.undo()
    assert set(np.unique(stack.objects)) == {0, 1, 2}, "each commit is a step"


def test_second_commit_on_another_plane_follows_the_first(stack):
    gate = click_and_commit(stack)
    stack.viewer.dims.set_current_step(0, 2)
    click_without_waiting(stack, *CENTERS[1])
    stack.tap(Qt.Key.Key_C)
    gate.release()
    assert [set(np.unique(plane)) for plane in stack.objects] == [{0}, {0, 1}, {0, 2}]
    assert not stack.workspace.session.prompt_state


def test_undo_of_a_click_leaves_the_awaited_commit(stack):
    gate = click_and_commit(stack)
    click_without_waiting(stack, *CENTERS[1])
    stack.tap(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    gate.release()
    assert iou(stack.objects[1] == 1, np.roll(discs()[1] == 1, 3, axis=1)) > 0.8
    assert not stack.workspace.session.prompt_state.on((1,))


def test_commit_before_a_turn_of_the_view_is_named(stack):
    gate = click_and_commit(stack)
    stack.viewer.dims.order = (1, 0, 2)
    stack.qtbot.wait(50)
    gate.release()
    assert stack.status.text.startswith(MISSED_COMMIT)
    assert "SimMAT objects" not in stack.viewer.layers
    stack.viewer.dims.order = (0, 1, 2)
    stack.show_plane(1)
    assert MISSED_COMMIT not in stack.status.text, "it is said once"
    stack.commit()
    assert iou(stack.objects[1] == 1, np.roll(discs()[1] == 1, 3, axis=1)) > 0.8
