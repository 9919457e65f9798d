"""Work that is noted in a file, and a crash; run as a program it works until it is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_simmat.annotation.session_replay import Replayed, replay_job
from napari_simmat.io.files import user_folder
from napari_simmat.progress import Progress, finish
from tests.widgets.conftest import SECONDS, Window
from tests.widgets.scenes import CENTERS, gray

ROOT = Path(__file__).resolve().parents[3]
SHIFT = Qt.KeyboardModifier.ShiftModifier


def open_image(window: Any, image: np.ndarray) -> Any:
    window.open(image, name="discs")
    return window


def work_on(window: Any) -> None:
    """Two commits, one deleted, that taken back, a third undone, and a point left open."""
    for number in (0, 1):
        window.add_object(*CENTERS[number])
    window.key_over(*CENTERS[1], Qt.Key.Key_D, SHIFT)
    window.undo()
    window.click_row(0)
    window.type_class("nucleus")
    window.click(*CENTERS[2])


def crash(window: Any) -> Path:
    """Leave the file as a crash does: with nobody who has it open, its last line cut off."""
    (path,) = user_folder("sessions").glob("*.jsonl")
    left = path.with_name(path.name.replace(".jsonl", "x.jsonl"))
    shutil.copy(path, left)
    with left.open("a", encoding="utf-8") as file:
        file.write('{"what": "do", "val')
    return left


def restore(window: Any) -> None:
    """Press Restore."""
    window.push(window.tab.status.offer)


def replayed(path: Path) -> Replayed:
    """Replay a session file for an image like its own."""
    with path.open() as file:
        return finish(replay_job(path, tuple(json.loads(file.readline())["shape"])))


def logged_labels() -> np.ndarray:
    """The labels that the one session file replays to."""
    (path,) = user_folder("sessions").glob("*.jsonl")
    return next(iter(replayed(path).labels.values()))


def save_as(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Answer the dialog that asks for a file name."""
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))


def held(gate: threading.Event) -> Any:
    yield Progress(0, 1)
    assert gate.wait(SECONDS / 1000)


class Patience:
    """Takes the place of pytest-qt's robot in a process without pytest."""

    @staticmethod
    def waitUntil(condition: Callable[[], bool], timeout: int = SECONDS) -> None:  # noqa: N802
        deadline = time.monotonic() + timeout / 1000
        while not condition():
            QApplication.processEvents()
            time.sleep(0.002)
            assert time.monotonic() < deadline


def new_window() -> Window:
    """napari's window, in a process without pytest."""
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1000, 800)
    return Window(viewer, Patience)


def put(folder: Path, labels: np.ndarray) -> None:
    """Leave labels in a file, whole or not at all."""
    np.save(folder / "new.npy", labels)
    (folder / "new.npy").replace(folder / "labels.npy")


def kill_at_work(module: str, folder: Path, wait: Callable[[], object]) -> None:
    """Run a module that works in `folder`; once it left a file "go" there, wait and kill it."""
    command = [sys.executable, "-m", module, str(folder)]
    own = {**os.environ, "NAPARI_CONFIG": str(folder / "napari.yaml")}
    with subprocess.Popen(command, cwd=ROOT, env=own) as process:
        deadline = time.monotonic() + SECONDS / 1000
        while not (folder / "go").exists():
            assert process.poll() is None, "it has ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        wait()
        assert process.poll() is None, "it has ended by itself"
        os.kill(process.pid, signal.SIGKILL)


def main(folder: Path) -> None:
    """Commit two objects, paint, save what is there, and go on clicking until the end."""
    window = open_image(new_window(), gray())
    for number in (0, 1):
        window.add_object(*CENTERS[number])
    viewer = window.viewer
    layer = viewer.layers["SimMAT objects"]
    viewer.layers.selection.active = layer
    layer.brush_size, layer.selected_label, layer.mode = 8, 5, "paint"
    window.draw([(100, 30), (110, 60)], slowly=True)
    layer.selected_label, layer.mode = 0, "erase"
    window.draw([CENTERS[0], (CENTERS[0][0], CENTERS[0][1] + 20)], slowly=False)
    put(folder, layer.data)
    (folder / "go").touch()
    while True:
        window.click(*CENTERS[2])
        window.key(Qt.Key.Key_T)
        window.undo()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
