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
        For each polygon its outline, then its holes, which run in the opposite direction. The
        polygons are valid as the Simple Features standard (OGC 06-103r4) has them: no line crosses
        or touches itself. They and their vertices are in a fixed order.
    """
    import shapely
    from shapely.geometry.polygon import orient

    outer, *others = [_along_edges(line) for line in contours(mask, corner)]
    # Whichever lines are holes, and where lines touch: what is inside an odd number is the area.
    area = shapely.normalize(shapely.make_valid(shapely.Polygon(outer, others)))
    parts = [orient(part) for part in shapely.get_parts(area)]
    rings = [[part.exterior, *part.interiors] for part in parts]
    return [[shapely.get_coordinates(ring)[:-1] for ring in part] for part in rings]


def _along_edges(line: Ring) -> Ring:
    """The corners of the pixel edges whose middles are the vertices of a contour."""
    after = np.roll(line, -1, axis=0)
    on_vertical = line[:, 0] % 1 == 0  # x is whole: the edge between two columns
    turns = on_vertical != (after[:, 0] % 1 == 0)
    first, second, vertical = line[turns], after[turns], on_vertical[turns]
    x = np.where(vertical, first[:, 0], second[:, 0])
    y = np.where(vertical, second[:, 1], first[:, 1])
    return np.stack([x, y], axis=1)
