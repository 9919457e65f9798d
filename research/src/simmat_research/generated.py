"""Drawn scenes as data sets, for `generated:SENSOR` and the benchmark.

The base of the benchmark has seen drawn photographs only. For a fair test, the benchmark's families
of objects and surfaces are disjoint from those of pretraining, which a test checks. Its layouts
arrange figures: a figure is one or more closed outlines around the origin whose union is one
object. Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.datasets.dataset import Dataset, LoadedSample, Sample, measure_channels_job
from napari_simmat.engine.normalization import stretch_percentiles
from napari_simmat.models.spec import Channel, Normalization
from napari_simmat.progress import Job
from simmat_research.canvas import (
    Drawing,
    Floats,
    OutlinePoints,
    Point,
    RegionCanvas,
    Shape,
    as_point,
    direction,
    log_uniform,
    random_position,
    rotation,
)
from simmat_research.layouts import SceneLayout
from simmat_research.scene import Scene, tones, unit_normals
from simmat_research.sensors import (
    PSEUDO_SENSORS,
    camera_scene,
    draw_sensor_sample,
    sensor_named,
)
from simmat_research.textures import pattern

BenchmarkSplit = Literal["train", "validation", "test"]
SceneKind = Literal["everyday", "benchmark"]
_EVERYDAY_SEED, _BENCHMARK_SEED = 20_261_125, 20_240_908


@dataclass(frozen=True, kw_only=True)
class GeneratedConfig:
    """Which scenes to draw.

    Parameters
    ----------
    sensor
        A name in `SENSORS`, or rgb+NAME for a pseudo modality.
    kind
        ``"everyday"``: objects and surfaces like those of the foundations' pretraining, for
        checkpoints in use. ``"benchmark"``: families that no pretraining drew.
    side
        Width and height of each plane in pixels.
    train, validation, test
        Planes of each side; the first planes are the same whatever the numbers.
    """

    sensor: str
    kind: SceneKind = "everyday"
    side: int = 256
    train: int = 200
    validation: int = 16
    test: int = 0

    def __post_init__(self) -> None:
        sensor_named(self.sensor)
        if self.side < 64:
            raise ValueError(f"Scenes of {self.side} pixels are too small; draw at least 64.")
        if min(self.train, self.validation) < 1 or self.test < 0:
            raise ValueError(
                f"Draw at least one scene to train on and one to validate on, not {self.train} and "
                f"{self.validation}."
            )


def draw_job(sensor: str, *, scenes: int = 200, side: int = 256) -> Job[Dataset]:
    """The data set ``generated:SENSOR`` of `simmat train`: planes of `side` pixels to train on."""
    return (yield from generate_job(GeneratedConfig(sensor=sensor, train=scenes, side=side)))


def generate_job(config: GeneratedConfig) -> Job[Dataset]:
    """A data set of drawn scenes: each plane is drawn when it is loaded, and always the same.

    Values are normalized per plane by percentiles 0.5 and 99.9: over all channels together if
    they share a unit, because the sensor's information lies in their ratios; per channel for a
    pseudo modality.
    """
    rule = Normalization(
        method="percentile", low=0.5, high=99.9, joint=config.sensor not in PSEUDO_SENSORS
    )

    def samples(split: BenchmarkSplit, count: int) -> tuple[Sample, ...]:
        return tuple(
            Sample(f"{split} {n}", f"{split} {n}", partial(_load, config, rule, split, n))
            for n in range(count)
        )

    names = sensor_named(config.sensor).channels
    dataset = Dataset(
        name=f"{'generated' if config.kind == 'everyday' else 'benchmark'}:{config.sensor}",
        modality=config.sensor,
        channels=tuple(Channel(name=name, mean=0.0, std=1.0) for name in names),
        normalization=rule,
        train=samples("train", config.train),
        validation=samples("validation", config.validation),
        test=samples("test", config.test),
    )
    channels = yield from measure_channels_job(dataset.train, dataset.channel_names)
    rounded = (replace(c, mean=round(c.mean, 3), std=round(c.std, 3)) for c in channels)
    return replace(dataset, channels=tuple(rounded))


def _load(
    config: GeneratedConfig, rule: Normalization, split: BenchmarkSplit, number: int
) -> LoadedSample:
    seed, draw = _KINDS[config.kind]
    rng = split_generator(split, number, seed)
    image, labels, _ = draw_sensor_sample(config.sensor, rng, config.side, draw)
    axes = None if rule.joint else (1, 2)
    values = stretch_percentiles(
        image, rule.low, rule.high, axes=axes, scale=rule.scale, minimum=1e-6
    )
    return np.asarray(values, np.float32), labels.astype(np.int32)


# ------------------------------------------------------------- the benchmark's scenes

Figure: TypeAlias = tuple[OutlinePoints, ...]
_MOST = 60
"""Largest number of figures in an arrangement."""
_SMALLEST = 5.0
"""Radius in pixels of the smallest figure."""
_THINNEST = 5.0
"""Narrowest stroke in pixels; objects need a half-width of 2 px to be labeled."""
_GOLDEN = np.pi * (3 - np.sqrt(5))
"""The golden angle in radians."""


def scatter(rng: Generator, shape: Shape) -> Drawing:
    """Figures at points a distance apart (Poisson disks, Bridson 2007), some of them touching."""
    canvas = RegionCanvas(shape)
    kinds = _kinds(rng, int(rng.integers(1, 4)))
    distance = log_uniform(rng, 2.4 * _SMALLEST, max(16.0, 0.4 * min(shape)))
    size = rng.uniform(0.4, 0.62) * distance
    # Points (N, 2) of the field at least `distance` apart, by dart throwing; at most `_MOST`.
    throws = int(np.clip(4 * shape[0] * shape[1] / distance**2, 12, 400))
    darts = rng.uniform(0, 1, (throws, 2)) * shape
    kept = darts[:1]
    for dart in darts[1:]:
        if len(kept) < _MOST and (np.hypot(*(kept - dart).T) >= distance).all():
            kept = np.vstack([kept, dart])
    for point in kept:
        _paint(rng, canvas, kinds, as_point(point), max(_SMALLEST, size * rng.uniform(0.75, 1.25)))
    return canvas.drawing()


def stacks(rng: Generator, shape: Shape) -> Drawing:
    """Heaps of similar figures, each shifted a little against the one beneath."""
    canvas = RegionCanvas(shape)
    for _ in range(int(rng.integers(1, 6))):
        kinds = _kinds(rng, 1)
        radius = max(8.0, log_uniform(rng, 0.05, 0.24) * min(shape))
        spot = np.asarray(random_position(rng, shape, margin=radius))
        heading = rng.uniform(0, 2 * np.pi)
        step = radius * rng.uniform(0.6, 1.5)
        for _ in range(int(rng.integers(3, 11))):
            size = max(_SMALLEST, radius * rng.uniform(0.85, 1.1))
            _paint(rng, canvas, kinds, as_point(spot), size)
            spot = spot + step * direction(heading)
            heading += rng.normal(0, 0.5)
    return canvas.drawing()


def lines(rng: Generator, shape: Shape) -> Drawing:
    """Rows of letters, close enough to touch, with gaps between words."""
    canvas = RegionCanvas(shape)
    radius = log_uniform(rng, 6, max(9.0, 0.16 * min(shape)))
    pitch, spacing = radius * rng.uniform(2.1, 3.2), radius * rng.uniform(1.5, 2.1)
    tilt = rng.normal(0, 0.25)
    along = direction(tilt)
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


def parquet(rng: Generator, shape: Shape) -> Drawing:
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
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    missing = rng.uniform(0.05, 0.4)
    wavelength = min(shape) * rng.uniform(0.15, 0.5)
    wave, phase = wavelength * rng.uniform(0.06, 0.12), rng.uniform(0, 2 * np.pi, 2)
    for corner, extent in pieces:
        if rng.random() < missing:
            continue
        sides = _rectangle(corner - size / 2 + joint, corner + extent - size / 2 - joint)
        sides = sides + wave * np.sin(2 * np.pi * sides[::-1] / wavelength + phase[:, None])
        _fill_figure(canvas, ((*(rotation @ sides),),), (shape[0] / 2, shape[1] / 2))
    return canvas.drawing()


def _rectangle(low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points (2, N) as y, x along the sides of a rectangle, about 3 px apart."""
    t = np.arange(0, 1, 3 / max(3.0, *(high - low)))
    start, ahead, back = np.zeros_like(t), t, 1 - t
    unit = np.concatenate([[start, ahead], [ahead, start + 1], [start + 1, back], [back, start]], 1)
    return np.asarray(low[:, None] + (high - low)[:, None] * unit)


