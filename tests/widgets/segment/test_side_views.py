"""Stacks seen from the side: prompts, objects, undo and following on planes along any two axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.masks import LabelIndex
from napari_simmat.engine.predictor import Predictor
from napari_simmat.widgets.segment.controller import editing
from napari_simmat.widgets.segment.workspace import replayed_text
from tests.widgets.scenes import iou

CONTROL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
SHAPE = (48, 72, 88)
"""(Z, Y, X)."""
BLOBS = (((24, 24, 26), (13, 15, 16)), ((22, 50, 62), (12, 14, 17)))
"""Middle and half axes of two ellipsoids, in voxels."""
PLACED = {"scale": (1.0, 0.5, 0.25), "translate": (10.0, -4.0, 6.0)}
NAMED = {"axis_labels": ("z", "y", "x"), "units": ("um", "um", "um")}
ZX, ZY = (1, 0, 2), (2, 0, 1)
VIEWS = {"z, x": ZX, "z, y": ZY, "x, z": (1, 2, 0), "y, z": (2, 1, 0)}


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Two bright ellipsoids as uint8 (Z, Y, X), and their labels 1 and 2."""
    at = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.int32)
    for number, (middle, radii) in enumerate(BLOBS, start=1):
        away = sum(((a - m) / r) ** 2 for a, m, r in zip(at, middle, radii, strict=True))
        labels[away <= 1] = number
    noise = np.random.default_rng(0).normal(0, 4, SHAPE)
    return np.clip(np.where(labels > 0, 185, 45) + noise, 0, 255).astype(np.uint8), labels


def world(position: Any) -> np.ndarray:
    return np.array(PLACED["translate"]) + np.array(PLACED["scale"]) * position


def open_blobs(window: Any, **options: Any) -> np.ndarray:
    image, labels = blobs()
    window.viewer.add_image(image, name="blobs", **{**PLACED, **NAMED, **options})
    window.open_widget()
    window.idle()
    return labels


def look(window: Any, order: tuple[int, ...], position: Any) -> None:
    """See the image with the axes in another order, on the plane through a voxel."""
    window.viewer.dims.order = order
    window.viewer.dims.point = tuple(world(position))
    window.idle()


def on_screen(window: Any, position: Any) -> tuple[float, float]:
    """Where a voxel is drawn: the world's coordinates along the rows and the columns."""
    row, column = (float(world(position)[axis]) for axis in window.viewer.dims.displayed)
    return row, column


def plane_at(order: tuple[int, ...], position: Any) -> tuple[Any, ...]:
    """Index of the plane of a view through a voxel, in the array of the image."""
    index: list[Any] = [slice(None)] * 3
    index[order[0]] = position[order[0]]
    return tuple(index)


def objects(window: Any) -> np.ndarray:
    return window.viewer.layers["SimMAT objects"].data


def preview(window: Any) -> np.ndarray:
    return window.viewer.layers["SimMAT preview"].data > 0


def undo(window: Any) -> None:
    window.key(Qt.Key.Key_Z, CONTROL)


def redo(window: Any) -> None:
    window.key(Qt.Key.Key_Z, CONTROL | SHIFT)


@pytest.mark.parametrize("view", VIEWS)
def test_a_click_from_the_side_is_answered_and_committed_on_its_plane(
    window: Any, view: str
) -> None:
    order, labels = VIEWS[view], open_blobs(window)
    first, second = (middle for middle, _ in BLOBS)
    look(window, order, first)
    window.click(*on_screen(window, first))
    at = plane_at(order, first)
    assert iou(preview(window)[at], labels[at] == 1) > 0.85
    assert preview(window).sum() == preview(window)[at].sum(), "on its plane alone"
    points = window.viewer.layers["SimMAT points"]
    assert np.allclose(points.data, [first], atol=1), "in the image's own order of axes"
    shown = preview(window).copy()
    window.key(Qt.Key.Key_C)
    side = objects(window).copy()
    assert np.array_equal(side == 1, shown)
    assert not preview(window).any()
    undo(window)
    assert not objects(window).any()
    assert np.array_equal(preview(window), shown)
    redo(window)
    assert np.array_equal(objects(window), side)

    look(window, (0, 1, 2), second)
    window.click(*on_screen(window, second))
    window.key(Qt.Key.Key_C)
    both = objects(window).copy()
    front = plane_at((0,), second)
    assert iou(both[front] == 2, labels[front] == 2) > 0.85
    assert np.array_equal(both == 1, side == 1), "the first object is as it was"
    assert (both == 2).sum() == (both[front] == 2).sum()
    made = window.viewer.layers["SimMAT objects"]
    assert made.data.shape == SHAPE
    assert np.allclose(made.scale, PLACED["scale"])
    assert made.axis_labels == ("z", "y", "x")
    assert np.array_equal(window.viewer.layers["blobs"].data, blobs()[0])

    for state in (side, side, np.zeros_like(side)):  # the commit, its click, the commit before
        undo(window)
        assert np.array_equal(objects(window), state)
    assert window.status.text == replayed_text("commit of 1 in another view", back=True)
    look(window, order, first)
    assert np.array_equal(preview(window), shown), "what was taken back is open again"
    for state in (side, side, both):
        redo(window)
        assert np.array_equal(objects(window), state)
    assert window.workspace.session.editor.register.index == LabelIndex.of(both)


