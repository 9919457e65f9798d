"""Drawn shapes to masks; outlines of masks as polygons, and masks from polygons.

Drawn shapes have the pixels' *centers* at whole numbers, as napari has them. Polygons have their
vertices as x, y with pixel *corners* at whole numbers, as ImageJ and QuPath have them: the center
of the first pixel is at 0.5, 0.5. An outline of either kind, filled where a pixel's center is
inside, gives exactly the mask's pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.coordinates import BoxCorners, box_of_corners
from napari_simmat.engine.masks import Mask, ObjectMask

Ring = NDArray[np.float64]
"""Vertices (N, 2) as x, y of a closed line; the last is joined to the first."""
_MOST_CROSSINGS = 1 << 27
"""Crossings of outlines and rows; a file can ask for more than the memory holds."""


def shape_mask(
    kind: str, vertices: Sequence[Sequence[float]] | Ring, shape_yx: tuple[int, int]
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
    """
    from skimage.draw import polygon, polygon_perimeter

    corners, mask = np.asarray(vertices, np.float64), np.zeros(shape_yx, dtype=bool)
    if kind not in ("rectangle", "ellipse", "polygon"):
        return mask
    rows, columns = polygon(corners[:, 0], corners[:, 1], shape_yx)
    half_sides = np.stack([corners[1] - corners[0], corners[-1] - corners[0]], axis=1) / 2
    if kind == "ellipse" and abs(np.linalg.det(half_sides)) > 1e-12:
        # Within its rectangle it is the unit circle, in units of half the sides.
        offset = np.stack([rows, columns]) - corners.mean(axis=0)[:, None]
        inside = (np.linalg.solve(half_sides, offset) ** 2).sum(axis=0) <= 1 + 1e-9
        rows, columns = rows[inside], columns[inside]
    if not len(rows):
        rows, columns = polygon_perimeter(corners[:, 0], corners[:, 1], shape_yx)
    mask[rows, columns] = True
    return mask


def box_and_mask(
    kind: str, vertices: Sequence[Sequence[float]] | Ring, shape_yx: tuple[int, int]
) -> tuple[BoxCorners, Mask | None]:
    """The box around a drawn shape, and its `shape_mask`; None for an upright rectangle.

    Raises
    ------
    ValueError
        If it lies outside the image.
    """
    box = box_of_corners(vertices, shape_yx)
    sides = np.diff(np.asarray(vertices, np.float64), axis=0)
    if kind == "rectangle" and np.isclose(sides, 0, atol=1e-3).any(axis=1).all():
        return box, None
    return box, shape_mask(kind, vertices, shape_yx)


def contours(mask: Mask, corner: tuple[int, ...] = (0, 0)) -> list[Ring]:
    """Outlines midway between the centers of inner and outer pixels; holes are lines of their own.

    `corner` is the row and column where the mask (h, w) begins.
    """
    from skimage.measure import find_contours

    lines = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    offset = np.array(corner) - 0.5  # contours count from the centers of padded pixels
    return [(line[:-1] + offset)[:, ::-1] for line in lines]


def polygons(mask: Mask, corner: tuple[int, ...] = (0, 0)) -> list[list[Ring]]:
    """The mask's pixels as polygons along their edges, so that areas are pixel counts.

    Returns
    -------
    list of list of Ring
        For each polygon its outline, then its holes. No line touches itself, so the polygons are
        valid as the Simple Features standard (OGC 06-103r4) has them.
    """
    rings = [simple for line in contours(mask, corner) for simple in _split(_along_edges(line))]
    # The outline and the holes of an object run in opposite directions.
    outer = [[ring] for ring in rings if _area(ring) > 0]
    for hole in (ring for ring in rings if _area(ring) < 0):
        inside = [each for each in outer if _surrounds(each[0], hole)]
        min(inside, key=lambda each: _area(each[0])).append(hole)
    return outer


def mask_of(rings: Sequence[Ring], shape: tuple[int, int]) -> tuple[Mask, tuple[int, int]] | None:
    """The pixels whose centers lie inside an odd number of closed lines.

    Parameters
    ----------
    rings
        Outlines and holes, in any order and direction.
    shape
        Height and width of the image; what lies outside it is cut off.

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
    if not lines:
        return None
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
    first, last = (
        np.clip(np.ceil(each), top, bottom).astype(np.int64)
        for each in (np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1]))
    )
    count = last - first  # the rows, by their centers, that an edge crosses
    if int(count.sum()) > _MOST_CROSSINGS:
        raise ValueError("The outlines of an object are too long.")
    edge = np.repeat(np.arange(len(count)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = x0 + (row - y0) * (x1 - x0) / (y1 - y0)
    column = np.clip(np.ceil(x), left, right).astype(np.int64)
    height, width = bottom - top, right - left
    place = (row - top) * (width + 1) + column - left
    crossed = np.bincount(place, minlength=height * (width + 1)).reshape(height, width + 1)
    mask = np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1
    return (mask, (int(top), int(left))) if mask.any() else None


def section_of(
    rings: Sequence[Ring], plane: tuple[int, ...], shape: tuple[int, int]
) -> ObjectMask | None:
    """`mask_of` on a plane of a stack; None without a pixel."""
    found = mask_of(rings, shape)
    return None if found is None else ObjectMask.of(found[0], (*plane, *found[1]))


def _along_edges(line: Ring) -> Ring:
    """The corners of the pixel edges whose middles are the vertices of a contour."""
    after = np.roll(line, -1, axis=0)
    on_vertical = line[:, 0] % 1 == 0  # x is whole: the edge between two columns
    turns = on_vertical != (after[:, 0] % 1 == 0)
    first, second, vertical = line[turns], after[turns], on_vertical[turns]
    x = np.where(vertical, first[:, 0], second[:, 0])
    y = np.where(vertical, second[:, 1], first[:, 1])
    return np.stack([x, y], axis=1)


def _split(ring: Ring) -> list[Ring]:
    """Cut a line where it touches itself into lines that do not."""
    found: list[Ring] = []
    path: list[tuple[float, ...]] = []
    seen: dict[tuple[float, ...], int] = {}
    for vertex in map(tuple, ring.tolist()):
        if vertex in seen:
            start = seen[vertex]
            found.append(np.array(path[start:]))
            for each in path[start + 1 :]:
                del seen[each]
            del path[start + 1 :]
        else:
            seen[vertex] = len(path)
            path.append(vertex)
    return [*found, np.array(path)]


def _area(ring: Ring) -> float:
    """The enclosed area; positive for an outline, negative for a hole."""
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2


def _surrounds(outer: Ring, hole: Ring) -> bool:
    """Whether a pixel beside the hole's first edge lies inside the outer line."""
    (x0, y0), (x1, y1) = hole[0], hole[1]
    middle = np.array([x0 + np.sign(x1 - x0) / 2, y0 + np.sign(y1 - y0) / 2])
    x, y = (outer - middle).T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    crosses = (y <= 0) != (next_y <= 0)
    at = x[crosses] - y[crosses] * (next_x - x)[crosses] / (next_y - y)[crosses]
    return bool(np.count_nonzero(at > 0) % 2)
