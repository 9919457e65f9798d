"""Files out: their names, and writing several so that they appear whole or not at all."""

from __future__ import annotations

import csv
import errno
import os
import platform
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.files import flush, flush_folder, move_into_place, sha256_of
from napari_simmat.engine.formats.labelfiles import write_labels_nifti, write_labels_tiff
from napari_simmat.engine.jobs.extras import write_extra
from napari_simmat.engine.jobs.record import Record, read_record
from napari_simmat.engine.objects import PixelSize, columns_of, measure

if TYPE_CHECKING:
    from napari_simmat.engine.formats.reading import ImageFile
    from napari_simmat.engine.images import ChannelStack
    from napari_simmat.engine.jobs.tasks import Segmented

DOUBLE_SUFFIXES = (".nii.gz", ".ome.tif", ".ome.tiff", ".ome.zarr")
EXTRA_ENDINGS = {"overlay": "_overlay.png", "coco": "_coco.json", "rois": "_rois.zip"}
"""Optional outputs by their kind, and what follows the image's stem in their names."""


_PART = ".part"
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class OutputError(OSError):
    """An output could not be written; the message is one sentence for the user."""


class DiskFullError(OutputError):
    """An output could not be written, and neither could the next."""


@dataclass(frozen=True)
class OutputFiles:
    """The files that one image becomes; `extras` holds the optional ones by their kind."""

    labels: Path
    objects: Path
    record: Path
    extras: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, image: Path, folder: Path, extras: Sequence[str] = ()) -> OutputFiles:
        """Name the outputs of `image` in `folder` after the image's stem.

        Parameters
        ----------
        image, folder
            The image, and where its outputs go.
        extras
            Which of `EXTRA_ENDINGS` are written as well.
        """
        stem = stem_of(image)
        suffix = ".nii.gz" if is_nifti(image) else ".tif"
        return cls(
            labels=folder / f"{stem}_labels{suffix}",
            objects=folder / f"{stem}_objects.csv",
            record=folder / f"{stem}.json",
            extras={kind: folder / f"{stem}{EXTRA_ENDINGS[kind]}" for kind in extras},
        )

    @property
    def recorded(self) -> dict[str, Path]:
        """By their kind, the files that the record vouches for."""
        return {"labels": self.labels, "objects": self.objects, **self.extras}

    def __iter__(self) -> Iterator[Path]:
        return iter((self.labels, self.objects, *self.extras.values(), self.record))

    def existing(self) -> list[Path]:
        """Those of the files that are already there."""
        return [path for path in self if path.exists()]


def stem_of(path: Path) -> str:
    """The file's name without its suffix, also for ``.nii.gz`` and ``.ome.tif``."""
    for suffix in DOUBLE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    if path.suffix.lower() != ".zarr" and path.is_dir():  # a dot in a folder's name is no suffix
        return path.name
    return path.stem


