"""A line drawn over an object: points for the model, and what it changes of a mask.

A person who mends a mask draws along the middle of what is missing, or of what is too much. The
disk around each point of such a line that reaches to the mask's outline also reaches to where the
outline should be: the disks together are the wrong part, of which the line is the medial axis
(Blum 1967). Hands are not that exact, so the model decides on the rim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.masks import Mask

MOST_POINTS = 8
"""Largest number of points that a scribble is converted to."""
SPACING = 4.0
"""Pixels between two points of a short scribble."""
SURE, POSSIBLE = 0.7, 1.3
"""Radii, in distances to the outline, within which a line changes the mask, and may change it."""

Line = Sequence[tuple[float, float]]
"""Points y, x along a scribble."""


def points_along(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 2) at equal distances along a drawn line (M, 2), ends included."""
    lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(vertices, axis=0), axis=1))]
    count = int(np.clip(lengths[-1] / SPACING + 1, 1, MOST_POINTS))
    if count == 1:
        return vertices[:1]
    return _at(vertices, lengths, np.linspace(0, lengths[-1], count))


def pixels_along(line: Line, shape: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of a plane of a shape (Y, X) that a line passes, each once."""
    vertices = np.asarray(line, np.float64)
    lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(vertices, axis=0), axis=1))]
    steps = math.ceil(lengths[-1]) + 1
    points = _at(vertices, lengths, np.linspace(0, lengths[-1], steps))
    pixels = np.clip(np.floor(points + 0.5).astype(np.intp), 0, np.array(shape) - 1)
    rows, columns = np.unique(pixels, axis=0).T
    return rows, columns


def correct_by_scribble(mask: Mask, predicted: Sequence[Mask], line: Line, label: int) -> Mask:
    """The mask after a scribble over what is missing, or over what is too much.

    Parameters
    ----------
    mask
        (Y, X), before the scribble.
    predicted
        Masks that the model predicts from mask and scribble.
    line, label
        Points y, x along the scribble, and 1 if it is positive, 0 if negative.
    """
    wrong_side = ~mask if label else mask
    rows, columns = pixels_along(line, mask.shape)
    depths = ndi.distance_transform_edt(wrong_side)[rows, columns]
    # What is missing is not broader than the object, however far away the line is.
    depths = np.minimum(depths, math.sqrt(np.count_nonzero(mask) / math.pi))
    possible = _disks(rows, columns, POSSIBLE * depths, mask.shape) & wrong_side
    by_model = np.zeros_like(mask)
    for other in predicted:
        by_model |= _connected(possible & (mask ^ other), rows, columns)
    change = by_model | (_disks(rows, columns, SURE * depths, mask.shape) & wrong_side)
    corrected = mask | change if label else mask & ~change
    # A line along the middle of the whole object would erase it: the model knows better.
    vanishes = 2 * np.count_nonzero(corrected) < np.count_nonzero(mask)
    return mask & ~by_model if vanishes and by_model.any() else corrected


def _at(
    vertices: NDArray[np.float64], lengths: NDArray[np.float64], where: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Points (N, 2) on a line (M, 2) whose vertices lie at `lengths` along it."""
    return np.stack([np.interp(where, lengths, column) for column in vertices.T], axis=1)


def _disks(
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    radii: NDArray[np.float64],
    shape: tuple[int, ...],
) -> Mask:
    """The union (Y, X) of disks around pixels."""
    union = np.zeros(shape, bool)
    for row, column, radius in zip(rows.tolist(), columns.tolist(), radii.tolist(), strict=True):
        reach = math.ceil(radius)
        top, left = max(row - reach, 0), max(column - reach, 0)
        part = union[top : row + reach + 1, left : column + reach + 1]
        y, x = np.ogrid[: part.shape[0], : part.shape[1]]
        part |= (y + top - row) ** 2 + (x + left - column) ** 2 < radius**2
    return union


def _connected(change: Mask, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Mask:
    """The parts (Y, X) of a change that hold a pixel of the line."""
    parts, _ = ndi.label(change, np.ones((3, 3)))
    met = np.unique(parts[rows, columns])
    return np.asarray(np.isin(parts, met[met > 0]), bool)
