"""Held-out scenes for the benchmark: no pretraining draws their layouts, outlines or surfaces.

The base of the benchmark has seen drawn photographs only. For a fair test, the families of objects
and surfaces are disjoint from those of pretraining, which a test checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from napari_simmat.scenes.benchmark_layouts import ARRANGEMENTS
from napari_simmat.scenes.canvas import Floats, Ids, Shape
from napari_simmat.scenes.scene import Scene, tones, unit_normals
from napari_simmat.scenes.sensors import draw_until_visible

BenchmarkSplit = Literal["train", "validation", "test"]
_SEED = 20_240_908
_SURFACES = 3
"""Patterns per scene."""


def benchmark_sample(
    sensor: str,
    rng: np.random.Generator | int,
    size: int | tuple[int, int] = 192,
    layout: str | None = None,
) -> tuple[Floats, Ids, BenchmarkScene]:
    """Draw a scene of the benchmark and image it with `sensor`.

    Parameters
    ----------
    sensor
        A name in `SENSORS` or `PSEUDO_SENSORS`.
    rng, size, layout
        As in `benchmark_scene`; `split_generator` returns the generators of a split.

    Returns
    -------
    image, labels, scene
        As in `draw_sensor_sample`.
    """
    rng = np.random.default_rng(rng)
    return draw_until_visible(sensor, rng, lambda: benchmark_scene(rng, size, layout))


def split_generator(split: BenchmarkSplit, number: int) -> np.random.Generator:
    """Generator of the `number`-th scene (0, 1, ...) of a split; no two scenes share a seed.

    The same number gives the same scene, independently of scenes drawn before it. An unknown split
    or a negative number raises a ValueError.
    """
    splits = get_args(BenchmarkSplit)
    if split not in splits or number < 0:
        raise ValueError(
            f"There is no scene {number} of {split!r}; count from 0 in one of {', '.join(splits)}."
        )
    return np.random.default_rng([_SEED, splits.index(split), number])


def benchmark_scene(
    rng: np.random.Generator | int, size: int | tuple[int, int] = 192, layout: str | None = None
) -> BenchmarkScene:
    """Draw a scene of the benchmark: as `draw_scene`, but of `ARRANGEMENTS` and 48 px or more."""
    return BenchmarkScene.draw(rng, size, layout, ARRANGEMENTS, smallest_side=48)


@dataclass(frozen=True, eq=False)
class BenchmarkScene(Scene):
    """Flat objects, many of them of clear glass, on a ground that recedes from the camera.

    Its surfaces come from `PATTERNS`, none from the textures or photographs of pretraining. Maps
    are (H, W) in image pixels, like those of `Scene`.
    """

    @cached_property
    def detail(self) -> Floats:
        """Surface grain: a pattern of zero mean and unit variance."""
        return pattern(self._rng(19), self.shape)

    @cached_property
    def albedo(self) -> Floats:
        """Diffuse reflectance (H, W, 3) in 0..1: each object has a color and a pattern."""
        rng = self._rng(11)
        base = tones(self, rng, gap=rng.uniform(0.1, 0.2), low=0.12, high=0.88, channels=3)
        surface = rng.integers(_SURFACES, size=self.n_regions)
        amount = rng.uniform(0.01, 0.08, self.n_regions).astype(np.float32)
        for table in (base, surface, amount):  # clear glass shows the ground
            table[self._clear] = table[0]
        patterns = [pattern(rng, self.shape) for _ in range(_SURFACES)]
        grain = amount[self.regions] * np.choose(surface[self.regions], patterns)
        albedo = base[self.regions] * (1 + grain[..., None])
        return np.asarray(np.clip(albedo, 0.02, 0.98), np.float32)

    @cached_property
    def depth(self) -> Floats:
        """Distance from the camera, about 1 at the center of the ground.

        Inverse distance is linear across the image of a plane; here the far end is 1.2 to 2 times
        as far away as the near one. Objects are slabs raised by a few percent of their distance.
        """
        rng = self._rng(13)
        y, x = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in self.shape)
        angle, ratio = rng.normal(0, 0.35), rng.uniform(1.2, 2.0)
        toward = np.cos(angle) * y[:, None] + np.sin(angle) * x[None]
        toward = toward / np.ptp(toward)  # -0.5 at the far end, 0.5 at the near one
        inverse = 1 + 2 * (ratio - 1) / (ratio + 1) * toward
        slab = tones(self, rng, gap=0.04, low=0.03, high=0.3, background=0.0)[:, 0]
        relief = 0.01 * self.dome
        raised = ndi.gaussian_filter(slab[self.regions] + relief, 0.5, truncate=3)
        return np.asarray((1 - raised) / inverse, np.float32)

    @cached_property
    def normals(self) -> Floats:
        """Unit surface normals (H, W, 3) as x, y, z; regions are slanted by up to about 45 deg."""
        rng = self._rng(18)
        steep = rng.uniform(0.45, 0.85)
        slants = [tones(self, rng, gap=0.2, low=-1.0, high=1.0)[:, 0] for _ in range(2)]
        relief = 0.3 * np.asarray(np.gradient(self.height))
        dy, dx = relief + steep * np.stack(slants)[:, self.regions]
        return unit_normals(dy, dx)

    @cached_property
    def temperature(self) -> Floats:
        """Surface temperature in kelvin; objects differ by a few kelvin."""
        rng = self._rng(14)
        warmth = tones(self, rng, gap=0.15)[:, 0]
        kelvin = rng.uniform(288, 298) + rng.uniform(2, 7) * warmth[self.regions]
        return np.asarray(ndi.gaussian_filter(kelvin, 0.7, truncate=3), np.float32)

    @cached_property
    def _clear(self) -> NDArray[np.bool_]:
        return self._draw_clear(17, [0.4, 0.7, 0.9])


_SIDE = 256
"""Side of a tile in pixels."""
_TILES = 4
"""Tiles of each kind."""


def pattern(rng: np.random.Generator, shape: Shape, kind: str | None = None) -> Floats:
    """Crop of a pattern, zero mean and unit variance, clipped to +-3.

    Parameters
    ----------
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


