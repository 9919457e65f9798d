"""Lamps, blur, noise and degradation: from the light on a scene to the stored image."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from scipy import ndimage as ndi

from napari_simmat.research.canvas import Floats, Shape
from napari_simmat.research.scene import Scene
from napari_simmat.research.textures import smooth_field


def draw_lamp(rng: np.random.Generator) -> Floats:
    """Unit vector (3,) as x, y, z towards an oblique lamp."""
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.9)
    direction = np.array([np.cos(angle) * tilt, np.sin(angle) * tilt, 1.0])
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def illumination(scene: Scene, lamp: Floats, ambient: float) -> Floats:
    """Light (H, W) on the surface (Lambert's law), or on the ground behind clear glass."""
    light = ambient + 0.6 * np.clip(scene.normals @ lamp, 0, 1)
    bare = scene.regions == 0
    ground = np.median(light[bare]) if bare.any() else np.median(light)
    return np.asarray(np.where(scene.glass, ground, light), np.float32)


def halfway(lamp: Floats) -> Floats:
    """Unit vector halfway between lamp and camera: the normal of a mirror facet (Blinn 1977)."""
    direction = lamp + np.array([0, 0, 1], np.float32)
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def uneven_light(rng: np.random.Generator, shape: Shape, strength: float) -> Floats:
    """Gain (H, W) of mean about 1 that varies slowly: a slope, a vignette and clouds."""
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None]
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.sin(angle) * y + np.cos(angle) * x
    y0, x0 = rng.uniform(-0.6, 0.6, 2)
    vignette = 0.5 - ((y - y0) ** 2 + (x - x0) ** 2) / 2
    clouds = smooth_field(rng, shape, min(shape) * rng.uniform(0.25, 0.6))
    mix = rng.dirichlet([1, 1, 1])
    field = mix[0] * slope + mix[1] * vignette + mix[2] * 0.6 * clouds
    return np.asarray(np.clip(1 + strength * field, 0.15, 2.5), np.float32)


def blur(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of (H, W) or (H, W, C) by `sigma` pixels."""
    if sigma < 0.2:
        return image
    if image.ndim == 2:
        return np.asarray(ndi.gaussian_filter(image, sigma, truncate=3), np.float32)
    return np.stack([blur(image[..., c], sigma) for c in range(image.shape[-1])], axis=-1)


def wide_blur(image: Floats, sigma: float) -> Floats:
    """Gaussian blur of (H, W) by many pixels, computed on a coarser grid."""
    step = max(1, int(sigma // 2))
    if step == 1 or min(image.shape) < 4 * step:
        return blur(image, sigma)
    rows, columns = (-(-n // step) for n in image.shape)
    padded = np.pad(
        image, [(0, rows * step - image.shape[0]), (0, columns * step - image.shape[1])], "edge"
    )
    coarse = padded.reshape(rows, step, columns, step).mean(axis=(1, 3))
    coarse = blur(coarse, sigma / step)
    return _interpolate(_interpolate(coarse, image.shape[0], step).T, image.shape[1], step).T


def _interpolate(values: Floats, n: int, step: int) -> Floats:
    """Linear interpolation of (m, k) along its first axis to n rows, `step` rows per value."""
    last = len(values) - 1
    position = np.clip((np.arange(n, dtype=np.float32) + 0.5) / step - 0.5, 0, last)
    below = position.astype(np.intp)
    part = (position - below)[:, None]
    return values[below] * (1 - part) + values[np.minimum(below + 1, last)] * part


def camera_noise(rng: np.random.Generator, photons: Floats, read_noise: float) -> Floats:
    """Photon counts as a camera reports them: Poisson plus Gaussian read noise.

    The Poisson-Gaussian model of raw data (Foi, Trimeche, Katkovnik and Egiazarian 2008).
    Bright images take the normal limit of the Poisson law.
    """
    photons = np.maximum(photons, 0)
    if float(photons.mean()) < 20:
        counts: Floats = rng.poisson(photons).astype(np.float32)
    else:
        counts = photons + np.sqrt(photons) * gaussian(rng, photons.shape)
    return counts + np.float32(read_noise) * gaussian(rng, photons.shape)


def rician_noise(rng: np.random.Generator, magnitude: Floats, sigma: float) -> Floats:
    """Magnitude of a complex signal with Gaussian noise, as in MRI (Gudbjartsson and Patz 1995)."""
    real = magnitude + np.float32(sigma) * gaussian(rng, magnitude.shape)
    return np.asarray(np.hypot(real, np.float32(sigma) * gaussian(rng, magnitude.shape)))


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Standard normal numbers as float32."""
    return rng.standard_normal(shape, dtype=np.float32)


def degrade(rng: np.random.Generator, image: Floats) -> Floats:
    """Apply a random choice of gamma, negative, uneven light, blur, noise, JPEG and quantization.

    The result is again in arbitrary units. Strengths are moderate: visible objects stay visible.
    """
    low, high = np.percentile(image[::2, ::2], [0.2, 99.8])
    span = max(float(high - low), 1e-6)
    unit = (image - np.float32(low)) / np.float32(span)
    if rng.random() < 0.25:
        unit = np.sign(unit) * np.abs(unit) ** np.float32(np.exp(rng.uniform(-0.5, 0.4)))
    if rng.random() < (0.12 if unit.ndim == 2 else 0.03):
        unit = 1 - unit
    shape = (unit.shape[0], unit.shape[1])
    if rng.random() < 0.15:
        gain = uneven_light(rng, shape, rng.uniform(0.1, 0.5))
        unit = unit * (gain if unit.ndim == 2 else gain[..., None])
    if rng.random() < 0.12:
        unit = blur(unit, rng.uniform(0.4, 1.0))
    if rng.random() < 0.12:
        unit = unit + rng.uniform(0.003, 0.03) * gaussian(rng, unit.shape)
    if rng.random() < 0.15:
        unit = _jpeg_round_trip(unit, int(rng.integers(40, 95)))
    storage = rng.random()
    if storage < 0.35:  # 8 bits; over-exposed pixels are clipped
        unit = np.round(np.clip(unit, 0, 1) * 255) / 255
    elif storage < 0.4:  # few gray levels
        levels = int(rng.integers(24, 100))
        unit = np.round(unit * levels) / levels
    if rng.random() < 0.3:
        return np.asarray(unit * 255, np.float32)
    return np.asarray(unit * np.float32(span) + np.float32(low), np.float32)


def _jpeg_round_trip(unit: Floats, quality: int) -> Floats:
    stored = BytesIO()
    Image.fromarray((np.clip(unit, 0, 1) * 255).astype(np.uint8)).save(
        stored, "JPEG", quality=quality
    )
    return np.asarray(Image.open(stored), np.float32) / 255
