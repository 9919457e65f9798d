"""An image seen with its axes in another order, as a side view of a stack shows it.

A plane of such a view is rows and columns along any two axes of the image; the others lie behind
it. Nothing is copied, and nothing is read before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Order = tuple[int, ...]
"""For each axis of a view the axis of the image; empty for the image as it is."""


def order_of(plane_axes: Iterable[int], ndim: int) -> Order:
    """The view whose rows and columns lie along two axes of an image.

    Rows take the first of them and columns the second: which of them is drawn across does not
    matter to what a plane holds. The other axes keep their order.
    """
    rows_columns = sorted(plane_axes)
    order = (*(axis for axis in range(ndim) if axis not in rows_columns), *rows_columns)
    return () if order == tuple(range(ndim)) else order


def inverse(order: Order) -> Order:
    """The order that leads back from a view to the image."""
    return tuple(order.index(axis) for axis in range(len(order)))


def reordered(values: Iterable[Any], order: Order) -> tuple[Any, ...]:
    """One value for each axis of an image -> one for each axis of a view."""
    values = tuple(values)
    return tuple(values[axis] for axis in order) if order else values


def turned(array: Any, order: Order) -> Any:
    """A view of an array (numpy, dask, zarr or alike) with its axes in another order."""
    if not order:
        return array
    if isinstance(array, np.ndarray) or type(array).__module__.startswith("dask"):
        return array.transpose(order)
    return Turned(array, order)


class Turned:
    """An array that takes slices, with its axes in another order; reads only what is asked for.

    Parameters
    ----------
    array
        Has ``shape`` and ``dtype`` and takes an index of whole numbers and slices.
    order
        As `numpy.transpose` has it.
    """

    def __init__(self, array: Any, order: Order) -> None:
        self._array, self._order = array, order
        self.shape = reordered((int(size) for size in array.shape), order)
        self.dtype = array.dtype
        self.ndim = len(order)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        index = index if isinstance(index, tuple) else (index,)
        whole = (*index, *(slice(None),) * (self.ndim - len(index)))
        values = np.asarray(self._array[reordered(whole, inverse(self._order))])
        # Whole numbers drop their axis: what is left lies in the order of the array.
        left = [axis for axis, part in zip(self._order, whole, strict=True) if _is_slice(part)]
        return values.transpose([sorted(left).index(axis) for axis in left])


def _is_slice(part: object) -> bool:
    return isinstance(part, slice)
