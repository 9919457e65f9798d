import numpy as np
import pytest

from napari_simmat.engine.measuring.size_distribution import SizeDistribution


@pytest.mark.parametrize("axes", [2, 3])
def test_shares_are_of_area_or_volume_not_of_numbers(axes):
    # 1000 dust grains beside two that are ten times as wide, and one a hundred times
    diameters = [1.0] * 1000 + [10.0] * 2 + [100.0]
    found = SizeDistribution.of(diameters, "um", axes)
    # Of 1000 + 200 + 10,000 areas dust is 9 %, of volumes less than a thousandth.
    assert found[:3] == ((10.0, 100.0, 100.0) if axes == 2 else (100.0, 100.0, 100.0))


def test_each_is_a_diameter_up_to_which_the_share_lies():
    diameters = np.random.default_rng(0).lognormal(2, 0.5, 777)
    found = SizeDistribution.of(diameters, "nm", 3)
    for share, limit in zip((0.1, 0.5, 0.9), found[:3], strict=True):
        assert limit in diameters
        volume = diameters**3
        assert volume[diameters <= limit].sum() >= share * volume.sum()
        assert volume[diameters < limit].sum() < share * volume.sum()


@pytest.mark.skipif(np.__version__ < "2", reason="weighted quantiles came with NumPy 2")
def test_it_is_the_weighted_quantile_of_numpy():
    diameters = np.random.default_rng(1).gamma(3, 2, 500)
    theirs = np.quantile(diameters, (0.1, 0.5, 0.9), weights=diameters**2, method="inverted_cdf")
    np.testing.assert_array_equal(SizeDistribution.of(diameters, "px", 2)[:3], theirs)


def test_sizes_are_turned_into_diameters():
    discs = [np.pi / 4 * d**2 for d in (1, 2, 3)]
    balls = [np.pi / 6 * d**3 for d in (1, 2, 3)]
    for sizes, axes in ((discs, 2), (balls, 3)):
        found = SizeDistribution.of_sizes(sizes, "um", axes)
        np.testing.assert_allclose(found[:3], SizeDistribution.of((1, 2, 3), "um", axes)[:3])


def test_nothing_has_none_and_unknown_sizes_do_not_count():
    assert SizeDistribution.of([], "um", 2) is None
    assert SizeDistribution.of([np.nan, 0.0], "um", 2) is None
    found = SizeDistribution.of([np.nan, 4.0], "um", 2)
    assert found.sentence == "D10 4, D50 4, D90 4 um by area"
