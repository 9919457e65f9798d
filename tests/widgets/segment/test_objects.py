"""Finished objects with mouse and keys: overlap, reopening, merging, splitting, classes, table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.widgets.segment.controller import editing
from napari_simmat.widgets.segment.object_actions import COMMIT_FIRST, POINT_AT_OBJECT
from napari_simmat.widgets.segment.workspace import removed_with_objects
from tests.widgets.scenes import CENTERS, discs, iou

CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
FLAT = (105, 20)
"""A place without a disc."""


def objects(window: Any) -> np.ndarray:
    return window.viewer.layers["SimMAT objects"].data


def preview(window: Any) -> np.ndarray:
    return window.viewer.layers["SimMAT preview"].data


def commit_discs(window: Any, count: int) -> None:
    for center in CENTERS[:count]:
        window.click(*center)
        window.key(Qt.Key.Key_C)


def paint(window: Any, region: tuple[slice, slice], label: int) -> None:
    """Paint by hand, as napari's own tools do."""
    rows, columns = np.mgrid[region]
    window.viewer.layers["SimMAT objects"].data_setitem((rows.ravel(), columns.ravel()), label)


def rows(window: Any) -> list[tuple[str, ...]]:
    """The table as it is shown."""
    model = window.tab.object_panel.table.model()
    return [
        tuple(model.index(row, column).data() for column in range(model.columnCount()))
        for row in range(model.rowCount())
    ]


# ----------------------------------------------------------------------------- overlap


def test_what_is_there_is_kept_or_overwritten(ready: Any) -> None:
    disc = discs()[1] == 1
    ready.workspace.target()
    half = (slice(0, 200), slice(0, CENTERS[0][1]))
    paint(ready, half, 9)
    ready.click(*CENTERS[0])
    ready.key(Qt.Key.Key_C)
    assert (objects(ready)[half] == 9).all(), "what was there stays"
    assert (objects(ready) == 10)[disc].any()
    ready.key(Qt.Key.Key_Z, CTRL)

    ready.choose(ready.tab.object_panel.overlap, "overwrite")
    ready.key(Qt.Key.Key_C)
    assert iou(objects(ready) == 10, disc) > 0.8
    ready.key(Qt.Key.Key_Z, CTRL)
    assert (objects(ready)[half] == 9).all(), "undo gives back what was covered"
    assert not (objects(ready) == 10).any()


def test_an_object_wholly_under_another_is_not_lost_but_offered(ready: Any) -> None:
    ready.workspace.target()
    paint(ready, (slice(0, 200), slice(0, 220)), 4)
    ready.click(*CENTERS[1])
    ready.key(Qt.Key.Key_C)
    assert ready.status.kind == "failed"
    assert "lies wholly on 4" in ready.status.text
    assert len(ready.workspace.prompt_layers.points.data) == 1
    QTest.mouseClick(ready.tab.status.offer, Qt.MouseButton.LeftButton)
    ready.idle()
    assert iou(objects(ready) == 5, discs()[1] == 2) > 0.8


def test_of_several_objects_one_wholly_under_another_is_not_lost_either(ready: Any) -> None:
    ready.workspace.target()
    paint(ready, (slice(0, 200), slice(0, 110)), 4)
    ready.click(*CENTERS[1])
    ready.key(Qt.Key.Key_N)
    ready.click(*CENTERS[0])
    ready.key(Qt.Key.Key_C)
    assert "1 object wholly on 4 is left out" in ready.status.text
    assert set(np.unique(objects(ready))) == {0, 4, 5}
    QTest.mouseClick(ready.tab.status.offer, Qt.MouseButton.LeftButton)
    ready.idle()
    assert iou(objects(ready) == 5, discs()[1] == 2) > 0.8
    assert iou(objects(ready) == 6, discs()[1] == 1) > 0.8
    ready.hover(*CENTERS[0])
    ready.key(Qt.Key.Key_E)
    assert np.allclose(ready.workspace.prompt_layers.points.data, [CENTERS[0]], atol=1), "its own"


# --------------------------------------------------------------------------- reopening


