"""`LabelIndex`: where each object of a label image is, kept up to date edit by edit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.masks import LABELS_IN_TABLE, ObjectMask, VoxelBox

_STRIP = 1 << 24
"""Pixels that are read at a time."""


@dataclass
class LabelExtent:
    """Number of voxels of one object, and a box that contains them; it may be too large."""

    size: int
    box: VoxelBox


class LabelIndex:
    """Size and box of every object of a label array, kept up to date by its edits.

    Counting a large stack again after each click would block the window.
    """

    def __init__(self) -> None:
        self._present: dict[int, LabelExtent] = {}

    @classmethod
    def of(cls, labels: Any) -> LabelIndex:
        """Count an array (..., Y, X) strip by strip, so that a lazy one is never read whole."""
        index = cls()
        height, width = labels.shape[-2:]
        strip = max(1, _STRIP // max(1, width))
        for plane in np.ndindex(labels.shape[:-2]):
            for top in range(0, height, strip):
                values = np.asarray(labels[(*plane, slice(top, top + strip))])
                index._count(values, (*plane, top, 0))
        return index

    def __iter__(self) -> Iterator[int]:
        """The labels in ascending order."""
        return iter(sorted(self._present))

    def __contains__(self, label: int) -> bool:
        return label in self._present

    def __len__(self) -> int:
        return len(self._present)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelIndex) and self.sizes() == other.sizes()

    __hash__ = None  # type: ignore[assignment]

    @property
    def highest(self) -> int:
        """The highest label; 0 if there is none."""
        return max(self._present, default=0)

    def sizes(self) -> dict[int, int]:
        """Voxels of each object."""
        return {label: self._present[label].size for label in self}

    def size(self, label: int) -> int:
        """Voxels of one object; 0 if there is no such object."""
        return self._present[label].size if label in self._present else 0

    def box(self, label: int) -> VoxelBox:
        """A box that contains the object."""
        return self._present[label].box

    def mask(self, labels: Any, label: int) -> ObjectMask | None:
        """The object's voxels in `labels`; None if there are none."""
        if label not in self._present:
            return None
        low, high = self._present[label].box
        region = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
        mask = np.asarray(labels[region]) == label
        return ObjectMask.of(mask, low) if mask.any() else None

    def note(self, edit: LabelEdit) -> None:
        """Update the index after an edit of the array."""
        if isinstance(edit.before, int) and isinstance(edit.after, int):  # no voxel is looked at
            self._shrink(edit.before, edit.mask.size)
            if edit.after:
                self._add(edit.after, edit.mask.size, *edit.mask.box)
            return
        before, after, index = edit.values()
        for label, count in zip(*np.unique(before, return_counts=True), strict=True):
            self._shrink(int(label), int(count))
        kept = after != 0
        self._grow(after[kept], tuple(at[kept] for at in index))

    def _shrink(self, label: int, count: int) -> None:
        present = self._present.get(label)
        if present is not None:
            present.size -= count
            if present.size <= 0:
                del self._present[label]

    def _count(self, values: NDArray[Any], corner: tuple[int, ...]) -> None:
        """Add the objects of a block (Y, X) that begins at `corner`."""
        if not values.size or (not (largest := int(values.max())) and not values.min()):
            return
        if values.min() < 0 or largest > max(LABELS_IN_TABLE, values.size):
            rows, columns = np.nonzero(values)
            lead = tuple(np.full(len(rows), index) for index in corner[:-2])
            at = (*lead, rows + corner[-2], columns + corner[-1])
            self._grow(values[rows, columns], at)
            return
        values = values.astype(np.int32, copy=False)
        counts = np.bincount(values.ravel(), minlength=largest + 1)
        boxes = ndi.find_objects(values, largest)
        (top, left), plane = corner[-2:], corner[:-2]
        after = tuple(index + 1 for index in plane)
        for label in (np.flatnonzero(counts[1:]) + 1).tolist():
            rows, columns = boxes[label - 1]
            low = (*plane, top + rows.start, left + columns.start)
            high = (*after, top + rows.stop, left + columns.stop)
            self._add(label, int(counts[label]), low, high)

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
            self._present[label] = LabelExtent(count, (low, high))
            return
        present.size += count
        present.box = (
            tuple(map(min, present.box[0], low)),
            tuple(map(max, present.box[1], high)),
        )
