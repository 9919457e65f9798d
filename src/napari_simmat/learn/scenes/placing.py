"""Random sizes and places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_simmat.learn.scenes.arrays import Shape

MAX_OBJECTS = 260
"""As many things as a layout draws at most."""


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw between `low` and `high` so that each octave is as likely as another."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(high, low)))))


def anywhere(rng: np.random.Generator, shape: Shape, margin: float = 0.0) -> tuple[float, float]:
    """Point (y, x) in the field, `margin` pixels from its edges (negative: beyond them)."""
    y, x = (rng.uniform(min(margin, n / 2 - 1), max(n - margin, n / 2 + 1)) for n in shape)
    return y, x


def pair(point: NDArray[np.floating]) -> tuple[float, float]:
    """Array of two numbers as a point (y, x)."""
    return float(point[0]), float(point[1])


def lattice(
    rng: np.random.Generator, shape: Shape, across: float, along: float, angle: float
) -> NDArray[np.float64]:
    """Points (N, 2) of a brick pattern turned by `angle`, within the field; at most 4000."""
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
