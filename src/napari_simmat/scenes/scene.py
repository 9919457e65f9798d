"""Drawn scenes: exact labels, the physical maps that sensors see, and grey values of regions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import label

from napari_simmat.scenes.canvas import Drawing, Floats, Ids, Shape
from napari_simmat.scenes.layouts import LAYOUTS
from napari_simmat.scenes.textures import smooth_field, texture

MIN_AREA = 30
"""Smallest labelled object in pixels."""
MIN_THICKNESS = 2.0
"""Smallest half-width in pixels of a labelled object at its thickest place."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn scene before any sensor images it. All maps are (H, W) in image pixels.

    Parameters
    ----------
    labels
        Exact class-agnostic instance ids, 1..N without gaps, 0 = background; each id is one
        connected component of at least `MIN_AREA` pixels.
    regions
        Ids of areas of uniform appearance: objects, their parts, and other things.
    distance
        Distance of a pixel's centre to the nearest border between regions, in pixels.
    layout
        Name of its layout.
    seed
        Of the maps, which are computed on first use.
    """

    labels: Ids
    regions: Ids
    distance: Floats
    layout: str
    seed: int

    @property
    def shape(self) -> Shape:
        """Height and width in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    @cached_property
    def n_regions(self) -> int:
        """Number of rows of a table that `regions` can index, background included."""
        return int(self.regions.max()) + 1

    @cached_property
    def foreground(self) -> NDArray[np.bool_]:
        """Mask of the regions other than the background."""
        return self.regions > 0

    @cached_property
    def radii(self) -> Floats:
        """Half-width in pixels of every region at its thickest place (n_regions,)."""
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
        """Height 0..1 inside every region: a round cap, 0 at its border, 1 at its heart."""
        inward = self.distance / self.radii[self.regions]
        return np.asarray(np.sqrt(1 - (1 - np.clip(inward, 0, 1)) ** 2) * self.foreground)

    @cached_property
    def neighbours(self) -> NDArray[np.int64]:
        """Pairs (P, 2) of regions that share a border."""
        pairs = []
        for a, b in (
            (self.regions[1:], self.regions[:-1]),
            (self.regions[:, 1:], self.regions[:, :-1]),
        ):
            edge = a != b
            low, high = np.minimum(a[edge], b[edge]), np.maximum(a[edge], b[edge])
            pairs.append(low.astype(np.int64) * self.n_regions + high)
        keys = np.unique(np.concatenate(pairs))
        return np.stack([keys // self.n_regions, keys % self.n_regions], axis=1)

    @cached_property
    def albedo(self) -> Floats:
        """Diffuse reflectance (H, W, 3) in 0..1, red, green, blue; of the ground behind glass."""
        rng = self._rng(1)
        base = tones(self, rng, gap=rng.uniform(0.12, 0.25), channels=3)
        base[self._clear] = base[0]
        grain = texture(rng, self.shape) * rng.uniform(0.0, 0.05)
        return np.clip(base[self.regions] + grain[..., None], 0.02, 0.98).astype(np.float32)

    @cached_property
    def detail(self) -> Floats:
        """Grain of the surface, which some sensors see: a texture of zero mean, unit variance."""
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
        """Unit surface normals (H, W, 3) as x, y, z; z points at the camera.

        The relief of each region on a plane with a slant of its own.
        """
        rng = self._rng(8)
        slants = rng.normal(0, rng.uniform(0.1, 0.5), (2, self.n_regions)).astype(np.float32)
        dy, dx = np.gradient(self.height) + slants[:, self.regions]
        length = np.sqrt(1 + dx**2 + dy**2)
        return np.stack([-dx / length, -dy / length, 1 / length], axis=-1).astype(np.float32)

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
        """Share 0..1 of the specular part in what the surface reflects."""
        return self._rng(6).uniform(0.1, 0.9, self.n_regions).astype(np.float32)[self.regions]

    @cached_property
    def glass(self) -> NDArray[np.bool_]:
        """Mask of regions of clear glass, through which the background shows."""
        return np.asarray(self._clear[self.regions])

    @cached_property
    def _clear(self) -> NDArray[np.bool_]:
        rng = self._rng(7)
        clear = rng.random(self.n_regions) < rng.choice([0.0, 0.3, 0.7])
        clear[0] = False
        return np.asarray(clear)

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, stream))


