"""Objects of overlapping tiles as objects of the plane, tile by tile, in memory or in a file."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from napari_simmat.engine.automatic.candidates import Box
from napari_simmat.engine.automatic.sifting import Instances
from napari_simmat.engine.mask_geometry import iou

SAME = 0.5
"""IoU from which on two masks are of one object, where both tiles see it."""
EDGE = 2
"""Pixels from a tile's edge within which a mask counts as cut by it."""


class _Piece(NamedTuple):
    """An object as a tile shows it, in the tile's pixels."""

    where: tuple[slice, slice]
    mask: NDArray[np.bool_]
    score: float
    whole: bool


class Stitcher:
    """Puts tiles together in the order of `tiles_of`.

    Where two tiles see the same object, the one that sees it whole says what it is; where both
    see only a part, the object is both parts together.

    Parameters
    ----------
    labels
        (Y, X) uint32 and empty; numpy, zarr or what else takes slices. Filled in place.
    overlap
        Largest share of a mask that may lie under others.
    """

    def __init__(self, labels: Any, overlap: float = 0.5) -> None:
        self._labels = labels
        self._overlap = overlap
        self._parent = [0]  # of each id; its own where it was not found to be part of another
        self._score = [0.0]
        self._whole = [True]
        self._painted: list[Box] = []

    def add(self, instances: Instances, tile: Box) -> None:
        """Take a tile's objects, labelled within it."""
        if not len(instances):
            return
        window = np.array(self._labels[tile.slices])
        for number, where in enumerate(find_objects(instances.labels), start=1):
            if where is None:
                continue
            mask = instances.labels[where] == number
            whole = not self._is_cut(where, tile)
            self._place(window, _Piece(where, mask, float(instances.scores[number - 1]), whole))
        self._labels[tile.slices] = window
        self._painted.append(tile)

    def finish(
        self, keep_border: bool = True, most: float = math.inf, step: int = 1024
    ) -> NDArray[np.float32]:
        """Number the objects 1..N without gaps, in the order in which they were found.

        Parameters
        ----------
        keep_border
            Whether objects that touch the plane's border stay.
        most
            Pixels up to which an object stays.
        step
            Side of the parts that are read and written at once, in pixels.

        Returns
        -------
        (N,) scores; of an object in several parts their mean.
        """
        parts = self._painted_parts(step)
        roots = np.array([self._root(one) for one in range(len(self._parent))])
        pixels = np.zeros(len(roots), np.int64)
        for part in parts:
            pixels += np.bincount(np.asarray(self._labels[part]).ravel(), minlength=len(roots))
        seen = pixels > 0
        areas = np.bincount(roots, pixels, len(roots))
        kept = np.unique(roots[seen & (roots > 0) & (areas[roots] <= most)])
        if not keep_border:
            edges = [self._labels[0], self._labels[-1], self._labels[:, 0], self._labels[:, -1]]
            kept = np.setdiff1d(kept, roots[np.unique(np.concatenate(edges))])
        number = np.zeros(len(roots), np.uint32)
        number[kept] = np.arange(1, len(kept) + 1)
        table = number[roots]
        for part in parts:
            self._labels[part] = table[np.asarray(self._labels[part])]
        scores = np.array(self._score)
        used = np.flatnonzero(seen & (table > 0))
        sums = np.bincount(table[used], scores[used], len(kept) + 1)
        counts = np.bincount(table[used], minlength=len(kept) + 1)
        return np.asarray(sums[1:] / np.maximum(counts[1:], 1), np.float32)

    def _painted_parts(self, step: int) -> list[tuple[slice, slice]]:
        """Parts of the plane, of a side of `step`, that may hold objects."""
        height, width = self._labels.shape
        places = {
            (y, x)
            for box in self._painted
            for y in range(box.y0 // step * step, box.y1, step)
            for x in range(box.x0 // step * step, box.x1, step)
        }
        return [
            (slice(y, min(y + step, height)), slice(x, min(x + step, width)))
            for y, x in sorted(places)
        ]

    def _is_cut(self, where: tuple[slice, slice], tile: Box) -> bool:
        """Whether an object reaches an edge of the tile beyond which the plane goes on."""
        (rows, columns), (height, width) = where, tile.size
        plane = self._labels.shape
        return bool(
            (rows.start < EDGE and tile.y0 > 0)
            or (columns.start < EDGE and tile.x0 > 0)
            or (rows.stop > height - EDGE and tile.y1 < plane[0])
            or (columns.stop > width - EDGE and tile.x1 < plane[1])
        )

    def _place(self, window: NDArray[np.uint32], piece: _Piece) -> None:
        """Paint a piece: as part of what is there already, or as something new."""
        under = window[piece.where]
        met = [int(one) for one in np.unique(under[piece.mask]) if one]
        same = [one for one in met if self._is_same(window, piece, one)]
        if not same:
            self._paint_new(window, piece)
            return
        first = same[0]
        for other in same[1:]:
            self._join(first, other)
        known_whole = any(self._whole[one] for one in same)
        if piece.whole and not known_whole:
            for one in same:
                window[window == one] = 0
            under[piece.mask & (under == 0)] = first
            self._whole[first], self._score[first] = True, piece.score
        elif not piece.whole and not known_whole:
            under[piece.mask & (under == 0)] = first
            self._score[first] = (self._score[first] + piece.score) / 2

    def _is_same(self, window: NDArray[np.uint32], piece: _Piece, one: int) -> bool:
        """Whether a piece and an object agree where the earlier tile saw the object."""
        theirs = window == one
        rows, columns = np.flatnonzero(theirs.any(1)), np.flatnonzero(theirs.any(0))
        seen = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        mine = np.zeros_like(theirs)
        mine[piece.where] = piece.mask
        return iou(mine[seen], theirs[seen]) >= SAME

    def _paint_new(self, window: NDArray[np.uint32], piece: _Piece) -> None:
        under = window[piece.where]
        free = under == 0
        if piece.whole:  # what another tile cut off gives way
            cut = [one for one in np.unique(under[piece.mask]) if one and not self._whole[one]]
            free |= np.isin(under, cut)
        visible = piece.mask & free
        if np.count_nonzero(visible) < (1 - self._overlap) * np.count_nonzero(piece.mask):
            return
        self._parent.append(len(self._parent))
        self._score.append(piece.score)
        self._whole.append(piece.whole)
        under[visible] = len(self._parent) - 1

    def _root(self, one: int) -> int:
        while self._parent[one] != one:
            one = self._parent[one]
        return one

    def _join(self, first: int, other: int) -> None:
        one, two = sorted((self._root(first), self._root(other)))
        self._parent[two] = one


def tiles_of(shape: tuple[int, int], side: int, overlap: int) -> list[Box]:
    """Overlapping tiles of one size that cover a plane, row by row.

    Parameters
    ----------
    side
        Of a tile in pixels; a smaller plane is one tile.
    overlap
        Pixels that neighbours share at least.
    """
    return [
        Box(y, x, y + min(side, shape[0]), x + min(side, shape[1]))
        for y in _starts(shape[0], side, overlap)
        for x in _starts(shape[1], side, overlap)
    ]


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Evenly spread, so that no tile is smaller than the others."""
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(n * (length - side) / (count - 1)) for n in range(count)]
