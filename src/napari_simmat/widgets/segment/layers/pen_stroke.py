"""The path of the mouse while a line is drawn: each event of Qt, and where it lies in the world.

napari tells a tool of a move some tens of times a second, and late: a fast hand goes far in
between, and is elsewhere by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QWidget

_MOVES = (QEvent.Type.MouseMove, QEvent.Type.MouseButtonRelease)


class Stroke(QObject):
    """A line that is being drawn.

    Parameters
    ----------
    viewer
        In which.
    press
        napari's event of the press.
    is_box
        Whether it is a box from the press to where the mouse is.

    Attributes
    ----------
    canvas
        The widget that is drawn on; None if a program made the event.
    is_box
        As given.
    """

    def __init__(self, viewer: Viewer, press: Any, *, is_box: bool = False) -> None:
        super().__init__()
        self.is_box = is_box
        self._camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
        self._shown = list(viewer.dims.displayed[-2:])
        self._place = np.array(press.position, dtype=float)
        self._world: list[tuple[float, float]] = []
        self.canvas = _canvas_at(press)
        self.follow(press)
        if self.canvas is not None:
            self.canvas.installEventFilter(self)

    def follow(self, event: Any) -> None:
        """Take an event of napari's, which knows where in the world it is.

        A move only says which place of the world lies where on the canvas, if Qt's events tell
        where the mouse has been: it comes after later ones of those.
        """
        at = np.array(event.position, dtype=float)[self._shown]
        self._anchor = np.array(event.pos, dtype=float)[:2], at
        if self.canvas is None or event.type != "mouse_move":
            self._add(at)

    def end(self) -> None:
        """Stop following the mouse."""
        if self.canvas is not None:
            self.canvas.removeEventFilter(self)

    def eventFilter(self, _: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Take an event of Qt's, and let it pass."""
        if isinstance(event, QMouseEvent) and event.type() in _MOVES:
            at = event.position()
            self._add(self._to_world((at.x(), at.y())))
        return False

    @property
    def length(self) -> float:
        """In screen pixels."""
        steps = np.diff(np.array(self._world), axis=0)
        return float(np.linalg.norm(steps, axis=1).sum() * self._camera.zoom)

    @property
    def path(self) -> NDArray[np.float64]:
        """Positions (N, 2) along the two axes of the world that are shown."""
        if not self.is_box:
            return np.array(self._world)
        (y0, x0), (y1, x1) = self._world[0], self._world[-1]
        return np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0), (y0, x0)])

    def positions(self, path: NDArray[np.float64]) -> NDArray[np.float64]:
        """Such positions in all axes of the viewer (N, ndim), on the plane of the press."""
        at = np.repeat(self._place[np.newaxis], len(path), axis=0)
        at[:, self._shown] = path
        return at

    def on_canvas(self) -> list[tuple[float, float]]:
        """The path as x, y on the canvas, as the camera is now."""
        screen, world = self._anchor
        rows = (self.path - world) * self._signs * self._camera.zoom
        return [(float(x), float(y)) for y, x in rows + screen[::-1]]

    def _to_world(self, screen: Sequence[float]) -> NDArray[np.float64]:
        known, world = self._anchor
        moved = (np.array(screen) - known)[::-1] / self._camera.zoom
        return np.asarray(world + self._signs * moved)

    @property
    def _signs(self) -> NDArray[np.float64]:
        """Whether rows go down on the canvas, and columns to the right."""
        turned = getattr(self._camera, "orientation2d", ("down", "right"))
        return np.array([1.0 if str(side) in ("down", "right") else -1.0 for side in turned])

    def _add(self, at: NDArray[np.float64]) -> None:
        place = float(at[0]), float(at[1])
        if not self._world or self._world[-1] != place:
            self._world.append(place)


def _canvas_at(event: Any) -> QWidget | None:
    """The canvas that an event of napari's came from."""
    native = getattr(event, "native", None)
    if native is None:
        return None
    at = native.globalPosition().toPoint()
    for widget in QApplication.allWidgets():
        is_canvas = hasattr(widget, "_vispy_canvas") and widget.isVisible()
        if is_canvas and widget.rect().contains(widget.mapFromGlobal(at)):
            return widget
    return None
