import numpy as np
import pytest

from napari_simmat.engine.masks import (
    ObjectMask,
    connected_components,
    dilated,
    interior_point,
    interpolated_mask,
    iou,
    main_pieces,
    split_at_points,
)


def some_mask(shape: tuple[int, ...], share: float = 0.3) -> np.ndarray:
    return np.random.default_rng(len(shape)).random(shape) < share


@pytest.mark.parametrize("shape", [(7,), (9, 13), (4, 6, 5), (2, 3, 4, 5)])
def test_object_mask_gives_its_mask_back(shape):
    mask = some_mask(shape)
    voxels = ObjectMask.of(mask)
    whole = np.zeros(shape, dtype=bool)
    whole[voxels.region] = voxels.mask
    assert np.array_equal(whole, mask)
    assert voxels.size == mask.sum()


def test_object_mask_on_a_plane_keeps_its_box_alone():
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:9, 10:20] = some_mask((4, 10), 0.7)
    mask[5, 10] = mask[8, 19] = True
    voxels = ObjectMask.of(mask, (1, 2, 0, 0))
    assert voxels.corner == (1, 2, 5, 10)
    assert voxels.shape == (1, 1, 4, 10), "only the bounding box is kept"
    assert len(voxels.bits) == 5, "eight voxels to a byte"
    assert np.array_equal(voxels.on_plane((1, 2), (20, 30)), mask)
    assert not voxels.on_plane((1, 3), (20, 30)).any()
    assert voxels.planes() == [(1, 2)]
    assert ObjectMask.of(np.stack([mask, ~mask & False, mask])).planes() == [(0,), (2,)]


def test_object_mask_digest_tells_voxels_and_place():
    mask = some_mask((6, 6))
    assert ObjectMask.of(mask).digest == ObjectMask.of(mask.copy()).digest
    assert ObjectMask.of(mask).digest != ObjectMask.of(mask, (0, 1)).digest
    assert ObjectMask.of(mask).digest != ObjectMask.of(~mask).digest
    with pytest.raises(ValueError, match="mask is empty"):
        ObjectMask.of(np.zeros((4, 4), dtype=bool))


def two_touching_discs() -> np.ndarray:
    y, x = np.indices((40, 70))
    return ((y - 20) ** 2 + (x - 20) ** 2 <= 225) | ((y - 20) ** 2 + (x - 48) ** 2 <= 225)


def test_split_at_points_cuts_touching_discs_at_the_neck():
    mask = two_touching_discs()
    left, right = split_at_points(mask, [(20, 20), (20, 50)])
    assert np.array_equal(left | right, mask)
    assert not (left & right).any()
    assert np.nonzero(left)[1].max() in range(32, 36)
    assert np.nonzero(right)[1].min() in range(33, 37)


def test_connected_components_are_the_largest_first():
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:4, 2:4] = True
    mask[5:9, 10:18] = True
    assert [piece.size for piece in connected_components(mask)] == [32, 4]
    largest, smallest = connected_components(mask, (7, 100))
    assert largest == ObjectMask.of(mask[5:9, 10:18], (12, 110))
    assert smallest == ObjectMask.of(mask[2:4, 2:4], (9, 102))


def test_main_pieces_keep_large_and_clicked_ones():
    mask = np.zeros((12, 30), bool)
    mask[1:9, 1:9] = mask[9, 9] = True  # they touch at a corner: 65 pixels
    mask[2:6, 12:17] = mask[2, 20] = mask[2, 25] = True
    main, left_out = main_pieces(mask, [(2, 25), (0, 0)])
    expected = mask.copy()
    expected[2, 20] = False
    assert np.array_equal(main, expected)
    assert left_out == 1


@pytest.mark.parametrize(
    ("regions", "points", "at_first"),
    [
        # A piece that is apart goes with the first; one that touches at a corner, with its own.
        ([np.s_[2:6, 2:20], np.s_[8:10, 30:34]], [(3, 3), (3, 18)], True),
        ([np.s_[1:4, 1:9], np.s_[4:7, 9:12]], [(2, 2), (2, 7)], False),
    ],
)
def test_split_at_points_keeps_all_pieces(regions, points, at_first):
    mask = np.zeros((12, 40), dtype=bool)
    for region in regions:
        mask[region] = True
    assert len(connected_components(mask)) == 1 + at_first
    first, second = split_at_points(mask, points)
    assert (first if at_first else second)[regions[1]].all()
    assert np.array_equal(first ^ second, mask)


@pytest.mark.parametrize(
    ("points", "words"),
    [([(0, 0), (20, 50)], "outside the object"), ([(20, 20)] * 2, "same voxel")],
)
def test_split_at_points_that_cannot_split_are_refused(points, words):
    with pytest.raises(ValueError, match=words):
        split_at_points(two_touching_discs(), points)


def test_interior_point_is_the_deepest_pixel():
    mask = np.zeros((30, 40), bool)
    mask[3:12, 5:30] = True
    assert interior_point(mask)[0] == 7
    mask[:] = False
    mask[0:9, 0:9] = True  # the image's border is the mask's as well
    assert interior_point(mask) == (4, 4)


def test_interpolated_mask_lies_between_two_shapes():
    y, x = np.indices((60, 90))
    small, large = np.hypot(y - 30, x - 30) < 8, np.hypot(y - 30, x - 30) < 16
    assert iou(interpolated_mask(small, large, 0.5), np.hypot(y - 30, x - 30) < 12) > 0.95
    assert np.array_equal(interpolated_mask(small, large, 0.0), small)
    assert np.array_equal(interpolated_mask(small, large, 1.0), large)
    moved = np.hypot(y - 30, x - 70) < 8
    assert iou(interpolated_mask(small, moved, 0.25), np.hypot(y - 30, x - 40) < 8) > 0.95


def test_signed_distance_takes_the_border_for_no_outline():
    strip = np.zeros((20, 40), bool)
    strip[:, :10] = True
    wider = np.zeros((20, 40), bool)
    wider[:, :20] = True
    assert np.array_equal(interpolated_mask(strip, strip, 0.5), strip)
    assert interpolated_mask(strip, wider, 0.5)[:, :15].all()
    whole = np.ones((20, 40), bool)
    assert interpolated_mask(whole, whole, 0.3).all()


def test_dilated_reaches_so_far():
    mask = np.zeros((21, 21), bool)
    mask[10, 10] = True
    assert dilated(mask, 3).sum() == 29
    assert dilated(mask, 3, (3.0, 1.0)).sum() == 9
    assert dilated(mask, 100).all()
