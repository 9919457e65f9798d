"""Image files: TIFF (OME, ImageJ, plain), PNG, JPEG, BMP, NIfTI, DICOM, Zarr and NumPy's .npy.

What a file is, its content says, not its name. Files never execute anything, and no more memory
is asked for than there is: sizes are taken from the header first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.files import sha256_of

LAZY_ABOVE = 2**28
"""TIFF, Zarr and .npy of more bytes than this (unpacked) are read plane by plane."""

READABLE = "TIFF, PNG, JPEG, BMP, NIfTI (.nii, .nii.gz), DICOM, OME-Zarr and NumPy (.npy)"


ENDINGS = (
    ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".nii", ".nii.gz", ".npy", ".dcm",
)  # fmt: skip
"""What the names of image files end in; what they are, their content says."""
UNKNOWN = "QRPAHE"
"""Letters of axes of which nothing is known, in the order in which they are taken; OME has them."""


class RefusedFileError(ValueError):
    """Why a file is not read, in a sentence to be shown as it is."""


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image as its file holds it, with what the file says about it.

    Parameters
    ----------
    path
        Where it was read from.
    data
        numpy, memory-mapped or zarr array (dask where axes had to be moved); apart from the
        channel axis the last two axes are Y and X.
    axes
        One letter for each axis of `data`, each but once: T time, Z depth, Y, X, C channel,
        S colour sample, others as the file names them (Q: unknown, R the next of these).
    channel_names
        Names along the channel axis, where the file has them.
    scale
        Size of a pixel along an axis, by its letter, where known.
    units
        Unit of that size: ``"um"``, ``"s"``, for NIfTI also ``"mm"``.
    rgb
        Whether the channels are red, green, blue (and alpha).
    affine
        NIfTI's (4, 4) from the voxel's (x, y, z) to world coordinates; its axes in `data` are in
        reverse order.
    files
        The files it was read from, in a fixed order, where they are not the one file `path`.
    pixel_ratio
        Height of a pixel over its width, told by somebody, where `scale` does not say.
    """

    path: Path
    data: Any
    axes: str
    channel_names: tuple[str, ...] | None = None
    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    rgb: bool = False
    affine: NDArray[np.float64] | None = None
    files: tuple[Path, ...] = ()
    pixel_ratio: float = 1.0

    def sha256(self) -> str:
        """Of the file's bytes; of a folder's, of its files' names and bytes."""
        if not self.files:
            return sha256_of(self.path)
        digest = hashlib.sha256()
        for file in self.files:
            name = file.relative_to(self.path if self.path.is_dir() else self.path.parent)
            digest.update(f"{name.as_posix()}\0{sha256_of(file)}\n".encode())
        return digest.hexdigest()

    @property
    def channel_axis(self) -> int | None:
        """Which axis of `data` holds the channels, None for one channel."""
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
        """Height and width of a pixel in one unit; None where nothing is known of it."""
        height, width = (self.scale.get(letter, 0.0) for letter in "YX")
        known = 0 < height < math.inf and 0 < width < math.inf
        if known and self.units.get("Y") == self.units.get("X"):
            return height, width
        return None if self.pixel_ratio == 1 else (self.pixel_ratio, 1.0)


def read_image(path: Path | str, *, lazy_above: int = LAZY_ABOVE) -> ImageFile:
    """Read an image file, a large TIFF or .npy lazily.

    NIfTI is stored as (x, y, z, t); here it becomes (t, z, y, x), voxels neither flipped nor
    resampled. Of a TIFF with several images the first is read, of a pyramid the finest level.

    Parameters
    ----------
    path
        The file.
    lazy_above
        Bytes of unpacked TIFF or .npy data above which planes are read when asked for. They are
        read from the open file, which closes once nobody holds the data.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read; one sentence says why.
    """
    return _read(Path(path), lazy_above, palette=False)