def is_nifti(path: Path) -> bool:
    """Whether the file's name says NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def check_is_no_folder(target: Path) -> None:
    """Refuse a folder where a file is to be written."""
    if target.is_dir():
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
    temporary = tuple(
        target.with_name(f".{target.name}.{secrets.token_hex(4)}{_PART}") for target in targets
    )
    placed: list[Path] = []
    try:
        for folder in {target.parent for target in targets}:
            folder.mkdir(parents=True, exist_ok=True)
        yield temporary
        for path in temporary:
            flush(path)
        for path, target in zip(temporary, targets, strict=True):
            is_new = not target.exists()
            os.replace(path, target)
            if is_new:
                placed.append(target)
        for folder in {target.parent for target in targets}:
            flush_folder(folder)
    except BaseException as error:
        for path in (*temporary, *placed):
            with suppress(OSError):
                path.unlink()
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            kind = DiskFullError if error.errno in _FULL else OutputError
            raise kind(_sentence(error, targets[0])) from error
        raise


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
    left = {target: _parts_of(target) for target in files}
    if not any(left.values()):
        return
    if finish and files.record.is_file():
        with suppress(ValueError, OSError):
            _finish(files, read_record(files.record), left)
    for path in (path for paths in left.values() for path in paths):
        path.unlink(missing_ok=True)


def _finish(files: OutputFiles, record: Record, left: Mapping[Path, Sequence[Path]]) -> None:
    for kind, target in files.recorded.items():
        wanted = record.outputs.get(kind, {}).get("sha256")
        if target.is_file() and sha256_of(target) == wanted:
            continue
        for path in left[target]:
            if sha256_of(path) == wanted:
                move_into_place(path, target)
                break


def _parts_of(target: Path) -> list[Path]:
    """Temporary files that were to become `target`."""
    return sorted(target.parent.glob(f".{escape(target.name)}.????????{_PART}"))


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


def write_result(segmented: Segmented, start: float) -> None:
    """Label image, table and record, together or not at all.

    Parameters
    ----------
    segmented
        What to write, and where.
    start
        When writing began, of `time.monotonic`.
    """
    loaded, stack, painting = segmented.loaded, segmented.stack, segmented.painting
    files, image, axes = loaded.task.files, loaded.image, loaded.axes
    size = PixelSize(scale=image.scale, units=image.units)
    positions, names = _distinct_channels(stack)
    rows = measure(
        painting.labels,
        axes=axes,
        channels=names,
        plane=lambda index: stack.plane(index)[positions],
        size=size,
        found=painting.found,
    )
    kept = {
        (plane, label): count
        for plane in {one.plane for one in painting.found}
        for label, count in _counted(painting.labels[plane])
    }
    # The record first: what a kill leaves unfinished is known by it (`settle`).
    targets = (files.record, *files.recorded.values())
    with staged(*targets) as (record, *parts):
        temporary = dict(zip(files.recorded, parts, strict=True))
        _write_labels(temporary["labels"], files.labels, image, axes, painting.labels)
        write_table(temporary["objects"], columns_of(axes, names, size), rows)
        for kind in files.extras:
            write_extra(kind, temporary[kind], segmented)
        made = Record(
            request=segmented.request,
            normalization=stack.statistics.to_dict(),
            objects=[
                {
                    "label": one.label,
                    "plane": list(one.plane),
                    "score": one.score,
                    "pixels": kept.get((one.plane, one.label), 0),
                }
                for one in painting.found
            ],
            outputs={
                kind: {"file": target.name, "sha256": sha256_of(temporary[kind])}
                for kind, target in files.recorded.items()
            },
            run=_run(segmented.seconds + time.monotonic() - start, segmented.note),
        )
        write_text(record, made.to_json())


def _cell(value: object) -> object:
    """A float with eight digits, so that the text is the same everywhere; missing is empty."""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{float(value):.8g}"
    return value


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


def _write_labels(
    path: Path, target: Path, image: ImageFile, axes: str, labels: NDArray[np.uint32]
) -> None:
    if not is_nifti(target):
        write_labels_tiff(path, labels, axes=axes, scale=image.scale, units=image.units)
        return
    if image.affine is None:
        raise ValueError(f"{image.path.name} is no NIfTI, whatever its name says. Rename it.")
    write_labels_nifti(
        path,
        labels.T,  # NIfTI's order is x, y, z, t
        affine=image.affine,
        zooms=[image.scale.get(letter, 1.0) for letter in reversed(axes)],
        units=(image.units.get("X", ""), image.units.get("T", "")),
    )


def _distinct_channels(stack: ChannelStack) -> tuple[list[int], list[str]]:
    """Positions and column names of the selected channels, each once."""
    first = {channel: n for n, channel in reversed(list(enumerate(stack.selection)))}
    positions = sorted(first.values())
    names = [stack.names[n] for n in positions]
    names = [f"channel{name}" if name.isdecimal() else name for name in names]
    if len(set(names)) < len(names):
        names = [f"{name}_{stack.selection[n]}" for n, name in zip(positions, names, strict=True)]
    return positions, names


def _counted(labels: NDArray[np.uint32]) -> list[tuple[int, int]]:
    """Each label of a plane with its number of pixels."""
    values, counts = np.unique(labels, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def _run(seconds: float, note: str) -> dict[str, Any]:
    """What may differ between two equal runs."""
    from napari_simmat import __version__

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "duration_s": round(seconds, 3),
        "version": __version__,
        **({"note": note} if note else {}),
    }
