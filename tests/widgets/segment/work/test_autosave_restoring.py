"""What a crash left is offered, and comes back on a word."""

import gc
import os
import random
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.io.files import user_folder
from napari_simmat.widgets.segment.work.autosave import COMMIT_OPEN, OTHER_WINDOW, RESTORED
from tests.widgets.scenes import CENTERS, discs, gray, iou
from tests.widgets.segment.noted import (
    SHIFT,
    crash,
    held,
    kill_at_work,
    logged_labels,
    open_image,
    replayed,
    restore,
    work_on,
)


def crashed(open_window: Callable[[], Any]) -> tuple[Any, Any]:
    """A window in which work was cut off by a crash, and the next one with the same image."""
    first = open_image(open_window(), gray())
    work_on(first)
    crash(first)
    return first, open_image(open_window(), gray())


@pytest.mark.slow
@pytest.mark.parametrize("_kill", range(int(os.environ.get("SIMMAT_KILLS", 1))))
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_autosave_of_a_killed_process_keeps_commits_and_paint(open_window, tmp_path, _kill):
    kill_at_work("tests.widgets.segment.noted", tmp_path, lambda: time.sleep(random.random()))
    labels = np.load(tmp_path / "labels.npy")
    assert set(np.unique(labels)) == {0, 1, 2, 5}
    window = open_image(open_window(), gray())
    assert "was not saved" in window.status.text
    restore(window)
    assert np.array_equal(window.objects, labels)
    while window.workspace.session.history.can_undo:
        window.undo()
    assert not window.objects.any(), "the whole list came back"


@pytest.mark.slow
@pytest.mark.real_window
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_two_processes_with_one_image_keep_their_own_sessions(open_window, tmp_path):
    def work_here():
        window = open_image(open_window(), gray())
        assert window.status.offer == "", "the other process has its session open"
        window.add_object(*CENTERS[1])
        window.close_widget()

    kill_at_work("tests.widgets.segment.noted", tmp_path, work_here)
    kept = {}
    for path in user_folder("sessions").glob("*.jsonl"):
        labels = next(iter(replayed(path).labels.values()))
        kept[int(labels.max())] = labels
    assert np.array_equal(kept.pop(5), np.load(tmp_path / "labels.npy"))
    assert list(kept) == [1], "and what was done here"


def test_recovery_after_a_crash_restores_in_another_viewer(open_window):
    first, second = crashed(open_window)
    assert "was not saved" in second.status.text
    assert "SimMAT objects" not in second.viewer.layers, "nothing unasked"
    third = open_image(open_window(), gray())
    restore(second)
    text = RESTORED.format("2 objects", COMMIT_OPEN)
    assert second.status.text == text, "and what was open is answered"
    assert second.status.text.endswith(COMMIT_OPEN)
    assert np.array_equal(second.objects, first.objects)
    assert set(np.unique(second.objects)) == {0, 1, 2}
    entries = second.workspace.session.editor.register.entries
    assert {label: entry.category for label, entry in entries.items()} == {1: "nucleus", 2: ""}
    assert second.workspace.session.prompts == first.workspace.session.prompts
    preview = [each.viewer.layers["SimMAT preview"].data for each in (first, second)]
    assert np.array_equal(*preview)
    assert preview[0].any()
    for _ in range(20):
        for each in (first, second):
            each.undo()
    assert not second.workspace.session.history.can_undo
    assert not second.objects.any(), "the whole list came back"
    assert not second.workspace.session.prompt_state
    restore(third)
    assert third.status.text == OTHER_WINDOW
    assert "SimMAT objects" not in third.viewer.layers


@pytest.mark.slow
def test_work_after_restoring_is_restored_again(open_window):
    first = open_image(open_window(), gray())
    first.add_object(*CENTERS[0])
    first.close_widget()
    first.viewer.layers.clear()
    for number in (1, 2):  # closed in an orderly way it is offered as well, as long as unsaved
        window = open_image(open_window(), gray())
        restore(window)
        window.add_object(*CENTERS[number])
        assert set(np.unique(window.objects)) == set(range(number + 2))
        window.close_widget()
    assert len(list(user_folder("sessions").glob("*.jsonl"))) == 1


@pytest.mark.slow
def test_recovery_offers_once_the_image_is_shown(open_window):
    first = open_image(open_window(), gray())
    work_on(first)
    crash(first)
    second = open_window()
    second.open(np.zeros((3, 40, 50)), name="stack")
    second.viewer.dims.order = (1, 0, 2)
    second.viewer.add_image(gray(), name="discs")
    second.idle()
    second.choose(second.tab.channels.image, "discs")
    assert "roll the axes" in second.status.text
    second.viewer.dims.order = (0, 1, 2)
    second.idle()
    assert second.status.offer == "Restore"
    second.workspace.accept()
    second.idle()
    assert np.array_equal(second.objects, first.objects)


