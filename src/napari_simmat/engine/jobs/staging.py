"""Several files that appear whole and together or not at all, also when the program is killed."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.engine.files import (
    flush,
    flush_folder,
    move_into_place,
    remove,
    replace,
    sha256_of,
)
from napari_simmat.engine.jobs.record import Record, read_record

if TYPE_CHECKING:
    from napari_simmat.engine.jobs.outputs import OutputFiles

_PART = ".part"
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class OutputError(OSError):
    """An output could not be written; the message is one sentence for the user."""


class DiskFullError(OutputError):
    """An output could not be written, and neither could the next."""


def check_is_no_folder(target: Path) -> None:
    """Refuse a folder where a file is to be written; Zarr is a folder itself."""
    if target.is_dir() and target.suffix != ".zarr":
        raise OutputError(
            f"{target} is a folder, but a file of that name is to be written. "
            "Rename the folder or choose another output folder."
        )


@contextmanager
def staged(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Temporary files beside `targets` that take their places together when the block ends well.

    All are flushed to the disk, then renamed in the order given. When the block (or a rename)
    fails or is interrupted, nothing new stays behind; a target that was there before is only ever
    replaced by a whole new file.

    Raises
    ------
    OutputError
        If the disk is full, a folder cannot be written, or a target is a folder.
    """
    for target in targets:
        check_is_no_folder(target)
    temporary = tuple(map(part_of, targets))
    placed: list[Path] = []
    try:
        for folder in {target.parent for target in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        yield temporary
        for path in temporary:
            flush(path)
        for path, target in zip(temporary, targets, strict=True):
            is_new = not target.exists()
            replace(path, target)
            if is_new:
                placed.append(target)
        for folder in {target.parent for target in targets}:
            flush_folder(folder)
    except BaseException as error:
        for path in (*temporary, *placed):
            with suppress(OSError):
                remove(path)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise in_words(error, targets[0]) from error
        raise


def in_words(error: OSError, target: Path) -> OutputError:
    """What the system's error while `target` was written means for the user."""
    kind = DiskFullError if error.errno in _FULL else OutputError
    return kind(_sentence(error, target))


def settle(files: OutputFiles, *, finish: bool) -> None:
    """Tidy up after a run that was killed while it wrote these files.

    The record takes its place first. If it is there, all temporary files were whole, and those it
    vouches for can take theirs; if it is not, none has.

    Parameters
    ----------
    files
        Of one image; nobody else may be writing them.
    finish
        Put files that are whole into their places. Otherwise they are only removed.
    """
    for each in (files, files.in_zarr()):
        left = {target: parts_of(target) for target in each}
        if any(left.values()) and finish and files.record.is_file():
            with suppress(ValueError, OSError):
                _finish(each, read_record(files.record), left)
        for path in (path for paths in left.values() for path in paths):
            remove(path)


def _finish(files: OutputFiles, record: Record, left: Mapping[Path, Sequence[Path]]) -> None:
    for kind, target in files.recorded.items():
        wanted = record.outputs.get(kind, {}).get("sha256")
        if target.exists() and sha256_of(target) == wanted:
            continue
        for path in left[target]:
            if sha256_of(path) == wanted:
                move_into_place(path, target)
                break


def part_of(target: Path) -> Path:
    """A name for a temporary file beside `target` that is to become it."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_PART}")


def parts_of(target: Path) -> list[Path]:
    """Temporary files that were to become `target`."""
    return sorted(target.parent.glob(f".{escape(target.name)}.????????{_PART}"))


def _sentence(error: OSError, target: Path) -> str:
    """What the system's error means for the user who asked for `target`."""
    folder = target.parent
    if error.errno in _FULL:
        return (
            f"The disk is full while writing {target.name} into {folder}; nothing was written. "
            "Free some space or choose another output folder."
        )
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return f"{folder} is not a folder. Choose another output folder."
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return (
            f"{folder} cannot be written. Change its permissions or choose another output folder."
        )
    reason = error.strerror or str(error)
    return f"{target.name} could not be written into {folder} ({reason}); nothing was written."