def test_an_object_made_from_the_side_opens_with_its_prompts_there(window: Any) -> None:
    labels = open_blobs(window)
    middle = BLOBS[0][0]
    look(window, ZX, middle)
    window.click(*on_screen(window, middle))
    window.tab.sections["objects"].set_open(True)
    window.key(Qt.Key.Key_C)
    window.click_row(0)
    window.type_class("nucleus")
    before = objects(window).copy()
    score = window.workspace.session.editor.register.entry(1).score

    look(window, (0, 1, 2), middle)
    window.hover(*on_screen(window, middle))
    window.tab.object_panel.table.choose([])
    window.key(Qt.Key.Key_E)
    assert editing(1) in window.status.text
    assert not len(window.viewer.layers["SimMAT points"].data), "on this plane it has its pixels"
    window.key(Qt.Key.Key_C, SHIFT)

    look(window, ZX, middle)
    window.double_click(*on_screen(window, middle))
    assert editing(1) in window.status.text
    assert np.allclose(window.viewer.layers["SimMAT points"].data, [middle], atol=1)
    z, _, x = middle
    window.key(Qt.Key.Key_T)
    window.click(*on_screen(window, (z, middle[1], x + 20)))
    window.key(Qt.Key.Key_C)
    after = objects(window)
    at = plane_at(ZX, middle)
    assert iou(after[at] == 1, labels[at] == 1) > 0.8
    assert after.sum() == after[at].sum()
    entry = window.workspace.session.editor.register.entry(1)
    assert entry.category == "nucleus"
    assert entry.score != score
    classes = window.viewer.layers["SimMAT classes"].data
    assert np.array_equal(classes > 0, after == 1)
    assert len(entry.provenance) == 1
    undo(window)
    undo(window)
    undo(window)
    assert np.array_equal(objects(window), before)
    window.hover(*on_screen(window, middle))
    window.key(Qt.Key.Key_D, SHIFT)
    assert not objects(window).any()
    undo(window)
    assert np.array_equal(objects(window), before)
    assert window.workspace.session.editor.register.entry(1).score == score


def test_of_an_object_that_crosses_a_plane_only_that_plane_is_replaced(window: Any) -> None:
    labels = open_blobs(window)
    layer = window.viewer.add_labels((labels == 1).astype(np.int32), name="mine", **PLACED)
    window.choose(window.tab.objects, "mine")
    z, y, x = BLOBS[0][0]
    look(window, ZX, (z, y, x))
    window.hover(*on_screen(window, (z, y, x)))
    window.viewer.layers.selection.active = window.viewer.layers["SimMAT points"]
    window.key(Qt.Key.Key_E)
    assert editing(1) in window.status.text
    window.key(Qt.Key.Key_T)
    window.click(*on_screen(window, (z + 11, y, x)))
    window.key(Qt.Key.Key_C)
    changed = layer.data != (labels == 1)
    assert changed.any()
    assert changed.sum() == changed[:, y].sum()
    assert window.workspace.session.editor.register.index == LabelIndex.of(layer.data)


