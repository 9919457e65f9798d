"""Finished objects with mouse and keys: overlap, reopening, merging, splitting, classes, table."""

from typing import Any

import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.annotation.predictions import EDITING
from napari_simmat.io.reference import ImageReference
from napari_simmat.widgets.layer_data import canvas_size
from napari_simmat.widgets.placement import REFERENCE, ImageGeometry
from napari_simmat.widgets.segment.form.object_table import (
    ObjectRow,
    ObjectTableModel,
    size_title,
    voxel_of,
)
from napari_simmat.widgets.segment.work.object_actions import (
    COMMIT_FIRST,
    MOSTLY_OTHERS,
    POINT_AT_OBJECT,
)
from napari_simmat.widgets.segment.work.workspace import REMOVED, UNDONE
from napari_simmat.widgets.shortcuts import shortcut_text
from tests.nightly import nightly_but
from tests.widgets.scenes import CENTERS, discs, dots_in_a_dish, iou

CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
FLAT = (105, 20)
"""A place without a disc."""


def commit_discs(window: Any, count: int) -> None:
    for center in CENTERS[:count]:
        window.add_object(*center)


def paint(window: Any, region: tuple[slice, slice], label: int) -> None:
    """Paint by hand, as napari's own tools do."""
    rows, columns = np.mgrid[region]
    window.objects_layer().data_setitem((rows.ravel(), columns.ravel()), label)


def rows(window: Any) -> list[tuple[str, ...]]:
    """The table as it is shown."""
    model = window.tab.object_panel.table.model()
    return [
        tuple(model.index(row, column).data() for column in range(model.columnCount()))
        for row in range(model.rowCount())
    ]


def test_commit_over_others_keeps_or_overwrites_them(ready):
    disc = discs()[1] == 1
    most = (slice(0, 200), slice(0, CENTERS[0][1] + 8))
    paint(ready, most, 9)
    ready.add_object(*CENTERS[0], SHIFT)
    assert MOSTLY_OTHERS.format(objects="object 10") in ready.status.text
    assert (ready.objects[most] == 9).all(), "what was there stays"
    assert (ready.objects == 10)[disc].any()
    ready.undo()

    ready.choose(ready.tab.object_panel.overlap, "overwrite")
    ready.commit()
    assert "Committed" in ready.status.text
    assert "keep most" not in ready.status.text
    assert iou(ready.objects == 10, disc) > 0.8
    ready.undo()
    assert (ready.objects[most] == 9).all(), "undo gives back what was covered"
    assert not (ready.objects == 10).any()


def test_commit_wholly_under_another_offers_to_overwrite(ready):
    paint(ready, (slice(0, 200), slice(0, 220)), 4)
    ready.add_object(*CENTERS[1], SHIFT)
    assert ready.status.kind == "failed"
    assert "lies wholly on 4" in ready.status.text
    assert len(ready.workspace.prompt_layers.points.data) == 1
    ready.push(ready.tab.status.offer)
    assert iou(ready.objects == 5, discs()[1] == 2) > 0.8


def test_commit_of_several_with_one_hidden_offers_to_overwrite(ready):
    paint(ready, (slice(0, 200), slice(0, 110)), 4)
    ready.click(*CENTERS[1])
    ready.key(Qt.Key.Key_N)
    ready.add_object(*CENTERS[0])
    assert "1 object wholly on 4 is left out" in ready.status.text
    assert set(np.unique(ready.objects)) == {0, 4, 5}
    ready.push(ready.tab.status.offer)
    assert iou(ready.objects == 5, discs()[1] == 2) > 0.8
    assert iou(ready.objects == 6, discs()[1] == 1) > 0.8
    ready.key_over(*CENTERS[0], Qt.Key.Key_E)
    assert np.allclose(ready.workspace.prompt_layers.points.data, [CENTERS[0]], atol=1), "its own"


