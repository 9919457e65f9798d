"""An image as its file holds it, and what all readers share: limits, refusals, axes.

Limits are checked on what a header claims, before anything it describes is read, so that a file
that is damaged, or made to do harm, is refused at once.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.io.captures import home_of
from napari_simmat.io.files import MAY_NOT_BE_READ, format_size, sha256_of
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.io.reference import ImageReference, Missing, Within, World

VARIABLE = "NAPARI_SIMMAT_LIMITS"
"""Environment variable that changes limits: ``picture_pixels=4e8,pages=1e6``."""
DEFLATE_RATIO = 1032
"""The most that deflate (gzip, zlib) unpacks from a byte."""


_SMALL_PIECE = 64 * 64
"""Values of a piece that takes longer to find than to unpack, if it has fewer."""


class RefusedFileError(ValueError):
    """A file is not read; the message is a complete sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may ask for.

    Parameters
    ----------
    image_bytes
        Bytes of an image unpacked. 200 bytes of header can claim more than any disk holds; the
        largest light-sheet volumes have some terabytes.
    axes
        Axes of an image: T, Z, C, Y, X, S, and two of unknown meaning. No microscope writes more,
        and a header can name hundreds.
    pages
        Pages of a TIFF, frames of a DICOM file, planes that a description claims. Each has a
        directory that is read before the first pixel, and a page can be 6 bytes.
    pieces
        Chunks, tiles or strips of less than 64 x 64 values that are unpacked for one plane, or for
        an image that is read as a whole. Each costs 0.1 ms whatever its size, and can be one pixel.
    picture_pixels
        Pixels of a PNG, JPEG or BMP. These cannot be read in part, and 160 KB of zeros unpack to
        13,000 x 13,000.
    metadata_bytes
        Bytes of a tag such as OME-XML, of a header, of the attributes of Zarr. They are read at
        once, and parsed they take ten times as much; OME-XML of 100,000 planes has 20 MB.
    hole_ratio
        How many times longer a file may be than what the disk holds of it. A hole reads as zeros
        for hours, as after a copy that broke off; compressing file systems reach some tens.
    """

    image_bytes: int = 2**43
    axes: int = 8
    pages: int = 2**18
    pieces: int = 2**16
    picture_pixels: int = 2**27
    metadata_bytes: int = 2**25
    hole_ratio: int = 1000

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits, changed by the environment variable `VARIABLE`; ValueError if it is wrong."""
        names = [each.name for each in fields(cls)]
        changes = {}
        for part in filter(str.strip, os.environ.get(VARIABLE, "").split(",")):
            name, _, text = part.partition("=")
            try:
                changes[name.strip()] = int(float(text))
            except (ValueError, OverflowError):
                changes[name.strip()] = 0
            if name.strip() not in names or changes[name.strip()] < 1:
                raise ValueError(
                    f"{VARIABLE} has the entry {part.strip()!r}; write NAME=NUMBER with a number "
                    f"above 0 and a name of {', '.join(names)}."
                )
        return cls(**changes)

    def check(self, name: str, limit: str, claimed: int, what: str) -> None:
        """Refuse the file `name` if it claims more than `limit` allows; `what` names the things."""
        allowed: int = getattr(self, limit)
        if claimed <= allowed:
            return
        digits = len(str(claimed))
        tenths = claimed // 10 ** max(0, digits - 2) + 1
        above = f"{tenths / 10}e{digits - 1}" if digits > 4 else str(claimed)  # a round number
        numbers = f"{_number(claimed)} {what}, more than the {_number(allowed)}"
        if limit.endswith("bytes"):
            numbers = f"{format_size(claimed)} of {what}, more than the {format_size(allowed)}"
        raise RefusedFileError(
            f"{name} claims {numbers} that are read from one file; unless it is damaged, set the "
            f"environment variable {VARIABLE} to {limit}={above}."
        )

    def check_array(self, name: str, shape: Sequence[int], dtype: Any) -> None:
        """Refuse an image without pixels, of anything but numbers, or of absurd size."""
        self.check(name, "axes", len(shape), "axes")
        dtype = np.dtype(dtype)
        if dtype.kind not in "biufc":
            kinds = {"S": "text", "U": "text", "T": "text", "V": "records", "M": "dates"}
            raise RefusedFileError(
                f"{name} holds {kinds.get(dtype.kind, f'values of type {dtype}')}, but the pixels "
                "of an image are numbers; save plain numbers."
            )
        if not all(size > 0 for size in shape):
            raise RefusedFileError(
                f"{name} has no pixel (shape {format_shape(shape)}); an image has at least one "
                "along every axis, so save it again."
            )
        self.check(name, "image_bytes", math.prod(map(int, shape)) * dtype.itemsize, "pixels")

    def check_pieces(
        self, name: str, count: int, piece: Sequence[int], stored: int | None = None
    ) -> None:
        """Refuse a plane in `count` small pieces of the shape `piece`.

        Of very many pieces, all but a few must be `stored`: each that is missing is looked for.
        """
        if math.prod(piece) < _SMALL_PIECE:
            self.check(name, "pieces", count, f"pieces (of {format_shape(piece)}) to a plane")
        if stored is not None and count > max(2**12, self.hole_ratio * stored):
            raise RefusedFileError(
                f"{name} is a hole: of its {_number(count)} pieces the disk holds "
                f"{_number(stored)}, as after a copy that broke off; copy it again."
            )

    def check_holes(self, path: Path) -> None:
        """Refuse a file most of which was never written; not where the system does not tell."""
        size = path.stat().st_size
        if size < 2**24 or not hasattr(os, "SEEK_DATA"):
            return
        written = at = 0
        file = os.open(path, os.O_RDONLY)
        try:
            while written * self.hole_ratio < size:
                start = os.lseek(file, at, os.SEEK_DATA)
                at = os.lseek(file, start, os.SEEK_HOLE)
                written += at - start
        except OSError:  # no data behind
            raise RefusedFileError(
                f"{path.name} is a hole: of its {format_size(size)} the disk holds "
                f"{format_size(written)}, as after a copy that broke off; copy it again."
            ) from None
        finally:
            os.close(file)

    def check_stored(self, name: str, needed: int, available: int) -> None:
        """Refuse a file that holds (or can unpack to) fewer bytes than its header claims."""
        if needed > available:
            raise RefusedFileError(
                f"{name} claims {format_size(needed)} of pixels but holds at most "
                f"{format_size(max(0, available))}, so it is cut short or damaged; copy it again."
            )


