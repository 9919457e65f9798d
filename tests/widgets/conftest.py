"""A real viewer with the widget, driven by mouse and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

napari = pytest.importorskip("napari", reason="the window's tests need napari with Qt")

from qtpy.QtCore import QPoint, Qt  # noqa: E402
from qtpy.QtTest import QTest  # noqa: E402

from napari_simmat.widgets.main import SimMATWidget  # noqa: E402

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

        def settled() -> bool:
            return self.interaction._task is None and self.interaction.worker.running is None

        QTest.qWait(20)  # timers of no delay
        self.qtbot.waitUntil(settled, timeout=SECONDS)
        QTest.qWait(20)  # queued signals

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
            at = start + (end - start) * part
            QTest.mouseMove(self.canvas, at)
            QTest.qWait(5)
        QTest.mouseRelease(self.canvas, left, none, end)
        self.idle()

    def key(self, key: Any, modifiers: Any = Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key on the canvas."""
        QTest.keyClick(self.canvas, key, modifiers)
        self.idle()

    def _on_canvas(self, y: float, x: float) -> QPoint:
        view = self.viewer.window._qt_viewer.canvas.view
        column, row = view.scene.transform.map((x, y))[:2]
        return QPoint(round(float(column)), round(float(row)))


@pytest.fixture
def window(make_napari_viewer: Callable[..., Any], qtbot: Any) -> Iterator[Window]:
    """An empty viewer on the (virtual) screen; `open_widget` docks the widget."""
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1000, 800)
    window = Window(viewer, qtbot)
    yield window
    if window.widget is not None:
        worker = window.interaction.worker
        window.widget.release()
        assert worker.join(SECONDS / 1000), "the worker's thread goes on"
    window.widget = None