@pytest.mark.real_window
def test_shapes_and_scribbles_from_the_side(window: Any) -> None:
    labels = open_blobs(window, translate=(0.0, 0.0, 0.0), scale=(2.0, 1.0, 1.0))
    z, y, x = BLOBS[0][0]
    window.viewer.dims.order = ZX
    window.viewer.dims.set_current_step(1, y)
    window.idle()
    truth = labels[:, y] == 1
    for mode in ("add_rectangle", "add_ellipse"):
        window.drag(2 * (z - 14), x - 17, 2 * (z + 14), x + 17, mode=mode)
        assert iou(preview(window)[:, y], truth) > 0.85, mode
        assert preview(window).sum() == preview(window)[:, y].sum()
        window.viewer.dims.order = (0, 1, 2)  # where it would be a line
        window.idle()
        window.viewer.dims.order = ZX
        window.idle()
        assert iou(preview(window)[:, y], truth) > 0.85, mode
        window.key(Qt.Key.Key_C, SHIFT)
        assert not preview(window).any()
        assert not len(window.viewer.layers["SimMAT boxes"].data)
    window.stroke([(2 * (z - 6), x - 8), (2 * (z + 6), x + 8)])
    assert iou(preview(window)[:, y], truth) > 0.8
    window.key(Qt.Key.Key_C, SHIFT)
    boxes = window.viewer.layers["SimMAT boxes"]
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    corners = [(z + 12 * np.sin(a), y, x + 15 * np.cos(a)) for a in angles]
    boxes.add(np.array(corners), shape_type="polygon")
    window.idle()
    assert iou(preview(window)[:, y], truth) > 0.85
    window.key(Qt.Key.Key_C)
    assert iou(objects(window)[:, y] == 1, truth) > 0.85


def test_prompts_of_each_view_are_kept_until_it_is_seen_again(window: Any) -> None:
    labels = open_blobs(window)
    first, second = (middle for middle, _ in BLOBS)
    window.viewer.dims.point = tuple(world(first))
    window.idle()
    window.click(*on_screen(window, first))
    front = preview(window).copy()
    look(window, ZX, second)
    points = window.viewer.layers["SimMAT points"]
    assert not len(points.data)
    assert not preview(window).any()
    window.click(*on_screen(window, second))
    side = preview(window).copy()
    at = plane_at(ZX, second)
    assert iou(side[at], labels[at] == 2) > 0.85
    look(window, (0, 1, 2), first)
    assert np.array_equal(preview(window), front)
    assert np.allclose(points.data, [first], atol=1)
    window.key(Qt.Key.Key_C)
    assert np.array_equal(objects(window) == 1, front)
    look(window, ZX, second)
    assert np.array_equal(preview(window), side)
    window.key(Qt.Key.Key_C)
    assert np.array_equal(objects(window) == 2, side & ~front)


