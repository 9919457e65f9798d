"""Scenes of the benchmark: layouts, outlines and surfaces that no pretraining draws.

The benchmark's base has seen drawn photographs only. For a fair test, objects and surfaces are of
families that no pretraining draws; both sides declare theirs here, and a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.scenes.benchmark_shapes import (
    FIGURES,
    Figure,
    gear,
    letter,
    pattern,
    sector,
)
from napari_simmat.scenes.canvas import (
    Drawing,
    Floats,
    Ids,
    RegionCanvas,
    Shape,
    as_point,
    log_uniform,
    random_position,
)
from napari_simmat.scenes.layouts import SceneLayout
from napari_simmat.scenes.scene import Scene, label_drawing, tones
from napari_simmat.scenes.sensors import draw_until_visible

_MOST = 60
"""Largest number of figures in an arrangement."""
_SMALLEST = 5.0
"""Radius in pixels of the smallest figure."""
_GOLDEN = np.pi * (3 - np.sqrt(5))


def scatter(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Figures at points that keep a distance (Poisson disks, Bridson 2007), some of them touch."""
    canvas = RegionCanvas(shape)
    kinds = _kinds(rng, int(rng.integers(1, 4)))
    distance = log_uniform(rng, 2.4 * _SMALLEST, max(16.0, 0.4 * min(shape)))
    size = rng.uniform(0.4, 0.62) * distance
    for point in _poisson_disk_points(rng, shape, distance):
        _paint(rng, canvas, kinds, as_point(point), max(_SMALLEST, size * rng.uniform(0.75, 1.25)))
    return canvas.drawing()


