"""Masks to outlines and back: every pixel, valid polygons, areas that are pixel counts."""

import numpy as np
import pytest
import shapely

from napari_simmat.engine.files.polygons import contours, polygons
from napari_simmat.engine.outlines import mask_of


def masks() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    pinched = ring.copy()
    pinched[0, 0] = False  # the hole and the outside touch at a corner
    island = np.ones((9, 9), bool)
    island[1:8, 1:8] = False
    island[3:6, 3:6] = True
    island[4, 4] = False
    noise = [random.random((12, 17)) < share for share in (0.3, 0.5, 0.6, 0.8)]
    return [ring, pinched, island, np.ones((1, 1), bool), np.eye(4, dtype=bool), *noise]


@pytest.mark.parametrize("number", range(9))
def test_mask_of_either_outline_is_exact(number):
    mask = masks()[number]
    corner = (7, 3)
    whole = np.zeros((40, 50), bool)
    whole[7 : 7 + mask.shape[0], 3 : 3 + mask.shape[1]] = mask
    rings = [ring for polygon in polygons(mask, corner) for ring in polygon]
    for lines in (contours(mask, corner), rings):
        found = mask_of(lines, whole.shape)
        drawn, (top, left) = found
        back = np.zeros_like(whole)
        back[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
        np.testing.assert_array_equal(back, whole)


@pytest.mark.parametrize("number", range(9))
def test_polygons_are_valid_and_have_the_area_of_the_pixels(number):
    mask = masks()[number]
    shape = shapely.MultiPolygon([(outer, holes) for outer, *holes in polygons(mask)])
    assert shape.is_valid, shapely.is_valid_reason(shape)
    assert shape.area == mask.sum()


def test_polygons_of_noise_are_valid_and_cover_it():
    """Hundreds of outlines and holes that touch each other."""
    noise = np.random.default_rng(0).random((75, 100)) < 0.5
    parts = polygons(noise)
    assert sum(shapely.Polygon(outer, holes).area for outer, *holes in parts) == noise.sum()
    assert shapely.MultiPolygon([(outer, holes) for outer, *holes in parts]).is_valid
