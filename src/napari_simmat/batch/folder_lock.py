"""Which runs write into an output folder now, and the lock under which that is decided.

While runs go on, the folder `WORK` in their output folder holds a file for each of them, and a lock
that the run holds as long as it lives. Locks are the system's: those of a killed process are free.
The last run removes all of it.

Between machines this needs a file system with locks: NFS 4 has them, NFS 3 by its lock daemon,
Lustre if it is mounted with ``flock``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_simmat.io.files import OutputError
from napari_simmat.progress import Job, Progress

LOCK = ".simmat.lock"
"""The file that a run locks in its output folder while it begins, ends or writes the summary."""
WORK = ".simmat-run"
"""The folder, in the output folder, of what the runs of this moment know of each other."""
RUN_ENDING = ".run"
WAITING = "waiting for another run in this folder"
POLL = 0.1
"""Seconds between two looks at a lock."""
PATIENCE = 10.0
"""Seconds that a run which ends waits for the lock of the folder."""
NO_LOCKS = (
    "The file system of {} knows no locks, by which runs leave each other alone. Choose an output "
    "folder on another one."
)


def try_lock(path: Path) -> FileLock | None:
    """Lock a file, which is created if needed; None while another run, or thread, holds it.

    Raises OSError if it cannot be created, OutputError if the file system has no locks.
    """
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except NotImplementedError:  # some clusters' file systems
        raise OutputError(NO_LOCKS.format(path.parent)) from None
    if _is_at(lock, path):
        return lock
    lock.release()  # the run before has removed the file: the next one locks another
    return None


def _is_at(lock: FileLock, path: Path) -> bool:
    """Whether a locked file is the one that the path names now."""
    try:
        # `filelock` has no public name for it; by itself it looks whether the file has any name.
        return os.path.samestat(os.fstat(lock._context.lock_file_fd or -1), os.stat(path))
    except FileNotFoundError:
        return False


def lock_folder_job(folder: Path) -> Job[FileLock]:
    """Lock an output folder, created if needed, for a moment; waits for other runs' moments.

    Raises OutputError if it cannot be written.
    """
    while (lock := _try_folder(folder)) is None:
        yield Progress(0, 0, WAITING)
        time.sleep(POLL)
    return lock


@contextmanager
def folder_locked(folder: Path, patience: float = PATIENCE) -> Iterator[bool]:
    """The same for a block; False if the lock is not to be had within so many seconds."""
    end = time.monotonic() + patience
    while (lock := _try_folder(folder)) is None and time.monotonic() < end:
        time.sleep(POLL)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


def _try_folder(folder: Path) -> FileLock | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return try_lock(folder / LOCK)
    except FileNotFoundError:  # the run before has just removed its empty folder
        return None
    except OSError as error:
        if error.errno is None:
            raise
        raise OutputError(
            f"{folder} cannot be written ({error.strerror}). Change its permissions or choose "
            "another output folder."
        ) from None


def runs_in(folder: Path) -> dict[Path, bool]:
    """The files of the runs in an output folder, which is locked, and whether each lives."""
    return {path: _lives(path) for path in sorted((folder / WORK).glob(f"*{RUN_ENDING}"))}


def _lives(run: Path) -> bool:
    lock = try_lock(run.with_suffix(".lock"))
    if lock is not None:
        lock.release()
    return lock is None


def is_shared(folder: Path) -> bool:
    """Whether a run is writing into a folder now."""
    if not (folder / WORK).is_dir():
        return False
    with folder_locked(folder, patience=5.0) as mine, suppress(OSError):
        return not mine or any(runs_in(folder).values())
    return False
