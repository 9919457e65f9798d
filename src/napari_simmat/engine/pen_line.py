"""The path of a hand to a line: whether it closes, where, and the points that are kept of it.

A hand that goes around something stops short of where it began, or goes on past it. So what counts
is whether the line comes back near to one of its ends, as far as one sees on the screen. A line
that closes ends exactly where it begins; no other does (`closes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

REACH = 12.0
"""Screen pixels within which a line meets its start, and closes; of the image where there is no
screen."""
FAR_AROUND = 0.01
"""Share of a line by which it may miss its start, too: who goes far around stops shorter of it."""
TAIL = 0.25
"""Share of a line that may lie beyond where it meets itself; that is cut off."""
ROUNDNESS = 0.1
"""Share of the area of a circle of the same length that a line which closes encloses at least: a
stroke there and back encloses less."""
WIDTH = 0.2
"""Mean width in reaches of what a narrower one encloses at least."""
TREMOR = 0.25
"""Reaches along a line within which it is smoothed before its length is taken: a hand trembles, and
the mouse knows whole pixels only."""
LOOPS = 24
"""It is smoothed along no more than one part of so many of its length."""
FEWEST = 16
"""Smallest number of points of a line that closes."""
MOST = 256
"""Largest number of them."""
MOST_POINTS = 64
"""Largest number of points that another line is kept as."""
SPACING = 4.0
"""Pixels of the image between two points of a line that does not close; one that closes has them
twice as close on the screen."""

Line = Sequence[Sequence[float]]
"""Points y, x."""


def drawn_line(path: Line | NDArray[np.float64], reach: float = REACH) -> NDArray[np.float64]:
    """The line (N, 2) that a hand meant by a path (M, 2), its first and last point included.

    `reach` is `REACH` in pixels of the image.
    """
    vertices = np.asarray(path, np.float64).reshape(-1, 2)
    closed = _closed(vertices, reach)
    if closed is None:
        open_line = points_along(vertices)
        return open_line[:-1] if closes(open_line) else open_line
    count = int(np.clip(math.ceil(length_of(closed) / (reach / 6)), FEWEST, MOST))
    line = _equally_far_apart(closed, count + 1)
    line[-1] = line[0]
    return line


def closes(line: Line | NDArray[np.float64]) -> bool:
    """Whether a line encloses something, rather than leads somewhere: it ends where it begins."""
    if len(line) < 4:
        return False
    (y0, x0), (y1, x1) = line[0], line[-1]
    return math.isclose(y0, y1, abs_tol=1e-6) and math.isclose(x0, x1, abs_tol=1e-6)


def points_along(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 2) at equal distances along a line (M, 2), ends included."""
    length = length_of(vertices)
    if not length:
        return vertices[:1]
    return _equally_far_apart(vertices, int(np.clip(length / SPACING + 1, 2, MOST_POINTS)))


def length_of(line: NDArray[np.float64]) -> float:
    """Length of a line (N, 2)."""
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def at_distances(
    vertices: NDArray[np.float64], lengths: NDArray[np.float64], where: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Points (N, 2) on a line (M, 2) whose vertices lie at `lengths` along it."""
    return np.stack([np.interp(where, lengths, column) for column in vertices.T], axis=1)


def _closed(vertices: NDArray[np.float64], reach: float) -> NDArray[np.float64] | None:
    """The part of a path (M, 2) that goes around something, back to where it began, if it does."""
    length = length_of(vertices)
    if not length:
        return None
    dense = _equally_far_apart(vertices, int(np.clip(4 * length / reach, 3 * FEWEST, 8 * MOST)))
    tail = max(int(TAIL * len(dense)), 1)
    to_end = np.linalg.norm(dense[:tail] - dense[-1], axis=1)
    to_start = np.linalg.norm(dense[-tail:] - dense[0], axis=1)
    begin, end = 0, len(dense)
    if to_end.min() <= to_start.min():
        begin = int(to_end.argmin())
    else:
        end = len(dense) - tail + int(to_start.argmin()) + 1
    loop = np.vstack([dense[begin:end], dense[begin]])
    gap = float(np.linalg.norm(loop[-1] - loop[-2]))
    steady = _smoothed(loop, min(reach * TREMOR, length / LOOPS))
    around = length_of(steady)
    if gap > min(max(reach, FAR_AROUND * around), around / 3):
        return None
    y, x = steady.T
    area = abs(float(y[:-1] @ x[1:] - x[:-1] @ y[1:])) / 2
    is_round = 4 * math.pi * area >= ROUNDNESS * around**2
    is_wide = 2 * area >= WIDTH * reach * around
    return loop if is_round or is_wide else None


def _smoothed(loop: NDArray[np.float64], within: float) -> NDArray[np.float64]:
    """A loop (N, 2) that ends where it begins, averaged along itself."""
    step = length_of(loop) / (len(loop) - 1)
    kept = ndi.gaussian_filter1d(loop[:-1], within / max(step, 1e-9), axis=0, mode="wrap")
    return np.vstack([kept, kept[:1]])


def _equally_far_apart(vertices: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(vertices, axis=0), axis=1))]
    return at_distances(vertices, lengths, np.linspace(0, lengths[-1], count))