@pytest.mark.parametrize("how", nightly_but(("key", "double click", "table"), "key"))
def test_edit_opens_an_object_with_its_prompts(ready, how):
    ready.click(*CENTERS[0])
    ready.click(CENTERS[0][0] + 9, CENTERS[0][1])
    mask = ready.preview.copy()
    ready.commit()
    ready.add_object(*CENTERS[1])
    before = ready.objects.copy()
    if how == "key":
        ready.key_over(*CENTERS[0], Qt.Key.Key_E)
    elif how == "double click":
        ready.double_click(CENTERS[0][0] + 3, CENTERS[0][1] + 3)
    else:
        ready.click_row(0, double=True)
    asked = [CENTERS[0], (CENTERS[0][0] + 9, CENTERS[0][1])]
    shown = ready.workspace.prompt_layers.points.data
    assert np.allclose(shown, asked, atol=1), "no point of the double click stays"
    assert np.array_equal(ready.preview, mask)
    assert np.array_equal(ready.objects, before), "it stays until it is committed"
    assert EDITING.format(label=1) in ready.status.text

    ready.key(Qt.Key.Key_T)
    ready.click(CENTERS[0][0] - 40, CENTERS[0][1])
    refined = ready.preview > 0
    ready.commit()
    assert np.array_equal(ready.objects == 1, refined), "written under its own number"
    assert set(np.unique(ready.objects)) == {0, 1, 2}
    ready.undo()
    assert np.array_equal(ready.objects, before)


def test_edit_of_a_painted_object_opens_its_pixels(ready):
    commit_discs(ready, 1)
    y, x = CENTERS[0]
    paint(ready, (slice(y - 5, y + 5), slice(x, x + 60)), 1)
    painted = ready.objects == 1
    ready.key_over(*CENTERS[0], Qt.Key.Key_E)
    assert np.array_equal(ready.preview > 0, painted), "its pixels, not its prompts"
    assert len(ready.workspace.prompt_layers.points.data) == 0
    ready.commit()
    assert np.array_equal(ready.objects == 1, painted), "nothing painted is lost"
    ready.key_over(*CENTERS[0], Qt.Key.Key_E)
    ready.key(Qt.Key.Key_T)
    ready.click(y, x + 55)
    assert not ready.preview[y, x + 55], "the next click refines what was painted"
    assert ready.preview[y, x]


def test_edit_with_open_prompts_is_refused_but_not_delete(ready):
    commit_discs(ready, 2)
    ready.click(*CENTERS[2])
    asked, mask = ready.workspace.session.prompt_state, ready.preview.copy()
    ready.key_over(*CENTERS[0], Qt.Key.Key_E)
    assert ready.status.text == COMMIT_FIRST
    assert ready.workspace.session.prompt_state == asked
    ready.key_over(*CENTERS[0], Qt.Key.Key_D, SHIFT)
    assert set(np.unique(ready.objects)) == {0, 2}
    assert not ready.status.offer, "undo has its place among the tools"
    assert np.array_equal(ready.preview, mask)


@pytest.mark.slow
def test_commit_of_several_open_objects_writes_all(ready):
    _, labels = discs()
    for number, center in enumerate(CENTERS[:3]):
        if number:
            ready.key(Qt.Key.Key_N)
        ready.click(*center)
    assert [iou(ready.preview == n, labels == n) > 0.8 for n in (1, 2, 3)] == [True] * 3
    assert list(ready.workspace.prompt_layers.points.features["object"]) == [0, 1, 2]
    ready.commit()
    assert [iou(ready.objects == n, labels == n) > 0.8 for n in (1, 2, 3)] == [True] * 3
    ready.click(*CENTERS[3])
    assert list(ready.workspace.prompt_layers.points.features["object"]) == [0]
    ready.hover(*CENTERS[1])
    ready.commit()
    ready.key(Qt.Key.Key_E)
    assert np.allclose(ready.workspace.prompt_layers.points.data, [CENTERS[1]], atol=1), "its own"


