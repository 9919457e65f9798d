"""Objects on the way out and in: saved as files, loaded from them, and shown in the viewer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from napari import Viewer
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_simmat._text import pluralize
from napari_simmat.annotation.history import NewObject
from napari_simmat.annotation.image_value import ImageValue
from napari_simmat.annotation.prompt_state import Plane
from napari_simmat.annotation.saved_objects import labeled_objects
from napari_simmat.batch.outputs import LabeledObjects, save_objects_job
from napari_simmat.engine.coordinates import AxisOrder
from napari_simmat.engine.files.object_set import ObjectSection, ObjectSet
from napari_simmat.engine.files.objects import (
    OBJECT_ENDINGS,
    OBJECT_FORMATS,
    format_of,
    read_objects,
)
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.io.files import OutputError, atomic_write
from napari_simmat.io.readers import label_ending
from napari_simmat.io.reference import ImageReference
from napari_simmat.io.zarr import METADATA_FILES
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.layer_data import canvas_size
from napari_simmat.widgets.placement import ImageGeometry, shown_axes, time_axis_of
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.autosave import READ_RANK
from napari_simmat.widgets.segment.work.object_actions import ObjectActions
from napari_simmat.widgets.segment.work.workspace import LOADING, Workspace
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob, Worker, WorkerTask

_RANK = 1
"""One rank for all, so that no waiting job is dropped for a newer one (as at rank 0)."""
_CLOSE_TIMEOUT = 20.0
"""Seconds that closing waits until all is written."""
SAVED = "Saved {} in {}. Next object, or the next image."
MEASURED_PARTLY = " Its table measures {} of {} channels; the arrow beside Save has the others."
MAY_REPLACE = "{} already exists. Do you want to replace it?"
NOTHING_TO_SAVE = "The log of this image cannot be read: commit its prompts, then save again."
FOLLOWING = "Following"
Follow = Callable[[LabeledObjects | None], Job[list[Path]]]
"""Writes what follows from objects that were saved; returns the files that could not."""
_TITLE = "Save the objects"
_FILTERS = {
    kind: f"{each.title} (*{each.ending if kind == 'labels' else each.suffix})"
    for kind, each in OBJECT_FORMATS.items()
}
_LOAD_TITLE = "Load objects"
_MAX_LABEL = np.iinfo(np.int32).max
"""Of a new objects layer."""
NO_IMAGE = "Choose the image of these objects first, then load them."
LOADED = "Loaded {} from {}."
OTHER_IDS = "{} got other ids than in the file, since these are in use or too large."
OTHER_IMAGE = "{} was not loaded, because another image was chosen; load it again."
"""The last axes of an image whose axes have no names."""


class ObjectExporter(QObject):
    """Asks for a file name, and writes the objects in a thread of its own.

    Attributes
    ----------
    table
        Says what the table of the objects holds.
    channels
        Returns all channels of the chosen image by their names, also those that no model reads.
    """

    status = Signal(object)
    """A `Status`."""
    saved = Signal(object)
    """The `WorkerTask` whose files are all written."""
    older = Signal(object)
    """Paths of files that were to follow what was saved, and could not."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._parent = parent
        self.table: Callable[[], TableSettings] = TableSettings
        self.channels: Callable[[], dict[str, Any]] = dict
        self._partly: dict[WorkerTask, str] = {}
        self._following: set[WorkerTask] = set()
        self.worker = Worker("simmat-saving")
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.progressed.connect(self._on_progress, queued)
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)

    def ask_path(self, geometry: ImageGeometry) -> Path | None:
        """Ask for a file name, and whether a file may be replaced; None if canceled."""
        file, has_one_step = geometry.reference.file, not geometry.reference.one_step_problem("")
        ending = ".tif" if file is None or not has_one_step else label_ending(file)
        start = f"{geometry.name}_labels{ending}"
        own = _FILTERS[format_of(Path(start))]
        if file is not None:
            start = str(Path(file).with_name(start))
        filters = [own, *(each for each in _FILTERS.values() if each != own)]
        name, chosen = QFileDialog.getSaveFileName(self._parent, _TITLE, start, ";;".join(filters))
        if not name:
            return None
        typed = Path(name)
        path = _with_ending(typed, chosen, filters[0])
        if path != typed and path.exists():
            # The dialog has only asked about the name that was typed.
            button = QMessageBox.question(self._parent, _TITLE, MAY_REPLACE.format(path.name))
            return path if button == QMessageBox.StandardButton.Yes else None
        return path

    def save(
        self,
        path: Path,
        geometry: ImageGeometry,
        editor: LayerEditor | None,
        classes: Sequence[str],
        session: Callable[[], str] = str,
        time_axis: int | None = None,
        image: ImageValue | None = None,
        follow: Follow | None = None,
    ) -> WorkerTask:
        """Write the objects to `path`, in the format of its ending, and other files beside it.

        Without an `editor` there are no objects, and only the session is written.

        Returns the task that `saved` reports. `session` gives the session file's text; it is
        called in the thread. `time_axis` is that along which objects have one id. Of an `image`
        the values in each object are measured, too. What is to `follow` is written behind that, and
        `older` reports what could not.
        """
        objects, known = None, {}
        if editor is not None:
            usual = geometry.usual
            known = {} if image is None else self.channels()
            objects = labeled_objects(
                editor,
                axes=usual.axes,
                reference=usual.kept_reference(),
                name=usual.name,
                classes=classes,
                time_axis=time_axis_of(usual) if time_axis is None else time_axis,
                image=image,
                table=self.table(),
                channels=known,
            )
        task = self.worker.submit("Saving", lambda: _save_job(path, objects, session), _RANK)
        taken = set() if objects is None else {*objects.channels[: objects.measured]}
        if taken and taken < {*known}:
            self._partly[task] = MEASURED_PARTLY.format(len(taken), len(known))
        if follow is not None:
            behind = self.worker.submit(
                FOLLOWING, lambda: _follow_job(task, follow, objects), _RANK
            )
            self._following.add(behind)
        return task

    def release(self) -> None:
        """Write what is left and end the thread."""
        self.worker.finish()
        self.worker.join(_CLOSE_TIMEOUT)

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        if task in self._following:
            return
        text = progress.message[:1].upper() + progress.message[1:]
        self.status.emit(Status("working", text, progress.fraction, way_out=""))

    def _on_returned(self, task: WorkerTask, written: list[Path]) -> None:
        if task in self._following:
            self._following.discard(task)
            self.older.emit(written)
            return
        names = ", ".join(path.name for path in written)
        said = SAVED.format(names, written[0].parent) + self._partly.pop(task, "")
        self.status.emit(Status("done", said))
        self.saved.emit(task)

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        self._partly.pop(task, None)
        self._following.discard(task)
        self.status.emit(Status("failed", reason))


