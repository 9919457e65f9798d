"""Stacks seen from the side: prompts, objects, undo and following on planes along any two axes."""

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_simmat.annotation.predictions import EDITING
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.engine.predictor import Predictor
from napari_simmat.widgets.segment.work.workspace import UNDONE
from tests.nightly import nightly_but
from tests.widgets.scenes import iou

SHIFT, CTRL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
SHAPE = (48, 72, 88)
"""(Z, Y, X)."""
BLOBS = (((24, 24, 26), (13, 15, 16)), ((22, 50, 62), (12, 14, 17)))
"""Middle and half axes of two ellipsoids, in voxels."""
PLACED = {"scale": (1.0, 0.5, 0.25), "translate": (10.0, -4.0, 6.0)}
NAMED = {"axis_labels": ("z", "y", "x"), "units": ("um", "um", "um")}
ZX, ZY = (1, 0, 2), (2, 0, 1)


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
    window.open(image, name="blobs", **{**PLACED, **NAMED, **options})
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


@pytest.mark.parametrize("order", [ZX, pytest.param((2, 1, 0), marks=pytest.mark.slow)])
def test_click_from_the_side_is_committed_on_its_plane(window, order):
    labels = open_blobs(window)
    first, second = (middle for middle, _ in BLOBS)
    look(window, order, first)
    window.click(*on_screen(window, first))
    at = plane_at(order, first)
    assert iou(window.mask[at], labels[at] == 1) > 0.85
    assert window.mask.sum() == window.mask[at].sum(), "on its plane alone"
    points = window.viewer.layers["SimMAT points"]
    assert np.allclose(points.data, [first], atol=1), "in the image's own order of axes"
    shown = window.mask.copy()
    window.commit()
    side = window.objects.copy()
    assert np.array_equal(side == 1, shown)
    assert not window.mask.any()
    window.undo()
    assert not window.objects.any()
    assert np.array_equal(window.mask, shown)
    window.redo()
    assert np.array_equal(window.objects, side)

    look(window, (0, 1, 2), second)
    window.add_object(*on_screen(window, second))
    both = window.objects.copy()
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
        window.undo()
        assert np.array_equal(window.objects, state)
    assert window.status.text == UNDONE.format(
        name="commit of 1 in another view", key="Ctrl+Shift+Z"
    )
    look(window, order, first)
    assert np.array_equal(window.mask, shown), "what was taken back is open again"
    for state in (side, side, both):
        window.redo()
        assert np.array_equal(window.objects, state)
    assert window.workspace.session.editor.register.index == LabelIndex.of(both)


@pytest.mark.slow
def test_edit_from_the_side_opens_the_prompts_made_there(window):
    labels = open_blobs(window)
    middle = BLOBS[0][0]
    look(window, ZX, middle)
    window.click(*on_screen(window, middle))
    window.commit()
    window.click_row(0)
    window.type_class("nucleus")
    before = window.objects.copy()
    score = window.workspace.session.editor.register.entry(1).score

    look(window, (0, 1, 2), middle)
    window.hover(*on_screen(window, middle))
    window.tab.object_panel.table.choose([])
    window.key(Qt.Key.Key_E)
    assert EDITING.format(label=1) in window.status.text
    assert not len(window.viewer.layers["SimMAT points"].data), "on this plane it has its pixels"
    window.key(Qt.Key.Key_C, SHIFT)

    look(window, ZX, middle)
    window.double_click(*on_screen(window, middle))
    assert EDITING.format(label=1) in window.status.text
    assert np.allclose(window.viewer.layers["SimMAT points"].data, [middle], atol=1)
    z, _, x = middle
    window.key(Qt.Key.Key_T)
    window.add_object(*on_screen(window, (z, middle[1], x + 20)))
    after = window.objects
    at = plane_at(ZX, middle)
    assert iou(after[at] == 1, labels[at] == 1) > 0.8
    assert after.sum() == after[at].sum()
    entry = window.workspace.session.editor.register.entry(1)
    assert entry.category == "nucleus"
    assert entry.score != score
    classes = window.viewer.layers["SimMAT classes"].data
    assert np.array_equal(classes > 0, after == 1)
    assert len(entry.provenance) == 1
    window.undo(3)
    assert np.array_equal(window.objects, before)
    window.key_over(*on_screen(window, middle), Qt.Key.Key_D, SHIFT)
    assert not window.objects.any()
    window.undo()
    assert np.array_equal(window.objects, before)
    assert window.workspace.session.editor.register.entry(1).score == score