@pytest.mark.parametrize(
    "how", ["key", pytest.param("double click", marks=pytest.mark.real_window), "table"]
)
def test_a_finished_object_opens_again_with_its_prompts(ready: Any, how: str) -> None:
    ready.click(*CENTERS[0])
    ready.click(CENTERS[0][0] + 9, CENTERS[0][1])
    mask = preview(ready).copy()
    ready.key(Qt.Key.Key_C)
    ready.click(*CENTERS[1])
    ready.key(Qt.Key.Key_C)
    before = objects(ready).copy()
    if how == "key":
        ready.hover(*CENTERS[0])
        ready.key(Qt.Key.Key_E)
    elif how == "double click":
        ready.double_click(CENTERS[0][0] + 3, CENTERS[0][1] + 3)
    else:
        ready.tab.sections["objects"].set_open(True)
        ready.click_row(0, double=True)
    asked = [CENTERS[0], (CENTERS[0][0] + 9, CENTERS[0][1])]
    shown = ready.workspace.prompt_layers.points.data
    assert np.allclose(shown, asked, atol=1), "no point of the double click stays"
    assert np.array_equal(preview(ready), mask)
    assert np.array_equal(objects(ready), before), "it stays until it is committed"
    assert editing(1) in ready.status.text

    ready.key(Qt.Key.Key_T)
    ready.click(CENTERS[0][0] - 40, CENTERS[0][1])
    refined = preview(ready) > 0
    ready.key(Qt.Key.Key_C)
    assert np.array_equal(objects(ready) == 1, refined), "written under its own number"
    assert set(np.unique(objects(ready))) == {0, 1, 2}
    ready.key(Qt.Key.Key_Z, CTRL)
    assert np.array_equal(objects(ready), before)


def test_what_was_painted_by_hand_is_what_opens_again(ready: Any) -> None:
    commit_discs(ready, 1)
    y, x = CENTERS[0]
    paint(ready, (slice(y - 5, y + 5), slice(x, x + 60)), 1)
    painted = objects(ready) == 1
    ready.hover(*CENTERS[0])
    ready.key(Qt.Key.Key_E)
    assert np.array_equal(preview(ready) > 0, painted), "its pixels, not its prompts"
    assert len(ready.workspace.prompt_layers.points.data) == 0
    ready.key(Qt.Key.Key_C)
    assert np.array_equal(objects(ready) == 1, painted), "nothing painted is lost"
    ready.hover(*CENTERS[0])
    ready.key(Qt.Key.Key_E)
    ready.key(Qt.Key.Key_T)
    ready.click(y, x + 55)
    assert not preview(ready)[y, x + 55], "the next click refines what was painted"
    assert preview(ready)[y, x]


def test_an_open_object_is_not_dropped_for_another(ready: Any) -> None:
    commit_discs(ready, 2)
    ready.click(*CENTERS[2])
    asked = ready.workspace.session.prompt_state
    ready.hover(*CENTERS[0])
    ready.key(Qt.Key.Key_E)
    assert ready.status.text == COMMIT_FIRST
    assert ready.workspace.session.prompt_state == asked


def test_several_objects_are_open_at_once_and_committed_together(ready: Any) -> None:
    _, labels = discs()
    for number, center in enumerate(CENTERS[:3]):
        if number:
            ready.key(Qt.Key.Key_N)
        ready.click(*center)
    assert [iou(preview(ready) == n, labels == n) > 0.8 for n in (1, 2, 3)] == [True] * 3
    assert list(ready.workspace.prompt_layers.points.features["object"]) == [0, 1, 2]
    ready.key(Qt.Key.Key_C)
    assert [iou(objects(ready) == n, labels == n) > 0.8 for n in (1, 2, 3)] == [True] * 3
    ready.click(*CENTERS[3])
    assert list(ready.workspace.prompt_layers.points.features["object"]) == [0]
    ready.hover(*CENTERS[1])
    ready.key(Qt.Key.Key_C)
    ready.key(Qt.Key.Key_E)
    assert np.allclose(ready.workspace.prompt_layers.points.data, [CENTERS[1]], atol=1), "its own"


# ------------------------------------------------------------- delete, merge and split