def _stem_of(path: Path) -> str:
    """The common beginning of all file names."""
    name = path.name
    for each in OBJECT_FORMATS.values():
        for ending in (each.ending, each.suffix):
            name = name.removesuffix(ending)
    return name


def _with_ending(typed: Path, chosen: str, first: str) -> Path:
    """The file to write: in the format chosen in the dialog, or, if that is the first, as typed."""
    kind = next((kind for kind, title in _FILTERS.items() if title == chosen), "labels")
    if chosen in ("", first):
        with suppress(ValueError):  # a name without an ending
            kind = format_of(typed)
    written = OBJECT_FORMATS[kind]
    if kind != "labels" and typed.name.endswith(written.suffix):
        return typed
    return typed.with_name(_stem_of(typed) + written.ending)


def _save_job(
    main: Path, objects: LabeledObjects | None, session: Callable[[], str]
) -> Job[list[Path]]:
    """Write the objects, and ``STEM_session.jsonl`` with the commands that made them."""
    folder = main.parent
    stem = _stem_of(main)
    written = []
    if objects is not None:
        written = yield from save_objects_job(folder, stem, objects, main)
    text = session()
    if not text and not written:
        raise OutputError(NOTHING_TO_SAVE)
    if text:
        path = folder / f"{stem}_session.jsonl"
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written = [*written, path]
    return written


def _follow_job(
    saving: WorkerTask, follow: Follow, objects: LabeledObjects | None
) -> Job[list[Path]]:
    """Write what follows, if the files themselves were written."""
    if not saving.done:
        return []
    return (yield from follow(objects))


