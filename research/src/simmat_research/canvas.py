"""The canvas that layouts draw on: region ids, closed outlines, random sizes and places.

Lengths are in pixels, angles in radians, points (y, x). Outlines are closed around the origin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from skimage import draw

Floats: TypeAlias = NDArray[np.floating[Any]]
"""Float32 wherever a public function returns it; double precision may occur on the way."""
Ids: TypeAlias = NDArray[np.int32]
Shape: TypeAlias = tuple[int, int]
"""Height and width in pixels."""
Point: TypeAlias = tuple[float, float]
"""y and x."""
OutlinePoints = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Closed outline around the origin as y (N,) and x (N,)."""
MAX_OBJECTS = 260
"""Largest number of objects in a layout."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """Regions (H, W) of uniform appearance, and the object that each belongs to.

    `objects[region]` is the object's number, 0 for regions that are no object (background,
    fibers). Regions of one object are its parts.
    """

    regions: Ids
    objects: Ids


class RegionCanvas:
    """Region ids (H, W), 0 = background, drawn one region at a time.

    `fill` paints over earlier regions, like a leaf that falls on others. `claim_blob` and
    `claim_rod` let neighbors meet halfway, like touching cells: a pixel belongs to the shape
    whose level function is lowest there (a power diagram of the shapes).
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.regions: Ids = np.zeros(shape, np.int32)
        self._levels = np.full(shape, 1.0, np.float32)
        self.count = 0

    def fill(
        self,
        outline: OutlinePoints,
        center: Point,
        region: int | None = None,
        within: int | None = None,
    ) -> int:
        """Paint the inside of `outline`, shifted to `center`; returns the region's id.

        The id is a new one unless `region` is given. With `within`, only pixels of that region
        are painted.
        """
        if region is None:
            self.count += 1
            region = self.count
        rows, columns = draw.polygon(outline[0] + center[0], outline[1] + center[1], self.shape)
        if within is not None:
            inside = self.regions[rows, columns] == within
            rows, columns = rows[inside], columns[inside]
        self.regions[rows, columns] = region
        return region

    def claim_blob(
        self,
        rng: Generator,
        center: Point,
        radius: float,
        *,
        irregularity: float = 0.05,
        elongation: float = 1.3,
        overlap: float = 0.3,
    ) -> bool:
        """Claim a round shape; False if more than the share `overlap` of it is taken already."""
        stretch = np.sqrt(elongation)
        part = self._part(center, radius * stretch * (1 + 2.5 * irregularity) + 1)
        row, column = round(center[0]), round(center[1])
        inside = 0 <= row < self.shape[0] and 0 <= column < self.shape[1]
        if part is None or (overlap < 0.5 and inside and self.regions[row, column] > 0):
            return False
        window, y, x = part
        angle = rng.uniform(0, np.pi)
        along = (np.cos(angle) * x + np.sin(angle) * y) / (radius * stretch)
        across = (np.cos(angle) * y - np.sin(angle) * x) / radius * stretch
        level = np.hypot(along, across)
        if irregularity > 0:
            direction = np.arctan2(across, along)
            edge = 1.0 + sum(
                irregularity * rng.normal() / (k - 1) * np.cos(k * direction + rng.uniform(0, 6.28))
                for k in range(2, 6)
            )
            level = level / np.clip(edge, 0.4, 1.8)
        return self._claim(window, level, overlap)

    def claim_rod(
        self, center: Point, length: float, width: float, angle: float, bend: float, overlap: float
    ) -> bool:
        """Claim a rod with round ends; `bend` is the sagitta as a fraction of its length."""
        radius, half = width / 2, max(length - width, 0.0) / 2
        part = self._part(center, half + radius * 1.5 + abs(bend) * length + 1)
        if part is None:
            return False
        window, y, x = part
        along = np.cos(angle) * x + np.sin(angle) * y
        across = np.cos(angle) * y - np.sin(angle) * x
        across = across - bend * length * ((2 * along / max(length, 1.0)) ** 2 - 0.5)
        level = np.hypot(np.maximum(np.abs(along) - half, 0), across) / radius
        return self._claim(window, level, overlap)

    def _part(
        self, center: Point, reach: float
    ) -> tuple[tuple[slice, slice], NDArray[np.float32], NDArray[np.float32]] | None:
        """The field within `reach` of `center`, and its y (h, 1) and x (1, w) from there."""
        bounds, places = [], []
        for middle, n in zip(center, self.shape, strict=True):
            start, stop = max(0, int(middle - reach)), min(n, int(middle + reach) + 2)
            if start >= stop:
                return None
            bounds.append(slice(start, stop))
            places.append(np.arange(start, stop, dtype=np.float32) - np.float32(middle))
        return (bounds[0], bounds[1]), places[0][:, None], places[1][None]

    def _claim(
        self, window: tuple[slice, slice], level: NDArray[np.floating], overlap: float
    ) -> bool:
        inside = level < 1
        area = np.count_nonzero(inside)
        if area == 0 or np.count_nonzero(self.regions[window][inside]) > overlap * area:
            return False
        won = level < self._levels[window]
        self.count += 1
        self.regions[window][won] = self.count
        self._levels[window][won] = level[won]
        return True

    def drawing(self, objects: NDArray[np.integer] | list[int] | None = None) -> Drawing:
        """The finished drawing; every region is an object unless `objects` assigns it to one."""
        if objects is None:
            objects = np.arange(max(self.count, int(self.regions.max())) + 1)
        return Drawing(self.regions, np.asarray(objects, np.int32))


