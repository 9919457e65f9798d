"""Surfaces of the benchmark: textures that no pretraining draws, from a bank of periodic tiles.

The bank is built once per process with a fixed seed, so that a sample depends on its own seed only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from napari_simmat.learn.scenes.arrays import Floats, Shape

_SIDE = 256
_TILES = 4


def pattern(rng: np.random.Generator, shape: Shape, kind: str | None = None) -> Floats:
    """Crop of a pattern, zero mean and unit variance, clipped to +-3.

    Parameters
    ----------
    rng, shape
        Source of randomness; height and width in pixels.
    kind
        A name in `PATTERNS`; any by default.
    """
    tiles = _tiles(kind or str(rng.choice(list(PATTERNS))))
    tile = tiles[rng.integers(len(tiles))]
    tile = tile.T if rng.random() < 0.5 else tile
    rows, columns = (
        (rng.integers(_SIDE) + rng.choice([-1, 1]) * np.arange(n)) % _SIDE for n in shape
    )
    return np.asarray(tile[rows[:, None], columns])


def worley(rng: np.random.Generator) -> NDArray[np.floating]:
    """Walls between the cells of scattered points (Worley, SIGGRAPH 1996)."""
    points = rng.uniform(0, _SIDE, (int(np.exp(rng.uniform(4.0, 7.0))), 2))
    first, second = cKDTree(points, boxsize=_SIDE).query(_pixels(), k=2)[0].T
    walls = np.tanh((second - first) / rng.uniform(1.5, 4))
    return np.asarray(walls.reshape(_SIDE, _SIDE))


def weierstrass(rng: np.random.Generator) -> NDArray[np.floating]:
    """A fractal of plane waves (Weierstrass-Mandelbrot function, Berry and Lewis 1980)."""
    y, x = 2 * np.pi * np.mgrid[:_SIDE, :_SIDE] / _SIDE
    roughness = rng.uniform(0.2, 0.8)
    values = np.zeros((_SIDE, _SIDE))
    for octave in range(1, 7):
        for angle in rng.uniform(0, np.pi, 4):  # whole numbers of waves, so that the tile repeats
            v, u = np.rint(1.9**octave * np.array([np.sin(angle), np.cos(angle)]))
            values += 1.9 ** (-roughness * octave) * np.cos(v * y + u * x + rng.uniform(0, 6.28))
    return values


def labyrinth(rng: np.random.Generator) -> NDArray[np.floating]:
    """Stripes that bend and branch, or dots: the equation of Swift and Hohenberg (1977).

    u' = r u - (1 + nabla^2)^2 u + g u^2 - u^3, in steps that are implicit in the linear part.
    """
    wavelength, asymmetry = float(rng.choice([5, 8, 12])), float(rng.choice([0.0, 1.0]))
    fy, fx = np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None]
    growth = 0.3 - (1 - wavelength**2 * (fy**2 + fx**2)) ** 2
    u = 0.3 * rng.standard_normal((_SIDE, _SIDE))
    for _ in range(40):
        change = np.fft.rfft2(u + asymmetry * u**2 - u**3)
        u = np.fft.irfft2(change / (1 - growth), (_SIDE, _SIDE))
    return u


def truchet(rng: np.random.Generator) -> NDArray[np.floating]:
    """Quarter circles in tiles turned at random, which join to a line (Smith, Leonardo 1987)."""
    side = int(rng.choice([8, 16, 32]))
    y, x = np.mgrid[:side, :side] + 0.5
    away = [
        np.abs(np.minimum(np.hypot(y, u), np.hypot(side - y, side - u)) - side / 2)
        for u in (x, side - x)
    ]
    kinds = rng.integers(2, size=(_SIDE // side, _SIDE // side))
    lines = np.stack(away)[kinds].transpose(0, 2, 1, 3).reshape(_SIDE, _SIDE)
    return np.asarray(np.exp(-((lines / (rng.uniform(0.08, 0.16) * side)) ** 2)))


def weave(rng: np.random.Generator) -> NDArray[np.floating]:
    """Cloth: threads that pass over and under each other, each lit as a round rod."""
    pitch = int(rng.choice([4, 8, 16]))
    y, x = np.mgrid[:_SIDE, :_SIDE]
    over = (y // pitch + x // pitch) % 2 == 0
    across = np.where(over, y, x) % pitch
    thread = np.sqrt(np.maximum(0, 1 - (2 * (across + 0.5) / pitch - 1) ** 2))
    sheen = rng.uniform(-0.4, 0.4) * over
    tints = rng.normal(0, 0.15, (2, _SIDE // pitch))
    return np.asarray(thread + sheen + np.where(over, tints[0][y // pitch], tints[1][x // pitch]))


PATTERNS: dict[str, Callable[[np.random.Generator], NDArray[np.floating]]] = {
    "worley": worley,
    "weierstrass": weierstrass,
    "labyrinth": labyrinth,
    "truchet": truchet,
    "weave": weave,
}
"""Name -> maker of a periodic tile of 256 x 256 pixels. A new pattern is a new row."""


@cache
def _tiles(kind: str) -> list[Floats]:
    rng = np.random.default_rng([20_250_301, list(PATTERNS).index(kind)])
    tiles = [ndi.gaussian_filter(PATTERNS[kind](rng), 0.4, mode="wrap") for _ in range(_TILES)]
    return [np.clip((tile - tile.mean()) / tile.std(), -3, 3).astype(np.float32) for tile in tiles]


def _pixels() -> NDArray[np.floating]:
    return np.asarray(np.mgrid[:_SIDE, :_SIDE].reshape(2, -1).T + 0.5)
