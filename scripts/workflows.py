"""Work of several people in the window, from an open image to a saved table, by real events.

Run ``python tests/with_screen.py python scripts/workflows.py``; names after it (biologist, ...)
take only those, ``--theme light`` another theme. Each press, key and choice is an action, opening
the image is not. Printed are actions and seconds to the first object and to the saved table, the
objects, the most controls that were seen at a time, and the layers that napari lists at the end; a
picture of each goes to ``build/workflows/``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIZE, WIDTH = (1280, 800), 380
TUTORIALS = ROOT / "docs" / "tutorials"
PICTURES = ROOT / "build" / "workflows"
PATIENCE = 600.0
NUCLEI = ((18, 22, 47), (22, 72, 74))
"""Plane, y, x in two nuclei of the embryo."""


class User:
    """Somebody in front of the window, whose actions are counted."""

    def __init__(self, theme: str) -> None:
        import napari
        from qtpy.QtCore import Qt

        from napari_simmat.widgets.main import SimMATWidget

        self.viewer = viewer = napari.Viewer(show=True)
        viewer.theme = theme
        viewer.window.resize(*SIZE)
        self.widget = SimMATWidget(viewer)
        self.widget.open_now()
        dock = viewer.window.add_dock_widget(self.widget, name="SimMAT", area="right")
        viewer.window._qt_window.resizeDocks([dock], [WIDTH], Qt.Orientation.Horizontal)
        self.tab = self.widget.segment
        self.actions = self.most = 0
        self.first: tuple[int, float] | None = None
        self.settle()
        self.begun = time.perf_counter()

    def open(self, layers: Sequence[Any]) -> None:
        """Open layers, as samples are, or files; the clock starts then."""
        from napari.layers import Layer

        for each in layers:
            if isinstance(each, Path):
                plugin = "napari" if each.suffix == ".tif" else "napari-simmat"
                self.viewer.open(each, plugin=plugin)
            else:
                self.viewer.add_layer(Layer.create(*each))
        self.begun = time.perf_counter()
        self.settle()
        self.viewer.reset_view()
        self.settle()

    def settle(self) -> None:
        """Let the event loop run until the window has nothing left to do."""
        from qtpy.QtCore import QEventLoop
        from qtpy.QtWidgets import QApplication

        worker, deadline, idle = self.tab.controller.inference.worker, time.monotonic(), 0
        while idle < 3:
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
            time.sleep(0.005)
            idle = 0 if self.tab.busy or worker.running else idle + 1
            if time.monotonic() - deadline > PATIENCE:
                raise SystemExit(f"the window is still busy: {self.tab.status.value()}")
        seen = controls(self.tab)
        self.most = max(self.most, len(seen))
        editor = self.tab.workspace.editor
        if self.first is None and editor is not None and editor.labels:
            self.first = self.actions, time.perf_counter() - self.begun

    def click(self, y: float, x: float) -> None:
        """Press on the image with the tool in hand; y, x in the world."""
        from qtpy.QtCore import QPoint, Qt

        canvas = self.viewer.window._qt_viewer.canvas
        column, row = canvas.view.scene.transform.map((x, y))[:2]
        where, none = (
            QPoint(round(float(column)), round(float(row))),
            Qt.KeyboardModifier.NoModifier,
        )
        hand().mouseClick(canvas.native, Qt.MouseButton.LeftButton, none, where)
        self.did()

    def key(self, key: str, modifiers: Any = None) -> None:
        """Press a key with the keyboard on the canvas."""
        from qtpy.QtCore import Qt

        canvas = self.viewer.window._qt_viewer.canvas.native
        none = Qt.KeyboardModifier.NoModifier
        hand().keyClick(canvas, getattr(Qt.Key, f"Key_{key}"), modifiers or none)
        self.did()

    def press(self, button: Any) -> None:
        """Press a button of the tab."""
        from qtpy.QtCore import Qt

        if button.visibleRegion().isEmpty():
            raise SystemExit(f"{button.text()} is not in sight")
        hand().mouseClick(button, Qt.MouseButton.LeftButton)
        self.did()

    def choose(self, choice: Any, title: str) -> None:
        """Open a list, and take the entry that begins so."""
        titles = [choice.itemText(number) for number in range(choice.count())]
        number = next(n for n, each in enumerate(titles) if each.startswith(title))
        choice.setCurrentIndex(number)
        choice.activated.emit(number)
        self.did(2)

    def menu(self, name: str) -> None:
        """Open the menu, and take an entry."""
        self.tab.entries[name].trigger()
        self.did(2)

    def everything(self, **options: Any) -> None:
        """Find all objects, and write the drafts."""
        self.press(self.tab.buttons.everything)
        if options:
            self.tab.automatic_panel.set_value(options["settings"])
        self.press(self.tab.automatic_panel.start)
        self.press(self.tab.buttons.commit)

    def save(self, folder: Path) -> None:
        """Press Save, and confirm the name."""
        from qtpy import QtWidgets

        dialog: Any = QtWidgets.QFileDialog
        usual = dialog.getSaveFileName
        answer = (str(folder / "mine_labels.tif"), "")
        dialog.getSaveFileName = staticmethod(lambda *_, **__: answer)
        self.press(self.tab.object_panel.save)
        while not (folder / "mine_objects.csv").exists():
            self.settle()
        dialog.getSaveFileName = usual
        self.did()

    def did(self, count: int = 1) -> None:
        """Count what was done, and wait for what follows."""
        self.actions += count
        self.settle()

    def finish(self, name: str) -> str:
        """Take a picture, and close; the row of the table."""
        seconds = time.perf_counter() - self.begun
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)
        save_picture(pixels, PICTURES / f"{name}-{self.viewer.theme}.png")
        editor = self.tab.workspace.editor
        objects = 0 if editor is None else len(editor.labels)
        first, after = self.first or (0, 0.0)
        figures = f"{first:>6}{after:7.1f}{self.actions:8}{seconds:8.1f}{objects:9}{self.most:10}"
        row = f"{name:<16}{figures}  {', '.join(listed(self.viewer))}"
        worker = self.tab.controller.inference.worker
        self.widget.release()
        worker.join(PATIENCE)
        self.viewer.close()
        return row


def hand() -> Any:
    """Qt's own hands."""
    from qtpy.QtTest import QTest

    return QTest