def test_delete_merge_and_split_with_keys_and_undo(ready: Any) -> None:
    _, labels = discs()
    commit_discs(ready, 3)
    states = [objects(ready).copy()]

    ready.hover(*CENTERS[2])
    ready.key(Qt.Key.Key_D, SHIFT)
    states.append(objects(ready).copy())
    assert set(np.unique(states[-1])) == {0, 1, 2}

    ready.click(*CENTERS[0])
    ready.click(*CENTERS[1])
    ready.key(Qt.Key.Key_G)
    states.append(objects(ready).copy())
    assert np.array_equal(states[-1] == 1, (states[1] == 1) | (states[1] == 2))
    assert len(ready.workspace.prompt_layers.points.data) == 0, "its points are used up"

    ready.hover(*CENTERS[0])
    ready.key(Qt.Key.Key_K)
    states.append(objects(ready).copy())
    assert iou(states[-1] == 1, labels == 2) > 0.8, "the larger piece keeps the number"
    assert iou(states[-1] == 2, labels == 1) > 0.8

    for state in states[-2::-1]:
        while not np.array_equal(objects(ready), state):
            assert ready.workspace.session.history.can_undo
            ready.key(Qt.Key.Key_Z, CTRL)
    for state in states[1:]:
        while not np.array_equal(objects(ready), state):
            assert ready.workspace.session.history.can_redo
            ready.key(Qt.Key.Key_Z, CTRL | SHIFT)


def test_what_cannot_be_undone_stays_in_the_list(ready: Any) -> None:
    """As where only the image was given its scale after a commit."""
    commit_discs(ready, 2)
    layer = ready.viewer.layers["SimMAT objects"]
    committed = objects(ready).copy()
    for key, times in ((Qt.Key.Key_Z, 2), (Qt.Key.Key_Z, 1)):
        layer.scale = (2, 2)
        for _ in range(times):
            ready.key(key, CTRL)
            assert "has another scale, translate or affine than the image" in ready.status.text
            assert np.array_equal(objects(ready), committed)
        layer.scale = (1, 1)
        ready.key(key, CTRL)
        assert set(np.unique(objects(ready))) == {0, 1}
        layer.scale = (2, 2)
        ready.key(Qt.Key.Key_Z, CTRL | SHIFT)
        assert "has another scale" in ready.status.text
        layer.scale = (1, 1)
        ready.key(Qt.Key.Key_Z, CTRL | SHIFT)
        assert np.array_equal(objects(ready), committed)


def test_points_split_an_object_at_its_neck(ready: Any) -> None:
    ready.workspace.target()
    y, x = np.indices((200, 220))
    both = ((y - 100) ** 2 + (x - 80) ** 2 <= 900) | ((y - 100) ** 2 + (x - 130) ** 2 <= 900)
    ready.viewer.layers["SimMAT objects"].data_setitem(np.nonzero(both), 6)
    ready.hover(100, 80)
    ready.key(Qt.Key.Key_K)
    assert "Object 6 is one piece" in ready.status.text
    ready.click(100, 80)
    ready.click(100, 130)
    ready.key(Qt.Key.Key_K)
    assert np.array_equal(objects(ready) > 0, both)
    assert set(np.unique(objects(ready))) == {0, 6, 7}
    assert objects(ready)[100, 75] == 6
    assert objects(ready)[100, 135] == 7
    assert abs(int((objects(ready) == 6).sum()) - int((objects(ready) == 7).sum())) < 150


def test_the_mouse_decides_which_object_is_meant_whatever_rows_are_chosen(ready: Any) -> None:
    commit_discs(ready, 3)
    ready.tab.sections["objects"].set_open(True)
    ready.click_row(0)
    ready.hover(*CENTERS[2])
    ready.key(Qt.Key.Key_D, SHIFT)
    assert set(np.unique(objects(ready))) == {0, 1, 2}, "not the one in the table"
    assert (ready.status.kind, ready.status.offer) == ("done", "Undo"), "the message stays"
    ready.take(ready.tab.status.offer)
    ready.idle()
    assert set(np.unique(objects(ready))) == {0, 1, 2, 3}

    ready.hover(*CENTERS[1])
    ready.key(Qt.Key.Key_E)
    assert editing(2) in ready.status.text
    ready.key(Qt.Key.Key_C, SHIFT)

    ready.click_row(0)
    QTest.keyClick(ready.tab.object_panel.table, Qt.Key.Key_A, CTRL)
    assert ready.controller.objects.chosen == (1, 2, 3)
    ready.hover(*FLAT)
    ready.key(Qt.Key.Key_D, SHIFT)
    assert set(np.unique(objects(ready))) == {0, 1, 2, 3}, "nothing is under the mouse"
    assert ready.status.text == POINT_AT_OBJECT
    ready.hover(*CENTERS[1])
    ready.key(Qt.Key.Key_D, SHIFT)
    assert set(np.unique(objects(ready))) == {0, 1, 3}
    ready.take(ready.tab.object_panel.buttons["delete"])
    ready.idle()
    assert set(np.unique(objects(ready))) == {0}, "the button means the rows"
    assert ready.status.offer == "Undo"


