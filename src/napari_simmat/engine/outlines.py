"""Drawn shapes and outlines to masks, for the window, files and learning.

Drawn shapes have the pixels' *centers* at whole numbers, as napari has them. Outlines in files have
their vertices as x, y with pixel *corners* at whole numbers, as ImageJ and QuPath have them: the
center of the first pixel is at 0.5, 0.5. Of either kind a pixel is inside if its center lies inside
an odd number of lines, or on one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.coordinates import BoxCorners, box_of_corners
from napari_simmat.engine.masks import Mask, ObjectMask
from napari_simmat.io.refusals import RefusedFileError

Ring = NDArray[np.float64]
"""Vertices (N, 2) as x, y of a closed line; the last is joined to the first."""
TOO_COSTLY = (
    "The outlines{} cover far more pixels than the objects of an image do; divide them into "
    "several files, or save them as a label image."
)
_FREE_PIXELS, _PIXELS_PER_PIXEL = 1 << 30, 8
_CROSSINGS = 8
"""As many edges in its row make a pixel cost as much again."""
_SQUARE = 64
"""Side of the squares of pixels that are asked for together."""


class OutlineBudget:
    """How many pixels the outlines of one file may cover together.

    A file of some kilobytes can ask for hours.

    Parameters
    ----------
    shape
        (..., Y, X) of the image, not as the file claims it.
    name
        The file, for messages.
    """

    def __init__(self, shape: Sequence[int] = (), name: str = "") -> None:
        self._of = f" of {name}" if name else ""
        self._left = _FREE_PIXELS + (_PIXELS_PER_PIXEL * math.prod(shape) if shape else 0)

    def spend(self, pixels: int) -> None:
        """Count pixels; ValueError when there are too many."""
        self._left -= pixels
        if self._left < 0:
            raise RefusedFileError(TOO_COSTLY.format(self._of))

    def check(self, outlines: Iterable[Sequence[Ring]], shape: Sequence[int]) -> None:
        """Refuse at once what would be refused after a while: the boxes of the outlines alone.

        Parameters
        ----------
        outlines
            For each object its lines (N, 2) as x, y.
        shape
            Height and width of the image.
        """
        pixels = 0
        for rings in outlines:
            lines = _lines(rings)
            box = _box(np.concatenate(lines), shape) if lines else None
            if box is not None:
                top, left, bottom, right = box
                pixels += (bottom - top) * (right - left)
        if pixels > self._left:
            raise RefusedFileError(TOO_COSTLY.format(self._of))


def shape_mask(
    kind: str,
    vertices: Sequence[Sequence[float]] | Ring,
    shape_yx: tuple[int, int],
    budget: OutlineBudget | None = None,
) -> Mask:
    """The pixels (Y, X) whose centers lie within a drawn shape, or on its edge.

    A shape too thin to hold a center means the pixels that it touches.

    Parameters
    ----------
    kind
        rectangle, ellipse or polygon; any other, as a path, encloses nothing.
    vertices
        (N, 2) as y, x in pixels; for an ellipse the corners of the rectangle around it.
    shape_yx
        Height and width of the image; what lies outside it is cut off.
    budget
        Of the file that the shape is from.

    Raises
    ------
    ValueError
        If a coordinate is not finite, or the outline is implausibly long.
    """
    from skimage.draw import polygon_perimeter

    corners = np.asarray(vertices, np.float64)
    mask = np.zeros(shape_yx, dtype=bool)
    if kind not in ("rectangle", "ellipse", "polygon"):
        return mask
    budget = OutlineBudget() if budget is None else budget
    if kind == "ellipse":
        filled = _filled_ellipse(corners[:, ::-1], shape_yx, budget)
    else:
        filled = _filled(_lines([corners[:, ::-1]]), shape_yx, budget)
    if filled is not None:
        inside, (top, left) = filled
        height, width = inside.shape
        mask[top : top + height, left : left + width] = inside
    if not mask.any():
        length = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum()
        budget.spend(int(100 * length))
        mask[polygon_perimeter(corners[:, 0], corners[:, 1], shape_yx)] = True
    return mask


def box_and_mask(
    kind: str,
    vertices: Sequence[Sequence[float]] | Ring,
    shape_yx: tuple[int, int],
    budget: OutlineBudget | None = None,
) -> tuple[BoxCorners, Mask | None]:
    """The box around a drawn shape, and its `shape_mask`; None for an upright rectangle.

    Raises
    ------
    ValueError
        If it lies outside the image, or as `shape_mask`.
    """
    box = box_of_corners(vertices, shape_yx)
    sides = np.diff(np.asarray(vertices, np.float64), axis=0)
    if kind == "rectangle" and np.isclose(sides, 0, atol=1e-3).any(axis=1).all():
        return box, None
    return box, shape_mask(kind, vertices, shape_yx, budget)


def is_upright_rectangle(rings: Sequence[Ring]) -> bool:
    """Whether the outlines (N, 2) of an area are one rectangle along the axes, closed or not."""
    if len(rings) != 1:
        return False
    [line] = _lines(rings) or [np.empty((0, 2))]
    if len(line) == 5 and np.array_equal(line[0], line[-1]):
        line = line[:-1]
    if len(line) != 4:
        return False
    with np.errstate(over="ignore", invalid="ignore"):  # of vertices some 1e308 pixels away
        sides = np.abs(np.roll(line, -1, axis=0) - line)
    is_flat = np.isclose(sides, 0, atol=1e-3)
    return bool((is_flat.sum(axis=1) == 1).all() and (is_flat[0] != is_flat[1]).all())


def mask_of(
    rings: Sequence[Ring], shape: Sequence[int], budget: OutlineBudget | None = None
) -> tuple[Mask, tuple[int, int]] | None:
    """The pixels whose centers lie inside an odd number of closed lines, or on one.

    Parameters
    ----------
    rings
        Outlines and holes, in any order and direction.
    shape
        Height and width of the image; what lies outside it is cut off.
    budget
        Of the file that the outlines are from.

    Returns
    -------
    (mask, corner) or None
        The mask (h, w) and the row and column where it begins; None without a pixel.

    Raises
    ------
    ValueError
        If a coordinate is not finite, or the lines are implausibly long.
    """
    budget = OutlineBudget() if budget is None else budget
    found = _filled([line - 0.5 for line in _lines(rings)], shape, budget)
    return found if found is not None and found[0].any() else None


def section_of(
    rings: Sequence[Ring],
    plane: tuple[int, ...],
    shape: Sequence[int],
    budget: OutlineBudget | None = None,
) -> ObjectMask | None:
    """`mask_of` on a plane of a stack; None without a pixel."""
    found = mask_of(rings, shape, budget)
    return None if found is None else ObjectMask.of(found[0], (*plane, *found[1]))


def _lines(rings: Sequence[Ring]) -> list[Ring]:
    """The lines that enclose something, each (N, 2)."""
    lines = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings]
    return [line for line in lines if len(line) >= 3]


def _box(vertices: Ring, shape: Sequence[int]) -> tuple[int, int, int, int] | None:
    """Top, left, bottom, right of the pixels around vertices x, y; None outside the image.

    ValueError if a coordinate is not finite.
    """
    if not np.isfinite(vertices).all():
        raise ValueError("An outline has a coordinate that is not finite.")
    size = np.array([shape[-1], shape[-2]])
    left, top = np.clip(np.floor(vertices.min(axis=0)), 0, size).astype(int).tolist()
    right, bottom = np.clip(np.ceil(vertices.max(axis=0)) + 1, 0, size).astype(int).tolist()
    return (top, left, bottom, right) if top < bottom and left < right else None


def _filled(
    lines: Sequence[Ring], shape: Sequence[int], budget: OutlineBudget
) -> tuple[Mask, tuple[int, int]] | None:
    """As `mask_of`, of lines with pixel centers at whole numbers; the mask may be empty."""
    import shapely

    box = _box(np.concatenate(lines), shape) if lines else None
    if box is None:
        return None
    top, left, bottom, right = box
    # To know where a pixel is, all edges that cross its row are looked at.
    rows = [np.clip(line[:, 1], top, bottom) for line in lines]
    crossings = sum(int(np.abs(np.diff(row, append=row[:1])).sum()) for row in rows)
    budget.spend((right - left) * (bottom - top + crossings // _CROSSINGS))
    mask = np.zeros((bottom - top, right - left), dtype=bool)
    area = shapely.multipolygons([shapely.polygons(line) for line in lines])
    with np.errstate(over="ignore", invalid="ignore"):  # of vertices some 1e300 pixels away
        _fill(mask, area, (top, left))
    return mask, (top, left)


def _fill(mask: Mask, area: Any, corner: tuple[int, int]) -> None:
    """Set the pixels of a mask, which begins at `corner`, whose centers lie in an area.

    Most squares of pixels lie wholly inside or outside a large area; only in the others each pixel
    is asked for.
    """
    import shapely

    shapely.prepare(area)
    top, left = corner
    height, width = mask.shape
    first = np.arange(0, width, _SQUARE)
    last = np.minimum(first + _SQUARE, width)
    for upper in range(0, height, _SQUARE):
        lower = min(upper + _SQUARE, height)
        edges = (first + left, upper + top, last + left, lower + top)
        squares = shapely.box(*(np.subtract(edge, 0.5) for edge in edges))
        whole = shapely.contains_properly(area, squares)
        for n in np.flatnonzero(shapely.intersects(area, squares)):
            square = mask[upper:lower, first[n] : last[n]]
            if whole[n]:
                square[...] = True
            else:
                y, x = np.ogrid[upper:lower, first[n] : last[n]]
                square[...] = shapely.intersects_xy(area, x + left, y + top)


def _filled_ellipse(
    corners: Ring, shape: Sequence[int], budget: OutlineBudget
) -> tuple[Mask, tuple[int, int]] | None:
    """The ellipse within a rectangle (4, 2) as x, y, turned or not; as `_filled`."""
    half_sides = np.stack([corners[1] - corners[0], corners[-1] - corners[0]], axis=1) / 2
    box = _box(corners, shape)
    if box is None:
        return None
    if abs(np.linalg.det(half_sides)) < 1e-12:  # it is a line
        return _filled([corners], shape, budget)
    top, left, bottom, right = box
    budget.spend((bottom - top) * (right - left))
    # In units of half the sides it is the unit circle.
    (xx, xy), (yx, yy) = np.linalg.inv(half_sides)
    center = corners.mean(axis=0)
    x = np.arange(left, right) - center[0]
    y = np.arange(top, bottom)[:, np.newaxis] - center[1]
    return (xx * x + xy * y) ** 2 + (yx * x + yy * y) ** 2 <= 1 + 1e-9, (top, left)
