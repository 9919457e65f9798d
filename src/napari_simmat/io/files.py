"""Atomic writes and their errors, tables and text, hashes with progress, folders of the user."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from logging.handlers import RotatingFileHandler
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from napari_simmat.progress import Job, Progress, finish

_CHUNK = 1 << 22
_PARTIAL = ".part"
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_ESCAPED = "backslashreplace"
"""How undecodable bytes of a file name are written; JSON reads them back unchanged."""
LOG_BYTES, LOGS_KEPT = 1_000_000, 3
"""A log of this size becomes ``simmat.log.1``, that one ``simmat.log.2``, ..."""
DISK_FULL = (
    "The disk is full: {} could not be written to {}, nothing was changed. Free some space there "
    "or choose another folder."
)
UNWRITABLE = "{} cannot be written. Change its permissions or choose another folder."


class OutputError(OSError):
    """A file could not be written; the message is one sentence for the user."""


class DiskFullError(OutputError):
    """A file could not be written, and neither could the next."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that becomes `path` when the block succeeds.

    See `atomic_outputs`, which does so for several files.
    """
    with atomic_outputs(path) as (temporary,):
        yield temporary


@contextmanager
def atomic_outputs(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Yield temporary paths beside `targets` that become the targets when the block succeeds.

    The contents reach the disk before the names do, and the files are renamed in the order given:
    after a crash each target is the old file or the new one, never half of it. When the block (or
    a rename) fails or is interrupted, no new file is left.

    Raises OutputError if the disk is full, a folder cannot be written, or a target is a folder or
    has a name that no file can have.
    """
    for target in targets:
        if "\0" in str(target):
            raise OutputError(f"{str(target)[:80]!r} has a null character; give another name.")
        check_is_no_folder(target)
    temporary = tuple(map(partial_path, targets))
    placed: list[Path] = []
    try:
        with disk_errors_explained(targets[0]):
            for folder in {target.parent for target in targets}:
                folder.mkdir(parents=True, exist_ok=True)
            yield temporary
            for path in temporary:
                fsync(path)
            for path, target in zip(temporary, targets, strict=True):
                is_new = not target.exists()
                replace_path(path, target)
                if is_new:
                    placed.append(target)
            for folder in {target.parent for target in targets}:
                fsync_folder(folder)
    except BaseException:
        for path in (*temporary, *placed):
            with suppress(OSError):
                remove(path)
        raise


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turn system errors in the block, which writes `path`, into an `OutputError`.

    An OSError without a number is a sentence for the user already and passes.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise output_error(error, path) from error


def output_error(error: OSError, path: Path) -> OutputError:
    """The error for the user that describes a system error met while writing `path`."""
    folder = path.parent
    if error.errno in _FULL:
        return DiskFullError(DISK_FULL.format(path.name, folder))
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return OutputError(f"{folder} is not a folder. Choose another folder.")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return OutputError(UNWRITABLE.format(folder))
    reason = error.strerror or str(error)
    return OutputError(
        f"{path.name} could not be written to {folder} ({reason}), nothing was changed."
    )


FOLDERS = (".zarr", "_RES", "/labels/simmat")
"""Ends of the paths of outputs that are folders: of OME-Zarr, the Cell Tracking Challenge, and
labels within an image."""


def check_is_no_folder(target: Path) -> None:
    """Refuse a folder in the place of an output file, unless outputs of its name are folders."""
    if target.is_dir() and not target.as_posix().endswith(FOLDERS):
        raise OutputError(
            f"{target} is a folder, but a file of that name is to be written. "
            "Rename the folder or choose another output folder."
        )