@cache
def _tiles(kind: str) -> list[Floats]:
    # The seed is fixed, so that a sample depends on its own seed only.
    rng = np.random.default_rng([20_250_301, list(PATTERNS).index(kind)])
    tiles = [ndi.gaussian_filter(PATTERNS[kind](rng), 0.4, mode="wrap") for _ in range(_TILES)]
    return [np.clip((tile - tile.mean()) / tile.std(), -3, 3).astype(np.float32) for tile in tiles]


def worley(rng: np.random.Generator) -> NDArray[np.floating]:
    """Walls between the cells of scattered points (Worley, SIGGRAPH 1996)."""
    points = rng.uniform(0, _SIDE, (int(np.exp(rng.uniform(4.0, 7.0))), 2))
    first, second = cKDTree(points, boxsize=_SIDE).query(_pixels(), k=2)[0].T
    walls = np.tanh((second - first) / rng.uniform(1.5, 4))
    return np.asarray(walls.reshape(_SIDE, _SIDE))


def _pixels() -> NDArray[np.floating]:
    return np.asarray(np.mgrid[:_SIDE, :_SIDE].reshape(2, -1).T + 0.5)


def weierstrass(rng: np.random.Generator) -> NDArray[np.floating]:
    """A fractal of plane waves (Weierstrass-Mandelbrot function, Berry and Lewis 1980)."""
    y, x = 2 * np.pi * np.mgrid[:_SIDE, :_SIDE] / _SIDE
    roughness = rng.uniform(0.2, 0.8)
    values = np.zeros((_SIDE, _SIDE))
    for octave in range(1, 7):
        for angle in rng.uniform(0, np.pi, 4):  # an integer number of waves: the tile is periodic
            v, u = np.rint(1.9**octave * np.array([np.sin(angle), np.cos(angle)]))
            values += 1.9 ** (-roughness * octave) * np.cos(v * y + u * x + rng.uniform(0, 6.28))
    return values


def labyrinth(rng: np.random.Generator) -> NDArray[np.floating]:
    """Stripes that bend and branch, or dots: the equation of Swift and Hohenberg (1977).

    u' = r u - (1 + nabla^2)^2 u + g u^2 - u^3, in time steps implicit in the linear part.
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
    """Quarter circles in randomly rotated tiles, which join to a line (Smith, Leonardo 1987)."""
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
    """Cloth: threads that pass over and under each other, each lit like a round rod."""
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
