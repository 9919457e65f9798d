"""A colony of rod-shaped bacteria as it grows: cells lengthen, divide and push each other.

The mechanics are those of agent-based models of growing cells (e.g. Rudge et al., ACS Synthetic
Biology 1, 2012) at their simplest: rods are rows of beads, overlapping beads repel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

_BEADS = 9
_GROWTH = 1.12
"""Lengthening in one step; about six steps from one division to the next."""


class Rods(NamedTuple):
    """Centres (N, 2) as y, x; distances (N,) between the centres of the round ends; angles (N,)."""

    centres: NDArray[np.float64]
    lengths: NDArray[np.float64]
    angles: NDArray[np.float64]


def grown(rng: np.random.Generator, cells: int, width: float, longest: float) -> Rods:
    """Grow a colony around the origin until it has `cells` or more rods.

    Parameters
    ----------
    rng
        Source of randomness.
    cells
        Rods at which growth stops.
    width
        Of a rod, in pixels.
    longest
        Length between the centres of the round ends at which a rod divides, in pixels.
    """
    founders = int(rng.integers(1, 4))
    centres = rng.normal(0, 1.5 * longest, (founders, 2)) if founders > 1 else np.zeros((1, 2))
    lengths = longest * rng.uniform(0.4, 0.9, founders)
    angles = rng.uniform(0, np.pi, founders)
    wobble = rng.uniform(0.01, 0.12)
    rods = Rods(centres, lengths, angles)
    while len(rods.lengths) < cells:
        pace = _GROWTH ** rng.uniform(0.6, 1.4, len(rods.lengths))
        rods = _divided(rng, rods._replace(lengths=rods.lengths * pace), width, longest, wobble)
        for _ in range(3):
            rods = _apart(rods, width)
    for _ in range(6):
        rods = _apart(rods, width)
    return rods


def _divided(
    rng: np.random.Generator, rods: Rods, width: float, longest: float, wobble: float
) -> Rods:
    """Rods longer than `longest` become two that touch at their new ends."""
    ready = rods.lengths > longest
    if not ready.any():
        return rods
    length, angle = rods.lengths[ready], rods.angles[ready]
    half = np.maximum((length - width) / 2, 0.2 * width)
    away = (half + width)[:, None] / 2 * _direction(angle)
    daughters = [
        Rods(rods.centres[ready] + s * away, half, angle + rng.normal(0, wobble, len(angle)))
        for s in (1, -1)
    ]
    kept = Rods(rods.centres[~ready], rods.lengths[~ready], rods.angles[~ready])
    parts = [kept, *daughters]
    return Rods(
        np.concatenate([each.centres for each in parts]),
        np.concatenate([each.lengths for each in parts]),
        np.concatenate([each.angles for each in parts]),
    )


def _apart(rods: Rods, width: float) -> Rods:
    """Push overlapping rods apart once: every bead gives way, the rod shifts and turns."""
    count = len(rods.lengths)
    along = np.linspace(-0.5, 0.5, _BEADS)
    arms = (rods.lengths[:, None] * along)[..., None] * _direction(rods.angles)[:, None]
    beads = (rods.centres[:, None] + arms).reshape(-1, 2)
    first, second = cKDTree(beads).query_pairs(width, output_type="ndarray").T
    other = first // _BEADS != second // _BEADS
    first, second = first[other], second[other]
    gap = beads[first] - beads[second]
    distance = np.maximum(np.hypot(*gap.T), 1e-6)
    push = gap * (0.35 * (width - distance) / distance)[:, None]
    shoves = np.zeros_like(beads)
    for beads_of, sign in ((first, 1.0), (second, -1.0)):
        for axis in range(2):
            shoves[:, axis] += sign * np.bincount(beads_of, push[:, axis], len(beads))
    moves = shoves.reshape(count, _BEADS, 2)
    pushed = np.maximum((moves != 0).any(-1).sum(1), 1)
    torque = (arms[..., 1] * moves[..., 0] - arms[..., 0] * moves[..., 1]).sum(1)
    inertia = np.maximum((arms**2).sum((1, 2)), width**2)
    return Rods(
        rods.centres + moves.sum(1) / pushed[:, None],
        rods.lengths,
        rods.angles + np.clip(torque / inertia, -0.2, 0.2),
    )


def _direction(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors (N, 2) as y, x."""
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1)