def test_recovery_offers_until_work_begins(open_window):
    stack = np.stack([gray(), gray()[::-1]])
    first = open_image(open_window(), stack)
    first.add_object(*CENTERS[0])
    crash(first)
    second = open_image(open_window(), stack)
    for plane in (1, 0, 1):  # the last two are encoded already
        second.show_plane(plane)
        assert second.status.offer == "Restore", "another plane is no answer"
        assert second.status.text.count("was not saved") == 1
    second.click(*CENTERS[1])
    second.commit()
    assert second.status.offer != "Restore"
    second.show_plane(0)
    assert second.status.offer != "Restore"


@pytest.mark.slow
def test_recovery_offers_nothing_to_another_image_or_window(open_window):
    first = open_image(open_window(), gray())
    first.click(*CENTERS[0])
    same = open_image(open_window(), gray())
    assert "was not saved" not in same.status.text, "the first window has it open"
    crash(first)
    other = open_image(open_window(), gray() // 2)
    assert "was not saved" not in other.status.text


@pytest.mark.slow
def test_recovery_offers_a_closed_image_in_the_same_window(ready):
    work_on(ready)
    labels = ready.objects.copy()
    gone = weakref.ref(ready.workspace.session)
    ready.viewer.layers.remove("discs")
    ready.viewer.layers.remove("SimMAT objects")
    ready.idle()
    gc.collect()
    assert gone() is None, "nothing holds its labels and masks any more"
    ready.viewer.add_image(gray(), name="discs")
    ready.idle()
    ready.qtbot.waitUntil(lambda: ready.status.offer == "Restore")
    restore(ready)
    assert np.array_equal(ready.objects, labels)
    assert_no_layer_twice(ready)


def test_a_closed_image_goes_on_with_objects_that_are_open(ready):
    work_on(ready)
    layer, labels = ready.workspace.objects, ready.objects.copy()
    prompts = ready.workspace.session.prompts
    ready.viewer.layers.remove("discs")
    ready.idle()
    ready.viewer.add_image(gray(), name="discs")
    ready.idle()
    assert ready.status.offer != "Restore"
    assert ready.workspace.objects is layer
    assert np.array_equal(ready.objects, labels)
    assert ready.workspace.session.prompts == prompts
    assert_no_layer_twice(ready)


def assert_no_layer_twice(window: Any) -> None:
    ours = [each.name for each in window.viewer.layers if each.name.startswith("SimMAT")]
    assert len(ours) == len({name.split(" [")[0] for name in ours})


@pytest.mark.slow
def test_a_tab_opened_again_continues_its_file(ready):
    work_on(ready)
    layer, labels = ready.workspace.objects, ready.objects.copy()
    prompts, steps = ready.workspace.session.prompts, len(ready.workspace.session.history)
    mask = ready.viewer.layers["SimMAT preview"].data.copy()
    names = {each.name for each in ready.viewer.layers}
    ready.close_widget()
    ready.open_widget()
    ready.idle()
    assert ready.tab.objects.currentText() == layer.name
    assert ready.workspace.objects is layer
    assert ready.status.offer != "Restore"
    assert {each.name for each in ready.viewer.layers} == names, "and no layer twice"
    entries = ready.workspace.session.editor.register.entries
    assert {label: entry.category for label, entry in entries.items()} == {1: "nucleus", 2: ""}
    assert ready.workspace.session.prompts == prompts
    assert np.array_equal(ready.viewer.layers["SimMAT preview"].data, mask)
    ready.commit()
    assert np.array_equal(logged_labels(), layer.data)
    ready.undo()
    assert np.array_equal(ready.objects, labels)
    ready.undo(steps)
    assert not ready.workspace.session.history.can_undo
    assert not ready.objects.any()


def test_autosave_logs_edits_made_while_the_tab_was_closed(ready):
    ready.add_object(*CENTERS[0])
    layer = ready.workspace.objects
    ready.close_widget()
    layer.data_setitem((np.arange(9), np.arange(9)), 7)
    painted = layer.data.copy()
    ready.open_widget()
    ready.idle()
    assert ready.workspace.session.editor.labels == [1, 7]
    assert np.array_equal(logged_labels(), painted)
    ready.close_widget()
    ready.viewer.layers.remove(layer)
    ready.open_widget()
    ready.idle()
    ready.undo()
    assert layer in ready.viewer.layers
    assert np.array_equal(layer.data, painted)
    assert ready.workspace.objects is layer


@pytest.mark.slow
def test_recovery_offers_nothing_without_content(open_window):
    first = open_image(open_window(), gray())
    first.click(*CENTERS[0])
    first.key(Qt.Key.Key_C, SHIFT)
    first.undo()
    first.commit()
    first.undo(2)
    first.close_widget()
    assert open_image(open_window(), gray()).status.offer == ""


@pytest.mark.slow
def test_recovery_canceled_is_offered_again(open_window):
    first, second = crashed(open_window)
    gate = threading.Event()
    second.tab.autosave.worker.submit("hold", lambda: held(gate))
    QTest.mouseClick(second.tab.status.offer, Qt.MouseButton.LeftButton)
    second.qtbot.waitUntil(second.tab.status.cancel.isVisible)
    assert second.status.text == "Restoring"
    QTest.mouseClick(second.tab.status.cancel, Qt.MouseButton.LeftButton)
    gate.set()
    second.idle()
    assert second.status.kind == "canceled"
    assert "SimMAT objects" not in second.viewer.layers
    restore(second)
    assert np.array_equal(second.objects, first.objects)


@pytest.mark.slow
def test_recovery_does_not_replace_work_done_meanwhile(open_window):
    _first, second = crashed(open_window)
    gate = threading.Event()
    second.tab.autosave.worker.submit("hold", lambda: held(gate))
    QTest.mouseClick(second.tab.status.offer, Qt.MouseButton.LeftButton)
    second.take(second.tab.buttons.tools["point"])
    second.press(*CENTERS[3])
    second.qtbot.waitUntil(lambda: not second.controller.busy)
    gate.set()
    second.idle()
    second.commit()
    _, truth = discs()
    assert iou(second.objects == 1, truth == 4) > 0.8
    assert set(np.unique(second.objects)) == {0, 1}


def earlier(window: Any) -> list[Any]:
    """The entries of the menu of earlier work, as it opens."""
    window.tab.menu.menu().aboutToShow.emit()
    return [action.menu() for action in window.tab.earlier.actions()]


def leave_objects(window: Any, *numbers: int) -> None:
    """Commit an object at each of these places, and remove image and objects unsaved."""
    open_image(window, gray())
    for number in numbers:
        window.add_object(*CENTERS[number])
    window.viewer.layers.clear()
    window.idle()
    window.close_widget()


def test_all_earlier_work_is_in_reach_until_taken_or_thrown_away(window):
    leave_objects(window, 0)
    leave_objects(window, 1, 2)
    open_image(window, gray())
    assert window.status.offer == "Restore"
    window.add_object(*CENTERS[3])
    ours = window.objects.copy()
    newest, oldest = earlier(window)
    steps = [re.sub("^.* · ", "", each.title()) for each in (newest, oldest)]
    assert steps == ["5 steps", "3 steps"], "a click and a commit each, and the removal"
    restore, _ = oldest.actions()
    window.pick(restore)
    assert window.status.text.startswith("Restored: 1 object")
    assert iou(window.objects > 0, discs()[1] == 1) > 0.8
    assert [layer.name for layer in window.viewer.layers].count("SimMAT objects") == 1
    aside, newest = earlier(window)
    window.pick(aside.actions()[0])
    assert np.array_equal(window.objects, ours), "what was put aside comes back"
    _, second = earlier(window)
    window.pick(second.actions()[1])
    assert "Thrown away" in window.status.text
    assert len(earlier(window)) == 1
    window.pick(earlier(window)[0].actions()[1])
    assert not earlier(window)
    assert not window.tab.earlier.menuAction().isVisible()
    assert len(list(user_folder("sessions").glob("*.jsonl"))) == 1, "that of the open image"


def test_objects_still_open_are_taken_up_with_their_image(window):
    open_image(window, gray())
    window.add_object(*CENTERS[0])
    window.click_row(0)
    window.type_class("cell")
    objects, session = window.workspace.objects, window.workspace.session
    window.viewer.layers.remove("discs")
    window.idle()
    window.viewer.add_image(gray()[::-1].copy(), name="discs")
    window.idle()
    assert window.workspace.objects is None, "another image"
    window.viewer.layers.remove("discs")
    window.viewer.add_image(gray(), name="discs")
    window.idle()
    assert window.workspace.session is session
    assert window.workspace.objects is objects
    assert [row.category for row in window.tab.object_panel.table._model.rows] == ["cell"]
    assert window.status.offer != "Restore"
    window.add_object(*CENTERS[1])
    assert set(np.unique(objects.data)) == {0, 1, 2}
    window.undo(3)
    assert window.workspace.session.editor.register.entry(1).category == ""
    (log,) = user_folder("sessions").glob("*.jsonl")
    assert len(replayed(log).history) == 2, "the same file goes on"
