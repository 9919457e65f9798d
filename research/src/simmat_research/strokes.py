"""Scribbles as a hand draws them over what is wrong of a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric
from skimage.morphology import skeletonize

from napari_simmat.engine.masks import Mask
from napari_simmat.engine.scribbles import points_along

UNSTEADINESS = 0.2
"""How far a line lies beside the middle, root mean square, in half widths of what is wrong."""
WAVE = 5.0
"""Pixels along the line over which it wavers."""


def scribble_over(wrong: Mask, truth: Mask, seed: int) -> tuple[NDArray[np.float64], int]:
    """Points (N, 2) along the middle of the largest wrong part of a mask (Y, X), and their label.

    The line is the longest path through the part's skeleton, drawn by an unsteady hand. The label
    is 1 where the truth (Y, X) is missing.
    """
    parts, _ = ndimage.label(wrong)
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    [rows, columns] = ndimage.find_objects(parts)[largest - 1]
    part = np.pad(parts[rows, columns] == largest, 1)
    corner = np.array([rows.start - 1, columns.start - 1])
    middle = _longest_path(skeletonize(part))
    widths = np.maximum(ndimage.distance_transform_edt(part)[tuple(middle.T)], 1.0)
    line = middle + _waver(len(middle), seed) * (UNSTEADINESS * widths)[:, np.newaxis] + corner
    y, x = middle[len(middle) // 2] + corner
    inside = np.clip(line, 0, np.array(wrong.shape) - 1.0)
    return points_along(inside), int(truth[y, x])


def _longest_path(skeleton: Mask) -> NDArray[np.intp]:
    """Pixels (N, 2) between the two ends of a skeleton that lie farthest from each other."""

    def farthest(start: NDArray[np.intp]) -> tuple[NDArray[np.intp], MCP_Geometric]:
        ways = MCP_Geometric(np.where(skeleton, 1.0, np.inf))
        lengths, _ = ways.find_costs([tuple(start)])
        reached = np.where(skeleton & np.isfinite(lengths), lengths, -1.0)
        return np.array(np.unravel_index(reached.argmax(), skeleton.shape)), ways

    one_end, _ = farthest(np.argwhere(skeleton)[0])
    other_end, ways = farthest(one_end)
    return np.array(ways.traceback(tuple(other_end)))


def _waver(count: int, seed: int) -> NDArray[np.float64]:
    """How far a hand is off (N, 2), with a root mean square of 1."""
    raw = np.random.default_rng(seed).normal(size=(count, 2))
    smooth = ndimage.gaussian_filter1d(raw, WAVE, axis=0) if count > 1 else raw
    return np.asarray(smooth / np.sqrt(np.mean(smooth**2)))
