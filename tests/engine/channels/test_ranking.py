"""Channels that show something are told from noise, however sparse they are."""

import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_simmat.engine.channels.ranking import BEST, rank_channels_job
from napari_simmat.progress import finish

SIDE = 200


def discs(count=60, radius=5, seed=0):
    """Cells, 0 or 1."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE))
    shown = np.zeros((SIDE, SIDE))
    for row, column in rng.uniform(0, SIDE, (count, 2)):
        shown[(y - row) ** 2 + (x - column) ** 2 < radius**2] = 1
    return shown


def counts(rate, seed):
    return np.random.default_rng(seed).poisson(rate)


def numbers(channels):
    return [each.number for each in finish(rank_channels_job(channels))]


def test_nuclei_go_before_sparse_counts_and_hot_pixels():
    """As in imaging mass cytometry, where nine of ten values are zero."""
    hot = counts(np.full((SIDE, SIDE), 0.08), 9)
    hot[::37, ::41] = 500
    few = gaussian_filter(discs(8, seed=1), 3)
    channels = [
        *(counts(np.full((SIDE, SIDE), 0.08), seed) for seed in range(4)),
        hot,
        counts(0.4 * few + 0.06, 5),
        counts(3.0 * gaussian_filter(discs(), 1) + 0.03, 6),  # nuclei
        counts(1.5 * gaussian_filter(discs(), 1) + 0.03, 7),  # the same, weaker
        counts(1.0 * few + 0.05, 8),
    ]
    assert all((channel == 0).mean() > 0.6 for channel in channels)
    assert numbers(np.stack(channels))[:2] == [6, 7]


def test_channels_that_look_alike_leave_room_for_another():
    rng = np.random.default_rng(0)
    nuclei, membranes = 100 * discs(), 50 * discs(20, 20, seed=3)
    noise = rng.normal(0, 2, (5, SIDE, SIDE))
    channels = noise + np.stack([nuclei, 0 * nuclei, 0.9 * nuclei, membranes, 0.8 * nuclei])
    assert set(numbers(channels)[:2]) == {0, 3}


def test_channels_that_look_alike_go_before_noise():
    noise = np.random.default_rng(0).normal(0, 2, (6, SIDE, SIDE))
    noise[[1, 3, 4]] += np.multiply.outer((50, 30, 40), discs())
    assert numbers(noise) == [1, 4, 3]


@pytest.mark.parametrize("shape", [(4, SIDE, SIDE), (4, 3, SIDE, SIDE)])
def test_middle_plane_counts_and_pictures_show_it(shape):
    channels = np.zeros(shape, np.uint16)
    channels[2, ..., :, :] = (1000 * discs()).astype(np.uint16)
    for array in (channels, da.from_array(channels)):
        ranked = finish(rank_channels_job(array))
        assert (len(ranked), ranked[0].number) == (BEST, 2)
        assert ranked[0].picture.dtype == np.uint8
        assert ranked[0].picture.max() > 200
        assert ranked[1].picture.max() == ranked[1].picture.min()


def test_gaps_and_constant_channels_are_no_structure():
    channels = np.full((4, SIDE, SIDE), np.nan, np.float32)
    channels[1] = 5
    channels[3] = discs()
    channels[3, :9] = np.inf
    assert numbers(channels)[0] == 3