def test_edit_of_a_crossing_object_replaces_one_plane(window):
    labels = open_blobs(window)
    layer = window.viewer.add_labels((labels == 1).astype(np.int32), name="mine", **PLACED)
    window.choose(window.tab.objects, "mine")
    z, y, x = BLOBS[0][0]
    look(window, ZX, (z, y, x))
    window.hover(*on_screen(window, (z, y, x)))
    window.viewer.layers.selection.active = window.viewer.layers["SimMAT points"]
    window.key(Qt.Key.Key_E)
    assert EDITING.format(label=1) in window.status.text
    window.key(Qt.Key.Key_T)
    window.add_object(*on_screen(window, (z + 11, y, x)))
    changed = layer.data != (labels == 1)
    assert changed.any()
    assert changed.sum() == changed[:, y].sum()
    assert window.workspace.session.editor.register.index == LabelIndex.of(layer.data)


@pytest.mark.slow
def test_shapes_and_scribbles_from_the_side_segment(window):
    labels = open_blobs(window, translate=(0.0, 0.0, 0.0), scale=(2.0, 1.0, 1.0))
    z, y, x = BLOBS[0][0]
    window.viewer.dims.order = ZX
    window.viewer.dims.set_current_step(1, y)
    window.idle()
    truth = labels[:, y] == 1
    for mode in ("add_rectangle", "add_ellipse"):
        window.drag(2 * (z - 14), x - 17, 2 * (z + 14), x + 17, mode=mode)
        assert iou(window.mask[:, y], truth) > 0.85, mode
        assert window.mask.sum() == window.mask[:, y].sum()
        window.viewer.dims.order = (0, 1, 2)  # where it would be a line
        window.idle()
        window.viewer.dims.order = ZX
        window.idle()
        assert iou(window.mask[:, y], truth) > 0.85, mode
        window.key(Qt.Key.Key_C, SHIFT)
        assert not window.mask.any()
        assert not len(window.viewer.layers["SimMAT boxes"].data)
    window.stroke([(2 * (z - 6), x - 8), (2 * (z + 6), x + 8)])
    assert iou(window.mask[:, y], truth) > 0.8
    window.key(Qt.Key.Key_C, SHIFT)
    boxes = window.viewer.layers["SimMAT boxes"]
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    corners = [(z + 12 * np.sin(a), y, x + 15 * np.cos(a)) for a in angles]
    boxes.add(np.array(corners), shape_type="polygon")
    window.idle()
    assert iou(window.mask[:, y], truth) > 0.85
    window.commit()
    assert iou(window.objects[:, y] == 1, truth) > 0.85


@pytest.mark.slow
def test_prompts_of_each_view_return_with_it(window):
    labels = open_blobs(window)
    first, second = (middle for middle, _ in BLOBS)
    window.viewer.dims.point = tuple(world(first))
    window.idle()
    window.click(*on_screen(window, first))
    front = window.mask.copy()
    look(window, ZX, second)
    points = window.viewer.layers["SimMAT points"]
    assert not len(points.data)
    assert not window.mask.any()
    window.click(*on_screen(window, second))
    side = window.mask.copy()
    at = plane_at(ZX, second)
    assert iou(side[at], labels[at] == 2) > 0.85
    look(window, (0, 1, 2), first)
    assert np.array_equal(window.mask, front)
    assert np.allclose(points.data, [first], atol=1)
    window.commit()
    assert np.array_equal(window.objects == 1, front)
    look(window, ZX, second)
    assert np.array_equal(window.mask, side)
    window.commit()
    assert np.array_equal(window.objects == 2, side & ~front)


def test_normalization_in_any_view_is_of_the_whole_stack(window, monkeypatch):
    from napari_simmat.engine import image_stack, normalization

    measured = []
    original = normalization.measure_range_job

    def measuring(*args):
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
    assert iou(window.mask[at], labels[at] == 1) > 0.85
    look(window, ZY, middle)
    window.click(*on_screen(window, middle))
    look(window, (0, 1, 2), middle)
    window.click(*on_screen(window, middle))
    assert measured == [SHAPE]
    assert len(window.controller.inference.service._statistics) == 1


