"""Channels that are shifted against each other."""

import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_simmat.engine.channels.registration import register_channels_job, shift_channel
from napari_simmat.progress import finish


def rig(shift, dtype=np.uint16):
    """Two sensors of different values on the same disks; the second is displaced."""
    y, x = np.mgrid[:90, :100]
    centers = ((20, 30), (60, 25), (45, 70), (70, 80))
    disks = sum(((y - cy) ** 2 + (x - cx) ** 2 < 90) * 1.0 for cy, cx in centers)
    noise = np.random.default_rng(0).normal(0, 0.03, (2, 90, 100))
    one, other = 100 + 900 * gaussian_filter(disks, 1), 700 - 500 * gaussian_filter(disks, 1)
    away = (-shift[0], -shift[1])
    return np.stack([one, shift_channel(other, away)] + 500 * noise).astype(dtype)


@pytest.mark.parametrize("shift", [(0, 0), (3, -4), (-2.5, 5.5)])
def test_register_channels_finds_the_shift(shift):
    fixed, moved = finish(register_channels_job(rig(shift)))
    assert fixed[:2] == (0, 0)
    assert moved[:2] == pytest.approx(shift, abs=0.3)
    assert moved.after >= moved.before
    assert moved.after > 0.8
    other = finish(register_channels_job(rig(shift), reference=1))
    assert other[0][:2] == pytest.approx((-shift[0], -shift[1]), abs=0.3)


def test_register_channels_leaves_what_has_no_edges():
    image = rig((3, 3), np.float32)
    image[1] = np.nan
    assert finish(register_channels_job(image))[1] == (0, 0, 0, 0)


@pytest.mark.parametrize("wrap", [np.asarray, lambda a: da.from_array(a, chunks=(1, 2, 3))])
def test_shift_channel_moves_down_and_right(wrap):
    channel = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    moved = shift_channel(wrap(channel), (1, 2))
    assert moved.dtype == np.uint8
    assert np.array_equal(np.asarray(moved)[:, 1:, 2:], channel[:, :-1, :-2])
    assert np.array_equal(np.asarray(moved)[:, 0, 2:], channel[:, 0, :-2])
    half = np.asarray(shift_channel(wrap(channel), (0, 0.5)))
    assert np.array_equal(half[:, :, 1:], np.rint((channel[:, :, 1:] - 0.5).astype(float)))
