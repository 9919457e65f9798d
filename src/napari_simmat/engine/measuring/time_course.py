"""How the objects of a time series change: their number and means by frame, and pictures as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _BELOW = 360, 120, 18
"""Pixels of a picture: of its lines, and of the line with the numbers below."""


class TimeCourse:
    """Counts and means of the objects on each frame of an image.

    Parameters
    ----------
    frames
        How many the image has; those without objects count 0.
    columns
        The columns of the table whose means are wanted.

    Attributes
    ----------
    counts
        (T,), the objects on each frame.
    """

    def __init__(self, frames: int, columns: Sequence[str]) -> None:
        self.counts = np.zeros(frames, np.int64)
        self._sums = {name: np.zeros(frames) for name in columns}
        self._known = {name: np.zeros(frames, np.int64) for name in columns}

    def add(self, row: Mapping[str, str]) -> None:
        """Count an object: a row of the table."""
        frame = int(row["t"])
        self.counts[frame] += 1
        for name, sums in self._sums.items():
            if cell := row.get(name):
                sums[frame] += float(cell)
                self._known[name][frame] += 1

    def mean(self, name: str) -> NDArray[np.float64]:
        """(T,), the mean of a column on each frame; NaN where no object has a value."""
        known = self._known[name]
        means = np.full(len(known), math.nan)
        np.divide(self._sums[name], known, out=means, where=known > 0)
        return means


def plot_svg(title: str, lines: Iterable[tuple[str, NDArray[np.float64]]]) -> str:
    """A picture of values over the frames: a line for each image, and the ends of both axes.

    Parameters
    ----------
    title
        What is drawn.
    lines
        The name of each image, which its line shows under the mouse, and its values (T,). A gap
        is where they are NaN.

    Returns
    -------
    str
        The picture; empty if there is no value.
    """
    named = [(name, values) for name, values in lines if np.isfinite(values).any()]
    if not named:
        return ""
    last = max(len(values) for _, values in named) - 1
    low = min(float(np.nanmin(values)) for _, values in named)
    high = max(float(np.nanmax(values)) for _, values in named)
    across, up = _WIDTH / max(last, 1), (_HEIGHT - 4) / (high - low or 1.0)
    drawn = "".join(
        f"<g><title>{escape(name)}</title>{_line(values, low, across, up)}</g>"
        for name, values in named
    )
    below = _HEIGHT + _BELOW - 4
    return (
        f'<svg class="course" role="img" aria-label="{escape(title)} over time" '
        f'width="{_WIDTH}" height="{_HEIGHT + _BELOW}">{drawn}'
        f'<text x="0" y="{below}">frame 0</text>'
        f'<text x="{_WIDTH / 2}" y="{below}" text-anchor="middle">{escape(title)}, '
        f"{low:.5g} to {high:.5g}</text>"
        f'<text x="{_WIDTH}" y="{below}" text-anchor="end">{last}</text></svg>'
    )


def _line(values: NDArray[np.float64], low: float, across: float, up: float) -> str:
    """A line through neighboring values, and a dot at each."""
    known = np.isfinite(values)
    at = [
        (f"{frame * across:.1f}", f"{_HEIGHT - 2 - (values[frame] - low) * up:.1f}")
        for frame in np.flatnonzero(known)
    ]
    runs = np.split(np.arange(len(at)), np.flatnonzero(np.diff(np.flatnonzero(known)) > 1) + 1)
    paths = (" ".join(f"{x},{y}" for x, y in (at[n] for n in run)) for run in runs)
    dots = (f'<circle cx="{x}" cy="{y}" r="1.5"/>' for x, y in at)
    return "".join([*(f'<polyline points="{path}"/>' for path in paths), *dots])
