"""Which of many channels show something: structure above their noise, and not all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.drawing import THUMBNAIL_SIDE, to_rgb
from napari_simmat.progress import Job, Progress

BEST = 3
"""Channels that are proposed: as many as a foundation of photographs reads."""
_SAMPLED = 256
"""Rows, at least, of which neighbors are compared; and sides of the pictures that are compared."""
_OUTLIERS = 0.1
"""Percent of the values at each end that count as the next ones: hot and dead pixels."""
_CLEAR = 0.1
"""Part of the structure of the best channel that one must have to go before its likes."""
_ALIKE = 0.95
"""Channels that correlate more than this show the same."""


class RankedPlane(NamedTuple):
    """A channel, and what it looks like.

    Attributes
    ----------
    number
        Index of the channel.
    picture
        (h, w, 3) of uint8.
    """

    number: int
    picture: NDArray[np.uint8]


class _Seen(NamedTuple):
    number: int
    structure: float
    range: float
    coarse: NDArray[np.float32]  # (h, w), zero on average, of norm 1


def rank_channels_job(array: Any) -> Job[list[RankedPlane]]:
    """The channels with the clearest structure, on the middle plane of a stack.

    What counts is how much of a channel's variance neighbors share, which is low for noise, also
    for that of counts of which almost all are zero, where differences of neighbors say nothing.
    Of channels that are equally smooth the one with the larger range comes first. A channel that
    looks like one before it is passed over, as long as others have a structure of their own.

    Parameters
    ----------
    array
        (C, ..., Y, X), numpy or dask; a plane is read at a time.

    Returns
    -------
    list of RankedPlane
        At most three, the best first.
    """
    middle = tuple(size // 2 for size in array.shape[1:-2])
    seen = []
    for number in range(array.shape[0]):
        yield Progress(number, array.shape[0], "comparing channels")
        seen.append(_look_at(number, np.asarray(array[(number, *middle)])))
    largest = max(each.range for each in seen) or 1.0

    def score(each: _Seen) -> float:
        return each.structure * float(np.sqrt(each.range / largest))

    ranked = sorted(seen, key=score, reverse=True)
    chosen: list[_Seen] = []
    for each in ranked:
        is_clear = each.structure > _CLEAR * ranked[0].structure
        if is_clear and not any(_look_alike(each, other) for other in chosen):
            chosen.append(each)
    best = [*chosen, *(each for each in ranked if each not in chosen)][:BEST]
    return [RankedPlane(each.number, _picture(array, each.number, middle)) for each in best]


def _look_at(number: int, plane: NDArray[Any]) -> _Seen:
    """The structure of a channel (Y, X): the variance that neighbors share, over that of noise."""
    values = np.nan_to_num(plane.astype(np.float32), posinf=0, neginf=0)
    low, high = np.percentile(values, (_OUTLIERS, 100 - _OUTLIERS))
    values = np.clip(values, low, high)
    rows = values[:: max(1, values.shape[0] // _SAMPLED)]
    shared = _correlation(rows[:, :-1], rows[:, 1:])
    steps = [max(1, size // _SAMPLED) for size in values.shape]
    coarse = values[:: steps[0], :: steps[1]]
    coarse = coarse - coarse.mean()
    norm = float(np.linalg.norm(coarse)) or 1.0
    return _Seen(number, shared / (1.05 - shared), float(high - low), coarse / norm)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Correlation of two arrays, 0..1; 0 for constant ones and for those that contradict."""
    one, other = one - one.mean(), other - other.mean()
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return max(0.0, float((one * other).sum()) / norms) if norms > 0 else 0.0


def _look_alike(one: _Seen, other: _Seen) -> bool:
    return float((one.coarse * other.coarse).sum()) > _ALIKE


def _picture(array: Any, number: int, middle: Sequence[int]) -> NDArray[np.uint8]:
    plane = np.nan_to_num(np.asarray(array[(number, *middle)], np.float32), posinf=0, neginf=0)
    side = max(1, -(-max(plane.shape) // THUMBNAIL_SIDE))
    return to_rgb(plane[None, ::side, ::side])
