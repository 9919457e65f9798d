"""The shape of one object: outline, axes, hull, in pixels of any shape or in a unit of length."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Edges = tuple[tuple[float, ...], ...]
"""(n, n), the edges of a pixel or voxel along its axes, (Z,) Y, X, as columns."""
LENGTHS = {
    2: ("perimeter", "major_axis", "minor_axis", "feret_max", "feret_min", "equivalent_diameter"),
    3: ("surface", "major_axis", "middle_axis", "minor_axis", "equivalent_diameter"),
}
"""What has a unit, by the number of axes; the surface has its square."""
RATIOS = {
    2: ("eccentricity", "solidity", "orientation_deg", "circularity", "aspect_ratio"),
    3: ("sphericity",),
}
"""What has none, or always the same."""
_ROUND = 1e-9
"""An object of which the variances along its axes differ by a smaller part has no direction."""


class ObjectShape:
    """The shape of an object in its box, whatever the size of a pixel is.

    Parameters
    ----------
    mask
        (Y, X) or (Z, Y, X) bool, at least one voxel.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._mask = mask
        self.area = int(np.count_nonzero(mask))
        # Whole numbers as floats are exact, and so is the sum over any object.
        self._along = [_projection(mask, (axis,)) for axis in range(mask.ndim)]
        self.sums = [int(counts @ np.arange(len(counts))) for counts in self._along]
        """The sum of the indices of all pixels along each axis of the box."""
        self._crossings = _crossings(mask)
        self._covariance = self._of_indices()
        self._hull: tuple[NDArray[np.float64], float] | None = None

    def measure(self, edges: NDArray[np.float64]) -> dict[str, float]:
        """`LENGTHS` and `RATIOS` in the unit of `edges` (n, n), the edges of a pixel as columns.

        The perimeter and the surface are Crofton's, from the crossings of the outline by lines in
        4 and 13 directions. The axes are those of the ellipse or ellipsoid with the same second
        moments, as scikit-image has them. Hull and Feret diameter are those of the outline of the
        pixels, corners included: the largest and the smallest distance of
        two parallel lines that touch it. Circularity and aspect ratio are ImageJ's.
        """
        variances, directions = np.linalg.eigh(edges @ self._covariance @ edges.T)
        # What is left by rounding is none, so that the numbers are the same on all machines.
        variances = np.where(variances > _ROUND**2 * variances[-1], variances, 0.0)[::-1]
        around = self._outline(tuple(map(tuple, edges.tolist())))
        if self._mask.ndim == 3:
            volume = self.area * abs(float(np.linalg.det(edges)))
            axes = 2 * np.sqrt(5 * variances)
            ratio = float(np.cbrt(np.pi) * (6 * volume) ** (2 / 3) / around)
            ball = float(np.cbrt(6 * volume / np.pi))
            found = (around, *axes.tolist(), ball, ratio)
            return dict(zip((*LENGTHS[3], *RATIOS[3]), found, strict=True))
        area = self.area * abs(float(np.linalg.det(edges)))
        axes = 4 * np.sqrt(variances)
        is_round = variances[0] - variances[1] <= _ROUND * variances[0]
        flat = 0.0 if is_round else float(np.sqrt(1 - variances[1] / variances[0]))
        vertices, hull_area = self._outer()
        placed = vertices @ edges.T
        feret = np.linalg.norm(placed[:, np.newaxis] - placed, axis=2).max()
        disc = 2 * float(np.sqrt(area / np.pi))
        lengths = (around, *axes.tolist(), float(feret), _narrowest(placed), disc)
        angle = float("nan") if is_round else _orientation(directions[:, -1])
        circularity = 4 * np.pi * area / around**2
        slender = float(axes[0] / axes[1]) if axes[1] > 0 else float("nan")
        ratios = (flat, self.area / hull_area, angle, circularity, slender)
        return dict(zip((*LENGTHS[2], *RATIOS[2]), (*lengths, *ratios), strict=True))

    def _of_indices(self) -> NDArray[np.float64]:
        """The covariance (n, n) of the indices of the pixels."""
        n_axes = self._mask.ndim
        centered = [
            np.arange(len(counts)) - total / self.area
            for counts, total in zip(self._along, self.sums, strict=True)
        ]
        found = np.empty((n_axes, n_axes))
        for one, other in product(range(n_axes), repeat=2):
            if one == other:
                found[one, one] = self._along[one] @ centered[one] ** 2
            elif one < other:
                together = _projection(self._mask, (one, other))
                found[one, other] = found[other, one] = centered[one] @ together @ centered[other]
        return found / self.area

    def _outline(self, edges: Edges) -> float:
        """Length of the outline or area of the surface (Crofton).

        As MorphoLibJ: Legland et al., Bioinformatics 32, 3532 (2016). A mesh of voxels would be a
        tenth too large.
        """
        weights = _weights(edges)
        return float(sum(w * n for w, n in zip(weights, self._crossings, strict=True)))

    def _outer(self) -> tuple[NDArray[np.float64], float]:
        """Vertices (N, 2) of the convex hull of the corners of all pixels, and its area."""
        from scipy.spatial import ConvexHull

        if self._hull is None:
            rows = np.flatnonzero(self._along[0])
            first = self._mask.argmax(1)[rows]
            end = self._mask.shape[1] - self._mask[:, ::-1].argmax(1)[rows]
            corners = np.array([(rows + down, side) for down in (0, 1) for side in (first, end)])
            hull = ConvexHull(corners.transpose(0, 2, 1).reshape(-1, 2))
            self._hull = hull.points[hull.vertices], float(hull.volume)
        return self._hull


