"""A drawn scene: exact labels, and the physical maps that sensors image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import label

from simmat_research.canvas import Floats, Ids, Shape
from simmat_research.layouts import LAYOUTS, SceneLayout
from simmat_research.textures import smooth_field, texture

MIN_AREA = 30
"""Smallest labeled object in pixels."""
MIN_THICKNESS = 2.0
"""Smallest half-width in pixels of a labeled object at its thickest place."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects and their surfaces, before any sensor images them. All maps are (H, W) in pixels.

    Parameters
    ----------
    labels
        Exact class-agnostic instance ids, 1..N without gaps, 0 = background; each id is one
        connected component of at least `MIN_AREA` pixels.
    regions
        Ids of areas of uniform appearance: objects, parts of objects, and areas that are no object.
    distance
        Distance of a pixel's center to the nearest border between regions, in pixels.
    layout
        Name of the layout that drew it.
    seed
        Seed of the maps, each of which is computed on first use.
    """

    labels: Ids
    regions: Ids
    distance: Floats
    layout: str
    seed: int

    layouts: ClassVar[Mapping[str, SceneLayout]] = LAYOUTS
    smallest_side: ClassVar[int] = 16
    clear_stream: ClassVar[int] = 7
    clear_shares: ClassVar[tuple[float, ...]] = (0.0, 0.3, 0.7)

    @classmethod
    def draw(
        cls,
        seed: int | Generator,
        size: int | tuple[int, int] = 256,
        layout: str | None = None,
    ) -> Self:
        """Draw a scene.

        Parameters
        ----------
        seed
            A number, or a generator, which is advanced. Equal seeds draw equal scenes.
        size
            Side, or height and width, in pixels.
        layout
            A name in `layouts`; any by default.

        Raises
        ------
        ValueError
            If a side is below `smallest_side`.
        """
        rng = np.random.default_rng(seed)
        height, width = (size, size) if isinstance(size, int | np.integer) else size
        if min(height, width) < cls.smallest_side:
            raise ValueError(
                f"A scene of {height} x {width} pixels is too small; use {cls.smallest_side} or "
                "more."
            )
        if layout is None:
            layout = str(rng.choice(list(cls.layouts)))
        drawing = cls.layouts[layout](rng, (int(height), int(width)))
        regions = np.ascontiguousarray(drawing.regions, np.int32)
        distance = _distance_to_border(regions)
        # Connected pieces of objects, numbered 1..N, without those too small, thin or large.
        objects = drawing.objects[regions]
        pieces = np.asarray(label(objects, background=0, connectivity=1), np.int32)
        area = np.bincount(pieces.ravel())
        index = np.arange(len(area))
        thickness = np.asarray(ndi.maximum(distance, pieces, index))
        keep = (area >= MIN_AREA) & (thickness >= MIN_THICKNESS) & (area < 0.75 * objects.size)
        labels = compact(pieces, keep)
        return cls(labels, regions, distance, layout, seed=int(rng.integers(2**31)))

    @property
    def shape(self) -> Shape:
        """Height and width in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    @cached_property
    def n_regions(self) -> int:
        """Number of regions, background included: the length of a table indexed by `regions`."""
        return int(self.regions.max()) + 1

    @cached_property
    def foreground(self) -> NDArray[np.bool_]:
        """Pixels of all regions but the background."""
        return self.regions > 0

    @cached_property
    def radii(self) -> Floats:
        """Half-width (n_regions,) in pixels of every region at its thickest place."""
        index = np.arange(self.n_regions)
        return np.maximum(
            np.asarray(ndi.maximum(self.distance, self.regions, index), np.float32), 0.5
        )

    @cached_property
    def typical_radius(self) -> float:
        """Median half-width of the regions in pixels."""
        return float(np.median(self.radii[1:])) if self.n_regions > 1 else min(self.shape) / 4

    @cached_property
    def dome(self) -> Floats:
        """Height 0..1 inside every region: a round cap, 0 at its border, 1 at its center."""
        inward = self.distance / self.radii[self.regions]
        return np.asarray(np.sqrt(1 - (1 - np.clip(inward, 0, 1)) ** 2) * self.foreground)

    @cached_property
    def neighbors(self) -> NDArray[np.int64]:
        """Pairs (P, 2) of regions that share a border."""
        pairs = []
        for regions in (self.regions, self.regions.T):
            edge = regions[1:] != regions[:-1]
            a, b = regions[1:][edge], regions[:-1][edge]
            low, high = np.minimum(a, b), np.maximum(a, b)
            pairs.append(low.astype(np.int64) * self.n_regions + high)
        keys = np.unique(np.concatenate(pairs))
        return np.stack([keys // self.n_regions, keys % self.n_regions], axis=1)

    @cached_property
    def albedo(self) -> Floats:
        """Diffuse reflectance (H, W, 3) in 0..1, red, green, blue; clear glass has the ground's."""
        rng = self._rng(1)
        base = tones(self, rng, gap=rng.uniform(0.12, 0.25), channels=3)
        base[self._clear] = base[0]
        grain = texture(rng, self.shape) * rng.uniform(0.0, 0.05)
        return np.clip(base[self.regions] + grain[..., None], 0.02, 0.98).astype(np.float32)

    @cached_property
    def detail(self) -> Floats:
        """Surface grain that some sensors see: a texture of zero mean and unit variance."""
        return texture(self._rng(9), self.shape)

    @cached_property
    def height(self) -> Floats:
        """Relief of the surface in pixels above its base, smooth across borders."""
        rng = self._rng(2)
        steepness = rng.uniform(0.5, 1.0, self.n_regions).astype(np.float32)
        height = self.dome * (self.radii * steepness)[self.regions]
        return np.asarray(ndi.gaussian_filter(height, 1.0, truncate=3))

    @cached_property
    def depth(self) -> Floats:
        """Distance from the camera in arbitrary length units; later regions are closer."""
        rng = self._rng(3)
        side = min(self.shape)
        order = np.arange(self.n_regions, dtype=np.float32) / max(self.n_regions, 1)
        order[1:] += rng.uniform(0.1, 0.5)
        y, x = np.ogrid[: self.shape[0], : self.shape[1]]
        tilt = rng.normal(0, 0.25, 2)
        ground = (tilt[0] * (y / self.shape[0] - 0.5) + tilt[1] * (x / self.shape[1] - 0.5)) * side
        relief = ndi.gaussian_filter(self.height, 1.0, truncate=3) * 0.5
        near = 0.5 * side * order[self.regions] + relief
        return np.asarray(3 * side + ground - near, np.float32)

    @cached_property
    def normals(self) -> Floats:
        """Unit surface normals (H, W, 3) as x, y, z: a region's relief on its own slanted plane."""
        rng = self._rng(8)
        slants = rng.normal(0, rng.uniform(0.1, 0.5), (2, self.n_regions)).astype(np.float32)
        dy, dx = np.gradient(self.height) + slants[:, self.regions]
        return unit_normals(dy, dx)

    @cached_property
    def temperature(self) -> Floats:
        """Surface temperature in kelvin."""
        rng = self._rng(4)
        ambient, swing = rng.uniform(285, 300), rng.uniform(3, 20)
        warmth = tones(self, rng, gap=0.12)[:, 0]
        drift = smooth_field(rng, self.shape, min(self.shape) / 2) * 0.03
        edge = 0.15 * (self.dome - 0.5) * self.foreground * rng.choice([-1, 0, 1])
        kelvin = ambient + swing * (warmth[self.regions] - warmth[0] + drift + edge)
        return np.asarray(ndi.gaussian_filter(kelvin, 0.7, truncate=3), np.float32)

    @cached_property
    def refractive_index(self) -> Floats:
        """Refractive index of the surface, 1.3 (water) to 1.8 (dense glass)."""
        return self._rng(5).uniform(1.33, 1.8, self.n_regions).astype(np.float32)[self.regions]

    @cached_property
    def gloss(self) -> Floats:
        """Specular share 0..1 of the reflected light."""
        return self._rng(6).uniform(0.1, 0.9, self.n_regions).astype(np.float32)[self.regions]

    @cached_property
    def glass(self) -> NDArray[np.bool_]:
        """Pixels of clear glass, which shows the background."""
        return np.asarray(self._clear[self.regions])

    @cached_property
    def _clear(self) -> NDArray[np.bool_]:
        """Regions (n_regions,) of clear glass, one of `clear_shares`; the background never is."""
        rng = self._rng(self.clear_stream)
        clear = rng.random(self.n_regions) < rng.choice(self.clear_shares)
        clear[0] = False
        return np.asarray(clear)

    def _rng(self, stream: int) -> Generator:
        # A stream per map: maps do not depend on the order in which they are computed.
        return np.random.default_rng((self.seed, stream))


draw_scene = Scene.draw


def unit_normals(dy: Floats, dx: Floats) -> Floats:
    """Normals (H, W, 3) as x, y, z of a surface with these slopes; z points at the camera."""
    length = np.sqrt(1 + dx**2 + dy**2)
    return np.stack([-dx / length, -dy / length, 1 / length], axis=-1).astype(np.float32)


def tones(
    scene: Scene,
    rng: Generator,
    *,
    gap: float,
    low: float = 0.0,
    high: float = 1.0,
    channels: int = 1,
    background: float | None = None,
) -> Floats:
    """Random gray values or colors (n_regions, channels) that differ between neighbors.

    Parameters
    ----------
    scene, rng
        The scene; source of randomness.
    gap
        Difference aimed at between regions that share a border (largest over the channels). Where
        no candidate reaches it, the one that comes closest is taken.
    low, high
        Range of the values.
    channels
        1 for gray; several for colors, which tend towards gray.
    background
        Value of region 0; random like the others by default.
    """
    n, tries = scene.n_regions, 12
    next_to: list[list[int]] = [[] for _ in range(n)]
    for a, b in scene.neighbors.tolist():
        next_to[a].append(b)
        next_to[b].append(a)
    candidates = rng.random((n, tries, channels), dtype=np.float32)
    if channels > 1:
        gray = rng.random((n, tries, 1), dtype=np.float32)
        candidates = gray + rng.uniform(0.1, 0.6) * (candidates - gray)
    candidates = low + (high - low) * candidates
    values = np.full((n, channels), np.nan, np.float32)
    values[0] = candidates[0, 0] if background is None else background
    for region in range(1, n):
        known = [k for k in next_to[region] if k < region]
        if not known:
            values[region] = candidates[region, 0]
            continue
        apart = np.abs(candidates[region][:, None] - values[known]).max(axis=-1).min(axis=-1)
        enough = np.flatnonzero(apart >= gap)
        values[region] = candidates[region, enough[0] if len(enough) else int(apart.argmax())]
    return values


def compact(labels: Ids, keep: NDArray[np.bool_]) -> Ids:
    """Renumber labels to 1..N where `keep` (one flag per id, 0 included) is true, others to 0."""
    keep = keep.copy()
    keep[0] = False
    table = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return table[labels]


def _distance_to_border(regions: Ids) -> Floats:
    border = np.zeros(regions.shape, bool)
    for edge, values in ((border, regions), (border.T, regions.T)):
        across = values[1:] != values[:-1]
        edge[1:] |= across
        edge[:-1] |= across
    if not border.any():
        return np.full(regions.shape, min(regions.shape) / 2, np.float32)
    return np.asarray(ndi.distance_transform_edt(~border) + 0.5, np.float32)
