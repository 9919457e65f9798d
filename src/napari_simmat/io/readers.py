"""Read an image of any supported format.

The content of a file decides its format, not its name. Files never execute anything, and their
sizes are checked against the free memory before anything is unpacked.

Each format has a module, NumPy's is here. To add one, write its `Reader` and add it to `READERS`.
What none of them knows is asked of the readers that are installed (`elsewhere`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, format_shape, names_of_bands
from napari_simmat.io.axes import as_array, distinct_axes, unnamed_axes
from napari_simmat.io.captures import band_files, capture_stem, is_capture, names_bands
from napari_simmat.io.dicom import DICOM, holds_dicom, is_dicom
from napari_simmat.io.elsewhere import NEEDED, read_elsewhere
from napari_simmat.io.files import format_size
from napari_simmat.io.fits import FITS
from napari_simmat.io.image_file import (
    LAZY_ABOVE,
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
from napari_simmat.io.pictures import PICTURES
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
    """Whether a file is an image by its ending; DICOM, which often has none, by its content.

    So are files of instruments that other packages read: without one the run says what to install.
    """
    if path.name == RIG_PICTURE and path.with_suffix(".json").exists():
        return False  # it shows what was measured of a rig, which lies beside
    is_known = path.name.lower().endswith(IMAGE_ENDINGS) or path.suffix.lower() in NEEDED
    return is_known or is_dicom(path)


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
            file = replace(reader.read(path, options), format=reader.format_of(path))
        elif path.is_dir():
            raise RefusedFileError(
                f"{path} is a folder, not an image file; give one of {_READABLE}."
            )
        elif not start:
            raise RefusedFileError(
                f"Cannot read {path.name}: the file is empty; give one of {_READABLE}."
            )
        else:
            file = read_elsewhere(path, options, own=IMAGE_ENDINGS, formats=_READABLE)
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


NUMPY = Reader(
    ("NumPy (.npy)",), (".npy",), lambda _, start: start.startswith(b"\x93NUMPY"), _read_numpy
)
READERS = (TIFF, PICTURES, NUMPY, NIFTI, ITK, ZARR, DICOM, OPENSLIDE, FITS)
"""All formats; the first that matches reads, but OpenSlide before all, as its files look like those
of others."""
RIG_PICTURE = "rig.webp"
"""What `channels register` writes beside ``rig.json``."""
IMAGE_ENDINGS = tuple(ending for reader in READERS for ending in reader.endings)
"""Endings of image files; the content decides what a file is."""
_READABLE = format_list(name for reader in READERS for name in reader.formats)
