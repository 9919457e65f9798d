"""What is done is noted in a file as it is done; what a crash left is offered again."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
import xxhash
from filelock import FileLock, Timeout
from qtpy.QtCore import QObject

from napari_simmat.engine.folders import sessions_folder
from napari_simmat.widgets.segment import label_layers
from napari_simmat.widgets.segment.journal import (
    Replayed,
    before_edit,
    header_of,
    line_of,
    moved_to,
    replayed,
)
from napari_simmat.widgets.segment.operations import Edit, Operation
from napari_simmat.widgets.segment.segmenting import ImageValue, Question
from napari_simmat.widgets.segment.works import Work
from napari_simmat.widgets.status import Status

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.interaction import Interaction

log = logging.getLogger(__name__)
KEPT_DAYS = 30
"""After so many days what was not restored is deleted."""
_Used = tuple[str, tuple[str, ...]]
"""The model and the names of its channels."""
_SAMPLE = 1 << 16
"""Values of an image by which it is told from others."""


@dataclass(eq=False)
class _Book:
    """The file of one image's work.

    Parameters
    ----------
    path, lock
        The file, and what shows to other windows that it is in use.
    begun
        Keys of the labels layers whose first state is in the file.
    aliases
        For a layer that was restored, the key it has in the file.
    """

    path: Path
    lock: FileLock
    begun: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)


class Autosave(QObject):
    """Follows the lists of operations.

    Parameters
    ----------
    session
        Owns the image's work and the status line.
    """

    def __init__(self, session: Interaction) -> None:
        super().__init__(session)
        self._session = session
        self._books: dict[Work, _Book] = {}
        self._images: WeakKeyDictionary[Work, str] = WeakKeyDictionary()
        self._failed = False
        session.changed.connect(self._on_changed)
        session.answering.answered.connect(self._on_answered)

    def release(self) -> None:
        """Let go of the files; what is in them stays, to be offered next time."""
        for work, book in self._books.items():
            work.operations.told = _nobody
            book.lock.release()
        self._books.clear()

    def text(self, work: Work) -> str:
        """All that was done to an image, as the file has it; empty if nothing was."""
        book = self._books.get(work)
        try:
            return "" if book is None else book.path.read_text(encoding="utf-8")
        except OSError:
            return ""

    def mark_saved(self, work: Work) -> None:
        """Offer none of it again: it is in files of the user's."""
        if work in self._books:
            self._append(self._books[work], line_of("saved"))

    # ------------------------------------------------------------------- writing

    def _on_changed(self) -> None:
        work, question = self._session.work, self._session.question()
        if work is not None and question is not None and work not in self._images:
            self._images[work] = identity_of(question.image, work.place.name)
            used = question.model, question.image.names or ()  # not the image: it is large
            work.operations.told = lambda what, value: self._on_told(work, used, what, value)

    def _on_told(self, work: Work, used: _Used, what: str, value: Any) -> None:
        if self._failed:
            return
        try:
            book = self._books.get(work) or self._open(work, used)
            if isinstance(value, Operation) and value.edit is not None:
                self._begin(work, book, value.edit)
                value = replace(value, edit=replace(value.edit, layer=_known(book, value.edit)))
            if what == "forget":
                if value not in book.begun:
                    return
                book.begun.discard(value)
                value = book.aliases.get(value, value)
            self._append(book, line_of(what, value))
        except (OSError, Timeout) as error:
            self._failed = True
            log.warning("What is done is not noted any more: %s", error)

    def _open(self, work: Work, used: _Used) -> _Book:
        image = self._images[work]
        path = sessions_folder() / f"{image}-{uuid4().hex[:8]}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        book = _Book(path, _lock_of(path))
        book.lock.acquire(blocking=False)
        self._books[work] = book
        path.write_text(header_of(image, work.place.shape, *used), encoding="utf-8")
        return book

    def _begin(self, work: Work, book: _Book, edit: Edit) -> None:
        """Note what a layer held before the first edit."""
        if edit.layer in book.begun or work.finished is None:
            return
        book.begun.add(edit.layer)
        finished = work.finished
        first = before_edit(finished.layer.data, finished.register.census, edit.patches)
        self._append(book, line_of("begin", (_known(book, edit), first)))

    def _append(self, book: _Book, line: str) -> None:
        with book.path.open("a", encoding="utf-8") as file:
            file.write(line)

    # ----------------------------------------------------------------- restoring

    def _on_answered(self, question: Question, *_: object) -> None:
        """Offer what was left of this image, where nothing was done yet."""
        work = self._session.work
        if work is None or question.prompts or work in self._books or len(work.operations):
            return
        left = left_of(self._images.get(work, ""))
        if left is not None:
            when = time.strftime("%d %b %H:%M", time.localtime(left.stat().st_mtime))
            self._session.offer(
                Status("ready", f"Work on this image from {when} was not saved.", offer="Restore"),
                lambda: self.restore(left),
            )

    def restore(self, path: Path) -> None:
        """Have what a file says: objects, prompts and the list of operations."""
        session, work = self._session, self._session.work
        if work is None or work in self._books:
            return
        lock = _lock_of(path)
        try:
            lock.acquire(blocking=False)
            state = replayed(path)
            if state.shape != work.place.shape:
                raise ValueError("It belongs to an image of another shape; open that one.")
        except (OSError, ValueError, Timeout) as error:
            lock.release()
            session.fail(str(error))
            return
        book = self._books[work] = _Book(path, lock)
        told = work.operations.told
        work.operations = moved_to(state.operations, self._fill(work, book, state))
        work.operations.told = told
        session.show_asked(state.asked)
        session.changed.emit()
        session.request()
        session.say(f"Restored: {state.objects} objects.")

    def _fill(self, work: Work, book: _Book, state: Replayed) -> dict[str, str]:
        """Have the labels layers of a file; for each key in it that of the layer."""
        session, keys = self._session, {}
        for key, labels in state.labels.items():
            layer = label_layers.new_objects(session.viewer, work.place)
            layer.data[...] = labels
            finished = session.works.finished(layer)
            finished.register.entries = dict(state.entries.get(key, {}))
            work.finished = finished
            session.classes.follow(work.place, finished, Edit(finished.key))
            layer.refresh()
            keys[key] = finished.key
            book.begun.add(finished.key)
            book.aliases[finished.key] = key
        return keys