def dial(rng: Generator, shape: Shape) -> Drawing:
    """Rings around a center, cut into sectors, with or without joints, some missing."""
    canvas = RegionCanvas(shape)
    center = random_position(rng, shape, margin=0.3 * min(shape))
    radius = log_uniform(rng, 4, max(5.0, 0.08 * min(shape)))
    if rng.random() < 0.6:
        _fill_figure(canvas, gear(rng, radius + 2), center)
    joint, missing = float(rng.choice([0.0, 0.0, 2.0])), rng.uniform(0, 0.4)
    for _ in range(int(rng.integers(1, 5))):
        outer = radius + max(9.0, log_uniform(rng, 0.06, 0.2) * min(shape))
        width = max(14.0, rng.uniform(1, 4) * (outer - radius))
        count = int(np.clip(2 * np.pi * outer / width, 2, 16))
        start = rng.uniform(0, 2 * np.pi)
        for k in range(count):
            if rng.random() < missing or canvas.count >= _MOST:
                continue
            ends = start + 2 * np.pi * np.array([k, k + 1]) / count + [0, -joint / outer]
            _fill_figure(canvas, (sector(radius + joint, outer, *ends),), center)
        radius = outer
    return canvas.drawing()


def sunflower(rng: Generator, shape: Shape) -> Drawing:
    """Figures along the spiral of a sunflower's seeds (Vogel 1979); size may grow outwards."""
    canvas = RegionCanvas(shape)
    kinds = _kinds(rng, int(rng.integers(1, 3)))
    count = int(log_uniform(rng, 8, _MOST))
    pitch = rng.uniform(0.35, 0.65) * min(shape) / np.sqrt(count)
    center = np.asarray(random_position(rng, shape, margin=0.35 * min(shape)))
    growth, turn = rng.uniform(0, 0.6), rng.uniform(0, 2 * np.pi)
    for k in range(1, count + 1):
        angle, away = turn + k * _GOLDEN, pitch * np.sqrt(k)
        spot = center + away * direction(angle)
        radius = pitch * rng.uniform(0.8, 1.0) * (1 - growth / 2 + growth * np.sqrt(k / count))
        _paint(rng, canvas, kinds, as_point(spot), max(_SMALLEST, radius))
    return canvas.drawing()


