"""Microscopes' own formats, through the readers of bioio that are installed."""

from __future__ import annotations

import math
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat.engine.formats.image_file import ImageFile, RefusedFileError, check_memory


def bioio_is_there() -> bool:
    """Whether bioio is installed."""
    return find_spec("bioio") is not None


def is_for_bioio(path: Path) -> bool:
    """Whether bioio is installed and one of its readers takes a file."""
    if not bioio_is_there():
        return False
    bioio: Any = import_module("bioio")
    try:
        bioio.BioImage.determine_plugin(path)
    except Exception:  # a broken file makes a reader raise anything
        return False
    return True


def read_with_bioio(path: Path, lazy_above: int) -> ImageFile:
    """Read the first scene of a file with whichever of bioio's readers takes it.

    Axes of length 1 that are not Y or X are left out, as bioio gives every image five.

    Parameters
    ----------
    path
        The file.
    lazy_above
        Images of more bytes than this are read plane by plane when asked for.
    """
    bioio: Any = import_module("bioio")
    unsupported = import_module("bioio_base.exceptions").UnsupportedFileFormatError
    try:
        image = bioio.BioImage(path)
    except unsupported:
        raise RefusedFileError(
            f"{path.name} is of a kind that is not known here, nor to bioio's installed readers; "
            "install the one for it (e.g. pip install bioio-czi), or save it as TIFF."
        ) from None
    order, shape = str(image.dims.order), tuple(int(size) for size in image.shape)
    kept = "".join(
        letter for letter, size in zip(order, shape, strict=True) if size > 1 or letter in "YX"
    )
    sizes = dict(zip(order, shape, strict=True))
    axes = "".join(letter for letter in kept if letter not in "YXS") + "YX"
    axes += "S" if "S" in kept else ""
    nbytes = math.prod(shape) * np.dtype(image.dtype).itemsize
    plane = sizes["Y"] * sizes["X"] * np.dtype(image.dtype).itemsize
    check_memory(plane if nbytes > lazy_above else nbytes, path.name)
    data = image.get_image_dask_data(axes)
    if nbytes <= lazy_above:
        data = np.asarray(data)
    names = [str(name) for name in image.channel_names or ()]
    named = "C" in axes and len(names) == sizes.get("C") and len(set(names)) == len(names)
    scale = {
        letter: float(size)
        for letter in "ZYX"
        if letter in axes
        and (size := getattr(image.physical_pixel_sizes, letter, None)) is not None
        and math.isfinite(size)
        and size > 0
    }
    return ImageFile(
        path,
        data,
        axes,
        channel_names=tuple(names) if named else None,
        scale=scale,
        units=dict.fromkeys(scale, "um"),
        rgb="S" in axes and sizes["S"] in (3, 4),
    )
