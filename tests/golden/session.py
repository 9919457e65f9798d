"""Work in the Segment tab that leaves a session file: ``python -m tests.golden.session FOLDER``.

Run on a (virtual) screen. The file and what the layers held at its end were recorded once, by the
version whose files every later one has to read; a test restores it. Do not record it anew where
reading it fails: then a user's own file could not be restored either.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_simmat.io.files import user_folder
from tests.golden.commands import discs
from tests.golden.scenes import digest
from tests.widgets.conftest import SECONDS, Window

CENTERS = ((40, 44), (44, 120), (110, 50), (112, 130))
RADII = (20, 24, 22, 17)
SHAPE = (150, 180)
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


def stack() -> np.ndarray:
    """Three planes (Z, Y, X) of discs as uint8, from whole numbers: equal on every machine."""
    return np.stack([_plane(z)[0] for z in range(3)])


def known() -> np.ndarray:
    """Their labels 1 to 4 (Z, Y, X)."""
    return np.stack([_plane(z)[1] for z in range(3)])


def _plane(z: int) -> tuple[np.ndarray, np.ndarray]:
    places = [(y, x, r - 3 * abs(z - 1)) for (y, x), r in zip(CENTERS, RADII, strict=True)]
    return discs(SHAPE, places, z)


def open_stack(window: Any) -> None:
    """Show the stack and its middle plane, and open the widget."""
    window.viewer.add_image(stack(), name="stack")
    window.open_widget()
    window.viewer.dims.set_current_step(0, 1)
    window.viewer.reset_view()
    window.idle()


def work_on(window: Any) -> None:
    """Use every kind of prompt and every action on objects, and leave prompts open."""
    commit = Qt.Key.Key_C
    (y0, x0), (y1, x1), (y2, x2), (y3, x3) = CENTERS
    window.click(y1, x1)
    window.key(commit)
    window.viewer.layers.remove("SimMAT objects")
    window.idle()
    window.click(y0, x0)
    window.key(commit)
    window.tab.sections["objects"].set_open(True)
    window.click_row(0)
    window.type_class("nucleus")
    window.click(y1, x1)
    window.key(Qt.Key.Key_T)  # a negative point
    window.click(y1 + 10, x1 + 10)
    window.key(Qt.Key.Key_T)
    window.key(Qt.Key.Key_Q)
    window.key(commit)
    window.drag(y2 - 23, x2 - 23, y2 + 23, x2 + 23)
    window.key(commit)
    window.drag(y3 - 18, x3 - 18, y3 + 18, x3 + 18, mode="add_ellipse")
    window.key(commit)
    window.hover(y3, x3)
    window.key(Qt.Key.Key_D, SHIFT)
    window.key(Qt.Key.Key_Z, CTRL)
    window.stroke([(y3 - 8, x3 - 8), (y3, x3), (y3 + 8, x3 + 6)])
    window.key(Qt.Key.Key_C, SHIFT)  # clear
    window.click(y0, x0)
    window.click(y1, x1)
    window.key(Qt.Key.Key_G)
    window.hover(y0, x0)
    window.key(Qt.Key.Key_K)
    window.key(Qt.Key.Key_Z, CTRL)
    window.key(Qt.Key.Key_Z, CTRL)
    window.key(Qt.Key.Key_Z, CTRL | SHIFT)
    layer = window.viewer.layers["SimMAT objects"]
    rows, columns = np.mgrid[70:78, 80:90]
    where = (np.full(rows.size, 1), rows.ravel(), columns.ravel())
    layer.data_setitem(where, 9)  # painted
    window.idle()
    layer.data = layer.data.copy()
    window.idle()
    window.hover(y2, x2)
    window.key(Qt.Key.Key_E)
    window.click(y2 + 4, x2 + 4)
    window.key(commit)
    window.viewer.dims.set_current_step(0, 2)
    window.idle()
    labels = window.viewer.add_labels(known() * (known() == 4), name="known", visible=False)
    window.viewer.layers.selection.active = window.viewer.layers["stack"]
    window.controller.prompts.take_masks(labels)
    window.idle()
    window.key(commit)
    window.viewer.dims.set_current_step(0, 1)
    window.idle()
    window.click(y3, x3)
    window.key(Qt.Key.Key_S, SHIFT)  # through the stack
    window.viewer.dims.set_current_step(0, 0)
    window.idle()
    window.click(y3 + 4, x3 + 4)  # corrected on another plane
    window.key(commit)
    window.viewer.dims.set_current_step(0, 1)
    window.idle()
    window.double_click(y0, x0)  # opens the object there, and takes back its first click
    window.key(Qt.Key.Key_C, SHIFT)
    window.viewer.dims.order = (1, 0, 2)  # from the side
    window.viewer.dims.set_current_step(1, y1)
    window.viewer.reset_view()
    window.idle()
    window.click(1, x1)
    window.viewer.dims.order = (0, 1, 2)
    window.viewer.reset_view()
    window.idle()
    window.click(y2, x2)
    window.key(Qt.Key.Key_N)  # one more object
    window.click(y0, x0)
    window.drag(y1 - 25, x1 - 25, y1 + 25, x1 + 25)
    window.stroke([(y3 - 6, x3 - 6), (y3 + 6, x3 + 6)])


def seen(window: Any) -> dict[str, Any]:
    """What a person sees of it: labels, classes and prompts, and how far it can be undone."""
    layers, session = window.viewer.layers, window.workspace.session
    objects, classes = layers["SimMAT objects"].data, layers["SimMAT classes"].data
    points, boxes = layers["SimMAT points"], layers["SimMAT boxes"]
    return {
        "objects": digest(np.asarray(objects).astype(np.int64)),
        "labels": {str(n): int((objects == n).sum()) for n in np.unique(objects)},
        "classes": digest(np.asarray(classes).astype(np.int64)),
        "points": np.round(points.data, 3).tolist(),
        "point_features": json.loads(points.features.to_json(orient="records")),
        "boxes": [np.round(each, 3).tolist() for each in boxes.data],
        "box_kinds": list(boxes.shape_type),
        "box_labels": boxes.features["label"].tolist(),
        "operations": len(session.history),
    }


def main(folder: Path) -> None:
    """Do the work in a window of its own, and keep the file and what was seen."""
    import napari

    class Patience:
        @staticmethod
        def waitUntil(condition: Callable[[], bool], timeout: int = SECONDS) -> None:  # noqa: N802
            deadline = time.monotonic() + timeout / 1000
            while not condition():
                QApplication.processEvents()
                time.sleep(0.002)
                assert time.monotonic() < deadline

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1000, 800)
    window = Window(viewer, Patience)
    open_stack(window)
    work_on(window)
    values = seen(window)
    (path,) = user_folder("sessions").glob("*.jsonl")
    shutil.copy(path, folder / "session.jsonl")
    (folder / "session_seen.json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    window.close_widget()
    viewer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