def _number(value: int) -> str:
    return f"{value:,}" if value < 10**15 else f"{float(value):.2g}"


LAZY_ABOVE = 2**28
"""Default of `ReadOptions.lazy_above`, in bytes."""

UNKNOWN_AXES = "QRPAHE"
"""Letters for axes of unknown meaning, in the order in which they are used; all valid in OME."""


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image as its file holds it, with the metadata of the file."""

    path: Path
    """The file or folder; of a capture the path that names its bands (`io.captures`)."""
    data: Any
    """numpy or memory-mapped array, or a `LazyArray` (dask where axes had to be moved); apart
    from the channel axis the last two axes are Y and X."""
    axes: str
    """One letter for each axis of `data`, all different: T time, Z depth, Y, X, C channel,
    S color sample, others as the file names them (Q: unknown, R the next of these)."""
    channel_names: tuple[str, ...] | None = None
    """Names along the channel axis, where the file has them."""
    scale: Mapping[str, float] = field(default_factory=dict)
    """Size of a pixel along an axis, by its letter, where known."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Unit of that size: ``"um"``, ``"s"``, for NIfTI also ``"mm"``."""
    origin: Mapping[str, float] = field(default_factory=dict)
    """Where the first pixel is, by axis letter in these units, where the file moves it from 0."""
    stage: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """Position of the microscope's stage by axis letter, with its unit, as OME names it."""
    are_labels: bool = False
    """Whether the file says that its values are labels."""
    rgb: bool = False
    """Whether the channels are red, green, blue (and alpha)."""
    world: World | None = None
    """Where the pixels are, as the file says."""
    missing: Missing | None = None
    """The values of pixels without data; `read_image` makes them NaN."""
    valid: NDArray[np.bool_] | None = None
    """(Y, X), which pixels have data, if the file holds a mask of them; the others become NaN."""
    shown: tuple[float, float] | None = None
    """The values that the file wants to be shown as black and as white; for a display alone."""
    name: str = ""
    """The name that the file gives the image."""
    band: str = ""
    """The band of the spectrum that the file of a single one names."""
    files: tuple[Path, ...] = ()
    """The files it was read from, in a fixed order, unless that is `path` alone."""
    others: tuple[ImageFile, ...] = ()
    """The images whose channels were added to those of `path`."""
    pixel_ratio: float = 1.0
    """Height of a pixel over its width as given by the user; used where `scale` is unknown."""
    notes: tuple[str, ...] = ()
    """What was left out, or is missing in the file, as sentences."""
    levels: tuple[Any, ...] = ()
    """The coarser levels of a pyramid, each with the axes of `data`, which is the finest; lazy."""
    within: Within | None = None
    """Where it lies in the finest level, if it is a part of that."""

    def __repr__(self) -> str:
        """Its size and pixels, not their values: ``<ImageFile a.tif: YX 4 x 6, uint8>``."""
        said = [f"{self.axes} {format_shape(self.data.shape)}, {self.data.dtype}"]
        rows, columns = self.axes.index("Y"), self.axes.index("X")
        sides = [format_shape((each.shape[rows], each.shape[columns])) for each in self.levels]
        size = [
            f"{self.scale[a]:.4g} {self.units.get(a, '')}".strip()
            for a in "YX"
            if self.scale.get(a)
        ]
        said += [f"pixels of {format_shape(size)}"] if size else []
        said += [f"coarser levels {', '.join(sides)}"] if sides else []
        return f"<ImageFile {self.path.name}: {', '.join(said)}>"

    def sha256(self) -> str:
        """Hash of the file's bytes; for several files, of their relative names and bytes."""
        if self.others:
            each = (replace(self, others=()), *self.others)
            return hashlib.sha256("\n".join(one.sha256() for one in each).encode()).hexdigest()
        if not self.files:
            return sha256_of(self.path)
        digest = hashlib.sha256()
        for file in self.files:
            name = file.relative_to(self.path if self.path.is_dir() else home_of(self.path))
            digest.update(f"{name.as_posix()}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """(4, 4) from a voxel's (x, y, z) to the patient's axes, where known."""
        patient = self.world is not None and self.world.space == "patient"
        return self.world.affine if self.world is not None and patient else None

    @property
    def reference(self) -> ImageReference:
        """What labels of this image keep."""
        return ImageReference(
            scale=self.scale,
            units=self.units,
            origin=self.origin,
            stage=self.stage,
            world=self.world,
            missing=self.missing,
            valid=self.valid,
            name=self.name,
            channels=self.channel_names or (),
            file=self.path,
            within=self.within,
        )

    @property
    def channel_axis(self) -> int | None:
        """Axis of `data` that holds the channels, None for a single channel."""
        return next((axis for axis, letter in enumerate(self.axes) if letter in "CS"), None)

    @property
    def plane_axes(self) -> str:
        """Letters of the axes without channels, e.g. ``"ZYX"``."""
        return "".join(letter for letter in self.axes if letter not in "CS")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without channels, in the order of `plane_axes`."""
        sizes = zip(self.axes, self.data.shape, strict=True)
        return tuple(int(size) for letter, size in sizes if letter not in "CS")

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Height and width of a pixel in a common unit; None if unknown."""
        height, width = (self.scale.get(letter, 0.0) for letter in "YX")
        known = 0 < height < math.inf and 0 < width < math.inf
        if known and self.units.get("Y") == self.units.get("X"):
            return height, width
        return None if self.pixel_ratio == 1 else (self.pixel_ratio, 1.0)


class ReadOptions(NamedTuple):
    """How a reader reads."""

    lazy_above: int = LAZY_ABOVE
    """Images of more bytes than this (unpacked) are read plane by plane on access, where the
    format allows."""
    palette: bool = False
    """Return the indices of a palette picture instead of its colors."""
    limits: Limits = Limits()
    """What the file may ask for."""
    part: ImagePart = WHOLE
    """What of it will be read: a reader opens an image of which that is less than the whole
    lazily, whatever its size, and `io.pyramid.read_part` reads."""
    in_parts: bool = False
    """Whether no more than parts of a plane will be read at once, so that a plane need not fit
    into memory."""


@dataclass(frozen=True)
class Reader:
    """A file format: the names of its files, how it is recognized, how it is read."""

    formats: tuple[str, ...]
    """Names of the formats for the user."""
    endings: tuple[str, ...]
    """Endings of file names, in lower case. They find images in a folder and give the stem of a
    name; the format of a file is decided by `matches`."""
    matches: Callable[[Path, bytes], bool]
    """Whether a path is of this format, from the path and the first 132 bytes of the file
    (no bytes for a folder)."""
    read: Callable[[Path, ReadOptions], ImageFile]
    """Reads a path that matches."""


def drop_singleton_channel(file: ImageFile) -> ImageFile:
    """Drop a channel axis of length 1, which OME-Zarr with five axes always has."""
    axis = file.channel_axis
    if axis is None or file.data.shape[axis] > 1:
        return file
    data = as_array(file.data).squeeze(axis)
    return replace(file, data=data, axes=file.plane_axes, channel_names=None)


class LazyArray:
    """An array in a file of which parts are read on access.

    Whatever a codec raises on damaged data becomes a `RefusedFileError`.

    Parameters
    ----------
    array
        A Zarr array or alike, with ``chunks``.
    name
        The file, for messages.
    """

    def __init__(self, array: Any, name: str) -> None:
        self._array, self._name = array, name
        self.shape: tuple[int, ...] = tuple(map(int, array.shape))
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.chunks: tuple[int, ...] = tuple(map(int, array.chunks))

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Read a part."""
        try:
            return np.asarray(self._array[where])
        except Exception as error:
            raise unreadable(self._name, error) from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole."""
        return np.asarray(self[...], dtype)


class MissingAsNaN:
    """An array in which pixels without data are NaN, read part by part.

    Parameters
    ----------
    array
        (..., Y, X) or (..., Y, X, S) of integers or floats; anything that takes slices.
    missing
        The value of pixels without data, or the lowest and the highest of their values.
    valid
        (Y, X), which pixels have data; of a coarser or finer grid the nearest ones count.
    channels_last
        Whether the array ends in channels.
    """

    def __init__(
        self,
        array: Any,
        missing: Missing | None,
        valid: NDArray[np.bool_] | None = None,
        channels_last: bool = False,
    ) -> None:
        stored = np.dtype(array.dtype)
        self._array = array
        self._range = None
        if missing is not None:
            low, high = missing if isinstance(missing, tuple) else (missing, missing)
            # A file of float32 gives its value in decimals.
            single = low == high and has_missing(stored, low)
            self._range = (stored.type(low), stored.type(high)) if single else (low, high)
        self.shape: tuple[int, ...] = tuple(map(int, array.shape))
        self._valid = None
        if valid is not None:
            rows, columns = self.shape[-3:-1] if channels_last else self.shape[-2:]
            if valid.shape != (rows, columns):
                nearest = [
                    np.arange(count) * size // count
                    for count, size in zip((rows, columns), valid.shape, strict=True)
                ]
                valid = valid[np.ix_(*nearest)]
            self._valid = np.broadcast_to(valid[..., None] if channels_last else valid, self.shape)
        exact = stored.kind == "f" or stored.itemsize <= 2  # float32 holds 16 bits
        self.dtype = np.result_type(stored, np.float32 if exact else np.float64)
        self.ndim = len(self.shape)
        self.chunks = getattr(array, "chunks", None) or (*(1,) * (self.ndim - 2), *self.shape[-2:])

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Read a part."""
        stored = np.asarray(self._array[where])
        values = stored.astype(self.dtype)
        if self._range is not None:
            low, high = self._range
            values[(stored >= low) & (stored <= high)] = np.nan
        if self._valid is not None:
            values[~self._valid[where]] = np.nan
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole."""
        return np.asarray(self[...], dtype)


def has_missing(dtype: Any, missing: Missing | None) -> bool:
    """Whether pixels of this type can have the value, or one of the values, of missing ones."""
    dtype = np.dtype(dtype)
    if isinstance(missing, tuple):
        low, high = missing
        if dtype.kind == "f":
            return low <= high
        return dtype.kind in "iu" and low <= np.iinfo(dtype).max and high >= np.iinfo(dtype).min
    if missing is None or math.isnan(missing) or dtype.kind not in "iuf":
        return False
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return bool(np.isfinite(dtype.type(missing)))
    return missing.is_integer() and np.iinfo(dtype).min <= missing <= np.iinfo(dtype).max


def without_missing(file: ImageFile, lazy_above: int = LAZY_ABOVE) -> ImageFile:
    """The image with its missing pixels as NaN; in a picture of 8-bit colors as black.

    Colors stay bytes, which foundations that were trained on photographs take as they are.
    """
    data, last = file.data, file.axes[-1:] in ("C", "S")
    missing = file.missing if has_missing(data.dtype, file.missing) else None
    if missing is None and file.valid is None:
        return file
    masked = MissingAsNaN(data, missing, file.valid, last)
    nbytes = math.prod(masked.shape) * masked.dtype.itemsize
    whole = isinstance(data, np.ndarray) and nbytes <= lazy_above
    if file.rgb and data.dtype == np.uint8:
        if not isinstance(data, np.ndarray):
            return file
        return replace(file, data=np.where(np.isnan(masked[...]), np.uint8(0), data))
    return replace(file, data=masked[...] if whole else masked)


def unreadable(name: str, error: Exception) -> RefusedFileError:
    """The error for the user that describes what a library raised on a damaged file."""
    if isinstance(error, RefusedFileError):
        return error
    if isinstance(error, MemoryError):
        return RefusedFileError(
            f"{name} needs more memory than is free ({_free_memory()}); crop it, or close other "
            "programs."
        )
    if isinstance(error, PermissionError):
        return RefusedFileError(MAY_NOT_BE_READ.format(name))
    # Libraries name the file with its folder, which may be a temporary one.
    reason = re.sub(
        r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\"]*[/\\]", "", " ".join(str(error).split())
    )
    if not re.search(r"[A-Za-z]{3}", reason):  # such as the 0 of an IndexError
        reason = type(error).__name__
    return RefusedFileError(
        f"{name} could not be read ({reason[:200]}); it may be damaged or cut short; "
        "copy it again, or save it again in the program that wrote it."
    )


@contextmanager
def overflow_refused(name: str, slope: float, intercept: float) -> Iterator[None]:
    """Refuse a file whose scaled values, computed in the block, exceed float32."""
    try:
        if not (math.isfinite(slope) and math.isfinite(intercept)):
            raise FloatingPointError
        with np.errstate(over="raise", invalid="ignore"):
            yield
    except FloatingPointError:
        raise RefusedFileError(
            f"{name} scales its values by {slope:.3g} and adds {intercept:.3g}, and the results "
            "overflow float32; correct its header, or save the image without scaling."
        ) from None


def as_array(data: Any) -> Any:
    """An array with methods such as `astype`; a `LazyArray`, which has none, as lazy dask."""
    if hasattr(data, "astype"):
        return data
    dask_array: Any = import_module("dask.array")  # it has no types
    return dask_array.from_array(data, chunks=data.chunks, name=False)


def same_except_singletons(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether shapes (..., Y, X) are equal apart from leading axes of length 1."""
    ours, theirs = ([size for size in shape[:-2] if size > 1] for shape in (one, other))
    return ours == theirs and tuple(one[-2:]) == tuple(other[-2:])


def distinct_axes(axes: str) -> str:
    """Make axis letters unique: a repeated letter becomes the next free one of `UNKNOWN_AXES`."""
    apart = ""
    for letter in axes:
        free = (other for other in UNKNOWN_AXES if other not in axes + apart)
        apart += next(free, letter) if letter in apart else letter
    return apart


def unnamed_axes(path: Path, n_axes: int) -> str:
    """``QQYX``: letters for an array whose file does not name its axes; refuses 1 or over 5."""
    if not 2 <= n_axes <= 5:
        raise RefusedFileError(
            f"{path.name} has {n_axes} axes; an image has 2 (Y, X) to 5; save it with those."
        )
    return "Q" * (n_axes - 2) + "YX"


def planes_last(data: Any, axes: str) -> tuple[Any, str]:
    """Move Y and X behind all other axes but the channels, where they are not."""
    others = [letter for letter in axes if letter not in "CSYX"]
    if [letter for letter in axes if letter not in "CS"] == [*others, "Y", "X"]:
        return data, axes
    if not isinstance(data, np.ndarray):
        data = as_array(data)
    target = [*(letter for letter in axes if letter in "CS"), *others, "Y", "X"]
    remaining = list(enumerate(axes))  # letters may repeat: equal ones are taken in their order
    order = []
    for letter in target:
        found = next(pair for pair in remaining if pair[1] == letter)
        remaining.remove(found)
        order.append(found[0])
    return data.transpose(order), "".join(target)


def label_dtype(highest: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds `highest`."""
    return np.dtype(np.uint16 if highest <= np.iinfo(np.uint16).max else np.uint32)


def labels_in_file_order(labels: NDArray[Any], axes: str) -> tuple[NDArray[Any], list[str]]:
    """Labels in the type of `label_dtype` with the axes T, Z, Y, X behind all others, and these."""
    known = [letter for letter in "TZYX" if letter in axes]
    order = [letter for letter in axes if letter not in known] + known
    data = np.asarray(labels, dtype=label_dtype(int(labels.max(initial=0))))
    return data.transpose([axes.index(letter) for letter in order]), order


PACKAGES = {"openslide": "openslide-python openslide-bin"}
"""What is installed to import a package, where the names differ."""


def needed_module(name: str, path: Path, formats: str) -> Any:
    """An optional package (without useful types) that reads and writes the file's format.

    Raises RefusedFileError if it is not installed.
    """
    package = name.partition(".")[0]
    try:
        import_module(name)
        return import_module(package)
    except ImportError:
        raise RefusedFileError(
            f"{path.name} is {formats}, which needs the package {package}; install it "
            f"(pip install {PACKAGES.get(package, package)})."
        ) from None


def check_memory(
    nbytes: int, name: str, smaller: str = "crop it, or save it as TIFF in planes that fit"
) -> None:
    """Refuse if `nbytes` are more than three quarters of the free memory.

    `smaller` says how to get an image `name` that needs less.
    """
    if nbytes > available_memory() * 3 / 4:
        raise RefusedFileError(
            f"{name} needs {format_size(nbytes)} of memory unpacked, {_free_memory()} are free; "
            f"{smaller}, or close other programs."
        )


def available_memory() -> int:
    """Bytes of memory that can be had without swapping, within `memory_limit`."""
    psutil: Any = import_module("psutil")
    available, limit = int(psutil.virtual_memory().available), memory_limit()
    if limit is None:
        return available
    return min(available, max(0, limit - int(psutil.Process().memory_info().vms)))


def memory_limit() -> int | None:
    """Bytes of addresses that this process may use (``ulimit -v``); None if all."""
    try:
        resource: Any = import_module("resource")
    except ImportError:  # Windows
        return None
    limit: int = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _free_memory() -> str:
    limit = memory_limit()
    allowed = "" if limit is None else f" of the {format_size(limit)} that ulimit -v allows"
    return f"{format_size(available_memory())}{allowed}"