def giants(rng: Generator, shape: Shape) -> Drawing:
    """One to three figures up to half of the field, and small ones on and next to them."""
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


def _kinds(rng: Generator, count: int) -> list[str]:
    return [str(kind) for kind in rng.choice(list(FIGURES), count, replace=False)]


def _paint(
    rng: Generator, canvas: RegionCanvas, kinds: list[str], center: Point, radius: float
) -> None:
    kind = kinds[rng.integers(len(kinds))]
    _fill_figure(canvas, FIGURES[kind](rng, radius), center)


def _fill_figure(canvas: RegionCanvas, figure: Figure, center: Point) -> None:
    """Paint all outlines of a figure as one region."""
    region = None
    for outline in figure:
        region = canvas.fill(outline, center, region)


def polyomino(rng: Generator, radius: float) -> Figure:
    """Three to eight squares joined edge to edge (Golomb 1954), not all in a row."""
    cells = [(0, 0), (0, 1), (1, int(rng.integers(2)))]
    for _ in range(int(rng.integers(0, 2 if radius < 10 else 6))):
        free = {(y + a, x + b) for y, x in cells for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))}
        options = sorted(free - set(cells))
        cells.append(options[rng.integers(len(options))])
    places = np.array(cells) - np.mean(cells, axis=0)
    side = radius / (np.hypot(*places.T).max() + 0.5)
    corners = 0.52 * np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
    rotate = rotation(rng)
    return tuple(rotate(*(side * (place + corners)).T) for place in places)


