"""DICOM: a series of files is one image; only pixels and their size are read."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.files import format_size
from napari_simmat.io.image_file import ImageFile, Reader, ReadOptions
from napari_simmat.io.limits import DEFLATE_RATIO, Limits
from napari_simmat.io.reference import LPS, Missing, World, readers_differ
from napari_simmat.io.refusals import (
    RefusedFileError,
    check_memory,
    needed_module,
    overflow_refused,
    unreadable,
)

_TABLES = [f"{color}PaletteColorLookupTableData" for color in ("Red", "Green", "Blue")]
_HEADER_TAGS = [
    "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "PixelRepresentation",
    "PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices", "SliceThickness",
    "RescaleSlope", "RescaleIntercept", "PhotometricInterpretation", "BitsStored",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
    *_TABLES, *(f"Segmented{name}" for name in _TABLES),
    *(name.replace("Data", "Descriptor") for name in _TABLES),
    "FrameTime", "FrameTimeVector", "Modality", "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""Tags that are read; none about the patient."""
_WINDOW = "WindowCenter", "WindowWidth"
"""Tags of the values that are shown, which may be nonsense without harm to the others."""
_OF_FRAMES = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SpacingBetweenSlices", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
"""Where enhanced files, which hold many slices, keep the tags of all slices or of each."""


_DEFLATED = "1.2.840.10008.1.2.1.99"
"""The transfer syntax whose whole file is deflated."""
_MAX_DEFLATED = 2**18
"""Bytes of such a file; they unpack to 270 MB at most."""
UNEVEN = (
    "Slices lie {:.4g} to {:.4g} mm apart, so some may be missing; volumes are counted in voxels "
    "alone."
)
TILTED = (
    "Its slices lean by {:.1f} degrees over their stack (gantry tilt), and readers of NIfTI "
    "differ: labels lie right in programs that take the sform (nibabel, FSL), and up to {:.1f} mm "
    "beside in those that take the qform (ITK, 3D Slicer); DICOM SEG is right in all."
)
OTHER_DIRECTIONS = (
    "Its slices lie in different directions, as those of a localizer, so their place is not kept; "
    "put those of one direction into a folder of their own."
)
OTHER_PIXELS = (
    "The pixels of its slices differ in size; those of the first, {:.4g} x {:.4g} mm, count."
)
UNEVEN_TIMES = (
    "The times between its frames differ, from {:.4g} to {:.4g} s; times are counted in frames "
    "alone."
)
SEVERAL_REGIONS = (
    "It shows {} calibrated regions with pixels of different sizes, none of which counts for all; "
    "crop it to one of them and give its pixel size."
)
REGION_BEYOND = (
    "Its ultrasound region reaches to row {}, column {}, beyond its {} x {} pixels, as of a "
    "picture that was made smaller after it was calibrated; its pixel size is left out."
)
REGION_ALONE = (
    "Its pixel size, {:.4g} x {:.4g} mm, holds in rows {} to {}, columns {} to {} alone (the "
    "ultrasound region); what lies outside has no size."
)
MORE_FRAMES = "{} holds {} frames, but its header says {}; the others are left out."
_TILT = 0.1
"""Degrees above which slices lean over their stack."""
_DIRECTION = 1e-3
"""By how much a component of the direction of rows and columns may differ between slices."""
_PALETTE = "PALETTE COLOR"
_STILLS = frozenset(
    ("US", "IVUS", "SC", "XC", "ES", "GM", "OP", "OT", "CR", "DX", "MG", "IO", "PX", "RF", "XA")
)
"""Modalities whose files are pictures of their own where they name no position."""
_FILMS = frozenset(("US", "IVUS", "XA", "RF", "ES", "XC"))
"""Modalities whose frames without positions are those of a film, also where no time is named."""
_TWO_DIMENSIONAL, _CENTIMETERS = 1, 3
"""Spatial format and unit of an ultrasound region (PS3.3 C.8.5.5.1)."""
_BOUNDS = tuple(f"RegionLocation{name}" for name in ("MinY0", "MinX0", "MaxY1", "MaxX1"))
_EVEN_TIMES = 0.05
"""Part of the mean time between frames by which it may differ."""
_SUFFIXES = ("", ".dcm", ".dicom", ".ima")
"""Usual endings of slices."""


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, from the four letters after its preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def holds_dicom(folder: Path) -> bool:
    """Whether a folder contains a DICOM file."""
    return any(file.is_file() and is_dicom(file) for file in folder.iterdir())


