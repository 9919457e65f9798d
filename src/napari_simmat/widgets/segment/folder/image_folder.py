"""A folder image by image: save and close one, open the next with its prompts and labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

from napari.layers import Layer
from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat._text import format_list, format_shape
from napari_simmat.annotation.channel_choice import channel_mappings
from napari_simmat.annotation.predictions import PredictionRequest
from napari_simmat.annotation.session_file import home_of, left_over, new_path
from napari_simmat.annotation.session_lines import line_of
from napari_simmat.batch.corrections import follow_batch_job, follow_image_job
from napari_simmat.batch.outputs import LabeledObjects
from napari_simmat.batch.plan import Plan
from napari_simmat.io.readers import label_ending, stem_of
from napari_simmat.progress import Job
from napari_simmat.widgets.layer_data import image_geometry, image_value, layer_info, layer_key
from napari_simmat.widgets.segment.folder.folder_images import (
    FolderImage,
    ImageList,
    ReadImage,
    list_folder_job,
    look_for_results_job,
    open_image_job,
)
from napari_simmat.widgets.segment.folder.folder_review import SeenImages
from napari_simmat.widgets.segment.folder.folder_state import FolderState, ImageInHand
from napari_simmat.widgets.segment.layers import outputs
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.autosave import Autosave, Recovery, Snapshot
from napari_simmat.widgets.segment.work.export import ObjectExporter
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.propagation import NEIGHBORS, around
from napari_simmat.widgets.segment.work.workspace import Workspace
from napari_simmat.widgets.shortcuts import shortcut_text
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob, Worker, WorkerTask

_NAMED = 3
"""Older files that are named; the others are counted."""
_AHEAD_RANK = 3
"""Behind the planes of the image that is open."""
AS_CAPTURES, ONE_BY_ONE = "Read as captures", "Each file by itself"
CHOOSE_FOLDER = "Choose a folder of images first."
NO_LIST = "The Batch tab has no images: choose some there first."
LISTING = "Looking for images"
NOT_EMPTY = "This image has objects or open prompts: delete or clear them, or go to the next image."
NOT_CHOSEN = "{} is not what is segmented now: choose it, or a model that fits it, then go on."
DRAFTS_FIRST = "Commit or discard what was found on this image, then go on."
NOT_LOGGED = (
    "The open prompts of this image cannot be saved: commit or clear them (<key:clear>), "
    "then go on."
)
UNREADABLE = "{} cannot be opened. {}"
SKIPS_IT = "Next image skips it."
ALL_SEEN = "All images were looked at."
NOT_REJECTED = (
    "An image is not rejected: mend ({edit}) or delete ({delete}) what is wrong in it, then accept "
    "({accept}) it."
)
AT_THE_END = "{} is the {} image; its work is saved."
NOT_REPLACED = (
    "{} could not be restored, so it is not replaced. Use Save with another name, or move that "
    "file, and open {} again."
)
OLDER = (
    "Older than your corrections: {}. The window does not make them anew; remove or replace them."
)
OTHER_SHAPE = "{} has {} pixels, but {} has {}: move or replace it."


left_by_closed_tabs: WeakKeyDictionary[Layer, FolderState] = WeakKeyDictionary()
"""How far a closed tab went through its folder, by the layer of the image in hand."""


class _Saving(NamedTuple):
    """The current image is being saved."""

    task: WorkerTask
    """Writes the files."""
    snapshot: Snapshot
    """What they hold."""
    then: Callable[[], object]
    """Called when they are written."""


class ImageFolder(QObject):
    """Goes through a list of images: saves and closes one, opens and restores the next.

    Nothing is closed before it is saved. Work on an image that was logged but not saved, as after a
    crash, is restored before what was saved.

    Parameters
    ----------
    workspace, inference, exporter, autosave, recovery
        Parts of the tab.
    is_held
        Whether something was found on the current image that must be committed or discarded first.
    encodes_ahead
        Whether the next image is to be read and encoded while the user works on this one.

    Attributes
    ----------
    asks
        Whether the user is asked what the files of a folder are.
    """

    status = Signal(object)
    """A `Status`."""
    changed = Signal()
    """The list, the current image, or `busy`."""
    pattern_wanted = Signal(str)
    """A pattern of captures that the user wants to read in place of the folder."""
    encoded_ahead = Signal(object, object)
    """The request and the folder of the next image, when it was encoded."""

    def __init__(
        self,
        workspace: Workspace,
        inference: InferenceQueue,
        exporter: ObjectExporter,
        autosave: Autosave,
        recovery: Recovery,
        *,
        is_held: Callable[[], bool],
        encodes_ahead: Callable[[], bool],
    ) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        self._service = inference.service
        self._exporter, self._autosave, self._recovery = exporter, autosave, recovery
        self._is_held, self._encodes_ahead = is_held, encodes_ahead
        self._state = FolderState()
        self.asks = False
        self._saving: _Saving | None = None  # None unless the image in hand is being written
        self._ready: ReadImage | None = None  # the next image, if it was read ahead
        self.worker = Worker("simmat-opening")
        self._listing = BackgroundJob(self.worker, parent=self)
        self._listing.returned.connect(self._take)
        self._listing.failed.connect(self._fail)
        self._opening = BackgroundJob(self.worker, parent=self)
        self._opening.returned.connect(self._show)
        self._opening.failed.connect(self._on_unreadable)
        self._reading = BackgroundJob(self.worker, _AHEAD_RANK, self)
        self._reading.returned.connect(self._encode_ahead)
        self._encoding = BackgroundJob(inference.worker, _AHEAD_RANK, self)
        self._encoding.returned.connect(lambda _: self.encoded_ahead.emit(*self._encoded))
        self._encoded: tuple[PredictionRequest, Path] | tuple[()] = ()
        self._take_over()
        exporter.saved.connect(self._on_saved)
        queued = Qt.ConnectionType.QueuedConnection
        exporter.worker.failed.connect(self._on_not_saved, queued)
        exporter.older.connect(self._on_older)
        recovery.restored.connect(self._on_restored)
        inference.predicted.connect(self._read_ahead)
        workspace.subject_changed.connect(self._on_subject)
        for shown in (
            workspace.prompts_changed,
            workspace.objects_changed,
            workspace.prediction_changed,
        ):
            shown.connect(self.changed)

    @property
    def busy(self) -> bool:
        """Whether an image is being saved, opened or restored."""
        is_opening = self._listing.busy or self._opening.busy or self._recovery.busy
        return self._saving is not None or is_opening

    @property
    def images(self) -> Sequence[FolderImage]:
        """The list."""
        return self._state.images

    @property
    def number(self) -> int:
        """Index of the current image; -1 for none."""
        return self._state.number

    @property
    def by_score(self) -> bool:
        """Whether images of which the model was least certain come first."""
        return self._state.by_score

    @property
    def in_hand(self) -> ImageInHand:
        """What is known of the current image."""
        return self._state.in_hand

    @property
    def current(self) -> FolderImage | None:
        """The image that is open, or could not be opened."""
        return self.images[self.number] if 0 <= self.number < len(self.images) else None

    def described(self) -> str:
        """Where the list stands, e.g. ``3 of 10, 3 seen, 2 done``."""
        if self.current is None:
            return ""
        state = self._state
        parts = [f"{self.number + 1} of {len(self.images)}", f"{len(state.seen)} seen"]
        parts += [f"{len(state.done)} done", state.seen.left()]
        return f"{', '.join(filter(None, parts))} · {self.current.name}"

    @property
    def older(self) -> str:
        """Which files of the batch are older than the corrections, in a sentence; or empty."""
        names = list(self._state.older)
        more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
        return OLDER.format(format_list([*names[:_NAMED], *more])) if names else ""

    def release(self) -> None:
        """Stop listing, reading and encoding; the next tab goes on where this one was."""
        read = self.in_hand.read
        if read is not None and read.layer in self._workspace.viewer.layers:
            self.in_hand.read = None  # it holds the layer, which may be removed
            left_by_closed_tabs[read.layer] = self._state
        for job in (self._listing, self._opening, self._reading, self._encoding):
            job.cancel()
        self.worker.close()

    def _take_over(self) -> None:
        """Go on with the list of a closed tab whose image is still open."""
        for layer in self._workspace.viewer.layers:
            if left := left_by_closed_tabs.pop(layer, None):
                self._state = left
                self.in_hand.read = ReadImage(self.images[self.number], layer)

    # ---------------------------------------------------------------------- the list

    def choose_folder(self, folder: str) -> None:
        """Take the images of a folder, and open the first that is not done."""
        if folder and not self.busy:
            path = Path(folder).expanduser()
            self._state.output = None
            self._list(lambda: list_folder_job(path, self.by_score))

    def choose_plan(self, plan: Plan | None) -> None:
        """Take the images and the results of a batch run."""
        if plan is None:
            self._fail(NO_LIST)
        elif not self.busy:
            images = [
                FolderImage(one.image, one.files.labels.parent, number)
                for number, one in enumerate(plan.tasks)
            ]
            self._state.output = plan.output
            self._list(lambda: look_for_results_job(images, self.by_score))

    def order(self, by_score: bool) -> None:
        """Order the list anew, and open its first image that is not done, else its first."""
        self._state.by_score = by_score
        if (images := self.images) and not self.busy:
            self._list(lambda: look_for_results_job(images, by_score))

    def _list(self, start: Callable[[], Job[ImageList]]) -> None:
        self.asks = False
        self.status.emit(Status("working", LISTING, way_out=""))
        self._listing.start(LISTING, start)
        self.changed.emit()

    def _take(self, listed: ImageList) -> None:
        self.asks = bool(listed.proposal)
        if not listed.proposal:
            self._save(partial(self._begin, listed, self.current))
            return
        status = Status("nothing", listed.found, offer=AS_CAPTURES, other=ONE_BY_ONE)
        self._workspace.offer(
            status,
            partial(self.pattern_wanted.emit, listed.proposal),
            lambda: self._save(partial(self._begin, listed, self.current)),
        )
        self.changed.emit()

    def _begin(self, listed: ImageList, saved: FolderImage | None) -> None:
        """Open the first image of a list that is not done; the one that was just saved is."""
        self.asks = False
        paths = [image.path for image in listed.images]
        if saved is not None and saved.path in paths and saved.is_done:
            listed.done.add(paths.index(saved.path))
        self._move_to(min(set(range(len(paths))) - listed.done, default=0), listed)

    # ------------------------------------------------------------------------ moving

    def go(self, step: int) -> None:
        """Save and close the current image, and open that `step` further in the list."""
        if self.busy:
            return
        if self.current is None:
            self._fail(CHOOSE_FOLDER)
            return
        target = self.number + step
        if 0 <= target < len(self.images):
            self._save(partial(self._move_to, target))
        else:
            which = "last" if step > 0 else "first"
            self._save(partial(self._say, AT_THE_END.format(self.current.name, which)))

    def accept(self) -> None:
        """Take the current image as it is, as done, and open the next."""
        image, session = self.current, self._session()
        if self.busy or image is None or session is not self._workspace.session:
            return
        editor = None if session is None else session.editor
        is_empty = editor is None or not editor.labels
        if is_empty and session is not None and not image.is_done and not session.prompt_state:
            self.mark_empty()
            return
        in_hand = self.in_hand
        in_hand.is_unsaved = in_hand.is_unsaved or not image.is_done
        self.go(1)

    def go_on(self) -> None:
        """Open the next image that nobody has seen; behind the last the first."""
        count = len(self.images)
        others = ((self.number + step) % count for step in range(1, count))
        unseen = next((number for number in others if number not in self._state.seen), None)
        if unseen is None:
            self._say(ALL_SEEN)
        else:
            self.go(unseen - self.number)

    def reject(self) -> None:
        """Say what is done with an image that is not right."""
        keys = {name: shortcut_text(name) for name in ("edit", "delete", "accept")}
        self._say(NOT_REJECTED.format(**keys))

    def mark_empty(self) -> None:
        """Save the current image as one that holds no objects, and open the next."""
        session = self._session()
        if self.busy or self.current is None:
            return
        if session is None or session is not self._workspace.session:
            self._fail(self.in_hand.problem or NOT_CHOSEN.format(self.current.name))
            return
        has_objects = session.editor is not None and bool(session.editor.labels)
        if has_objects or any(view.prompt_state for view in session.views.values()):
            self._fail(NOT_EMPTY)
            return
        try:
            self._workspace.target()
        except ValueError as error:
            self._fail(f"{error}.")
            return
        self.in_hand.is_unsaved = True
        self.in_hand.is_empty = True
        self.go(1)

    def _move_to(self, number: int, listed: ImageList | None = None) -> None:
        """Close the current image, and open another, of a new list if there is one."""
        self._close()
        if listed is not None:
            self._ready = None
            self._state = FolderState(
                images=listed.images,
                done=listed.done,
                seen=SeenImages([str(image.results / image.name) for image in listed.images]),
                output=self._state.output,
                by_score=self._state.by_score,
            )
            if self._state.output is not None:  # a batch is looked over from its first image
                unseen = (n for n in range(len(self.images)) if n not in self._state.seen)
                number = next(unseen, number)
        self._open(number)

    def _save(self, then: Callable[[], object]) -> None:
        """Save what was done to the current image, and call `then`; neither if that fails."""
        image, unrestored = self.current, self.in_hand.unrestored
        session = self._session()
        if session is self._workspace.session and self._is_held():
            self._fail(DRAFTS_FIRST)
        elif image is None or session is None or not self._is_worked_on(session, image):
            then()
        elif unrestored:
            self._fail(NOT_REPLACED.format(unrestored, image.name))
        elif not self._autosave.has_file(session) and any(
            view.prompt_state for view in session.views.values()
        ):
            self._fail(NOT_LOGGED)
        else:
            snapshot = self._autosave.snapshot(session)
            names = self._workspace.classes.names
            path = image.results / f"{stem_of(image.path)}_labels{label_ending(image.path)}"
            geometry, editor, axis = session.geometry, session.editor, session.time_axis
            is_shown = session is self._workspace.session
            values = self._workspace.viewed_image() if is_shown else None
            follow = partial(_follow_job, image, self._state.output)
            task = self._exporter.save(
                path, geometry, editor, names, snapshot.text, axis, values, follow
            )
            self._saving = _Saving(task, snapshot, then)
            self.changed.emit()

    def _is_worked_on(self, session: LayerSession, image: FolderImage) -> bool:
        """Whether there is something to save."""
        logged = self._autosave.has_file(session)
        changed = self._autosave.has_changed(session) if logged else len(session.history) > 0
        if not (changed or self.in_hand.is_unsaved):
            return False
        is_empty = self.in_hand.is_empty
        has_objects = session.editor is not None and bool(session.editor.labels)
        prompts = any(view.prompt_state for view in session.views.values())
        return has_objects or prompts or bool(session.drafts) or is_empty or image.is_done

    def _on_saved(self, task: WorkerTask) -> None:
        saving = self._saving
        if saving is not None and task is saving.task:
            self._saving = None
            self._autosave.mark_saved(saving.snapshot)
            self._state.done.add(self.number)
            saving.then()
            self.changed.emit()

    def _on_older(self, paths: Sequence[Path]) -> None:
        self._state.older.update(dict.fromkeys(path.name for path in paths))
        self.changed.emit()

    def _on_not_saved(self, task: WorkerTask, _: str) -> None:
        if self._saving is not None and task is self._saving.task:
            self._saving = None
            self.changed.emit()

    def _session(self) -> LayerSession | None:
        """The session of the current image; None if it is not chosen yet."""
        read = self.in_hand.read
        if read is None:
            return None
        key, session = layer_key(read.layer), self._workspace.session
        known = [] if session is None else [session, *self._workspace.sessions.others(session)]
        return next((each for each in known if key in each.layers), None)

    def _close(self) -> None:
        """Remove the layers of the current image."""
        self._encoding.cancel()
        session, opened = self._session(), self.in_hand.read
        if opened is None:
            return
        self.in_hand.read = None
        # The image goes first: its session is closed then, and the objects are not missed.
        if session is not None:
            self._autosave.discard(session)
        else:  # removed by hand
            session = self._workspace.sessions.left_of(layer_key(opened.layer))
        gone: list[Layer | None] = [opened.layer]
        if session is not None and session.editor is not None:
            gone += [session.editor.layer, self._workspace.classes.layer(session.editor)]
        layers = self._workspace.viewer.layers
        for layer in gone:
            if layer is not None and layer in layers:
                layers.remove(layer)

    # ----------------------------------------------------------------------- opening

    def _open(self, number: int) -> None:
        self._state.number = number
        self._state.in_hand = ImageInHand()
        image = self.images[number]
        ready = self._ready
        self._reading.cancel()
        if ready is not None and ready.image == image:
            self._show(ready)
            return
        self.status.emit(Status("working", f"Opening {image.name}", way_out=""))
        self._opening.start("Opening", lambda: open_image_job(image))
        self.changed.emit()

    def _show(self, opened: ReadImage) -> None:
        self._ready = None
        self.in_hand.read = opened
        self.in_hand.is_new = True
        viewer = self._workspace.viewer
        for other in self._workspace.images:  # it may cover little of them, or lie elsewhere
            other.visible = False
        viewer.add_layer(opened.layer)
        viewer.layers.selection.active = opened.layer
        viewer.reset_view()
        self.changed.emit()

    def _on_unreadable(self, reason: str) -> None:
        image = self.current
        if image is not None:
            name = image.name
            text = reason if name in reason else UNREADABLE.format(name, reason)
            self.in_hand.problem = f"{text} {SKIPS_IT}"
            self._fail(self.in_hand.problem)

    def _on_subject(self) -> None:
        """Restore the work on an image as soon as it is chosen."""
        session, state = self._workspace.session, self._state
        if state.in_hand.is_new and session is not None and session is self._session():
            state.in_hand.is_new = False
            state.seen.add(self.number)
            session.home = home_of(self.images[self.number].results)
            self._restore(session)
            self.changed.emit()

    def _restore(self, session: LayerSession) -> None:
        in_hand = self.in_hand
        opened = in_hand.read
        assert opened is not None
        image, identity = opened.image, self._autosave.image(session)
        log = left_over(identity, session.home)
        saved = image.session
        if saved.exists() and (log is None or log.stat().st_mtime < saved.stat().st_mtime):
            log = _copied(saved, identity, session.home)
        elif log is not None:
            in_hand.is_unsaved = True
        if log is not None:
            in_hand.unrestored = saved.name
            self._recovery.start(log)
        elif opened.labels is not None or opened.problem:
            self._restore_labels(session, opened)

    def _restore_labels(self, session: LayerSession, opened: ReadImage) -> None:
        """Show the labels of an earlier result."""
        shape, labels = session.geometry.usual.shape, opened.labels
        problem = opened.problem
        if labels is not None and labels.shape != shape:
            image = opened.image
            shapes = format_shape(labels.shape), format_shape(shape)
            problem = OTHER_SHAPE.format(image.labels.name, shapes[0], image.name, shapes[1])
        if problem or labels is None:
            self.in_hand.unrestored = opened.image.labels.name
            self._fail(problem)
            return
        layer = outputs.new_objects(self._workspace.viewer, session.geometry, labels)
        self._workspace.use_objects(layer)
        self._workspace.name_objects()
        assert session.editor is not None
        session.editor.take_over(opened.known)
        self._workspace.show_known(session, session.editor)
        self._workspace.objects_changed.emit()

    def _on_restored(self, session: LayerSession) -> None:
        if session is self._session():
            self.in_hand.unrestored = ""
        self.changed.emit()

    # ------------------------------------------------------------------------- ahead

    def _read_ahead(self, *_: object) -> None:
        """Read the next image while the user works on this one."""
        number = self.number + 1
        enabled = self._encodes_ahead() and self._session() is not None
        if not enabled or self.busy or self._reading.busy or number >= len(self.images):
            return
        image = self.images[number]
        if self._ready is None or self._ready.image != image:
            self._reading.start("Opening ahead", lambda: open_image_job(image))

    def _encode_ahead(self, opened: ReadImage) -> None:
        """Encode the planes of the next image that will be shown first."""
        self._ready = opened
        service, layer = self._service, opened.layer
        if service.predictor is None:
            return
        spec = service.predictor.model.spec
        mappings = channel_mappings([layer_info(layer)], spec.inputs)
        if not mappings:
            return
        try:
            image = image_value(mappings[0].sources, spec.channel_names, [layer], spec, {})
        except (ValueError, TypeError):
            return  # said when it is opened
        geometry = image_geometry(mappings[0].sources, [layer])
        sizes = geometry.shape[:-2]
        shown = (*(0,) * len(sizes), *self._workspace.viewer.dims.current_step[:-2])
        shown = shown[len(shown) - len(sizes) :]  # the image's axes are the viewer's last ones
        plane = tuple(min(int(at), size - 1) for at, size in zip(shown, sizes, strict=True))
        planes = around(plane, sizes, NEIGHBORS) if sizes else [()]
        request = PredictionRequest(
            self._workspace.model, image.seen((), geometry.spacing), planes[0]
        )
        self._encoded = request, opened.image.path.absolute().parent
        self._encoding.start("Encoding ahead", lambda: service.encode_ahead_job(request, planes))

    # ------------------------------------------------------------------------ status

    def _say(self, text: str) -> None:
        self.status.emit(Status("done", text))

    def _fail(self, text: str) -> None:
        self.status.emit(Status("failed", text))
        self.changed.emit()


def _follow_job(
    image: FolderImage, output: Path | None, objects: LabeledObjects | None
) -> Job[list[Path]]:
    """Let the files of a batch follow what was saved of an image; those that could not."""
    stem, older = stem_of(image.path), []
    if objects is not None:
        older += yield from follow_image_job(image.results, stem, objects)
    if output is not None:
        inside = image.results.is_relative_to(output)
        folder = image.results.relative_to(output) if inside else Path()
        name, table = (folder / image.name).as_posix(), image.results / f"{stem}_objects.csv"
        indices = () if objects is None else objects.table.indices
        older += yield from follow_batch_job(output, name, table, indices)
    return older


def _copied(saved: Path, image: str, home: str) -> Path:
    """A copy of a saved session among the logs of this image, which is continued."""
    path = new_path(image, home)
    shutil.copyfile(saved, path)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line_of("saved"))
    return path