def _narrowest(hull: NDArray[np.float64]) -> float:
    """The smallest distance of two parallel lines between which a hull (N, 2) lies.

    One of them lies along a side of the hull (rotating calipers).
    """
    sides = np.roll(hull, -1, axis=0) - hull
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)
    normals = sides[:, ::-1] * (1, -1)
    across = normals @ hull.T  # (sides, vertices)
    return float(np.ptp(across, axis=1).min())


def _projection(mask: NDArray[np.bool_], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """How many pixels there are at each index along `axes`."""
    others = tuple(axis for axis in range(mask.ndim) if axis not in axes)
    return mask.sum(others, dtype=np.float64) if others else mask.astype(np.float64)


def _orientation(major: NDArray[np.float64]) -> float:
    """Degrees from the axis of the rows' numbers to the major axis, as in scikit-image.

    From -90, not included, to 90: 0 is upright, 90 lies along a row.
    """
    degrees = float(np.degrees(np.arctan2(major[1], major[0])))
    degrees = (degrees + 90) % 180 - 90
    return 90.0 if degrees <= -90 + _ROUND else degrees


def _steps(n_axes: int) -> list[tuple[int, ...]]:
    """Half of the neighbors of a pixel: 4 in two dimensions, 13 in three."""
    return [step for step in product((-1, 0, 1), repeat=n_axes) if step > (0,) * n_axes]


def _crossings(mask: NDArray[np.bool_]) -> list[int]:
    """How often lines through the pixels in each of the directions cross the outline."""
    padded = np.zeros([size + 2 for size in mask.shape], bool)
    padded[(slice(1, -1),) * mask.ndim] = mask
    return [
        int(np.count_nonzero(padded[_moved(step)] != padded[_moved([-each for each in step])]))
        for step in _steps(mask.ndim)
    ]


def _moved(step: Any) -> tuple[slice, ...]:
    return tuple(slice(max(each, 0), min(each, 0) or None) for each in step)


@lru_cache
def _weights(edges: Edges) -> list[float]:
    """What a crossing counts in each of the directions: its part of all, times the lines' distance.

    The part is that of the directions which are nearer to it than to any other.
    """
    matrix = np.array(edges)
    steps = np.array(_steps(len(edges)))
    ends = steps @ matrix.T
    lengths = np.linalg.norm(ends, axis=1)
    shares = _SHARES[len(edges)](ends / lengths[:, np.newaxis])
    weights: list[float] = (shares * abs(np.linalg.det(matrix)) / lengths).tolist()
    return weights


def _shares_of_circle(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Crofton's formula is half the integral over half the circle."""
    angles = np.arctan2(ends[:, 0], ends[:, 1]) % np.pi
    order = np.argsort(angles)
    gaps = np.diff(angles[order], append=angles[order[0]] + np.pi)
    shares = np.empty_like(angles)
    shares[order] = (gaps + np.roll(gaps, 1)) / 2
    return shares / 2


def _shares_of_sphere(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial import SphericalVoronoi

    parts = SphericalVoronoi(np.concatenate([ends, -ends])).calculate_areas()[: len(ends)]
    return np.asarray(parts) / np.pi


_SHARES: dict[int, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    2: _shares_of_circle,
    3: _shares_of_sphere,
}
