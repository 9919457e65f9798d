"""Objects of tiles become objects of the plane."""

from itertools import pairwise

import numpy as np
import pytest
import zarr

from napari_simmat.engine.everything.candidates import Instances, PixelBox
from napari_simmat.engine.everything.stitching import Stitcher, tile_boxes
from tests.scripted_predictor import all_match


@pytest.mark.parametrize(("shape", "side", "overlap"), [((100, 250), 64, 16), ((64, 65), 64, 10)])
def test_tile_boxes_cover_the_plane_and_share_enough(shape, side, overlap):
    seen = np.zeros(shape, int)
    tiles = tile_boxes(shape, side, overlap)
    for tile in tiles:
        assert tile.size == (min(side, shape[0]), min(side, shape[1]))
        seen[tile.slices] += 1
    assert seen.min() == 1
    columns = sorted({(tile.x0, tile.x1) for tile in tiles})
    for (_, end), (start, _) in pairwise(columns):
        assert end - start >= overlap


def test_tile_boxes_of_a_small_plane_are_one():
    assert tile_boxes((30, 64), 64, 16) == [PixelBox(0, 0, 30, 64)]


def stitched(truth: np.ndarray, labels, side: int = 32, overlap: int = 12, **options: bool):
    """Tiles that see the truth exactly, each with ids of its own."""
    stitcher = Stitcher(labels)
    for tile in tile_boxes(truth.shape, side, overlap):
        part = truth[tile.slices]
        ids = [one for one in np.unique(part) if one]
        own = np.zeros(part.shape, np.uint32)
        for number, one in enumerate(ids, 1):
            own[part == one] = number
        stitcher.add(Instances(own, np.full(len(ids), 0.8, np.float32)), tile)
    return stitcher.finish(**options)


@pytest.fixture
def truth():
    """(90, 110): small discs all over, a bar through many tiles, a U around a corner of seams."""
    labels = np.zeros((90, 110), int)
    y, x = np.mgrid[:90, :110]
    for number, (cy, cx) in enumerate(np.ndindex(5, 6), 1):
        labels[(y - 12 - 17 * cy) ** 2 + (x - 10 - 18 * cx) ** 2 <= 25] = number
    labels[0:3, :] = 40
    labels[24:70, 17:20] = labels[24:70, 85:88] = labels[67:70, 17:88] = 41
    return labels


@pytest.mark.parametrize("in_a_file", [False, True])
def test_stitcher_of_tiles_gives_what_the_whole_gives(truth, in_a_file, tmp_path):
    labels = np.zeros(truth.shape, np.uint32)
    if in_a_file:
        labels = zarr.create_array(
            tmp_path / "labels.zarr", shape=truth.shape, chunks=(32, 32), dtype=np.uint32
        )
    scores = stitched(truth, labels)
    found = np.asarray(labels[:]).astype(int)
    assert all_match(found, truth, 0.999)
    assert set(np.unique(found)) == set(range(len(scores) + 1))
    np.testing.assert_allclose(scores, 0.8, rtol=1e-6)


def test_stitcher_drops_objects_at_the_border_if_asked(truth):
    labels = np.zeros(truth.shape, np.uint32)
    stitched(truth, labels, keep_border=False)
    inner = np.where(truth == 40, 0, truth)
    assert all_match(labels, inner, 0.999)


LEFT, RIGHT = PixelBox(0, 0, 20, 20), PixelBox(0, 10, 20, 30)


def one(box: tuple[int, int, int, int], score: float) -> Instances:
    labels = np.zeros((20, 20), np.uint32)
    labels[box[0] : box[2], box[1] : box[3]] = 1
    return Instances(labels, np.array([score], np.float32))


@pytest.mark.parametrize(
    ("first", "second", "areas", "scores"),
    [
        # The right tile begins at column 10 of the left one.
        (((5, 2, 15, 18), 0.7), ((4, 0, 15, 8), 0.9), [160], [0.7]),  # whole, and the same cut
        (((5, 12, 16, 20), 0.9), ((5, 2, 15, 18), 0.7), [160], [0.7]),  # cut, then whole
        (((5, 2, 15, 20), 0.9), ((5, 0, 15, 18), 0.7), [260], [0.8]),  # two parts
        (((5, 2, 15, 13), 0.9), ((5, 3, 15, 15), 0.7), [110, 120], [0.9, 0.7]),  # neighbors
        (((0, 16, 20, 20), 0.9), ((5, 2, 9, 14), 0.7), [64, 48], [0.9, 0.7]),  # part and whole
    ],
)
def test_stitcher_joins_parts_and_prefers_whole_objects(first, second, areas, scores):
    labels = np.zeros((20, 30), np.uint32)
    stitcher = Stitcher(labels)
    stitcher.add(one(*first), LEFT)
    stitcher.add(one(*second), RIGHT)
    assert stitcher.finish().tolist() == pytest.approx(scores)
    assert np.bincount(labels.ravel())[1:].tolist() == areas


def test_stitcher_of_nothing_is_empty():
    stitcher = Stitcher(np.zeros((20, 30), np.uint32))
    stitcher.add(Instances(np.zeros((20, 20), np.uint32), np.empty(0, np.float32)), LEFT)
    assert stitcher.finish().shape == (0,)
