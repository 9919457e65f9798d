"""An image with its axes in another order: where everything lies, and what is read."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_simmat.engine.coordinates import axis_order, inverse_order, reordered, transposed_view
from napari_simmat.engine.masks import ObjectMask

SHAPE = (3, 4, 5, 6)
ORDERS = [axis_order(axes, 4) for axes in [(0, 1), (0, 2), (3, 0), (1, 2), (3, 1), (2, 3)]]


class Noting:
    """An array that takes slices only, and notes how much of it is read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.read = 0

    def __getitem__(self, index: Any) -> np.ndarray:
        part = self.values[index]
        self.read += part.size
        return part


def test_axis_order_ends_with_the_axes_of_the_plane():
    assert axis_order((2, 0), 3) == axis_order((0, 2), 3) == (1, 0, 2)
    assert axis_order((0, 1), 3) == (2, 0, 1)
    assert axis_order((2, 1), 3) == axis_order((0, 1), 2) == (), "the usual one"
    assert axis_order((3, 1), 4) == (0, 2, 1, 3)


@pytest.mark.parametrize("order", ORDERS)
def test_inverse_order_undoes_an_order(order):
    assert reordered(reordered("tzyx", order), inverse_order(order)) == tuple("tzyx")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "alike"])
def test_transposed_view_equals_numpys_transpose(kind, order):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    made = {
        "numpy": lambda: values,
        "dask": lambda: da.from_array(values, chunks=2),
        "zarr": lambda: zarr.array(values, chunks=(2, 2, 2, 2)),
        "alike": lambda: Noting(values),
    }
    array = made[kind]()
    seen, wanted = transposed_view(array, order), values.transpose(order or range(4))
    assert seen.shape == wanted.shape
    assert seen.dtype == wanted.dtype
    for index in [(1, 2), (slice(0, 2), 1), (0, slice(1, 3), slice(None), 2), (1, 1, 1, 1), 2]:
        assert np.array_equal(np.asarray(seen[index]), wanted[index]), index


def test_transposed_view_of_a_lazy_array_reads_no_more():
    array = Noting(np.arange(np.prod(SHAPE)).reshape(SHAPE))
    plane = transposed_view(array, axis_order((0, 3), 4))[2, 4]
    assert np.array_equal(plane, array.values[:, 2, 4])
    assert array.read == plane.size


def test_object_mask_is_the_same_in_every_view():
    mask = np.random.default_rng(0).random(SHAPE) > 0.7
    voxels = ObjectMask.of(mask[1:, 1:], (1, 1, 0, 0))
    for order in ORDERS:
        seen = voxels.transposed(order)
        whole = np.zeros(reordered(SHAPE, order), bool)
        whole[seen.region][seen.mask] = True
        there = np.zeros(SHAPE, bool)
        there[1:, 1:] = mask[1:, 1:]
        assert np.array_equal(whole, there.transpose(order or range(4)))
        assert seen.transposed(inverse_order(order)) == voxels
