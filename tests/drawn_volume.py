"""Drawn cells in three dimensions and a confocal stack of them."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Floats = NDArray[np.floating[Any]]
Ids = NDArray[np.int32]

VOXEL_SPACING = (2.0, 1.0, 1.0)
"""Distance between voxels along z, y, x: planes are twice as far apart as pixels."""


def draw_volume(
    seed: int, shape: tuple[int, int, int] = (24, 192, 192), count: int = 9
) -> tuple[NDArray[np.uint16], Ids]:
    """Draw cells in three dimensions and a confocal stack of them.

    Bodies of uneven outline lie above and next to each other, some touching, each with its own
    brightness and grain. The stack is blurred, more so along z, dims with depth, and has photon and
    read noise.

    Parameters
    ----------
    seed
        Equal seeds give equal stacks.
    shape
        (Z, Y, X).
    count
        Number of bodies; fewer where there is no room.

    Returns
    -------
    stack
        Uint16 (Z, Y, X).
    labels
        Int32 (Z, Y, X), the bodies 1..N.
    """
    rng = np.random.default_rng(seed)
    labels = _bodies(rng, shape, count)
    grain = _noise(rng, shape, 2.5)
    levels = np.concatenate([[0.12], rng.uniform(0.45, 1.0, int(labels.max()))])
    light = levels[labels] * (1 + 0.22 * grain * (labels > 0)) + 0.03 * _noise(rng, shape, 8.0)
    light = ndi.gaussian_filter(light, (2.5 / VOXEL_SPACING[0], 1.2, 1.2))
    light = light * np.exp(-0.02 * np.arange(shape[0]))[:, None, None]
    counts = 20 * rng.poisson(120 * np.clip(light, 0, None)) + rng.normal(100, 20, shape)
    return np.clip(counts, 0, 65535).astype(np.uint16), labels


def _bodies(rng: np.random.Generator, shape: tuple[int, int, int], count: int) -> Ids:
    """Rotated ellipsoids with uneven outlines; a contested voxel belongs to the nearer one."""
    extent = np.array(shape) * VOXEL_SPACING
    axes = [np.arange(size) * step for size, step in zip(shape, VOXEL_SPACING, strict=True)]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"))
    uneven = _noise(rng, shape, 12.0)
    labels, level = np.zeros(shape, np.int32), np.ones(shape, np.float32)
    for number, (center, radius) in enumerate(_place_bodies(rng, extent, count), start=1):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        radii = radius * rng.uniform(0.8, 1.25, 3)
        along = np.einsum("ij,jzyx->izyx", rotation, positions - center[:, None, None, None])
        far = np.sqrt(sum((along[axis] / radii[axis]) ** 2 for axis in range(3)))
        far = (far + 0.09 * rng.choice([-1, 1]) * uneven).astype(np.float32)
        nearest = far < level
        labels[nearest], level[nearest] = number, far[nearest]
    return labels


def _place_bodies(
    rng: np.random.Generator, extent: Floats, count: int
) -> list[tuple[NDArray[np.float64], float]]:
    """Centers z, y, x and radii of bodies that hardly overlap and all cross the middle plane."""
    places: list[tuple[NDArray[np.float64], float]] = []
    for _ in range(2000):
        if len(places) == count:
            break
        radius = float(rng.uniform(0.09, 0.15) * extent[1])
        share = np.array([rng.uniform(0.35, 0.65), *rng.uniform(0.1, 0.9, 2)])
        center: NDArray[np.float64] = (share * extent).astype(np.float64)
        apart = (
            math.dist(center[1:], other[1:]) > 0.85 * (radius + size) for other, size in places
        )
        if all(apart):
            places.append((center, radius))
    return places


def _noise(rng: np.random.Generator, shape: tuple[int, int, int], length: float) -> Floats:
    """Smooth noise of standard deviation 1 and a correlation length of `length` pixels."""
    field = ndi.gaussian_filter(rng.normal(size=shape), [length / step for step in VOXEL_SPACING])
    return np.asarray(field / field.std(), np.float32)
