"""The main job with mouse and keys: click, see, commit, undo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from tests.widgets.scenes import CENTRES, discs, grey, iou

CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def coins(window: Any) -> Any:
    """A window with one grey image and the widget, ready."""
    window.viewer.add_image(grey(), name="discs")
    window.open_widget()
    window.idle()
    return window


def objects(window: Any) -> np.ndarray:
    return window.viewer.layers["SimMAT objects"].data


def preview(window: Any) -> np.ndarray:
    return window.viewer.layers["SimMAT preview"].data


def test_three_layers_of_different_types_feed_the_model_and_a_press_becomes_an_object(
    window: Any,
) -> None:
    image, labels = discs()
    window.viewer.add_image((255 * image).astype(np.uint8), name="a")
    window.viewer.add_image((40000 * image).astype(np.uint16), name="b")
    window.viewer.add_image((image - 0.5).astype(np.float32), name="c")
    window.open_widget()
    chosen = [window.viewer.layers[n].unique_id for n in "abc"]
    assert [source.layer for source in window.tab.channels.value()] == [str(k) for k in chosen]
    window.idle()
    assert window.status.kind == "ready"
    window.click(*CENTRES[1])
    assert iou(preview(window) > 0, labels == 2) > 0.8
    assert window.status.kind == "done"
    window.key(Qt.Key.Key_C)
    assert iou(objects(window) == 1, labels == 2) > 0.8
    assert not preview(window).any()
    assert len(window.interaction.prompts.points.data) == 0


def test_objects_get_the_next_free_id_one_after_the_other(coins: Any) -> None:
    _, labels = discs()
    for number, centre in enumerate(CENTRES, start=1):
        coins.click(*centre)
        coins.key(Qt.Key.Key_C)
        assert iou(objects(coins) == number, labels == number) > 0.8
    assert objects(coins).dtype == np.int32
    assert set(np.unique(objects(coins))) == {0, 1, 2, 3, 4}


def test_the_encoder_runs_once_for_ten_clicks_and_not_again_after_another_image(
    coins: Any,
) -> None:
    assert coins.interaction.segmenter.encodes == 1, "the image is made ready when it is chosen"
    for number in range(10):
        coins.click(CENTRES[0][0] + number - 5, CENTRES[0][1])
    assert len(coins.interaction.prompts.points.data) == 10
    assert coins.interaction.segmenter.encodes == 1
    asked = coins.interaction.work.prompts
    mask = preview(coins).copy()

    coins.viewer.add_image(grey((150, 260))[::-1], name="other")
    coins.idle()
    assert coins.interaction.segmenter.encodes == 1, "an image in use is not replaced by another"
    other = coins.tab.channels._feeds[
        [f.title for f in coins.tab.channels._feeds].index("other")
    ].sources
    coins.tab.channels.set_value(other)
    coins.idle()
    assert coins.interaction.segmenter.encodes == 2
    assert not coins.interaction.work.prompts, "each image has its own prompts"
    coins.click(*CENTRES[0])
    assert coins.interaction.segmenter.encodes == 2

    discs_again = coins.tab.channels._feeds[
        [f.title for f in coins.tab.channels._feeds].index("discs")
    ].sources
    coins.tab.channels.set_value(discs_again)
    coins.idle()
    assert coins.interaction.segmenter.encodes == 2
    assert coins.interaction.work.prompts == asked
    assert np.array_equal(preview(coins), mask), "the same clicks give the same mask"
    coins.click(CENTRES[0][0] + 8, CENTRES[0][1])
    assert coins.interaction.segmenter.encodes == 2


def test_undo_and_redo_walk_over_prompts_and_commits(coins: Any) -> None:
    coins.click(*CENTRES[0])
    first = preview(coins).copy()
    coins.click(CENTRES[0][0] + 10, CENTRES[0][1] + 3)
    second = preview(coins).copy()
    coins.key(Qt.Key.Key_C)
    committed = objects(coins).copy()
    coins.click(*CENTRES[2])

    coins.key(Qt.Key.Key_Z, CTRL)
    assert len(coins.interaction.prompts.points.data) == 0
    assert not preview(coins).any()
    coins.key(Qt.Key.Key_Z, CTRL)
    assert not objects(coins).any()
    assert np.array_equal(preview(coins), second), "undoing the commit shows its prompts again"
    coins.key(Qt.Key.Key_Z, CTRL)
    assert len(coins.interaction.prompts.points.data) == 1
    assert np.array_equal(preview(coins), first)
    coins.key(Qt.Key.Key_Z, CTRL)
    assert not preview(coins).any()
    assert not coins.tab.undo.isEnabled()
    coins.key(Qt.Key.Key_Z, CTRL)

    for _ in range(3):
        coins.key(Qt.Key.Key_Z, CTRL | SHIFT)
    assert np.array_equal(objects(coins), committed)
    assert not preview(coins).any()
    coins.key(Qt.Key.Key_Z, CTRL | SHIFT)
    assert preview(coins).any()
    assert not coins.tab.redo.isEnabled()


def test_painting_by_hand_is_one_of_the_operations(coins: Any) -> None:
    coins.click(*CENTRES[0])
    coins.key(Qt.Key.Key_C)
    before = objects(coins).copy()
    layer = coins.viewer.layers["SimMAT objects"]
    layer.data_setitem((np.array([150, 151]), np.array([20, 20])), 7)
    coins.viewer.layers.selection.active = layer
    coins.key(Qt.Key.Key_Z, CTRL)
    assert np.array_equal(objects(coins), before)
    coins.key(Qt.Key.Key_Z, CTRL)
    assert not objects(coins).any()
    coins.key(Qt.Key.Key_Z, CTRL | SHIFT)
    coins.key(Qt.Key.Key_Z, CTRL | SHIFT)
    assert objects(coins)[150, 20] == 7


def test_two_boxes_are_two_objects_and_a_point_corrects_one(coins: Any) -> None:
    _, labels = discs()
    coins.drag(24, 32, 80, 88)
    coins.drag(108, 38, 172, 102)
    assert len(coins.interaction.prompts.boxes.data) == 2
    assert iou(preview(coins) == 1, labels == 1) > 0.8
    assert iou(preview(coins) == 2, labels == 3) > 0.8
    coins.click(*CENTRES[0])
    assert set(np.unique(preview(coins))) == {0, 1, 2}, "a point in a box is no third object"
    coins.key(Qt.Key.Key_C)
    assert iou(objects(coins) == 1, labels == 1) > 0.8
    assert iou(objects(coins) == 2, labels == 3) > 0.8
    coins.key(Qt.Key.Key_Z, CTRL)
    assert not objects(coins).any(), "one commit is one step"
    assert len(coins.interaction.prompts.boxes.data) == 2


def test_a_click_with_the_box_tool_leaves_no_box(coins: Any) -> None:
    coins.interaction.prompts.draw_boxes()
    coins.press(100, 100)
    coins.idle()
    assert len(coins.interaction.prompts.boxes.data) == 0
    assert not coins.interaction.work.prompts


def test_a_negative_click_takes_away(coins: Any) -> None:
    y0, x0, y1, x1 = 20, 30, 95, 195  # over two discs
    coins.drag(y0, x0, y1, x1)
    coins.click(*CENTRES[0])
    with_both = (preview(coins) > 0).sum()
    coins.key(Qt.Key.Key_T)
    assert "outside" in coins.tab.sign.text()
    coins.click(*CENTRES[1])
    layer = coins.interaction.prompts.points
    assert list(layer.features["label"]) == [1, 0]
    green, red = layer.face_color
    assert green[1] > green[0]
    assert red[0] > red[1]
    assert (preview(coins) > 0).sum() < with_both
    assert not preview(coins)[CENTRES[1]]
    coins.key(Qt.Key.Key_T)
    coins.click(CENTRES[0][0] + 5, CENTRES[0][1])
    assert list(layer.features["label"]) == [1, 0, 1]


def test_flipping_a_selected_point_is_an_operation(coins: Any) -> None:
    coins.click(*CENTRES[0])
    coins.click(*CENTRES[1])
    layer = coins.interaction.prompts.points
    layer.mode = "select"
    layer.selected_data = {1}
    coins.key(Qt.Key.Key_T)
    assert list(layer.features["label"]) == [1, 0]
    assert coins.interaction.work.prompts.labels == (1, 0)
    coins.key(Qt.Key.Key_Z, CTRL)
    assert list(layer.features["label"]) == [1, 1]


def test_moving_and_deleting_points_is_followed(coins: Any) -> None:
    coins.click(*CENTRES[0])
    layer = coins.interaction.prompts.points
    layer.data = np.array([CENTRES[3]], dtype=float)
    coins.idle()
    _, labels = discs()
    assert iou(preview(coins) > 0, labels == 4) > 0.7
    layer.selected_data = {0}
    layer.remove_selected()
    coins.idle()
    assert not preview(coins).any()
    coins.key(Qt.Key.Key_Z, CTRL)
    assert np.allclose(coins.interaction.prompts.points.data, [CENTRES[3]])


def test_clear_removes_the_prompts_and_can_be_undone(coins: Any) -> None:
    coins.click(*CENTRES[0])
    mask = preview(coins).copy()
    coins.key(Qt.Key.Key_C, SHIFT)
    assert not preview(coins).any()
    assert len(coins.interaction.prompts.points.data) == 0
    coins.key(Qt.Key.Key_Z, CTRL)
    assert np.array_equal(preview(coins), mask)


def test_a_commit_that_comes_before_the_answer_waits_for_it(coins: Any) -> None:
    _, labels = discs()
    coins.interaction.prompts.draw_points()
    coins.press(*CENTRES[1])
    coins.interaction.commit()
    coins.idle()
    assert iou(objects(coins) == 1, labels == 2) > 0.8


def test_the_same_click_gives_the_same_mask(coins: Any) -> None:
    coins.click(*CENTRES[0])
    mask = preview(coins).copy()
    coins.key(Qt.Key.Key_C, SHIFT)
    coins.interaction.prompts.points.add(np.array(coins.interaction.work.place.shape) / 2)
    coins.idle()
    coins.key(Qt.Key.Key_C, SHIFT)
    coins.click(*CENTRES[0])
    assert np.array_equal(preview(coins), mask)


def test_segment_answers_again(coins: Any) -> None:
    coins.click(*CENTRES[0])
    mask = preview(coins).copy()
    coins.viewer.layers["SimMAT preview"].data[...] = 0
    coins.key(Qt.Key.Key_S)
    assert np.array_equal(preview(coins), mask)
    coins.key(Qt.Key.Key_C, SHIFT)
    coins.key(Qt.Key.Key_S)
    assert "click on an object" in coins.status.text


def test_buttons_do_what_the_keys_do(coins: Any) -> None:
    tab = coins.tab
    assert not tab.commit.isEnabled()
    tab.point_tool.click()
    coins.press(*CENTRES[0])
    coins.idle()
    tab.commit.click()
    assert objects(coins).max() == 1
    tab.undo.click()
    coins.idle()
    assert not objects(coins).any()
    tab.redo.click()
    coins.idle()
    assert objects(coins).max() == 1
    tab.box_tool.click()
    assert coins.viewer.layers.selection.active.name == "SimMAT boxes"
    assert coins.viewer.layers.selection.active.mode == "add_rectangle"
    assert all(key in tab.commit.text() + tab.undo.text() for key in ("C", "Ctrl+Z"))