def stacks(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Heaps of equal figures, each slightly shifted against the one below."""
    canvas = RegionCanvas(shape)
    for _ in range(int(rng.integers(1, 6))):
        kinds = _kinds(rng, 1)
        radius = max(8.0, log_uniform(rng, 0.05, 0.24) * min(shape))
        spot, heading = (
            np.asarray(random_position(rng, shape, margin=radius)),
            rng.uniform(0, 2 * np.pi),
        )
        step = radius * rng.uniform(0.6, 1.5)
        for _ in range(int(rng.integers(3, 11))):
            _paint(
                rng, canvas, kinds, as_point(spot), max(_SMALLEST, radius * rng.uniform(0.85, 1.1))
            )
            spot = spot + step * np.array([np.sin(heading), np.cos(heading)])
            heading += rng.normal(0, 0.5)
    return canvas.drawing()


def lines(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Rows of letters, close enough to touch, with gaps between words."""
    canvas = RegionCanvas(shape)
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
            _fill_figure(canvas, letter(rng, radius), as_point(spot))
            x += spacing * (1.8 if rng.random() < 0.15 else 1)
    return canvas.drawing()


def parquet(rng: np.random.Generator, shape: Shape) -> Drawing:
    """A panel cut again and again along wavy lines, with or without joints, some pieces missing."""
    canvas = RegionCanvas(shape)
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
        _fill_figure(canvas, ((*(turn @ sides),),), (shape[0] / 2, shape[1] / 2))
    return canvas.drawing()


def dial(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Rings around a centre, cut into sectors, with or without joints, some missing."""
    canvas = RegionCanvas(shape)
    centre = random_position(rng, shape, margin=0.3 * min(shape))
    radius = log_uniform(rng, 4, max(5.0, 0.08 * min(shape)))
    if rng.random() < 0.6:
        _fill_figure(canvas, gear(rng, radius + 2), centre)
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
            _fill_figure(canvas, (sector(radius + joint, outer, *ends),), centre)
        radius = outer
    return canvas.drawing()


def sunflower(rng: np.random.Generator, shape: Shape) -> Drawing:
    """Figures along the spiral of a sunflower's seeds (Vogel 1979), larger further out or not."""
    canvas = RegionCanvas(shape)
    kinds = _kinds(rng, int(rng.integers(1, 3)))
    count = int(log_uniform(rng, 8, _MOST))
    pitch = rng.uniform(0.35, 0.65) * min(shape) / np.sqrt(count)
    centre = np.asarray(random_position(rng, shape, margin=0.35 * min(shape)))
    growth, turn = rng.uniform(0, 0.6), rng.uniform(0, 2 * np.pi)
    for k in range(1, count + 1):
        angle, away = turn + k * _GOLDEN, pitch * np.sqrt(k)
        spot = centre + away * np.array([np.sin(angle), np.cos(angle)])
        radius = pitch * rng.uniform(0.8, 1.0) * (1 - growth / 2 + growth * np.sqrt(k / count))
        _paint(rng, canvas, kinds, as_point(spot), max(_SMALLEST, radius))
    return canvas.drawing()


def giants(rng: np.random.Generator, shape: Shape) -> Drawing:
    """One to three figures up to half of the field, and small ones that lie on and beside them."""
    canvas = RegionCanvas(shape)
    side = min(shape)
    for _ in range(int(rng.integers(1, 4))):
        place = random_position(rng, shape, margin=0.2 * side)
        _paint(rng, canvas, _kinds(rng, 1), place, side * rng.uniform(0.18, 0.36))
    kinds = _kinds(rng, 2)
    for _ in range(int(rng.integers(2, 12))):
        radius = max(_SMALLEST, side * log_uniform(rng, 0.03, 0.09))
        _paint(rng, canvas, kinds, random_position(rng, shape), radius)
    return canvas.drawing()


ARRANGEMENTS: dict[str, SceneLayout] = {
    "strewn": scatter,
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
    canvas: RegionCanvas,
    kinds: list[str],
    centre: tuple[float, float],
    radius: float,
) -> None:
    kind = kinds[rng.integers(len(kinds))]
    _fill_figure(canvas, FIGURES[kind](rng, radius), centre)


def _fill_figure(canvas: RegionCanvas, figure: Figure, centre: tuple[float, float]) -> None:
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


def _poisson_disk_points(
    rng: np.random.Generator, shape: Shape, distance: float
) -> NDArray[np.float64]:
    """Points (N, 2) of the field at least `distance` apart, by throwing darts; at most `_MOST`."""
    throws = int(np.clip(4 * shape[0] * shape[1] / distance**2, 12, 400))
    darts = rng.uniform(0, 1, (throws, 2)) * shape
    kept = darts[:1]
    for dart in darts[1:]:
        if len(kept) < _MOST and (np.hypot(*(kept - dart).T) >= distance).all():
            kept = np.vstack([kept, dart])
    return kept


BenchmarkSplit = Literal["train", "validation", "test"]
_SEED = 20_240_908
_SMALLEST_FIELD = 48


class SceneFamilies(NamedTuple):
    """Names of the layouts, outlines and surfaces that one side draws."""

    layouts: frozenset[str]
    outlines: frozenset[str]
    textures: frozenset[str]


# fmt: off
PRETRAINING_FAMILIES = SceneFamilies(
    layouts=frozenset([
        "leaves", "cells", "nucleated", "discs", "rods", "filaments", "large", "nested",
        "assembled", "tissue", "levels", "head", "organs",
    ]),
    outlines=frozenset(["blob", "polygon", "rectangle", "tube", "rod"]),
    textures=frozenset([
        "cloud", "band", "stripes", "speckle", "blotches", "spots", "grain", "astronaut", "brick",
        "camera", "cat", "coffee", "grass", "gravel", "hubble_deep_field", "immunohistochemistry",
        "moon", "retina", "rocket",
    ]),
)
"""Those of pretraining: `LAYOUTS`, `outlines`, `texture_bank`, `PHOTOGRAPHS`."""
BENCHMARK_FAMILIES = SceneFamilies(
    layouts=frozenset(["strewn", "stacks", "lines", "parquet", "dial", "sunflower", "giants"]),
    outlines=frozenset([
        "polyomino", "gear", "letter", "spiral", "superformula", "crescent", "arc", "arrow",
    ]),
    textures=frozenset(["worley", "weierstrass", "labyrinth", "truchet", "weave"]),
)
"""Those of the benchmark: `ARRANGEMENTS`, `FIGURES`, `PATTERNS`."""


def benchmark_scene(
    rng: np.random.Generator | int, size: int | tuple[int, int] = 192, layout: str | None = None
) -> BenchmarkScene:
    """Draw a scene of the benchmark's own layouts, outlines and surfaces.

    Parameters
    ----------
    rng
        Generator, which is advanced, or a seed.
    size
        Side, or height and width, in pixels.
    layout
        A name in `ARRANGEMENTS`; by default any.

    Raises
    ------
    ValueError
        If the layout is unknown or the size below 48 pixels.
    """
    rng = np.random.default_rng(rng)
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    if min(height, width) < _SMALLEST_FIELD:
        raise ValueError(
            f"A scene of {height} x {width} pixels is too small; use {_SMALLEST_FIELD} or more."
        )
    if layout is None:
        layout = str(rng.choice(list(ARRANGEMENTS)))
    if layout not in ARRANGEMENTS:
        raise ValueError(f"Layout {layout!r} is unknown; use one of {', '.join(ARRANGEMENTS)}.")
    labels, regions, distance = label_drawing(ARRANGEMENTS[layout](rng, (int(height), int(width))))
    return BenchmarkScene(labels, regions, distance, layout, seed=int(rng.integers(2**31)))


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
        See `benchmark_scene`; `split_generator` gives the generators of a split.

    Returns
    -------
    image
        (C, H, W) float32, raw units of each channel.
    labels
        Int32 (H, W): the scene's objects that this sensor can tell apart, ids 1..N (N >= 1).
    scene
        The scene, for other sensors.
    """
    rng = np.random.default_rng(rng)
    return draw_until_visible(sensor, rng, lambda: benchmark_scene(rng, size, layout))


def split_generator(split: BenchmarkSplit, number: int) -> np.random.Generator:
    """Generator of the `number`-th scene (0, 1, ...) of a split; no two scenes share a seed.

    The same number gives the same scene, whatever was drawn before.

    Raises
    ------
    ValueError
        If the split is unknown or the number negative.
    """
    splits = get_args(BenchmarkSplit)
    if split not in splits or number < 0:
        raise ValueError(
            f"There is no scene {number} of {split!r}; count from 0 in one of {', '.join(splits)}."
        )
    return np.random.default_rng([_SEED, splits.index(split), number])


_SURFACES = 3


@dataclass(frozen=True, eq=False)
class BenchmarkScene(Scene):
    """Flat things, many of clear glass, on a ground that recedes from the camera.

    Its surfaces come from `PATTERNS`, none from the textures or photographs of pretraining. Maps
    are (H, W) in image pixels, as those of `Scene`.
    """

    @cached_property
    def detail(self) -> Floats:
        """Grain of the surface: a pattern of zero mean and unit variance."""
        return pattern(self._rng(19), self.shape)

    @cached_property
    def albedo(self) -> Floats:
        """Diffuse reflectance (H, W, 3) in 0..1: each thing's colour, with a pattern of its own."""
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
        """Distance from the camera, about 1 at the heart of the ground.

        Inverse distance is linear across a plane's picture; here the far end is 1.2 to 2 times as
        far away as the near one. Things are slabs that stand out by some percent of their distance.
        """
        rng = self._rng(13)
        y, x = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in self.shape)
        angle, ratio = rng.normal(0, 0.35), rng.uniform(1.2, 2.0)
        toward = np.cos(angle) * y[:, None] + np.sin(angle) * x[None]
        toward = toward / np.ptp(toward)  # -0.5 at the far end, 0.5 at the near one
        inverse = 1 + 2 * (ratio - 1) / (ratio + 1) * toward
        slab = tones(self, rng, gap=0.04, low=0.03, high=0.3, background=0.0)[:, 0]
        relief = 0.01 * self.dome
        stands_out = ndi.gaussian_filter(slab[self.regions] + relief, 0.5, truncate=3)
        return np.asarray((1 - stands_out) / inverse, np.float32)

    @cached_property
    def normals(self) -> Floats:
        """Unit surface normals (H, W, 3) as x, y, z; every region is slanted, up to some 45 deg."""
        rng = self._rng(18)
        steep = rng.uniform(0.45, 0.85)
        slants = [tones(self, rng, gap=0.2, low=-1.0, high=1.0)[:, 0] for _ in range(2)]
        relief = 0.3 * np.asarray(np.gradient(self.height))
        dy, dx = relief + steep * np.stack(slants)[:, self.regions]
        length = np.sqrt(1 + dx**2 + dy**2)
        return np.stack([-dx / length, -dy / length, 1 / length], axis=-1).astype(np.float32)

    @cached_property
    def temperature(self) -> Floats:
        """Surface temperature in kelvin: things differ by few."""
        rng = self._rng(14)
        warmth = tones(self, rng, gap=0.15)[:, 0]
        kelvin = rng.uniform(288, 298) + rng.uniform(2, 7) * warmth[self.regions]
        return np.asarray(ndi.gaussian_filter(kelvin, 0.7, truncate=3), np.float32)

    @cached_property
    def _clear(self) -> NDArray[np.bool_]:
        rng = self._rng(17)
        clear = rng.random(self.n_regions) < rng.choice([0.4, 0.7, 0.9])
        clear[0] = False
        return np.asarray(clear)
