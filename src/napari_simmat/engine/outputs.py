"""Files out: label images, tables and text that appear whole or not at all.

Bytes are a pure function of content: no clock, no host, no random identifier.
"""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import os
import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOFTWARE = "napari-simmat"
DOUBLE_SUFFIXES = (".nii.gz", ".ome.tif", ".ome.tiff")
OME_LENGTHS = {
    "m": ("m", 100.0),
    "cm": ("cm", 1.0),
    "mm": ("mm", 1e-1),
    "um": ("µm", 1e-4),
    "nm": ("nm", 1e-7),
}
"""Length units: how OME spells them, and one of them in centimetres (for TIFF's resolution)."""
OME_TIMES = {"s": "s", "ms": "ms", "us": "µs", "min": "min", "h": "h"}


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

    Each is flushed to the disk and then renamed, in the order given. When the block (or a
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
        for path in temporary:
            _flush_to_disk(path)
        for path, target in zip(temporary, targets, strict=True):
            is_new = not target.exists()
            os.replace(path, target)
            if is_new:
                placed.append(target)
    except BaseException as error:
        for path in (*temporary, *placed):
            with suppress(OSError):
                path.unlink()
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(_sentence(error, targets[0])) from error
        raise


def label_dtype(highest: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds `highest`."""
    return np.dtype(np.uint16 if highest <= np.iinfo(np.uint16).max else np.uint32)


def write_labels_tiff(
    path: Path,
    labels: NDArray[np.integer[Any]],
    *,
    axes: str,
    scale: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
) -> None:
    """Write labels as OME-TIFF, zlib-compressed, with axes and pixel size.

    Parameters
    ----------
    path
        The file to write; any suffix.
    labels
        Label image of any shape that ends in (Y, X).
    axes
        One letter per dimension, e.g. ``"TZYX"``. Letters that OME does not know become ``"Q"``.
    scale, units
        Pixel size and its unit per axis letter, where known.
    """
    import tifffile

    labels = np.ascontiguousarray(labels, dtype=label_dtype(int(labels.max(initial=0))))
    axes = "".join(letter if letter in "TZAPRHEQYX" else "Q" for letter in axes.upper())
    sizes = _ome_sizes(scale or {}, units or {})
    resolution = _pixels_per_centimetre(scale or {}, units or {})
    tifffile.imwrite(
        path,
        labels,
        ome=True,
        bigtiff=labels.nbytes > 2**32 - 2**25,
        compression="zlib",
        photometric="minisblack",
        resolution=resolution,
        resolutionunit=None if resolution is None else "CENTIMETER",
        software=SOFTWARE,
        metadata={
            "axes": axes,
            "Creator": SOFTWARE,
            "UUID": f"urn:uuid:{_content_uuid(labels, axes, sizes)}",
            **sizes,
        },
    )


def write_labels_nifti(
    path: Path,
    labels: NDArray[np.integer[Any]],
    *,
    affine: NDArray[np.floating[Any]],
    units: tuple[str, str] = ("mm", "sec"),
    zooms: Sequence[float] | None = None,
) -> None:
    """Write labels as gzip-compressed NIfTI in the voxel order of `affine`.

    Parameters
    ----------
    path
        The file to write; any suffix.
    labels
        Label image whose first axes are those of the affine: (X, Y, Z, ...) as NIfTI has them.
    affine
        (4, 4), voxel indices to world coordinates.
    units
        Names of the units of space and time as NIfTI has them.
    zooms
        Voxel size per axis, where an axis lies beyond the affine (time).
    """
    nibabel: Any = import_module("nibabel")  # optional; it has no types worth the name

    data = np.asarray(labels, dtype=label_dtype(int(labels.max(initial=0))))
    image = nibabel.Nifti1Image(data, np.asarray(affine, dtype=np.float64))
    image.header.set_xyzt_units(*units)
    if zooms is not None:
        image.header.set_zooms(tuple(float(zoom) for zoom in zooms))
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
        stream.write(image.to_bytes())


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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plain_unit(unit: str) -> str:
    """A unit in plain letters for names: ``um`` for the many spellings of a micrometre."""
    spellings = {
        "um": ("µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"),
        "mm": ("millimeter", "millimetre"),
        "nm": ("nanometer", "nanometre"),
        "cm": ("centimeter", "centimetre"),
        "m": ("meter", "metre"),
        "s": ("sec", "second", "seconds"),
        "ms": ("msec", "millisecond"),
        "us": ("µs", "μs", "usec", "microsecond"),
    }
    for plain, others in spellings.items():
        if unit.lower() in others:
            return plain
    return unit


def _ome_sizes(scale: Mapping[str, float], units: Mapping[str, str]) -> dict[str, object]:
    """OME attributes of the pixel size; only what OME has a unit for."""
    sizes: dict[str, object] = {}
    for axis in "XYZ":
        unit = OME_LENGTHS.get(plain_unit(units.get(axis, "")))
        if axis in scale and unit is not None:
            sizes[f"PhysicalSize{axis}"] = float(scale[axis])
            sizes[f"PhysicalSize{axis}Unit"] = unit[0]
    unit_of_time = OME_TIMES.get(plain_unit(units.get("T", "")))
    if "T" in scale and unit_of_time is not None:
        sizes["TimeIncrement"] = float(scale["T"])
        sizes["TimeIncrementUnit"] = unit_of_time
    return sizes


def _pixels_per_centimetre(
    scale: Mapping[str, float], units: Mapping[str, str]
) -> tuple[float, float] | None:
    """TIFF's resolution (X, Y) for readers that do not know OME; None where it is unknown."""
    per_centimetre = []
    for axis in "XY":
        unit = OME_LENGTHS.get(plain_unit(units.get(axis, "")))
        if axis not in scale or unit is None or not scale[axis] > 0:
            return None
        per_centimetre.append(1 / (scale[axis] * unit[1]))
    if not all(1e-4 < value < 1e9 for value in per_centimetre):
        return None  # a TIFF rational holds 32 bits
    return (per_centimetre[0], per_centimetre[1])


def _content_uuid(labels: NDArray[Any], axes: str, sizes: Mapping[str, object]) -> uuid.UUID:
    """A UUID that two files share exactly when they hold the same."""
    kind = (labels.shape, labels.dtype.name, axes, sorted(sizes.items()))
    digest = hashlib.sha256(repr(kind).encode())
    digest.update(labels.astype(labels.dtype.newbyteorder("<"), copy=False).data)
    return uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest())


def _cell(value: object) -> object:
    """A float with eight digits, so that the text is the same everywhere; missing is empty."""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{float(value):.8g}"
    return value


def _flush_to_disk(path: Path) -> None:
    with path.open("r+b") as stream:
        os.fsync(stream.fileno())


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
