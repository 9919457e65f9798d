"""Regions of maps that are made by hand, and which of them are chosen."""

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_simmat.engine.object_regions import (
    MIN_PIXELS,
    ObjectMaps,
    best_regions,
    region_tree,
)
from napari_simmat.models.object_decoder import MEASURES, WIDTHS


def maps_of(inside: NDArray[np.bool_], depth: NDArray[np.float32]) -> ObjectMaps:
    """Maps of a plane without outlines, whose features are zero."""
    rows, columns = inside.shape
    nothing = np.zeros(inside.shape, np.float32)
    features = np.zeros((WIDTHS[-1], -(-rows // 2), -(-columns // 2)), np.float32)
    foreground = inside.astype(np.float32)
    return ObjectMaps(foreground, depth, nothing, nothing, np.full_like(depth, 4), features)


def two_that_touch() -> ObjectMaps:
    """Squares of 10 x 10 with a peak each, joined by a saddle of depth .45."""
    inside = np.zeros((16, 30), bool)
    inside[3:13, 3:13] = inside[3:13, 13:23] = True
    depth = np.where(inside, 0.35, 0).astype(np.float32)
    depth[6:10, 6:20] = 0.45
    depth[6:10, 6:10] = depth[6:10, 16:20] = 0.9
    return maps_of(inside, depth)


def test_region_that_a_level_divides_has_two_parts() -> None:
    tree = region_tree(two_that_touch())
    assert tree.parent.tolist() == [-1, 0, 0]
    assert tree.area.tolist() == [200, 100, 100]
    assert tree.measures.shape == (3, MEASURES)
    whole = tree.window(0)
    assert whole == (slice(3, 13), slice(3, 23))
    assert tree.mask(0, whole).all()
    left, right = sorted(tree.window(part)[1].start for part in (1, 2))
    assert (left, right) == (3, 13)


@pytest.mark.parametrize(
    ("chances", "chosen"),
    [
        ([0.9, 0.3, 0.3], [0]),
        ([0.5, 0.9, 0.8], [1, 2]),
        ([0.5, 0.4, 0.2], [0]),  # two of little chance promise less than one of some
        ([0.1, 0.1, 0.9], [2]),
        ([0.1, 0.1, 0.1], []),
    ],
)
def test_chances_tell_whether_to_divide(chances: list[float], chosen: list[int]) -> None:
    tree = region_tree(two_that_touch())
    assert best_regions(tree, np.array(chances, np.float32)).tolist() == chosen


def test_contact_divides_where_the_depth_does_not() -> None:
    inside = np.zeros((16, 30), bool)
    inside[3:13, 3:23] = True
    maps = maps_of(inside, np.where(inside, 0.6, 0).astype(np.float32))
    assert region_tree(maps).parent.tolist() == [-1]
    contact = np.zeros(inside.shape, np.float32)
    contact[3:13, 12:14] = 1
    assert region_tree(maps._replace(contact=contact)).parent.tolist() == [-1, 0, 0]


def test_region_that_nothing_divides_is_there_once() -> None:
    inside = np.zeros((20, 20), bool)
    inside[5:15, 5:15] = True
    row = np.minimum(np.arange(10), np.arange(10)[::-1]) / 5 + 0.2
    depth = np.zeros((20, 20), np.float32)
    depth[5:15, 5:15] = np.minimum(row[:, None], row)
    tree = region_tree(maps_of(inside, depth))
    assert tree.parent.tolist() == [-1]
    open_ground = tree.measures[0, -2]
    assert open_ground == 1  # it borders nothing else


def test_region_beside_another_borders_less_ground() -> None:
    tree = region_tree(two_that_touch())
    whole, *parts = tree.measures[:, -2]
    assert whole == 1
    assert all(0.5 < each < 1 for each in parts)


def test_specks_are_no_regions() -> None:
    inside = np.zeros((20, 20), bool)
    inside[3, 3 : 3 + MIN_PIXELS - 1] = True
    depth = np.where(inside, 0.9, 0).astype(np.float32)
    assert not len(region_tree(maps_of(inside, depth)).area)


def test_plane_without_foreground_has_no_region() -> None:
    empty = np.zeros((8, 8), np.float32)
    tree = region_tree(maps_of(empty > 0, empty))
    assert tree.measures.shape == (0, MEASURES)
    assert not len(best_regions(tree, np.zeros(0, np.float32)))


def test_measures_do_not_depend_on_the_place() -> None:
    maps = two_that_touch()
    rng = np.random.default_rng(0)
    maps = maps._replace(features=rng.normal(size=maps.features.shape).astype(np.float32))
    moved = ObjectMaps(
        *(np.roll(each, 4, axis=1) for each in maps[:5]), np.roll(maps.features, 2, axis=2)
    )
    first, second = region_tree(maps), region_tree(moved)
    order = [np.lexsort(each.measures.T) for each in (first, second)]
    assert np.allclose(first.measures[order[0]], second.measures[order[1]], atol=1e-6)