def test_delete_merge_and_split_with_keys_are_undone(ready):
    _, labels = discs()
    commit_discs(ready, 3)
    states = [ready.objects.copy()]

    ready.key_over(*CENTERS[2], Qt.Key.Key_D, SHIFT)
    states.append(ready.objects.copy())
    assert set(np.unique(states[-1])) == {0, 1, 2}

    ready.click(*CENTERS[0])
    ready.click(*CENTERS[1], CTRL)
    ready.key(Qt.Key.Key_G)
    states.append(ready.objects.copy())
    assert np.array_equal(states[-1] == 1, (states[1] == 1) | (states[1] == 2))

    ready.key_over(*CENTERS[0], Qt.Key.Key_K)
    states.append(ready.objects.copy())
    assert iou(states[-1] == 1, labels == 2) > 0.8, "the larger piece keeps the number"
    assert iou(states[-1] == 2, labels == 1) > 0.8

    for state in states[-2::-1]:
        while not np.array_equal(ready.objects, state):
            assert ready.workspace.session.history.can_undo
            ready.undo()
    for state in states[1:]:
        while not np.array_equal(ready.objects, state):
            assert ready.workspace.session.history.can_redo
            ready.redo()


def test_undo_with_a_misfit_layer_stays_in_the_history(ready):
    """As where only the image was given its scale after a commit."""
    commit_discs(ready, 2)
    layer = ready.viewer.layers["SimMAT objects"]
    committed = ready.objects.copy()
    for key, times in ((Qt.Key.Key_Z, 2), (Qt.Key.Key_Z, 1)):
        layer.scale = (2, 2)
        for _ in range(times):
            ready.key(key, CTRL)
            assert "has another scale, translate or affine than the image" in ready.status.text
            assert np.array_equal(ready.objects, committed)
        layer.scale = (1, 1)
        ready.key(key, CTRL)
        assert set(np.unique(ready.objects)) == {0, 1}
        layer.scale = (2, 2)
        ready.redo()
        assert "has another scale" in ready.status.text
        layer.scale = (1, 1)
        ready.redo()
        assert np.array_equal(ready.objects, committed)


def test_split_at_points_cuts_at_the_neck(ready):
    y, x = np.indices((200, 220))
    both = ((y - 100) ** 2 + (x - 80) ** 2 <= 900) | ((y - 100) ** 2 + (x - 130) ** 2 <= 900)
    ready.objects_layer().data_setitem(np.nonzero(both), 6)
    ready.key_over(100, 80, Qt.Key.Key_K)
    assert "Object 6 is one piece" in ready.status.text
    ready.click(100, 80, SHIFT)
    ready.click(100, 130, SHIFT)
    ready.key(Qt.Key.Key_K)
    assert np.array_equal(ready.objects > 0, both)
    assert set(np.unique(ready.objects)) == {0, 6, 7}
    assert ready.objects[100, 75] == 6
    assert ready.objects[100, 135] == 7
    assert abs(int((ready.objects == 6).sum()) - int((ready.objects == 7).sum())) < 150


def test_target_is_under_the_mouse_whatever_rows_are_chosen(ready):
    commit_discs(ready, 3)
    ready.click_row(0)
    ready.key_over(*CENTERS[2], Qt.Key.Key_D, SHIFT)
    assert set(np.unique(ready.objects)) == {0, 1, 2}, "not the one in the table"
    assert ready.status.kind == "done", "the message stays"
    ready.undo()
    assert set(np.unique(ready.objects)) == {0, 1, 2, 3}

    ready.key_over(*CENTERS[1], Qt.Key.Key_E)
    assert EDITING.format(label=2) in ready.status.text
    ready.key(Qt.Key.Key_C, SHIFT)

    ready.click_row(0)
    QTest.keyClick(ready.tab.object_panel.table, Qt.Key.Key_A, CTRL)
    assert ready.controller.objects.chosen == (1, 2, 3)
    ready.key_over(*FLAT, Qt.Key.Key_D, SHIFT)
    assert set(np.unique(ready.objects)) == {0, 1, 2, 3}, "nothing is under the mouse"
    assert ready.status.text == POINT_AT_OBJECT
    ready.key_over(*CENTERS[1], Qt.Key.Key_D, SHIFT)
    assert set(np.unique(ready.objects)) == {0, 1, 3}
    ready.pick(ready.tab.object_panel.entries["delete"])
    assert set(np.unique(ready.objects)) == {0}, "the button means the rows"
    assert ready.status.kind == "done"