def identity_of(image: ImageValue, name: str) -> str:
    """Equal for the same image, in another session too: shape, type, and a sample of values.

    Of an image that is not in memory nothing is read; its name stands for the values.
    """
    arrays = image.arrays if isinstance(image.arrays, (list, tuple)) else [image.arrays]
    state = xxhash.xxh3_128(repr(image.names).encode())
    for array in arrays:
        state.update(repr((tuple(array.shape), str(array.dtype))).encode())
        if isinstance(array, np.ndarray):
            most = max(1, int(_SAMPLE ** (1 / array.ndim)))
            sample = array[tuple(slice(None, None, max(1, size // most)) for size in array.shape)]
            state.update(np.ascontiguousarray(sample).tobytes())
        else:
            state.update(name.encode())
    return state.hexdigest()


def left_of(image: str) -> Path | None:
    """The newest file of an image that is not saved and that no window has open; None for none."""
    found = []
    for path in sessions_folder().glob("*.jsonl"):
        with suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if age > KEPT_DAYS * 86400 and _is_free(path):
                path.unlink()
            elif path.name.startswith(f"{image}-") and _is_free(path) and not _is_saved(path):
                found.append((age, path))
    return min(found)[1] if found else None


def _is_saved(path: Path) -> bool:
    ending = line_of("saved").encode()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(ending)))
        return file.read() == ending


def _is_free(path: Path) -> bool:
    lock = _lock_of(path)
    try:
        with lock.acquire(blocking=False):
            return True
    except Timeout:
        return False


def _lock_of(path: Path) -> FileLock:
    return FileLock(path.with_suffix(".lock"))


def _known(book: _Book, edit: Edit) -> str:
    """The key that an edit's layer has in the file."""
    return book.aliases.get(edit.layer, edit.layer)


def _nobody(what: str, value: Any) -> None:
    """Nobody is told."""
