"""The lock that keeps two runs out of one output folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from napari_simmat.engine.settings import Shard
from napari_simmat.io.files import (
    OutputError,
)

if TYPE_CHECKING:
    pass

LOCK = ".simmat.lock"
"""The file that a run locks in its output folder."""


@contextmanager
def locked(folder: Path, shard: Shard | None = None) -> Iterator[None]:
    """Lock a folder against other runs; the lock of a killed run does not count.

    The other shards of one division write into it at the same time.

    The folder is created if needed, and removed again if nothing was written into it.

    Raises OutputError if another run is using it, or the folder cannot be written.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    name = LOCK if shard is None else f".simmat.{shard}.lock"
    lock = FileLock(folder / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        for other in folder.glob(".simmat*.lock"):
            if other.name != name and not (
                shard is not None and other.name.endswith(f"-of-{shard.count}.lock")
            ):
                with FileLock(other, timeout=0):
                    pass  # of a killed run
    except Timeout:
        lock.release()
        raise OutputError(
            f"Another run is writing into {folder}. Wait until it has ended, or choose another "
            "output folder."
        ) from None
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror}). Change its permissions or choose "
            "another output folder."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes an open file only when it is closed
            os.unlink(folder / name)
        lock.release()
        with suppress(OSError):
            for each in made:
                each.rmdir()
