"""The hands of a user: the same moves on a real window or, much faster, on a viewer without one.

`Hands` is what a test drives. `Headless` shows the tab alone, on napari's viewer model: mouse and
keys go to napari's tools and keymaps as its canvas hands them on. `Window` opens napari's window
and sends real events to its canvas.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from app_model.backends.qt import qkeysequence2modelkeybinding
from napari._vispy.mouse_event import NapariMouseEvent
from napari.components import ViewerModel
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import (
    mouse_double_click_callbacks,
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from napari.utils.key_bindings import KeymapHandler
from qtpy.QtCore import QCoreApplication, QEvent, QKeyCombination, QPoint, QPointF, Qt
from qtpy.QtGui import QEnterEvent, QKeySequence, QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QVBoxLayout, QWidget
from vispy.app.canvas import MouseEvent
from vispy.util import keys

from napari_simmat.widgets.controls import CollapsibleSection
from napari_simmat.widgets.main import SimMATWidget
from napari_simmat.widgets.segment.tab import SegmentTab

SECONDS = 180_000
"""Patience of a test with the worker, in milliseconds: torch is loaded once."""
LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
SHIFT, CONTROL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier


class Hands:
    """The viewer, the widget, and hands on mouse and keyboard.

    What differs with and without a window is in the two classes below: `activate` brings the window
    to the front, `press`, `draw` and `tap` send the mouse and a key, at positions of the world, and
    `press_mouse`, `move_mouse` and `release_mouse` what a press consists of; `hold` keeps a key
    down for these.
    """

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.widget: Any = None

    def open_widget(self) -> Any:
        self.widget = self._new_widget()
        if isinstance(self.widget, SimMATWidget):
            self.widget.open_now()
        # So that tests count what they ask for; what is encoded unasked has tests of its own.
        self.widget.segment.encoding_panel.ahead.setChecked(False)
        self._show()
        return self.widget

    def start(self) -> None:
        """Show the widget, and wait for what follows."""
        self.open_widget()
        self.idle()

    def release(self) -> None:
        """Let the widget go, if it is still there, and see its thread end."""
        if self.widget is not None:
            worker = self.controller.inference.worker
            self.widget.release()
            assert worker.join(SECONDS / 1000), "the worker's thread goes on"
        self.widget = None

    def close_widget(self) -> None:
        """Close the widget as a person does, and see its thread end."""
        widget, worker = self.widget, self.controller.inference.worker
        self.widget = None
        self._take_out(widget)
        assert worker.join(SECONDS / 1000), "the worker's thread goes on"
        self.qtbot.waitUntil(lambda: "SimMAT preview" not in self.viewer.layers)

    @property
    def tab(self) -> Any:
        assert self.widget is not None
        return self.widget.segment

    @property
    def controller(self) -> Any:
        return self.tab.controller

    @property
    def workspace(self) -> Any:
        return self.tab.workspace

    @property
    def status(self) -> Any:
        return self.tab.status.value()

    @property
    def objects(self) -> np.ndarray:
        """The committed objects, as their layer holds them."""
        return self.viewer.layers["SimMAT objects"].data

    @property
    def preview(self) -> np.ndarray:
        """The masks that are shown, each with its number."""
        return self.viewer.layers["SimMAT preview"].data

    @property
    def mask(self) -> np.ndarray:
        """The pixels of all masks that are shown."""
        return self.preview > 0

    def open(self, image: Any, **options: Any) -> Any:
        """Show an image, and the widget on it; returns the layer."""
        layer = self.viewer.add_image(image, **options)
        self.start()
        return layer

    def objects_layer(self) -> Any:
        """Return the layer of committed objects, a new one if there is none, once it is shown."""
        layer = self.workspace.target().layer
        self.qtbot.waitUntil(lambda: layer.visible)  # napari paints on no hidden layer
        return layer

    def show_plane(self, *plane: int) -> None:
        """Move the sliders, and wait for what follows."""
        for axis, index in enumerate(plane):
            self.viewer.dims.set_current_step(axis, index)
        self.idle()

    def commit(self) -> None:
        """Press C."""
        self.key(Qt.Key.Key_C)

    def undo(self, steps: int = 1) -> None:
        """Press Ctrl+Z."""
        for _ in range(steps):
            self.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)

    def redo(self, steps: int = 1) -> None:
        """Press Ctrl+Shift+Z."""
        both = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
        for _ in range(steps):
            self.key(Qt.Key.Key_Z, both)

    def push(self, button: Any) -> None:
        """Press a button or a box of the tab, and wait for what follows."""
        self.take(button)
        self.idle()

    def pick(self, entry: Any) -> None:
        """Choose an entry of a menu, and wait for what follows."""
        assert entry.isEnabled()
        self._enter(False)
        entry.trigger()
        self.idle()

    def idle(self) -> None:
        """Wait until nothing is pending in the window and the worker."""
        self.qtbot.waitUntil(lambda: self._is_idle(), timeout=SECONDS)

    def _is_idle(self) -> bool:
        """Whether a turn of the event loop leaves nothing to do, neither here nor there."""
        worker = self.controller.inference.worker
        was_idle = worker.idle  # what it told until then, this turn delivers
        QApplication.processEvents()
        return was_idle and worker.idle and not self.tab.busy

    def take(self, tool: Any) -> None:
        """Press a button of the tab, as to take a tool in hand; its sections are opened before."""
        self._enter(False)
        above = tool
        while above is not None and not tool.isVisible():
            if isinstance(above, CollapsibleSection):
                above.set_open(True)
            above = above.parentWidget()
        QTest.mouseClick(tool, LEFT)

    def click(self, y: float, x: float, modifiers: Any = NONE) -> None:
        """Press on a position of the world with the points tool, and wait for the answer."""
        self.take(self.tab.buttons.tools["point"])
        self.press(y, x, modifiers)
        self.idle()

    def add_object(self, y: float, x: float, modifiers: Any = NONE) -> None:
        """Click on a position of the world, and commit what that gives."""
        self.click(y, x, modifiers)
        self.commit()

    def hover(self, y: float, x: float) -> None:
        """Move the mouse to a position of the world."""
        self._move(y, x)
        position, shown = self.viewer.cursor.position, self.viewer.dims.displayed
        assert np.allclose([position[axis] for axis in shown], (y, x), atol=2)

    def double_click(self, y: float, x: float) -> None:
        """Press twice on a position of the world with the points tool, as a person does."""
        self.take(self.tab.buttons.tools["point"])
        self.press(y, x)
        QApplication.processEvents()
        self._press_again(y, x)
        self.idle()

    def click_row(self, row: int, *, double: bool = False) -> None:
        """Press on a row of the table of objects."""
        table = self.tab.object_panel.table
        self.qtbot.waitUntil(table.isVisible)
        where = table.visualRect(table.model().index(row, 0)).center()
        viewport = table.viewport()
        self._enter(False)
        QTest.mouseClick(viewport, LEFT, NONE, where)
        if double:
            QTest.mouseDClick(viewport, LEFT, NONE, where)
        self.idle()

    def type_class(self, name: str) -> None:
        """Type a class into its field and press Enter."""
        field = self.tab.object_panel.category.lineEdit()
        field.selectAll()
        QTest.keyClicks(field, name)
        QTest.keyClick(field, Qt.Key.Key_Return)
        self.idle()

    def drag(
        self,
        y0: float,
        x0: float,
        y1: float,
        x1: float,
        *,
        mode: str = "add_rectangle",
        slowly: bool = False,
    ) -> None:
        """Draw a rectangle or an ellipse, and wait for the answer."""
        self.take(self.tab.buttons.tools["box"])
        self.workspace.prompt_layers.boxes.mode = mode
        self.draw([(y0, x0), (y1, x1)], slowly=slowly)

    def stroke(self, path: Sequence[tuple[float, float]]) -> None:
        """Draw a line with the pen, and wait for the answer."""
        self.take(self.tab.buttons.tools["pen"])
        self.begin_stroke(path)
        self.release_mouse(*path[-1])
        self.idle()

    def begin_stroke(self, path: Sequence[tuple[float, float]]) -> None:
        """Draw a line with the pen, and do not let go of the mouse at its end."""
        self.press_mouse(*path[0])
        for (y0, x0), (y1, x1) in itertools.pairwise(path):
            for part in np.linspace(0, 1, 6):
                self.move_mouse(y0 + part * (y1 - y0), x0 + part * (x1 - x0))

    def key(self, key: Any, modifiers: Any = NONE) -> None:
        """Press a key on the canvas, and wait for what follows."""
        self.tap(key, modifiers)
        self.idle()

    def key_over(self, y: float, x: float, key: Any, modifiers: Any = NONE) -> None:
        """Press a key with the mouse over a position of the world."""
        self.hover(y, x)
        self.key(key, modifiers)

    def choose(self, choice: Any, title: str) -> None:
        """Pick an entry of a list with the keyboard, and wait for what follows."""
        self.idle()
        step = Qt.Key.Key_Down if choice.findText(title) > choice.currentIndex() else Qt.Key.Key_Up
        for _ in range(choice.count()):
            if choice.currentText() != title:
                QTest.keyClick(choice, step)
        assert choice.currentText() == title
        self.idle()


class SegmentAlone(QWidget):
    """The Segment tab in a window of its own, for the tests that need no other."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.segment = SegmentTab(viewer)
        QVBoxLayout(self).addWidget(self.segment)
        self.segment.start()
        self._released = False

    def release(self) -> None:
        if not self._released:
            self._released = True
            self.segment.release()


