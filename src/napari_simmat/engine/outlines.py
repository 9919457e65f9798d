"""Drawn shapes and outlines to masks, for the window, files and learning.

Drawn shapes have the pixels' *centers* at whole numbers, as napari has them. Polygons have their
vertices as x, y with pixel *corners* at whole numbers, as ImageJ and QuPath have them: the center
of the first pixel is at 0.5, 0.5. An outline of either kind, filled where a pixel's center is
inside, gives exactly the mask's pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.coordinates import BoxCorners, box_of_corners
from napari_simmat.engine.masks import Mask, ObjectMask
from napari_simmat.io.image_file import RefusedFileError

Ring = NDArray[np.float64]
"""Vertices (N, 2) as x, y of a closed line; the last is joined to the first."""
TOO_COSTLY = (
    "The outlines{} cover far more pixels than the objects of an image do; divide them into "
    "several files, or save them as a label image."
)
_FREE_PIXELS, _PIXELS_PER_PIXEL = 1 << 30, 8
_CROSSING = 32
"""What a crossing of an outline and a row costs, in pixels."""
_AT_ONCE = 1 << 20
"""Crossings, or pixels of an ellipse, that are computed at a time."""


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
        areas = sum(_box_area(rings, shape) for rings in outlines)
        if areas > self._left:
            raise RefusedFileError(TOO_COSTLY.format(self._of))


def _box_area(rings: Sequence[Ring], shape: Sequence[int]) -> int:
    """Pixels of the box around lines, as far as it lies in the image; 0 if that is unknown."""
    lines = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings if len(ring)]
    if not lines:
        return 0
    corners = np.concatenate(lines)
    if not np.isfinite(corners).all():
        return 0  # it is refused when its pixels are sought
    low = np.clip(np.floor(corners.min(0)), 0, shape[::-1])
    high = np.clip(np.ceil(corners.max(0)), 0, shape[::-1])
    return int(np.prod(high - low))


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

    corners, mask = np.asarray(vertices, np.float64), np.zeros(shape_yx, dtype=bool)
    if kind not in ("rectangle", "ellipse", "polygon"):
        return mask
    filled = _filled([corners[:, ::-1]], shape_yx, budget, with_edges=True)
    if filled is not None:
        inside, (top, left) = filled
        half_sides = np.stack([corners[1] - corners[0], corners[-1] - corners[0]], axis=1) / 2
        if kind == "ellipse" and abs(np.linalg.det(half_sides)) > 1e-12:
            # Within its rectangle it is the unit circle, in units of half the sides.
            step = max(1, _AT_ONCE // inside.shape[1])
            for first in range(0, len(inside), step):
                band = inside[first : first + step]
                rows, columns = np.nonzero(band)
                offset = np.stack([rows + top + first, columns + left], dtype=np.float64)
                offset -= corners.mean(axis=0)[:, None]
                outside = (np.linalg.solve(half_sides, offset) ** 2).sum(axis=0) > 1 + 1e-9
                band[rows[outside], columns[outside]] = False
        height, width = inside.shape
        mask[top : top + height, left : left + width] = inside
    if not mask.any():
        length = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum()
        (OutlineBudget() if budget is None else budget).spend(int(100 * length))
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


def mask_of(
    rings: Sequence[Ring], shape: Sequence[int], budget: OutlineBudget | None = None
) -> tuple[Mask, tuple[int, int]] | None:
    """The pixels whose centers lie inside an odd number of closed lines.

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
    lines = [np.asarray(ring, np.float64).reshape(-1, 2) - 0.5 for ring in rings if len(ring)]
    found = _filled(lines, shape, budget) if lines else None
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


def _filled(
    lines: Sequence[Ring],
    shape: Sequence[int],
    budget: OutlineBudget | None,
    with_edges: bool = False,
) -> tuple[Mask, tuple[int, int]] | None:
    """The pixels inside an odd number of lines, as x, y with pixel centers at whole numbers.

    As `mask_of`, but the mask may be empty. `with_edges` adds pixels whose centers lie on the one
    line that there is, exactly as `skimage.draw.polygon`, which visits all pixels of the box.
    """
    from skimage.measure import points_in_poly

    budget = OutlineBudget() if budget is None else budget
    start = np.concatenate(lines)
    end = np.concatenate([np.roll(line, -1, axis=0) for line in lines])
    if not np.isfinite(start).all():
        raise ValueError("An outline has a coordinate that is not finite.")
    (left, top), (right, bottom) = (
        np.clip(limit, 0, shape[::-1]).astype(int)
        for limit in (np.floor(start.min(axis=0)), np.ceil(start.max(axis=0)) + 1)
    )
    if left >= right or top >= bottom:
        return None
    height, width = int(bottom - top), int(right - left)
    budget.spend(height * width)
    flips = np.zeros((height, width + 1), np.uint8)
    for row, column in _crossings(start, end, 1, (top, bottom), budget):
        at = np.clip(np.ceil(column), left, right).astype(np.int64) - left
        place, count = np.unique((row - top) * (width + 1) + at, return_counts=True)
        flips.ravel()[place[count % 2 == 1]] ^= 1
    mask = np.bitwise_xor.accumulate(flips, axis=1, out=flips)[:, :-1].view(bool)
    if with_edges:
        flat = np.abs(end - start)
        steep = flat[:, 1] > flat[:, 0]
        for axis, chosen in ((0, ~steep), (1, steep)):
            limits = ((left, right), (top, bottom))
            ends = start[chosen], end[chosen], axis, limits[axis], budget
            for along, across in _crossings(*ends, around=True):
                lowest, highest = limits[1 - axis]
                first = np.clip(np.floor(across), lowest - 2, highest).astype(np.int64)
                near = np.stack([np.tile(along, 2), np.concatenate([first, first + 1])])
                near = near[:, (near[1] >= lowest) & (near[1] < highest)]
                x, y = near if axis == 0 else near[::-1]
                place = np.unique((y - top) * width + x - left)
                budget.spend(len(place) * len(start))
                y, x = np.divmod(place, width)
                points = np.stack([x + left, y + top], axis=1).astype(np.float64)
                mask[y, x] = points_in_poly(points, lines[0])
    return mask, (int(top), int(left))


def _crossings(
    start: Ring,
    end: Ring,
    axis: int,
    limits: tuple[int, int],
    budget: OutlineBudget,
    around: bool = False,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Where edges cross whole numbers along an axis: these, and the other coordinate.

    An edge includes its lower end, not its upper one; `around` goes on to the whole numbers next to
    both. Some at a time.
    """
    low, high = (np.floor, np.ceil) if around else (np.ceil, np.ceil)
    one, two = start[:, axis], end[:, axis]
    first = np.clip(low(np.minimum(one, two)), *limits).astype(np.int64)
    last = np.clip(high(np.maximum(one, two)) + around, *limits).astype(np.int64)
    ends = np.cumsum(last - first)
    total = int(ends[-1]) if len(ends) else 0
    budget.spend(_CROSSING * total)
    for begin in range(0, total, _AT_ONCE):
        number = np.arange(begin, min(begin + _AT_ONCE, total))
        edge = np.searchsorted(ends, number, side="right")
        at = last[edge] + number - ends[edge]
        (along0, across0), (along1, across1) = (
            (each[edge, axis], each[edge, 1 - axis]) for each in (start, end)
        )
        length = along1 - along0
        if around:  # not beyond the ends, of which there may be only one
            part = np.clip((at - along0) / np.where(length, length, 1), 0, 1)
            yield at, across0 + part * (across1 - across0)
        else:
            yield at, across0 + (at - along0) * (across1 - across0) / length
