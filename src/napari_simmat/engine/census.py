"""Which objects a label array holds, how large they are and where: kept up to date by its changes.

Counting a large stack anew after each click would stop the window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from napari_simmat.engine.footprints import Footprint, Patch

_STRIP = 1 << 24
"""Pixels that are read at a time."""
_TABLE = 1 << 16
"""Numbers up to this, or to as many as there are pixels, are counted in a table."""

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""First index and last index + 1 along each axis."""


@dataclass
class Presence:
    """One object: its number of voxels, and a box that holds them (it may be larger)."""

    size: int
    box: Box


class Census:
    """Size and place of every object of a label array; 0 is background."""

    def __init__(self) -> None:
        self._present: dict[int, Presence] = {}

    @classmethod
    def of(cls, labels: Any) -> Census:
        """Count an array (..., Y, X), strip by strip: a lazy one is never read whole."""
        census = cls()
        height, width = labels.shape[-2:]
        strip = max(1, _STRIP // max(1, width))
        for plane in np.ndindex(labels.shape[:-2]):
            for top in range(0, height, strip):
                values = np.asarray(labels[(*plane, slice(top, top + strip))])
                census._count(values, (*plane, top, 0))
        return census

    def __iter__(self) -> Iterator[int]:
        """The objects' numbers, ascending."""
        return iter(sorted(self._present))

    def __contains__(self, label: int) -> bool:
        return label in self._present

    def __len__(self) -> int:
        return len(self._present)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Census) and self.sizes() == other.sizes()

    __hash__ = None  # type: ignore[assignment]

    @property
    def largest(self) -> int:
        """The largest number in use; 0 if there is none."""
        return max(self._present, default=0)

    def sizes(self) -> dict[int, int]:
        """Voxels of each object."""
        return {label: self._present[label].size for label in self}

    def size(self, label: int) -> int:
        """Voxels of one object; 0 if there is no such object."""
        return self._present[label].size if label in self._present else 0

    def box(self, label: int) -> Box:
        """A box that holds the object."""
        return self._present[label].box

    def footprint(self, labels: Any, label: int) -> Footprint | None:
        """The object's voxels as they are in `labels` now; None if there are none."""
        if label not in self._present:
            return None
        low, high = self._present[label].box
        region = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
        mask = np.asarray(labels[region]) == label
        return Footprint.of(mask, low) if mask.any() else None

    def note(self, patch: Patch) -> None:
        """Take up a change of the array."""
        before, after, index = patch.values()
        self._shrink(before)
        kept = after != 0
        self._grow(after[kept], tuple(at[kept] for at in index))

    def _count(self, values: NDArray[Any], corner: tuple[int, ...]) -> None:
        """Take up a block (Y, X) that begins at `corner`."""
        if not values.size or (not (largest := int(values.max())) and not values.min()):
            return
        if values.min() < 0 or largest > max(_TABLE, values.size):
            rows, columns = np.nonzero(values)
            lead = tuple(np.full(len(rows), index) for index in corner[:-2])
            at = (*lead, rows + corner[-2], columns + corner[-1])
            self._grow(values[rows, columns], at)
            return
        values = values.astype(np.int32, copy=False)
        counts = np.bincount(values.ravel(), minlength=largest + 1)
        boxes = find_objects(values, largest)
        (top, left), plane = corner[-2:], corner[:-2]
        after = tuple(index + 1 for index in plane)
        for label in (np.flatnonzero(counts[1:]) + 1).tolist():
            rows, columns = boxes[label - 1]
            low = (*plane, top + rows.start, left + columns.start)
            high = (*after, top + rows.stop, left + columns.stop)
            self._add(label, int(counts[label]), low, high)

    def _shrink(self, values: NDArray[Any]) -> None:
        for label, count in zip(*np.unique(values, return_counts=True), strict=True):
            if (present := self._present.get(int(label))) is not None:
                present.size -= int(count)
                if present.size <= 0:
                    del self._present[int(label)]

    def _grow(self, values: NDArray[Any], index: tuple[NDArray[Any], ...]) -> None:
        if values.size == 0:
            return
        order = np.argsort(values, kind="stable")
        found, starts, counts = np.unique(values[order], return_index=True, return_counts=True)
        ordered = [at[order] for at in index]
        lows = np.stack([np.minimum.reduceat(at, starts) for at in ordered], axis=1)
        highs = np.stack([np.maximum.reduceat(at, starts) for at in ordered], axis=1) + 1
        for label, count, low, high in zip(
            found.tolist(), counts.tolist(), lows.tolist(), highs.tolist(), strict=True
        ):
            self._add(label, count, tuple(low), tuple(high))

    def _add(self, label: int, count: int, low: tuple[int, ...], high: tuple[int, ...]) -> None:
        present = self._present.get(label)
        if present is None:
            self._present[label] = Presence(count, (low, high))
            return
        present.size += count
        present.box = (
            tuple(map(min, present.box[0], low)),
            tuple(map(max, present.box[1], high)),
        )


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of some."""
    lows, highs = zip(*boxes, strict=True)
    return tuple(map(min, zip(*lows, strict=True))), tuple(map(max, zip(*highs, strict=True)))
