"""Objects tinted and outlined on their image, drawn at once however many there are."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.statistics import rescale

if TYPE_CHECKING:
    from collections.abc import Callable

FILL = 0.28
"""Share of the object's colour inside it."""


def as_picture(channels: NDArray[Any]) -> NDArray[np.uint8]:
    """Channels (C, Y, X) as (Y, X, 3), 0..255: three as red, green and blue, others as their mean.

    Percentiles 0.5 and 99.8 become black and white; NaN and infinity become black.
    """
    if len(channels) != 3:
        channels = channels.mean(axis=0, keepdims=True)
    finite = np.isfinite(channels)
    if not finite.all():
        lowest = channels[finite].min() if finite.any() else 0
        channels = np.where(finite, channels, lowest)
    low, high = np.percentile(channels, (0.5, 99.8))
    stretched = rescale(channels.astype(np.float32), low, high)
    picture = np.asarray(np.rint(np.moveaxis(stretched, 0, -1)), np.uint8)
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def tinted(picture: NDArray[np.uint8], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Give each object a tint and an outline of its own colour.

    Parameters
    ----------
    picture
        (Y, X, 3), 0..255.
    labels
        (Y, X), 0 is background.
    """
    from skimage.segmentation import find_boundaries

    values, inverse = np.unique(labels, return_inverse=True)
    colours = np.array([colour_of(int(value)) for value in values], np.float32)
    colour = colours[inverse.reshape(labels.shape)]
    share = np.where(labels > 0, FILL, 0.0)
    share[find_boundaries(labels, mode="inner")] = 1.0
    mixed = picture * (1 - share[..., None]) + colour * share[..., None]
    return np.asarray(np.rint(mixed), np.uint8)


def fullest_plane(
    labels: NDArray[Any], plane: Callable[[tuple[int, ...]], NDArray[Any]]
) -> tuple[tuple[int, ...], NDArray[np.uint8]]:
    """The plane on which most pixels are labelled (the middle one if none is), as a picture.

    Parameters
    ----------
    labels
        (..., Y, X).
    plane
        Raw values (C, Y, X) of a plane, by its indices before (Y, X).

    Returns
    -------
    tuple
        The plane's indices, and its picture (Y, X, 3) with the objects in it.
    """
    counts = np.count_nonzero(labels, axis=(-2, -1)).ravel()
    flat = int(counts.argmax()) if counts.any() else counts.size // 2
    index = tuple(int(i) for i in np.unravel_index(flat, labels.shape[:-2]))
    return index, tinted(as_picture(plane(index)), labels[index])


def overview(
    labels: Any, part: Callable[[slice, slice], NDArray[Any]], side: int = 1024
) -> NDArray[np.uint8]:
    """A plane of any size with its objects, reduced to at most `side` pixels.

    Every n-th pixel is taken, so that labels stay labels.

    Parameters
    ----------
    labels
        (Y, X), numpy or zarr.
    part
        Raw values (C, h, w) of rows and columns.
    """
    height, width = labels.shape
    step = -(-max(height, width) // side)
    bands = [
        part(slice(y, min(y + 64 * step, height)), slice(0, width))[:, ::step, ::step]
        for y in range(0, height, 64 * step)
    ]
    picture = as_picture(np.concatenate(bands, axis=1))
    return tinted(picture, np.asarray(labels[::step, ::step]))


def colour_of(label: int) -> tuple[int, int, int]:
    """A bright colour; neighbours in number lie far apart on the circle of hues."""
    red, green, blue = hsv_to_rgb((0.1 + label * 0.618034) % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
