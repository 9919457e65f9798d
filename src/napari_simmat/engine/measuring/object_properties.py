"""What can be said of an object: its size, its shape, how bright it is, how a model sees it.

`object_intensities` compares an object with the ring around it; whatever needs to know how objects
look uses it. `measure_features_job` gives each object of a plane or a stack one vector.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.masks import label_windows
from napari_simmat.progress import Job, Progress

RING = 0.3
"""Width of the ring around an object in square roots of its area."""
MIN_RING = 2.0
BORDER = 2.0
"""Pixels along an object's outline that say more of its surroundings than of its texture."""
_STEP = 20
"""Objects that are measured between two steps of the job: some 20 ms."""
SHAPE = (
    "log area",
    "eccentricity",
    "solidity",
    "log major axis",
    "log minor axis",
    "share of its box",
    "share of its filled outline",
    "roundness",
)
OF_CHANNEL = "mean", "log deviation", "difference to its ring"
OF_STACK = "log volume", "log planes"


class ObjectIntensity(NamedTuple):
    """One object on a plane, seen in C channels.

    Attributes
    ----------
    label, area
        Its id, and its number of pixels.
    around
        The part of the plane that holds the object and the ring.
    mask
        The object there.
    mean, deviation, difference
        (C,) in standard deviations of the plane: its mean from that of the plane, its own
        deviation, away from its border if it is large enough, and how much brighter it is than the
        ring. NaN without a finite value.
    """

    label: int
    area: int
    around: tuple[slice, ...]
    mask: NDArray[np.bool_]
    mean: NDArray[Any]
    deviation: NDArray[Any]
    difference: NDArray[Any]


def object_intensities(values: NDArray[Any], labels: NDArray[Any]) -> Iterator[ObjectIntensity]:
    """The objects of a plane, by ascending id.

    Parameters
    ----------
    values
        (C, Y, X). NaN and infinity do not count.
    labels
        (Y, X), 0 is background.
    """
    flat = values.reshape(len(values), labels.size)
    center = _mean(flat)
    spread = _deviation(flat) + 1e-6
    for label, window in label_windows(labels):
        reach = 1 + int(max(MIN_RING, RING * max(side.stop - side.start for side in window)))
        around = tuple(
            slice(max(side.start - reach, 0), min(side.stop + reach, length))
            for side, length in zip(window, labels.shape, strict=True)
        )
        mask = labels[around] == label
        area = int(np.count_nonzero(mask))
        width = max(MIN_RING, RING * area**0.5)
        ring = ~mask & (ndi.distance_transform_edt(~mask) <= width)
        seen = values[:, *around]
        inner = ndi.distance_transform_edt(mask) > BORDER
        mean = _mean(seen[:, mask])
        deviation = _deviation(seen[:, inner if inner.any() else mask])
        inside = (mean - center) / spread
        outside = (_mean(seen[:, ring]) - center) / spread if ring.any() else 0 * inside
        yield ObjectIntensity(
            int(label), area, around, mask, inside, deviation / spread, inside - outside
        )


def _mean(values: NDArray[Any]) -> NDArray[Any]:
    """The mean (C,) of the finite ones of C rows of values; NaN if a row has none."""
    known = np.isfinite(values)
    return values.mean(1) if known.all() else _of_finite(np.nanmean, values, known)


def _deviation(values: NDArray[Any]) -> NDArray[Any]:
    """Their standard deviation (C,)."""
    known = np.isfinite(values)
    return values.std(1) if known.all() else _of_finite(np.nanstd, values, known)


def _of_finite(
    measure: Callable[..., Any], values: NDArray[Any], known: NDArray[np.bool_]
) -> NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of rows without a finite value
        return np.asarray(measure(np.where(known, values, np.nan), 1))


