"""Random fields, textures, patterns and crops of photographs at any image size.

Banks are built once per process with a fixed seed, so that a sample depends on its own seed only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from simmat_research.canvas import Floats, Shape, log_uniform

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cat", "coffee", "grass", "gravel", "hubble_deep_field",
    "immunohistochemistry", "moon", "retina", "rocket",
)  # fmt: skip
"""Photographs in the wheel of scikit-image (`skimage.data`); none of them is a test image."""
_BANK_SIZE = 384
"""Side of the periodic textures in pixels."""
_BANK = (_BANK_SIZE, _BANK_SIZE)


def smooth_field(rng: Generator, shape: Shape, length: float) -> Floats:
    """Smooth random field of zero mean and unit variance.

    Parameters
    ----------
    length
        Correlation length in pixels; the field is a cubic B-spline with knots that far apart.
    """
    length = max(float(length), 2.0)
    (rows, row_weights), (columns, column_weights) = (
        _spline(n, length, rng.random()) for n in shape
    )
    knots = rng.standard_normal((rows[-1] + 4, columns[-1] + 4)).astype(np.float32)
    # Sums of four taps instead of matrix products: bit-equal for any number of BLAS threads.
    field = sum(row_weights[k][:, None] * knots[rows + k] for k in range(4))
    field = sum(column_weights[k] * field[:, columns + k] for k in range(4))
    # 0.479 is the mean sum of squared weights of a cubic B-spline along one axis.
    return np.asarray(field / np.float32(0.479), np.float32)


def _spline(n: int, length: float, offset: float) -> tuple[NDArray[np.intp], Floats]:
    """First knot (n,) at every pixel, and weights (4, n) of that knot and the next three."""
    position = np.arange(n) / length + offset
    knot = position.astype(np.intp)
    t = position - knot
    pieces = (1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3
    return knot, (np.stack(pieces) / 6).astype(np.float32)


def texture(rng: Generator, shape: Shape, kind: str | None = None) -> Floats:
    """Crop of a texture from the bank, zero mean and unit variance, clipped to +-3.

    Parameters
    ----------
    kind
        ``"cloud"``, ``"band"``, ``"stripes"``, ``"speckle"``, ``"blotches"``, ``"spots"`` or
        ``"grain"``; any of them by default.
    """
    bank = texture_bank()
    choices = bank[kind] if kind else bank[str(rng.choice(list(bank)))]
    tile = choices[rng.integers(len(choices))]
    if rng.random() < 0.5:
        tile = tile.T
    places: list[NDArray[np.intp]] = []
    for n, m in zip(shape, tile.shape, strict=True):
        indices = (rng.integers(m) + np.arange(n)) % m
        places.append(indices[::-1] if rng.random() < 0.5 else indices)
    return tile[places[0][:, None], places[1]]


@lru_cache(maxsize=1)
def texture_bank() -> dict[str, list[Floats]]:
    """Periodic textures by kind; built on first use, equal in every process."""
    rng = np.random.default_rng(20240501)
    makers: dict[str, Callable[[Generator], NDArray[np.floating]]] = {
        "cloud": _cloud,
        "band": _band,
        "stripes": _stripes,
        "speckle": lambda rng: _soft(rng.exponential(1, _BANK), rng.uniform(0.5, 1.8)),
        "blotches": _blotches,
        "spots": _spots,
        "grain": lambda rng: _soft(rng.standard_normal(_BANK), rng.uniform(0.3, 1.2)),
    }
    tiles = {kind: [make(rng) for _ in range(8)] for kind, make in makers.items()}
    return {kind: [_standardized(tile, 1e-6) for tile in own] for kind, own in tiles.items()}


def _cloud(rng: Generator) -> NDArray[np.floating]:
    frequency = np.hypot(*_frequencies())
    return _filtered(rng, np.maximum(frequency, 3 / _BANK_SIZE) ** -rng.uniform(0.5, 2.5))


def _band(rng: Generator, highest: float = 0.3, width: float = 0.3) -> NDArray[np.floating]:
    frequency, center = np.hypot(*_frequencies()), log_uniform(rng, 0.02, highest)
    return _filtered(rng, np.exp(-(((frequency - center) / (width * center)) ** 2)))


def _stripes(rng: Generator) -> NDArray[np.floating]:
    fy, fx = _frequencies()
    center, angle = log_uniform(rng, 0.02, 0.3), rng.uniform(0, np.pi)
    gain = sum(
        np.exp(
            -((fx - s * center * np.cos(angle)) ** 2 + (fy - s * center * np.sin(angle)) ** 2)
            / (0.25 * center) ** 2
        )
        for s in (1, -1)
    )
    return _filtered(rng, np.asarray(gain))


def _blotches(rng: Generator) -> NDArray[np.floating]:
    values = _band(rng, highest=0.15, width=0.5)
    return _soft(values > rng.uniform(-0.5, 1) * values.std(), 0.6)


def _spots(rng: Generator) -> NDArray[np.floating]:
    seeds = rng.random(_BANK) < rng.uniform(0.003, 0.03)
    return _soft(seeds, rng.uniform(0.8, 3))


def _soft(values: NDArray[Any], sigma: float) -> NDArray[np.floating]:
    """A periodic field, blurred by `sigma` pixels."""
    return np.asarray(ndi.gaussian_filter(values.astype(float), sigma, mode="wrap"))


def _filtered(rng: Generator, gain: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.fft.irfft2(np.fft.rfft2(rng.standard_normal(_BANK)) * gain, _BANK)


def _frequencies() -> tuple[Floats, Floats]:
    return (
        np.fft.fftfreq(_BANK_SIZE)[:, None].astype(np.float32),
        np.fft.rfftfreq(_BANK_SIZE)[None].astype(np.float32),
    )


def _standardized(values: NDArray[np.floating], least: float = 0.0) -> Floats:
    values = (values - values.mean()) / (values.std() + least)
    return np.asarray(np.clip(values, -3, 3), np.float32)


def photograph(rng: Generator, shape: Shape) -> Floats:
    """Crop of a photograph (H, W, 3) in 0..1 at a random scale, mirrored beyond its edges."""
    photographs = _photographs()
    picture = photographs[rng.integers(len(photographs))]
    step, places = log_uniform(rng, 0.5, 1.6), list[NDArray[np.intp]]()
    for n, m in zip(shape, picture.shape, strict=False):
        indices = (rng.integers(2 * m) + np.arange(n) * step).astype(np.intp) % (2 * m)
        places.append(np.minimum(indices, 2 * m - 1 - indices))  # there and back
    crop = picture[places[0][:, None], places[1]].astype(np.float32) / 255
    return crop.transpose(1, 0, 2) if shape[0] == shape[1] and rng.random() < 0.5 else crop


@lru_cache(maxsize=1)
def _photographs() -> tuple[NDArray[np.uint8], ...]:
    from skimage import data

    pictures = []
    for name in PHOTOGRAPHS:
        picture = np.asarray(getattr(data, name)())
        picture = picture[..., None].repeat(3, axis=2) if picture.ndim == 2 else picture[..., :3]
        stride = max(1, round(min(picture.shape[:2]) / 512))
        if stride > 1:
            picture = ndi.uniform_filter(picture, (stride, stride, 1))[::stride, ::stride]
        pictures.append(np.ascontiguousarray(picture, dtype=np.uint8))
    return tuple(pictures)


# The benchmark's surfaces, which pretraining never sees.

_TILE_SIDE = 256
"""Side of a tile in pixels."""
_TILE_COUNT = 4
"""Tiles of each kind."""


def pattern(rng: Generator, shape: Shape, kind: str | None = None) -> Floats:
    """Crop of a pattern, zero mean and unit variance, clipped to +-3.

    Parameters
    ----------
    kind
        A name in `PATTERNS`; any by default.
    """
    tiles = _pattern_tiles(kind or str(rng.choice(list(PATTERNS))))
    tile = tiles[rng.integers(len(tiles))]
    tile = tile.T if rng.random() < 0.5 else tile
    rows, columns = (
        (rng.integers(_TILE_SIDE) + rng.choice([-1, 1]) * np.arange(n)) % _TILE_SIDE for n in shape
    )
    return np.asarray(tile[rows[:, None], columns])


@cache
def _pattern_tiles(kind: str) -> list[Floats]:
    # The seed is fixed, so that a sample depends on its own seed only.
    rng = np.random.default_rng([20_250_301, list(PATTERNS).index(kind)])
    return [_standardized(_soft(PATTERNS[kind](rng), 0.4)) for _ in range(_TILE_COUNT)]


def worley(rng: Generator) -> NDArray[np.floating]:
    """Walls between the cells of scattered points (Worley, SIGGRAPH 1996)."""
    points = rng.uniform(0, _TILE_SIDE, (int(np.exp(rng.uniform(4.0, 7.0))), 2))
    pixels = np.mgrid[:_TILE_SIDE, :_TILE_SIDE].reshape(2, -1).T + 0.5
    first, second = cKDTree(points, boxsize=_TILE_SIDE).query(pixels, k=2)[0].T
    walls = np.tanh((second - first) / rng.uniform(1.5, 4))
    return np.asarray(walls.reshape(_TILE_SIDE, _TILE_SIDE))


def weierstrass(rng: Generator) -> NDArray[np.floating]:
    """A fractal of plane waves (Weierstrass-Mandelbrot function, Berry and Lewis 1980)."""
    y, x = 2 * np.pi * np.mgrid[:_TILE_SIDE, :_TILE_SIDE] / _TILE_SIDE
    roughness = rng.uniform(0.2, 0.8)
    values = np.zeros((_TILE_SIDE, _TILE_SIDE))
    for octave in range(1, 7):
        for angle in rng.uniform(0, np.pi, 4):  # an integer number of waves: the tile is periodic
            v, u = np.rint(1.9**octave * np.array([np.sin(angle), np.cos(angle)]))
            values += 1.9 ** (-roughness * octave) * np.cos(v * y + u * x + rng.uniform(0, 6.28))
    return values


def labyrinth(rng: Generator) -> NDArray[np.floating]:
    """Stripes that bend and branch, or dots: the equation of Swift and Hohenberg (1977).

    u' = r u - (1 + nabla^2)^2 u + g u^2 - u^3, in time steps implicit in the linear part.
    """
    wavelength, asymmetry = float(rng.choice([5, 8, 12])), float(rng.choice([0.0, 1.0]))
    fy, fx = np.fft.fftfreq(_TILE_SIDE)[:, None], np.fft.rfftfreq(_TILE_SIDE)[None]
    growth = 0.3 - (1 - wavelength**2 * (fy**2 + fx**2)) ** 2
    u = 0.3 * rng.standard_normal((_TILE_SIDE, _TILE_SIDE))
    for _ in range(40):
        change = np.fft.rfft2(u + asymmetry * u**2 - u**3)
        u = np.fft.irfft2(change / (1 - growth), (_TILE_SIDE, _TILE_SIDE))
    return u


def truchet(rng: Generator) -> NDArray[np.floating]:
    """Quarter circles in randomly rotated tiles, which join to a line (Smith, Leonardo 1987)."""
    side = int(rng.choice([8, 16, 32]))
    y, x = np.mgrid[:side, :side] + 0.5
    away = [
        np.abs(np.minimum(np.hypot(y, u), np.hypot(side - y, side - u)) - side / 2)
        for u in (x, side - x)
    ]
    kinds = rng.integers(2, size=(_TILE_SIDE // side, _TILE_SIDE // side))
    lines = np.stack(away)[kinds].transpose(0, 2, 1, 3).reshape(_TILE_SIDE, _TILE_SIDE)
    return np.asarray(np.exp(-((lines / (rng.uniform(0.08, 0.16) * side)) ** 2)))


def weave(rng: Generator) -> NDArray[np.floating]:
    """Cloth: threads that pass over and under each other, each lit like a round rod."""
    pitch = int(rng.choice([4, 8, 16]))
    y, x = np.mgrid[:_TILE_SIDE, :_TILE_SIDE]
    over = (y // pitch + x // pitch) % 2 == 0
    across = np.where(over, y, x) % pitch
    thread = np.sqrt(np.maximum(0, 1 - (2 * (across + 0.5) / pitch - 1) ** 2))
    sheen = rng.uniform(-0.4, 0.4) * over
    tints = rng.normal(0, 0.15, (2, _TILE_SIDE // pitch))
    return np.asarray(thread + sheen + np.where(over, tints[0][y // pitch], tints[1][x // pitch]))


PATTERNS: dict[str, Callable[[Generator], NDArray[np.floating]]] = {
    "worley": worley,
    "weierstrass": weierstrass,
    "labyrinth": labyrinth,
    "truchet": truchet,
    "weave": weave,
}
"""Name -> maker of a periodic tile of 256 x 256 pixels. A new pattern is a new row."""
