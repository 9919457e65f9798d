"""Channels that are shifted against each other."""

import sys

import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.ndimage import shift as shifted

from napari_simmat.engine.channels.registration import (
    IDENTITY,
    ChannelMotion,
    farthest_shift,
    matrix_of_shift,
    move_channel,
    register_channels_job,
)
from napari_simmat.progress import finish
from tests.nightly import nightly_but


def rig(shift, dtype=np.uint16):
    """Two sensors of different values on the same disks; the second is displaced."""
    y, x = np.mgrid[:90, :100]
    centers = ((20, 30), (60, 25), (45, 70), (70, 80))
    disks = sum(((y - cy) ** 2 + (x - cx) ** 2 < 90) * 1.0 for cy, cx in centers)
    noise = np.random.default_rng(0).normal(0, 0.03, (2, 90, 100))
    one, other = 100 + 900 * gaussian_filter(disks, 1), 700 - 500 * gaussian_filter(disks, 1)
    away = (-shift[0], -shift[1])
    moved = shifted(other, away, order=1, mode="nearest")
    return np.stack([one, moved] + 500 * noise).astype(dtype)


@pytest.mark.parametrize("shift", [(0, 0), (3, -4), (-2.5, 5.5)])
def test_register_channels_finds_the_shift(shift):
    fixed, moved = finish(register_channels_job(rig(shift)))
    assert fixed.matrix == IDENTITY
    assert moved.shift((90, 100)) == pytest.approx(shift, abs=0.3)
    assert moved.after >= moved.before
    assert moved.after > 0.8
    assert moved.residual < 0.5
    other = finish(register_channels_job(rig(shift), reference=1))[0]
    assert other.shift((90, 100)) == pytest.approx((-shift[0], -shift[1]), abs=0.3)


def test_register_channels_leaves_what_has_no_edges():
    image = rig((3, 3), np.float32)
    image[1] = np.nan
    found = finish(register_channels_job(image))[1]
    assert found == ChannelMotion(IDENTITY, 0, 0, 0, None, 0)
    assert not found.is_sure


def test_shift_between_bands_is_noticed():
    assert farthest_shift(list(rig((3, -4)))) == (1, pytest.approx(5, abs=0.4))
    assert farthest_shift(list(rig((0, 0)))) == (0, 0.0)
    other = np.random.default_rng(1).normal(size=(90, 100))
    assert farthest_shift([*rig((3, -4)), other]) == (1, pytest.approx(5, abs=0.4))
    assert farthest_shift([rig((0, 0))[0], other]) == (0, 0.0), "other content is no shift"


@pytest.mark.parametrize("wrap", [np.asarray, lambda a: da.from_array(a, chunks=(1, 2, 3))])
def test_moved_channel_is_nan_where_it_has_none(wrap):
    channel = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    moved = move_channel(wrap(channel), matrix_of_shift(1, 2))
    assert moved.dtype == np.float32
    moved = np.asarray(moved)
    assert np.array_equal(moved[:, 1:, 2:], channel[:, :-1, :-2])
    assert np.isnan(moved[:, 0]).all()
    assert np.isnan(moved[:, :, :2]).all()
    half = np.asarray(move_channel(wrap(channel), matrix_of_shift(0, 0.5)))
    assert np.array_equal(half[:, :, 1:], channel[:, :, 1:] - 0.5)


def test_channel_that_stays_keeps_its_type():
    channel = np.arange(12, dtype=np.uint32).reshape(3, 4)
    assert move_channel(channel, IDENTITY) is channel
    assert move_channel(channel, matrix_of_shift(1, 0)).dtype == np.float64


def turned(shape, degrees=1.0, scale=1.01, shift=(3.0, -4.0)):
    """(2, 3), from a pixel of the reference to that of a camera that is turned and nearer."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = scale * np.array([[cos, sin], [-sin, cos]])
    middle = (np.array(shape) - 1) / 2
    return np.column_stack([turn, middle - turn @ middle + shift])


def seen_by(band, matrix):
    """What a camera sees of a band: the content of pixel p at the place of the matrix."""
    back = np.linalg.inv(matrix[:, :2])
    return affine_transform(band.astype(float), back, -back @ matrix[:, 2], order=3, mode="reflect")


def errors(motion, matrix, shape):
    """Pixels between a motion and the true one, over the image."""
    points = np.stack(
        [axis.ravel() for axis in np.mgrid[8 : shape[0] - 8 : 9, 8 : shape[1] - 8 : 9]]
    )
    found = np.array(motion.matrix)
    away = (found - matrix)[:, :2] @ points + (found - matrix)[:, 2:]
    return np.hypot(*away)


@pytest.mark.parametrize(
    ("kind", "scale"), nightly_but((("rigid", 1.0), ("affine", 1.01)), ("affine", 1.01))
)
def test_turns_and_scales_of_real_bands_are_found(shared_image, kind, scale):
    """Three bands of a real scene, the others turned by a degree, one percent larger."""
    pytest.importorskip("SimpleITK")
    bands = shared_image("multispectral4_sentinel2.tif")[:3, :200, :200]
    matrices = [turned(bands[0].shape, d, scale, s) for d, s in ((1, (3, -4)), (-1, (-5.5, 2)))]
    others = [seen_by(b, m) for b, m in zip(bands[1:], matrices, strict=True)]
    first, *found = finish(register_channels_job([bands[0], *others], motion=kind))
    assert first == ChannelMotion(IDENTITY, pytest.approx(1), pytest.approx(1))
    assert found[0].turn == pytest.approx(1, abs=0.05), "back, counterclockwise"
    for motion, matrix in zip(found, matrices, strict=True):
        assert errors(motion, matrix, bands[0].shape).max() < 0.3
        assert motion.residual < 0.3 < 3 < motion.distance
        assert motion.is_sure
        assert abs(motion.turn) == pytest.approx(1, abs=0.05)
        assert motion.scale == pytest.approx(1 / scale, abs=0.001)
    again = finish(register_channels_job([bands[0], *others], motion=kind))
    assert again == [first, *found]


def test_wide_motions_need_simpleitk(monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ValueError, match="install it"):
        finish(register_channels_job(rig((3, -4)), motion="affine"))


def test_missing_pixels_are_no_edges():
    image = rig((3, -4), np.float32)
    image[1, :, :30] = np.nan
    moved = finish(register_channels_job(image))[1]
    assert moved.shift(image.shape[1:]) == pytest.approx((3, -4), abs=0.3)
