import numpy as np
import pytest
import tifffile

from napari_simmat.io.image_file import LazyArray
from napari_simmat.io.readers import read_image

SIDE = 1200


class Counted:
    """An array that counts how often it is read."""

    def __init__(self, array: np.ndarray, chunks: tuple[int, ...]) -> None:
        self.array, self.chunks, self.reads = array, chunks, 0
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, where):
        self.reads += 1
        return self.array[where]


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(0, 9, (2, SIDE, SIDE)).astype(np.uint8)


def test_plane_in_one_chunk_is_unpacked_once(volume):
    stored = Counted(volume, (1, SIDE, SIDE))
    lazy = LazyArray(stored, "a.tif")
    for top in range(0, SIDE, 300):
        part = lazy[0, top : top + 300, ::2]
        np.testing.assert_array_equal(part, volume[0, top : top + 300, ::2])
    assert stored.reads == 1
    np.testing.assert_array_equal(lazy[1, 5], volume[1, 5])
    np.testing.assert_array_equal(lazy[..., 3], volume[..., 3])
    np.testing.assert_array_equal(lazy[:, 2:4, 3], volume[:, 2:4, 3])
    np.testing.assert_array_equal(np.asarray(lazy), volume)


def test_parts_are_copies(volume):
    lazy = LazyArray(Counted(volume[0], (SIDE, SIDE)), "a.tif")
    lazy[:2, :2][:] = 77
    np.testing.assert_array_equal(lazy[:2, :2], volume[0, :2, :2])


def test_planes_in_small_chunks_are_not_kept(volume):
    stored = Counted(volume, (1, 64, 64))
    lazy = LazyArray(stored, "a.tif")
    lazy[0, :9, :9], lazy[0, :9, :9]
    assert stored.reads == 2


def test_tiff_in_one_strip_is_unpacked_once(tmp_path, volume, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, volume[0], compression="zlib", rowsperstrip=SIDE)
    image = read_image(path, lazy_above=1)
    assert isinstance(image.data, LazyArray)
    seen = []
    original = LazyArray._read
    monkeypatch.setattr(LazyArray, "_read", lambda self, at: seen.append(at) or original(self, at))
    for top in range(0, SIDE, 100):
        np.testing.assert_array_equal(image.data[top : top + 100], volume[0, top : top + 100])
    assert len(seen) == 1