class ObjectLoader(QObject):
    """Asks for a file of objects, reads it in the thread of the log, and adds the objects."""

    def __init__(self, workspace: Workspace, objects: ObjectActions, worker: Worker) -> None:
        super().__init__(workspace)
        self._workspace, self._objects = workspace, objects
        self._session: LayerSession | None = None
        self._job = BackgroundJob(worker, READ_RANK, self)
        self._job.returned.connect(self._on_returned)
        self._job.failed.connect(workspace.fail)

    @property
    def busy(self) -> bool:
        """Whether a file is being read."""
        return self._job.busy

    def ask(self, parent: QWidget) -> None:
        """Let the user choose a file, and load it."""
        names = " ".join([*(f"*{ending}" for ending in OBJECT_ENDINGS), *METADATA_FILES])
        name, _ = QFileDialog.getOpenFileName(parent, _LOAD_TITLE, "", f"Objects ({names})")
        if name:
            path = Path(name)
            # OME-Zarr is a folder: the user chooses its description within it.
            self.load(path.parent if path.name in METADATA_FILES else path)

    def load(self, path: Path) -> None:
        """Add the objects of a file to those of the chosen image, as one command."""
        workspace, session = self._workspace, self._workspace.session
        if session is None:
            workspace.fail(NO_IMAGE)
            return
        self._session, geometry = session, session.geometry.usual
        axes = geometry.axes
        shape, reference = tuple(geometry.shape), geometry.reference
        self._job.start("Loading", lambda: _load_job(path, shape, axes, geometry.name, reference))
        workspace.status.emit(Status("working", f"Reading {path.name}", way_out=""))

    def release(self) -> None:
        """Stop reading."""
        self._job.cancel()

    def _on_returned(self, read: tuple[str, ObjectSet, list[ObjectSection]]) -> None:
        workspace, (name, object_set, sections) = self._workspace, read
        session, self._session = self._session, None
        if session is None or session is not workspace.session:
            workspace.fail(OTHER_IMAGE.format(name))
            return
        used = set() if session.editor is None else set(session.editor.labels)
        order = session.geometry.order
        others = {n for section in sections if (n := section.label) in used or n > _MAX_LABEL}
        objects = [
            NewObject(
                section.mask.transposed(order),
                section.score,
                label=None if section.label in others else section.label,
                category=section.category,
                order=order,
            )
            for section in sections
        ]
        workspace.classes.add(object_set.class_names)
        count = len({section.label for section in object_set.sections})
        parts = [LOADED.format(pluralize(count, "object"), name), *object_set.notes]
        if others:
            parts.append(OTHER_IDS.format(pluralize(len(others), "object")))
        self._objects.write(f"{LOADING} {name}:", objects, said=" ".join(parts))


def _load_job(
    path: Path, shape: tuple[int, ...], axes: str, image: str, reference: ImageReference
) -> Job[tuple[str, ObjectSet, list[ObjectSection]]]:
    yield Progress(0, 1, f"reading {path.name}")
    object_set = read_objects(path, shape, axes, image=image, reference=reference)
    # Earlier objects lie on top.
    sections = sorted(object_set.merged(), key=lambda section: -np.nan_to_num(section.score))
    return path.name, object_set, sections


# ------------------------------------------------------------------------ in the viewer


def show_plane(
    viewer: Viewer, geometry: ImageGeometry, plane: Plane, position: Sequence[float] = (0.0, 0.0)
) -> tuple[np.ndarray, list[int]]:
    """Move the sliders to a plane; returns a position (y, x) there in the world, and its axes."""
    world = geometry.to_world((*plane, *position))
    first = viewer.dims.ndim - geometry.ndim
    axes = shown_axes(viewer.dims, geometry.ndim)
    for axis in set(range(geometry.ndim)) - set(axes):
        viewer.dims.set_point(first + axis, world[axis])
    return world, axes


def show_object(viewer: Viewer, geometry: ImageGeometry, editor: LayerEditor, label: int) -> None:
    """Move the sliders to an object, the camera if it is not in view, and select it for painting.

    `geometry` says where the image lies, in its current view.
    """
    if label not in editor:
        return
    try:
        shown = geometry.plane(viewer.dims)
    except ValueError:
        shown = None
    plane, middle, (low, high) = where(editor, label, shown, geometry.order)
    world, axes = show_plane(viewer, geometry, plane, middle)
    if len(axes) == 2:
        camera = getattr(viewer, "scene", viewer).camera  # scene: from napari 0.9
        corners = itertools.product(*zip(low, high, strict=True))
        ends = np.array([geometry.to_world((*plane, *corner))[axes] for corner in corners])
        half = np.array(canvas_size(viewer)) / 2 / camera.zoom
        center = np.array(camera.center[-2:])
        fits = np.ptp(ends, axis=0) <= 2 * half
        apart = np.where(fits, np.abs(ends - center).max(axis=0), np.abs(world[axes] - center))
        if (apart > half).any():  # it is not in view
            camera.center = tuple(world[axes])
    editor.layer.selected_label = label


def where(
    editor: LayerEditor, label: int, shown: Plane | None, order: AxisOrder = ()
) -> tuple[Plane, tuple[float, float], tuple[tuple[float, float], tuple[float, float]]]:
    """The plane on which to look at an object, the mean (y, x) of its pixels there, and their ends.

    It is the plane `shown` if the object is there, else the one with most of its pixels. Plane and
    positions are in the view `order`.
    """
    seen = editor.mask(label).transposed(order)
    mask, planes = seen.mask, seen.planes()
    best = shown if shown in planes else None
    if best is None:
        sizes = mask.sum(axis=(-2, -1))
        largest = np.unravel_index(int(sizes.argmax()), sizes.shape)
        best = tuple(int(at) + first for at, first in zip(largest, seen.corner[:-2], strict=True))
    within = tuple(at - first for at, first in zip(best, seen.corner[:-2], strict=True))
    rows, columns = np.nonzero(mask[within])
    at = np.array(seen.corner[-2:]) + np.stack([rows, columns], axis=1)
    middle, low, high = (tuple(map(float, each)) for each in (at.mean(0), at.min(0), at.max(0)))
    return best, middle, (low, high)
