"""Small images whose objects are known exactly."""

import numpy as np
from scipy.ndimage import gaussian_filter

CENTERS = ((52, 60), (60, 160), (140, 70), (150, 165))
"""y, x of the discs."""
RADII = (26, 32, 30, 22)


def discs(shape: tuple[int, int] = (200, 220)) -> tuple[np.ndarray, np.ndarray]:
    """Bright discs on a dark ground as float 0..1 (Y, X), and their labels 1..4."""
    y, x = np.indices(shape)
    labels = np.zeros(shape, dtype=np.int32)
    for number, ((cy, cx), radius) in enumerate(zip(CENTERS, RADII, strict=True), start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    noise = np.random.default_rng(0).normal(0, 0.02, shape)
    image = gaussian_filter(0.2 + 0.5 * (labels > 0), 0.8) + noise
    return np.clip(image, 0, 1), labels


def gray(shape: tuple[int, int] = (200, 220)) -> np.ndarray:
    """The discs as uint8."""
    return (255 * discs(shape)[0]).astype(np.uint8)


def nucleus_in_cell() -> np.ndarray:
    """A bright disc of radius 8 in a dim one of radius 30, both around (100, 90), as uint8."""
    y, x = np.indices((200, 220))
    away = np.hypot(y - 100, x - 90)
    noise = np.random.default_rng(0).normal(0, 4, away.shape)
    image = gaussian_filter(40 + 50 * (away < 30) + 110 * (away < 8) + noise, 0.8)
    return image.astype(np.uint8)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two bool masks."""
    return float((mask & truth).sum() / (mask | truth).sum())
