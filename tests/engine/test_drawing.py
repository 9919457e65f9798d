"""Pictures of masks and planes: what they show, and how little they read."""

import numpy as np
import pytest

from napari_simmat.engine import drawing
from napari_simmat.engine.drawing import (
    YELLOW,
    mask_thumbnail,
    overview,
    sample_windows,
    tint_objects,
    to_rgb,
)


def reader(image: np.ndarray, read: list[tuple[slice, slice]]):
    """Values of rows and columns as one channel; `read` notes them."""

    def part(rows: slice, columns: slice) -> np.ndarray:
        read.append((rows, columns))
        return image[None, rows, columns]

    return part


def outlined(picture: np.ndarray) -> np.ndarray:
    return (picture == YELLOW).all(-1)


def test_mask_thumbnail_shows_a_small_mask_with_its_surroundings():
    """A square of 12 pixels in a field of 24, so it is half as wide as the picture of 48."""
    mask = np.zeros((200, 300), bool)
    mask[2:14, 100:112] = True
    read: list[tuple[slice, slice]] = []
    picture = mask_thumbnail(mask, reader(np.arange(60000.0).reshape(200, 300), read), side=48)
    assert read == [(slice(0, 24, 1), slice(94, 118, 1))], "moved into the image at its border"
    rows, columns = np.nonzero(outlined(picture))
    assert (rows.min(), rows.max()) == (4, 27)
    assert (columns.min(), columns.max()) == (12, 35)
    assert len(rows) == 4 * 23, "an outline of one pixel"


def test_mask_thumbnail_of_a_large_image_reads_coarsely():
    read: list[tuple[slice, slice]] = []
    mask = np.ones((1000, 4000), bool)
    picture = mask_thumbnail(mask, reader(np.ones(mask.shape), read), side=40)
    ((rows, columns),) = read
    assert len(range(*rows.indices(1000))) * len(range(*columns.indices(4000))) <= 80 * 80
    assert picture.shape == (40, 40, 3)
    shown = picture.any(-1)
    height, width = shown.any(1).sum(), shown.any(0).sum()
    assert 3.5 < width / height < 4.5


@pytest.mark.parametrize("strip", [1, 7, 64])
def test_overview_in_strips_is_the_tinted_plane(strip, monkeypatch):
    monkeypatch.setattr(drawing, "_STRIP", strip)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (50, 60)).astype(np.uint8)
    labels = np.kron(rng.integers(0, 4, (10, 12)), np.ones((5, 5), int))
    found = overview(labels, reader(image, []))
    monkeypatch.undo()
    np.testing.assert_array_equal(found, tint_objects(to_rgb(image[np.newaxis]), labels))


def test_overview_of_a_coarser_level_takes_labels_where_it_lies():
    labels = np.zeros((40, 80), int)
    labels[16:24, 40:56] = 1
    coarse = np.full((10, 20), 100, np.uint8)
    coarse[0, 0], coarse[4:6, 10:14] = 0, 200
    read = []
    shown = (slice(8, 32), slice(32, 64))
    picture = overview(labels, reader(coarse, read), shown, coarser=4)
    assert read == [(slice(2, 8), slice(8, 16))]
    colored = picture.max(axis=-1) > picture.min(axis=-1)
    np.testing.assert_array_equal(colored, labels[8:32:4, 32:64:4] > 0)


def test_samples_are_the_squares_with_most_objects():
    shown = (slice(0, 100), slice(0, 400))
    assert sample_windows(shown, (100, 400), np.empty((0, 2))) == []  # nothing is reduced
    # Of squares of 10 pixels in each quarter of 100 columns.
    centers = np.array([[55, 33], [56, 34], [12, 78], [99, 399]])
    assert sample_windows(shown, (10, 40), centers) == [
        (slice(50, 60), slice(30, 40)),
        (slice(45, 55), slice(145, 155)),
        (slice(45, 55), slice(245, 255)),
        (slice(90, 100), slice(390, 400)),
    ]
