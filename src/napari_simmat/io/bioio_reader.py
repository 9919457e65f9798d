"""Files that bioio reads, if it and its reader for them are installed."""

from __future__ import annotations

import math
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.io.axes import names_of_channels
from napari_simmat.io.image_file import ImageFile, ReadOptions, package_of
from napari_simmat.io.refusals import RefusedFileError, check_memory

OTHER_SCENES = "Of its scenes the first is read; {} {} left out."
FAILED = "Cannot read {}: {} failed ({}); save it as OME-TIFF, e.g. by Bio-Formats in Fiji."
NO_SIZE = (
    "Its reader finds no size of a pixel ({}), so the table is in pixels; --pixel-size and --unit "
    "state it."
)


def has_bioio() -> bool:
    """Whether bioio is installed."""
    return find_spec("bioio") is not None


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


def read_with_bioio(path: Path, options: ReadOptions) -> ImageFile | None:
    """Read the first scene of a file with the bioio reader for it, lazily if it is large.

    Axes of length 1 except Y and X are dropped, as bioio gives every image five. None if bioio or
    a reader for it is not installed.
    """
    if not has_bioio():
        return None
    bioio: Any = import_module("bioio")
    unsupported = import_module("bioio_base.exceptions").UnsupportedFileFormatError
    try:
        image = bioio.BioImage(path)
    except unsupported:
        return None
    package = package_of(type(image.reader).__module__)
    try:
        return _as_image(path, image, package, options)
    except (RefusedFileError, MemoryError):
        raise
    except Exception as error:  # readers raise anything
        raise RefusedFileError(FAILED.format(path.name, package, _in_short(error))) from error


def _as_image(path: Path, image: Any, package: str, options: ReadOptions) -> ImageFile:
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
    scale, notes = {}, []
    try:
        sizes_um = {letter: getattr(image.physical_pixel_sizes, letter, None) for letter in "ZYX"}
        scale = {letter: float(size) for letter, size in sizes_um.items() if size is not None}
    except Exception as error:  # of metadata that its reader does not know; the pixels are there
        notes.append(NO_SIZE.format(_in_short(error)))
    if (others := len(image.scenes) - 1) > 0:
        notes.append(OTHER_SCENES.format(pluralize(others, "other"), is_or_are(others)))
    return ImageFile(
        path,
        data,
        axes,
        channel_names=names if named else None,
        scale=scale,
        units=dict.fromkeys(scale, "um"),
        rgb="S" in axes and sizes["S"] in (3, 4),
        read_by=package,
        notes=tuple(notes),
    )


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