def random_outline(rng: Generator, radius: float, kind: str) -> OutlinePoints:
    """Outline of a kind: blob, polygon, rectangle or tube."""
    if kind == "polygon":
        return (rectangle if rng.random() < 0.4 else polygon)(rng, radius)
    if kind == "rectangle":
        return rectangle(rng, radius)
    if kind == "tube":
        width = max(5.0, radius * rng.uniform(0.15, 0.4))
        return tube(rng, radius * rng.uniform(2, 5), width)
    return blob(rng, radius, float(rng.choice([0.0, 0.05, 0.12, 0.22])), rng.uniform(1, 1.9))


def blob(
    rng: Generator, radius: float, irregularity: float = 0.1, elongation: float = 1.3
) -> OutlinePoints:
    """Round outline whose radius varies by a few random harmonics."""
    theta = np.linspace(0, 2 * np.pi, int(np.clip(radius * 1.5, 24, 120)), endpoint=False)
    edge = np.ones_like(theta)
    for k in range(2, 7):
        edge += irregularity * rng.normal() / (k - 1) * np.cos(k * theta + rng.uniform(0, 6.28))
    edge = radius * np.clip(edge, 0.3, 2.0)
    stretch = np.sqrt(elongation)
    return rotation(rng)(edge * np.sin(theta) / stretch, edge * np.cos(theta) * stretch)


def rectangle(rng: Generator, radius: float) -> OutlinePoints:
    """Rectangle, upright in one case of three."""
    height, width = radius * rng.uniform(0.4, 1.1), radius * rng.uniform(0.6, 1.5)
    y, x = np.array([-height, -height, height, height]), np.array([-width, width, width, -width])
    return (y, x) if rng.random() < 0.33 else rotation(rng)(y, x)


def polygon(rng: Generator, radius: float) -> OutlinePoints:
    """Polygon of 3 to 8 corners, or a star."""
    corners = int(rng.integers(3, 9))
    if rng.random() < 0.75:
        theta = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
        edge = radius * rng.uniform(0.75, 1.3, corners)
    else:
        theta = np.linspace(0, 2 * np.pi, 2 * corners, endpoint=False)
        edge = radius * np.tile([1.25, rng.uniform(0.5, 0.85)], corners)
    return rotation(rng)(edge * np.sin(theta), edge * np.cos(theta))


def tube(rng: Generator, length: float, width: float) -> OutlinePoints:
    """Winding tube of about constant `width`."""
    n = int(np.clip(length / max(width, 3.0) * 2, 8, 60))
    turns = np.interp(np.linspace(0, 4, n), np.arange(5), rng.normal(0, rng.uniform(0.3, 1.6), 5))
    heading = rng.uniform(0, 6.28) + np.cumsum(turns) * 4 / n
    y, x = np.cumsum(np.sin(heading)) * length / n, np.cumsum(np.cos(heading)) * length / n
    y, x = y - y.mean(), x - x.mean()
    half = width / 2 * (1 + rng.uniform(0, 0.25) * np.sin(np.linspace(0, rng.uniform(1, 9), n)))
    dy, dx = np.cos(heading) * half, -np.sin(heading) * half
    return np.concatenate([y + dy, (y - dy)[::-1]]), np.concatenate([x + dx, (x - dx)[::-1]])


def rotation(
    rng: Generator, angle: float | None = None
) -> Callable[[NDArray[np.floating], NDArray[np.floating]], OutlinePoints]:
    """A rotation about the origin, by a random angle unless one is given."""
    angle = rng.uniform(0, 2 * np.pi) if angle is None else angle
    cosine, sine = np.cos(angle), np.sin(angle)
    return lambda y, x: (cosine * y + sine * x, cosine * x - sine * y)


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """Random number between `low` and `high`; all octaves are equally likely."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(high, low)))))


def random_position(rng: Generator, shape: Shape, margin: float = 0.0) -> Point:
    """Random point in the field, at least `margin` from its edges (negative: beyond them)."""
    y, x = (rng.uniform(min(margin, n / 2 - 1), max(n - margin, n / 2 + 1)) for n in shape)
    return y, x


def as_point(point: NDArray[np.floating]) -> Point:
    """Convert an array of two numbers to a point (y, x)."""
    return float(point[0]), float(point[1])


def direction(angle: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors (..., 2) as y, x."""
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def lattice(
    rng: Generator, shape: Shape, across: float, along: float, angle: float
) -> NDArray[np.float64]:
    """Points (N, 2) of a brick pattern rotated by `angle`, within the field; at most 4000."""
    reach = np.hypot(*shape) / 2
    rows = np.arange(-reach, reach, max(across, 2.0)) + rng.uniform(0, across)
    columns = np.arange(-reach, reach, max(along, 2.0)) + rng.uniform(0, along)
    v, u = np.meshgrid(rows, columns, indexing="ij")
    u = u + (np.arange(len(rows)) % 2)[:, None] * along / 2
    y = np.cos(angle) * v + np.sin(angle) * u + shape[0] / 2
    x = np.cos(angle) * u - np.sin(angle) * v + shape[1] / 2
    points = np.stack([y.ravel(), x.ravel()], axis=1)
    inside = ((points > -across) & (points < np.asarray(shape) + across)).all(axis=1)
    return points[inside][:4000]
