"""Masks of one object: how deep, how far, how alike, and what lies between two of them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.footprints import bounding_box

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
PixelSize = tuple[float, float]
"""Height and width of a pixel, in any one unit."""


def deepest(
    mask: Mask, pixel: PixelSize = (1.0, 1.0), ties: Literal["first", "median"] = "first"
) -> tuple[float, float]:
    """The pixel y, x of a mask (Y, X) that is farthest from its outline.

    What lies beyond the image is outside the mask.

    Parameters
    ----------
    pixel
        Height and width of a pixel.
    ties
        Which of several equally deep pixels, in row-major order. The median one, which evaluation
        and training click on, is nearer to the middle of a long object; the window and propagation
        take the first.
    """
    rows, columns = _around(mask)
    depth = ndi.distance_transform_edt(np.pad(mask[rows, columns], 1), sampling=pixel)
    found = np.flatnonzero(depth == depth.max())
    y, x = np.unravel_index(found[0 if ties == "first" else len(found) // 2], depth.shape)
    return float(y + rows.start - 1), float(x + columns.start - 1)


def iou(ours: NDArray[Any], theirs: NDArray[Any], empty: float = 1.0) -> float:
    """Intersection over union of two masks of equal shape.

    Parameters
    ----------
    empty
        The value where both masks are empty. Metrics take 1: finding nothing where there is
        nothing is right. To tell whether two masks show the same object take 0: there is none.

    Examples
    --------
    >>> iou(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0])) == 1 / 3
    True
    """
    ours, theirs = as_masks(ours, theirs)
    union = np.count_nonzero(ours | theirs)
    return float(np.count_nonzero(ours & theirs) / union) if union else empty


def as_masks(ours: NDArray[Any], theirs: NDArray[Any]) -> tuple[Mask, Mask]:
    """Two arrays as bool; ValueError if their shapes differ."""
    if ours.shape != theirs.shape:
        raise ValueError(
            f"Masks of shape {ours.shape} and {theirs.shape} cannot be compared; give both on the "
            "same image."
        )
    return ours.astype(bool, copy=False), theirs.astype(bool, copy=False)


def within(mask: Mask, reach: float, pixel: PixelSize = (1.0, 1.0)) -> Mask:
    """All pixels (Y, X) that lie no further than `reach` from the mask."""
    rows, columns = _around(mask, reach / pixel[0], reach / pixel[1])
    whole = np.zeros_like(mask)
    away = ndi.distance_transform_edt(~mask[rows, columns], sampling=pixel)
    whole[rows, columns] = away <= reach
    return whole


def between(one: Mask, other: Mask, part: float, pixel: PixelSize = (1.0, 1.0)) -> Mask:
    """The mask at `part` (0..1) of the way from `one` to `other`, by shape.

    Signed distances to both outlines are mixed (Raya and Udupa 1990, shape-based interpolation),
    after both masks were moved onto the place that their middles have on the way; so an object
    that moves is moved, not faded.
    """
    middles = [np.array(ndi.center_of_mass(mask)) for mask in (one, other)]
    middle = (1 - part) * middles[0] + part * middles[1]
    moves = [np.round(middle - each).astype(int) for each in middles]
    rows, columns = _around(one | other, *np.abs(moves).max(axis=0).tolist())
    near, far = (
        signed_distance(_moved(mask[rows, columns], move), pixel)
        for mask, move in zip((one, other), moves, strict=True)
    )
    mixed = (1 - part) * near + part * far > 0
    if not mixed.any():  # both are thinner than the way between them
        return one if part < 0.5 else other
    whole = np.zeros_like(one)
    whole[rows, columns] = mixed
    return whole


def signed_distance(mask: Mask, pixel: PixelSize = (1.0, 1.0)) -> Floats:
    """Distance of each pixel (Y, X) to the outline: positive inside, negative outside.

    The image's border is no outline: what is cut off there goes on.
    """
    if mask.all() or not mask.any():
        far = float(np.hypot(*mask.shape) * max(pixel))
        return np.full(mask.shape, far if mask.all() else -far, np.float32)
    inside = ndi.distance_transform_edt(mask, sampling=pixel)
    outside = ndi.distance_transform_edt(~mask, sampling=pixel)
    return np.asarray(inside - outside, np.float32)


def _around(mask: Mask, more_y: float = 0.0, more_x: float = 0.0) -> tuple[slice, slice]:
    """The mask's box and some pixels more on each side, at least one, within the image."""
    region = bounding_box(mask)
    assert region is not None
    rows, columns = (
        slice(max(0, part.start - int(more) - 1), min(size, part.stop + int(more) + 1))
        for part, size, more in zip(region, mask.shape, (more_y, more_x), strict=True)
    )
    return rows, columns


def _moved(mask: Mask, move: NDArray[np.int_]) -> Mask:
    """The mask moved by whole pixels; what leaves the field is lost."""
    moved = np.zeros_like(mask)
    to = tuple(slice(max(0, n), size + min(0, n)) for n, size in zip(move, mask.shape, strict=True))
    come = tuple(
        slice(max(0, -n), size - max(0, n)) for n, size in zip(move, mask.shape, strict=True)
    )
    moved[to] = mask[come]
    return moved
