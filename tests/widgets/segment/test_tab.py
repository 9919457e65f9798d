"""The main job with mouse and keys: click, see, commit, undo."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_simmat.annotation.predictions import (
    COMMIT_NEXT,
    MARKS_COVERED,
    MARKS_OUTSIDE,
    scores_text,
)
from napari_simmat.widgets.controls import VerticalScroll
from napari_simmat.widgets.segment.form.prompt_buttons import NEGATIVE_TEXT, POSITIVE_TEXT
from napari_simmat.widgets.segment.work.object_actions import committed, numbered
from tests.nightly import nightly_but
from tests.widgets.gate import Gate
from tests.widgets.scenes import CENTERS, RADII, discs, gray, iou

SHIFT = Qt.KeyboardModifier.ShiftModifier


def test_tab_three_layers_feed_the_model_and_a_click_commits(window):
    image, labels = discs()
    window.viewer.add_image((255 * image).astype(np.uint8), name="a")
    window.viewer.add_image((40000 * image).astype(np.uint16), name="b")
    window.viewer.add_image((image - 0.5).astype(np.float32), name="c")
    window.open_widget()
    chosen = [window.viewer.layers[n].unique_id for n in "abc"]
    assert [source.layer for source in window.tab.channels.value()] == [str(k) for k in chosen]
    window.idle()
    assert window.status.kind == "ready"
    window.click(*CENTERS[1])
    assert iou(window.preview > 0, labels == 2) > 0.8
    assert window.status.kind == "done"
    window.commit()
    assert iou(window.objects == 1, labels == 2) > 0.8
    assert not window.preview.any()
    assert len(window.workspace.prompt_layers.points.data) == 0


def test_encode_ten_clicks_and_another_image_runs_once_each(ready):
    assert ready.controller.inference.service.encodes == 1, (
        "the image is made ready when it is chosen"
    )
    for number in range(10):
        ready.click(CENTERS[0][0] + number - 5, CENTERS[0][1])
    assert len(ready.workspace.prompt_layers.points.data) == 10
    assert ready.controller.inference.service.encodes == 1
    asked = ready.workspace.session.prompts
    mask = ready.preview.copy()

    ready.viewer.add_image(gray((150, 260))[::-1], name="other")
    ready.idle()
    assert ready.controller.inference.service.encodes == 2
    assert not ready.workspace.session.prompts, "each image has its own prompts"
    ready.click(*CENTERS[0])
    assert ready.controller.inference.service.encodes == 2

    ready.choose(ready.tab.channels.image, "discs")
    assert ready.controller.inference.service.encodes == 2
    assert ready.workspace.session.prompts == asked
    assert np.array_equal(ready.preview, mask), "the same clicks give the same mask"
    ready.click(CENTERS[0][0] + 8, CENTERS[0][1])
    assert ready.controller.inference.service.encodes == 2


def test_undo_prompts_and_commits_restores_each_step(ready):
    ready.click(*CENTERS[0])
    first = ready.preview.copy()
    ready.click(CENTERS[0][0] + 10, CENTERS[0][1] + 3)
    second = ready.preview.copy()
    ready.commit()
    committed = ready.objects.copy()
    ready.click(*CENTERS[2])

    ready.undo()
    assert len(ready.workspace.prompt_layers.points.data) == 0
    assert not ready.preview.any()
    ready.undo()
    assert not ready.objects.any()
    assert np.array_equal(ready.preview, second), "undoing the commit shows its prompts again"
    ready.undo()
    assert len(ready.workspace.prompt_layers.points.data) == 1
    assert np.array_equal(ready.preview, first)
    ready.undo()
    assert not ready.preview.any()
    assert not ready.tab.buttons.undo.isEnabled()
    ready.undo()

    ready.redo(3)
    assert np.array_equal(ready.objects, committed)
    assert not ready.preview.any()
    ready.redo()
    assert ready.preview.any()
    assert not ready.tab.buttons.redo.isEnabled()


def test_box_twice_makes_two_objects_and_a_point_corrects_one(ready):
    _, labels = discs()
    ready.drag(24, 32, 80, 88)
    ready.drag(108, 38, 172, 102)
    assert len(ready.workspace.prompt_layers.boxes.data) == 2
    assert iou(ready.preview == 1, labels == 1) > 0.8
    assert iou(ready.preview == 2, labels == 3) > 0.8
    ready.click(*CENTERS[0])
    assert set(np.unique(ready.preview)) == {0, 1, 2}, "a point in a box is no third object"
    ready.commit()
    assert iou(ready.objects == 1, labels == 1) > 0.8
    assert iou(ready.objects == 2, labels == 3) > 0.8
    ready.undo()
    assert not ready.objects.any(), "one commit is one step"
    assert len(ready.workspace.prompt_layers.boxes.data) == 2


def test_box_tool_clicked_leaves_no_box(ready):
    ready.workspace.prompt_layers.draw("box")
    ready.press(100, 100)
    ready.idle()
    assert len(ready.workspace.prompt_layers.boxes.data) == 0
    assert not ready.workspace.session.prompts


def test_negative_click_removes_pixels(ready):
    y0, x0, y1, x1 = 20, 30, 95, 195  # over two discs
    ready.drag(y0, x0, y1, x1)
    ready.click(*CENTERS[0])
    with_both = (ready.preview > 0).sum()
    ready.key(Qt.Key.Key_T)
    assert NEGATIVE_TEXT in ready.tab.buttons.sign.text()
    ready.click(*CENTERS[1])
    layer = ready.workspace.prompt_layers.points
    assert list(layer.features["label"]) == [1, 0]
    green, red = layer.face_color
    assert green[1] > green[0]
    assert red[0] > red[1]
    assert [str(each.value) for each in layer.symbol] == ["disc", "x"], "by shape, too"
    assert (ready.preview > 0).sum() < with_both
    assert not ready.preview[CENTERS[1]]
    ready.key(Qt.Key.Key_T)
    ready.click(CENTERS[0][0] + 5, CENTERS[0][1])
    assert list(layer.features["label"]) == [1, 0, 1]


@pytest.mark.parametrize(
    ("place", "positive", "text"),
    [((105, 20), True, MARKS_OUTSIDE), (CENTERS[0], False, MARKS_COVERED)],
)
def test_mark_that_the_mask_contradicts_is_named(ready, place, positive, text):
    y, x = CENTERS[0]
    ready.click(y, x)
    before = ready.status.text
    if not positive:
        ready.drag(y - RADII[0], x - RADII[0], y + RADII[0], x + RADII[0])
        ready.key(Qt.Key.Key_T)
    ready.click(*place)
    kind = "positive" if positive else "negative"
    contradicts = ready.mask[place] != positive
    assert contradicts == (text.format(marks=f"1 {kind} mark is") in ready.status.text)
    assert contradicts, "or this is no test"
    assert text.format(marks=f"1 {kind} mark is") not in before


@pytest.mark.parametrize(
    "end", nightly_but(("commit", "clear", "new object", "another image"), "commit")
)
def test_object_after_the_end_of_another_begins_positive(ready, end):
    ready.click(*CENTERS[0])
    ready.key(Qt.Key.Key_T)
    ready.click(CENTERS[0][0] + RADII[0] + 8, CENTERS[0][1])
    assert ready.tab.buttons.sign.text().startswith(NEGATIVE_TEXT)
    keys = {
        "commit": (Qt.Key.Key_C,),
        "clear": (Qt.Key.Key_C, SHIFT),
        "new object": (Qt.Key.Key_N,),
    }
    if end in keys:
        ready.key(*keys[end])
    else:
        ready.viewer.add_image(gray(), name="another")
        ready.idle()
    assert ready.tab.buttons.sign.text().startswith(POSITIVE_TEXT)
    ready.click(*CENTERS[1])
    assert ready.status.kind == "done"
    assert ready.preview[CENTERS[1]]


def test_flip_of_a_selected_point_is_one_step(ready):
    ready.click(*CENTERS[0])
    ready.click(*CENTERS[1])
    layer = ready.workspace.prompt_layers.points
    layer.mode = "select"
    layer.selected_data = {1}
    ready.key(Qt.Key.Key_T)
    assert list(layer.features["label"]) == [1, 0]
    assert ready.workspace.session.prompts.labels == (1, 0)
    ready.undo()
    assert list(layer.features["label"]) == [1, 1]


def test_points_moved_and_deleted_are_followed(ready):
    ready.click(*CENTERS[0])
    layer = ready.workspace.prompt_layers.points
    layer.data = np.array([CENTERS[3]], dtype=float)
    ready.idle()
    _, labels = discs()
    assert iou(ready.preview > 0, labels == 4) > 0.7
    layer.selected_data = {0}
    layer.remove_selected()
    ready.idle()
    assert not ready.preview.any()
    ready.undo()
    assert np.allclose(ready.workspace.prompt_layers.points.data, [CENTERS[3]])


def test_commit_right_after_a_click_includes_that_click(ready):
    gate = Gate(ready, *CENTERS[0])
    ready.press(CENTERS[0][0] + 8, CENTERS[0][1] + 4)
    ready.tab.act("commit")
    gate.release()
    assert len(ready.controller.inference.request.prompts[0].points) == 2
    assert len(ready.workspace.prompt_layers.points.data) == 0
    committed = ready.objects == 1
    assert committed.any()
    ready.undo()
    assert len(ready.workspace.prompt_layers.points.data) == 2
    assert np.array_equal(ready.preview > 0, committed)


def test_click_reports_each_change_once(ready):
    workspace, changes = ready.workspace, list[str]()
    for name in ("subject", "view", "prompts", "objects", "prediction"):
        signal = getattr(workspace, f"{name}_changed")
        signal.connect(lambda name=name: changes.append(name))
    ready.click(*CENTERS[0])
    assert changes == ["prompts", "prediction", "prediction"], "drawn, requested, predicted"


def test_status_in_a_low_window_stays_in_sight(ready):
    tab = ready.tab
    ready.click(*CENTERS[0])
    for fold in tab.sections.values():
        fold.set_open(True)
    ready.widget.resize(400, 400)
    ready.idle()
    bar = tab.findChild(VerticalScroll).verticalScrollBar()
    assert bar.maximum() > 0, "the form is higher than the window"
    for value in (0, bar.maximum()):
        bar.setValue(value)
        assert not tab.status.visibleRegion().isEmpty()
        assert tab.status.visibleRegion().boundingRect() == tab.status.rect()


def test_an_image_that_was_just_opened_is_not_denied(window):
    window.open_widget()
    window.idle()
    said = []
    window.workspace.status.connect(said.append)
    window.viewer.add_image(gray(), name="discs")
    window.workspace.model_changed.emit()  # whatever asks for the choice before it was read
    window.idle()
    assert [each.kind for each in said if each.kind in ("failed", "nothing")] == []
    assert window.status.kind == "ready"


@pytest.mark.slow
def test_objects_stay_in_the_table_while_a_model_cannot_be_used(ready):
    ready.add_object(*CENTERS[0])
    table = ready.tab.object_panel.table
    ready.tab.models.set_value("vit_b")
    ready.idle()
    assert table.model().rowCount() == 1
    assert table.isEnabled(), "objects are mended without a model as well"
    ready.tab.models.choose_embedded()
    ready.idle()
    ready.click_row(0)
    ready.viewer.layers.clear()
    ready.idle()
    assert table.model().rowCount() == 0


def test_tool_is_back_in_hand_after_3d(ready):
    for ndisplay in (3, 2):
        ready.viewer.dims.ndisplay = ndisplay
        ready.idle()
    ready.press(*CENTERS[0])
    ready.idle()
    assert len(ready.workspace.prompt_layers.points.data) == 1


@pytest.mark.slow
def test_status_after_each_step_says_what_comes_next(ready):
    ready.click(*CENTERS[0])
    assert ready.status.text.endswith(COMMIT_NEXT)
    ready.commit()
    assert ready.status.text == f"{committed('SimMAT objects', [1], '')} Next object."
    ready.undo()
    assert ready.status.text.endswith(COMMIT_NEXT)
    ready.undo()
    assert ready.status.text.endswith("Redo (Ctrl+Shift+Z) brings it back.")
    ready.redo(2)
    assert ready.status.text.endswith("Undo (Ctrl+Z) takes it back.")


@pytest.mark.parametrize(
    ("scores", "text"),
    [((0.94,), "score 0.94"), ((0.9, 0.5, 0.7, 0.8, 0.6, 0.91), "scores 0.50 to 0.91")],
)
def test_texts_of_many_numbers_are_summed_up(scores, text):
    assert scores_text(scores) == text
    assert numbered([4]) == "object 4"
    assert numbered(range(1, 17)) == "16 objects"


def test_stack_axis_without_a_name_is_counted_from_the_first(window):
    window.open(np.stack([discs()[0]] * 2))
    assert window.tab.stack_panel.along.currentText() == "axis 0"