def images_in(folder: Path) -> list[Path] | None:
    """The DICOM series in a folder.

    Returns
    -------
    list of Path or None
        The folder itself for a single series; the first file of each of several series; None if
        there is none.
    """
    series = series_in(folder)
    if len(series) == 1:
        return [folder]
    return [min(files) for files in series.values()] or None


def one_per_series(files: Sequence[Path]) -> list[Path]:
    """Keep only the first slice of each DICOM series, which stands for the series.

    Other files, and slices that are the only given file of their folder, are kept.
    """
    folders: dict[Path, list[Path]] = {}
    for file in dict.fromkeys(files):
        if file.suffix.lower() in _SUFFIXES and file.is_file() and is_dicom(file):
            folders.setdefault(file.parent, []).append(file)
    others: set[Path] = set()
    for folder, slices in folders.items():
        if len(slices) > 1:
            for own in series_in(folder).values():
                others.update([file for file in slices if file in own][1:])
    return [file for file in files if file not in others]


def read_dicom(path: Path, options: ReadOptions) -> ImageFile:
    """Read a series as (Y, X), (Z, Y, X) or (T, Z, Y, X), colors last; a large one lazily (dask).

    Slices are sorted by position; several at one position become time, as do the frames of a film
    (``FrameTime``). An ultrasound picture has the pixel size of its calibrated region. Values are
    those of the modality (Hounsfield units for CT), as float32 if the file scales them. Colors of a
    palette are looked up; where 0 is white (MONOCHROME1), stored values are inverted, so that more
    is brighter.

    Parameters
    ----------
    path
        The folder of a single series, or any file of a series, which stands for the series.
    """
    pydicom = needed_module("pydicom.pixels", path, "DICOM")
    series = _read_heads(pydicom, path, options)
    _check_claims(series, options.limits)
    slices = _slices(series)
    notes: list[str] = []
    data = _stacked(pydicom, series, slices, options.lazy_above, notes)
    samples = series.shape[-1]
    axes = "ZYX" + ("S" if samples > 1 else "")
    times = _times(slices)
    if len(slices) == 1:
        data, axes = data[0], axes[1:]
    elif _is_cine(series, slices):
        axes = "T" + axes[1:]
    elif times > 1:  # sorted, so slices at one position are neighbors
        data = data.reshape(len(slices) // times, times, *data.shape[1:]).swapaxes(0, 1)
        axes = "T" + axes
    planes = slices[::times] if len(slices) > 1 else slices
    scale = _pixel_size(planes, notes)
    if "X" not in scale:
        scale |= _ultrasound_pixel_size(series, notes)
    world = _world(planes, scale, notes)
    units = dict.fromkeys(scale, "mm")
    if axes.startswith("T"):
        if times == 1:  # no size along Z
            scale.pop("Z", None)
            units.pop("Z", None)
        scale |= _frame_time(series, notes)
        units |= dict.fromkeys(scale.keys() & {"T"}, "s")
    if world is not None and world.planes is not None and not world.even:
        gaps = np.linalg.norm(np.diff(world.planes, axis=0), axis=1)
        notes.append(UNEVEN.format(gaps.min(), gaps.max()))
        del units["Z"]  # a size without a unit is for display alone
    elif world is not None and "Z" in scale and world.tilt > _TILT:
        grid = data.shape[:-1] if samples > 1 else data.shape
        notes.append(TILTED.format(world.tilt, readers_differ(world, grid)))
    return ImageFile(
        path,
        np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data,
        axes,
        scale=scale,
        units=units,
        world=world,
        missing=_padding(pydicom, slices[0]),
        rgb=samples == 3,
        shown=_shown(slices[len(slices) // 2]) if samples == 1 else None,
        files=_files(slices),
        notes=tuple(notes),
    )


class _Series(NamedTuple):
    """Files that are slices of one image."""

    path: Path
    """As the user named them."""
    heads: Mapping[Path, Any]
    """Tags of each file."""
    colored: bool
    """Whether pixels are looked up in a palette."""

    @property
    def first(self) -> Any:
        """Tags of the first file, which hold for all."""
        return next(iter(self.heads.values()))

    @property
    def frames(self) -> int:
        """Planes in each file."""
        return _frames(self.first)

    @property
    def stored_samples(self) -> int:
        """Values of a pixel in the file."""
        return int(self.first.get("SamplesPerPixel") or 1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Planes, rows, columns and values of a pixel, as the tags claim."""
        rows, columns = (int(self.first.get(tag) or 0) for tag in ("Rows", "Columns"))
        samples = 3 if self.colored else self.stored_samples
        return len(self.heads) * self.frames, rows, columns, samples


def _read_heads(pydicom: Any, path: Path, options: ReadOptions) -> _Series:
    """The tags of the series that a path stands for."""
    series = series_in(path if path.is_dir() else path.parent)
    if path.is_dir():
        if len(series) != 1:
            raise RefusedFileError(
                f"{path.name} holds {len(series)} DICOM series; give a folder with one, or one "
                "file of the series that is meant."
            )
        [files] = series.values()
    else:
        files = next((files for files in series.values() if path in files), [path])
    heads = {file: pydicom.dcmread(file, specific_tags=[*_HEADER_TAGS, *_WINDOW]) for file in files}
    kinds = {
        (head.get("Rows"), head.get("Columns"), head.get("SamplesPerPixel"))
        for head in heads.values()
    }
    if len(kinds) > 1:
        sizes = ", ".join(sorted({f"{head.Rows} x {head.Columns}" for head in heads.values()}))
        raise RefusedFileError(
            f"The series of {path.name} mixes images ({sizes}); put those that are slices of one "
            "image into a folder of their own."
        )
    interpretation = heads[files[0]].get("PhotometricInterpretation")
    # Labels are the indices of a palette.
    return _Series(path, heads, not options.palette and interpretation == _PALETTE)


def _check_claims(series: _Series, limits: Limits) -> None:
    """Refuse what the tags claim, if it is more than limits or files hold."""
    count, rows, columns, _ = series.shape
    limits.check(series.path.name, "pages", count, "frames")
    limits.check_array(series.path.name, series.shape, np.float32)
    for file, head in series.heads.items():
        _check_stored(limits, file, head, rows * columns * series.stored_samples)


def _slices(series: _Series) -> list[_Slice]:
    """All planes of a series, in the order of their positions."""
    found = [
        _Slice(file, number, _frame_attributes(head, number), head, series.colored)
        for file, head in series.heads.items()
        for number in range(series.frames)
    ]
    return sorted(found, key=_order)


def _files(slices: Sequence[_Slice]) -> tuple[Path, ...]:
    """The files of slices, each once."""
    return tuple(dict.fromkeys(each.file for each in slices))


def _stacked(
    pydicom: Any, series: _Series, slices: Sequence[_Slice], lazy_above: int, notes: list[str]
) -> Any:
    """The slices as (Z, Y, X), colors last; read on access (dask) beyond `lazy_above` bytes."""
    shape, name = series.shape, series.path.name
    dtype = _dtype(list(series.heads.values()), slices)
    if dtype is not None and math.prod(shape) * dtype.itemsize > lazy_above:
        check_memory(math.prod(shape[1:]) * 8, name)
        plane = shape[1:] if shape[-1] > 1 else shape[1:3]
        return _read_on_access(pydicom, slices, series.frames > 1, plane, dtype)
    check_memory(math.prod(shape) * 8, name)
    stored = {}
    for file in _files(slices):
        frames = _pixels(pydicom, file)
        if series.frames == 1 and frames.ndim == 2 + (series.stored_samples > 1):
            frames = frames[None]
        if len(frames) > series.frames:
            notes.append(MORE_FRAMES.format(file.name, len(frames), series.frames))
        stored[file] = frames
    return np.stack([_values(pydicom, each, stored[each.file][each.number]) for each in slices])


def _times(slices: Sequence[_Slice]) -> int:
    """The number of slices at each position, where it is the same everywhere; else 1."""
    places = Counter(_along(plane) for plane in slices)
    if None in places or len(set(places.values())) > 1:
        return 1
    return min(places.values())


def _is_cine(series: _Series, slices: Sequence[_Slice]) -> bool:
    """Whether frames follow each other in time (PS3.3 C.7.6.5), rather than in space."""
    head = series.first
    is_film = head.get("Modality") in _FILMS and not head.get("PerFrameFunctionalGroupsSequence")
    is_timed = bool(head.get("FrameTime") or head.get("FrameTimeVector")) or is_film
    return series.frames > 1 and is_timed and all(_along(each) is None for each in slices)


def _frame_time(series: _Series, notes: list[str]) -> dict[str, float]:
    """Seconds from frame to frame as the size along T, if the file says them and they are even."""
    vector = series.first.get("FrameTimeVector")
    # The first increment is from the start to the first frame, 0.
    steps = [] if vector is None else [float(step) for step in np.ravel(vector)[1:]]
    steps = steps or [float(series.first.get("FrameTime") or 0)]
    if not np.isfinite(steps).all() or min(steps) <= 0:
        return {}
    if max(steps) - min(steps) > _EVEN_TIMES * float(np.mean(steps)):
        notes.append(UNEVEN_TIMES.format(min(steps) / 1e3, max(steps) / 1e3))
        return {}
    return {"T": float(np.mean(steps)) / 1e3}


class _Slice(NamedTuple):
    file: Path
    number: int
    """Index of the frame in the file."""
    attributes: Mapping[str, Any]
    """Tags of the frame."""
    head: Any
    """Tags of the file."""
    colored: bool
    """Whether the pixels are looked up in a palette."""


def _frames(head: Any) -> int:
    """The number of planes in a file; absent in many files with one."""
    return int(head.get("NumberOfFrames") or 1)


def _frame_attributes(head: Any, number: int) -> dict[str, Any]:
    """The tags of one frame of a file; those of the frame override those of all frames."""
    attributes = {tag: head.get(tag) for tag in _HEADER_TAGS if head.get(tag) is not None}
    if _frames(head) > 1:
        attributes.pop("ImagePositionPatient", None)  # that of the first frame, or of none
    everyone = [*(head.get("SharedFunctionalGroupsSequence") or ())][:1]
    own = [*(head.get("PerFrameFunctionalGroupsSequence") or ())][number : number + 1]
    for groups in (*everyone, *own):
        for name, tags in _OF_FRAMES.items():
            for group in groups.get(name) or ():
                attributes |= {tag: group.get(tag) for tag in tags if group.get(tag) is not None}
    return attributes


def series_in(folder: Path) -> dict[str, list[Path]]:
    """The DICOM files of a folder by series.

    A file with several frames, such as an ultrasound film, is a series of its own; so is a picture
    without a position of a modality that has no slices, such as an ultrasound still.
    """
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and is_dicom(file)]
    if not files:
        return {}
    pydicom = needed_module("pydicom.pixels", folder, "DICOM")
    series: dict[str, list[Path]] = {}
    for file in files:
        tags = ["SeriesInstanceUID", "Rows", "NumberOfFrames", "Modality", "ImagePositionPatient"]
        size = file.stat().st_size
        syntax = size > _MAX_DEFLATED and pydicom.filereader.read_file_meta_info(file).get(
            "TransferSyntaxUID"
        )
        if syntax == _DEFLATED:  # pydicom would unpack it without a limit
            raise RefusedFileError(
                f"{file.name} is deflated as a whole and has {format_size(size)}, which could "
                "unpack to a thousand times as much; save the series uncompressed."
            )
        head = pydicom.dcmread(file, specific_tags=tags)
        # Directories and reports have no pixels; those of a segmentation are no image.
        if head.get("Rows") and head.get("Modality") != "SEG":
            is_still = head.get("Modality") in _STILLS and not head.get("ImagePositionPatient")
            own = file.name if _frames(head) > 1 or is_still else ""
            series.setdefault(f"{head.get('SeriesInstanceUID', '')}/{own}", []).append(file)
    return series


def _dtype(heads: Sequence[Any], slices: Sequence[_Slice]) -> np.dtype[Any] | None:
    """Type of the values; None if the headers do not say, as where floats are stored."""
    if slices[0].colored:
        depths = {int(head.RedPaletteColorLookupTableDescriptor[2]) for head in heads}
        return np.dtype(f"u{depths.pop() // 8}") if depths in ({8}, {16}) else None
    if any(_scaling(each.attributes) != (1.0, 0.0) for each in slices):
        return np.dtype(np.float32)
    kinds = {(head.get("PixelRepresentation"), head.get("BitsAllocated")) for head in heads}
    signed, bits = kinds.pop()
    if kinds or signed not in (0, 1) or bits not in (8, 16, 32):
        return None
    return np.dtype(f"{'i' if signed else 'u'}{bits // 8}")


def _read_on_access(
    pydicom: Any,
    slices: Sequence[_Slice],
    several: bool,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Any:
    """A lazy array (planes, *shape); `several` says whether a file has several of the planes."""
    dask_array: Any = import_module("dask.array")  # it has no types
    delayed = import_module("dask").delayed

    def read(each: _Slice) -> NDArray[Any]:
        try:
            pixels = _pixels(pydicom, each.file, each.number if several else None)
        except OSError as error:  # the file is gone
            raise unreadable(each.file.name, error) from error
        return _values(pydicom, each, pixels).astype(dtype, copy=False)

    # A partial, since dask would look into the arguments of a call.
    planes = [delayed(partial(read, each), pure=False)() for each in slices]
    return dask_array.stack([dask_array.from_delayed(plane, shape, dtype) for plane in planes])


def _pixels(pydicom: Any, file: Path, frame: int | None = None) -> NDArray[Any]:
    """The pixels of a file, or of one of its frames."""
    try:
        source = pydicom.dcmread(file) if frame is None else file
        with warnings.catch_warnings():  # of frames beyond the header's; the image notes them
            warnings.filterwarnings("ignore", ".*Number of Frames.*")
            pixels: NDArray[Any] = pydicom.pixels.pixel_array(source, index=frame)
    except (RuntimeError, AttributeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RefusedFileError(
            f"The pixels of {file.name} could not be read ({reason}); save the series "
            "uncompressed, or install what is named there."
        ) from None
    return pixels


def _scaling(attributes: Mapping[str, Any]) -> tuple[float, float]:
    """Slope and intercept."""
    slope = float(attributes.get("RescaleSlope") or 1)
    return slope, float(attributes.get("RescaleIntercept") or 0)


def _shown(plane: _Slice) -> tuple[float, float] | None:
    """The first window of a slice, from black to white, in values of the modality; None if none."""
    shared = [*(plane.head.get("SharedFunctionalGroupsSequence") or ())][:1]
    own = [*(plane.head.get("PerFrameFunctionalGroupsSequence") or ())]
    groups = (*own[plane.number : plane.number + 1], *shared)
    framed = [each for one in groups for each in one.get("FrameVOILUTSequence") or ()]
    if plane.head.get("PhotometricInterpretation") == "MONOCHROME1":
        return None  # its values are inverted
    for place in (*framed, plane.head):
        with suppress(TypeError, ValueError, IndexError):
            center, width = (float(np.ravel(place.get(tag))[0]) for tag in _WINDOW)
            if width > 0 and np.isfinite([center, width]).all():
                return center - width / 2, center + width / 2
    return None


def _values(pydicom: Any, plane: _Slice, pixels: NDArray[Any]) -> NDArray[Any]:
    """Stored pixels as colors of a palette, or as values that are higher where it is brighter."""
    if plane.colored:
        head = pydicom.Dataset(plane.head)
        head.set_original_encoding(*plane.head.original_encoding)  # that of segmented tables
        count, _, depth = head.RedPaletteColorLookupTableDescriptor
        for name in _TABLES:  # to 16 bits, since pydicom keeps indices in the type of the entries
            if name in head and len(head[name].value) < 2 * (count or 2**16):
                entries = np.frombuffer(head[name].value, np.uint8)
                head[name].value = entries.astype("<u2").tobytes()
        colors: NDArray[Any] = pydicom.pixels.apply_color_lut(pixels, head)
        return colors.astype(np.uint8) if depth == 8 else colors
    if plane.head.get("PhotometricInterpretation") == "MONOCHROME1" and pixels.dtype.kind in "iu":
        highest = -1 if pixels.dtype.kind == "i" else 2 ** int(plane.head.BitsStored) - 1
        pixels = np.array(highest, pixels.dtype) - pixels
    slope, intercept = _scaling(plane.attributes)
    if (slope, intercept) == (1.0, 0.0):
        return pixels
    with overflow_refused(plane.file.name, slope, intercept):
        return pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _check_stored(limits: Limits, file: Path, head: Any, samples: int) -> None:
    """Refuse a file that is too short for its frames of `samples` values, as far as is known."""
    syntax = head.file_meta.get("TransferSyntaxUID")
    size = file.stat().st_size * (DEFLATE_RATIO if syntax == _DEFLATED else 1)
    if head.get("PhotometricInterpretation") == "YBR_FULL_422":
        samples = samples * 2 // 3  # two pixels share their chroma
    # A packed frame needs an item of 8 bytes at least.
    packed = syntax is not None and syntax.is_compressed
    needed = 8 if packed else samples * int(head.get("BitsAllocated") or 1) // 8
    limits.check_stored(file.name, _frames(head) * needed, size)


def _order(plane: _Slice) -> tuple[float, int, str, int]:
    instance = int(plane.attributes.get("InstanceNumber") or 0)
    return _along(plane) or 0.0, instance, plane.file.name, plane.number


def _along(plane: _Slice) -> float | None:
    """Position along the normal of the slices in mm, rounded to a thousandth."""
    attributes = plane.attributes
    position = attributes.get("ImagePositionPatient")
    turned = attributes.get("ImageOrientationPatient")
    if not position or not turned or len(position) != 3 or len(turned) != 6:
        return None
    normal = np.cross([float(v) for v in turned[:3]], [float(v) for v in turned[3:]])
    return round(float(np.dot(normal, [float(v) for v in position])), 3)


def _world(slices: Sequence[_Slice], scale: dict[str, float], notes: list[str]) -> World | None:
    """Where each slice is; None if the files do not say, or slices lie in several directions.

    The step from slice to slice becomes the size along Z in `scale`: behind a tilted gantry it is
    longer than the distance of the slices.
    """
    tags = ("ImagePositionPatient", "ImageOrientationPatient")
    if "X" not in scale or any(_along(each) is None for each in slices):
        return None
    places, turned = (
        np.array([each.attributes[tag] for each in slices], dtype=np.float64) for tag in tags
    )
    if np.abs(turned - turned[0]).max() > _DIRECTION:
        notes.append(OTHER_DIRECTIONS)
        return None
    rows = turned[0].reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = rows[0] * scale["X"], rows[1] * scale["Y"]
    affine[:3, 2] = np.cross(*rows) * (scale.get("Z") or 1.0)
    affine[:3, 3] = places[0]
    step = (places[-1] - places[0]) / max(1, len(slices) - 1)
    several = bool(np.linalg.norm(step) > 0)
    if several:
        affine[:3, 2] = step
    if not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        return None
    world = World(
        affine=LPS @ affine,
        space="patient",
        planes=places @ LPS[:3, :3] if several else None,
    )
    if not world.even:  # the usual step, as no step holds for all
        usual = np.median(np.linalg.norm(np.diff(places, axis=0), axis=1))
        affine[:3, 2] = step / np.linalg.norm(step) * usual
        world = replace(world, affine=LPS @ affine)
    if several:
        scale["Z"] = float(np.linalg.norm(affine[:3, 2]))
    return world


def _padding(pydicom: Any, plane: _Slice) -> Missing | None:
    """The values of pixels outside the field of view, as the pixels are read; None if unknown."""
    value, bits = plane.head.get("PixelPaddingValue"), plane.head.get("BitsAllocated")
    if value is None or plane.colored or bits not in (8, 16, 32):
        return None
    limit = plane.head.get("PixelPaddingRangeLimit")
    ends = [int(value), int(value if limit is None else limit)]
    kind = "i" if plane.head.get("PixelRepresentation") else "u"
    stored = np.array(ends).astype(f"{kind}{bits // 8}")
    low, high = sorted(map(float, _values(pydicom, plane, stored)))  # inverted if 0 is white
    return low if low == high else (low, high)


def _pixel_size(slices: Sequence[_Slice], notes: list[str]) -> dict[str, float]:
    """Size along each axis; what differs between slices is added to the notes."""
    first = slices[0].attributes
    spacings = [
        tuple(map(float, spacing))
        for plane in slices
        for spacing in [
            plane.attributes.get("PixelSpacing", plane.attributes.get("ImagerPixelSpacing"))
        ]
        if spacing and len(spacing) == 2
    ]
    sizes: dict[str, float] = {}
    if spacings:
        sizes = {"Y": spacings[0][0], "X": spacings[0][1]}
        if not np.allclose(spacings, spacings[0], rtol=1e-3, atol=0):
            notes.append(OTHER_PIXELS.format(*spacings[0]))
    places = sorted({place for plane in slices if (place := _along(plane)) is not None})
    if len(places) > 1:
        sizes["Z"] = float(np.median(np.diff(places)))
    elif len(slices) > 1:
        sizes["Z"] = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 0)
    return sizes


def _ultrasound_pixel_size(series: _Series, notes: list[str]) -> dict[str, float]:
    """Millimeters along Y and X of the calibrated 2D region of an ultrasound picture.

    Empty, with a note that says why, where regions disagree or reach beyond the picture
    (PS3.3 C.8.5.5).
    """
    regions = [
        each
        for each in series.first.get("SequenceOfUltrasoundRegions") or ()
        if each.get("RegionSpatialFormat") == _TWO_DIMENSIONAL
        and each.get("PhysicalUnitsXDirection")
        == each.get("PhysicalUnitsYDirection")
        == _CENTIMETERS
        and each.get("PhysicalDeltaX")
        and each.get("PhysicalDeltaY")
    ]
    sizes = [
        tuple(abs(float(each.get(f"PhysicalDelta{axis}"))) * 10 for axis in "YX")
        for each in regions
    ]
    if not sizes:
        return {}
    if not np.allclose(sizes, sizes[0], rtol=1e-3, atol=0):
        notes.append(SEVERAL_REGIONS.format(len(sizes)))
        return {}
    bounds = np.array([[int(each.get(tag) or 0) for tag in _BOUNDS] for each in regions])
    top, left = bounds[:, :2].min(0).tolist()
    bottom, right = bounds[:, 2:].max(0).tolist()
    _, rows, columns, _ = series.shape
    if bottom > rows or right > columns:
        notes.append(REGION_BEYOND.format(bottom, right, rows, columns))
        return {}
    if top > 0 or left > 0 or bottom < rows - 1 or right < columns - 1:
        notes.append(REGION_ALONE.format(*sizes[0], top, bottom, left, right))
    return dict(zip("YX", sizes[0], strict=True))


DICOM = Reader(
    ("DICOM",),
    (".dcm",),
    lambda path, start: holds_dicom(path) if path.is_dir() else start[128:] == b"DICM",
    read_dicom,
)
