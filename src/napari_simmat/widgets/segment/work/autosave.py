"""Every command is logged to a file as it is done, and restored after a crash.

The window only hands over what was done; a thread of its own writes and reads the files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from filelock import Timeout
from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat._text import pluralize
from napari_simmat.annotation.predictions import PredictionRequest
from napari_simmat.annotation.session_file import (
    LOST,
    AutosaveFile,
    all_left_over,
    holds_learned_job,
    identity_of,
    is_saved,
    left_over,
    lock_of,
    new_path,
    steps_in,
    throw_away,
)
from napari_simmat.annotation.session_lines import AdaptedModelFile, SessionHeader
from napari_simmat.annotation.session_replay import Replayed, replay_job
from napari_simmat.engine.label_index import LabelIndex
from napari_simmat.io.files import copy_job, format_size, remove, user_folder
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.segment.layers import outputs
from napari_simmat.widgets.segment.layers.layer_editor import LayerEditor
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.layers.outputs import class_numbers, extended_names
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.workspace import Workspace, needs_image
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.worker import BackgroundJob, Worker, WorkerTask, later, sentence

log = logging.getLogger(__name__)
_WRITE_RANK = 1
"""One rank for all, so that lines are written in the order in which things were done."""
READ_RANK = 2
"""Behind what is written meanwhile."""
_COUNTED = 1 << 22
"""Bytes of a session whose steps are counted before the menu opens; of a larger one it is named."""
_CLOSE_TIMEOUT = 20.0
"""Seconds that closing waits until all is written."""
NOT_LOGGED = (
    "What you do from here on would be lost in a crash, since {} cannot be written ({}): save the "
    "objects yourself."
)
UNSAVED = "Work on this image from {} was not saved."
ADAPTED = "The model learned from objects of this image on {}: Restore brings both back."
RESTORING = "Restoring"
RESTORED = "Restored: {}. {}"
COMMIT_OPEN, NEXT_OBJECT = "Commit (<key:commit>) writes what was open.", "Next object."
CANCELED = "Restoring canceled; nothing is lost."
NOT_RESTORED = "Not restored: you have already started new work. The offer will come back."
EARLIER = "{when} · {steps}"
THROWN_AWAY = "Thrown away: the work from {}."
NOT_ASIDE = (
    "Not restored: what was done to this image since is not logged. Save it, remove the image and "
    "open it again."
)
OTHER_WINDOW = "Another window has restored this work already; go on in that one."
NO_IMAGE = "Choose the image that the file belongs to first, then drop it again."
BEGUN = (
    "Not restored, because there is work on the image already; remove the image, open it again and "
    "drop the session then."
)


class Snapshot(NamedTuple):
    """What was done to an image until a moment."""

    session: LayerSession
    lines: int
    """Number of lines in its file."""
    text: Callable[[], str]
    """Returns them; to be called in another thread. Empty if nothing is logged."""


class Autosave(QObject):
    """Logs the commands of each image to a file; `worker` writes and reads the files."""

    warned = Signal(str)
    """Emitted once: why commands are not logged any more, in one sentence."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        self.worker = Worker("simmat-notes")
        self._waiting: set[WorkerTask] = set()
        self._files: dict[LayerSession, AutosaveFile] = {}
        self._closed: list[AutosaveFile] = []
        self._images: WeakKeyDictionary[LayerSession, str] = WeakKeyDictionary()
        self._tokens: WeakKeyDictionary[LayerSession, tuple[object, ...]] = WeakKeyDictionary()
        self._used: WeakKeyDictionary[LayerSession, tuple[str, tuple[str, ...]]]
        self._used = WeakKeyDictionary()
        self._failed = False
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)
        workspace.subject_changed.connect(self._on_subject)
        workspace.prompts_changed.connect(self._on_prompts)
        workspace.objects_changed.connect(self._mark_empty)
        workspace.drafts_changed.connect(self._mark_empty)
        workspace.command_changed.connect(self._on_command)
        workspace.session_closed.connect(self._on_closed)
        workspace.layer_replaced.connect(self._on_replaced)
        for session in workspace.sessions.others(None):  # that a closed tab has left
            if session.log is not None:
                self._continue(session, session.log)

    @property
    def busy(self) -> bool:
        """Whether a command is not in its file yet."""
        return bool(self._waiting)

    def release(self) -> None:
        """Write what is left and release the files; their content is offered next time."""
        self.worker.finish()
        self.worker.join(_CLOSE_TIMEOUT)
        for file in (*self._files.values(), *self._closed):
            file.release()
        for session, file in self._files.items():
            session.log = None if file.broken else file
        self._files.clear()
        self._closed.clear()

    def image(self, session: LayerSession) -> str:
        """Identifies the image, in other sessions as well; empty before it was chosen."""
        return self._images.get(session, "")

    def has_file(self, session: LayerSession) -> bool:
        """Whether something was logged for an image."""
        return session in self._files

    def has_changed(self, session: LayerSession) -> bool:
        """Whether anything was logged beyond what was restored."""
        file = self._files.get(session)
        return file is not None and file.lines > 1

    def discard(self, session: LayerSession) -> None:
        """Delete the file when the image is closed: everything is in the user's files.

        It stays if something was learned.
        """
        if session in self._files and session.adapted is None:
            self._files[session].redundant = True

    def path(self, session: LayerSession) -> Path | None:
        """The image's file, begun if need be; None if nothing can be logged."""
        if self._failed or self.worker.closed or session not in self._images:
            return None
        try:
            file = self._files.get(session) or self._create(session)
        except (OSError, Timeout) as error:
            self._warn(getattr(error, "strerror", None) or sentence(error))
            return None
        return None if file.broken else file.path

    def log_adapted(self, session: LayerSession, adapted: AdaptedModelFile | None) -> None:
        """Log which model was adapted; then the checkpoints of those before are removed."""
        if self.path(session) is not None:
            self._on_command(session, "adapted", adapted)
            keep = "" if adapted is None else adapted.file
            self._submit(partial(self._files[session].remove_models_job, keep))

    def adopt(self, session: LayerSession, file: AutosaveFile) -> None:
        """Continue a file whose content was restored."""
        self._files[session] = file

    def snapshot(self, session: LayerSession) -> Snapshot:
        """Everything that was done to an image until now."""
        file = self._files.get(session)
        if file is None or file.broken:
            return Snapshot(session, -1, str)
        text: Future[str] = Future()
        self._submit(partial(file.read_job, text))
        return Snapshot(session, file.lines, text.result)

    def mark_saved(self, snapshot: Snapshot) -> None:
        """Do not offer the snapshot again, unless more was done since: the user has it in files."""
        file = self._files.get(snapshot.session)
        if file is not None and (file.broken or file.lines == snapshot.lines):
            self._submit(file.mark_saved_job)

    # ------------------------------------------------------------------- writing

    def _on_prompts(self) -> None:
        self._mark_empty()
        self._on_subject()

    def _on_subject(self) -> None:
        """Remember which image it is, and what it is segmented with."""
        session, request = self._workspace.session, self._workspace.request()
        if session is None or request is None or not self._workspace.sessions.is_open(session):
            return
        if session.log is not None:
            self._continue(session, session.log)
        # Not the request: its image is large. Of a model's file the name, not the folder.
        self._used[session] = Path(request.model.reference).name, request.image.names or ()
        image = request.image.usual
        if self._tokens.get(session) != image.token and session not in self._files:
            # A layer with other values is another image; the log stays with the one before.
            self._tokens[session] = image.token
            self._images[session] = session.identity = identity_of(image, session.geometry.name)

    def _continue(self, session: LayerSession, file: AutosaveFile) -> None:
        """Log to the file of the tab that was closed; to a new one if it is gone or in use."""
        session.log = None
        with suppress(OSError, Timeout):
            file.lock.acquire(blocking=False)
            if file.path.exists():
                self._files[session] = file
                self._images[session] = file.path.name.rsplit("-", 1)[0]
            else:
                file.lock.release()
        if session.stale and session.editor is not None:
            self._on_replaced(session.editor)
        session.stale = False

    @needs_image
    def _mark_empty(self, session: LayerSession) -> None:
        """Do not offer a file from which nothing would be restored."""
        file = self._files.get(session)
        if file is None or file.lines == file.empty_at:
            return
        editors = [self._workspace.sessions.editor_of(key) for key in file.begun]
        editors += [removed.editor for removed in session.removed.values()]
        has_objects = any(editor is not None and editor.labels for editor in editors)
        has_objects &= len(session.history) > 0  # or they were there before
        has_prompts = any(view.prompt_state for view in session.views.values())
        has_work = has_objects or has_prompts or bool(session.drafts)
        if not has_work and session.adapted is None:
            file.empty_at = file.lines
            self._submit(file.mark_saved_job)

    def _on_closed(self, session: LayerSession) -> None:
        """Release an image and its file, which is offered when the image is opened again."""
        self._images.pop(session, None)
        self._tokens.pop(session, None)  # its image may be opened again, as another layer
        if (file := self._files.pop(session, None)) is not None:
            session.log = None if file.broken else file
            self._closed.append(file)
            self._release_closed()

    def _release_closed(self) -> None:
        """Release the files of closed images as soon as all is written."""
        if not self._waiting:
            for file in self._closed:
                file.release()
            self._closed.clear()

    def _on_command(self, session: LayerSession, what: str, value: Any) -> None:
        if self.path(session) is None:
            return
        file = self._files[session]
        self._log(file, file.jobs_of(what, value, session.editor))

    def _create(self, session: LayerSession) -> AutosaveFile:
        image = self._images[session]
        path = new_path(image, session.home)
        file = AutosaveFile(path, lock_of(path))
        file.lock.acquire(blocking=False)
        self._files[session] = file
        header = SessionHeader(image, session.geometry.usual.shape, *self._used[session])
        self._log(file, [partial(file.create_job, header.line())])
        return file

    def _on_replaced(self, editor: LayerEditor) -> None:
        """Log what a layer holds whose array was replaced."""
        if self._failed or self.worker.closed:
            return
        for session, file in self._files.items():
            if editor.key in file.begun and not session.geometry.other_pixels(editor.layer):
                self._log(file, file.anew_jobs(editor))

    def _log(self, file: AutosaveFile, jobs: Sequence[Callable[[], Job[None]]]) -> None:
        for start in jobs:
            file.lines += 1
            self._submit(start)

    def _submit(self, start: Callable[[], Job[None]]) -> None:
        if not self.worker.closed:  # as when the viewer is closed
            self._waiting.add(self.worker.submit("Logging", start, _WRITE_RANK))

    # ------------------------------------------------------------------ the worker

    def _on_returned(self, task: WorkerTask, _: object) -> None:
        self._waiting.discard(task)
        self._release_closed()

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        if task in self._waiting:
            self._waiting.discard(task)
            self._release_closed()
            self._warn(reason)

    def _warn(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            log.warning("Commands are not logged any more: %s", reason)
            self.warned.emit(NOT_LOGGED.format(user_folder("sessions"), reason))


# ------------------------------------------------------------------------ recovery


class RecoveredSession(NamedTuple):
    """The content of a session file, ready to be shown."""

    state: Replayed
    indices: dict[str, LabelIndex]
    """The objects of each labels layer."""
    names: list[str]
    """Names of classes, the known ones first."""
    classes: dict[str, np.ndarray]
    """(..., Y, X) uint8 of each labels layer that has classes: position in `names`, from 1."""
    lost: bool
    """Whether the checkpoint of the adapted model is gone or damaged."""


class Recovery(QObject):
    """Offers the unsaved work on an image when the image is opened.

    The thread of `autosave` reads the file, which autosave then continues.
    """

    restored = Signal(object)
    """The `LayerSession` whose work was restored."""

    def __init__(self, workspace: Workspace, inference: InferenceQueue, autosave: Autosave) -> None:
        super().__init__(workspace)
        self._workspace, self._autosave = workspace, autosave
        self._job = BackgroundJob(autosave.worker, READ_RANK, self)
        self._target: tuple[LayerSession, AutosaveFile] | None = None
        self._restored = ""
        self._left: tuple[Path, str] | None = None
        self._said = ""
        self._again = later(self, self._offer_again)
        workspace.status.connect(self._on_status)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_returned)
        self._job.failed.connect(self._on_failed)
        inference.predicted.connect(self._on_predicted)
        workspace.subject_changed.connect(self._on_subject)

    @property
    def busy(self) -> bool:
        """Whether a file is being read, or an offer is to come back."""
        return self._job.busy or self._again.isActive()

    def open(self, path: Path) -> None:
        """Restore a session that the user saved, from a copy: the file stays as it is."""
        session = self._workspace.session
        if session is None:
            self._workspace.fail(NO_IMAGE)
        elif self._is_begun(session):
            self._workspace.fail(BEGUN)
        else:
            self.start(new_path(self._autosave.image(session), session.home), path)

    def start(self, path: Path, source: Path | None = None) -> None:
        """Restore the objects, prompts and history of a session file, or of a copy of `source`."""
        workspace, session = self._workspace, self._workspace.session
        if session is None or self._is_begun(session):
            return
        self.release()
        file = AutosaveFile(path, lock_of(path), lines=1)
        try:
            file.lock.acquire(blocking=False)
        except (OSError, Timeout) as error:
            workspace.fail(OTHER_WINDOW if isinstance(error, Timeout) else sentence(error))
            return
        self._target = session, file
        shape, names = session.geometry.usual.shape, list(workspace.classes.names)
        if source is None:
            self._job.start(RESTORING, lambda: recover_job(path, shape, names))
        else:
            self._job.start(RESTORING, lambda: _recover_copy_job(source, path, shape, names))
        workspace.status.emit(Status("working", RESTORING))

    def earlier(self) -> list[tuple[Path, str]]:
        """The files with unsaved work on the chosen image, and what each is called."""
        session = self._workspace.session
        found = [] if session is None else all_left_over(self._autosave.image(session))
        titles = []
        for path in found:
            size = path.stat().st_size  # in the thread of the window
            is_quick = size <= _COUNTED
            steps = pluralize(steps_in(path), "step") if is_quick else format_size(size)
            titles.append((path, EARLIER.format(when=_when(path), steps=steps)))
        return titles

    def take_up(self, path: Path) -> None:
        """Restore earlier work; what was done to the image since is put aside, and stays logged."""
        workspace, session = self._workspace, self._workspace.session
        if session is not None and self._is_begun(session):
            if not self._autosave.has_file(session):
                workspace.fail(NOT_ASIDE)
                return
            workspace.put_aside()
            workspace.model_changed.emit()  # the image is chosen anew
        self.start(path)

    def throw_away(self, path: Path) -> None:
        """Delete earlier work."""
        text = THROWN_AWAY.format(_when(path))
        self._left = None
        throw_away(path)
        self._workspace.say(text)

    def cancel(self) -> None:
        """Stop reading; the file is offered again."""
        if self._target is not None:
            path = self._target[1].path
            self.release()
            self._workspace.offer(
                Status("canceled", CANCELED, offer="Restore"), lambda: self.start(path)
            )

    def release(self) -> None:
        """Stop reading, and release the file."""
        self._job.cancel()
        if self._target is not None:
            self._target[1].lock.release()
        self._target = None

    def _is_begun(self, session: LayerSession) -> bool:
        """Whether something was done to an image already."""
        return self._autosave.has_file(session) or len(session.history) > 0

    def _on_predicted(self, request: PredictionRequest, *_: object) -> None:
        """The image is ready: offer the unsaved work on it if nothing was done yet."""
        workspace, session = self._workspace, self._workspace.session
        text, self._restored = self._restored, ""
        if text:  # again, since the prediction for the restored prompts has replaced it
            workspace.say(text)
        if session is None or request.prompts or self._job.busy or self._is_begun(session):
            return
        path = left_over(self._autosave.image(session), session.home)
        if path is not None:
            text = (ADAPTED if is_saved(path) else UNSAVED).format(_when(path))
            self._left = path, text
            workspace.offer(Status("ready", text, offer="Restore"), lambda: self.start(path))

    def _on_status(self, status: Status) -> None:
        """Let an offer come back that another word has replaced, until work begins."""
        if self._left is not None and status.kind == "ready" and not status.offer:
            self._said = status.text
            self._again.start()

    def _offer_again(self) -> None:
        workspace, session, left = self._workspace, self._workspace.session, self._left
        if left is None or session is None or self._job.busy:
            return
        path, text = left
        if self._is_begun(session) or not path.is_file():
            self._left = None
            return
        both = Status("ready", f"{text} {self._said}", offer="Restore")
        workspace.offer(both, lambda: self.start(path))

    # ------------------------------------------------------------------ the worker

    def _on_progress(self, progress: Progress) -> None:
        text = f"{RESTORING}: {progress.message}"
        self._workspace.status.emit(Status("working", text, progress.fraction))

    def _on_failed(self, reason: str) -> None:
        self.release()
        self._workspace.fail(reason)

    def _on_returned(self, recovered: RecoveredSession) -> None:
        if self._target is None:
            return
        workspace, (session, file) = self._workspace, self._target
        self._target = None
        if self._is_begun(session):
            file.lock.release()
            workspace.fail(NOT_RESTORED)
            return
        self._autosave.adopt(session, file)
        session.history.restore(recovered.state.history, self._fill(session, file, recovered))
        session.adapted, session.drafts = recovered.state.adapted, recovered.state.drafts
        what = pluralize(sum(len(index) for index in recovered.indices.values()), "object")
        if count := len(session.drafts.open):
            what = f"{what} and {pluralize(count, 'draft')}"
        is_open = count or any(recovered.state.views.values())
        self._restored = RESTORED.format(what, COMMIT_OPEN if is_open else NEXT_OBJECT)
        if recovered.lost:
            self._restored += f" {LOST}"
        for state in recovered.state.views.values():
            workspace.show_prompts(state)
        workspace.prompts_changed.emit()
        workspace.objects_changed.emit()
        workspace.drafts_changed.emit()
        workspace.say(self._restored)
        if session.adapted is not None:
            workspace.model_changed.emit()
        self.restored.emit(session)
        workspace.prediction_wanted.emit()

    def _fill(
        self, session: LayerSession, file: AutosaveFile, recovered: RecoveredSession
    ) -> dict[str, str]:
        """Make the labels layers; returns for each key in the file that of the layer."""
        workspace = self._workspace
        keys = {}
        for key, labels in recovered.state.labels.items():
            layer = outputs.same_objects(workspace.viewer, session.geometry, labels)
            if layer is None:
                layer = outputs.new_objects(workspace.viewer, session.geometry, labels)
            editor = workspace.sessions.editor(layer, recovered.indices[key])
            editor.register.entries = dict(recovered.state.entries.get(key, {}))
            outputs.note_doubtful(layer, editor.register.entries)
            session.editor = editor
            workspace.name_objects()
            if key in recovered.classes:
                numbers = recovered.classes[key]
                workspace.classes.show(session.geometry, editor, recovered.names, numbers)
            keys[key] = editor.key
            file.begun.add(editor.key)
            file.aliases[editor.key] = key
        return keys

    def _on_subject(self) -> None:
        """Stop if another image was chosen, or this one is gone."""
        self._left = None  # until the image is ready
        if self._target is not None and self._workspace.session is not self._target[0]:
            self.release()


