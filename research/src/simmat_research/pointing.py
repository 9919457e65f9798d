"""A click and a box as a hand places them, beside where they are meant to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from napari_simmat.engine.masks import Mask
from simmat_research.strokes import OUTLINE_UNSTEADINESS, UNSTEADINESS

CLICK_OFF = 1.0
"""Pixels by which a click misses at least, root mean square along each axis."""
BOX_OFF = 3.0
"""Pixels by which a corner misses at most, root mean square along each axis."""
MOST_OFF = 0.25
"""Share of a side beyond which the user sees that a box is wrong, and draws it better."""
SEEN = 2.0
"""Half width in pixels of a part in which the user sees whether the pointer is."""
AIMED = 20
"""Times that the user aims anew; then the click is where it was meant to be."""
Point = tuple[float, float]
Box = tuple[float, float, float, float]


def click_into(part: Mask, aim: Point, seed: Sequence[int], hand: float = 1.0) -> Point:
    """Where a click on a part (Y, X), meant for the pixel y, x, is placed.

    A click strays from the middle as a scribble does, by a fifth of the half width. The user sees
    whether the pointer is in the part, and does not press elsewhere; only a part that is thinner
    than `SEEN` may be missed. A click is never outside the image.
    """
    [(rows, columns)] = ndimage.find_objects(part.astype(np.uint8))
    corner = np.array([rows.start - 1, columns.start - 1])
    depths = ndimage.distance_transform_edt(np.pad(part[rows, columns], 1))
    half_width = float(depths[tuple(np.rint(aim).astype(int) - corner)])
    off, rng = hand * max(CLICK_OFF, UNSTEADINESS * half_width), np.random.default_rng(seed)
    for _ in range(AIMED):
        y, x = np.clip(rng.normal(aim, off), 0, np.array(part.shape) - 1.0).tolist()
        if half_width < SEEN or part[round(y), round(x)]:
            return y, x
    return aim


def box_around(box: Box, shape_yx: tuple[int, int], seed: Sequence[int], hand: float = 1.0) -> Box:
    """Where a box, meant to be at y0, x0, y1, x1, is drawn in an image of that shape.

    A corner misses by a few pixels, by fewer around a small object, at which one looks closely: by
    a tenth of the half width, as an outline. It never misses by more than `MOST_OFF` of a side, and
    is never outside the image.
    """
    corners = np.reshape(box, (2, 2))
    sides = np.diff(corners, axis=0)
    off = hand * np.minimum(BOX_OFF, OUTLINE_UNSTEADINESS * sides / 2)
    missed = np.random.default_rng(seed).normal(0, off, (2, 2))
    drawn = corners + np.clip(missed, -MOST_OFF * sides, MOST_OFF * sides)
    (y0, x0), (y1, x1) = np.clip(drawn, 0, shape_yx).tolist()
    return y0, x0, y1, x1


def part_at(wrong: Mask, point: Point) -> Mask:
    """The connected part (Y, X) of a mask that holds a pixel y, x."""
    [window] = ndimage.find_objects(wrong.astype(np.uint8))
    parts, _ = ndimage.label(wrong[window])
    y, x = (round(value) - side.start for value, side in zip(point, window, strict=True))
    part = np.zeros_like(wrong)
    part[window] = parts == parts[y, x]
    return part