def gear(rng: Generator, radius: float) -> Figure:
    """A toothed wheel, with a bore in one case of two."""
    teeth = int(rng.integers(5, 9 if radius < 16 else 16))
    theta = (np.arange(teeth)[:, None] + [0, 0.3, 0.45, 0.85]) * 2 * np.pi / teeth
    edge = radius * np.tile([1, 1, *[rng.uniform(0.65, 0.85)] * 2], teeth)
    wheel = edge * np.sin(theta.ravel()), edge * np.cos(theta.ravel())
    if radius < 14 or rng.random() < 0.5:
        return (wheel,)
    bore = rng.uniform(0.2, 0.45) * radius
    angle = np.linspace(0, 2 * np.pi, 32)
    hole = bore * np.sin(angle), bore * np.cos(angle)
    # The wheel without its hole, connected by a slit of zero width.
    y, x = (
        np.concatenate([[*a, a[0]], [*b[::-1], b[-1]]]) for a, b in zip(wheel, hole, strict=True)
    )
    return ((y, x),)


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
"""Strokes of letters between the nodes of a 3 x 3 grid, numbered row by row."""


def letter(rng: Generator, radius: float) -> Figure:
    """A block letter of straight strokes."""
    strokes = _STROKES[str(rng.choice(list(_STROKES)))]
    half = max(_THINNEST, radius * rng.uniform(0.25, 0.5)) / 2
    reach = np.array([radius - half, (radius - half) * rng.uniform(0.6, 0.9)])
    rotate = rotation(rng, rng.normal(0, 0.3))
    parts = []
    for stroke in strokes:
        ends = (np.array([divmod(node, 3) for node in stroke]) - 1) * reach
        along = (ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))
        out, side = half * along, half * along[::-1] * (1, -1)
        first, last = ends[0] - out, ends[1] + out
        parts.append(rotate(*np.array([first - side, first + side, last + side, last - side]).T))
    return tuple(parts)


def spiral(rng: Generator, radius: float) -> Figure:
    """The band between two turns of an Archimedean spiral."""
    width = max(_THINNEST, radius * rng.uniform(0.16, 0.3))
    turns = np.clip((radius - width / 2) / (1.7 * width), 0.7, 2.4)
    theta = np.linspace(0, 2 * np.pi * turns, int(24 * turns) + 8)
    middle = (radius - width / 2) * (0.1 + 0.9 * theta / theta[-1])
    outer, inner = middle + width / 2, np.maximum(middle - width / 2, 0)
    around, edge = np.concatenate([theta, theta[::-1]]), np.concatenate([outer, inner[::-1]])
    mirror = float(rng.choice([-1, 1]))
    return (rotation(rng)(mirror * edge * np.sin(around), edge * np.cos(around)),)


def superformula(rng: Generator, radius: float) -> Figure:
    """A flower with clefts between its petals (superformula, Gielis, Am. J. Botany 90, 2003)."""
    lobes, bluntness = int(rng.integers(3, 6 if radius < 12 else 9)), rng.uniform(0.3, 0.7)
    sharpness = rng.uniform(0.5, 1.2)  # 2 would be a circle
    phi = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    waves = np.abs([np.cos(lobes * phi / 4), np.sin(lobes * phi / 4)]) ** sharpness
    edge = waves.sum(axis=0) ** (1 / bluntness)
    edge = np.maximum(edge / edge.max(), 0.3)
    squeeze = rng.uniform(0.55, 1.0)
    return (rotation(rng)(radius * squeeze * edge * np.sin(phi), radius * edge * np.cos(phi)),)