def test_table_row_from_the_side_leads_to_the_object(window):
    labels = open_blobs(window)
    window.viewer.add_labels(labels, name="mine", **PLACED)
    window.choose(window.tab.objects, "mine")
    look(window, ZX, (0, 0, 0))
    camera = getattr(window.viewer, "scene", window.viewer).camera
    camera.center = (900, 900)
    window.click_row(1)
    z, y, x = BLOBS[1][0]
    assert abs(window.viewer.dims.point[1] - world((z, y, x))[1]) < 1
    assert np.allclose(camera.center[-2:], world((z, y, x))[[0, 2]], atol=1)
    assert window.workspace.plane() in [(y - 1,), (y,), (y + 1,)]


def test_layer_of_the_user_belongs_to_its_view(window):
    open_blobs(window)
    first, second = (middle for middle, _ in BLOBS)
    mine = window.viewer.add_points(np.array([first], float), name="mine", **PLACED)
    window.choose(window.tab.points, "mine")
    window.viewer.dims.point = tuple(world(first))
    window.idle()
    assert window.mask.any()
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


def test_view_without_a_plane_of_the_image_is_refused(window):
    image, _ = blobs()
    channels = np.stack([image, image, image])
    window.open(channels, name="three", axis_labels=("channel", "z", "y", "x"))
    assert window.workspace.session.geometry.shape == SHAPE
    z, y, x = BLOBS[0][0]
    window.viewer.dims.order = (0, 2, 1, 3)
    window.viewer.dims.set_current_step(2, y)
    window.idle()
    window.click(z, x)
    assert window.mask.shape == SHAPE
    assert window.mask[:, y].any()
    assert window.mask.sum() == window.mask[:, y].sum()
    shown = window.mask.copy()
    window.viewer.dims.order = (1, 2, 0, 3)
    window.idle()
    window.take(window.tab.buttons.tools["point"])
    window.press(1, x)
    window.idle()
    assert window.status.kind == "failed"
    assert "two of the axes z, y, x of three" in window.status.text
    window.viewer.dims.order = (0, 2, 1, 3)
    window.undo()
    assert np.array_equal(window.mask, shown)


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_view_without_a_plane_of_pixels_is_refused(window):
    turn = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    window.open(blobs()[0], name="turned", rotate=turn)
    window.viewer.dims.order = ZX
    window.tab.act("segment")
    window.workspace.prompt_layers.points.add(np.array([(24, 24, 26)]))
    window.idle()
    assert window.status.kind == "failed"
    assert "rotated relative to this view" in window.status.text


def steps(window: Any) -> list[str]:
    return [operation.name for operation in window.workspace.session.history]


@pytest.mark.slow
def test_session_of_two_views_is_restored_after_a_crash(open_window):
    from napari_simmat.io.files import user_folder
    from tests.widgets.segment.noted import replayed

    window = open_window()
    open_blobs(window)
    first, second = (middle for middle, _ in BLOBS)
    look(window, ZX, first)
    window.add_object(*on_screen(window, first))
    look(window, (0, 1, 2), second)
    window.add_object(*on_screen(window, second))
    look(window, ZY, second)
    window.click(*on_screen(window, second))
    look(window, (0, 1, 2), first)
    window.click(*on_screen(window, first))
    window.undo()
    window.undo()  # the click in the other view
    window.redo()
    labels, done = window.objects.copy(), steps(window)
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
    assert np.array_equal(again.objects, labels)
    assert steps(again) == done
    look(again, ZY, second)
    assert again.workspace.session.prompt_state == views[ZY]
    assert again.mask[plane_at(ZY, second)].any()
    again.undo(2)
    assert np.array_equal(again.objects, np.where(labels == 1, 1, 0))
    while again.workspace.session.history.can_undo:
        again.undo()
    assert not again.objects.any()


STEP = 6
"""Every sixth plane of a ball is left, as where a stack was taken with a coarse step."""