def controls(tab: Any) -> list[Any]:
    """What is seen to press, choose or type into, but for the door to the settings.

    The pictures of the candidates are one choice, as the entries of a list are.
    """
    from qtpy import QtWidgets

    kinds = (
        *(
            QtWidgets.QAbstractButton,
            QtWidgets.QComboBox,
            QtWidgets.QAbstractSpinBox,
            QtWidgets.QAbstractSlider,
        ),
        *(QtWidgets.QLineEdit, QtWidgets.QAbstractItemView),
    )
    inner = (QtWidgets.QAbstractItemView, QtWidgets.QAbstractSpinBox, QtWidgets.QComboBox)
    pictures = tab.candidates.buttons[1:]
    return [
        each
        for each in tab.findChildren(QtWidgets.QWidget)
        if isinstance(each, kinds)
        and each.isVisible()
        and each is not tab.menu
        and each not in pictures
        and not isinstance(each, (QtWidgets.QScrollBar, QtWidgets.QHeaderView))
        and not isinstance(each.parentWidget(), inner)
    ]


def listed(viewer: Any) -> list[str]:
    """The layers in napari's own list, from the top."""
    from napari._qt.containers import QtLayerList

    view = viewer.window._qt_window.findChild(QtLayerList)
    rows = [row for row in range(view.model().rowCount()) if not view.isRowHidden(row)]
    return [view.model().index(row, 0).data() for row in rows]


def save_picture(pixels: np.ndarray, path: Path) -> None:
    """Write what the window shows."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels[..., :3])).save(path)


def centers(labels: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Where the largest known objects are clicked."""
    from napari_simmat.engine.masks import interior_point

    largest = np.argsort(np.bincount(labels.ravel())[1:])[::-1][:count] + 1
    return [interior_point(labels == label, ties="median") for label in largest]


def beginner(user: User, folder: Path) -> None:
    """A sample of the empty tab: one object by a click, the others as drafts."""
    user.press(user.tab.welcome.samples[0])
    user.begun = time.perf_counter()
    user.click(125, 206)
    user.key("C")
    user.everything()
    user.save(folder)


