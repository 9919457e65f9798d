"""Label image files: OME-TIFF and NIfTI whose bytes depend on their content alone."""

from __future__ import annotations

import gzip
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.formats.image_file import told_apart

SOFTWARE = "napari-simmat"
OME_LENGTHS = {
    "m": ("m", 100.0),
    "cm": ("cm", 1.0),
    "mm": ("mm", 1e-1),
    "um": ("µm", 1e-4),
    "nm": ("nm", 1e-7),
}
"""Units of length as the readers name them: OME's spelling, and one of them in centimetres."""
OME_TIMES = {"s": "s", "ms": "ms", "us": "µs", "min": "min", "h": "h"}

NIFTI_UNITS = {"m": "meter", "mm": "mm", "um": "micron", "s": "sec", "ms": "msec", "us": "usec"}


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
        One letter per dimension, e.g. ``"TZYX"``. Letters that OME does not know become ``"Q"``,
        and where that is taken, another of OME's.
    scale, units
        Pixel size and its unit (``"um"``, ``"s"``) by axis letter, where known.
    """
    import tifffile

    labels = np.ascontiguousarray(labels, dtype=label_dtype(int(labels.max(initial=0))))
    known = (letter if letter in "TZAPRHEQYX" else "Q" for letter in axes.upper())
    axes = told_apart("".join(known))
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
    units: tuple[str, str] = ("", ""),
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
        Units of space and time, ``"mm"``, ``"um"``, ``"s"`` and so on; empty if unknown.
    zooms
        Voxel size per axis, where an axis lies beyond the affine (time).
    """
    nibabel: Any = import_module("nibabel")  # optional; it has no types worth the name

    data = np.asarray(labels, dtype=label_dtype(int(labels.max(initial=0))))
    image = nibabel.Nifti1Image(data, np.asarray(affine, dtype=np.float64))
    image.header.set_xyzt_units(*(NIFTI_UNITS.get(unit, "unknown") for unit in units))
    if zooms is not None:
        image.header.set_zooms(tuple(float(zoom) for zoom in zooms))
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
        stream.write(image.to_bytes())


def _ome_sizes(scale: Mapping[str, float], units: Mapping[str, str]) -> dict[str, object]:
    """OME attributes of the pixel size; only what OME has a unit for."""
    sizes: dict[str, object] = {}
    for axis in "XYZ":
        unit = OME_LENGTHS.get(units.get(axis, ""))
        if axis in scale and unit is not None:
            sizes[f"PhysicalSize{axis}"] = float(scale[axis])
            sizes[f"PhysicalSize{axis}Unit"] = unit[0]
    unit_of_time = OME_TIMES.get(units.get("T", ""))
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
        unit = OME_LENGTHS.get(units.get(axis, ""))
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
