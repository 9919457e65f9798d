"""A real window for the documentation's pictures, and how they are saved."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE = (1280, 780)
"""Of the window in pixels: its text can be read in the documentation's column."""
TALL = (1280, 900)
"""Where more of the tab is open."""
COLORS = 256
PATIENCE = 180.0
TRAINING = 1800.0
"""Seconds for a training of so many steps."""


@contextmanager
def window(size: tuple[int, int] = SIZE) -> Iterator[tuple[Any, Any]]:
    """An empty viewer and the widget in it."""
    import napari

    from napari_simmat.widgets.main import SimMATWidget

    viewer = napari.Viewer(title="napari", show=True)
    viewer.window.resize(*size)
    widget = SimMATWidget(viewer)
    viewer.window.add_dock_widget(widget, name="SimMAT", area="right")
    try:
        yield viewer, widget
    finally:
        worker = widget.segment.controller.inference.worker
        widget.release()
        worker.join(PATIENCE)
        viewer.close()


def click(tab: Any, position: Sequence[float]) -> None:
    """Put a point of the current sign at y, x."""
    settle(tab)
    tab.buttons.point.click()
    tab.workspace.prompt_layers.points.add(position)
    tab.workspace.prompt_layers.points.selected_data = set()
    settle(tab)


def rectangle(y0: float, x0: float, y1: float, x1: float) -> np.ndarray:
    """Its corners, as napari draws them."""
    return np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)], dtype=float)


def wait(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds, and what follows is drawn."""
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + TRAINING
    after = 0
    while after < 5:
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
        time.sleep(0.01)
        after = after + 1 if condition() else 0
        if time.monotonic() > deadline:
            raise SystemExit("the window is still busy")


def settle(tab: Any) -> None:
    """Let the event loop run until the window has nothing left to do."""
    from qtpy.QtCore import QEventLoop
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + PATIENCE
    idle = 0
    while idle < 5:  # turns of the loop: what has been asked for is also drawn
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
        idle = 0 if tab.busy or tab.controller.inference.worker.running else idle + 1
        if time.monotonic() > deadline:
            raise SystemExit(f"the window is still busy: {tab.status.value()}")


def save(viewer: Any, tab: Any, name: str) -> None:
    """Save what the window shows, in few colors; how long it took differs from run to run."""
    tab.status.set_value(replace(tab.status.value(), seconds=None))
    write(viewer.screenshot(canvas_only=False, flash=False), name)


def save_tab(widget: Any, name: str) -> None:
    """Save the widget alone."""
    from PIL import Image

    tab = widget.segment
    if tab.status.value().kind == "done":
        tab.status.set_value(replace(tab.status.value(), seconds=None))
    tab.status.time.clear()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "tab.png")
        widget.grab().save(path)
        write(np.asarray(Image.open(path).convert("RGB")), name)


class Film:
    """Frames of the window with a mouse pointer, saved as an animated WebP.

    Parameters
    ----------
    viewer
        Whose window is filmed.
    width
        Of the picture in pixels.
    """

    POINTER = ((0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12))
    """Outline of an arrow, x and y."""

    def __init__(self, viewer: Any, width: int = 900) -> None:
        self.viewer = viewer
        self._width = width
        self._frames: list[Any] = []
        self._durations: list[int] = []
        self._pointer = (40.0, 300.0)

    def hold(self, milliseconds: int, pressed: bool = False) -> None:
        """Show what the window shows now."""
        from PIL import Image, ImageDraw

        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
        draw = ImageDraw.Draw(picture)
        x, y = self._pointer
        if pressed:
            draw.ellipse((x - 12, y - 12, x + 12, y + 12), outline="white", width=3)
        draw.polygon([(x + dx, y + dy) for dx, dy in self.POINTER], fill="white", outline="black")
        height = round(picture.height * self._width / picture.width)
        self._frames.append(picture.resize((self._width, height), Image.Resampling.LANCZOS))
        self._durations.append(milliseconds)

    def point(self, x: float, y: float, steps: int = 5) -> None:
        """Move the pointer to a pixel of the window."""
        x0, y0 = self._pointer
        for step in range(1, steps + 1):
            share = step / steps
            self._pointer = (x0 + share * (x - x0), y0 + share * (y - y0))
            self.hold(60)

    def point_at(self, widget: Any) -> None:
        """Move the pointer to the middle of a widget, which is scrolled into sight."""
        from qtpy.QtCore import QPoint
        from qtpy.QtWidgets import QApplication, QScrollArea

        area = widget
        while area is not None and not isinstance(area, QScrollArea):
            area = area.parentWidget()
        if area is not None:
            area.ensureWidgetVisible(widget)
            QApplication.processEvents()
        window = self.viewer.window._qt_window
        place = widget.mapTo(window, QPoint(widget.width() // 2, widget.height() // 2))
        self.point(place.x(), place.y())

    def point_on(self, layer: Any, position: Sequence[float]) -> None:
        """Move the pointer to y, x of an image."""
        from qtpy.QtCore import QPoint

        canvas = self.viewer.window._qt_viewer.canvas
        node = canvas.layer_to_visual[layer].node
        x, y = node.get_transform("visual", "canvas").map((position[1], position[0]))[:2]
        place = canvas.native.mapTo(self.viewer.window._qt_window, QPoint(round(x), round(y)))
        self.point(place.x(), place.y())

    def save(self, name: str) -> None:
        """Write all frames; the film repeats."""
        path = FOLDER / f"{name}.webp"
        first, *others = self._frames
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=self._durations,
            loop=0,
            quality=70,
            method=6,
        )
        print(f"{path.name}: {first.width} x {first.height}, {path.stat().st_size // 1024} KiB")


def write(pixels: np.ndarray, name: str) -> None:
    """Save a picture (Y, X, 3 or 4) in few colors."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3])).quantize(
        COLORS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
    )
    path = FOLDER / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
    print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size // 1024} KiB")