def biologist(user: User, folder: Path) -> None:
    """Two stains: three cells by clicks with a class, the others as drafts like them."""
    from napari_simmat.widgets.samples import fluorescence

    *stains, (truth, _, _) = fluorescence()
    user.open(stains)
    for y, x in centers(truth, 3):
        user.click(y, x)
        user.key("C")
    user.everything()
    user.save(folder)


def radiologist(user: User, folder: Path) -> None:
    """A lesion of a head: a click on a slice, followed through the others."""
    nibabel: Any = import_module("nibabel")
    user.open([TUTORIALS / "ms-brain_FLAIR.nii.gz"])
    lesions = np.asarray(nibabel.load(TUTORIALS / "ms-brain_lesions.nii.gz").dataobj).T > 0
    plane = int(lesions.sum((1, 2)).argmax())
    from scipy.ndimage import label

    layer = next(each for each in user.viewer.layers if type(each).__name__ == "Image")
    (y, x), *_ = centers(label(lesions[plane])[0], 1)
    user.viewer.dims.set_current_step(0, plane)
    user.did()
    user.click(*layer.data_to_world((plane, y, x))[-2:])
    user.press(user.tab.stack_panel.start)
    user.key("C")
    user.save(folder)


def many_channels(user: User, folder: Path) -> None:
    """Four polarizers, opened in another order, with the model for them."""
    from napari_simmat.widgets.samples import polarization

    *layers, (truth, _, _) = polarization()
    user.open([layers[number] for number in (2, 0, 3, 1)])
    user.menu("model")
    user.choose(user.tab.models.choice, "polarization")
    for y, x in centers(truth, 4):
        user.click(y, x)
        user.key("C")
    user.save(folder)


def remote_sensing(user: User, folder: Path) -> None:
    """Six bands with the model for them, a class for each object."""
    from napari_simmat.widgets.samples import multispectral

    *bands, (truth, _, _) = multispectral()
    user.open(bands)
    user.menu("model")
    user.choose(user.tab.models.choice, "multispectral")
    for y, x in centers(truth, 3):
        user.click(y, x)
        user.key("C")
    user.save(folder)


def pathologist(user: User, folder: Path) -> None:
    """A slide: three nuclei by clicks, the others of the plane like them."""
    from napari_simmat.io.readers import read_image

    user.open([TUTORIALS / "stained.svs"])
    truth = np.asarray(read_image(TUTORIALS / "stained_labels.tif").data)
    layer = next(each for each in user.viewer.layers if type(each).__name__ == "Image")
    shown = (layer.data[0] if layer.multiscale else layer.data).shape[:2]
    step = shown[0] / truth.shape[0]
    for y, x in centers(truth, 3):
        user.click(*layer.data_to_world((y * step, x * step))[-2:])
        user.key("C")
    user.everything()
    user.save(folder)


def plant_scientist(user: User, folder: Path) -> None:
    """Nuclei of an embryo: two of them by clicks, each followed through the planes."""
    from qtpy.QtCore import Qt

    user.open([TUTORIALS / "embryo.tif"])
    layer = next(each for each in user.viewer.layers if type(each).__name__ == "Image")
    for plane, *place in NUCLEI:
        user.viewer.dims.set_current_step(0, plane)
        user.did()
        user.click(*layer.data_to_world((plane, *place))[-2:])
        user.key("S", Qt.KeyboardModifier.ShiftModifier)
        user.key("C")
    user.save(folder)


WORKFLOWS: dict[str, Callable[[User, Path], None]] = {
    each.__name__: each
    for each in (
        *(beginner, biologist, radiologist, many_channels),
        *(remote_sensing, pathologist, plant_scientist),
    )
}


def main() -> None:
    """Go through the workflows, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*WORKFLOWS, []], default=[])
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    chosen = parser.parse_args()
    print(
        f"{'':<16}{'first object':>13}{'saved table':>16}\n{'':<16}{'act.':>6}{'s':>7}{'act.':>8}"
        f"{'s':>8}{'objects':>9}{'controls':>10}  listed layers"
    )
    for name in chosen.names or WORKFLOWS:
        with tempfile.TemporaryDirectory() as home:
            os.environ["NAPARI_SIMMAT_HOME"] = home
            os.environ["NAPARI_CONFIG"] = str(Path(home) / "napari.yaml")
            user = User(chosen.theme)
            WORKFLOWS[name](user, Path(home))
            print(user.finish(name), flush=True)


if __name__ == "__main__":
    main()
