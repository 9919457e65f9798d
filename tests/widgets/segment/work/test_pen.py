"""The pen, by the mouse: what a line becomes, on a plane, beside objects, and what is shown."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QAbstractButton, QApplication, QWidget

from napari_simmat.engine.outlines import shape_mask
from napari_simmat.widgets.segment.layers.pen_overlay import _Sheet
from napari_simmat.widgets.segment.layers.pen_stroke import Stroke
from tests.widgets.scenes import CENTERS, RADII, discs, gray, iou

SHIFT = Qt.KeyboardModifier.ShiftModifier


def ring(number: int, margin: float = 1.0, end: float = 1.0, begin: float = 0.0) -> list[Any]:
    """A line around a disc, from a share of the turn to another one."""
    (y, x), radius = CENTERS[number], RADII[number] + margin
    turn = 2 * np.pi * np.linspace(begin, end, 40)
    return [(y + radius * np.sin(angle), x + radius * np.cos(angle)) for angle in turn]


def half(number: int) -> list[Any]:
    """A line around the upper half of a disc."""
    (y, x), side = CENTERS[number], RADII[number] + 8
    corners = [(y, x - side), (y, x + side), (y - side, x + side), (y - side, x - side)]
    return [*corners, (y - 2, x - side)]


def truth(number: int) -> np.ndarray:
    return discs()[1] == number + 1


def kinds(hands: Any) -> list[str]:
    return [each.kind for each in hands.workspace.session.prompts.outlines]


@pytest.mark.parametrize("end", [0.98, 1.0, 1.2], ids=["short of the start", "to it", "past it"])
def test_line_around_an_object_outlines_it(ready, end):
    ready.stroke(ring(0, end=end))
    assert kinds(ready) == ["polygon"]
    drawn = shape_mask("polygon", ring(0), (200, 220))
    assert iou(ready.mask, drawn) > 0.9
    assert ready.status.text.startswith("Outlined:")


def test_line_of_few_events_is_taken_to_its_release(ready):
    (y, x), side = CENTERS[0], RADII[0]
    corners = [(y - side, x - side), (y - side, x + side), (y + side, x + side)]
    ready.take(ready.tab.buttons.tools["pen"])
    ready.press_mouse(*corners[0])
    for corner in corners[1:]:
        ready.move_mouse(*corner)
    ready.release_mouse(y + side, x - side + 1)
    ready.idle()
    assert kinds(ready) == ["path"], "three sides of a square lead somewhere"
    *_, last = ready.workspace.session.prompts.outlines[0].vertices
    assert np.abs(np.subtract(last, (y + side, x - side + 1))).max() <= ready.precision


def test_line_does_not_go_back_where_napari_is_late(qtbot):
    canvas = QWidget()
    canvas._vispy_canvas = None
    qtbot.addWidget(canvas)
    canvas.show()
    qtbot.waitExposed(canvas)

    def moved(x: float) -> QMouseEvent:
        at, left = QPointF(x, 10), Qt.MouseButton.LeftButton
        move, everywhere = QEvent.Type.MouseMove, canvas.mapToGlobal(at)
        return QMouseEvent(move, at, everywhere, left, left, Qt.KeyboardModifier.NoModifier)

    def told(kind: str, x: float) -> Any:
        return SimpleNamespace(type=kind, pos=(x, 10), position=(10.0, x), native=moved(x))

    stroke = Stroke(ViewerModel(), told("mouse_press", 10))
    assert stroke.canvas is canvas
    for x in (20, 30, 40):
        QApplication.sendEvent(canvas, moved(x))
    stroke.follow(told("mouse_move", 20))
    assert stroke.path[:, 1].tolist() == [10, 20, 30, 40]
    stroke.end()


def test_outline_after_outline_makes_object_after_object(ready):
    for number in range(4):
        ready.stroke(ring(number))
    assert kinds(ready) == ["polygon"] * 4
    assert len(np.unique(ready.preview)) == 5
    ready.commit()
    assert sorted(np.unique(ready.objects)) == [0, 1, 2, 3, 4]
    for number in range(4):
        assert iou(ready.objects == number + 1, truth(number)) > 0.85


def test_lines_take_away_and_add_and_never_take_more(ready):
    ready.stroke(ring(0))
    whole = ready.mask.copy()
    ready.key(Qt.Key.Key_T)
    ready.stroke(half(0))
    taken = ready.mask.copy()
    assert ready.status.text.startswith("Taken away:")
    assert not (taken & ~whole).any()
    y = CENTERS[0][0]
    assert not taken[: y - 1].any()
    assert np.array_equal(taken[y + 1 :], whole[y + 1 :])
    ready.key(Qt.Key.Key_T)
    ready.stroke(half(0))
    assert ready.status.text.startswith("Added:")
    assert not (taken & ~ready.mask).any(), "what was there stays"
    assert ready.mask[: y - 1].any()
    assert len(np.unique(ready.preview)) == 2, "it is still one object"
    ready.undo()
    assert np.array_equal(ready.mask, taken)
    ready.undo()
    assert np.array_equal(ready.mask, whole)


def test_two_near_readings_are_two_candidates(ready):
    ready.stroke(ring(0))
    ready.key(Qt.Key.Key_T)
    ready.stroke(half(0))
    ready.key(Qt.Key.Key_T)
    ready.stroke(half(0))
    added = ready.preview.copy()
    buttons = [each for each in ready.tab.candidates.buttons if each.isVisible()]
    assert len(buttons) == 2
    ready.key(Qt.Key.Key_Q)
    assert len(np.unique(ready.preview)) == 3, "what the line encloses is an object of its own"
    ready.key(Qt.Key.Key_Q)
    assert np.array_equal(ready.preview, added)
    ready.undo(2)
    assert np.array_equal(ready.preview, added)


def test_line_on_a_committed_object_opens_and_mends_it(ready):
    ready.stroke(ring(0))
    ready.stroke(ring(1))
    ready.commit()
    before = ready.objects.copy()
    ready.key(Qt.Key.Key_T)
    ready.stroke(half(1))
    assert [each.label for each in ready.workspace.session.prompt_state.edited] == [2]
    ready.commit()
    y = CENTERS[1][0]
    assert not (ready.objects[: y - 1] == 2).any()
    assert np.array_equal(ready.objects[y + 1 :], before[y + 1 :])
    assert np.array_equal(ready.objects == 1, before == 1)
    ready.undo(2)
    assert np.array_equal(ready.objects, before)
    assert not ready.workspace.prompted, "the line and the opening are one step"


def test_pen_draws_beside_a_click_whose_object_it_leaves_alone(ready):
    ready.click(*CENTERS[0])
    clicked = ready.mask.copy()
    ready.stroke(ring(3))
    assert len(np.unique(ready.preview)) == 3
    assert np.array_equal(ready.mask & truth(0), clicked & truth(0))


def test_n_begins_another_object_whatever_the_line_touches(ready):
    ready.stroke(ring(0))
    ready.key(Qt.Key.Key_N)
    (y, x), _ = CENTERS[0], RADII[0]
    ready.stroke([(y - 9, x - 9), (y - 9, x + 9), (y + 9, x + 9), (y + 9, x - 9), (y - 8, x - 9)])
    assert len(ready.workspace.session.prediction(()).masks) == 2


def test_open_line_is_a_scribble(ready):
    (y, x), radius = CENTERS[0], RADII[0]
    ready.stroke([(y, x - radius / 2), (y + 3, x), (y, x + radius / 2)])
    assert kinds(ready) == ["path"]
    assert ready.status.text.startswith("Scribbled:")
    assert iou(ready.mask, truth(0)) > 0.8


def test_click_with_the_pen_draws_nothing(ready):
    ready.take(ready.tab.buttons.tools["pen"])
    ready.press(*CENTERS[0])
    ready.idle()
    assert not ready.workspace.prompted


@pytest.mark.parametrize("zoom", [0.5, 3.0])
def test_line_closes_by_its_distance_on_the_screen(ready, zoom):
    camera = ready.viewer.scene.camera
    camera.center, camera.zoom = (0.0, *CENTERS[0]), zoom
    gap = 8 / (2 * np.pi * (RADII[0] + 1) * zoom)  # 8 pixels of the screen
    ready.stroke(ring(0, end=1 - gap))
    assert kinds(ready) == ["polygon"]
    ready.key(Qt.Key.Key_C, SHIFT)
    ready.stroke(ring(0, end=1 - 2.5 * gap))
    assert kinds(ready) == ["path"], "20 pixels apart"


def test_line_lies_on_the_plane_that_it_is_drawn_on(window):
    window.open(np.stack([gray()] * 3))
    window.show_plane(1)
    window.stroke(ring(2))
    assert window.mask[1].any()
    assert not window.mask[[0, 2]].any()
    window.show_plane(2)
    window.stroke(ring(0))
    assert [each.kind for each in window.workspace.session.prompts.outlines] == ["polygon"] * 2
    assert iou(window.mask[1], truth(2)) > 0.85
    assert iou(window.mask[2], truth(0)) > 0.85


def test_line_lies_where_it_is_drawn_on_a_turned_image(window):
    window.viewer.add_image(gray(), scale=(2.0, 0.5), translate=(7.0, -3.0))
    window.start()
    window.stroke([(7 + 2 * y, 0.5 * x - 3) for y, x in ring(1)])
    assert iou(window.mask, truth(1)) > 0.85
    window.key(Qt.Key.Key_C, SHIFT)
    window.viewer.dims.order = (1, 0)
    window.idle()
    window.stroke([(0.5 * x - 3, 7 + 2 * y) for y, x in ring(0)])
    assert iou(window.mask, truth(0)) > 0.85


@pytest.mark.parametrize(
    ("key", "tool", "button"),
    [(Qt.Key.Key_P, "point", "point"), (Qt.Key.Key_B, "box", "box"), (Qt.Key.Key_L, "pen", "pen")],
)
def test_each_tool_has_its_key_and_its_button(ready, key, tool, button):
    for other in (Qt.Key.Key_L, Qt.Key.Key_P, Qt.Key.Key_B):
        ready.key(other)
        ready.key(key)
        assert ready.workspace.prompt_layers.tool == tool
        checked = [name for name, each in ready.tab.buttons.tools.items() if each.isChecked()]
        assert checked == [button]


@pytest.mark.real_window
@pytest.mark.slow
def test_pen_shows_what_the_line_means_and_hides_other_tools(ready):
    def sheets() -> list[_Sheet]:
        return [each for each in QApplication.allWidgets() if isinstance(each, _Sheet)]

    def of_napari() -> set[str]:
        layer = ready.workspace.prompt_layers.boxes
        found = (each for each in QApplication.allWidgets() if isinstance(each, QAbstractButton))
        ours = (each for each in found if getattr(each, "layer_ref", lambda: None)() is layer)
        return {str(each.property("mode")) for each in ours if not each.isHidden()}

    ready.push(ready.tab.buttons.tools["box"])
    assert {"polygon_lasso", "path", "rectangle"} <= of_napari()
    ready.push(ready.tab.buttons.tools["pen"])
    assert not {"polygon_lasso", "path", "rectangle", "direct"} & of_napari()
    line = ring(0)
    ready.begin_stroke(line[:20])
    ready.qtbot.waitUntil(lambda: _nudged(ready, line[19]) and sheets()[0]._word == "scribble")
    assert not sheets()[0]._closed
    for start, end in pairwise(line[19:]):
        ready.move_mouse(*np.mean([start, end], 0))
        ready.move_mouse(*end)
    ready.qtbot.waitUntil(lambda: _nudged(ready, line[-1]) and sheets()[0]._word == "outline")
    assert sheets()[0]._closed
    ready.release_mouse(*line[-1])
    ready.idle()
    QApplication.sendPostedEvents(None, 52)  # deferred deletion
    assert not sheets()
    assert iou(ready.mask, truth(0)) > 0.85
    ready.push(ready.tab.buttons.tools["box"])
    assert {"polygon_lasso", "path", "rectangle"} <= of_napari()


def _nudged(hands: Any, at: tuple[float, float]) -> bool:
    """Move the mouse a little, since vispy takes no more than a hundred moves a second."""
    hands.move_mouse(at[0] + 1, at[1])
    hands.move_mouse(*at)
    return True