def read_labels(path: Path | str) -> ImageFile:
    """Read a label image: whole numbers without channels, the indices of a palette PNG.

    A channel axis of length 1 is left out. Many programs of radiology store whole numbers as
    floats; from NIfTI these are taken as int32.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_image`, and if the image holds anything else than labels.
    """
    path = Path(path)
    file = _read(path, LAZY_ABOVE, palette=True)
    dtype = np.dtype(file.data.dtype)
    if file.axes.startswith("S"):  # three planes, which tifffile writes as colours unless told
        file = replace(file, axes=f"Q{file.axes[1:]}", rgb=False)
    file = without_lone_channel(file)
    if file.channel_axis is not None:
        raise ValueError(
            f"{path.name} has {file.data.shape[file.channel_axis]} channels; a label image has "
            "none. Save the labels as integers in a single channel."
        )
    if dtype.kind == "b":
        return replace(file, data=_with_methods(file.data).astype(np.uint8))
    if dtype.kind == "f" and _is_nifti(path) and _are_whole(file.data):
        return replace(file, data=file.data.astype(np.int32))
    if dtype.kind not in "iu":
        raise ValueError(
            f"{path.name} holds {dtype.name} values; labels are integers, 0 for the background. "
            "Save them as such, e.g. uint16."
        )
    return file


def without_lone_channel(file: ImageFile) -> ImageFile:
    """An image without a channel axis of length 1, which OME-Zarr of five axes always has."""
    axis = file.channel_axis
    if axis is None or file.data.shape[axis] > 1:
        return file
    data = _with_methods(file.data).squeeze(axis)
    return replace(file, data=data, axes=file.plane_axes, channel_names=None)


def _with_methods(data: Any) -> Any:
    """An array that can be converted; as dask, unread, what only takes slices (Zarr)."""
    if hasattr(data, "astype"):
        return data
    dask_array: Any = import_module("dask.array")  # it has no types
    return dask_array.from_zarr(data)


