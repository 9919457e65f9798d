"""What optics and cameras do to a picture: blur, haze, uneven light, noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi

from napari_simmat.learn.scenes.arrays import Floats, Shape
from napari_simmat.learn.scenes.textures import smooth_field


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
    return _stretched(_stretched(coarse, image.shape[0], step).T, image.shape[1], step).T


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


def _stretched(values: Floats, n: int, step: int) -> Floats:
    """Linear interpolation of (m, k) along its first axis to n rows, `step` rows per value."""
    last = len(values) - 1
    position = np.clip((np.arange(n, dtype=np.float32) + 0.5) / step - 0.5, 0, last)
    below = position.astype(np.intp)
    part = (position - below)[:, None]
    return values[below] * (1 - part) + values[np.minimum(below + 1, last)] * part