class Headless(Hands):
    """A viewer without a window: napari's model, tools and keymaps, no canvas and no OpenGL.

    Parameters
    ----------
    whole
        Whether `open_widget` makes all tabs, not the Segment tab alone.
    """

    precision = 0
    """Pixels between the place that is asked for and the one that is pressed."""

    def __init__(self, qtbot: Any, *, whole: bool = False) -> None:
        super().__init__(ViewerModel(), qtbot)
        self.whole = whole
        self._keys = KeymapHandler()
        self._held: MouseEvent | None = None
        self._modifiers: list[Any] = []
        self._shown: list[QWidget] = []

    def close(self) -> None:
        """Delete what was shown."""
        self.release()
        for widget in self._shown:
            widget.close()
            widget.deleteLater()
        self._shown.clear()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)

    def activate(self) -> None:
        self.widget.activateWindow()

    def press(self, y: float, x: float, modifiers: Any = NONE) -> None:
        self.hold(modifiers)
        self._mouse("mouse_press", y, x)
        self._mouse("mouse_release", y, x)
        self.hold(NONE)

    def hold(self, modifiers: Any) -> None:
        known = {SHIFT: keys.SHIFT, CONTROL: keys.CONTROL}
        self._modifiers = [known[modifiers]] if modifiers in known else []

    def press_mouse(self, y: float, x: float) -> None:
        self._mouse("mouse_press", y, x)

    def move_mouse(self, y: float, x: float) -> None:
        self._mouse("mouse_move", y, x)

    def release_mouse(self, y: float, x: float) -> None:
        self._mouse("mouse_release", y, x)

    def draw(self, path: Sequence[tuple[float, float]], *, slowly: bool = False) -> None:
        (y0, x0), (y1, x1) = path[0], path[-1]
        self._mouse("mouse_press", y0, x0)
        for part in (0.3, 0.7, 1.0):
            for _ in range(20 if slowly else 1):
                QApplication.processEvents()
            self._mouse("mouse_move", y0 + part * (y1 - y0), x0 + part * (x1 - x0))
        self._mouse("mouse_release", y1, x1)
        self.idle()

    def tap(self, key: Any, modifiers: Any = NONE) -> None:
        active = self.viewer.layers.selection.active
        self._keys.keymap_providers = [self.viewer] if active is None else [active, self.viewer]
        pressed = QKeySequence(QKeyCombination(modifiers, key))
        binding = qkeysequence2modelkeybinding(pressed)
        self._keys.press_key(binding)
        self._keys.release_key(binding)

    def _new_widget(self) -> Any:
        return (SimMATWidget if self.whole else SegmentAlone)(self.viewer)

    def _show(self) -> None:
        self._shown.append(self.widget)
        self.widget.resize(400, 800)
        self.widget.show()

    def _take_out(self, widget: Any) -> None:
        widget.release()
        widget.hide()

    def _move(self, y: float, x: float) -> None:
        self._mouse("mouse_move", y, x)
        QApplication.processEvents()

    def _press_again(self, y: float, x: float) -> None:
        self._mouse("mouse_double_click", y, x)
        self._mouse("mouse_release", y, x)

    def _enter(self, over: bool) -> None:
        self.viewer.mouse_over_canvas = over

    def _mouse(self, kind: str, y: float, x: float) -> None:
        """One event at a position of the world, as napari's canvas hands it on."""
        self._enter(True)
        viewer, dims = self.viewer, self.viewer.dims
        self._draw_canvas()
        camera = _camera(viewer)
        position = list(dims.point)
        for axis, value in zip(dims.displayed[-2:], (y, x), strict=True):
            position[axis] = value
        middle = np.array(_canvas_size(viewer)) / 2
        row, column = middle + camera.zoom * (np.array([y, x]) - camera.center[-2:])
        pressed = self._held
        raw = MouseEvent(
            kind,
            pos=(column, row),
            button=None if kind == "mouse_move" and pressed is None else 1,
            buttons=[1] if pressed is not None or kind == "mouse_press" else [],
            press_event=pressed,
            modifiers=self._modifiers,
        )
        if kind == "mouse_press":
            self._held = raw
        elif kind == "mouse_release":
            self._held = None
        event = NapariMouseEvent(
            event=raw,
            view_direction=camera.calculate_nd_view_direction(dims.ndim, dims.displayed),
            up_direction=camera.calculate_nd_up_direction(dims.ndim, dims.displayed),
            camera_zoom=camera.zoom,
            position=tuple(position),
            dims_displayed=list(dims.displayed),
            dims_point=list(dims.point),
            viewbox=(0, 0),
        )
        viewer.cursor.position = event.position
        shown = ReadOnlyWrapper(event, exceptions=("handled",))
        callbacks = _CALLBACKS[kind]
        callbacks(viewer, shown)
        active = viewer.layers.selection.active
        if active is not None:
            callbacks(active, shown)

    def _draw_canvas(self) -> None:
        """Tell the layers what is in view, as each frame does: how near a click has to be."""
        viewer, camera = self.viewer, _camera(self.viewer)
        half = np.array(_canvas_size(viewer)) / 2 / camera.zoom
        corners = np.array([viewer.dims.point, viewer.dims.point], dtype=float)
        corners[:, viewer.dims.displayed[-2:]] = camera.center[-2:] + np.array([-half, half])
        for layer in viewer.layers:
            axes = sorted(layer._slice_input.displayed)
            if len(axes) <= viewer.dims.ndisplay:
                axes = list(viewer.dims.displayed[-len(axes) :])
            layer._update_draw(
                scale_factor=1 / camera.zoom,
                corner_pixels_displayed=corners[:, axes],
                shape_threshold=_canvas_size(viewer),
            )


