"""A scene of the benchmark: other surfaces, slants and distances than those of `Scene`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.patterns import pattern
from napari_simmat.learn.scenes.scene import Scene
from napari_simmat.learn.scenes.tones import tones

_SURFACES = 3


@dataclass(frozen=True, eq=False)
class BenchmarkScene(Scene):
    """Flat things, many of them of clear glass, on a ground that leads away from the camera.

    What sensors see of it comes from `patterns`, none of it from the textures or photographs that
    pretraining uses. Maps are (H, W) in image pixels, as those of `Scene`.
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
