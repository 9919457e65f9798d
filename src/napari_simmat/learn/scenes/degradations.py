"""What happens to an image between the instrument and the file."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.optics import blur, gaussian, uneven_light


def degrade(rng: np.random.Generator, image: Floats) -> Floats:
    """Some of: gamma, negative, uneven light, blur, noise, JPEG traces, 8- or 16-bit steps.

    The result is again in arbitrary units. Strengths are moderate: what was to be seen stays.
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
        unit = _through_jpeg(unit, int(rng.integers(40, 95)))
    storage = rng.random()
    if storage < 0.35:  # 8 bits; over-exposed pixels are clipped
        unit = np.round(np.clip(unit, 0, 1) * 255) / 255
    elif storage < 0.4:  # few grey levels
        levels = int(rng.integers(24, 100))
        unit = np.round(unit * levels) / levels
    if rng.random() < 0.3:
        return np.asarray(unit * 255, np.float32)
    return np.asarray(unit * np.float32(span) + np.float32(low), np.float32)


def _through_jpeg(unit: Floats, quality: int) -> Floats:
    stored = BytesIO()
    Image.fromarray((np.clip(unit, 0, 1) * 255).astype(np.uint8)).save(
        stored, "JPEG", quality=quality
    )
    return np.asarray(Image.open(stored), np.float32) / 255