_CALLBACKS = {
    "mouse_press": mouse_press_callbacks,
    "mouse_move": mouse_move_callbacks,
    "mouse_release": mouse_release_callbacks,
    "mouse_double_click": mouse_double_click_callbacks,
}


def _camera(viewer: Any) -> Any:
    return getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9


def _canvas_size(viewer: Any) -> tuple[int, int]:
    canvas = getattr(viewer, "canvas", None)  # from napari 0.9
    return viewer._canvas_size if canvas is None else canvas.size


class Window(Hands):
    """napari's window on the (virtual) screen; `open_widget` docks the widget."""

    precision = 1
    """Of the screen."""
    _held = NONE

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def activate(self) -> None:
        self.viewer.window._qt_window.activateWindow()

    def press(self, y: float, x: float, modifiers: Any = NONE) -> None:
        self._enter(True)
        QTest.mouseClick(self.canvas, LEFT, modifiers, self._on_canvas(y, x))

    def hold(self, modifiers: Any) -> None:
        self._held = modifiers

    def press_mouse(self, y: float, x: float) -> None:
        self._enter(True)
        QTest.mousePress(self.canvas, LEFT, self._held, self._on_canvas(y, x))

    def move_mouse(self, y: float, x: float) -> None:
        at = QPointF(self._on_canvas(y, x))
        everywhere = self.canvas.mapToGlobal(at)
        event = QMouseEvent(QEvent.Type.MouseMove, at, everywhere, LEFT, LEFT, self._held)
        QApplication.sendEvent(self.canvas, event)

    def release_mouse(self, y: float, x: float) -> None:
        QTest.mouseRelease(self.canvas, LEFT, self._held, self._on_canvas(y, x))

    def draw(self, path: Sequence[tuple[float, float]], *, slowly: bool = False) -> None:
        self._enter(True)
        start, end = self._on_canvas(*path[0]), self._on_canvas(*path[-1])
        QTest.mousePress(self.canvas, LEFT, NONE, start)
        for part in (0.3, 0.7, 1.0):
            for _ in range(20 if slowly else 1):
                QApplication.processEvents()
            QTest.mouseMove(self.canvas, start + (end - start) * part)
            QApplication.processEvents()  # a move waits in the queue, a press and a release do not
        QTest.mouseRelease(self.canvas, LEFT, NONE, end)
        self.idle()

    def tap(self, key: Any, modifiers: Any = NONE) -> None:
        QTest.keyClick(self.canvas, key, modifiers)

    def _new_widget(self) -> Any:
        return SimMATWidget(self.viewer)

    def _show(self) -> None:
        self.viewer.window.add_dock_widget(self.widget, name="SimMAT", area="right")

    def _take_out(self, widget: Any) -> None:
        self.viewer.window.remove_dock_widget(widget)

    def _move(self, y: float, x: float) -> None:
        """Move the mouse; by an event, since the real pointer may rest there already."""
        self._enter(True)
        at, none = QPointF(self._on_canvas(y, x)), Qt.MouseButton.NoButton
        everywhere = self.canvas.mapToGlobal(at)
        event = QMouseEvent(QEvent.Type.MouseMove, at, everywhere, none, none, NONE)
        QApplication.sendEvent(self.canvas, event)
        QApplication.processEvents()

    def _press_again(self, y: float, x: float) -> None:
        QTest.mouseDClick(self.canvas, LEFT, NONE, self._on_canvas(y, x))

    def _enter(self, over: bool) -> None:
        middle = QPointF(self.canvas.rect().center())
        event = QEnterEvent(middle, middle, middle) if over else QEvent(QEvent.Type.Leave)
        QApplication.sendEvent(self.canvas, event)

    def _on_canvas(self, y: float, x: float) -> QPoint:
        view = self.viewer.window._qt_viewer.canvas.view
        column, row = view.scene.transform.map((x, y))[:2]
        return QPoint(round(float(column)), round(float(row)))


class TabHands:
    """Hands on the tab ``train`` or ``batch`` of the widget."""

    def __init__(self, window: Any, name: str) -> None:
        self.window, self._name = window, name

    @property
    def tab(self) -> Any:
        return getattr(self.window.widget, self._name)

    @property
    def status(self) -> Any:
        return self.tab.status.value()

    def open_tab(self) -> None:
        tabs = self.window.widget.tabs
        bar = tabs.tabBar()
        QTest.mouseClick(bar, LEFT, pos=bar.tabRect(tabs.indexOf(self.tab)).center())
        self.settle()

    def settle(self) -> None:
        """Wait until the tab has read what there is to choose from."""
        raise NotImplementedError

    def press(self, button: Any) -> None:
        assert button.isEnabled(), self.status
        assert button.isVisibleTo(self.tab), self.status
        QTest.mouseClick(button, LEFT)

    def until(self, condition: Callable[[], bool]) -> None:
        self.window.qtbot.waitUntil(condition, timeout=3 * SECONDS)

    def type(self, field: Any, text: str) -> None:
        field.selectAll()
        QTest.keyClick(field, Qt.Key.Key_Delete)
        QTest.keyClicks(field, text)
