"""An image as the model reads it, independent of layers, and what tells it from others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_simmat.engine.coordinates import AxisOrder, transposed_view

_SAMPLE = 1 << 16
"""Number of values that identify an image."""


@dataclass(frozen=True, eq=False)
class ImageValue:
    """An image as the model reads it, independent of its layers.

    Parameters
    ----------
    arrays
        One array (..., Y, X), or one for each of the model's channels, in its order.
    names
        The model's channel names, if `arrays` is a list.
    token
        Equal for the same channels of the same layers with the same data, in the same view and
        with the same pixel shape.
    whole
        The image in its usual view, if this is a side view.
    pixel_size
        Height and width of a pixel in this view; None until known.
    measured
        What tables call the channel of each array; empty in a side view.
    """

    arrays: Any
    names: tuple[str, ...] | None
    token: tuple[object, ...]
    whole: ImageValue | None = None
    pixel_size: tuple[float, float] | None = None
    measured: tuple[str, ...] = ()

    @property
    def usual(self) -> ImageValue:
        """The image in its usual view; normalization is measured on it."""
        return self if self.whole is None else self.whole

    @property
    def all_arrays(self) -> list[Any]:
        """The arrays as a list."""
        several = isinstance(self.arrays, (list, tuple))
        return list(self.arrays) if several else [self.arrays]

    @property
    def in_memory(self) -> bool:
        """Whether all arrays are in memory, so that any view of a plane is free."""
        return all(isinstance(array, np.ndarray) for array in self.all_arrays)

    def seen(self, order: AxisOrder, spacing: Sequence[float]) -> ImageValue:
        """The image in another view; nothing is read or copied.

        Parameters
        ----------
        order
            Axis order of the view.
        spacing
            Size of a pixel along each of its axes.
        """
        whole = self.usual
        pixel_size = (float(spacing[-2]), float(spacing[-1]))
        ratio = float(f"{pixel_size[0] / pixel_size[1]:.6g}")  # independent of units
        token = (*whole.token, order, ratio)
        if not order:
            return ImageValue(whole.arrays, whole.names, token, whole, pixel_size)
        seen = [transposed_view(array, order) for array in whole.all_arrays]
        arrays = seen if isinstance(whole.arrays, (list, tuple)) else seen[0]
        return ImageValue(arrays, whole.names, token, whole, pixel_size)


def identifying_bytes(array: Any, name: str) -> Iterator[bytes]:
    """Shape, type and a sample of the values of an array.

    One that is not in memory is not read; its name stands for the values.
    """
    yield repr((tuple(array.shape), str(array.dtype))).encode()
    if isinstance(array, np.ndarray):
        most = max(1, int(_SAMPLE ** (1 / array.ndim)))
        sample = array[tuple(slice(None, None, max(1, size // most)) for size in array.shape)]
        yield np.ascontiguousarray(sample).tobytes()
    else:
        yield name.encode()
