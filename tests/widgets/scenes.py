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


def dots_in_a_dish(radius: float = 9) -> tuple[np.ndarray, np.ndarray]:
    """Dim dots at distances of 28 in a large disc around (128, 180), as float 0..1, and labels."""
    y, x = np.indices((256, 384))
    row, column = np.round((y - 128) / 28), np.round((x - 180) / 28)
    is_dot = np.hypot(y - 128 - 28 * row, x - 180 - 28 * column) <= radius
    is_dot &= np.hypot(28 * row, 28 * column) <= 80
    image = 0.15 + 0.2 * (np.hypot(y - 128, x - 180) <= 80) + 0.15 * is_dot
    noise = np.random.default_rng(0).normal(0, 0.03, image.shape)
    labels = (is_dot * (100 + 10 * row + column)).astype(np.int32)
    return gaussian_filter(image + noise, 1), labels


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two bool masks."""
    return float((mask & truth).sum() / (mask | truth).sum())
