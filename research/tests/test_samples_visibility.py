import numpy as np
import pytest
from scipy import ndimage as ndi

from simmat_research.samples import MIN_BORDER_CONTRAST, border_contrast, visible_labels


@pytest.fixture
def discs():
    y, x = np.mgrid[:96, :160]
    labels = np.zeros((96, 160), np.int32)
    for number, center in enumerate((30, 80, 130), start=1):
        labels[np.hypot(y - 48, x - center) < 18] = number
    return labels


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return ndi.gaussian_filter(image.astype(float), 0.7) + noise


def test_contrast_of_an_equal_object_is_low(discs):
    contrast = border_contrast(noisy(discs == 2, 0.1), discs)
    assert contrast[2] > 4
    assert (contrast[[0, 1, 3]] < MIN_BORDER_CONTRAST).all()


def test_visible_labels_drop_the_invisible(discs):
    seen = visible_labels(noisy(discs != 2, 0.1) * (discs != 0), discs)
    np.testing.assert_array_equal(seen, np.select([discs == 1, discs == 2, discs == 3], [1, 2, 3]))
    kept = visible_labels(noisy(discs == 3, 0.1), discs)
    np.testing.assert_array_equal(kept, discs == 3)


def test_contrast_has_no_units(discs):
    image = noisy(discs > 0, 0.2)
    np.testing.assert_allclose(
        border_contrast(image, discs), border_contrast(33000 - 4000 * image, discs), rtol=1e-2
    )


def test_contrast_of_a_line_alone_is_a_border(discs):
    ring = (discs > 0) & ~ndi.binary_erosion(discs > 0, iterations=2)
    assert (border_contrast(noisy(ring, 0.1), discs)[1:] > MIN_BORDER_CONTRAST).all()


def test_contrast_of_a_ring_takes_both_borders(discs):
    y, x = np.mgrid[:96, :160]
    away = np.hypot(y - 48, x - 80)
    ring = ((away > 20) & (away < 32)).astype(np.int32)
    image = noisy(np.select([away < 20, away < 32], [0, 0.5], 1), 0.02)
    assert border_contrast(image, ring)[1] > MIN_BORDER_CONTRAST


def test_contrast_takes_the_channel_that_shows_it(discs):
    image = np.stack([noisy(discs * 0, 0.1), noisy(discs > 0, 0.1)], axis=-1)
    assert (border_contrast(image, discs)[1:] > MIN_BORDER_CONTRAST).all()
