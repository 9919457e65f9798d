"""The films of the documentation, taken from the real window.

Run ``python tests/with_screen.py python scripts/films.py``; it writes ``docs/images/*.webp``
and the pictures that are stills of them. Names after it (demo, lesions, ...) take only those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from screenshots import COINS, FOLDER, TALL, click, save, settle, take, wait, window

FILMED = (1180, 720)
CUT = slice(100, 330)
"""Columns of the coins that fill the canvas of the film."""
TUTORIALS = FOLDER.parent / "tutorials"
NUCLEI = ((18, 22, 47), (22, 72, 74))
"""Plane, y, x in two nuclei of the embryo."""
SEEN = (95, 43)
"""y, x in a lesion on slice 5."""
UNSEEN = (65, 31)
"""y, x in one on slice 8."""


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
        from PIL import Image

        picture = self.picture(pressed=pressed)
        height = round(picture.height * self._width / picture.width)
        self._frames.append(picture.resize((self._width, height), Image.Resampling.LANCZOS))
        self._durations.append(milliseconds)

    def picture(self, *, pressed: bool = False) -> Any:
        """What the window shows now, and the pointer."""
        from PIL import Image, ImageDraw

        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
        draw = ImageDraw.Draw(picture)
        x, y = self._pointer
        if pressed:
            draw.ellipse((x - 12, y - 12, x + 12, y + 12), outline="white", width=3)
        draw.polygon([(x + dx, y + dy) for dx, dy in self.POINTER], fill="white", outline="black")
        return picture

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

    def point_on(self, layer: Any, position: Sequence[float], steps: int = 5) -> None:
        """Move the pointer to y, x of an image."""
        from qtpy.QtCore import QPoint

        canvas = self.viewer.window._qt_viewer.canvas
        node = canvas.layer_to_visual[layer].node
        x, y = node.get_transform("visual", "canvas").map((position[1], position[0]))[:2]
        place = canvas.native.mapTo(self.viewer.window._qt_window, QPoint(round(x), round(y)))
        self.point(place.x(), place.y(), steps)

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
        size, seconds = path.stat().st_size // 1024, sum(self._durations) / 1000
        print(f"{path.name}: {first.width} x {first.height}, {size} KiB, {seconds:.0f} s")


def demo() -> None:
    """The film on the first page: clicks and commits, then Everything."""
    from skimage.data import coins as image

    with window(FILMED) as (viewer, widget):
        tab = widget.segment
        layer = viewer.add_image(image()[:, CUT], name="coins")
        settle(tab)
        viewer.reset_view()
        tab.buttons.tools["point"].click()
        settle(tab)
        film = Film(viewer)
        film.hold(800)
        for y, x in COINS[:3]:
            position = (y, x - CUT.start)
            film.point_on(layer, position)
            film.hold(250, pressed=True)
            click(tab, position)
            film.hold(1000)
            tab.buttons.commit.click()
            settle(tab)
            film.hold(700)
        press(film, tab, tab.buttons.everything, 500)
        film.point_at(tab.automatic_panel.start)
        film.hold(300, pressed=True)
        tab.automatic_panel.start.click()
        settle(tab)
        film.hold(2000)
        film.point_at(tab.buttons.commit)
        film.hold(300, pressed=True)
        tab.buttons.commit.click()
        settle(tab)
        film.hold(2500)
        film.save("demo")


def embryo() -> None:
    """The first tutorial: a nucleus is clicked, followed through the planes, and committed."""
    with window(TALL) as (viewer, widget):
        tab, panel = widget.segment, widget.segment.stack_panel
        [layer] = viewer.open(TUTORIALS / "embryo.tif")
        layer.scale = 2.18, 1, 1
        settle(tab)
        viewer.reset_view()
        film = Film(viewer)

        def show(plane: int) -> None:
            viewer.dims.set_current_step(0, plane)
            settle(tab)

        show(NUCLEI[0][0])  # first what one sees before the film plays
        film.hold(1000)
        for plane in range(4, 19, 2):
            show(plane)
            film.hold(150)
        for plane, *place in NUCLEI:
            show(plane)
            tab.buttons.tools["point"].click()
            film.point_on(layer, place)
            film.hold(250, pressed=True)
            click(tab, (plane, *place))
            film.hold(1500)
            press(film, tab, panel.start, 1500)
            for near in (*range(plane - 5, plane), *range(plane + 1, plane + 6)):
                show(near)
                film.hold(400)
            press(film, tab, tab.buttons.commit, 1500)
        for plane in range(12, 27):
            show(plane)
            film.hold(250)
        viewer.dims.ndisplay = 3
        settle(tab)
        for angle in range(0, 91, 6):
            viewer.camera.angles = (0, angle, 90)
            film.hold(150)
        film.hold(2500)
        film.save("embryo")


def lesions() -> None:
    """The second tutorial: twelve lesions are learned, one of another slice is clicked."""
    with window(TALL) as (viewer, widget):
        tab, panel = widget.segment, widget.segment.learn_panel
        for name in ("T2", "T1", "FLAIR"):
            [layer] = viewer.open(TUTORIALS / f"ms-brain_{name}.nii.gz", plugin="napari-simmat")
        settle(tab)
        viewer.dims.set_current_step(0, 8)
        viewer.reset_view()
        settle(tab)
        film = Film(viewer)
        film.point_at(tab.channels.image)
        tab.channels.image.setCurrentIndex(0)
        tab.channels.image.activated.emit(0)
        settle(tab)
        film.hold(1200)
        film.point_on(layer, UNSEEN)
        film.hold(250, pressed=True)
        click(tab, (8, *UNSEEN))
        film.hold(1800)  # the brain
        press(film, tab, tab.buttons.clear, 500)
        viewer.dims.set_current_step(0, 5)
        settle(tab)
        film.hold(800)
        truth = TUTORIALS / "ms-brain_twelve-lesions.nii.gz"
        [outlines] = viewer.open(truth, plugin="napari-simmat", layer_type="labels")
        tab.sections["model"].set_open(True)
        settle(tab)
        film.point_at(tab.objects)
        tab.objects.setCurrentText(outlines.name)
        tab.objects.activated.emit(tab.objects.currentIndex())
        settle(tab)
        film.hold(1500)
        tab.sections["learn"].set_open(True)
        settle(tab)
        film.point_at(panel.start)
        film.hold(250, pressed=True)
        panel.start.click()
        learning, first = tab.learning, True
        while learning.busy:
            said = learning.progress.message
            film.hold(500)
            if first and getattr(learning.progress, "after", None) is not None:
                first = False
                click(tab, (5, *SEEN))  # predicted meanwhile
                film.hold(800)
                save(viewer, tab, "window-learning")
                press(film, tab, tab.buttons.clear, 300)
            wait(lambda said=said: not learning.busy or learning.progress.message != said)
        settle(tab)
        assert tab.workspace.session.adapted is not None, tab.status.value()
        film.hold(3000)
        viewer.dims.set_current_step(0, 8)
        settle(tab)
        film.point_on(layer, UNSEEN)
        film.hold(250, pressed=True)
        click(tab, (8, *UNSEEN))
        film.hold(3000)
        save(viewer, tab, "window-learned")
        film.save("lesions")


def press(film: Film, tab: Any, button: Any, after: int) -> None:
    """Point at a button, press it, and show for so many milliseconds what it did."""
    film.point_at(button)
    film.hold(250, pressed=True)
    button.click()
    settle(tab)
    film.hold(after)


if __name__ == "__main__":
    take({each.__name__: each for each in (demo, embryo, lesions)})
