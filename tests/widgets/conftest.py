"""A real viewer with the widget, driven by mouse and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_simmat.widgets.main import SimMATWidget
from tests.widgets.scenes import grey

SECONDS = 60_000
"""Patience of a test with the worker, in milliseconds: torch is loaded once."""


class Window:
    """The viewer, the widget, and hands on mouse and keyboard."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.widget: SimMATWidget | None = None

    def open_widget(self) -> SimMATWidget:
        self.widget = SimMATWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="SimMAT", area="right")
        return self.widget

    def release(self) -> None:
        """Let the widget go, if it is still there, and see its thread end."""
        if self.widget is not None:
            worker = self.interaction.worker
            self.widget.release()
            assert worker.join(SECONDS / 1000), "the worker's thread goes on"
        self.widget = None

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
        QApplication.processEvents()
        return not self.tab.busy and self.interaction.worker.running is None

    def press(self, y: float, x: float) -> None:
        """Press the left button on a position of the world."""
        QTest.mouseClick(
            self.canvas,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
            self._on_canvas(y, x),
        )

    def click(self, y: float, x: float) -> None:
        """Press on a position of the world with the points tool, and wait for the answer."""
        self.interaction.prompts.draw_points()
        self.press(y, x)
        self.idle()

    def drag(self, y0: float, x0: float, y1: float, x1: float) -> None:
        """Draw a rectangle with the box tool, and wait for the answer."""
        self.interaction.prompts.draw_boxes()
        left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        start, end = self._on_canvas(y0, x0), self._on_canvas(y1, x1)
        QTest.mousePress(self.canvas, left, none, start)
        for part in (0.3, 0.7, 1.0):
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
