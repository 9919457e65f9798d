"""What is done is noted in a file as it is done.

The window only passes on what was done; a thread of its own writes it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
from filelock import Timeout
from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat._text import pluralize
from napari_simmat.engine.masks import LabelIndex, box_union
from napari_simmat.io.files import sessions_folder
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.segment import outputs, session_file
from napari_simmat.widgets.segment.history import Edit, Operation
from napari_simmat.widgets.segment.inference import Question
from napari_simmat.widgets.segment.label_editor import Finished
from napari_simmat.widgets.segment.outputs import names_with, numbering
from napari_simmat.widgets.segment.session import Work
from napari_simmat.widgets.segment.session_file import (
    Book,
    Replayed,
    header_of,
    left_of,
    lock_of,
    moved_to,
    replaying,
)
from napari_simmat.widgets.worker import Worker, WorkerTask, sentence

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.controller import Interaction


log = logging.getLogger(__name__)
RANK = 1
"""All of one rank, so that lines are written in the order in which things were done."""
_PATIENCE = 20.0
"""Seconds that closing waits until all is written."""
_Used = tuple[str, tuple[str, ...]]
"""The model and the names of its channels."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What was done to an image until a moment.

    Parameters
    ----------
    work
        The image's.
    noted
        How many lines that are.
    text
        Gives them, to be called in another thread; empty where nothing is noted.
    """

    work: Work
    noted: int
    text: Callable[[], str]


class Autosave(QObject):
    """Follows the lists of operations.

    Parameters
    ----------
    session
        Owns the image's work.

    Attributes
    ----------
    worker
        Writes, and reads, the files.
    """

    warned = Signal(str)
    """Once, in one sentence: what is done is not noted any more, and why."""

    def __init__(self, session: Interaction) -> None:
        super().__init__(session)
        self._session = session
        self.worker = Worker("simmat-notes")
        self._waiting: set[WorkerTask] = set()
        self._books: dict[Work, Book] = {}
        self._left: list[Book] = []
        self._images: WeakKeyDictionary[Work, str] = WeakKeyDictionary()
        self._tokens: WeakKeyDictionary[Work, tuple[object, ...]] = WeakKeyDictionary()
        self._used: WeakKeyDictionary[Work, _Used] = WeakKeyDictionary()
        self._failed = False
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)
        session.changed.connect(self._on_changed)
        session.works.closed.connect(self._on_closed)
        session.works.replaced.connect(self._on_replaced)

    @property
    def busy(self) -> bool:
        """Whether something that was done is not in its file yet."""
        return bool(self._waiting)

    def release(self) -> None:
        """Write what is left and let go of the files, whose text is offered next time."""
        for work in self._books:
            work.operations.told = _nobody
        self.worker.finish()
        self.worker.join(_PATIENCE)
        for book in (*self._books.values(), *self._left):
            book.lock.release()
        self._books.clear()
        self._left.clear()

    def image(self, work: Work) -> str:
        """Tells the image from others, in another session too; empty while none is chosen."""
        return self._images.get(work, "")

    def has_book(self, work: Work) -> bool:
        """Whether something was noted of an image."""
        return work in self._books

    def adopt(self, work: Work, book: Book) -> None:
        """Go on with a file whose text was restored."""
        self._books[work] = book

    def snapshot(self, work: Work) -> Snapshot:
        """All that was done to an image until now."""
        book = self._books.get(work)
        if book is None or book.broken:
            return Snapshot(work, -1, str)
        text: Future[str] = Future()
        self._submit(lambda: session_file.reading(book, text))
        return Snapshot(work, book.noted, text.result)

    def mark_saved(self, snapshot: Snapshot) -> None:
        """Offer none of it again, unless more was done since: it is in files of the user's."""
        book = self._books.get(snapshot.work)
        if book is not None and (book.broken or book.noted == snapshot.noted):
            self._submit(lambda: session_file.closing(book))

    # ------------------------------------------------------------------- writing

    def _on_changed(self) -> None:
        work, question = self._session.work, self._session.question()
        if work is None or question is None:
            return
        # Not the question: its image is large. Of a model's file the name, not the folder.
        self._used[work] = Path(question.model.reference).name, question.image.names or ()
        image = question.image.usual
        if self._tokens.get(work) != image.token and work not in self._books:
            # Other values in its layer are another image; what was noted stays with the one before.
            self._tokens[work] = image.token
            self._images[work] = session_file.identity_of(image, work.place.name)
            work.operations.told = lambda what, value: self._on_told(work, what, value)

    def _on_closed(self, work: Work) -> None:
        """Let go of an image and of its file, which is offered when the image is opened again."""
        work.operations.told = _nobody
        if (book := self._books.pop(work, None)) is not None:
            self._left.append(book)
            self._let_go()

    def _let_go(self) -> None:
        """Give back files of closed images as soon as all is written."""
        if not self._waiting:
            for book in self._left:
                book.lock.release()
            self._left.clear()

    def _on_told(self, work: Work, what: str, value: Any) -> None:
        known = self._books.get(work)
        idle = self._failed or self.worker.closed
        if idle or (what == "forget" and (known is None or value not in known.begun)):
            return  # of a layer that nothing was done to
        try:
            book = known or self._open(work)
        except (OSError, Timeout) as error:
            self._warn(getattr(error, "strerror", None) or sentence(error))
            return
        if isinstance(value, Operation) and value.edit is not None:
            self._begin(work, book, value.edit)
            value = replace(value, edit=replace(value.edit, layer=book.known(value.edit.layer)))
        if what == "forget":
            book.begun.discard(value)
            value = book.aliases.pop(value, value)
        self._note(book, lambda: session_file.noting(book, what, value))

    def _open(self, work: Work) -> Book:
        image = self._images[work]
        path = sessions_folder() / f"{image}-{uuid4().hex[:8]}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        book = Book(path, session_file.lock_of(path))
        book.lock.acquire(blocking=False)
        self._books[work] = book
        header = header_of(image, work.place.usual.shape, *self._used[work])
        self._note(book, lambda: session_file.opening(book, header))
        return book

    def _on_replaced(self, finished: Finished) -> None:
        """Note what a layer holds whose whole array was replaced."""
        if self._failed or self.worker.closed:
            return
        for work, book in self._books.items():
            if finished.key in book.begun and not work.place.other_pixels(finished.layer):
                value = book.known(finished.key), tuple(finished.register.entries)
                self._note(
                    book, lambda book=book, value=value: session_file.noting(book, "anew", value)
                )
                self._note_first(book, finished)

    def _begin(self, work: Work, book: Book, edit: Edit) -> None:
        """Note what a layer held before its first edit."""
        if edit.layer in book.begun or work.finished is None:
            return
        book.begun.add(edit.layer)
        self._note_first(book, work.finished, edit)

    def _note_first(self, book: Book, finished: Finished, edit: Edit | None = None) -> None:
        """Note what a layer holds, or held before an edit."""
        census = finished.register.census
        boxes = [census.box(label) for label in census]
        boxes += [] if edit is None else [patch.footprint.box for patch in edit.patches]
        if boxes:
            key, labels, region = book.known(finished.key), finished.layer.data, box_union(boxes)
            self._note(book, lambda: session_file.noting_first(book, key, labels, region))

    def _note(self, book: Book, start: Callable[[], Job[None]]) -> None:
        book.noted += 1
        self._submit(start)

    def _submit(self, start: Callable[[], Job[None]]) -> None:
        if not self.worker.closed:  # as when the viewer goes
            self._waiting.add(self.worker.submit("Noting", start, RANK))

    # ------------------------------------------------------------------ the worker

    def _on_returned(self, task: WorkerTask, _: object) -> None:
        self._waiting.discard(task)
        self._let_go()

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        if task in self._waiting:
            self._waiting.discard(task)
            self._let_go()
            self._warn(reason)

    def _warn(self, reason: str) -> None:
        if self._failed:
            return
        self._failed = True
        log.warning("What is done is not noted any more: %s", reason)
        self.warned.emit(
            f"What you do from here on would be lost in a crash, since {sessions_folder()} cannot "
            f"be written ({reason}): go on, and save the objects yourself."
        )


