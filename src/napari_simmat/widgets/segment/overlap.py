"""Who gets which voxel where a new object lies over others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from napari_simmat.engine.footprints import Footprint

Overlap = Literal["keep", "overwrite", "ask"]
"""Who gets the pixels of a new object that others have: they, the new one, or the user says."""


def drawn(
    labels: Any,
    footprint: Footprint,
    label: int,
    stale: Sequence[Footprint],
    overlap: Overlap,
    above: Sequence[int],
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray] | None:
    """What a block of `labels` holds with a new object in it; nothing is written.

    Parameters
    ----------
    labels
        The label array.
    footprint, label
        The new object and its number.
    stale
        Where an object that is replaced lies now: its voxels there become background.
    overlap
        Whether other objects keep their voxels.
    above
        Objects that keep theirs in any case.

    Returns
    -------
    corner, before, after
        Where the block begins, what it holds and what it is to hold; None if the object gets no
        voxel.
    """
    low = np.array(footprint.corner)
    high = low + footprint.shape
    for each in stale:
        low = np.minimum(low, each.corner)
        high = np.maximum(high, np.add(each.corner, each.shape))
    region = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    before = np.array(labels[region])
    after = before.copy()
    for each in stale:
        after[_within(each, low)][each.mask] = 0
    inside = after[_within(footprint, low)]
    taken = inside != 0 if overlap == "keep" else np.isin(inside, list(above))
    mask = footprint.mask & ~taken
    if not mask.any():
        return None
    inside[mask] = label
    return tuple(int(n) for n in low), before, after


def _within(footprint: Footprint, corner: np.ndarray) -> tuple[slice, ...]:
    """The footprint's region within a block that begins at `corner`."""
    return tuple(
        slice(int(first - start), int(first - start + size))
        for first, start, size in zip(footprint.corner, corner, footprint.shape, strict=True)
    )