def test_objects_layer_deleted_comes_back_on_undo(ready):
    commit_discs(ready, 2)
    ready.click_row(1)
    ready.type_class("nucleus")
    layers, committed = ready.viewer.layers, ready.objects.copy()
    layer = layers["SimMAT objects"]
    order = [each.name for each in layers if each.name != "SimMAT chosen"]
    layers.selection.active = layer
    layers.remove_selected()  # as napari's key and button
    ready.idle()
    assert not [each for each in layers if each.name.startswith(("SimMAT obj", "SimMAT cl"))]
    assert ready.status.text == REMOVED.format(name="SimMAT objects", objects="2 objects")
    assert rows(ready) == []
    ready.push(ready.tab.status.offer)
    assert [each.name for each in layers] == order
    assert np.array_equal(ready.objects, committed)
    assert [row[1] for row in rows(ready)] == ["", "nucleus"]
    assert np.array_equal(layers["SimMAT classes"].data == 1, committed == 2)

    ready.redo()
    assert "SimMAT objects" not in layers, "redone"
    ready.add_object(*CENTERS[2])
    assert set(np.unique(ready.objects)) == {0, 1}, "work goes on in a new layer"
    for _ in range(3):  # the commit, its click, the removal
        ready.undo()
    assert layer in layers
    assert np.array_equal(layer.data, committed)
    assert ready.workspace.objects is layer, "the next object goes there"
    ready.key_over(*CENTERS[0], Qt.Key.Key_D, SHIFT)
    assert set(np.unique(layer.data)) == {0, 2}
    while ready.workspace.session.history.can_undo:
        ready.undo()
    assert not layer.data.any(), "the whole list is still there"


@pytest.mark.slow
def test_classes_have_a_layer_and_follow_undo(ready):
    commit_discs(ready, 2)
    ready.click_row(1)
    ready.type_class("nucleus")
    count = len(ready.workspace.session.history)
    ready.type_class("nucleus")
    assert len(ready.workspace.session.history) == count, "it has the class"
    ready.click_row(0)
    ready.type_class("nucleus")
    assert len(ready.workspace.session.history) == count + 1
    ready.undo()
    assert [row[1] for row in rows(ready)] == ["", "nucleus"]
    classes = ready.viewer.layers["SimMAT classes"]
    assert np.array_equal(classes.data == 1, ready.objects == 2)
    assert not (classes.data > 1).any()
    assert rows(ready)[1][1] == "nucleus"
    ready.tab.object_panel.table.choose([])
    ready.type_class("cell")
    ready.add_object(*CENTERS[2])
    assert np.array_equal(classes.data == 2, ready.objects == 3), "new objects get the class"
    assert list(classes.features["class"]) == ["nucleus", "cell"]
    ready.undo()
    assert not (classes.data == 2).any()
    ready.key_over(*CENTERS[1], Qt.Key.Key_D, SHIFT)
    assert not classes.data.any()
    ready.undo()
    assert np.array_equal(classes.data == 1, ready.objects == 2)


def test_table_sorts_and_leads_to_the_objects(window):
    from tests.widgets.scenes import gray

    stack = np.stack([gray(), gray()[::-1], gray()])
    window.viewer.add_image(
        stack, name="stack", scale=(2, 0.5, 0.5), units=("um", "um", "um"), translate=(7, 0, 0)
    )
    window.open_widget()
    window.show_plane(0)
    window.add_object(*(np.array(CENTERS[0]) / 2))
    window.show_plane(2)
    window.add_object(*(np.array(CENTERS[1]) / 2))
    table = window.tab.object_panel.table
    sizes = [int((window.objects == n).sum()) for n in (1, 2)]
    header = [table.model().headerData(n, Qt.Orientation.Horizontal) for n in range(4)]
    assert header == ["id", "class", "µm³", "score"]
    assert [float(row[2]) for row in rows(window)] == pytest.approx(
        [size * 0.5 for size in sizes], rel=1e-3
    )
    table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert [row[0] for row in rows(window)] == ["2", "1"]
    window.viewer.scene.camera.center = (500, 500)
    window.click_row(1)
    assert window.viewer.dims.current_step[0] == 0, "the plane of object 1"
    center = np.argwhere(window.objects[0] == 1).mean(axis=0) / 2
    assert np.allclose(window.viewer.scene.camera.center[-2:], center)
    assert window.viewer.layers["SimMAT objects"].selected_label == 1
    assert window.controller.objects.chosen == (1,)
    window.key(Qt.Key.Key_D, SHIFT)
    assert [row[0] for row in rows(window)] == ["2"]
    assert window.controller.objects.chosen == ()


