"""How much memory a very large image takes: a 40 000 x 40 000 multiscale zarr image in the window.

Run ``python scripts/with_screen.py python scripts/large.py``. It writes the image (a bright disc on
a dark ground, most chunks empty) into a temporary folder, opens it in napari beside the Segment
tab, clicks on the disc and commits; printed is the memory above that of the empty window, and how
well the object lies on the disc.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

SIDE, LEVELS, CHUNK = 40_000, 6, 1000
CENTER, RADIUS = (26_000, 14_000), 3000
PATIENCE = 300.0


def main() -> None:
    """Open, click, commit, and say what it took."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("NAPARI_SIMMAT_HOME", folder)
        os.environ.setdefault("NAPARI_CONFIG", str(Path(folder) / "napari.yaml"))
        levels = written(Path(folder) / "slide.zarr")
        run(levels)


def written(path: Path) -> list[Any]:
    """The levels of the image, the finest first, as zarr arrays on the disk."""
    import zarr

    group = zarr.open_group(str(path), mode="w")
    levels = []
    for level in range(LEVELS):
        factor = 2**level
        side = SIDE // factor
        chunk = min(CHUNK, side)
        array = group.create_array(
            str(level), shape=(side, side), chunks=(chunk, chunk), dtype="uint8", fill_value=40
        )
        (y0, x0), radius = (np.array(CENTER) / factor), RADIUS / factor
        for top in range(0, side, chunk):
            for left in range(0, side, chunk):
                y, x = np.mgrid[top : min(top + chunk, side), left : min(left + chunk, side)]
                inside = np.hypot(y + 0.5 - y0, x + 0.5 - x0) < radius
                if inside.any():
                    array[top : top + chunk, left : left + chunk] = np.where(inside, 200, 40)
        levels.append(array)
    return levels


def run(levels: list[Any]) -> None:
    """The window with the image, one click and one commit."""
    import napari

    from napari_simmat.widgets.main import SimMATWidget

    viewer = napari.Viewer(show=True)
    widget = SimMATWidget(viewer)
    viewer.window.add_dock_widget(widget, name="SimMAT", area="right")
    worker = widget.segment.controller.inference.worker
    prompts = widget.segment.workspace.prompt_layers
    until(lambda: not widget.segment.busy)
    memory = Memory()
    viewer.add_image(levels, multiscale=True, name="slide", contrast_limits=(0, 255))
    until(lambda: not widget.segment.busy and worker.running is None)
    print(widget.segment.status.value().text)
    prompts.draw_points()
    layer: Any = prompts.points
    layer.add(layer.world_to_data(CENTER))
    until(lambda: not widget.segment.busy and worker.running is None)
    widget.segment.act("commit")
    until(lambda: not widget.segment.busy and worker.running is None)
    objects = viewer.layers["SimMAT objects"]
    every = 50
    y, x = np.mgrid[0:SIDE:every, 0:SIDE:every]
    truth = np.hypot(y + 0.5 - CENTER[0], x + 0.5 - CENTER[1]) < RADIUS
    at = (y[:, 0], x[0])
    rows, columns = (
        np.clip(np.round((line - shift) / scale).astype(int), 0, size - 1)
        for line, shift, scale, size in zip(
            at, objects.translate, objects.scale, objects.data.shape, strict=True
        )
    )
    found = objects.data[np.ix_(rows, columns)] == 1
    iou = np.count_nonzero(found & truth) / np.count_nonzero(found | truth)
    print(f"IoU of the object with the disc, at full resolution: {iou:.3f}")
    print(f"most memory above the empty window: {memory.stop() / 2**30:.2f} GiB")
    widget.release()
    worker.join(PATIENCE)
    viewer.close()


class Memory:
    """The most memory that the process takes, above what it took at the start."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start = self._most = self._process.memory_info().rss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End, and give the bytes."""
        self._ended.set()
        self._thread.join()
        return int(self._most - self._start)

    def _watch(self) -> None:
        while not self._ended.wait(0.01):
            self._most = max(self._most, self._process.memory_info().rss)


def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    from qtpy.QtWidgets import QApplication

    deadline = time.monotonic() + PATIENCE
    turns = 0
    while not condition() or turns < 20:
        QApplication.processEvents()
        time.sleep(0.01)
        turns += 1
        if time.monotonic() > deadline:
            raise SystemExit("nothing came of it")


if __name__ == "__main__":
    main()
