"""One array of the user's, wherever it lies: what is accepted, and reading parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.words import format_shape

WHOLE = slice(None)


@dataclass(frozen=True)
class Source:
    """An array (numpy, dask, zarr or alike) that holds one or several channels.

    Parameters
    ----------
    array
        Has ``shape``, ``dtype`` and takes slices; read only where asked, never changed.
    channel_axis
        The axis of the channels, counted from the front, or None for a single channel.
    """

    array: Any
    channel_axis: int | None

    @classmethod
    def of(cls, array: Any, channel_axis: int | None = None, what: str = "The image") -> Source:
        """Take an array, or say in one sentence why it cannot be an image.

        Parameters
        ----------
        array
            What the user gave.
        channel_axis
            May count from the end.
        what
            How the sentence calls it.
        """
        _refuse_what_is_no_array(array, what)
        if isinstance(array, np.ma.MaskedArray):
            # A masked pixel is a missing one; only floats can say so.
            kept = array.dtype if array.dtype.kind in "fcbO" else np.dtype(np.float64)
            array = np.ma.filled(array.astype(kept), np.nan)
        _refuse_dtype(array, what)
        shape = array.shape
        n_dims = len(shape) - (channel_axis is not None)
        if n_dims < 2:
            raise ValueError(
                f"{what} has shape {format_shape(shape)}{_of_channels(channel_axis)}; an image "
                "needs at least a Y and an X axis."
            )
        if not all(isinstance(size, (int, np.integer)) for size in shape):
            raise ValueError(
                f"{what} has an axis of unknown length (shape {format_shape(shape)}); compute the "
                "sizes first, e.g. dask's compute_chunk_sizes()."
            )
        if 0 in shape:
            raise ValueError(
                f"{what} is empty (shape {format_shape(shape)}); give one with at least one pixel."
            )
        if channel_axis is not None:
            if not -len(shape) <= channel_axis < len(shape):
                raise ValueError(
                    f"{what} has {len(shape)} axes (shape {format_shape(shape)}), so channel axis "
                    f"{channel_axis} does not exist; give one from {-len(shape)} to "
                    f"{len(shape) - 1}."
                )
            channel_axis %= len(shape)
        return cls(array, channel_axis)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, in the machine's byte order."""
        stored: np.dtype[Any] = np.dtype(self.array.dtype)
        return stored.newbyteorder("=")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without the channel axis: (..., Y, X)."""
        return tuple(
            int(size) for axis, size in enumerate(self.array.shape) if axis != self.channel_axis
        )

    @property
    def n_channels(self) -> int:
        """How many channels the array holds."""
        return 1 if self.channel_axis is None else int(self.array.shape[self.channel_axis])

    @property
    def in_memory(self) -> bool:
        """Whether reading costs nothing (memory-mapped files count as that)."""
        return isinstance(self.array, np.ndarray)

    def read(
        self,
        channels: Sequence[int],
        index: tuple[int, ...],
        rows: slice = WHOLE,
        columns: slice = WHOLE,
    ) -> list[NDArray[Any]]:
        """Some channels of one plane, each (Y, X) in the machine's byte order.

        What comes back may be a view of the user's array.
        """
        where: tuple[int | slice, ...] = (*index, rows, columns)
        axis = self.channel_axis
        if axis is None:
            return [self._at(where)] * len(channels)
        first, end = min(channels), max(channels) + 1
        if self.in_memory or end - first > 2 * len(set(channels)):
            return [self._at((*where[:axis], channel, *where[axis:])) for channel in channels]
        # Channels of a file mostly lie in the same chunks, so that one reading serves all.
        together = self._at((*where[:axis], slice(first, end), *where[axis:]))
        left = sum(isinstance(part, slice) for part in where[:axis])  # numbers drop their axis
        return list(np.moveaxis(together, left, 0)[[channel - first for channel in channels]])

    def _at(self, where: tuple[int | slice, ...]) -> NDArray[Any]:
        try:
            values = np.asarray(self.array[where])
        except MemoryError:
            raise
        except Exception as error:  # files and graphs of tasks raise anything
            if self.in_memory:
                raise
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(
                f"A part of the image could not be read ({said}); its file may be damaged or gone. "
                "Open it anew."
            ) from error
        return values.astype(self.dtype, copy=False)


def _refuse_what_is_no_array(array: Any, what: str) -> None:
    if hasattr(array, "group_keys") or hasattr(array, "array_keys"):
        keys = sorted(array.array_keys()) if hasattr(array, "array_keys") else []
        inside = f" (it holds {', '.join(keys)})" if keys else ""
        raise TypeError(f"{what} is a zarr group, not an array; open an array of it{inside}.")
    if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
        raise TypeError(
            f"{what} is a {type(array).__name__}, not an array; give a numpy, dask or zarr array, "
            "or a list with one array for each channel."
        )
    stages = [
        *(getattr(array, "filters", None) or ()),
        *(getattr(array, "compressors", None) or ()),
        getattr(array, "serializer", None),
    ]
    if any("pickle" in repr(stage).lower() for stage in stages):
        raise ValueError(
            f"{what} is stored with a pickle codec, which can run code when it is read; have it "
            "saved again without."
        )


def _refuse_dtype(array: Any, what: str) -> None:
    try:
        dtype = np.dtype(array.dtype)
    except TypeError:
        raise TypeError(
            f"{what} has values of type {array.dtype}; convert it to a numpy array first."
        ) from None
    advice = {
        "b": "convert it to numbers, e.g. astype('uint8'), or give it as mask prompt",
        "c": "give real numbers, e.g. its magnitude, numpy.abs(image)",
    }
    if dtype.kind not in "iuf":
        raise TypeError(
            f"{what} has values of type {dtype.name}; images are integers or floats: "
            f"{advice.get(dtype.kind, 'convert it to numbers first')}."
        )


def _of_channels(channel_axis: int | None) -> str:
    return "" if channel_axis is None else f" with channels along axis {channel_axis}"