@pytest.mark.parametrize(
    ("options", "voxel"),
    [
        ({}, (0.125, "µm²")),  # as the file says
        ({"scale": (2, 3), "units": ("mm", "mm")}, (6, "mm²")),
        ({"scale": (2, 3)}, (np.nan, "")),
        ({"scale": (2, 3), "units": ("mm", "mm"), "shear": [1.0]}, (6, "mm²")),
    ],
)
def test_voxel_of_asks_the_layer_then_its_file(options, voxel):
    units = dict.fromkeys("YX", "um")
    file = ImageReference(scale={"Y": 0.25, "X": 0.5}, units=units)
    layer = Image(np.zeros((8, 8)), metadata={REFERENCE: file}, **options)
    size, unit = voxel_of(ImageGeometry(layer))
    assert np.allclose(size, voxel[0], equal_nan=True)
    assert unit == voxel[1]


def test_sizes_of_a_film_add_up_over_time_and_are_no_volumes():
    layer = Image(np.zeros((3, 8, 8)), axis_labels=("t", "y", "x"), scale=(0.1, 2, 3))
    assert size_title(ImageGeometry(layer)) == "px, all t"
    layer.units = ("s", "mm", "mm")
    assert voxel_of(ImageGeometry(layer)) == (6, "mm²")
    assert size_title(ImageGeometry(layer)) == "mm², all t"
    stack = Image(np.zeros((3, 8, 8)), axis_labels=("z", "y", "x"))
    assert size_title(ImageGeometry(stack)) == "voxels"


def test_labels_of_the_user_are_counted_and_edited(ready):
    labels = (discs()[1] == 3).astype(np.uint16) * 7
    layer = ready.viewer.add_labels(labels, name="mine")
    ready.tab.objects.chosen.emit(layer)
    assert [row[:3] for row in rows(ready)] == [("7", "", str(int((labels == 7).sum())))]
    ready.workspace.prompt_layers.draw("point")
    ready.key_over(*CENTERS[2], Qt.Key.Key_E)
    assert np.array_equal(ready.preview > 0, labels == 7)
    layer.data = np.where(discs()[1] == 1, 3, 0).astype(np.uint16)
    ready.idle()
    assert [row[0] for row in rows(ready)] == ["3"]


@pytest.mark.slow
def test_click_after_a_commit_takes_what_is_as_large(window):
    image, labels = dots_in_a_dish()
    window.open(image.astype(np.float32), name="dots")
    window.click(128, 180)
    assert np.count_nonzero(window.mask) > 10_000, "all of the dish"
    window.push(window.tab.buttons.clear)
    window.drag(86, 138, 114, 166)
    window.commit()
    window.click(128, 180)
    assert iou(window.mask, labels == 100) > 0.8
    window.commit()
    written = window.objects == 2
    window.double_click(128, 180)
    assert np.array_equal(window.mask, written), "an edited object is what was committed"
    window.undo(5)
    window.click(128, 180)
    assert np.count_nonzero(window.mask) > 10_000, "without an object all is as before"


