"""What a crash left is offered, and restored on a word: read in a thread, then shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import Timeout
from qtpy.QtCore import QObject, Qt

from napari_simmat.engine.census import Census
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.segment import label_layers
from napari_simmat.widgets.segment.autosave import Autosave
from napari_simmat.widgets.segment.books import Book, left_of, lock_of
from napari_simmat.widgets.segment.classes import names_with, numbering
from napari_simmat.widgets.segment.journal import Replayed, moved_to, replaying
from napari_simmat.widgets.segment.segmenting import Question
from napari_simmat.widgets.segment.works import Work
from napari_simmat.widgets.status import Status
from napari_simmat.widgets.worker import Task, sentence
from napari_simmat.words import counted

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.interaction import Interaction

RANK = 2
"""Behind what is noted meanwhile."""


@dataclass(frozen=True, eq=False)
class Restored:
    """What a file says, ready to be shown.

    Parameters
    ----------
    state
        After all its lines.
    censuses
        The objects of each labels layer.
    names
        Of classes, the known ones first.
    classes
        (..., Y, X) uint8 of each labels layer that has some: where in `names`, from 1.
    """

    state: Replayed
    censuses: dict[str, Census]
    names: list[str]
    classes: dict[str, np.ndarray]


class Restoring(QObject):
    """Offers what was left of an image when it is opened.

    Parameters
    ----------
    session
        Owns the image's work and the status line.
    autosave
        Goes on with the file, and has the thread in which it is read.
    """

    def __init__(self, session: Interaction, autosave: Autosave) -> None:
        super().__init__(session)
        self._session = session
        self._autosave = autosave
        self._task: Task | None = None
        self._asked: tuple[Work, Book] | None = None
        self._said = ""
        worker, queued = autosave.worker, Qt.ConnectionType.QueuedConnection
        worker.progressed.connect(self._on_progress, queued)
        worker.returned.connect(self._on_returned, queued)
        worker.failed.connect(self._on_failed, queued)
        session.answering.answered.connect(self._on_answered)
        session.changed.connect(self._on_session)

    @property
    def busy(self) -> bool:
        """Whether a file is being read."""
        return self._task is not None

    def start(self, path: Path) -> None:
        """Have what a file says: objects, prompts and the list of operations."""
        session, work = self._session, self._session.work
        if work is None or self._is_begun(work):
            return
        self._end()
        book = Book(path, lock_of(path), noted=1)
        try:
            book.lock.acquire(blocking=False)
        except (OSError, Timeout) as error:
            session.fail(sentence(error))
            return
        self._asked = work, book
        shape, names = work.place.usual.shape, list(session.classes.names)
        self._task = self._autosave.worker.submit(
            "Restoring", lambda: restoring(path, shape, names), RANK
        )
        session.status.emit(Status("working", "Restoring"))

    def cancel(self) -> None:
        """Stop reading; it is offered again."""
        if self._asked is not None:
            path = self._asked[1].path
            self._end()
            self._session.offer(
                Status("cancelled", "Restoring cancelled; nothing is lost.", offer="Restore"),
                lambda: self.start(path),
            )

    def release(self) -> None:
        """Stop reading."""
        self._end()

    def _end(self) -> None:
        """Want no file any more, and let go of it."""
        if self._task is not None:
            self._task.cancel()
        if self._asked is not None:
            self._asked[1].lock.release()
        self._task = self._asked = None

    def _is_begun(self, work: Work) -> bool:
        """Whether something was done to an image already."""
        return self._autosave.has_book(work) or len(work.operations) > 0

    def _on_answered(self, question: Question, *_: object) -> None:
        """Offer what was left of this image, where nothing was done yet."""
        said, self._said = self._said, ""
        if said:  # once more: what was open is answered now
            self._session.say(said)
        work = self._session.work
        if work is None or question.prompts or self.busy or self._is_begun(work):
            return
        left = left_of(self._autosave.image(work))
        if left is not None:
            when = time.strftime("%d %b %H:%M", time.localtime(left.stat().st_mtime))
            self._session.offer(
                Status("ready", f"Work on this image from {when} was not saved.", offer="Restore"),
                lambda: self.start(left),
            )

    # ------------------------------------------------------------------ the worker

    def _on_progress(self, task: Task, progress: Progress) -> None:
        if task is self._task:
            fraction = progress.done / max(1, progress.total)
            self._session.status.emit(Status("working", f"Restoring: {progress.message}", fraction))

    def _on_failed(self, task: Task, reason: str) -> None:
        if task is self._task:
            self._end()
            self._session.fail(reason)

    def _on_returned(self, task: Task, restored: Restored) -> None:
        if task is not self._task or self._asked is None:
            return
        session, (work, book) = self._session, self._asked
        self._task = self._asked = None
        if self._is_begun(work):
            book.lock.release()
            session.fail("Not restored, since you have worked on; it is offered another time.")
            return
        self._autosave.adopt(work, book)
        told = work.operations.told
        work.operations = moved_to(restored.state.operations, self._fill(work, book, restored))
        work.operations.told = told
        count = sum(len(census) for census in restored.censuses.values())
        self._said = f"Restored: {counted(count, 'object')}."
        for asked in restored.state.views.values():
            session.show_asked(asked)
        session.changed.emit()
        session.say(self._said)
        session.request()

    def _fill(self, work: Work, book: Book, restored: Restored) -> dict[str, str]:
        """Have the labels layers of a file; for each key in it that of the layer."""
        session, keys = self._session, {}
        for key, labels in restored.state.labels.items():
            layer = label_layers.new_objects(session.viewer, work.place, labels)
            finished = session.works.finished(layer, restored.censuses[key])
            finished.register.entries = dict(restored.state.entries.get(key, {}))
            work.finished = finished
            if key in restored.classes:
                session.classes.show(work.place, finished, restored.names, restored.classes[key])
            keys[key] = finished.key
            book.begun.add(finished.key)
            book.aliases[finished.key] = key
        return keys

    def _on_session(self) -> None:
        """Stop when another image is chosen or this one is gone."""
        if self._asked is not None and self._session.work is not self._asked[0]:
            self._end()


def restoring(path: Path, shape: tuple[int, ...], names: Sequence[str]) -> Job[Restored]:
    """Read a file, and make what its layers and tables show.

    Parameters
    ----------
    path
        The file.
    shape
        (..., Y, X) of the image it is wanted for.
    names
        The classes that are known.

    Raises
    ------
    ValueError
        If it is no such file, or of another image; one sentence says why.
    """
    state = yield from replaying(path)
    if state.shape != shape:
        raise ValueError("It belongs to an image of another shape; open that one.")
    entries = [entry for known in state.entries.values() for entry in known.values()]
    names = names_with(names, [entry.category for entry in entries])
    censuses, classes = {}, {}
    for key, labels in state.labels.items():
        yield Progress(1, 1, "counting objects")
        censuses[key] = Census.of(labels)
        known = state.entries.get(key, {})
        if any(entry.category for entry in known.values()):
            classes[key] = np.zeros(labels.shape, np.uint8)
            for plane in np.ndindex(labels.shape[:-2]):
                yield Progress(1, 1, "classes")
                classes[key][plane] = numbering(labels[plane], known, names)
    return Restored(state, censuses, names, classes)