def test_rows_that_are_not_seen_are_not_chosen(ready: Any) -> None:
    commit_discs(ready, 2)
    ready.tab.sections["objects"].set_open(True)
    ready.click_row(0)
    QTest.mouseClick(ready.tab.sections["objects"].toggleButton(), Qt.MouseButton.LeftButton)
    ready.key(Qt.Key.Key_D, SHIFT)
    assert set(np.unique(objects(ready))) == {0, 1, 2}


def test_a_message_about_objects_outlasts_open_prompts(ready: Any) -> None:
    commit_discs(ready, 2)
    ready.click(*CENTERS[2])
    mask = preview(ready).copy()
    ready.hover(*CENTERS[0])
    ready.key(Qt.Key.Key_D, SHIFT)
    assert set(np.unique(objects(ready))) == {0, 2}
    assert ready.status.offer == "Undo"
    assert np.array_equal(preview(ready), mask)


def test_keys_without_an_object_say_what_to_do(ready: Any) -> None:
    commit_discs(ready, 1)
    ready.hover(*FLAT)
    for key, modifier in ((Qt.Key.Key_E, None), (Qt.Key.Key_D, SHIFT), (Qt.Key.Key_G, None)):
        ready.key(key, *(() if modifier is None else (modifier,)))
        assert ready.status.text.startswith(("Point at", "Click once"))
    assert len(ready.workspace.session.history) == 2


def test_an_objects_layer_that_is_deleted_says_so_and_comes_back_on_undo(ready: Any) -> None:
    commit_discs(ready, 2)
    ready.tab.sections["objects"].set_open(True)
    ready.click_row(1)
    ready.type_class("nucleus")
    layers, committed = ready.viewer.layers, objects(ready).copy()
    layer, order = layers["SimMAT objects"], [each.name for each in layers]
    layers.selection.active = layer
    layers.remove_selected()  # as napari's key and button
    ready.idle()
    assert not [each for each in layers if each.name.startswith(("SimMAT obj", "SimMAT cl"))]
    assert ready.status.text == removed_with_objects("SimMAT objects", 2)
    assert rows(ready) == []
    ready.take(ready.tab.status.offer)
    ready.idle()
    assert [each.name for each in layers] == order
    assert np.array_equal(objects(ready), committed)
    assert [row[1] for row in rows(ready)] == ["", "nucleus"]
    assert np.array_equal(layers["SimMAT classes"].data == 1, committed == 2)

    ready.key(Qt.Key.Key_Z, CTRL | SHIFT)
    assert "SimMAT objects" not in layers, "redone"
    ready.click(*CENTERS[2])
    ready.key(Qt.Key.Key_C)
    assert set(np.unique(objects(ready))) == {0, 1}, "work goes on in a new layer"
    for _ in range(3):  # the commit, its click, the removal
        ready.key(Qt.Key.Key_Z, CTRL)
    assert layer in layers
    assert np.array_equal(layer.data, committed)
    assert ready.workspace.objects is layer, "the next object goes there"
    ready.hover(*CENTERS[0])
    ready.key(Qt.Key.Key_D, SHIFT)
    assert set(np.unique(layer.data)) == {0, 2}
    while ready.workspace.session.history.can_undo:
        ready.key(Qt.Key.Key_Z, CTRL)
    assert not layer.data.any(), "the whole list is still there"


def test_objects_and_classes_deleted_together_come_back_together(ready: Any) -> None:
    ready.type_class("nucleus")
    commit_discs(ready, 1)
    layers = ready.viewer.layers
    layers.selection = {layers["SimMAT objects"], layers["SimMAT classes"]}
    layers.remove_selected()
    ready.idle()
    assert ready.status.offer == "Undo"
    ready.key(Qt.Key.Key_Z, CTRL)
    assert np.array_equal(objects(ready) == 1, layers["SimMAT classes"].data == 1)
    assert objects(ready).any()


# ------------------------------------------------------------------- classes and table


