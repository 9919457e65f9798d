"""Closed outlines around the origin. Lengths in pixels, angles in radians."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

OutlinePoints = tuple[NDArray[np.floating], NDArray[np.floating]]
"""Closed outline around the origin as y (N,) and x (N,)."""


def outline(rng: np.random.Generator, radius: float, kind: str) -> OutlinePoints:
    """Outline of a kind: blob, polygon, rectangle or tube."""
    if kind == "polygon":
        return (rectangle if rng.random() < 0.4 else polygon)(rng, radius)
    if kind == "rectangle":
        return rectangle(rng, radius)
    if kind == "tube":
        width = max(5.0, radius * rng.uniform(0.15, 0.4))
        return tube(rng, radius * rng.uniform(2, 5), width)
    return blob(rng, radius, float(rng.choice([0.0, 0.05, 0.12, 0.22])), rng.uniform(1, 1.9))


def blob(
    rng: np.random.Generator, radius: float, irregularity: float = 0.1, elongation: float = 1.3
) -> OutlinePoints:
    """Round outline whose radius varies by a few random harmonics."""
    theta = np.linspace(0, 2 * np.pi, int(np.clip(radius * 1.5, 24, 120)), endpoint=False)
    edge = np.ones_like(theta)
    for k in range(2, 7):
        edge += irregularity * rng.normal() / (k - 1) * np.cos(k * theta + rng.uniform(0, 6.28))
    edge = radius * np.clip(edge, 0.3, 2.0)
    stretch = np.sqrt(elongation)
    return _rotated(edge * np.sin(theta) / stretch, edge * np.cos(theta) * stretch, rng)


def rectangle(rng: np.random.Generator, radius: float) -> OutlinePoints:
    """Rectangle, upright in one case of three."""
    height, width = radius * rng.uniform(0.4, 1.1), radius * rng.uniform(0.6, 1.5)
    y, x = np.array([-height, -height, height, height]), np.array([-width, width, width, -width])
    return (y, x) if rng.random() < 0.33 else _rotated(y, x, rng)


def polygon(rng: np.random.Generator, radius: float) -> OutlinePoints:
    """Polygon of 3 to 8 corners, or a star."""
    corners = int(rng.integers(3, 9))
    if rng.random() < 0.75:
        theta = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
        edge = radius * rng.uniform(0.75, 1.3, corners)
    else:
        theta = np.linspace(0, 2 * np.pi, 2 * corners, endpoint=False)
        edge = radius * np.tile([1.25, rng.uniform(0.5, 0.85)], corners)
    return _rotated(edge * np.sin(theta), edge * np.cos(theta), rng)


def tube(rng: np.random.Generator, length: float, width: float) -> OutlinePoints:
    """Winding tube of about constant `width`."""
    n = int(np.clip(length / max(width, 3.0) * 2, 8, 60))
    turns = np.interp(np.linspace(0, 4, n), np.arange(5), rng.normal(0, rng.uniform(0.3, 1.6), 5))
    heading = rng.uniform(0, 6.28) + np.cumsum(turns) * 4 / n
    y, x = np.cumsum(np.sin(heading)) * length / n, np.cumsum(np.cos(heading)) * length / n
    y, x = y - y.mean(), x - x.mean()
    half = width / 2 * (1 + rng.uniform(0, 0.25) * np.sin(np.linspace(0, rng.uniform(1, 9), n)))
    dy, dx = np.cos(heading) * half, -np.sin(heading) * half
    return np.concatenate([y + dy, (y - dy)[::-1]]), np.concatenate([x + dx, (x - dx)[::-1]])


def _rotated(
    y: NDArray[np.floating], x: NDArray[np.floating], rng: np.random.Generator
) -> OutlinePoints:
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y
