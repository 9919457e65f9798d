"""DICOM: the files of a series are one image; nothing but its pixels and their size is taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.formats.reading import ImageFile, RefusedFileError, check_memory

_HEAD = [
    "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated",
    "PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices", "SliceThickness",
]  # fmt: skip
"""Nothing about the patient."""


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by the four letters after its preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def holds_dicom(folder: Path) -> bool:
    """Whether a file of a folder is DICOM."""
    return any(file.is_file() and is_dicom(file) for file in folder.iterdir())


def images_in(folder: Path) -> list[Path] | None:
    """The series that lie in a folder.

    Returns
    -------
    list of Path or None
        The folder itself, where its DICOM files are of one series; the first file of each series
        where they are of several; None where it has none.
    """
    series = _series_in(folder)
    if len(series) == 1:
        return [folder]
    return [min(files) for files in series.values()] or None


def read_dicom(path: Path) -> ImageFile:
    """Read a series as (Y, X), (Z, Y, X) or (T, Z, Y, X), colours last.

    Slices are sorted by their position; several at one position become time. Values are those of
    the modality (for CT Hounsfield units), as float32 where the file says that they are scaled.

    Parameters
    ----------
    path
        The folder of a single series, or any file of a series, which stands for all of it.
    """
    pydicom = _pydicom(path)
    folder = path if path.is_dir() else path.parent
    series = _series_in(folder)
    if path.is_dir():
        if len(series) != 1:
            raise RefusedFileError(
                f"{path.name} holds {len(series)} DICOM series; give a folder with one, or one "
                "file of the series that is meant."
            )
        [files] = series.values()
    else:
        files = next((files for files in series.values() if path in files), [path])
    heads = {file: pydicom.dcmread(file, specific_tags=_HEAD) for file in files}
    files = sorted(files, key=lambda file: _order(heads[file], file))
    first = heads[files[0]]
    _check_alike(path, [heads[file] for file in files])
    frames = int(first.get("NumberOfFrames") or 1)
    samples = int(first.get("SamplesPerPixel") or 1)
    count = len(files) * frames
    check_memory(count * int(first.Rows) * int(first.Columns) * samples * 8, path.name)
    planes = [_pixels(pydicom, file) for file in files]
    data = np.concatenate([plane if frames > 1 else plane[None] for plane in planes])
    axes = "ZYX" + ("S" if samples > 1 else "")
    times = _times([heads[file] for file in files]) if frames == 1 else 1
    if count == 1:
        data, axes = data[0], axes[1:]
    elif times > 1:  # neighbours in the order are at one position
        data = data.reshape(len(files) // times, times, *data.shape[1:]).swapaxes(0, 1)
        axes = "T" + axes
    scale = _pixel_size([heads[file] for file in files], frames)
    kept = {letter: size for letter, size in scale.items() if letter in axes}
    return ImageFile(
        path,
        np.ascontiguousarray(data),
        axes,
        scale=kept,
        units=dict.fromkeys(kept, "mm"),
        rgb=samples == 3,
        files=tuple(files),
    )


def _series_in(folder: Path) -> dict[str, list[Path]]:
    """The DICOM files of a folder by the series they are of."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and is_dicom(file)]
    if not files:
        return {}
    pydicom = _pydicom(folder)
    series: dict[str, list[Path]] = {}
    for file in files:
        head = pydicom.dcmread(file, specific_tags=["SeriesInstanceUID", "Rows"])
        if head.get("Rows"):  # directories and reports have no pixels
            series.setdefault(str(head.get("SeriesInstanceUID", "")), []).append(file)
    return series


def _pixels(pydicom: Any, file: Path) -> NDArray[Any]:
    dataset = pydicom.dcmread(file)
    try:
        pixels: NDArray[Any] = pydicom.pixels.pixel_array(dataset)
    except (RuntimeError, AttributeError, ValueError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:200]
        raise RefusedFileError(
            f"The pixels of {file.name} could not be read ({said}); save the series uncompressed, "
            "or install what is named there."
        ) from None
    slope = float(dataset.get("RescaleSlope", 1) or 1)
    intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    if (slope, intercept) == (1.0, 0.0):
        return pixels
    return pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _order(head: Any, file: Path) -> tuple[float, int, str]:
    return _along(head) or 0.0, int(head.get("InstanceNumber") or 0), file.name


def _along(head: Any) -> float | None:
    """Position along the slices' normal in mm, to a thousandth."""
    position, turned = head.get("ImagePositionPatient"), head.get("ImageOrientationPatient")
    if not position or not turned or len(position) != 3 or len(turned) != 6:
        return None
    normal = np.cross([float(v) for v in turned[:3]], [float(v) for v in turned[3:]])
    return round(float(np.dot(normal, [float(v) for v in position])), 3)


def _times(heads: Sequence[Any]) -> int:
    """How many slices lie at each position; 1 where they are not equally many."""
    places = [_along(head) for head in heads]
    counts = {places.count(place) for place in set(places)}
    return counts.pop() if len(counts) == 1 and None not in places else 1


def _check_alike(path: Path, heads: Sequence[Any]) -> None:
    kinds = {(head.get("Rows"), head.get("Columns"), head.get("SamplesPerPixel")) for head in heads}
    frames = [int(head.get("NumberOfFrames") or 1) for head in heads]  # slices may say 1 as well
    if len(kinds) > 1 or (len(heads) > 1 and max(frames) > 1):
        sizes = ", ".join(sorted({f"{head.Rows} x {head.Columns}" for head in heads}))
        raise RefusedFileError(
            f"The series of {path.name} mixes images ({sizes}); put those that are slices of one "
            "image into a folder of their own."
        )


def _pixel_size(heads: Sequence[Any], frames: int) -> dict[str, float]:
    first = heads[0]
    spacing = first.get("PixelSpacing") or first.get("ImagerPixelSpacing")
    sizes: dict[str, float] = {}
    if spacing and len(spacing) == 2:
        sizes = {"Y": float(spacing[0]), "X": float(spacing[1])}
    places = sorted({place for head in heads if (place := _along(head)) is not None})
    if len(places) > 1:
        sizes["Z"] = float(np.median(np.diff(places)))
    elif frames > 1 or len(heads) > 1:
        sizes["Z"] = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 0)
    return {letter: size for letter, size in sizes.items() if math.isfinite(size) and size > 0}


def _pydicom(path: Path) -> Any:
    try:
        module = import_module("pydicom")
        import_module("pydicom.pixels")
    except ImportError:
        raise RefusedFileError(
            f"{path.name} is DICOM, which needs the package pydicom; install it (pip install "
            '"napari-simmat[formats]").'
        ) from None
    return module