def test_classes_have_a_layer_of_their_own_and_follow_undo(ready: Any) -> None:
    commit_discs(ready, 2)
    ready.tab.sections["objects"].set_open(True)
    ready.click_row(1)
    ready.type_class("nucleus")
    classes = ready.viewer.layers["SimMAT classes"]
    assert np.array_equal(classes.data == 1, objects(ready) == 2)
    assert not (classes.data > 1).any()
    assert rows(ready)[1][1] == "nucleus"
    ready.tab.object_panel.table.choose([])
    ready.type_class("cell")
    ready.click(*CENTERS[2])
    ready.key(Qt.Key.Key_C)
    assert np.array_equal(classes.data == 2, objects(ready) == 3), "new objects get the class"
    assert list(classes.features["class"]) == ["nucleus", "cell"]
    ready.key(Qt.Key.Key_Z, CTRL)
    assert not (classes.data == 2).any()
    ready.hover(*CENTERS[1])
    ready.key(Qt.Key.Key_D, SHIFT)
    assert not classes.data.any()
    ready.key(Qt.Key.Key_Z, CTRL)
    assert np.array_equal(classes.data == 1, objects(ready) == 2)


def test_a_class_that_is_typed_again_is_one_step_or_none(ready: Any) -> None:
    commit_discs(ready, 2)
    ready.tab.sections["objects"].set_open(True)
    ready.click_row(0)
    ready.type_class("nucleus")
    count = len(ready.workspace.session.history)
    ready.type_class("nucleus")
    assert len(ready.workspace.session.history) == count, "it has the class"
    ready.click_row(1)
    ready.type_class("nucleus")
    assert len(ready.workspace.session.history) == count + 1
    ready.key(Qt.Key.Key_Z, CTRL)
    assert [row[1] for row in rows(ready)] == ["nucleus", ""]


def test_the_table_shows_sorts_and_leads_to_the_objects(window: Any) -> None:
    from tests.widgets.scenes import gray

    stack = np.stack([gray(), gray()[::-1], gray()])
    window.viewer.add_image(
        stack, name="stack", scale=(2, 0.5, 0.5), units=("um", "um", "um"), translate=(7, 0, 0)
    )
    window.open_widget()
    window.viewer.dims.set_current_step(0, 0)
    window.idle()
    window.click(*(np.array(CENTERS[0]) / 2))
    window.key(Qt.Key.Key_C)
    window.viewer.dims.set_current_step(0, 2)
    window.idle()
    window.click(*(np.array(CENTERS[1]) / 2))
    window.key(Qt.Key.Key_C)
    window.tab.sections["objects"].set_open(True)
    table = window.tab.object_panel.table
    sizes = [int((objects(window) == n).sum()) for n in (1, 2)]
    header = [table.model().headerData(n, Qt.Orientation.Horizontal) for n in range(4)]
    assert header == ["id", "class", "µm³", "score"]
    assert [float(row[2]) for row in rows(window)] == pytest.approx(
        [size * 0.5 for size in sizes], rel=1e-3
    )
    table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert [row[0] for row in rows(window)] == ["2", "1"]
    window.click_row(1)
    assert window.viewer.dims.current_step[0] == 0, "the plane of object 1"
    center = np.argwhere(objects(window)[0] == 1).mean(axis=0) / 2
    assert np.allclose(window.viewer.scene.camera.center[-2:], center)
    assert window.viewer.layers["SimMAT objects"].selected_label == 1
    assert window.controller.objects.chosen == (1,)
    window.key(Qt.Key.Key_D, SHIFT)
    assert [row[0] for row in rows(window)] == ["2"]
    assert window.controller.objects.chosen == ()


def test_a_labels_layer_of_the_user_is_counted_and_its_objects_can_be_opened(ready: Any) -> None:
    labels = (discs()[1] == 3).astype(np.uint16) * 7
    layer = ready.viewer.add_labels(labels, name="mine")
    ready.tab.objects.chosen.emit(layer)
    assert [row[:3] for row in rows(ready)] == [("7", "", str(int((labels == 7).sum())))]
    ready.workspace.prompt_layers.draw_points()
    ready.hover(*CENTERS[2])
    ready.key(Qt.Key.Key_E)
    assert np.array_equal(preview(ready) > 0, labels == 7)
    layer.data = np.where(discs()[1] == 1, 3, 0).astype(np.uint16)
    ready.idle()
    assert [row[0] for row in rows(ready)] == ["3"]