def draw_scene(
    seed: int | np.random.Generator,
    size: int | tuple[int, int] = 256,
    layout: str | None = None,
) -> Scene:
    """Draw a scene of one of the `LAYOUTS` (any by default); the same seed draws the same scene.

    Parameters
    ----------
    seed
        A number, or a generator, which is advanced.
    size
        Side, or height and width, in pixels.
    layout
        A name in `LAYOUTS`.

    Raises
    ------
    ValueError
        If the layout is unknown or the size below 16 pixels.
    """
    rng = np.random.default_rng(seed)
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    if min(height, width) < 16:
        raise ValueError(f"A scene of {height} x {width} pixels is too small; use 16 or more.")
    if layout is None:
        layout = str(rng.choice(list(LAYOUTS)))
    if layout not in LAYOUTS:
        raise ValueError(f"Layout {layout!r} is unknown; use one of {', '.join(LAYOUTS)}.")
    shape = (int(height), int(width))
    labels, regions, distance = label_drawing(LAYOUTS[layout](rng, shape))
    return Scene(labels, regions, distance, layout=layout, seed=int(rng.integers(2**31)))


def label_drawing(drawing: Drawing) -> tuple[Ids, Ids, Floats]:
    """A scene's `labels`, `regions` and `distance` from a drawing."""
    regions = np.ascontiguousarray(drawing.regions, np.int32)
    distance = _distance_to_border(regions)
    return _instances(drawing.objects[regions], distance), regions, distance


def compact(labels: Ids, keep: NDArray[np.bool_]) -> Ids:
    """Renumber labels to 1..N where `keep` (one per id, 0 included) is true, others to 0."""
    keep = keep.copy()
    keep[0] = False
    table = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return table[labels]


def _distance_to_border(regions: Ids) -> Floats:
    border = np.zeros(regions.shape, bool)
    across = regions[1:] != regions[:-1]
    border[1:] |= across
    border[:-1] |= across
    across = regions[:, 1:] != regions[:, :-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    if not border.any():
        return np.full(regions.shape, min(regions.shape) / 2, np.float32)
    return np.asarray(ndi.distance_transform_edt(~border) + 0.5, np.float32)


def _instances(objects: Ids, distance: Floats) -> Ids:
    pieces = np.asarray(label(objects, background=0, connectivity=1), np.int32)
    area = np.bincount(pieces.ravel())
    index = np.arange(len(area))
    thickness = np.asarray(ndi.maximum(distance, pieces, index))
    keep = (area >= MIN_AREA) & (thickness >= MIN_THICKNESS) & (area < 0.75 * objects.size)
    return compact(pieces, keep)


_TRIES = 12


def tones(
    scene: Scene,
    rng: np.random.Generator,
    *,
    gap: float,
    low: float = 0.0,
    high: float = 1.0,
    channels: int = 1,
    background: float | None = None,
) -> Floats:
    """Values (n_regions, channels), at least `gap` apart between neighbours if possible.

    Parameters
    ----------
    scene, rng
        The scene; source of randomness.
    gap
        Desired difference between regions that share a border (largest over the channels).
    low, high
        Range of the values.
    channels
        1 for grey; 3 for colours, which lean towards grey.
    background
        Value of region 0; drawn like the others by default.
    """
    n = scene.n_regions
    next_to: list[list[int]] = [[] for _ in range(n)]
    for a, b in scene.neighbours.tolist():
        next_to[a].append(b)
        next_to[b].append(a)
    candidates = rng.random((n, _TRIES, channels), dtype=np.float32)
    if channels > 1:
        grey = rng.random((n, _TRIES, 1), dtype=np.float32)
        candidates = grey + rng.uniform(0.1, 0.6) * (candidates - grey)
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