def ball() -> tuple[np.ndarray, np.ndarray]:
    """A bright ball of radius 36 as uint8 (25, 150, 140), and where it is."""
    z, y, x = np.indices((25, 150, 140))
    inside = (STEP * z + 3 - 75) ** 2 + (y - 75) ** 2 + (x - 70) ** 2 <= 36**2
    noise = np.random.default_rng(0).normal(0, 4, inside.shape)
    return np.clip(60 + 100 * inside + noise, 0, 255).astype(np.uint8), inside


@pytest.mark.slow
def test_scale_changed_resamples_and_predicts_anew(window):
    image, inside = ball()
    layer = window.open(image, name="ball", scale=(0.25, 0.25, 0.25))
    window.viewer.dims.order = ZX
    window.viewer.dims.point = (0.25 * 12, 0.25 * 75, 0.25 * 70)
    window.idle()
    window.click(0.25 * 12, 0.25 * 70)
    [asked] = window.workspace.session.prompt_state.prompts.points
    assert np.allclose(asked, (75, 12, 70), atol=1), "the plane first"
    predictor = Predictor(load_model("tiny"))
    predictor.set_image(image)
    statistics = predictor.statistics

    def seen(step):
        """What is shown, which is what planes so far apart give."""
        predictor.set_image(image[:, 75], pixel_size=(step, 0.25), statistics=statistics)
        shown = window.mask[:, 75].copy()
        assert np.array_equal(shown, predictor.predict(points=[asked[1:]]).mask), step
        return shown

    squashed = seen(0.25)
    layer.scale = (1.5, 0.25, 0.25)  # as it should have been from the start
    window.viewer.dims.point = (1.5 * 12, 0.25 * 75, 0.25 * 70)
    window.idle()
    [point] = window.workspace.session.prompt_state.prompts.points
    assert point == pytest.approx(asked), "on its pixel"
    round_ = seen(1.5)
    assert iou(round_, inside[:, 75]) > 0.9
    assert not np.array_equal(round_, squashed)


@pytest.mark.slow
@pytest.mark.real_window
@pytest.mark.parametrize("tool", ["point", "box"])
def test_a_tool_is_in_hand_after_rolled_axes_and_3d(window, tool):
    """By napari's own keys; in 3D it takes some tools away."""
    open_blobs(window)
    window.take(window.tab.buttons.tools[tool])
    for _ in range(2):
        before = tuple(window.viewer.dims.order)
        window.key(Qt.Key.Key_E, CTRL)
        assert tuple(window.viewer.dims.order) != before
        assert window.workspace.prompt_layers.tool == tool
    for shown in (3, 2):
        window.key(Qt.Key.Key_Y, CTRL)
        assert window.viewer.dims.ndisplay == shown
    assert window.workspace.prompt_layers.tool == tool
    assert window.tab.buttons.tools[tool].isChecked()


@pytest.mark.real_window
def test_axes_rolled_in_3d_leave_a_tool_in_hand(window):
    labels = open_blobs(window)
    window.take(window.tab.buttons.tools["box"])
    for key in (Qt.Key.Key_Y, Qt.Key.Key_E, Qt.Key.Key_Y):
        window.key(key, CTRL)
    assert window.viewer.dims.ndisplay == 2
    assert window.workspace.prompt_layers.tool == "box"
    window.take(window.tab.buttons.tools["point"])
    middle = BLOBS[0][0]
    look(window, tuple(window.viewer.dims.order), middle)
    window.press(*on_screen(window, middle))
    window.idle()
    at = plane_at(tuple(window.viewer.dims.order), middle)
    assert iou(window.mask[at], labels[at] == 1) > 0.8


@pytest.mark.parametrize("name", nightly_but(("z", "t"), "t"))
def test_tracks_are_offered_along_time_and_not_along_rows(window, name):
    """In a view from the side the planes go along y."""
    open_blobs(window, axis_labels=(name, "y", "x"))
    entry = window.tab.entries["tracks"]
    assert entry.isVisible() == (name == "t")
    look(window, ZX, BLOBS[0][0])
    assert window.workspace.session.geometry.axis_names[0] == "y"
    assert not entry.isVisible()
    look(window, (0, 1, 2), BLOBS[0][0])
    assert entry.isVisible() == (name == "t")
