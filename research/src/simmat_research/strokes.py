"""Lines as a hand draws them over what is wrong of a mask, around it, or around an object."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric
from skimage.measure import find_contours
from skimage.morphology import skeletonize

from napari_simmat.engine.masks import Mask
from napari_simmat.engine.pen_line import closes, drawn_line

UNSTEADINESS = 0.2
"""How far a line lies beside the middle, root mean square, in half widths of what is wrong."""
OUTLINE_UNSTEADINESS = 0.1
"""How far an outline lies beside the true one, root mean square, in half widths of the object: the
object and what is outlined have then an IoU of 0.85 in the mean."""
WAVE = 5.0
"""Pixels along the line over which it wavers."""
BESIDE = 2.0, 0.5
"""How far the line around a part passes where it does not matter: at least so many pixels, and so
many half widths of the part."""
HARM = 0.25
"""A part is not encircled where the line would enclose what is right as well, from this share."""
Line = NDArray[np.float64]
"""Points (N, 2) as y, x."""


class Stroke(NamedTuple):
    """A line that a hand draws.

    Attributes
    ----------
    line
        Points (N, 2), as drawn.
    length
        Of what the line follows, in pixels: a hand that trembles has no longer way.
    label
        1 for what is missing or an object, 0 for what is too much.
    """

    line: Line
    length: float
    label: int = 1


def scribble_over(wrong: Mask, truth: Mask, seed: int, hand: float = 1.0) -> Stroke:
    """Along the middle of the largest wrong part of a mask (Y, X), given the truth (Y, X).

    The line is the longest path through the part's skeleton, drawn by an unsteady hand.
    """
    whole = largest_part(wrong)
    [(rows, columns)] = ndimage.find_objects(whole.astype(np.uint8))
    part = np.pad(whole[rows, columns], 1)
    corner = np.array([rows.start - 1, columns.start - 1])
    middle = _longest_path(skeletonize(part))
    widths = np.maximum(ndimage.distance_transform_edt(part)[tuple(middle.T)], 1.0)
    line = (
        middle + _waver(len(middle), seed) * (hand * UNSTEADINESS * widths)[:, np.newaxis] + corner
    )
    y, x = middle[len(middle) // 2] + corner
    inside = np.clip(line, 0, np.array(wrong.shape) - 1.0)
    return Stroke(inside, length_of(middle), int(truth[y, x]))


def line_around(wrong: Mask, truth: Mask, seed: int, hand: float = 1.0) -> Stroke | None:
    """Around the largest wrong part of a mask (Y, X), given the truth (Y, X).

    The line follows the true outline, passes beside the part elsewhere, and
    is drawn by an unsteady hand. None where the part surrounds what is right, or is so thin that
    the line would pass for one there and back.
    """
    part = largest_part(wrong & truth, wrong & ~truth)
    label = int(truth[part].any())
    mask = wrong ^ truth
    is_indifferent = mask if label else ~mask
    half = half_width(part)
    near = ndimage.distance_transform_edt(~part) <= max(BESIDE[0], BESIDE[1] * half)
    enclosed = ndimage.binary_fill_holes(part | (near & is_indifferent))
    harm = enclosed & ~part & ~is_indifferent
    if np.count_nonzero(harm) > HARM * np.count_nonzero(part):
        return None
    stroke = _around(enclosed, hand * UNSTEADINESS * half, seed)
    return stroke._replace(label=label) if closes(drawn_line(stroke.line)) else None


def outline_of(truth: Mask, seed: int, unsteadiness: float = OUTLINE_UNSTEADINESS) -> Stroke:
    """Around the largest piece of an object (Y, X), as a hand outlines it."""
    piece = ndimage.binary_fill_holes(largest_part(truth))
    return _around(piece, unsteadiness * half_width(piece), seed)


def length_of(line: NDArray[np.floating | np.integer]) -> float:
    """Length of a line (N, 2)."""
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def outline_length(mask: Mask) -> float:
    """Length of the outlines of a mask (Y, X), in pixels."""
    return sum(length_of(line) for line in find_contours(np.pad(mask, 1).astype(float), 0.5))


def largest_part(*masks: Mask) -> Mask:
    """The largest connected part (Y, X) of masks, one of which holds something."""
    best, size = masks[0], 0
    for mask in masks:
        parts, _ = ndimage.label(mask)
        counts = np.bincount(parts.ravel())
        counts[0] = 0
        if counts.max() > size:
            best, size = parts == int(counts.argmax()), int(counts.max())
    return best


def half_width(region: Mask) -> float:
    """How far the deepest pixel of a region (Y, X) is from its outline, in pixels."""
    return max(float(ndimage.distance_transform_edt(np.pad(region, 1)).max()), 1.0)


def _around(region: Mask, off: float, seed: int) -> Stroke:
    """The outline of a region (Y, X) without holes, by a hand that is off by so many pixels."""
    lines = find_contours(np.pad(region, 1).astype(float), 0.5)
    true_line = max(lines, key=len) - 1
    line = true_line + _waver(len(true_line), seed) * off
    inside = np.clip(line, 0, np.array(region.shape) - 1.0)
    return Stroke(np.asarray(inside, np.float64), length_of(true_line))


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


def _waver(count: int, seed: int) -> Line:
    """How far a hand is off (N, 2), with a root mean square of 1."""
    raw = np.random.default_rng(seed).normal(size=(count, 2))
    smooth = ndimage.gaussian_filter1d(raw, WAVE, axis=0) if count > 1 else raw
    return np.asarray(smooth / np.sqrt(np.mean(smooth**2)))
