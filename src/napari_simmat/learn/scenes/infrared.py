"""Infra-red cameras: heat in the long waves, reflection in the short ones."""

from __future__ import annotations

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats, Shape
from napari_simmat.learn.scenes.optics import blur, camera_noise, gaussian
from napari_simmat.learn.scenes.scene import Scene
from napari_simmat.learn.scenes.textures import smooth_field
from napari_simmat.learn.scenes.tones import tones

_COUNTS_PER_KELVIN = 25.0
_ELECTRONS = 8000.0


def thermal(scene: Scene, rng: np.random.Generator) -> Floats:
    """Raw counts (1, H, W) of an uncooled long-wave infra-red camera without a shutter.

    Counts are linear in the surface's temperature, plus what the camera adds before correction: its
    own warmth, which makes a gradient across the field, darker corners and slow clouds; offsets of
    the two amplifiers that read even and odd columns in turn, many times what things differ by; a
    small offset of every column and row; white noise (Vollmer and Moellmann, Infrared Thermal
    Imaging, 2018; fixed pattern of focal plane arrays: Scribner, Kruer and Killiany, Proceedings of
    the IEEE 79, 1991). A mean over neighbouring columns brings the picture out. Glass is opaque.
    """
    height, width = scene.shape
    kelvin = blur(scene.temperature, rng.uniform(0.5, 0.9)) - 293
    kelvin = kelvin + rng.uniform(3, 9) * _housing(rng, scene.shape)
    gap = rng.uniform(6, 18) * rng.choice([-1, 1])
    kelvin = kelvin + gap * (np.arange(width, dtype=np.float32) % 2 - 0.5)
    kelvin = kelvin + rng.uniform(0.1, 0.4) * gaussian(rng, (1, width))
    kelvin = kelvin + rng.uniform(0.0, 0.1) * gaussian(rng, (height, 1))
    kelvin = kelvin + rng.uniform(0.03, 0.1) * gaussian(rng, scene.shape)
    counts = rng.uniform(6000, 9000) + _COUNTS_PER_KELVIN * kelvin
    return np.asarray(np.rint(counts), np.float32)[None]


def near_infrared(scene: Scene, rng: np.random.Generator) -> Floats:
    """Counts (1, H, W) of an interlaced silicon camera whose 850 nm lamp lights every other row.

    Such a lamp flashes with one of the two fields, so that their difference is free of ambient
    light (Ebisawa, IEEE Transactions on Instrumentation and Measurement 47, 1998). Ambient light is
    the sun's, in patches, and much the brighter; the chip, hardly thicker than the light's path in
    it, lays an etalon's fringes over both (Howell, Handbook of CCD Astronomy, 2006). Dyes are clear
    there and clear glass is not (ferrous iron), so that reflectances have nothing to do with
    colours (Salamati, Fredembach and Suesstrunk, CIC 2009).
    """
    shape = scene.shape
    base = tones(scene, rng, gap=0.12, low=0.25, high=0.75)[:, 0]
    grain = 1 + rng.uniform(0.02, 0.08) * scene.detail
    ambient: Floats = np.full(shape, rng.uniform(1.2, 2.0), np.float32)
    for length in (0.3, 0.12):  # sun and shade, with borders of their own
        patches = smooth_field(rng, shape, max(6.0, length * rng.uniform(0.6, 1.4) * min(shape)))
        shade = rng.uniform(0.25, 0.5) ** (np.tanh(4 * patches) / 2)
        ambient = (ambient * shade).astype(np.float32)
    surface = blur(base[scene.regions], rng.uniform(0.4, 0.7))
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    y0, x0 = rng.uniform(-0.5, 0.5, 2)
    beam = 1 / (1 + ((y[:, None] - y0) ** 2 + (x[None] - x0) ** 2) / rng.uniform(1.5, 4.0))
    lit = (np.arange(shape[0]) + rng.integers(2)) % 2 == 0
    light = ambient + rng.uniform(0.5, 0.8) * beam * lit[:, None]
    # The phase grows with the chip's thickness: level lines some 8 to 20 px apart.
    thickness = min(shape) * rng.uniform(0.35, 0.7)
    turns = thickness / rng.uniform(8, 20)
    phase = 2 * np.pi * turns * smooth_field(rng, shape, thickness)
    fringes = 1 + rng.uniform(0.05, 0.15) * np.cos(phase)
    electrons = np.asarray(_ELECTRONS * surface * grain * light * fringes, np.float32)
    return camera_noise(rng, electrons, 15.0)[None].astype(np.float32)


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
