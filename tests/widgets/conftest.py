"""A real viewer with the widget, driven by mouse and keys."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_simmat.widgets.main import SimMATWidget
from tests.widgets.scenes import grey

SECONDS = 180_000
"""Patience of a test with the worker, in milliseconds: torch is loaded once."""


class Window:
    """The viewer, the widget, and hands on mouse and keyboard."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.widget: SimMATWidget | None = None

    def open_widget(self) -> SimMATWidget:
        self.widget = SimMATWidget(self.viewer)
        # So that tests count what they ask for; what is encoded unasked has tests of its own.
        self.widget.segment.stack.panel.ahead.setChecked(False)
        self.viewer.window.add_dock_widget(self.widget, name="SimMAT", area="right")
        return self.widget

    def release(self) -> None:
        """Let the widget go, if it is still there, and see its thread end."""
        if self.widget is not None:
            worker = self.interaction.worker
            self.widget.release()
            assert worker.join(SECONDS / 1000), "the worker's thread goes on"
        self.widget = None

    def close_widget(self) -> None:
        """Take the widget out of its dock, as a person does, and see its thread end."""
        widget, worker = self.widget, self.interaction.worker
        self.widget = None
        self.viewer.window.remove_dock_widget(widget)
        assert worker.join(SECONDS / 1000), "the worker's thread goes on"

    @property
    def tab(self) -> Any:
        assert self.widget is not None
        return self.widget.segment

    @property
    def interaction(self) -> Any:
        return self.tab.interaction

    @property
    def status(self) -> Any:
        return self.tab.status.value()

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def idle(self) -> None:
        """Wait until nothing is pending in the window and the worker."""
        self.qtbot.waitUntil(lambda: self._is_idle(), timeout=SECONDS)

    def _is_idle(self) -> bool:
        """Whether a turn of the event loop leaves nothing to do, neither here nor there."""
        worker = self.interaction.worker
        was_idle = worker.idle  # what it told until then, this turn delivers
        QApplication.processEvents()
        return was_idle and worker.idle and not self.tab.busy

    def press(self, y: float, x: float) -> None:
        """Press the left button on a position of the world."""
        QTest.mouseClick(
            self.canvas,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
            self._on_canvas(y, x),
        )

    def take(self, tool: Any) -> None:
        """Take a tool in hand by its button."""
        QTest.mouseClick(tool, Qt.MouseButton.LeftButton)

    def click(self, y: float, x: float) -> None:
        """Press on a position of the world with the points tool, and wait for the answer."""
        self.take(self.tab.buttons.point)
        self.press(y, x)
        self.idle()

    def hover(self, y: float, x: float) -> None:
        """Move the mouse to a position of the world."""
        self._move(y, x)
        position, shown = self.viewer.cursor.position, self.viewer.dims.displayed
        assert np.allclose([position[axis] for axis in shown], (y, x), atol=2)

    def _move(self, y: float, x: float) -> None:
        """Move the mouse; by an event, since the real pointer may rest there already."""
        at, none = QPointF(self._on_canvas(y, x)), Qt.MouseButton.NoButton
        everywhere = self.canvas.mapToGlobal(at)
        event = QMouseEvent(
            QEvent.Type.MouseMove, at, everywhere, none, none, Qt.KeyboardModifier.NoModifier
        )
        QApplication.sendEvent(self.canvas, event)
        QApplication.processEvents()

    def double_click(self, y: float, x: float) -> None:
        """Press twice on a position of the world with the points tool, as a person does."""
        self.take(self.tab.buttons.point)
        self.press(y, x)
        QApplication.processEvents()
        left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        QTest.mouseDClick(self.canvas, left, none, self._on_canvas(y, x))
        self.idle()

    def click_row(self, row: int, *, double: bool = False) -> None:
        """Press on a row of the table of objects."""
        table = self.tab.panel.table
        self.qtbot.waitUntil(table.isVisible)
        where = table.visualRect(table.model().index(row, 0)).center()
        viewport, left = table.viewport(), Qt.MouseButton.LeftButton
        QTest.mouseClick(viewport, left, Qt.KeyboardModifier.NoModifier, where)
        if double:
            QTest.mouseDClick(viewport, left, Qt.KeyboardModifier.NoModifier, where)
        self.idle()

    def type_class(self, name: str) -> None:
        """Type a class into its field and press Enter."""
        field = self.tab.panel.category.lineEdit()
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
        self.take(self.tab.buttons.box)
        self.interaction.prompts.boxes.mode = mode
        self._drag([(y0, x0), (y1, x1)], slowly=slowly)

    def stroke(self, path: Sequence[tuple[float, float]]) -> None:
        """Draw a line with the tool for scribbles, and wait for the answer."""
        self.take(self.tab.buttons.scribble)
        self.press(*path[0])
        for (y0, x0), (y1, x1) in pairwise(path):
            for part in np.linspace(0, 1, 6):
                self._move(y0 + part * (y1 - y0), x0 + part * (x1 - x0))
        self.press(*path[-1])
        self.idle()

    def _drag(self, path: Sequence[tuple[float, float]], *, slowly: bool) -> None:
        left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        start, end = self._on_canvas(*path[0]), self._on_canvas(*path[-1])
        QTest.mousePress(self.canvas, left, none, start)
        for part in (0.3, 0.7, 1.0):
            for _ in range(20 if slowly else 1):
                QApplication.processEvents()
            QTest.mouseMove(self.canvas, start + (end - start) * part)
            QApplication.processEvents()  # a move waits in the queue, a press and a release do not
        QTest.mouseRelease(self.canvas, left, none, end)
        self.idle()

    def key(self, key: Any, modifiers: Any = Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key on the canvas."""
        QTest.keyClick(self.canvas, key, modifiers)
        self.idle()

    def choose(self, choice: Any, title: str) -> None:
        """Pick an entry of a list with the keyboard, and wait for what follows."""
        self.idle()
        step = Qt.Key.Key_Down if choice.findText(title) > choice.currentIndex() else Qt.Key.Key_Up
        for _ in range(choice.count()):
            if choice.currentText() != title:
                QTest.keyClick(choice, step)
        assert choice.currentText() == title
        self.idle()

    def _on_canvas(self, y: float, x: float) -> QPoint:
        view = self.viewer.window._qt_viewer.canvas.view
        column, row = view.scene.transform.map((x, y))[:2]
        return QPoint(round(float(column)), round(float(row)))


@pytest.fixture(scope="session", autouse=True)
def libraries_are_no_garbage() -> None:
    """Leave out what is imported once where garbage is looked for, as each test does some times."""
    for name in ("napari.qt", "napari.window", "torch", "napari_simmat.engine.predictor"):
        import_module(name)
    gc.collect()
    gc.freeze()


@pytest.fixture
def qtbot(qtbot: Any) -> Any:
    """pytest-qt's, with the same patience everywhere: a slow machine is no failure."""
    qtbot.waitUntil = partial(qtbot.waitUntil, timeout=SECONDS)
    return qtbot


@pytest.fixture
def open_window(
    make_napari_viewer: Callable[..., Any], qtbot: Any
) -> Iterator[Callable[[], Window]]:
    """Opens empty viewers on the (virtual) screen; `Window.open_widget` docks the widget."""
    windows: list[Window] = []

    def make() -> Window:
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(1000, 800)
        windows.append(Window(viewer, qtbot))
        qtbot.waitUntil(lambda: min(windows[-1].canvas.width(), windows[-1].canvas.height()) > 200)
        return windows[-1]

    yield make
    for window in windows:
        window.release()


@pytest.fixture
def window(open_window: Callable[[], Window]) -> Window:
    """One empty viewer."""
    return open_window()


@pytest.fixture
def ready(window: Window) -> Window:
    """The viewer with one grey image and the widget, encoded."""
    window.viewer.add_image(grey(), name="discs")
    window.open_widget()
    window.idle()
    return window