def _nobody(what: str, value: Any) -> None:
    """Nobody is told."""


# What a crash left is offered, and restored on a word: read in a thread, then shown.


READ_RANK = 2
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
    censuses: dict[str, LabelIndex]
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
        self._task: WorkerTask | None = None
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
            "Restoring", lambda: restoring(path, shape, names), READ_RANK
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

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        if task is self._task:
            fraction = progress.done / max(1, progress.total)
            self._session.status.emit(Status("working", f"Restoring: {progress.message}", fraction))

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        if task is self._task:
            self._end()
            self._session.fail(reason)

    def _on_returned(self, task: WorkerTask, restored: Restored) -> None:
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
        self._said = f"Restored: {pluralize(count, 'object')}."
        for asked in restored.state.views.values():
            session.show_asked(asked)
        session.changed.emit()
        session.say(self._said)
        session.request()

    def _fill(self, work: Work, book: Book, restored: Restored) -> dict[str, str]:
        """Have the labels layers of a file; for each key in it that of the layer."""
        session, keys = self._session, {}
        for key, labels in restored.state.labels.items():
            layer = outputs.new_objects(session.viewer, work.place, labels)
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
        censuses[key] = LabelIndex.of(labels)
        known = state.entries.get(key, {})
        if any(entry.category for entry in known.values()):
            classes[key] = np.zeros(labels.shape, np.uint8)
            for plane in np.ndindex(labels.shape[:-2]):
                yield Progress(1, 1, "classes")
                classes[key][plane] = numbering(labels[plane], known, names)
    return Restored(state, censuses, names, classes)
