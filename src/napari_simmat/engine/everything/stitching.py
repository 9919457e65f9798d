"""Objects found in tiles, joined along the seams."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.everything.candidates import Instances, PixelBox
from napari_simmat.engine.masks import bounding_box, iou

STITCH_IOU = 0.5
"""Two tiles show the same object if its masks have at least this IoU where they overlap."""
TILE_EDGE_MARGIN = 2
"""A mask within so many pixels of a tile's edge counts as cut by it."""


class _TileObject(NamedTuple):
    """An object in one tile, in the tile's pixels; `whole` unless the tile cuts it."""

    where: tuple[slice, slice]
    mask: NDArray[np.bool_]
    score: float
    whole: bool


class Stitcher:
    """Combines the objects of overlapping tiles, in the order of `tile_boxes`.

    Where two tiles show the same object, the tile that shows it whole decides; where both cut it,
    the object is the union of both parts.

    Parameters
    ----------
    labels
        (Y, X) uint32 and empty: numpy, zarr or anything that takes slices. Filled in place.
    overlap
        Largest share of a mask that may lie under others.
    """

    def __init__(self, labels: Any, overlap: float = 0.5) -> None:
        self._labels = labels
        self._overlap = overlap
        # Union-find: the parent of each id, itself unless it was joined to another.
        self._parent = [0]
        self._score = [0.0]
        self._whole = [True]
        self._painted: list[PixelBox] = []

    def state(self) -> dict[str, NDArray[Any]]:
        """All that it knows besides the labels, so that another one can go on (`restore`)."""
        return {
            "parent": np.array(self._parent, np.int64),
            "score": np.array(self._score, np.float64),
            "whole": np.array(self._whole, np.bool_),
            "painted": np.array(self._painted, np.int64).reshape(-1, 4),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where the one stood that `state` is of; the labels are as it left them."""
        self._parent = state["parent"].tolist()
        self._score = state["score"].tolist()
        self._whole = state["whole"].tolist()
        self._painted = [PixelBox(*box) for box in state["painted"].tolist()]

    def add(
        self,
        instances: Instances,
        tile: PixelBox,
        before_write: Callable[[NDArray[np.uint32]], None] | None = None,
    ) -> None:
        """Add a tile's objects.

        `before_write` is called with what the tile's labels will be, once all else is known.
        """
        if not len(instances):
            return
        window = np.array(self._labels[tile.slices])
        for number, where in enumerate(ndi.find_objects(instances.labels), start=1):
            if where is None:
                continue
            mask = instances.labels[where] == number
            # Cut is what reaches an edge of the tile beyond which the plane continues.
            ends = zip(where, tile.slices, tile.size, self._labels.shape, strict=True)
            is_cut = any(
                (part.start < TILE_EDGE_MARGIN and side.start > 0)
                or (part.stop > size - TILE_EDGE_MARGIN and side.stop < length)
                for part, side, size, length in ends
            )
            score = float(instances.scores[number - 1])
            self._place(window, _TileObject(where, mask, score, not is_cut))
        self._painted.append(tile)
        if before_write is not None:
            before_write(window)
        self._labels[tile.slices] = window

    def finish(
        self,
        keep_border: bool = True,
        max_pixels: float = math.inf,
        step: int = 1024,
        into: Any = None,
    ) -> NDArray[np.float32]:
        """Number the objects 1..N in the order in which they were found.

        Parameters
        ----------
        keep_border
            Whether objects that touch the plane's border stay.
        max_pixels
            Objects of more pixels are dropped.
        step
            Side in pixels of the parts that are read and written at once.
        into
            Empty labels of the same shape that get the numbers, so that its own stay as they are;
            by default its own.

        Returns
        -------
        (N,) scores; the mean over the parts of an object.
        """
        height, width = self._labels.shape
        # Only the squares of the plane that may hold objects are visited.
        places = {
            (y, x)
            for box in self._painted
            for y in range(box.y0 // step * step, box.y1, step)
            for x in range(box.x0 // step * step, box.x1, step)
        }
        parts = [
            (slice(y, min(y + step, height)), slice(x, min(x + step, width)))
            for y, x in sorted(places)
        ]
        roots = np.array([self._root(one) for one in range(len(self._parent))])
        pixels = np.zeros(len(roots), np.int64)
        for part in parts:
            pixels += np.bincount(np.asarray(self._labels[part]).ravel(), minlength=len(roots))
        seen = pixels > 0
        areas = np.bincount(roots, pixels, len(roots))
        kept = np.unique(roots[seen & (roots > 0) & (areas[roots] <= max_pixels)])
        if not keep_border:
            edges = [self._labels[0], self._labels[-1], self._labels[:, 0], self._labels[:, -1]]
            kept = np.setdiff1d(kept, roots[np.unique(np.concatenate(edges))])
        number = np.zeros(len(roots), np.uint32)
        number[kept] = np.arange(1, len(kept) + 1)
        table = number[roots]
        numbered = self._labels if into is None else into
        for part in parts:
            numbered[part] = table[np.asarray(self._labels[part])]
        scores = np.array(self._score)
        used = np.flatnonzero(seen & (table > 0))
        sums = np.bincount(table[used], scores[used], len(kept) + 1)
        counts = np.bincount(table[used], minlength=len(kept) + 1)
        return np.asarray(sums[1:] / np.maximum(counts[1:], 1), np.float32)

    def _place(self, window: NDArray[np.uint32], piece: _TileObject) -> None:
        """Paint a piece as part of the objects it matches, or as a new object."""
        under = window[piece.where]
        met = [int(one) for one in np.unique(under[piece.mask]) if one]
        same = [one for one in met if self._is_same(window, piece, one)]
        if not same:
            self._paint_new(window, piece)
            return
        first = same[0]
        for other in same[1:]:
            one, two = sorted((self._root(first), self._root(other)))
            self._parent[two] = one
        known_whole = any(self._whole[one] for one in same)
        if piece.whole and not known_whole:
            for one in same:
                window[window == one] = 0
            under[piece.mask & (under == 0)] = first
            self._whole[first], self._score[first] = True, piece.score
        elif not piece.whole and not known_whole:
            under[piece.mask & (under == 0)] = first
            self._score[first] = (self._score[first] + piece.score) / 2

    def _is_same(self, window: NDArray[np.uint32], piece: _TileObject, one: int) -> bool:
        """Whether a piece and an object agree where the earlier tile saw the object."""
        theirs = window == one
        seen = bounding_box(theirs)
        assert seen is not None
        mine = np.zeros_like(theirs)
        mine[piece.where] = piece.mask
        return iou(mine[seen], theirs[seen]) >= STITCH_IOU

    def _paint_new(self, window: NDArray[np.uint32], piece: _TileObject) -> None:
        under = window[piece.where]
        free = under == 0
        if piece.whole:  # parts that another tile cut off give way
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


def tile_boxes(shape: tuple[int, int], side: int, overlap: int) -> list[PixelBox]:
    """Overlapping tiles of one size that cover a plane, row by row.

    Each has `side` pixels a side, or the plane's; neighbors share at least `overlap` pixels.
    """
    return [
        PixelBox(y, x, y + min(side, shape[0]), x + min(side, shape[1]))
        for y in _tile_starts(shape[0], side, overlap)
        for x in _tile_starts(shape[1], side, overlap)
    ]


def _tile_starts(length: int, side: int, overlap: int) -> list[int]:
    """Starts of the tiles along an axis: evenly spaced, so that all have the same size."""
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(n * (length - side) / (count - 1)) for n in range(count)]
