"""Figures and surfaces of the benchmark, which no pretraining draws. Lengths in pixels.

A figure is one or more closed outlines around the origin whose union is one object. Surfaces come
from a bank of periodic tiles, built once per process with a fixed seed, so that a sample depends on
its own seed only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from napari_simmat.scenes.canvas import Floats, Shape
from napari_simmat.scenes.outlines import OutlinePoints

Figure = tuple[OutlinePoints, ...]
_THINNEST = 5.0
"""Narrowest stroke in pixels: an object is labelled from a half-width of 2 px on."""


def polyomino(rng: np.random.Generator, radius: float) -> Figure:
    """Three to eight squares that grew together edge to edge (Golomb 1954), not all in a row."""
    cells = [(0, 0), (0, 1), (1, int(rng.integers(2)))]
    for _ in range(int(rng.integers(0, 2 if radius < 10 else 6))):
        free = {(y + a, x + b) for y, x in cells for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        options = sorted(free - set(cells))
        cells.append(options[rng.integers(len(options))])
    places = np.array(cells) - np.mean(cells, axis=0)
    side = radius / (np.hypot(*places.T).max() + 0.5)
    corners = 0.52 * np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
    turn = _rotation(rng)
    return tuple(turn(*(side * (place + corners)).T) for place in places)


def gear(rng: np.random.Generator, radius: float) -> Figure:
    """A toothed wheel, with a bore in one case of two."""
    teeth = int(rng.integers(5, 9 if radius < 16 else 16))
    theta = (np.arange(teeth)[:, None] + [0, 0.3, 0.45, 0.85]) * 2 * np.pi / teeth
    edge = radius * np.tile([1, 1, *[rng.uniform(0.65, 0.85)] * 2], teeth)
    wheel = edge * np.sin(theta.ravel()), edge * np.cos(theta.ravel())
    if radius < 14 or rng.random() < 0.5:
        return (wheel,)
    bore = rng.uniform(0.2, 0.45) * radius
    angle = np.linspace(0, 2 * np.pi, 32)
    return (_with_hole(wheel, (bore * np.sin(angle), bore * np.cos(angle))),)


_STROKES = {
    "A": ((6, 1), (1, 8), (3, 5)),
    "E": ((0, 6), (0, 2), (3, 5), (6, 8)),
    "F": ((0, 6), (0, 2), (3, 5)),
    "H": ((0, 6), (2, 8), (3, 5)),
    "K": ((0, 6), (3, 2), (3, 8)),
    "L": ((0, 6), (6, 8)),
    "N": ((0, 6), (0, 8), (2, 8)),
    "T": ((0, 2), (1, 7)),
    "U": ((0, 6), (6, 8), (8, 2)),
    "X": ((0, 8), (2, 6)),
    "Y": ((0, 4), (2, 4), (4, 7)),
    "Z": ((0, 2), (2, 6), (6, 8)),
}
"""Strokes of letters between the nodes of a grid of 3 x 3, numbered row by row."""


def letter(rng: np.random.Generator, radius: float) -> Figure:
    """A block letter of straight strokes."""
    strokes = _STROKES[str(rng.choice(list(_STROKES)))]
    half = max(_THINNEST, radius * rng.uniform(0.25, 0.5)) / 2
    reach = np.array([radius - half, (radius - half) * rng.uniform(0.6, 0.9)])
    turn = _rotation(rng, rng.normal(0, 0.3))
    parts = []
    for stroke in strokes:
        ends = (np.array([divmod(node, 3) for node in stroke]) - 1) * reach
        along = (ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))
        out, side = half * along, half * along[::-1] * (1, -1)
        first, last = ends[0] - out, ends[1] + out
        parts.append(turn(*np.array([first - side, first + side, last + side, last - side]).T))
    return tuple(parts)


def spiral(rng: np.random.Generator, radius: float) -> Figure:
    """The band between two turns of an Archimedean spiral."""
    width = max(_THINNEST, radius * rng.uniform(0.16, 0.3))
    turns = np.clip((radius - width / 2) / (1.7 * width), 0.7, 2.4)
    theta = np.linspace(0, 2 * np.pi * turns, int(24 * turns) + 8)
    middle = (radius - width / 2) * (0.1 + 0.9 * theta / theta[-1])
    outer, inner = middle + width / 2, np.maximum(middle - width / 2, 0)
    around, edge = np.concatenate([theta, theta[::-1]]), np.concatenate([outer, inner[::-1]])
    mirror = float(rng.choice([-1, 1]))
    return (_rotation(rng)(mirror * edge * np.sin(around), edge * np.cos(around)),)


def superformula(rng: np.random.Generator, radius: float) -> Figure:
    """A flower with clefts between its petals (superformula, Gielis, Am. J. Botany 90, 2003)."""
    lobes, bluntness = int(rng.integers(3, 6 if radius < 12 else 9)), rng.uniform(0.3, 0.7)
    sharpness = rng.uniform(0.5, 1.2)  # 2 would be a circle
    phi = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    waves = np.abs([np.cos(lobes * phi / 4), np.sin(lobes * phi / 4)]) ** sharpness
    edge = waves.sum(axis=0) ** (1 / bluntness)
    edge = np.maximum(edge / edge.max(), 0.3)
    squeeze = rng.uniform(0.55, 1.0)
    return (_rotation(rng)(radius * squeeze * edge * np.sin(phi), radius * edge * np.cos(phi)),)


def crescent(rng: np.random.Generator, radius: float) -> Figure:
    """A disc partly covered by another."""
    theta = np.linspace(-1, 1, 40) * rng.uniform(1.7, 2.5)
    y, x = radius * np.sin(theta), radius * np.cos(theta)
    hollow = x[0] + rng.uniform(0.05, 0.5) * (x - x[0])
    return (
        _rotation(rng)(
            np.concatenate([y, y[::-1]]), np.concatenate([x, hollow[::-1]]) - 0.3 * radius
        ),
    )


def arc(rng: np.random.Generator, radius: float) -> Figure:
    """A piece of a ring."""
    thick = max(_THINNEST, radius * rng.uniform(0.3, 0.55))
    start = rng.uniform(0, 2 * np.pi)
    return (sector(max(radius - thick, 1.0), radius, start, start + rng.uniform(1.6, 5.4)),)


def sector(inner: float, outer: float, start: float, stop: float) -> OutlinePoints:
    """The piece of a ring between two radii in pixels and two angles in radians."""
    count = max(4, int((stop - start) * outer / 3))
    theta = np.linspace(start, stop, count)
    around = np.concatenate([theta, theta[::-1]])
    edge = np.repeat([outer, inner], count)
    return edge * np.sin(around), edge * np.cos(around)


def arrow(rng: np.random.Generator, radius: float) -> Figure:
    """An arrow with a straight shaft."""
    shaft = max(_THINNEST / radius / 2, rng.uniform(0.12, 0.3))
    neck, wing = rng.uniform(-0.2, 0.3), min(0.85, shaft + rng.uniform(0.25, 0.5))
    y = radius * np.array([0, -wing, -shaft, -shaft, shaft, shaft, wing])
    x = radius * np.array([1, neck, neck, -0.95, -0.95, neck, neck])
    return (_rotation(rng)(y, x),)


FIGURES: dict[str, Callable[[np.random.Generator, float], Figure]] = {
    "polyomino": polyomino,
    "gear": gear,
    "letter": letter,
    "spiral": spiral,
    "superformula": superformula,
    "crescent": crescent,
    "arc": arc,
    "arrow": arrow,
}
"""Name -> figure of about the given radius in pixels. A new figure is a new row."""


def _rotation(
    rng: np.random.Generator, angle: float | None = None
) -> Callable[[NDArray[np.floating], NDArray[np.floating]], OutlinePoints]:
    """A turn about the origin, by any angle unless one is given."""
    angle = rng.uniform(0, 2 * np.pi) if angle is None else angle
    cosine, sine = np.cos(angle), np.sin(angle)
    return lambda y, x: (cosine * y + sine * x, cosine * x - sine * y)


def _with_hole(outer: OutlinePoints, inner: OutlinePoints) -> OutlinePoints:
    """`outer` without `inner`: out and back along a slit of no width."""
    y, x = (
        np.concatenate([[*a, a[0]], [*b[::-1], b[-1]]]) for a, b in zip(outer, inner, strict=True)
    )
    return y, x


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
