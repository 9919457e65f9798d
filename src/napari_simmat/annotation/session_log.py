"""The log of a session without a window: begun or replayed, then appended to step by step."""

from __future__ import annotations

import errno
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from filelock import Timeout

from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.annotation.session_file import (
    AutosaveFile,
    holds_learned_job,
    identity_of,
    lock_of,
)
from napari_simmat.annotation.session_image import SessionImage
from napari_simmat.annotation.session_lines import AdaptedModelFile, SessionHeader
from napari_simmat.annotation.session_replay import Replayed, replayed
from napari_simmat.io.files import OutputError, atomic_write
from napari_simmat.progress import finish

IN_USE = "{} is in use by another session."
CLOSED = "The session is closed; a new one with its log goes on from there."
NO_PLACE = "{} cannot be written ({}); give another place for the log."
NOT_LOGGED = "{} cannot be written any more, so steps would be lost: save the objects."


class SessionLog:
    """The file that holds the steps of one session, locked until it is closed.

    Parameters
    ----------
    path
        The file; None for one of its own, which goes when the log is closed.

    Raises
    ------
    ValueError
        If another session holds the file.
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path | str | None) -> None:
        own = tempfile.mkdtemp(prefix="simmat-session-") if path is None else ""
        # Also goes if nobody closes the log.
        self._remove = weakref.finalize(self, shutil.rmtree, own, ignore_errors=True)
        self.path = Path(own) / "session.jsonl" if path is None else Path(path)
        if not own:
            self._remove.detach()
        self._file = AutosaveFile(self.path, lock_of(self.path))
        try:
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file.lock.acquire(blocking=False)
        except Timeout:
            raise ValueError(IN_USE.format(self.path.name)) from None
        except OSError as error:
            raise OutputError(NO_PLACE.format(self.path, error.strerror)) from None

    def close(self) -> None:
        """Release the file; one of its own is removed."""
        self._file.lock.release()
        self._remove()

    def begin(self, image: SessionImage, model: str) -> None:
        """Write the first line, which describes the image."""
        identity = identity_of(image.value, image.name)
        header = SessionHeader(identity, image.shape, model, image.value.names or ())
        finish(self._file.create_job(header.line()))

    def replayed(self, shape: tuple[int, ...]) -> Replayed | None:
        """The state after all its lines; None if there is no file yet.

        Raises
        ------
        ValueError
            If it is no session, damaged, or of an image of another shape than (..., Y, X).
        """
        return replayed(self.path, shape) if self.path.exists() else None

    def go_on(self, editor: LabelEditor, key: str) -> None:
        """Log further edits of labels that the file calls `key`."""
        self._file.aliases[editor.key] = key
        self._file.begun.add(editor.key)

    def add(self, what: str, value: Any, editor: LabelEditor | None) -> None:
        """Append a change of the history, as `UndoStack` reports it.

        Raises
        ------
        ValueError
            If the log is closed.
        OSError
            If the file cannot be written; it is not written any more, as a line would be missing.
        """
        if not self._file.lock.is_locked:
            raise ValueError(CLOSED)
        if self._file.broken:
            raise OSError(NOT_LOGGED.format(self.path))
        for start in self._file.jobs_of(what, value, editor):
            finish(start())

    def beside(self, file: str) -> Path:
        """A checkpoint beside the log, by its name."""
        return self.path.with_name(Path(file).name)

    def holds(self, adapted: AdaptedModelFile | None) -> bool:
        """Whether the checkpoint is there that was learned, and is unchanged."""
        return adapted is not None and finish(holds_learned_job(self.path, adapted))

    def remove_models(self, keep: str) -> None:
        """Remove the checkpoints beside the log that were learned before the one called `keep`."""
        finish(self._file.remove_models_job(keep))

    def copy_to(self, target: Path) -> None:
        """Copy the file, unless it is the target."""
        if target.resolve() != self.path.resolve():
            with atomic_write(target) as temporary:
                shutil.copyfile(self.path, temporary)
