"""D10, D50 and D90 of a table: how the area, or volume, is spread over sizes of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SENTENCE = "D10 {:.4g}, D50 {:.4g}, D90 {:.4g} {} by {}"


class SizeDistribution(NamedTuple):
    """Equivalent diameters up to which objects make up 10, 50 and 90 % of all area or volume.

    These are the percentiles x10,2 or x10,3 ... of the cumulative distribution Q2(x) or Q3(x) of
    ISO 9276-1, without interpolation: each is the diameter of an object.
    """

    d10: float
    d50: float
    d90: float
    unit: str
    axes: int

    @classmethod
    def of(cls, diameters: Sequence[float], unit: str, axes: int) -> SizeDistribution | None:
        """Of objects of these equivalent diameters; None of none.

        Parameters
        ----------
        diameters
            Of discs of their areas, or of balls of their volumes; NaN is left out.
        unit
            Of these.
        axes
            2 for areas, 3 for volumes.
        """
        known = np.asarray(diameters, np.float64)
        known = np.sort(known[np.isfinite(known) & (known > 0)])
        if not known.size:
            return None
        share = np.cumsum(known**axes)
        share /= share[-1]
        found = known[np.searchsorted(share, (0.1, 0.5, 0.9))]
        d10, d50, d90 = found.tolist()
        return cls(d10, d50, d90, unit, axes)

    @classmethod
    def of_sizes(cls, sizes: Sequence[float], unit: str, axes: int) -> SizeDistribution | None:
        """The same of areas or volumes; `unit` is of the diameters."""
        discs_or_balls = np.asarray(sizes, np.float64) * ({2: 4, 3: 6}[axes] / np.pi)
        return cls.of((discs_or_balls ** (1 / axes)).tolist(), unit, axes)

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        by = {2: "area", 3: "volume"}[self.axes]
        return SENTENCE.format(self.d10, self.d50, self.d90, self.unit, by)