def _when(path: Path) -> str:
    """When something was last done in a session."""
    return time.strftime("%d %b %H:%M", time.localtime(path.stat().st_mtime))


def _recover_copy_job(
    source: Path, path: Path, shape: tuple[int, ...], names: Sequence[str]
) -> Job[RecoveredSession]:
    try:
        yield from copy_job(source, path)
        return (yield from recover_job(path, shape, names))
    except ValueError as error:  # the user does not know the copy's name
        remove(path)
        raise ValueError(str(error).replace(path.name, source.name)) from None
    except BaseException:
        remove(path)
        raise


def recover_job(path: Path, shape: tuple[int, ...], names: Sequence[str]) -> Job[RecoveredSession]:
    """Replay a session file, and count its objects and number its classes.

    Parameters
    ----------
    path
        The file.
    shape
        (..., Y, X) of the image it is restored for.
    names
        The known classes.

    Raises
    ------
    ValueError
        If it is no such file, or of another image; one sentence says why.
    """
    state = yield from replay_job(path, shape)
    lost = False
    if (adapted := state.adapted) is not None:
        lost = not (yield from holds_learned_job(path, adapted))
        state.adapted = None if lost else adapted
    entries = [entry for known in state.entries.values() for entry in known.values()]
    names = extended_names(names, [entry.category for entry in entries])
    indices, classes = {}, {}
    for key, labels in state.labels.items():
        yield Progress(1, 1, "counting objects")
        indices[key] = LabelIndex.of(labels)
        known = state.entries.get(key, {})
        if any(entry.category for entry in known.values()):
            classes[key] = np.zeros(labels.shape, np.uint8)
            for plane in np.ndindex(labels.shape[:-2]):
                yield Progress(1, 1, "classes")
                classes[key][plane] = class_numbers(labels[plane], known, names)
    return RecoveredSession(state, indices, names, classes, lost)
