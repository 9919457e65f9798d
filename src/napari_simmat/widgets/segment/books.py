"""The files in which work is noted, one for each image that is worked on: no Qt, no napari.

What is written is written in the worker's thread, in the order in which it was done.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from filelock import FileLock, Timeout

from napari_simmat.engine.census import Box
from napari_simmat.engine.folders import sessions_folder
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.segment.image_value import ImageValue
from napari_simmat.widgets.segment.journal import beginning, line_of

KEPT_DAYS = 30
"""After so many days what was not restored is deleted."""
_SAMPLE = 1 << 16
"""Values of an image by which it is told from others."""


@dataclass(eq=False)
class Book:
    """The file of one image's work.

    Parameters
    ----------
    path, lock
        The file, and what shows to other windows that it is in use.
    begun
        Keys of the labels layers whose first state is in the file.
    aliases
        For a layer that was restored, the key it has in the file.
    noted
        How many lines it was given.
    broken
        Whether a line could not be written: none is after it, since it would follow a gap.
    """

    path: Path
    lock: FileLock
    begun: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    noted: int = 0
    broken: bool = False

    def known(self, layer: str) -> str:
        """The key that a layer has in the file."""
        return self.aliases.get(layer, layer)

    def create(self, header: str) -> None:
        """Write the first line; as `append`."""
        self._write(header, "x")

    def append(self, text: str) -> None:
        """Write at the end, unless something before it could not be written.

        Raises
        ------
        OSError
            If it cannot be written; the sentence has no number.
        """
        if not self.broken:
            self._write(text, "a")

    def _write(self, text: str, mode: str) -> None:
        opener = None if mode == "x" else _existing  # made anew it would lack its first line
        try:
            with open(self.path, mode, encoding="utf-8", newline="\n", opener=opener) as file:
                file.write(text)
        except OSError as error:
            self.broken = True
            raise OSError(error.strerror or str(error)) from error
        except BaseException:
            self.broken = True
            raise


def _existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


def lock_of(path: Path) -> FileLock:
    """What shows that a file is in use; it is to be taken and given back in one thread."""
    return FileLock(path.with_suffix(".lock"))


# --------------------------------------------------------------------- in the thread


def noting(book: Book, what: str, value: Any = None) -> Job[None]:
    """Append one line."""
    yield Progress(0, 1, "noting what was done")
    book.append(line_of(what, value))


def noting_first(book: Book, key: str, labels: Any, region: Box) -> Job[None]:
    """Append what a layer of labels holds within a region; it may be edited meanwhile."""
    lines = yield from beginning(key, labels, region)
    book.append("".join(lines))


def opening(book: Book, header: str) -> Job[None]:
    """Write the first line."""
    yield Progress(0, 1, "noting what was done")
    book.create(header)


def reading(book: Book, text: Future[str]) -> Job[None]:
    """Give all that was noted; nothing where it cannot be told."""
    try:
        yield Progress(0, 1, "reading what was done")
        text.set_result("" if book.broken else book.path.read_text(encoding="utf-8"))
    except OSError:
        text.set_result("")
    finally:
        if not text.done():
            text.set_result("")


def closing(book: Book) -> Job[None]:
    """Offer none of it again: it is in files of the user's."""
    yield Progress(0, 1, "noting what was saved")
    if book.broken:
        book.path.unlink(missing_ok=True)
    else:
        book.append(line_of("saved"))


# --------------------------------------------------------------------- which file


def identity_of(image: ImageValue, name: str) -> str:
    """Equal for the same image, in another session too: shape, type, and a sample of values.

    Of an image that is not in memory nothing is read; its name stands for the values.
    """
    state = xxhash.xxh3_128(repr(image.names).encode())
    for array in image.all_arrays:
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
    lock = lock_of(path)
    try:
        with lock.acquire(blocking=False):
            return True
    except Timeout:
        return False