def crescent(rng: Generator, radius: float) -> Figure:
    """A disc partly covered by another."""
    theta = np.linspace(-1, 1, 40) * rng.uniform(1.7, 2.5)
    y, x = radius * np.sin(theta), radius * np.cos(theta)
    hollow = x[0] + rng.uniform(0.05, 0.5) * (x - x[0])
    x = np.concatenate([x, hollow[::-1]]) - 0.3 * radius
    return (rotation(rng)(np.concatenate([y, y[::-1]]), x),)


def arc(rng: Generator, radius: float) -> Figure:
    """Part of a ring."""
    thick = max(_THINNEST, radius * rng.uniform(0.3, 0.55))
    start = rng.uniform(0, 2 * np.pi)
    return (sector(max(radius - thick, 1.0), radius, start, start + rng.uniform(1.6, 5.4)),)


def sector(inner: float, outer: float, start: float, stop: float) -> OutlinePoints:
    """Part of a ring between two radii in pixels and two angles in radians."""
    count = max(4, int((stop - start) * outer / 3))
    theta = np.linspace(start, stop, count)
    around = np.concatenate([theta, theta[::-1]])
    edge = np.repeat([outer, inner], count)
    return edge * np.sin(around), edge * np.cos(around)


def arrow(rng: Generator, radius: float) -> Figure:
    """An arrow with a straight shaft."""
    shaft = max(_THINNEST / radius / 2, rng.uniform(0.12, 0.3))
    neck, wing = rng.uniform(-0.2, 0.3), min(0.85, shaft + rng.uniform(0.25, 0.5))
    y = radius * np.array([0, -wing, -shaft, -shaft, shaft, shaft, wing])
    x = radius * np.array([1, neck, neck, -0.95, -0.95, neck, neck])
    return (rotation(rng)(y, x),)


FIGURES: dict[str, Callable[[Generator, float], Figure]] = {
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


def split_generator(split: BenchmarkSplit, number: int, seed: int = _BENCHMARK_SEED) -> Generator:
    """Generator of the `number`-th scene (0, 1, ...) of a split; no two scenes share a seed.

    The same number gives the same scene, independently of scenes drawn before it.
    """
    return np.random.default_rng([seed, get_args(BenchmarkSplit).index(split), number])


@dataclass(frozen=True, eq=False)
class BenchmarkScene(Scene):
    """Flat objects, many of them of clear glass, on a ground that recedes from the camera.

    Its surfaces come from `PATTERNS`, none from the textures or photographs of pretraining. Maps
    are (H, W) in image pixels, like those of `Scene`.
    """

    layouts = ARRANGEMENTS
    smallest_side = 48
    clear_stream, clear_shares = 17, (0.4, 0.7, 0.9)

    @cached_property
    def detail(self) -> Floats:
        """Surface grain: a pattern of zero mean and unit variance."""
        return pattern(self._rng(19), self.shape)

    @cached_property
    def albedo(self) -> Floats:
        """Diffuse reflectance (H, W, 3) in 0..1: each object has a color and a pattern."""
        rng = self._rng(11)
        base = tones(self, rng, gap=rng.uniform(0.1, 0.2), low=0.12, high=0.88, channels=3)
        count = 3  # patterns of a scene
        surface = rng.integers(count, size=self.n_regions)
        amount = rng.uniform(0.01, 0.08, self.n_regions).astype(np.float32)
        for table in (base, surface, amount):  # clear glass shows the ground
            table[self._clear] = table[0]
        patterns = [pattern(rng, self.shape) for _ in range(count)]
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


benchmark_scene = BenchmarkScene.draw
_KINDS: dict[SceneKind, tuple[int, Callable[..., Scene]]] = {
    "everyday": (_EVERYDAY_SEED, camera_scene),
    "benchmark": (_BENCHMARK_SEED, benchmark_scene),
}
"""Seed and drawing of scenes of each kind."""
