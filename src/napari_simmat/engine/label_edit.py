"""`LabelEdit`: what one step changed in a label image, so that it can be taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.masks import ObjectMask


@dataclass(frozen=True, eq=False)
class LabelEdit:
    """A change of a label array that can be undone and redone.

    Parameters
    ----------
    mask
        The changed voxels.
    before, after
        Their values in C order, or one number if all are equal.
    """

    mask: ObjectMask
    before: int | NDArray[Any]
    after: int | NDArray[Any]

    @classmethod
    def between(
        cls, before: NDArray[Any], after: NDArray[Any], corner: tuple[int, ...]
    ) -> LabelEdit | None:
        """The difference of two blocks that begin at `corner`; None if they are equal."""
        changed = before != after
        if not changed.any():
            return None
        mask = ObjectMask.of(changed, corner)
        return cls(mask, _compact(before[changed]), _compact(after[changed]))

    @classmethod
    def write(cls, labels: Any, mask: ObjectMask, value: int) -> LabelEdit | None:
        """Set an object's voxels in `labels` to `value`; returns the edit."""
        before = np.array(labels[mask.region])
        after = before.copy()
        after[mask.mask] = value
        return cls.replace(labels, mask.corner, before, after)

    @classmethod
    def replace(
        cls, labels: Any, corner: tuple[int, ...], before: NDArray[Any], after: NDArray[Any]
    ) -> LabelEdit | None:
        """Replace the block `before` in `labels` by `after`; returns the edit."""
        edit = cls.between(before, after, corner)
        if edit is not None:
            region = tuple(slice(n, n + size) for n, size in zip(corner, after.shape, strict=True))
            labels[region] = after
        return edit

    def apply(self, labels: Any) -> LabelEdit | None:
        """Make the change (again), except where other values were written since.

        Returns what was actually changed; None for nothing.
        """
        return self._swap(labels, self.before, self.after)

    def revert(self, labels: Any) -> LabelEdit | None:
        """Undo the change, except where other values were written since; returns as `apply`."""
        return self._swap(labels, self.after, self.before)

    def replay(self, labels: NDArray[Any], *, back: bool = False) -> None:
        """`apply`, or `revert`, in memory, without finding out what was actually changed."""
        old, new = (self.after, self.before) if back else (self.before, self.after)
        self._rewrite(labels[self.mask.region], old, new)

    def _rewrite(
        self, block: NDArray[Any], old: int | NDArray[Any], new: int | NDArray[Any]
    ) -> None:
        mask = self.mask.mask
        if isinstance(old, int) and isinstance(new, int):
            block[mask & (block == old)] = new
            return
        inside = block[mask]
        unchanged = inside == old
        inside[unchanged] = new if isinstance(new, int) else new[unchanged]
        block[mask] = inside

    def values(self) -> tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], ...]]:
        """Values (N,) before and after, and the index (N,) along each axis."""
        where = np.nonzero(self.mask.mask)
        index = tuple(at + first for at, first in zip(where, self.mask.corner, strict=True))
        before, after = (np.broadcast_to(v, where[0].shape) for v in (self.before, self.after))
        return before, after, index

    def _swap(
        self, labels: Any, old: int | NDArray[Any], new: int | NDArray[Any]
    ) -> LabelEdit | None:
        block = np.array(labels[self.mask.region])
        wanted = block.copy()
        self._rewrite(wanted, old, new)
        return LabelEdit.replace(labels, self.mask.corner, block, wanted)


def _compact(values: NDArray[Any]) -> int | NDArray[Any]:
    first = values.flat[0]
    return int(first) if (values == first).all() else values.copy()