def same_but_for_ones(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether shapes (..., Y, X) are the same without leading axes of length 1."""
    ours, theirs = ([size for size in shape[:-2] if size > 1] for shape in (one, other))
    return ours == theirs and tuple(one[-2:]) == tuple(other[-2:])


def told_apart(axes: str) -> str:
    """The letters of axes, each but once: one that stands there again becomes one of `UNKNOWN`."""
    apart = ""
    for letter in axes:
        free = (other for other in UNKNOWN if other not in axes + apart)
        apart += next(free, letter) if letter in apart else letter
    return apart


def is_image_folder(path: Path) -> bool:
    """Whether a folder is one image by what Zarr leaves in it; a group of images is not."""
    from napari_simmat.engine.formats.zarr_images import holds_images, is_zarr

    return path.is_dir() and is_zarr(path) and not holds_images(path)


def check_memory(nbytes: int, name: str) -> None:
    """Refuse if `nbytes` are more than three quarters of the memory that is free."""
    available = available_memory()
    if nbytes > available * 3 / 4:
        raise RefusedFileError(
            f"{name} needs {_size(nbytes)} of memory unpacked, {_size(available)} are free; crop "
            "it, close other programs, or save it as TIFF in planes that fit."
        )


def available_memory() -> int:
    """Bytes of memory that can be had without swapping."""
    psutil: Any = import_module("psutil")
    return int(psutil.virtual_memory().available)


def _read(path: Path, lazy_above: int, palette: bool) -> ImageFile:
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}; check its name and folder.")
    try:
        if path.is_dir():
            file = _read_folder(path, lazy_above)
        else:
            file = _read_file(path, lazy_above, palette)
        return replace(file, axes=told_apart(file.axes))
    except (RefusedFileError, MemoryError):
        raise
    except Exception as error:  # a broken file makes a reader raise anything
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{path.name} could not be read ({said}); it may be damaged or cut short. Open it in "
            "the program that wrote it and save it again."
        ) from error


def _read_folder(path: Path, lazy_above: int) -> ImageFile:
    from napari_simmat.engine.formats.zarr_images import is_zarr, read_zarr

    if is_zarr(path):
        return read_zarr(path, lazy_above)
    from napari_simmat.engine.formats.dicom import holds_dicom, read_dicom

    if holds_dicom(path):
        return read_dicom(path)
    raise RefusedFileError(f"{path} is a folder, not an image file; give one of {READABLE}.")


def _read_file(path: Path, lazy_above: int, palette: bool) -> ImageFile:
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError as error:
        raise RefusedFileError(f"{path.name} could not be opened ({error.strerror}).") from error
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        from napari_simmat.engine.formats.tiff import read_tiff

        return read_tiff(path, lazy_above)
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM")):
        from napari_simmat.engine.formats.pictures import read_picture

        return read_picture(path, palette)
    if start.startswith(b"\x93NUMPY"):
        return _read_npy(path, lazy_above)
    if _is_nifti(path):
        return _read_nifti(path)
    if start[128:] == b"DICM":
        from napari_simmat.engine.formats.dicom import read_dicom

        return read_dicom(path)
    from napari_simmat.engine.formats.bioio_images import bioio_is_there, read_with_bioio

    if start and bioio_is_there() and path.suffix.lower() not in ENDINGS:
        return read_with_bioio(path, lazy_above)
    found = "is empty" if not start else "is of a kind that is not known here"
    raise RefusedFileError(f"{path.name} {found}; readable are {READABLE}.")


def _read_npy(path: Path, lazy_above: int) -> ImageFile:
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "pickle" not in str(error) and "Python objects" not in str(error):
            raise
        raise RefusedFileError(
            f"{path.name} holds Python objects, which can run code when they are read; save plain "
            "numbers with numpy.save."
        ) from None
    if data.nbytes <= lazy_above:
        check_memory(data.nbytes, path.name)
        data = np.array(data)
    colours = data.ndim == 3 and data.shape[-1] in (3, 4) and data.dtype == np.uint8
    if data.ndim < 2 or data.ndim > 5:
        raise RefusedFileError(
            f"{path.name} has {data.ndim} axes; an image has 2 (Y, X) to 5. Save it with those."
        )
    axes = "YXS" if colours else "Q" * (data.ndim - 2) + "YX"
    return ImageFile(path, data, axes, rgb=colours)


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _are_whole(values: NDArray[np.floating[Any]]) -> bool:
    """Whether all are whole numbers that int32 holds."""
    return bool(np.all((np.rint(values) == values) & (np.abs(values) < 2**31)))


_NIFTI_UNITS = {
    "meter": "m", "mm": "mm", "micron": "um", "sec": "s", "msec": "ms", "usec": "us",
}  # fmt: skip


def _read_nifti(path: Path) -> ImageFile:
    try:
        nibabel: Any = import_module("nibabel")
    except ImportError:
        raise RefusedFileError(
            f"{path.name} is NIfTI, which needs the package nibabel; install it (pip install "
            '"napari-simmat[formats]").'
        ) from None
    image = nibabel.load(path)
    stored = image.dataobj
    axes = "XYZTC"[: len(image.shape)]
    if not 2 <= len(image.shape) <= 5 or stored.dtype.kind not in "iufc":
        raise RefusedFileError(
            f"{path.name} holds {stored.dtype.name} values along {len(image.shape)} axes; save a "
            "NIfTI image of integers or floats with 2 to 5 axes."
        )
    scaled = (stored.slope, stored.inter) != (1.0, 0.0)
    if scaled or path.name.lower().endswith(".gz"):  # others are mapped, not loaded
        size = max(8, stored.dtype.itemsize) if scaled else stored.dtype.itemsize
        check_memory(math.prod(image.shape) * size, path.name)
    data = np.asarray(stored, dtype=np.float32) if scaled else np.asanyarray(stored.get_unscaled())
    space, time = image.header.get_xyzt_units()
    scale, units = {}, {}
    for letter, size in zip(axes, image.header.get_zooms(), strict=True):
        unit = {"X": space, "Y": space, "Z": space, "T": time}.get(letter)
        if unit is not None and math.isfinite(size) and size > 0:
            scale[letter] = float(size)
            if unit in _NIFTI_UNITS:
                units[letter] = _NIFTI_UNITS[unit]
    affine = np.asarray(image.affine, dtype=np.float64)
    return ImageFile(path, data.T, axes[::-1], scale=scale, units=units, affine=affine)


def _size(nbytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} bytes"