@pytest.mark.slow
def test_click_after_zooming_in_takes_what_fits_the_view(window):
    image, labels = dots_in_a_dish()
    window.open(image.astype(np.float32), name="dots")
    camera, dot = window.viewer.scene.camera, labels == 100
    side = 4 * np.ptp(np.nonzero(dot)[0])
    camera.zoom = min(canvas_size(window.viewer)) / side
    window.click(128, 180)
    assert iou(window.mask, dot) > 0.8
    zoomed = window.mask.copy()
    camera.zoom /= 10
    window.controller.request()
    window.idle()
    assert np.array_equal(window.mask, zoomed), "the click keeps its meaning"
    window.undo()
    window.click(128, 180)
    assert np.count_nonzero(window.mask) > 10_000, "all of the dish"


def test_rows_clicked_remove_no_layer(ready):
    """napari collects garbage with each removal, which stops the window for seconds."""
    commit_discs(ready, 3)
    removed = []
    ready.viewer.layers.events.removed.connect(lambda event: removed.append(event.value.name))
    for row in (0, 2, 1):
        ready.click_row(row)
        outline = ready.viewer.layers["SimMAT chosen"]
        outlined = np.argwhere(outline.data > 0) + np.round(outline.data_to_world((0, 0)))
        np.testing.assert_array_equal(outlined, np.argwhere(ready.objects == row + 1))
        assert outline.visible
        assert outline.contour
    assert removed == []
    ready.tab.object_panel.table.choose([])
    assert not outline.visible
    assert outline.contour == 0
    assert removed == []


@pytest.mark.slow
def test_row_clicked_keeps_the_view_and_outlines_its_object(ready):
    commit_discs(ready, 2)
    camera = ready.viewer.scene.camera
    before = (camera.center, camera.zoom)
    ready.click_row(1)
    assert (camera.center, camera.zoom) == before, "it is in view"
    outline = ready.viewer.layers["SimMAT chosen"]
    assert outline.contour
    seen = np.zeros(ready.objects.shape, bool)
    corner = np.round(outline.data_to_world((0, 0))).astype(int)
    height, width = outline.data.shape
    seen[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = outline.data > 0
    assert np.array_equal(seen, ready.objects == 2)
    assert ready.viewer.layers.selection.active.name == "SimMAT points"
    ready.key(Qt.Key.Key_D, SHIFT) if ready.viewer.mouse_over_canvas else ready.pick(
        ready.tab.object_panel.entries["delete"]
    )
    assert not outline.visible
    ready.undo()
    camera.center = (camera.center[0], 900, 900)
    ready.click_row(0)
    assert camera.center[-1] < 200, "it was not in view"


def test_objects_are_drawn_by_class_and_as_contours(ready):
    commit_discs(ready, 3)
    layer, panel = ready.viewer.layers["SimMAT objects"], ready.tab.object_panel
    usual = layer.get_color(1)
    for row, name in ((0, "cell"), (1, "nucleus"), (2, "cell")):
        ready.click_row(row)
        ready.type_class(name)
    ready.choose(panel.look, "contours, colored by class")
    colors = [tuple(layer.get_color(label)) for label in (1, 2, 3)]
    assert colors[0] == colors[2] != colors[1]
    assert layer.contour
    ready.choose(panel.look, "filled")
    assert np.allclose(layer.get_color(1), usual)
    assert not layer.contour


@pytest.mark.parametrize(
    ("area", "shown"),
    [(2_547_800.0, "2548000"), (15_820.0, "15820"), (9876.5, "9876"), (0.3254, "0.3254")],
)
def test_table_shows_areas_of_a_map_without_exponents(qapp, area, shown):
    model = ObjectTableModel()
    row = ObjectRow(label=1, category="", size=9, area=area, score=0.5, certainty=None)
    model.set_rows([row], "m²")
    assert model.index(0, 2).data() == shown


def test_what_was_done_to_many_is_counted_not_listed(ready):
    for center in CENTERS:
        ready.add_object(*center)
    ready.tab.object_panel.table.choose([1, 2, 3, 4])
    ready._enter(False)
    ready.key(Qt.Key.Key_D, Qt.KeyboardModifier.ShiftModifier)
    ready.undo()
    key = shortcut_text("redo")
    assert ready.status.text == UNDONE.format(name="deletion of 4 objects", key=key)
