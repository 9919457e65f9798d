"""`ImageFile`: an image as its file holds it; what a `Reader` of one format is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.axes import as_array
from napari_simmat.io.captures import home_of
from napari_simmat.io.description import ImageDescription
from napari_simmat.io.files import sha256_of
from napari_simmat.io.limits import Limits
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.io.reference import ImageReference, Missing, Within, World
from napari_simmat.io.refusals import unreadable

_KEPT_FROM = 2**20
"""Values of a plane in one chunk that takes longer to unpack than to keep."""
LAZY_ABOVE = 2**28
"""Default of `ReadOptions.lazy_above`, in bytes."""

TURNED = (
    "It is read as stored: its orientation ({}), by which other programs turn or mirror it, "
    "is not applied."
)
"""With EXIF's number from 2 to 8, which TIFF has as well."""


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
    sky: str = ""
    """Where its pixels are on the sky, as the header of FITS has it (`io.sky`)."""
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
    format: str = ""
    """Format of its file, as people call it; empty if another package read it."""
    read_by: str = ""
    """The package and its version that read it, if that is another one."""
    notes: tuple[str, ...] = ()
    """What was left out, or is missing in the file, as sentences."""
    levels: tuple[Any, ...] = ()
    """The coarser levels of a pyramid, each with the axes of `data`, which is the finest; lazy."""
    within: Within | None = None
    """Where it lies in the finest level, if it is a part of that."""

    def __repr__(self) -> str:
        """Its size and pixels, not their values: ``<ImageFile a.tif: YX 4 x 6, uint8>``."""
        return f"<ImageFile {self.path.name}: {self.description.sentence}>"

    @property
    def description(self) -> ImageDescription:
        """What it holds, for people and programs."""
        axis = self.channel_axis
        place = "" if self.world is None else self.world.system_name
        return ImageDescription(
            file=self.path.name,
            axes=self.axes,
            shape=tuple(map(int, self.data.shape)),
            dtype=np.dtype(self.data.dtype).name,
            channels=1 if axis is None else int(self.data.shape[axis]),
            channel_names=self.channel_names or (),
            pixel_size={a: float(self.scale[a]) for a in self.axes if self.scale.get(a)},
            units={a: self.units[a] for a in self.axes if self.units.get(a) and self.scale.get(a)},
            levels=tuple(tuple(map(int, each.shape)) for each in self.levels),
            place="world coordinates of the sky" if self.sky else place,
            format=self.format,
            read_by=self.read_by,
            labels=self.are_labels,
            notes=self.notes,
        )

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
            sky=self.sky,
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

    def format_of(self, path: Path) -> str:
        """The format of a path that matches, by its ending where there are several."""
        return self.formats[0] if len(self.formats) == 1 else path.suffix[1:].upper()


@cache  # the descriptions of all installed packages are read for it
def package_of(module: str) -> str:
    """The installed package that a module is of, and its version, ``"nd2 0.12.0"``."""
    name = module.partition(".")[0]
    package = packages_distributions().get(name, [name])[0]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def drop_singleton_channel(file: ImageFile) -> ImageFile:
    """Drop a channel axis of length 1, which OME-Zarr with five axes always has."""
    axis = file.channel_axis
    if axis is None or file.data.shape[axis] > 1:
        return file
    data = as_array(file.data).squeeze(axis)
    return replace(file, data=data, axes=file.plane_axes, channel_names=None)


class LazyArray:
    """An array in a file of which parts are read on access.

    Whatever a codec raises on damaged data becomes a `RefusedFileError`. A plane that is one chunk
    is unpacked as a whole for any of its parts, so the last one is kept.

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
        self._leading = next((n for n, size in enumerate(self.chunks) if size > 1), 0)
        """Number of axes before those of a chunk."""
        chunk, plane = self.chunks[self._leading :], self.shape[self._leading :]
        self._is_plane_a_chunk = chunk == plane and math.prod(plane) >= _KEPT_FROM
        self._last: tuple[tuple[int, ...], NDArray[Any]] | None = None
        """Index and values of the plane that was read last; None before the first."""

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Read a part."""
        given = where if isinstance(where, tuple) else (where,)
        index, within = given[: self._leading], given[self._leading :]
        is_in_a_plane = len(index) == self._leading and all(
            isinstance(number, (int, np.integer)) for number in index
        )
        if self._is_plane_a_chunk and is_in_a_plane:
            return np.array(self._plane(tuple(map(int, index)))[within])
        return self._read(where)

    def _plane(self, index: tuple[int, ...]) -> NDArray[Any]:
        """The plane of an index, read once as long as no other is asked for."""
        last = self._last
        if last is None or last[0] != index:
            self._last = None  # two planes need not fit into memory
            last = index, self._read((*index, ...))
            self._last = last
        return last[1]

    def _read(self, where: Any) -> NDArray[Any]:
        try:
            return np.asarray(self._array[where])
        except Exception as error:
            raise unreadable(self._name, error) from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole."""
        return np.asarray(self[...], dtype)
