"""Grey values and colours of regions such that neighbours differ."""

from __future__ import annotations

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats
from napari_simmat.learn.scenes.scene import Scene

_TRIES = 12


def tones(
    scene: Scene,
    rng: np.random.Generator,
    *,
    gap: float,
    low: float = 0.0,
    high: float = 1.0,
    channels: int = 1,
    background: float | None = None,
) -> Floats:
    """Values (n_regions, channels), at least `gap` apart between neighbours where it can be.

    Parameters
    ----------
    scene, rng
        The scene; source of randomness.
    gap
        Wanted difference between regions that share a border (largest over the channels).
    low, high
        Range of the values.
    channels
        1 for grey; 3 for colours, which lean towards grey.
    background
        Value of region 0; drawn like the others by default.
    """
    n = scene.n_regions
    next_to: list[list[int]] = [[] for _ in range(n)]
    for a, b in scene.neighbours.tolist():
        next_to[a].append(b)
        next_to[b].append(a)
    candidates = rng.random((n, _TRIES, channels), dtype=np.float32)
    if channels > 1:
        grey = rng.random((n, _TRIES, 1), dtype=np.float32)
        candidates = grey + rng.uniform(0.1, 0.6) * (candidates - grey)
    candidates = low + (high - low) * candidates
    values = np.full((n, channels), np.nan, np.float32)
    values[0] = candidates[0, 0] if background is None else background
    for region in range(1, n):
        known = [k for k in next_to[region] if k < region]
        if not known:
            values[region] = candidates[region, 0]
            continue
        apart = np.abs(candidates[region][:, None] - values[known]).max(axis=-1).min(axis=-1)
        enough = np.flatnonzero(apart >= gap)
        values[region] = candidates[region, enough[0] if len(enough) else int(apart.argmax())]
    return values
