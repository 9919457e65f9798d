"""Infra-red cameras: heat in the long waves, reflection in the short ones."""

from __future__ import annotations

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats, Shape
from napari_simmat.learn.scenes.lighting import draw_lamp
from napari_simmat.learn.scenes.optics import blur, camera_noise, gaussian
from napari_simmat.learn.scenes.scene import Scene
from napari_simmat.learn.scenes.textures import smooth_field
from napari_simmat.learn.scenes.tones import tones

_COUNTS_PER_KELVIN = 25.0
_ELECTRONS = 3000.0


def thermal(scene: Scene, rng: np.random.Generator) -> Floats:
    """Raw counts (1, H, W) of an uncooled long-wave infra-red camera without a shutter.

    Counts are linear in the surface's temperature, plus what the camera's own warmth adds: a
    gradient across the field, darker corners and slow clouds that amount to tens of kelvin, where
    things differ by few; plus an offset of every column's and row's amplifier, and white noise
    (Vollmer and Moellmann, Infrared Thermal Imaging, 2018; fixed pattern of focal plane arrays:
    Scribner, Kruer and Killiany, Proceedings of the IEEE 79, 1991). Glass is opaque here.
    """
    kelvin = blur(scene.temperature, rng.uniform(0.5, 1.1)) - 293
    kelvin = kelvin + rng.uniform(15, 45) * _housing(rng, scene.shape)
    kelvin = kelvin + rng.uniform(0.1, 0.35) * gaussian(rng, (1, scene.shape[1]))
    kelvin = kelvin + rng.uniform(0.0, 0.08) * gaussian(rng, (scene.shape[0], 1))
    kelvin = kelvin + rng.uniform(0.03, 0.1) * gaussian(rng, scene.shape)
    counts = rng.uniform(6000, 9000) + _COUNTS_PER_KELVIN * kelvin
    return np.asarray(np.rint(counts), np.float32)[None]


def near_infrared(scene: Scene, rng: np.random.Generator) -> Floats:
    """Counts (1, H, W) of a silicon camera at 850 to 1000 nm beside a lamp of that colour.

    Dyes are clear there and clear glass is not (ferrous iron absorbs near 1000 nm), so that
    reflectances have nothing to do with colours (Salamati, Fredembach and Suesstrunk, CIC 2009).
    The lamp's beam falls off towards the edges of the field. The chip, hardly thicker than the
    light's path in it, acts as an etalon: its fringes lie over the picture, as strong as the
    things in it (Howell, Handbook of CCD Astronomy, 2006).
    """
    shape = scene.shape
    base = tones(scene, rng, gap=0.1, low=0.25, high=0.75)[:, 0]
    surface = base[scene.regions] * (1 + rng.uniform(0.02, 0.08) * scene.detail)
    light = rng.uniform(0.3, 0.6) + 0.6 * np.clip(scene.normals @ draw_lamp(rng), 0, 1)
    image = blur((surface * light).astype(np.float32), rng.uniform(0.4, 0.8))
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    y0, x0 = rng.uniform(-0.7, 0.7, 2)
    away = (y[:, None] - y0) ** 2 + (x[None] - x0) ** 2
    beam = 1 / (1 + away / rng.uniform(0.4, 1.2)) ** 2
    # The phase grows with the chip's thickness: level lines some 6 to 14 px apart.
    thickness = min(shape) * rng.uniform(0.35, 0.7)
    turns = thickness / rng.uniform(6, 14)
    phase = 2 * np.pi * turns * smooth_field(rng, shape, thickness)
    fringes = 1 + rng.uniform(0.15, 0.35) * np.cos(phase)
    electrons = _ELECTRONS * image * beam * fringes
    return camera_noise(rng, np.asarray(electrons, np.float32), 15.0)[None].astype(np.float32)


def _housing(rng: np.random.Generator, shape: Shape) -> Floats:
    """What the camera's own warmth adds (H, W), about -1 to 1: slope, corners, clouds."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.sin(angle) * y[:, None] + np.cos(angle) * x[None]
    y0, x0 = rng.uniform(-0.3, 0.3, 2)
    corners = 0.5 - ((y[:, None] - y0) ** 2 + (x[None] - x0) ** 2)
    clouds = smooth_field(rng, shape, min(shape) * rng.uniform(0.5, 1.0))
    mix = rng.dirichlet([2, 2, 1])
    return np.asarray(mix[0] * slope + mix[1] * corners + mix[2] * clouds, np.float32)