def partial_path(target: Path) -> Path:
    """A new name for the temporary file that is to become `target`."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_PARTIAL}")


def partial_paths(target: Path) -> list[Path]:
    """Temporary files that were to become `target`, left by a process that was killed."""
    return sorted(target.parent.glob(f".{escape(target.name)}.????????{_PARTIAL}"))


def fsync(path: Path) -> None:
    """Force the content of a file, or of all files of a folder, to the disk."""
    for each in files_of(path):
        with each.open("rb+") as file:
            os.fsync(file.fileno())


def move_into_place(source: Path, target: Path) -> None:
    """Rename `source` to `target` in the same folder after forcing its content to the disk."""
    fsync(source)
    replace_path(source, target)
    fsync_folder(target.parent)


def replace_path(source: Path, target: Path) -> None:
    """Rename a file or a folder; a folder, or a link, of the target's name is deleted first."""
    if target.is_symlink() and source.is_dir():
        target.unlink()  # what it leads to is not ours, and stays
    elif source.is_dir() and target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)


def remove(path: Path) -> None:
    """Delete a file or link, or a folder and its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files below a folder, sorted by path."""
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.rglob("*") if each.is_file())


def fsync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk; Windows has no such call."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def copy_job(source: Path, target: Path) -> Job[None]:
    """Copy a file atomically."""
    total = source.stat().st_size
    done = 0
    with (
        source.open("rb") as read,
        atomic_write(target) as temporary,
        temporary.open("wb") as write,
    ):
        while chunk := read.read(_CHUNK):
            write.write(chunk)
            done += len(chunk)
            yield Progress(done, total, f"Copying {source.name}")


def hash_job(path: Path, algorithm: str = "sha256") -> Job[str]:
    """Compute a hash of a file's content, in lower-case hexadecimal.

    `algorithm` is ``"sha256"``, or, to compare with what a publisher gives, ``"xxh128"`` or
    ``"md5"``.
    """
    digest: Any
    if algorithm == "xxh128":
        import xxhash

        digest = xxhash.xxh3_128()
    else:
        digest = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    total = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            yield Progress(done, total, f"Checking {path.name}")
    return str(digest.hexdigest())


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content; of a folder, of its relative names and contents.

    The copy of the metadata below it, which a group of Zarr 3 may hold, does not count: it changes
    when labels are written within an image, and the image does not.
    """
    if path.name == "zarr.json" and (own := _without_consolidated(path)):
        return hashlib.sha256(own).hexdigest()
    if not path.is_dir():
        return finish(hash_job(path))
    digest = hashlib.sha256()
    for file in files_of(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def _without_consolidated(path: Path) -> bytes:
    """A description of Zarr 3 without the copies that it holds; empty if it holds none."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):  # hashed as it is
        return b""
    if not isinstance(values, dict) or values.pop("consolidated_metadata", None) is None:
        return b""
    return json.dumps(values, sort_keys=True).encode()


def format_size(size: int) -> str:
    """``375 MB``: bytes in decimal units, with three digits."""
    for power, unit in ((6, "EB"), (5, "PB"), (4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.3g} {unit}"
    return f"{size} bytes"


_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How a text begins that spreadsheets would compute, with the apostrophes that prevent it."""


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as CSV with a header line; missing values stay empty, floats get eight digits.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, as OWASP advises
    (https://owasp.org/www-community/attacks/CSV_Injection); `read_table` takes it off.
    """
    with path.open("w", newline="", encoding="utf-8", errors=_ESCAPED) as stream:
        writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(value) for name, value in row.items()})


