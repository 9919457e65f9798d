"""A click on a mask that is there already: what changes, and what stays.

A model that is given a mask and a click that contradicts it often answers with another object
altogether. But whoever corrects a mask wants it otherwise near the click and as it is elsewhere,
and clicks in the middle of what is wrong. So of the model's answer no more is taken than
the change that has the click in its middle (the idea of FocalClick's progressive merge, Chen et
al. 2022); where there is none, the outline is moved beyond the click.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.mask_geometry import Mask

MIDDLE = 0.7
"""How deep in a change the click lies at least, as a part of the largest depth there is."""
REACH = 2.0
"""How deep a change may be, in depths of the click: what is wrong ends as far behind the click."""
NEAR = 0.6
"""How far from the click the outline is moved, as a part of the object's radius."""

SHALLOW = 0.1
"""Depth of a click, as a part of the object's radius, up to which it speaks of all the outline."""

Point = tuple[float, float]
Depths = NDArray[np.float64]
"""(Y, X): distance of each pixel to the outline on the clicked side of it; 0 on the other."""


def contradicts(mask: Mask, point: Point, label: int) -> bool:
    """Whether a click inside (1) or outside (0) is not what a mask (Y, X) says there."""
    return bool(mask[pixel_of(point, mask)]) != bool(label)


def corrected(mask: Mask, answers: Sequence[Mask], point: Point, label: int) -> Mask:
    """The mask after a click that contradicts it.

    Parameters
    ----------
    mask
        (Y, X), before the click.
    answers
        What the model makes of mask and click, asked in at least one way.
    point
        y, x of the click.
    label
        1 if the object is there, 0 if not.
    """
    at = pixel_of(point, mask)
    depths = _depths(mask if not label else ~mask)
    changes = [_change(mask, answer, depths, at) for answer in answers]
    fits = [_fit(change, float(depths[at]), at) for change in changes]
    best = int(np.argmax(fits))
    answered = mask ^ changes[best]
    if fits[best] >= MIDDLE:
        return answered
    moved = _moved_outline(mask, depths, at, label)
    vanishes = 2 * np.count_nonzero(moved) < np.count_nonzero(mask)
    return answered if vanishes and fits[best] > 0 else moved


def pixel_of(point: Point, mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel of a mask (Y, X) on which a point lies, or the nearest to it."""
    y, x = (
        int(np.clip(np.floor(value + 0.5), 0, size - 1))
        for value, size in zip(point, mask.shape, strict=True)
    )
    return y, x


def _depths(side: Mask) -> Depths:
    if side.all():
        return np.full(side.shape, float(max(side.shape)))
    depths: Depths = np.asarray(ndi.distance_transform_edt(side), np.float64)
    return depths


def _change(mask: Mask, answer: Mask, depths: Depths, at: tuple[int, int]) -> Mask:
    """The patch around the click in which an answer differs, as deep as a click may mean."""
    differs = (mask != answer) & (depths > 0) & (depths <= REACH * depths[at] + 1)
    patches, _ = ndi.label(differs, np.ones((3, 3)))
    return np.asarray((patches == patches[at]) & differs, bool)


def _fit(change: Mask, depth: float, at: tuple[int, int]) -> float:
    """How well the click lies in the middle of a change that reaches to the outline, 0..1."""
    if not change[at]:
        return 0.0
    within = _depths(np.pad(change, 1))[1:-1, 1:-1]
    return float(within[at]) / max(float(within.max()), depth)


def _moved_outline(mask: Mask, depths: Depths, at: tuple[int, int], label: int) -> Mask:
    """The outline moved twice as far as the click lies from it, less and less away from there.

    A click very near to the outline tells that all of it is too wide or too narrow: the
    outline passes through the click all around.
    """
    radius = math.sqrt(max(int(np.count_nonzero(mask)), 1) / math.pi)
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    away = ((y - at[0]) ** 2 + (x - at[1]) ** 2) / (NEAR * radius) ** 2
    around = np.clip(2 - depths[at] / (SHALLOW * radius), 0, 1)
    move = depths[at] * np.maximum(REACH * np.exp(-away / 2), around)
    changes = (depths > 0) & (depths <= move)
    return np.asarray(mask | changes if label else mask & ~changes, bool)
