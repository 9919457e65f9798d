"""Statistics of the values of one object, in each channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from napari_simmat.engine.table_settings import percentile_of

_REDUCTIONS: Mapping[str, Callable[..., Any]] = {
    "mean": np.mean,
    "std": np.std,
    "sum": np.sum,
    "min": np.min,
    "max": np.max,
}


def summarize(values: NDArray[Any], statistics: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Statistics of the finite values of each channel, NaN for a channel without one.

    Parameters
    ----------
    values
        (C, N), the N pixels of an object. NaN and infinity do not count.
    statistics
        Names of `engine.table_settings`. The deviation divides by N, as NumPy's; percentiles are
        linear between the two nearest values, and the median is the 50th.

    Returns
    -------
    dict
        (C,) for each name.
    """
    is_known = values.dtype.kind != "f" or bool(np.isfinite(values).all())
    if is_known and values.shape[1]:
        return _summaries(np.ascontiguousarray(values, np.float64), statistics)
    found = {name: np.full(len(values), np.nan) for name in statistics}
    for channel, row in enumerate(values):
        finite = row[np.isfinite(row)].astype(np.float64)
        if finite.size:
            for name, each in _summaries(finite[np.newaxis], statistics).items():
                found[name][channel] = each[0]
    return found


RING = (2, 7)
"""Pixels from an object within which, and up to which, the background around it is measured."""


def ring(labels: NDArray[Any], label: int) -> NDArray[np.bool_]:
    """Where the background of an object is measured: a ring that holds no pixel of any object.

    Parameters
    ----------
    labels
        (..., Y, X), with `RING` pixels around the object where the image has them. Of a volume, the
        ring is in each plane that shows the object.
    label
        The object.
    """
    inside = labels == label
    planes = inside.reshape(-1, *inside.shape[-2:])
    near = np.zeros(planes.shape, bool)
    for plane, found in zip(planes, near, strict=True):
        if plane.any():
            away = distance_transform_edt(~plane)
            found[:] = (away > RING[0]) & (away <= RING[1])
    return np.asarray(near.reshape(labels.shape) & (labels == 0), bool)


def statistics_of_places(
    values: NDArray[Any],
    around: NDArray[Any] | None,
    places: NDArray[Any],
    statistics: Sequence[str],
) -> dict[str, NDArray[np.float64]]:
    """Statistics that need more than the values, of each channel; of the finite ones alone.

    The background is the median of the ring, the net sum is the sum of what exceeds it, and the
    weighted place the mean place of the pixels, each weighted by its value, as scikit-image and
    photutils have it; NaN where the values sum up to none.

    Parameters
    ----------
    values, around
        (C, N) and (C, M), the pixels of an object, and of the ring around it; None if no statistic
        needs that.
    places
        (2 or 3, N), indices of the pixels along (Z,) Y, X.
    statistics
        Some of `table_settings.OF_PLACES`.
    """
    count = len(values)
    found = {name: np.full(count, np.nan) for name in statistics}
    axes = dict(zip("xyz", places[::-1], strict=False))
    for channel, row in enumerate(values.astype(np.float64)):
        known = np.isfinite(row)
        nearby = np.empty(0) if around is None else around[channel].astype(np.float64)
        nearby = nearby[np.isfinite(nearby)]
        level = float(np.median(nearby)) if nearby.size else float("nan")
        for name, numbers in found.items():
            axis = axes.get(name.removeprefix("weighted_"))
            if name == "background":
                numbers[channel] = level
            elif name == "net_sum":
                numbers[channel] = (row[known] - level).sum() if known.any() else np.nan
            elif axis is not None and known.any():
                total = row[known].sum()
                numbers[channel] = row[known] @ axis[known] / total if total else np.nan
    return found


def known_share(values: NDArray[Any]) -> NDArray[np.float64]:
    """Share of an object's values (C, N) that are finite, 0 to 1, of each channel."""
    if values.dtype.kind != "f":
        return np.ones(len(values))
    return np.asarray(np.isfinite(values).mean(axis=1), np.float64)


def _summaries(
    values: NDArray[np.float64], statistics: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """The same of values (C, N) that are all finite, N at least 1."""
    ranks = {name: rank for name in statistics if (rank := percentile_of(name)) is not None}
    levels = dict(zip(ranks, _percentiles(values, list(ranks.values())), strict=True))
    return {
        name: levels[name] if name in levels else _REDUCTIONS[name](values, axis=1)
        for name in statistics
    }


def _percentiles(values: NDArray[np.float64], ranks: Sequence[float]) -> list[NDArray[np.float64]]:
    """One (C,) for each rank, as `numpy.percentile`, which is ten times slower on small objects."""
    if not ranks:
        return []
    ordered = np.sort(values, axis=1)
    last = values.shape[1] - 1
    found = []
    for rank in ranks:
        below, part = divmod(rank / 100 * last, 1)
        low = ordered[:, int(below)]
        high = ordered[:, min(int(below) + 1, last)]
        found.append(low + (high - low) * part)
    return found