@dataclass(frozen=True, eq=False)
class ObjectFeatures:
    """One vector for each of N objects.

    Parameters
    ----------
    ids
        Ascending.
    names
        Of the F features.
    values
        (N, F) float64; NaN where a feature is not known.
    appearance
        (N, D), the mean of a model's embedding; None if no model has looked.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    values: NDArray[np.float64]
    appearance: NDArray[np.float64] | None = None


def measure_features_job(
    labels: NDArray[np.integer[Any]],
    plane: Callable[[tuple[int, ...]], NDArray[Any]] | None = None,
    channels: int = 0,
    encode_job: Callable[[tuple[int, ...]], Job[NDArray[np.float32]]] | None = None,
) -> Job[ObjectFeatures]:
    """Measure all objects: `SHAPE`, for each channel `OF_CHANNEL`, and `OF_STACK`.

    Of an object on several planes, each feature of a plane is averaged over these, by its pixels
    there.

    Parameters
    ----------
    labels
        (..., Y, X), 0 is background.
    plane, channels
        Gives the raw values (C, Y, X) of a plane from the indices before (Y, X), and their number
        C. Only planes with objects are read.
    encode_job
        Gives the embedding (D, h, w) of a plane, whose cells cover it evenly.
    """
    averages: dict[int, _Averages] = {}
    planes = [at for at in product(*map(range, labels.shape[:-2])) if labels[at].any()]
    for done, at in enumerate(planes):
        step = Progress(done, len(planes), "measuring objects")
        yield step
        embedding = None if encode_job is None else (yield from encode_job(at))
        on_plane = np.asarray(labels[at])
        values = np.empty((0, *on_plane.shape))
        if plane is not None and channels:
            values = _unit_spread(np.asarray(plane(at), np.float64))
        for number, seen in enumerate(object_intensities(values, on_plane), start=1):
            if number % _STEP == 0:
                yield step
            vector = [*_shape(seen.mask), *_looks(seen)]
            if embedding is not None:
                vector += mean_embedding(embedding, on_plane, seen.label, seen.around).tolist()
            averages.setdefault(seen.label, _Averages(len(vector))).add(vector, seen.area)

    measured = _names_on_planes(channels)
    ids = tuple(sorted(averages))
    rows = np.array([averages[label].means for label in ids] or np.empty((0, len(measured))))
    sizes = [averages[label].sizes for label in ids]
    extents = [[np.log(sum(pixels)), np.log(len(pixels))] for pixels in sizes]
    stacked = np.array(extents).reshape(len(ids), len(OF_STACK))
    return ObjectFeatures(
        ids,
        (*measured, *OF_STACK),
        np.hstack([rows[:, : len(measured)], stacked]),
        None if encode_job is None or not ids else rows[:, len(measured) :],
    )


def _names_on_planes(channels: int) -> list[str]:
    """What is measured on a plane, in the order of `_shape` and `_looks`."""
    names = list(SHAPE)
    for number in range(channels):
        names += [f"{name} {number}" for name in OF_CHANNEL]
    return names


def _unit_spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Channels (C, Y, X) of deviation 1, since some are in billionths."""
    spread = _deviation(values.reshape(len(values), -1))
    usual = np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)
    return np.asarray(values / usual[:, None, None])


class _Averages:
    """The features of one object, averaged over planes."""

    def __init__(self, count: int) -> None:
        self.sizes: list[int] = []
        self._sums = np.zeros(count)
        self._known = np.zeros(count)  # pixels on planes where a feature is known

    def add(self, vector: list[float], area: int) -> None:
        """Count in what was measured on a plane; NaN is not known there."""
        finite = np.isfinite(vector)
        self.sizes.append(area)
        self._sums[finite] += area * np.array(vector)[finite]
        self._known[finite] += area

    @property
    def means(self) -> NDArray[np.float64]:
        known = self._known > 0
        return np.where(known, self._sums / np.where(known, self._known, 1), np.nan)


def mean_embedding(
    embedding: NDArray[np.float32], labels: NDArray[Any], label: int, window: tuple[slice, ...]
) -> NDArray[np.float64]:
    """The mean of an embedding (D, h, w) over an object's cells, of unit length."""
    scale = np.array(embedding.shape[1:]) / labels.shape
    cells = [
        ((np.arange(side.start, side.stop) + 0.5) * factor).astype(int)
        for side, factor in zip(window, scale, strict=True)
    ]
    mask = labels[window] == label
    rows, columns = np.nonzero(mask)
    mean = embedding[:, cells[0][rows], cells[1][columns]].mean(1)
    return np.asarray(mean / (np.linalg.norm(mean) + 1e-9), float)


def _looks(seen: ObjectIntensity) -> list[float]:
    """`OF_CHANNEL` of each channel; an even surface has a deviation of a thousandth."""
    deviation = np.log(seen.deviation + 1e-3)
    looks: list[float] = []
    for channel in zip(seen.mean, deviation, seen.difference, strict=True):
        looks += map(float, channel)
    return looks


def _shape(mask: NDArray[np.bool_]) -> list[float]:
    """`SHAPE` of a mask (Y, X)."""
    from skimage.measure import regionprops

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a row of pixels has no convex hull
        (region,) = regionprops(mask.astype(np.uint8))
        area, perimeter = float(region.area), float(region.perimeter)
        hull = float(region.area_convex)
        return [
            float(np.log(area)),
            float(region.eccentricity),
            area / hull if hull else 1.0,
            float(np.log1p(region.axis_major_length)),
            float(np.log1p(region.axis_minor_length)),
            float(region.extent),
            area / float(region.area_filled),
            min(4 * np.pi * area / perimeter**2, 2.0) if perimeter else 1.0,
        ]
