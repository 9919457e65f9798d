"""Saving the finished objects as files, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari import Viewer
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_simmat.batch.outputs import LabelledObjects, save_objects_job
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.measurements import PixelSize
from napari_simmat.io.files import atomic_write
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.placement import ImageGeometry, shown_axes, unit_symbol
from napari_simmat.widgets.segment.autosave import Autosave, Snapshot
from napari_simmat.widgets.segment.controller import Interaction
from napari_simmat.widgets.segment.label_editor import Finished
from napari_simmat.widgets.segment.panels import ObjectPanel, rows_of, voxel_of
from napari_simmat.widgets.segment.prompt_state import Plane
from napari_simmat.widgets.worker import Worker, WorkerTask

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
    """The `WorkerTask` whose files are all there."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._parent = parent
        self.worker = Worker("simmat-saving")
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.progressed.connect(self._on_progress, queued)
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)

    def ask(self, place: ImageGeometry) -> Path | None:
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
        place: ImageGeometry,
        finished: Finished,
        classes: Sequence[str],
        session: Callable[[], str] = str,
    ) -> WorkerTask:
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

    def _on_progress(self, _: WorkerTask, progress: Progress) -> None:
        fraction = progress.done / progress.total
        text = progress.message[:1].upper() + progress.message[1:]
        self.status.emit(Status("working", text, fraction, way_out=""))

    def _on_returned(self, task: WorkerTask, written: list[Path]) -> None:
        names = ", ".join(path.name for path in written)
        self.status.emit(Status("done", f"Saved {names} in {written[0].parent}."))
        self.saved.emit(task)

    def _on_failed(self, _: WorkerTask, reason: str) -> None:
        self.status.emit(Status("failed", reason))


def _stem_of(path: Path) -> str:
    """What the names of all files begin with."""
    return path.name.removesuffix(".tif").removesuffix("_labels")


def _saving(
    folder: Path, stem: str, objects: LabelledObjects, session: Callable[[], str]
) -> Job[list[Path]]:
    """The objects, and ``STEM_session.jsonl`` with all that made them."""
    written = yield from save_objects_job(folder, stem, objects)
    if text := session():
        path = folder / f"{stem}_session.jsonl"
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written = [*written, path]
    return written


def values_of(place: ImageGeometry, finished: Finished, classes: Sequence[str]) -> LabelledObjects:
    """The objects as they are now, cut loose from their layer."""
    options, place = place.layer_options(), place.usual
    axes = axes_of([str(name) for name in options["axis_labels"]])
    units = {
        letter: unit_symbol(unit).replace("\N{MICRO SIGN}", "u")
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


# Showing a finished object: its plane, in the middle of the view.


def visit(viewer: Viewer, place: ImageGeometry, finished: Finished, label: int) -> None:
    """Show an object; the brush paints it from now on.

    Parameters
    ----------
    viewer
        Its sliders and its camera are moved.
    place
        Where the image lies, as it is seen.
    finished, label
        The object.
    """
    if label not in finished.register.census:
        return
    try:
        shown = place.plane(viewer.dims)
    except ValueError:
        shown = None
    plane, middle = where(finished, label, shown, place.order)
    world = place.to_world((*plane, *middle))
    first = viewer.dims.ndim - place.ndim
    axes = shown_axes(viewer.dims, place.ndim)
    for axis in set(range(place.ndim)) - set(axes):
        viewer.dims.set_point(first + axis, world[axis])
    if len(axes) == 2:
        camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
        camera.center = tuple(world[axes])
    finished.layer.selected_label = label


def where(
    finished: Finished, label: int, shown: Plane | None, order: AxisOrder = ()
) -> tuple[Plane, tuple[float, float]]:
    """Where to look at an object: the plane `shown` if it is there, else its largest; its middle.

    Plane and middle are of the view `order`; the middle is y, x of the mean of its pixels there.
    """
    footprint = finished.footprint(label)
    assert footprint is not None
    seen = footprint.transposed(order)
    mask, planes = seen.mask, seen.planes()
    best = shown if shown in planes else None
    if best is None:
        sizes = mask.sum(axis=(-2, -1))
        largest = np.unravel_index(int(sizes.argmax()), sizes.shape)
        best = tuple(int(at) + first for at, first in zip(largest, seen.corner[:-2], strict=True))
    within = tuple(at - first for at, first in zip(best, seen.corner[:-2], strict=True))
    rows, columns = np.nonzero(mask[within])
    top, left = seen.corner[-2:]
    return best, (float(top + rows.mean()), float(left + columns.mean()))


# Connects the form's part for finished objects with what it starts.


class ObjectPart(QObject):
    """The table of objects, what is done to them, and saving them.

    Parameters
    ----------
    interaction
        The image that is worked on.
    autosave
        Gives what is saved beside the objects.
    parent
        Over which a file name is asked for.
    """

    titled = Signal(str)
    """What the part is to be called."""

    def __init__(self, interaction: Interaction, autosave: Autosave, parent: QWidget) -> None:
        super().__init__(parent)
        self._interaction = interaction
        self._autosave = autosave
        self.panel = ObjectPanel()
        self.saving = Saving(parent)
        self._shown: tuple[object, int] | None = None
        self._snapshots: WeakKeyDictionary[WorkerTask, Snapshot] = WeakKeyDictionary()
        panel, actions = self.panel, interaction.actions
        panel.overlap_chosen.connect(self._on_overlap)
        panel.save_asked.connect(self._on_save)
        panel.class_chosen.connect(actions.classify)
        panel.table.chosen.connect(self._on_chosen)
        panel.table.visited.connect(self._on_visited)
        panel.table.opened.connect(actions.reopen)
        self.saving.saved.connect(self._on_saved)
        interaction.changed.connect(self.show)

    def release(self) -> None:
        """See what is being saved written."""
        self.saving.release()
        for task in [task for task in self._snapshots if task.done]:
            self._on_saved(task)  # nobody tells of it any more

    def show(self) -> None:
        """Show the objects as they are now."""
        work = self._interaction.work
        finished = None if work is None else work.finished
        shown = None if finished is None else (finished, finished.version)
        self.panel.category.set_names(self._interaction.classes.names)
        if shown == self._shown:
            return
        self._shown = shown
        place = None if work is None else work.place
        rows = rows_of(finished, place)
        unit = "" if place is None else voxel_of(place)[1]
        self.panel.set_rows(rows, 2 if place is None else place.ndim, unit)
        self.titled.emit(f"Objects ({len(rows)})" if rows else "Objects")

    def _on_overlap(self, overlap: Any) -> None:
        self._interaction.actions.overlap = overlap

    def _on_chosen(self, labels: tuple[int, ...]) -> None:
        self._interaction.actions.chosen = labels

    def _on_visited(self, label: int) -> None:
        work = self._interaction.work
        if work is not None and work.finished is not None and self._interaction.has_pixels():
            visit(self._interaction.viewer, work.place, work.finished, label)

    def _on_save(self) -> None:
        work = self._interaction.work
        if not self._interaction.has_pixels():
            return
        path = None if work is None or work.finished is None else self.saving.ask(work.place)
        if work is not None and work.finished is not None and path is not None:
            names, snapshot = self._interaction.classes.names, self._autosave.snapshot(work)
            task = self.saving.save(path, work.place, work.finished, names, snapshot.text)
            self._snapshots[task] = snapshot

    def _on_saved(self, task: WorkerTask) -> None:
        if (snapshot := self._snapshots.pop(task, None)) is not None:
            self._autosave.mark_saved(snapshot)