def test_the_normalization_is_that_of_the_whole_stack(
    window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_simmat.engine import image_stack, normalization

    measured = []
    original = normalization.measure_range_job

    def measuring(*args: Any) -> Any:
        measured.append(args[1])
        return (yield from original(*args))

    monkeypatch.setattr(image_stack, "measure_range_job", measuring)
    image, labels = blobs()
    window.viewer.add_image(image.astype(np.uint16) * 37 + 900, name="blobs", **PLACED)
    middle = BLOBS[0][0]
    window.viewer.dims.order = ZX  # before the tab is open: the first that is asked for
    window.open_widget()
    look(window, ZX, middle)
    window.click(*on_screen(window, middle))
    at = plane_at(ZX, middle)
    assert iou(preview(window)[at], labels[at] == 1) > 0.85
    look(window, ZY, middle)
    window.click(*on_screen(window, middle))
    look(window, (0, 1, 2), middle)
    window.click(*on_screen(window, middle))
    assert measured == [SHAPE]
    assert len(window.controller.inference.service._statistics) == 1


@pytest.mark.real_window
def test_rolling_with_the_button_of_the_viewer(window: Any) -> None:
    labels = open_blobs(window)
    middle = BLOBS[0][0]
    roll = window.viewer.window._qt_viewer.viewerButtons.rollDimsButton
    for order in ((2, 0, 1), (1, 2, 0), (0, 1, 2)):
        QTest.mouseClick(roll, Qt.MouseButton.LeftButton)
        assert window.viewer.dims.order == order
        window.viewer.dims.point = tuple(world(middle))
        window.idle()
        window.click(*on_screen(window, middle))
        at = plane_at(order, middle)
        assert iou(preview(window)[at], labels[at] == 1) > 0.85
        window.key(Qt.Key.Key_C, SHIFT)


def test_the_table_leads_to_an_object_in_the_view_that_is_shown(window: Any) -> None:
    labels = open_blobs(window)
    window.viewer.add_labels(labels, name="mine", **PLACED)
    window.choose(window.tab.objects, "mine")
    window.tab.sections["objects"].set_open(True)
    look(window, ZX, (0, 0, 0))
    window.click_row(1)
    z, y, x = BLOBS[1][0]
    assert abs(window.viewer.dims.point[1] - world((z, y, x))[1]) < 1
    camera = getattr(window.viewer, "scene", window.viewer).camera
    assert np.allclose(camera.center[-2:], world((z, y, x))[[0, 2]], atol=1)
    assert window.workspace.plane() in [(y - 1,), (y,), (y + 1,)]


def test_a_layer_of_the_user_belongs_to_the_view_in_which_it_was_chosen(window: Any) -> None:
    open_blobs(window)
    first, second = (middle for middle, _ in BLOBS)
    mine = window.viewer.add_points(np.array([first], float), name="mine", **PLACED)
    window.choose(window.tab.points, "mine")
    window.viewer.dims.point = tuple(world(first))
    window.idle()
    assert preview(window).any()
    look(window, ZX, second)
    assert np.allclose(mine.data, [first]), "it is left alone"
    assert window.tab.points.value() is not mine
    assert not window.workspace.session.prompt_state
    window.click(*on_screen(window, second))
    assert np.allclose(mine.data, [first])
    mine.data = np.array([first, (first[0], first[1] + 1, first[2])], float)
    look(window, (0, 1, 2), first)
    assert window.tab.points.value() is mine
    assert len(window.workspace.session.prompts.points) == 2, "what was changed meanwhile counts"
    assert not len(window.viewer.layers["SimMAT points"].data)
    look(window, ZX, second)
    assert np.allclose(window.viewer.layers["SimMAT points"].data, [second], atol=1)


def test_where_no_plane_of_the_image_is_shown_a_sentence_says_so(window: Any) -> None:
    image, _ = blobs()
    channels = np.stack([image, image, image])
    window.viewer.add_image(channels, name="three", axis_labels=("channel", "z", "y", "x"))
    window.open_widget()
    window.idle()
    assert window.workspace.session.geometry.shape == SHAPE
    z, y, x = BLOBS[0][0]
    window.viewer.dims.order = (0, 2, 1, 3)
    window.viewer.dims.set_current_step(2, y)
    window.idle()
    window.click(z, x)
    assert preview(window).shape == SHAPE
    assert preview(window)[:, y].any()
    assert preview(window).sum() == preview(window)[:, y].sum()
    shown = preview(window).copy()
    window.viewer.dims.order = (1, 2, 0, 3)
    window.idle()
    window.take(window.tab.buttons.point)
    window.press(1, x)
    window.idle()
    assert window.status.kind == "failed"
    assert "two of the axes z, y, x of three" in window.status.text
    window.viewer.dims.order = (0, 2, 1, 3)
    undo(window)
    assert np.array_equal(preview(window), shown)


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_a_view_that_shows_no_plane_of_pixels_is_refused(window: Any) -> None:
    turn = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    window.viewer.add_image(blobs()[0], name="turned", rotate=turn)
    window.open_widget()
    window.idle()
    window.viewer.dims.order = ZX
    window.tab.act("segment")
    window.workspace.prompt_layers.points.add(np.array([(24, 24, 26)]))
    window.idle()
    assert window.status.kind == "failed"
    assert "rotated relative to this view" in window.status.text


def steps(window: Any) -> list[str]:
    return [operation.name for operation in window.workspace.session.history]


def test_what_is_done_from_two_sides_is_restored_after_a_crash(
    open_window: Callable[[], Any],
) -> None:
    from napari_simmat.io.files import user_folder
    from napari_simmat.widgets.segment.session_file import replayed

    window = open_window()
    open_blobs(window)
    first, second = (middle for middle, _ in BLOBS)
    look(window, ZX, first)
    window.click(*on_screen(window, first))
    window.key(Qt.Key.Key_C)
    look(window, (0, 1, 2), second)
    window.click(*on_screen(window, second))
    window.key(Qt.Key.Key_C)
    look(window, ZY, second)
    window.click(*on_screen(window, second))
    look(window, (0, 1, 2), first)
    window.click(*on_screen(window, first))
    undo(window)
    undo(window)  # the click in the other view
    redo(window)
    labels, done = objects(window).copy(), steps(window)
    views = {order: view.prompt_state for order, view in window.workspace.session.views.items()}
    (path,) = user_folder("sessions").glob("*.jsonl")
    state = replayed(path)
    assert np.array_equal(next(iter(state.labels.values())), labels)
    assert state.views[ZY] == views[ZY]
    assert state.views[ZY].prompts.points
    window.close_widget()

    again = open_window()
    again.viewer.add_image(blobs()[0], name="blobs", **PLACED, **NAMED)
    again.viewer.dims.order = ZX
    again.open_widget()
    again.idle()
    assert again.status.offer == "Restore"
    again.workspace.accept()
    again.idle()
    assert np.array_equal(objects(again), labels)
    assert steps(again) == done
    look(again, ZY, second)
    assert again.workspace.session.prompt_state == views[ZY]
    assert preview(again)[plane_at(ZY, second)].any()
    undo(again)
    undo(again)
    assert np.array_equal(objects(again), np.where(labels == 1, 1, 0))
    while again.workspace.session.history.can_undo:
        undo(again)
    assert not objects(again).any()


# ------------------------------------------------------- planes that lie further apart than pixels

STEP = 6
"""Every sixth plane of a ball is left, as where a stack was taken with a coarse step."""


def ball() -> tuple[np.ndarray, np.ndarray]:
    """A bright ball of radius 36 as uint8 (25, 150, 140), and where it is."""
    z, y, x = np.indices((25, 150, 140))
    inside = (STEP * z + 3 - 75) ** 2 + (y - 75) ** 2 + (x - 70) ** 2 <= 36**2
    noise = np.random.default_rng(0).normal(0, 4, inside.shape)
    return np.clip(60 + 100 * inside + noise, 0, 255).astype(np.uint8), inside


def open_ball(window: Any, image: np.ndarray) -> Any:
    layer = window.viewer.add_image(image, name="ball", scale=(0.25, 0.25, 0.25))
    window.open_widget()
    window.idle()
    window.viewer.dims.order = ZX
    window.viewer.dims.point = (0.25 * 12, 0.25 * 75, 0.25 * 70)
    window.idle()
    return layer


def test_a_side_view_of_planes_far_apart_is_seen_as_it_looks(window: Any) -> None:
    image, inside = ball()
    layer = open_ball(window, image)
    predictor = Predictor(load_model("tiny"))
    predictor.set_image(image)
    statistics = predictor.statistics

    def answered(step: float) -> np.ndarray:
        """What is seen after a click, with planes so far apart."""
        window.click(step * 12, 0.25 * 70)
        z, _, x = window.viewer.layers["SimMAT points"].data[-1]
        assert np.allclose((z, x), (12, 70), atol=1)
        seen = {"pixel_size": (step, 0.25), "statistics": statistics}
        predictor.set_image(image[:, 75], **seen)
        shown = preview(window)[:, 75].copy()
        assert np.array_equal(shown, predictor.predict(points=[(z, x)]).mask)
        return shown

    squashed = answered(0.25)
    undo(window)
    layer.scale = (1.5, 0.25, 0.25)  # as it should have been from the start
    window.viewer.dims.point = (1.5 * 12, 0.25 * 75, 0.25 * 70)
    window.idle()
    round_ = answered(1.5)
    assert iou(round_, inside[:, 75]) > 0.9
    assert not np.array_equal(round_, squashed)


def test_an_object_that_is_open_is_answered_anew_when_the_scale_changes(window: Any) -> None:
    image, _ = ball()
    layer = open_ball(window, image)
    window.click(0.25 * 12, 0.25 * 70)
    before = preview(window)[:, 75].copy()
    [asked] = window.workspace.session.prompt_state.prompts.points
    layer.scale = (1.5, 0.25, 0.25)
    window.viewer.dims.point = (1.5 * 12, 0.25 * 75, 0.25 * 70)
    window.idle()
    assert window.workspace.session.prompt_state.prompts.points == (pytest.approx(asked),), (
        "on its pixel"
    )
    predictor = Predictor(load_model("tiny"))
    predictor.set_image(image)
    predictor.set_image(image[:, 75], statistics=predictor.statistics, pixel_size=(1.5, 0.25))
    after = preview(window)[:, 75]
    assert np.array_equal(after, predictor.predict(points=[asked[1:]]).mask)
    assert not np.array_equal(after, before)


def test_following_from_the_side_sees_every_plane_as_it_looks(window: Any) -> None:
    image, inside = ball()
    open_ball(window, image).scale = (1.5, 0.25, 0.25)
    window.viewer.dims.point = (1.5 * 12, 0.25 * 75, 0.25 * 70)
    window.idle()
    window.click(1.5 * 12, 0.25 * 70)
    window.key(Qt.Key.Key_S, SHIFT)
    window.key(Qt.Key.Key_C)
    assert iou(objects(window) > 0, inside) > 0.85
