"""Thumbnails of masks: what they show, and how little they read."""

import numpy as np

from napari_simmat.engine.drawing import YELLOW, mask_thumbnail


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
