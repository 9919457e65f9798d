"""Outlines of masks: through the middles of pixels' edges, or along the edges as polygons.

Vertices are x, y with pixel corners at whole numbers, as in `engine.outlines`, which fills either
kind with exactly the mask's pixels.
"""

from __future__ import annotations

import numpy as np

from napari_simmat.engine.masks import Mask
from napari_simmat.engine.outlines import Ring


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
