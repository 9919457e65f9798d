"""Layouts of the benchmark: arrangements of figures that no pretraining draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_simmat.learn.scenes.arrays import Shape
from napari_simmat.learn.scenes.canvas import Canvas, Drawing
from napari_simmat.learn.scenes.figures import FIGURES, Figure, gear, letter, sector
from napari_simmat.learn.scenes.layouts import Layout
from napari_simmat.learn.scenes.placing import anywhere, log_uniform, pair

_MOST = 60
"""As many figures as an arrangement draws at most."""
_SMALLEST = 5.0
"""Radius in pixels of the smallest figure."""
_GOLDEN = np.pi * (3 - np.sqrt(5))


def strewn(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Figures at points that keep a distance (Poisson disks, Bridson 2007), some of them touch."""
    canvas = Canvas(shape)
    kinds = _kinds(rng, int(rng.integers(1, 4)))
    distance = log_uniform(rng, 2.4 * _SMALLEST, max(16.0, 0.4 * min(shape)))
    size = rng.uniform(0.4, 0.62) * distance
    for point in _apart(rng, shape, distance):
        _paint(rng, canvas, kinds, pair(point), max(_SMALLEST, size * rng.uniform(0.75, 1.25)))
    return canvas.drawing()


def stacks(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Heaps of like figures, each shifted a little against the one beneath."""
    canvas = Canvas(shape)
    for _ in range(int(rng.integers(1, 6))):
        kinds = _kinds(rng, 1)
        radius = max(8.0, log_uniform(rng, 0.05, 0.24) * min(shape))
        spot, heading = np.asarray(anywhere(rng, shape, margin=radius)), rng.uniform(0, 2 * np.pi)
        step = radius * rng.uniform(0.6, 1.5)
        for _ in range(int(rng.integers(3, 11))):
            _paint(rng, canvas, kinds, pair(spot), max(_SMALLEST, radius * rng.uniform(0.85, 1.1)))
            spot = spot + step * np.array([np.sin(heading), np.cos(heading)])
            heading += rng.normal(0, 0.5)
    return canvas.drawing()


def lines(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Rows of letters, close enough to touch, with gaps between words."""
    canvas = Canvas(shape)
    radius = log_uniform(rng, 6, max(9.0, 0.16 * min(shape)))
    pitch, spacing = radius * rng.uniform(2.1, 3.2), radius * rng.uniform(1.5, 2.1)
    tilt = rng.normal(0, 0.25)
    along = np.array([np.sin(tilt), np.cos(tilt)])
    down = np.array([np.cos(tilt), -np.sin(tilt)])
    middle = np.asarray(shape) / 2 + rng.uniform(-0.2, 0.2, 2) * shape
    rows = int(rng.integers(1, max(2, int(shape[0] / pitch)) + 1))
    for row in range(rows):
        x = -0.5 * shape[1] * rng.uniform(0.6, 1)
        while x < 0.5 * shape[1] * rng.uniform(0.6, 1) and canvas.count < _MOST:
            spot = middle + (row - (rows - 1) / 2) * pitch * down + x * along
            _fill(canvas, letter(rng, radius), pair(spot))
            x += spacing * (1.8 if rng.random() < 0.15 else 1)
    return canvas.drawing()


def parquet(rng: np.random.Generator, shape: Shape) -> Drawing:
    """A panel cut again and again along wavy lines, with or without joints, some pieces missing."""
    canvas = Canvas(shape)
    size = np.asarray(shape) * rng.uniform(0.55, 1.1, 2)
    pieces = [(np.zeros(2), size)]  # corner and size, as y, x in the panel
    for _ in range(int(log_uniform(rng, 4, 45))):
        areas = np.array([np.prod(extent) for _, extent in pieces])
        corner, extent = pieces.pop(int(rng.choice(len(areas), p=areas / areas.sum())))
        axis = int(extent.argmax() if rng.random() < 0.8 else extent.argmin())
        share = rng.uniform(0.3, 0.7) if rng.random() < 0.6 else 0.5
        if extent[axis] * min(share, 1 - share) < 2 * _SMALLEST:
            pieces.append((corner, extent))
            continue
        cut = np.where(np.arange(2) == axis, share, 1.0)
        pieces.append((corner, extent * cut))
        pieces.append((corner + extent * np.where(cut < 1, cut, 0), extent - extent * (cut % 1)))
    joint = float(rng.choice([0.0, 0.0, 1.0, 2.0]))
    angle = rng.uniform(0, np.pi / 2) if rng.random() < 0.7 else 0.0
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    missing = rng.uniform(0.05, 0.4)
    wavelength = min(shape) * rng.uniform(0.15, 0.5)
    wave, phase = wavelength * rng.uniform(0.06, 0.12), rng.uniform(0, 2 * np.pi, 2)
    for corner, extent in pieces:
        if rng.random() < missing:
            continue
        sides = _rectangle(corner - size / 2 + joint, corner + extent - size / 2 - joint)
        sides = sides + wave * np.sin(2 * np.pi * sides[::-1] / wavelength + phase[:, None])
        _fill(canvas, ((*(turn @ sides),),), (shape[0] / 2, shape[1] / 2))
    return canvas.drawing()


def dial(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Rings around a centre, cut into sectors, with or without joints, some missing."""
    canvas = Canvas(shape)
    centre = anywhere(rng, shape, margin=0.3 * min(shape))
    radius = log_uniform(rng, 4, max(5.0, 0.08 * min(shape)))
    if rng.random() < 0.6:
        _fill(canvas, gear(rng, radius + 2), centre)
    joint, missing = float(rng.choice([0.0, 0.0, 2.0])), rng.uniform(0, 0.4)
    for _ in range(int(rng.integers(1, 5))):
        outer = radius + max(9.0, log_uniform(rng, 0.06, 0.2) * min(shape))
        count = int(
            np.clip(2 * np.pi * outer / max(14.0, rng.uniform(1, 4) * (outer - radius)), 2, 16)
        )
        start = rng.uniform(0, 2 * np.pi)
        for k in range(count):
            if rng.random() < missing or canvas.count >= _MOST:
                continue
            ends = start + 2 * np.pi * np.array([k, k + 1]) / count + [0, -joint / outer]
            _fill(canvas, (sector(radius + joint, outer, *ends),), centre)
        radius = outer
    return canvas.drawing()


def sunflower(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Figures along the spiral of a sunflower's seeds (Vogel 1979), larger further out or not."""
    canvas = Canvas(shape)
    kinds = _kinds(rng, int(rng.integers(1, 3)))
    count = int(log_uniform(rng, 8, _MOST))
    pitch = rng.uniform(0.35, 0.65) * min(shape) / np.sqrt(count)
    centre = np.asarray(anywhere(rng, shape, margin=0.35 * min(shape)))
    growth, turn = rng.uniform(0, 0.6), rng.uniform(0, 2 * np.pi)
    for k in range(1, count + 1):
        angle, away = turn + k * _GOLDEN, pitch * np.sqrt(k)
        spot = centre + away * np.array([np.sin(angle), np.cos(angle)])
        radius = pitch * rng.uniform(0.8, 1.0) * (1 - growth / 2 + growth * np.sqrt(k / count))
        _paint(rng, canvas, kinds, pair(spot), max(_SMALLEST, radius))
    return canvas.drawing()


def giants(rng: np.random.Generator, shape: Shape) -> Drawing:
    """One to three figures up to half of the field, and small ones that lie on and beside them."""
    canvas = Canvas(shape)
    side = min(shape)
    for _ in range(int(rng.integers(1, 4))):
        place = anywhere(rng, shape, margin=0.2 * side)
        _paint(rng, canvas, _kinds(rng, 1), place, side * rng.uniform(0.18, 0.36))
    kinds = _kinds(rng, 2)
    for _ in range(int(rng.integers(2, 12))):
        radius = max(_SMALLEST, side * log_uniform(rng, 0.03, 0.09))
        _paint(rng, canvas, kinds, anywhere(rng, shape), radius)
    return canvas.drawing()


ARRANGEMENTS: dict[str, Layout] = {
    "strewn": strewn,
    "stacks": stacks,
    "lines": lines,
    "parquet": parquet,
    "dial": dial,
    "sunflower": sunflower,
    "giants": giants,
}
"""Name -> layout. A new arrangement is a new row; a test walks all rows."""


def _kinds(rng: np.random.Generator, count: int) -> list[str]:
    return [str(kind) for kind in rng.choice(list(FIGURES), count, replace=False)]


def _paint(
    rng: np.random.Generator,
    canvas: Canvas,
    kinds: list[str],
    centre: tuple[float, float],
    radius: float,
) -> None:
    kind = kinds[rng.integers(len(kinds))]
    _fill(canvas, FIGURES[kind](rng, radius), centre)


def _fill(canvas: Canvas, figure: Figure, centre: tuple[float, float]) -> None:
    """Paint all outlines of a figure as one region."""
    region = None
    for outline in figure:
        region = canvas.fill(outline, centre, region)


def _rectangle(low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points (2, N) as y, x along the sides of a rectangle, some 3 px apart."""
    t = np.arange(0, 1, 3 / max(3.0, *(high - low)))
    there, ahead, back = np.zeros_like(t), t, 1 - t
    unit = np.concatenate([[there, ahead], [ahead, there + 1], [there + 1, back], [back, there]], 1)
    return np.asarray(low[:, None] + (high - low)[:, None] * unit)


def _apart(rng: np.random.Generator, shape: Shape, distance: float) -> NDArray[np.float64]:
    """Points (N, 2) of the field at least `distance` apart, by throwing darts; at most `_MOST`."""
    throws = int(np.clip(4 * shape[0] * shape[1] / distance**2, 12, 400))
    darts = rng.uniform(0, 1, (throws, 2)) * shape
    kept = darts[:1]
    for dart in darts[1:]:
        if len(kept) < _MOST and (np.hypot(*(kept - dart).T) >= distance).all():
            kept = np.vstack([kept, dart])
    return kept
