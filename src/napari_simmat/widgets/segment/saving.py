"""Saving the finished objects as files, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_simmat.engine.files import writing
from napari_simmat.engine.jobs.saving import LabelledObjects, saving
from napari_simmat.engine.objects import PixelSize
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.place import Place, symbol_of
from napari_simmat.widgets.segment.finished import Finished
from napari_simmat.widgets.status import Status
from napari_simmat.widgets.worker import Task, Worker

_RANK = 1
"""All of one rank, so that none that waits is dropped for a newer one."""
_PATIENCE = 20.0
"""Seconds that closing waits until all is written."""
_TITLE = "Save the objects"
_ENDING = "_labels.tif"
_NAMES = {"time": "T", "depth": "Z", "row": "Y", "column": "X"}
_USUAL = "TZYX"
"""The last axes of an image whose axes have no names."""


class Saving(QObject):
    """Asks where to, writes, and says how it went."""

    status = Signal(object)
    """A `Status`."""
    saved = Signal(object)
    """The `Task` whose files are all there."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._parent = parent
        self.worker = Worker("simmat-saving")
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.progressed.connect(self._on_progress, queued)
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)

    def ask(self, place: Place) -> Path | None:
        """Ask for a file name, and whether a file is to be replaced; None for none."""
        start = f"{place.name}{_ENDING}"
        name, _ = QFileDialog.getSaveFileName(self._parent, _TITLE, start, f"Labels (*{_ENDING})")
        if not name:
            return None
        typed = Path(name)
        path = typed.with_name(_stem_of(typed) + _ENDING)
        # The dialog has asked about the name that was typed alone.
        if path == typed or not path.exists() or self._may_replace(path):
            return path
        return None

    def save(
        self,
        path: Path,
        place: Place,
        finished: Finished,
        classes: Sequence[str],
        session: Callable[[], str] = str,
    ) -> Task:
        """Write the label image to `path`, the other files beside it; returns what `saved` tells.

        `session` gives all that was done, as `journal` has it; called in the thread.
        """
        stem = _stem_of(path)
        objects = values_of(place, finished, classes)
        return self.worker.submit(
            "Saving", lambda: _saving(path.parent, stem, objects, session), _RANK
        )

    def release(self) -> None:
        """Write what is left and end the thread."""
        self.worker.finish()
        self.worker.join(_PATIENCE)

    def _may_replace(self, path: Path) -> bool:
        question = f"{path.name} already exists. Do you want to replace it?"
        answer = QMessageBox.question(self._parent, _TITLE, question)
        return bool(answer == QMessageBox.StandardButton.Yes)

    def _on_progress(self, _: Task, progress: Progress) -> None:
        fraction = progress.done / progress.total
        text = progress.message[:1].upper() + progress.message[1:]
        self.status.emit(Status("working", text, fraction, way_out=""))

    def _on_returned(self, task: Task, written: list[Path]) -> None:
        names = ", ".join(path.name for path in written)
        self.status.emit(Status("done", f"Saved {names} in {written[0].parent}."))
        self.saved.emit(task)

    def _on_failed(self, _: Task, reason: str) -> None:
        self.status.emit(Status("failed", reason))


def _stem_of(path: Path) -> str:
    """What the names of all files begin with."""
    return path.name.removesuffix(".tif").removesuffix("_labels")


def _saving(
    folder: Path, stem: str, objects: LabelledObjects, session: Callable[[], str]
) -> Job[list[Path]]:
    """The objects, and ``STEM_session.jsonl`` with all that made them."""
    written = yield from saving(folder, stem, objects)
    if text := session():
        path = folder / f"{stem}_session.jsonl"
        with writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written = [*written, path]
    return written


def values_of(place: Place, finished: Finished, classes: Sequence[str]) -> LabelledObjects:
    """The objects as they are now, cut loose from their layer."""
    options, place = place.layer_options(), place.usual
    axes = axes_of([str(name) for name in options["axis_labels"]])
    units = {
        letter: symbol_of(unit).replace("\N{MICRO SIGN}", "u")
        for letter, unit in zip(axes, options["units"], strict=True)
        if str(unit) not in ("pixel", "")
    }
    sizes = {letter: place.spacing[axes.index(letter)] for letter in units}
    entries = {label: finished.register.entry(label) for label in finished.labels}
    return LabelledObjects(
        labels=np.array(finished.layer.data),
        axes=axes,
        size=PixelSize(scale=sizes, units=units),
        scores={label: entry.score for label, entry in entries.items()},
        categories={label: entry.category for label, entry in entries.items() if entry.category},
        classes=tuple(classes),
    )


def axes_of(names: Sequence[str]) -> str:
    """A letter for each axis: by the names where they mean T, Z, Y, X, else the usual ones."""
    known = [_NAMES.get(name.casefold(), name[:1].upper()) for name in names]
    letters = "".join(known)
    usable = len(set(letters)) == len(letters) and letters.endswith("YX")
    if usable and set(letters) <= set(_USUAL):
        return letters
    usual = "QRSUVW" + _USUAL
    return usual[len(usual) - len(names) :]
