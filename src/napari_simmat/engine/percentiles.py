"""Percentiles of values that arrive piece by piece.

One definition for all types: the values are sorted, and percentile ``q`` of ``n`` values lies at
position ``q / 100 * (n - 1)``, linear between the two neighbours, as `numpy.percentile` has it.
For uint8 and uint16 the sorted values are kept as a histogram, for others as they came: the
numbers are the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COUNTED = (np.dtype(np.uint8), np.dtype(np.uint16))


class Pool:
    """Values of one type, of which percentiles are asked once all are in.

    Parameters
    ----------
    dtype
        Type of the values; NaN and infinity are left out.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._counts = (
            np.zeros(np.iinfo(dtype).max + 1, dtype=np.int64) if dtype in _COUNTED else None
        )
        self._pieces: list[NDArray[Any]] = []

    def __len__(self) -> int:
        if self._counts is not None:
            return int(self._counts.sum())
        return sum(piece.size for piece in self._pieces)

    def add(self, values: NDArray[Any]) -> None:
        """Take in the finite ones of `values`."""
        flat = values.astype(self.dtype, copy=False).ravel()
        if self._counts is not None:
            self._counts += np.bincount(flat, minlength=self._counts.size)
        else:
            # A mask copies, so that the pool does not change with the user's array.
            self._pieces.append(flat[np.isfinite(flat)])

    def percentiles(self, percents: tuple[float, ...]) -> tuple[float, ...]:
        """Values at `percents`, in percent; there must be at least one value."""
        positions = [percent / 100 * (len(self) - 1) for percent in percents]
        ranks = sorted({rank for at in positions for rank in (math.floor(at), math.ceil(at))})
        value = dict(zip(ranks, self._sorted_at(ranks), strict=True))
        return tuple(
            _between(value[math.floor(at)], value[math.ceil(at)], at - math.floor(at))
            for at in positions
        )

    def range(self) -> tuple[float, float]:
        """Lowest and highest value."""
        low, high = self._sorted_at([0, len(self) - 1])
        return low, high

    def _sorted_at(self, ranks: list[int]) -> list[float]:
        """Values at `ranks` if all were sorted."""
        if self._counts is not None:
            found = np.searchsorted(self._counts.cumsum(), ranks, side="right")
        else:
            self._pieces = [np.partition(np.concatenate(self._pieces), ranks)]
            found = self._pieces[0][ranks]
        return [float(number) for number in found]


def _between(low: float, high: float, share: float) -> float:
    # Equal neighbours give themselves, whatever the rounding; no difference that could overflow.
    return low if low == high else low * (1 - share) + high * share
