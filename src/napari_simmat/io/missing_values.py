"""Pixels without data become NaN."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.io.image_file import LAZY_ABOVE, ImageFile
from napari_simmat.io.reference import Missing


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
