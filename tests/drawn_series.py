"""Drawn time series of cells that move, grow, push each other and divide."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Ids = NDArray[np.int32]


def draw_series(
    seed: int, shape: tuple[int, int, int] = (24, 256, 256), count: int = 12
) -> tuple[NDArray[np.uint16], Ids, dict[int, int]]:
    """Draw cells that move, grow and divide, as a fluorescence microscope sees them over time.

    Parameters
    ----------
    seed
        Equal seeds give equal series.
    shape
        (T, Y, X).
    count
        Number of cells on the first frame.

    Returns
    -------
    series
        Uint16 (T, Y, X).
    labels
        Int32 (T, Y, X); a cell keeps its id until it divides.
    parents
        For each daughter the id of its mother.
    """
    rng = np.random.default_rng(seed)
    frames, height, width = shape
    size = np.array([height, width], float)
    radius = float(0.32 * math.sqrt(height * width / count) / 2)
    cells = [
        _Cell(number, at, radius * float(rng.uniform(0.85, 1.3)), float(rng.uniform(0, math.pi)))
        for number, at in enumerate(_scattered(rng, size, count, 2.6 * radius), start=1)
    ]
    levels = {cell.id: float(rng.uniform(0.5, 1.0)) for cell in cells}
    labels, light = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    parents: dict[int, int] = {}
    for frame in range(frames):
        if frame:
            cells = _moved(rng, cells, 1.4 * radius, levels, parents)
            _push_cells_apart(cells, size)
        labels[frame] = _painted(cells, (height, width))
        brightness = np.zeros(max(levels) + 1)
        brightness[list(levels)] = list(levels.values())
        light[frame] = np.where(labels[frame] > 0, brightness[labels[frame]], 0.1)
    grain = rng.normal(size=shape)
    grain = ndi.gaussian_filter(grain, (0, 2, 2))
    light *= 1 + 0.15 * grain / grain.std() * (labels > 0)
    light = ndi.gaussian_filter(light, (0, 1.0, 1.0))
    counts = 20 * rng.poisson(120 * np.clip(light, 0, None)) + rng.normal(100, 20, shape)
    return np.clip(counts, 0, 65535).astype(np.uint16), labels, parents


@dataclass
class _Cell:
    """A cell of a series: its id, center (y, x), radius and the direction of its long axis."""

    id: int
    at: NDArray[np.float64]
    radius: float
    angle: float
    speed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))


def _scattered(
    rng: np.random.Generator, size: NDArray[np.float64], count: int, apart: float
) -> list[NDArray[np.float64]]:
    """Positions at least `apart` from each other, as far as there is room."""
    places: list[NDArray[np.float64]] = []
    for _ in range(5000):
        at = rng.uniform(0.08, 0.92, 2) * size
        if all(math.dist(at, other) > apart for other in places):
            places.append(at)
        if len(places) == count:
            break
    return places


def _moved(
    rng: np.random.Generator,
    cells: list[_Cell],
    largest: float,
    levels: dict[int, float],
    parents: dict[int, int],
) -> list[_Cell]:
    """The cells a frame later; those larger than `largest` have divided."""
    after: list[_Cell] = []
    for cell in cells:
        speed = 0.7 * cell.speed + rng.normal(0, 0.1 * cell.radius, 2)
        angle = cell.angle + float(rng.normal(0, 0.1))
        if cell.radius < largest:
            grown = cell.radius * float(rng.uniform(1.01, 1.035))
            after.append(_Cell(cell.id, cell.at + speed, grown, angle, speed))
            continue
        along = np.array([math.sin(angle), math.cos(angle)])
        for side in (-1, 1):
            number = max(levels) + 1
            levels[number] = levels[cell.id] * float(rng.uniform(0.9, 1.1))
            parents[number] = cell.id
            at = cell.at + side * 0.75 * cell.radius * along
            after.append(_Cell(number, at, cell.radius / math.sqrt(2), angle + math.pi / 2))
    return after


def _push_cells_apart(cells: list[_Cell], size: NDArray[np.float64]) -> None:
    """Move cells that overlap, and those that leave the image."""
    for _ in range(8):
        for one, other in itertools.combinations(cells, 2):
            between = other.at - one.at
            far = max(float(np.hypot(*between)), 1e-6)
            lacking = 0.95 * (one.radius + other.radius) - far
            if lacking > 0:
                one.at = one.at - between / far * lacking / 2
                other.at = other.at + between / far * lacking / 2
        for cell in cells:
            cell.at = np.clip(cell.at, cell.radius, size - cell.radius)


def _painted(cells: list[_Cell], shape: tuple[int, int]) -> Ids:
    """Ellipses (Y, X); a contested pixel belongs to the nearer one."""
    y, x = np.indices(shape, dtype=np.float32)
    labels, level = np.zeros(shape, np.int32), np.ones(shape, np.float32)
    for cell in cells:
        sine, cosine = math.sin(cell.angle), math.cos(cell.angle)
        dy, dx = y - cell.at[0], x - cell.at[1]
        long, short = dy * sine + dx * cosine, dx * sine - dy * cosine
        far = np.hypot(long / (1.15 * cell.radius), short / (0.87 * cell.radius))
        nearest = far < level
        labels[nearest], level[nearest] = cell.id, far[nearest]
    return labels