def read_table(lines: Iterable[str]) -> tuple[list[str], Iterator[dict[str, str]]]:
    """Columns of a table that `write_table` wrote, and its rows, which are read one by one."""
    reader = csv.DictReader(lines)
    rows = (
        {name: as_text(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
        for row in reader
    )
    return list(reader.fieldnames or ()), rows


def read_table_file(path: Path) -> tuple[list[str], Iterator[dict[str, str]]]:
    """The same of a file."""
    return read_table(io.StringIO(path.read_text(encoding="utf-8"), newline=""))


def as_text(cell: str) -> str:
    """The text that a cell of `write_table` means."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


MAY_NOT_BE_READ = "{} may not be read; change its permissions, or copy it to a folder of yours."


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file in UTF-8 that are not blank, with their numbers."""
    check_size(path, 1 << 26)
    if path.is_dir():
        raise ValueError(f"{path.name} is a folder, not a file; give a CSV file.")
    lines = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    lines.append((reader.line_num, cells))
    except PermissionError:
        raise ValueError(MAY_NOT_BE_READ.format(path.name)) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} is no text in UTF-8 ({error.reason}); save it as CSV."
        ) from None
    except csv.Error as error:
        raise ValueError(
            f"{path.name}, line {reader.line_num}: this is no CSV ({error}); save it anew."
        ) from None
    return lines


def check_size(path: Path, most: int = 1 << 28) -> None:
    """Refuse a list or a record that would be read as a whole; ValueError says its size.

    Also a pipe or a device, which would be waited for, or read without end.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path.name} is a pipe or a device, not a file; save it as one.")
    if (size := path.stat().st_size) > most:
        raise ValueError(
            f"{path.name} has {format_size(size)}, but such a file has at most "
            f"{format_size(most)}: divide it, or choose another."
        )


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with plain line ends on every system."""
    path.write_text(text, encoding="utf-8", errors=_ESCAPED, newline="\n")


def _cell(value: object) -> object:
    """A float with eight digits, so that the text is the same on all machines; NaN is empty.

    A text that is a number, as in a row of another table, stays as it is.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return "" if math.isnan(value) else f"{float(value):.8g}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


ASSETS = Path(__file__).resolve().parents[1] / "assets"
"""Models that come with the package."""
SAMPLES = ASSETS / "samples"
"""Images that come with the package, each NAME.tif with its true objects NAME_labels.tif."""


def user_folder(name: str = "") -> Path:
    """The folder of all user data, or one of its folders.

    It is NAPARI_SIMMAT_HOME, or the system's default. Below are ``models`` (checkpoints; the stem
    of a file is the model's name), ``bases`` (downloaded and imported foundations), ``trainings``
    (runs of the window that can be resumed: a folder per model name), ``embeddings`` (cached on
    disk, if the user chose so), ``sessions`` (autosaved: a file for each image) and ``logs``.
    """
    if chosen := os.environ.get("NAPARI_SIMMAT_HOME"):
        return Path(chosen).expanduser() / name
    from platformdirs import user_data_path

    return user_data_path("napari-simmat", appauthor=False) / name


def log_file() -> Path | None:
    """The log of the command line and the window; None if NAPARI_SIMMAT_LOG is ``off``.

    NAPARI_SIMMAT_LOG may also name another file.
    """
    chosen = os.environ.get("NAPARI_SIMMAT_LOG", "")
    if chosen == "off":
        return None
    return Path(chosen).expanduser() if chosen else user_folder("logs") / "simmat.log"


@contextmanager
def logged() -> Iterator[None]:
    """Append what the package logs meanwhile to `log_file`; without one if it cannot be written."""
    logger = logging.getLogger("napari_simmat")
    path = log_file()
    level = logger.level
    try:
        if path is None:
            raise OSError
        path.parent.mkdir(parents=True, exist_ok=True)
        is_long = path.exists() and path.stat().st_size > LOG_BYTES
        rotating = _Log(path, backupCount=LOGS_KEPT, encoding="utf-8", errors=_ESCAPED)
        if is_long:
            rotating.doRollover()
        handler: logging.Handler = rotating
    except OSError:
        handler = logging.NullHandler()
    form = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(_OneLine(form))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        with suppress(OSError):  # what is written at last may not fit on the disk any more
            handler.close()


class _OneLine(logging.Formatter):
    """A message is one line: a file name with a line feed in it begins no other."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        message = super().formatMessage(record)
        return "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in message
        )


class _Log(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Stop nobody when the disk is full."""
