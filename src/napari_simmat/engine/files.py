"""Files written whole or not at all, and hashed with progress."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from napari_simmat.progress import Job, Progress, finish

_CHUNK = 1 << 22


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that becomes `path` when the block ends well.

    The content reaches the disk before the name does, so that a crash leaves the old file or the
    new one, never half of it. When the block fails, nothing is left behind.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; the sentence says which.
    """
    temporary = path.parent / f".{uuid4().hex}.tmp"
    try:
        with disk_in_words(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            move_into_place(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_in_words(path: Path) -> Iterator[None]:
    """Turn the system's errors while `path` is written into a sentence for the user."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a sentence already
            raise
        raise _in_words(error, path) from error


def flush(path: Path) -> None:
    """See the content of a file, or of all files of a folder, safe on the disk."""
    for each in files_of(path):
        with each.open("rb+") as file:
            os.fsync(file.fileno())


def move_into_place(source: Path, target: Path) -> None:
    """Rename `source` to `target` in the same folder, its content safe on the disk first."""
    flush(source)
    replace(source, target)
    flush_folder(target.parent)


def replace(source: Path, target: Path) -> None:
    """Rename a file or a folder; a folder of the target's name, which renaming spares, goes."""
    if source.is_dir() and target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of a folder in the order of their names."""
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.rglob("*") if each.is_file())


def flush_folder(folder: Path) -> None:
    """See the names in a folder safe on the disk; Windows has no such call."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def copying(source: Path, target: Path) -> Job[None]:
    """Copy a file, whole or not at all."""
    total = source.stat().st_size
    done = 0
    with source.open("rb") as read, writing(target) as temporary, temporary.open("wb") as write:
        while chunk := read.read(_CHUNK):
            write.write(chunk)
            done += len(chunk)
            yield Progress(done, total, f"Copying {source.name}")


def hashing(path: Path) -> Job[str]:
    """Compute the SHA-256 of a file's content, in lower-case hexadecimal."""
    digest = hashlib.sha256()
    total = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            yield Progress(done, total, f"Checking {path.name}")
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, of a folder's files' names and contents."""
    if not path.is_dir():
        return finish(hashing(path))
    digest = hashlib.sha256()
    for file in files_of(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def size_in_words(size: int) -> str:
    """Bytes as a person reads them, e.g. ``375 MB``."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= step:
            return f"{size / step:.3g} {unit}"
    return f"{size} bytes"


def _in_words(error: OSError, path: Path) -> OSError:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return OSError(
            f"The disk is full: {path.name} could not be written to {path.parent}, nothing was "
            "changed. Free some space there or choose another folder."
        )
    return OSError(
        f"{path.name} could not be written to {path.parent} ({error.strerror}), nothing was "
        "changed. Choose a folder that can be written."
    )
