"""FITS images of astronomy, by astropy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat.io.axes import unnamed_axes
from napari_simmat.io.image_file import ImageFile, Reader, ReadOptions
from napari_simmat.io.refusals import RefusedFileError, check_memory, needed_module
from napari_simmat.io.sky import sky_of

NO_IMAGE = "{} holds no image, only tables or headers; give a FITS file with an image of two axes."
NO_SKY = "astropy makes no sense of its world coordinates, so the table has no place on the sky."
OTHER_IMAGES = "Of its {} images the first is read."


def _read(path: Path, options: ReadOptions) -> ImageFile:
    """Read the first image with two axes or more; BLANK and NaN are pixels without data.

    Axes of length 1 are dropped.
    """
    astropy = needed_module("astropy.io.fits", path, "FITS")
    fits: Any = astropy.io.fits
    with path.open("rb") as stream, fits.open(stream, lazy_load_hdus=True) as file:
        images = []
        for number, unit in enumerate(file):
            options.limits.check(path.name, "pages", number + 1, "units")
            if unit.is_image and len(unit.shape) >= 2 and math.prod(unit.shape) > 0:
                images.append(unit)
        if not images:
            raise RefusedFileError(NO_IMAGE.format(path.name))
        first = images[0]
        shape = tuple(size for size in first.shape[:-2] if size > 1) + tuple(first.shape[-2:])
        values = abs(int(first.header["BITPIX"])) // 8
        options.limits.check_array(path.name, shape, np.dtype(f"u{min(values, 8)}"))
        if not isinstance(first, fits.CompImageHDU):
            nbytes = math.prod(shape) * values
            options.limits.check_stored(path.name, nbytes, path.stat().st_size)
        options.limits.check_holes(path)
        # Scaled values become floats, so the image is as large as twice its integers, at most.
        check_memory(2 * math.prod(shape) * max(values, 4), path.name)
        notes = [OTHER_IMAGES.format(len(images))] if len(images) > 1 else []
        try:
            sky = sky_of(first.header)
        except Exception:  # a header can contradict itself in any way; the pixels are there
            sky, notes = "", [*notes, NO_SKY]
        data = np.asarray(first.data).reshape(shape)
        data = data.astype(data.dtype.newbyteorder("="))
    axes = unnamed_axes(path, data.ndim)
    by = f"astropy {astropy.__version__}"
    return ImageFile(path, data, axes, sky=sky, read_by=by, notes=tuple(notes))


FITS = Reader(
    ("FITS",),
    (".fits", ".fit", ".fts"),
    lambda _, start: start.startswith(b"SIMPLE  ="),
    _read,
)
