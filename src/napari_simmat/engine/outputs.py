"""Files out: their names, and writing several so that they appear whole or not at all."""

from __future__ import annotations

import csv
import errno
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_simmat.engine.files import move_into_place

DOUBLE_SUFFIXES = (".nii.gz", ".ome.tif", ".ome.tiff")


class OutputError(OSError):
    """An output could not be written; the message is one sentence for the user."""


@dataclass(frozen=True)
class OutputFiles:
    """The three files that one image becomes."""

    labels: Path
    objects: Path
    record: Path

    @classmethod
    def of(cls, image: Path, folder: Path) -> OutputFiles:
        """Name the outputs of `image` in `folder` after the image's stem."""
        stem = stem_of(image)
        suffix = ".nii.gz" if is_nifti(image) else ".tif"
        return cls(
            labels=folder / f"{stem}_labels{suffix}",
            objects=folder / f"{stem}_objects.csv",
            record=folder / f"{stem}.json",
        )

    def __iter__(self) -> Iterator[Path]:
        return iter((self.labels, self.objects, self.record))

    def existing(self) -> list[Path]:
        """Those of the files that are already there."""
        return [path for path in self if path.exists()]


def stem_of(path: Path) -> str:
    """The file's name without its suffix, also for ``.nii.gz`` and ``.ome.tif``."""
    for suffix in DOUBLE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def is_nifti(path: Path) -> bool:
    """Whether the file's name says NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


@contextmanager
def staged(*targets: Path) -> Iterator[tuple[Path, ...]]:
    """Temporary files beside `targets` that take their places together when the block ends well.

    Each is flushed to the disk and renamed, in the order given. When the block (or a
    rename) fails or is interrupted, nothing new stays behind; a target that was there before is
    only ever replaced by a whole new file.

    Raises
    ------
    OutputError
        If the disk is full, a folder cannot be written, or a target is a folder.
    """
    for target in targets:
        if target.is_dir():
            raise OutputError(
                f"{target} is a folder, but a file of that name is to be written. "
                "Rename the folder or choose another output folder."
            )
    temporary = tuple(
        target.with_name(f".{target.name}.{secrets.token_hex(4)}.part") for target in targets
    )
    placed: list[Path] = []
    try:
        for folder in {target.parent for target in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        yield temporary
        for path, target in zip(temporary, targets, strict=True):
            is_new = not target.exists()
            move_into_place(path, target)
            if is_new:
                placed.append(target)
    except BaseException as error:
        for path in (*temporary, *placed):
            with suppress(OSError):
                path.unlink()
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(_sentence(error, targets[0])) from error
        raise


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV with a header line; what a row lacks stays empty."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(value) for name, value in row.items()})


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with plain line ends on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


def _cell(value: object) -> object:
    """A float with eight digits, so that the text is the same everywhere; missing is empty."""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{float(value):.8g}"
    return value


def _sentence(error: OSError, target: Path) -> str:
    """What the system's error means for the user who asked for `target`."""
    folder = target.parent
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
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
