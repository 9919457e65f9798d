"""Histograms of the columns of a table: bins, and a picture of them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

MOST_BINS = 40
_WIDTH, _HEIGHT, _BELOW = 360, 120, 18
"""Pixels of a picture: of its bars, and of the line with the numbers below."""


class Histogram(NamedTuple):
    """How many values lie in each bin.

    Attributes
    ----------
    edges
        One more than there are bins, ascending.
    counts
        Of each bin; the last one includes its upper edge.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Histogram | None:
        """Count the finite values in NumPy's bins (`auto`), `MOST_BINS` at most; None of none.

        Whole numbers have bins of whole widths, so that none is empty for want of a number.
        """
        known = np.asarray(values, np.float64)
        known = known[np.isfinite(known)]
        if not known.size:
            return None
        low, high = float(known.min()), float(known.max())
        if low == high:
            return cls((low - 0.5, high + 0.5), (int(known.size),))
        count = min(MOST_BINS, len(np.histogram_bin_edges(known, "auto")) - 1, known.size)
        edges = np.linspace(low, high, max(count, 1) + 1)
        if (known == np.rint(known)).all():
            step = max(1, math.ceil((high - low + 1) / max(count, 1)))
            edges = np.arange(low - 0.5, high + step, step)
        counts, edges = np.histogram(known, edges)
        return cls(tuple(edges.tolist()), tuple(counts.tolist()))

    def svg(self, title: str) -> str:
        """A picture: bars, the ends of the axis, and the highest count."""
        top = max(self.counts)
        wide = _WIDTH / len(self.counts)
        bars = "".join(
            f'<rect x="{n * wide:.1f}" y="{_HEIGHT * (1 - count / top):.1f}" '
            f'width="{max(wide - 1, 0.5):.1f}" height="{_HEIGHT * count / top:.1f}">'
            f"<title>{self.edges[n]:.4g} to {self.edges[n + 1]:.4g}: {count}</title></rect>"
            for n, count in enumerate(self.counts)
            if count
        )
        low, high = f"{self.edges[0]:.4g}", f"{self.edges[-1]:.4g}"
        below = _HEIGHT + _BELOW - 4
        return (
            f'<svg class="histogram" role="img" aria-label="Histogram of {escape(title)}" '
            f'width="{_WIDTH}" height="{_HEIGHT + _BELOW}">{bars}'
            f'<text x="0" y="{below}">{low}</text>'
            f'<text x="{_WIDTH / 2}" y="{below}" text-anchor="middle">{escape(title)}, '
            f"up to {top}</text>"
            f'<text x="{_WIDTH}" y="{below}" text-anchor="end">{high}</text></svg>'
        )
