"""Read an image of any supported format.

The content of a file decides its format, not its name. Files never execute anything, and their
sizes are checked against the free memory before anything is unpacked.

TIFF, NIfTI, DICOM, NRRD and Zarr have modules of their own; PNG, JPEG, BMP, NumPy and what bioio
reads are here. To add a format, write its `Reader` and add it to `READERS`.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, format_shape, names_of_bands
from napari_simmat.io.axes import as_array, distinct_axes, names_of_channels, unnamed_axes
from napari_simmat.io.captures import band_files, capture_stem, is_capture, names_bands
from napari_simmat.io.dicom import DICOM, holds_dicom, is_dicom
from napari_simmat.io.files import format_size
from napari_simmat.io.image_file import (
    LAZY_ABOVE,
    TURNED,
    ImageFile,
    Reader,
    ReadOptions,
    drop_singleton_channel,
)
from napari_simmat.io.itk import ITK
from napari_simmat.io.limits import Limits
from napari_simmat.io.missing_values import without_missing
from napari_simmat.io.nifti import NIFTI, is_nifti
from napari_simmat.io.openslide import OPENSLIDE
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.io.pyramid import read_part
from napari_simmat.io.reference import resample_job, resampling_problem
from napari_simmat.io.refusals import RefusedFileError, check_memory, unreadable
from napari_simmat.io.tiff import TIFF
from napari_simmat.io.zarr import ZARR, holds_images, is_zarr
from napari_simmat.progress import finish

logger = logging.getLogger(__name__)


def read_image(
    path: Path | str,
    *,
    lazy_above: int = LAZY_ABOVE,
    limits: Limits | None = None,
    part: ImagePart = WHOLE,
) -> ImageFile:
    """Read an image file; a large TIFF, Zarr, DICOM or .npy lazily.

    NIfTI is stored as (x, y, z, t); here it becomes (t, z, y, x), voxels neither flipped nor
    resampled. Pixels that a file declares as without data are NaN. Of a TIFF with several images
    the first is read, of a pyramid the finest level, unless `part` asks for another.
    What is left out or missing (`ImageFile.notes`) is logged.

    Parameters
    ----------
    path
        The file, a folder that is one image, or the path of a capture, ``IMG_7_{band}.tif``, whose
        bands are files (`io.captures`).
    lazy_above
        Bytes of unpacked data above which planes are read on access. They are read from the open
        file, which closes once the data are garbage-collected.
    limits
        What the file may ask for; by default `Limits.from_environment`.
    part
        A level, a size of pixels, a region, of which nothing else is read. `ImageFile.within` then
        says where it lies in level 0.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read; the message says why in one sentence. Planes that are read on access
        raise it as well.
    """
    file = open_image(path, lazy_above=lazy_above, limits=limits, part=part)
    for note in file.notes:
        logger.warning("%s: %s", file.path.name, note)
    return file


def open_image(
    path: Path | str,
    *,
    lazy_above: int = LAZY_ABOVE,
    limits: Limits | None = None,
    part: ImagePart = WHOLE,
    in_parts: bool = False,
) -> ImageFile:
    """`read_image` for a caller that passes on the notes itself.

    With `in_parts` it promises to read no more than parts of a large plane at once, so that a plane
    need not fit into memory.
    """
    limits = limits or Limits.from_environment()
    options = ReadOptions(lazy_above, limits=limits, part=part, in_parts=in_parts)
    return read_part(_read(Path(path), options), part, lazy_above)


OTHER_SHAPE = (
    "{} has {} pixels, but {} has {}: the channels of one image have one size; resample it, or "
    "give files that say where their pixels are."
)
NO_PLACE = (
    "{} does not say where it lies, and {} does; their pixels are taken to lie in the same places."
)
RESAMPLED = "{} lies elsewhere than {}, and was resampled to its pixels."


def add_channels(
    first: ImageFile, others: Sequence[ImageFile], bands: Sequence[str] = ()
) -> ImageFile:
    """One image with the channels of several files, e.g. the contrasts of a patient.

    A file that lies elsewhere in the patient or on the map than the first is resampled to its
    pixels, trilinear, NaN where it does not reach. Channels without a name have that of `bands`, or
    the part in which the files' names differ, so that those of all captures of a series have the
    same names: ``nir``, or ``band5`` of ``IMG_0001_5.tif``.

    Raises ValueError if the images have different axes, different shapes and no place, or places
    that cannot be compared, such as two coordinate systems of maps.
    """
    channels: list[NDArray[Any]] = []
    names: list[str] = []
    notes = list(first.notes)
    bands = bands or names_of_bands([stem_of(one.path) for one in (first, *others)])
    for one, band in zip((first, *others), bands, strict=True):
        axis, data = one.channel_axis, as_array(one.data)
        own = [data] if axis is None else list(np.moveaxis(data, axis, 0))
        numbered = [band] if len(own) == 1 else [f"{band} {n}" for n in range(len(own))]
        here, there = one.world, first.world
        if (
            here is not None
            and there is not None
            and len(one.shape) == len(first.shape) <= 3
            and (one.shape != first.shape or not here.agrees(there, first.shape))
        ):
            if problem := resampling_problem(one.path.name, here, first.path.name, there):
                raise ValueError(problem)
            own = [finish(resample_job(each, here, there, first.shape)) for each in own]
            notes.append(RESAMPLED.format(one.path.name, first.path.name))
        elif one.shape != first.shape:
            pairs = [(each.path.name, format_shape(each.shape)) for each in (one, first)]
            raise ValueError(OTHER_SHAPE.format(*pairs[0], *pairs[1]))
        elif (here is None) != (there is None):
            named = (one, first) if here is None else (first, one)
            notes.append(NO_PLACE.format(named[0].path.name, named[1].path.name))
        channels += own
        names += one.channel_names or numbered
        if one is not first:
            notes += [f"{one.path.name}: {note}" for note in one.notes]
    return replace(
        first,
        data=np.stack(channels),
        axes=f"C{first.plane_axes}",
        channel_names=tuple(names),
        rgb=False,
        others=tuple(others),
        notes=tuple(notes),
    )


def read_labels(path: Path | str) -> ImageFile:
    """Read a label image: integers without channels; of a palette PNG the indices.

    A channel axis of length 1 is dropped. Many radiology programs store integers as floats; from
    NIfTI these are read as int32.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_image`, and if the image holds anything but labels.
    """
    path = Path(path)
    file = _read(path, ReadOptions(palette=True, limits=Limits.from_environment()))
    dtype = np.dtype(file.data.dtype)
    if file.axes.startswith("S"):  # tifffile writes three planes as colors by default
        file = replace(file, axes=f"Q{file.axes[1:]}", rgb=False)
    file = drop_singleton_channel(file)
    if file.channel_axis is not None:
        raise ValueError(
            f"{path.name} has {file.data.shape[file.channel_axis]} channels; a label image has "
            "none; save the labels as integers in a single channel."
        )
    if dtype.kind == "b":
        return replace(file, data=as_array(file.data).astype(np.uint8))
    if dtype.kind == "f" and is_nifti(path):
        values = file.data
        if np.all((np.rint(values) == values) & (np.abs(values) < 2**31)):
            return replace(file, data=values.astype(np.int32))
    if dtype.kind not in "iu":
        raise ValueError(
            f"{path.name} holds {dtype.name} values; labels are integers, 0 for the background; "
            "save them as such, e.g. uint16."
        )
    return file


def label_ending(path: Path) -> str:
    """The ending of a label image of this file or folder, in a format that keeps its place."""
    name = path.name.lower()
    if name.endswith((".nrrd", ".nhdr")):
        return ".nrrd"
    if name.endswith((".mha", ".mhd")):
        return ".mha"
    of_patient = is_dicom(path) or (path.is_dir() and not is_zarr(path) and holds_dicom(path))
    return ".nii.gz" if of_patient or is_nifti(path) else ".tif"


def is_image_file(path: Path) -> bool:
    """Whether a file is an image by its ending; DICOM, which often has none, by its content."""
    return path.name.lower().endswith(IMAGE_ENDINGS) or is_dicom(path)


def is_image_folder(path: Path) -> bool:
    """Whether a folder is one Zarr image, not a group of images."""
    return path.is_dir() and is_zarr(path) and not holds_images(path)


def stem_of(path: Path) -> str:
    """The file's name without its suffix, also for ``.nii.gz`` and ``.ome.tif``."""
    if is_capture(path):
        return capture_stem(path)
    for ending in IMAGE_ENDINGS:
        if ending.count(".") > 1 and path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    if path.suffix.lower() != ".zarr" and path.is_dir():  # a dot in a folder's name is no suffix
        return path.name
    return path.stem


def _read(path: Path, options: ReadOptions) -> ImageFile:
    if is_capture(path):
        return _read_capture(path, options)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}; check its name and folder.")
    if not (path.is_file() or path.is_dir()):
        raise RefusedFileError(f"{path.name} is a pipe or device, not a file; save it as one.")
    try:
        start = _start_of(path)
        # The preamble of a DICOM file may be the header of a TIFF (PS3.10 7.1).
        before = [OPENSLIDE, DICOM] if path.is_file() else [OPENSLIDE]
        reader = next((each for each in (*before, *READERS) if each.matches(path, start)), None)
        if reader is not None:
            file = reader.read(path, options)
        elif path.is_dir():
            raise RefusedFileError(
                f"{path} is a folder, not an image file; give one of {_READABLE}."
            )
        elif start and has_bioio() and path.suffix.lower() not in IMAGE_ENDINGS:
            file = read_with_bioio(path, options)
        else:
            problem = "unsupported file type" if start else "the file is empty"
            other = _bioio_advice(path) if start else ""
            raise RefusedFileError(
                f"Cannot read {path.name}: {problem}; give one of {_READABLE}{other}."
            )
    except Exception as error:  # a broken file makes a reader raise anything
        raise unreadable(path.name, error) from error
    options.limits.check_array(path.name, file.data.shape, file.data.dtype)
    known = {
        letter: float(size)
        for letter, size in file.scale.items()
        if letter in file.axes and 0 < size < math.inf
    }
    units = {letter: unit for letter, unit in file.units.items() if letter in known}
    return replace(file, axes=distinct_axes(file.axes), scale=known, units=units)


def _read_capture(path: Path, options: ReadOptions) -> ImageFile:
    """The bands of a capture as one image."""
    files = band_files(path)
    whole_files = options._replace(part=WHOLE, in_parts=False)  # its part is taken at the end
    read = [_read(each, whole_files) for each in files.values()]
    images = [without_missing(each, options.lazy_above) for each in read]
    names = list(files)
    own = {image.band for image in images if image.band}
    if len(own) == len(images) and not names_bands(path):
        names = [image.band for image in images]
    whole = add_channels(images[0], images[1:], names) if len(files) > 1 else images[0]
    return replace(
        whole, path=path, files=tuple(files.values()), others=(), missing=None, valid=None
    )


def _start_of(path: Path) -> bytes:
    """The bytes that tell the format of a file; none for a folder."""
    if path.is_dir():
        return b""
    with path.open("rb") as file:
        return file.read(132)


_GRAY16 = ("I", "I;16", "I;16B")
_STRIP_PIXELS = 2**20
CALLED = "It is a picture in the format {}, though its name ends in {}."
_PNG, _JPEG = b"\x89PNG", b"\xff\xd8\xff"


def read_picture(path: Path, options: ReadOptions) -> ImageFile:
    """Read a picture in gray, RGB or RGBA as stored; a note says if EXIF turns or mirrors it."""
    # Only these formats: other readers of Pillow call external programs. Opened by its own class,
    # a picture above Pillow's limit raises no warning; ours is checked below.
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin

    start = _start_of(path)
    kind: Any = BmpImagePlugin.BmpImageFile
    if start.startswith(_PNG):
        kind = PngImagePlugin.PngImageFile
    elif start.startswith(_JPEG):
        kind = JpegImagePlugin.JpegImageFile
    with kind(path) as picture:
        bits = start[24] if start.startswith(_PNG) else 8  # at a fixed place of the header
        deep = bits == 16 and picture.mode not in _GRAY16
        channels = len(picture.getbands())
        shape = (*picture.size[::-1], channels)
        options.limits.check_array(path.name, shape, np.uint16 if bits == 16 else np.uint8)
        pixels = math.prod(picture.size)
        turned = _orientation(picture)
        options.limits.check(path.name, "picture_pixels", pixels, "pixels of a picture")
        check_memory(pixels * max(4, channels * bits // 8), path.name)
        if deep:  # Pillow would cut these colors to 8 bits
            imagecodecs: Any = import_module("imagecodecs")
            data: NDArray[Any] = imagecodecs.png_decode(path.read_bytes())
        elif picture.mode in ("1", "L", "RGB", "RGBA", "F", "LA", *_GRAY16):  # 1: bool
            data = _pixels(picture)
        elif picture.mode in ("P", "PA"):
            colors = "RGBA" if picture.has_transparency_data else "RGB"
            data = _pixels(picture if options.palette else picture.convert(colors))
        else:
            data = _pixels(picture.convert("RGB"))
    notes: tuple[str, ...] = () if turned == 1 else (TURNED.format(turned),)
    if path.suffix.lower() not in PICTURES.endings:
        notes = (*notes, CALLED.format(kind.format, path.suffix or "nothing"))
    if data.ndim == 3 and data.shape[2] == 2:
        notes = (*notes, "Its alpha channel is left out.")
        data = data[..., 0]
    rgb = data.ndim == 3
    return ImageFile(path, data, "YXS" if rgb else "YX", rgb=rgb, notes=notes)


def _orientation(picture: Any) -> int:
    """The orientation of 1 to 8 that EXIF states, 1 as stored; damaged EXIF states none."""
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        turned = picture.getexif().get(0x0112, 1)
        return turned if turned in range(1, 9) else 1
    return 1


def _pixels(picture: Any) -> NDArray[Any]:
    """The picture as an array, copied in strips: as a whole it would be copied three times."""
    width, height = picture.size
    row = np.asarray(picture.crop((0, 0, width, 1)))
    data = np.empty((height, *row.shape[1:]), row.dtype)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        below = min(top + rows, height)
        data[top:below] = picture.crop((0, top, width, below))
    return data


PICTURES = Reader(
    ("PNG", "JPEG", "BMP"),
    (".png", ".jpg", ".jpeg", ".bmp"),
    lambda _, start: start.startswith((_PNG, _JPEG, b"BM")),
    read_picture,
)


CELLPOSE = (
    "{} is a file of Cellpose that holds Python objects, which can run code when they are read; in "
    "Cellpose choose File > Save masks as PNG/tif (or run it with --save_tif), and give that file."
)
_NUMPY_HEADER = 10_000
"""Bytes; NumPy does not parse more."""


def _read_numpy(path: Path, options: ReadOptions) -> ImageFile:
    with path.open("rb") as stream:
        # Only numbers have no field names, whose UTF-8 is all that version 3 adds to 2.
        old = np.lib.format.read_magic(stream) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        place = stream.tell()
        length = int.from_bytes(stream.read(2 if old else 4), "little")
        if length > _NUMPY_HEADER:
            raise RefusedFileError(
                f"{path.name} has a header of {format_size(length)}, and an array of numbers needs "
                f"at most {format_size(_NUMPY_HEADER)}, so it is damaged; copy it again."
            )
        stream.seek(place)
        shape, fortran, dtype = header(stream)
        start = stream.tell()
    if dtype.hasobject and path.name.lower().endswith("_seg.npy"):
        raise RefusedFileError(CELLPOSE.format(path.name))
    if dtype.hasobject:
        raise RefusedFileError(
            f"{path.name} holds Python objects, which can run code when they are read; save plain "
            "numbers with numpy.save."
        )
    options.limits.check_array(path.name, shape, dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    options.limits.check_stored(path.name, nbytes, path.stat().st_size - start)
    options.limits.check_holes(path)
    axes = unnamed_axes(path, len(shape))
    order: Any = "F" if fortran else "C"
    data: NDArray[Any] = np.memmap(path, dtype, "r", start, shape, order)
    if nbytes <= options.lazy_above:
        check_memory(nbytes, path.name)
        data = np.array(data)
    colors = data.ndim == 3 and data.shape[-1] in (3, 4) and data.dtype == np.uint8
    return ImageFile(path, data, "YXS" if colors else axes, rgb=colors)


def has_bioio() -> bool:
    """Whether bioio is installed."""
    return find_spec("bioio") is not None


_BIOIO_READERS = {
    ".czi": "bioio-czi",
    ".lif": "bioio-lif",
    ".nd2": "bioio-nd2",
    ".dv": "bioio-dv",
    ".r3d": "bioio-dv",
    ".sldy": "bioio-sldy",
    ".gif": "bioio-imageio",
}
"""Packages that read files of an ending with bioio."""


def _bioio_advice(path: Path) -> str:
    """That bioio may read a file, as the end of a sentence; empty where the name denies it."""
    if path.suffix.lower() in IMAGE_ENDINGS:
        return ""
    return f", or install bioio and its reader for the file ({_reader_command(path)})"


def _reader_command(path: Path) -> str:
    """How bioio's reader for a file is installed."""
    known = _BIOIO_READERS.get(path.suffix.lower())
    return f"pip install bioio {known}" if known else "e.g. pip install bioio bioio-czi"


def is_bioio_file(path: Path) -> bool:
    """Whether bioio is installed and has a reader for a file."""
    if not has_bioio():
        return False
    bioio: Any = import_module("bioio")
    try:
        bioio.BioImage.determine_plugin(path)
    except Exception:  # a broken file makes a reader raise anything
        return False
    return True


def read_with_bioio(path: Path, options: ReadOptions) -> ImageFile:
    """Read the first scene of a file with the bioio reader for it, lazily if it is large.

    Axes of length 1 except Y and X are dropped, as bioio gives every image five.
    """
    bioio: Any = import_module("bioio")
    unsupported = import_module("bioio_base.exceptions").UnsupportedFileFormatError
    try:
        image = bioio.BioImage(path)
    except unsupported:
        raise RefusedFileError(
            f"Cannot read {path.name}: unsupported file type, also by bioio's installed readers; "
            f"install the one for it ({_reader_command(path)}), or save it as TIFF."
        ) from None
    order, shape = str(image.dims.order), tuple(int(size) for size in image.shape)
    sizes = dict(zip(order, shape, strict=True))
    letters = "".join(letter for letter in order if sizes[letter] > 1 or letter in "YX")
    axes = "".join(letter for letter in letters if letter not in "YXS") + "YX"
    axes += "S" if "S" in letters else ""
    options.limits.check_array(path.name, shape, image.dtype)
    nbytes = math.prod(shape) * np.dtype(image.dtype).itemsize
    plane = sizes["Y"] * sizes["X"] * np.dtype(image.dtype).itemsize
    check_memory(plane if nbytes > options.lazy_above else nbytes, path.name)
    data = image.get_image_dask_data(axes)
    if nbytes <= options.lazy_above:
        data = np.asarray(data)
    given = [str(name or "") for name in image.channel_names or ()]
    names = names_of_channels(given, sizes["C"] if "C" in axes else 1)
    named = names is not None and len(set(names)) == len(names)
    sizes_um = {letter: getattr(image.physical_pixel_sizes, letter, None) for letter in "ZYX"}
    scale = {letter: float(size) for letter, size in sizes_um.items() if size is not None}
    return ImageFile(
        path,
        data,
        axes,
        channel_names=names if named else None,
        scale=scale,
        units=dict.fromkeys(scale, "um"),
        rgb="S" in axes and sizes["S"] in (3, 4),
    )


NUMPY = Reader(
    ("NumPy (.npy)",), (".npy",), lambda _, start: start.startswith(b"\x93NUMPY"), _read_numpy
)
READERS = (TIFF, PICTURES, NUMPY, NIFTI, ITK, ZARR, DICOM, OPENSLIDE)
"""All formats; the first that matches reads, but OpenSlide before all, as its files look like those
of others."""
IMAGE_ENDINGS = tuple(ending for reader in READERS for ending in reader.endings)
"""Endings of image files; the content decides what a file is."""
_READABLE = format_list(name for reader in READERS for name in reader.formats)
