"""Where an object lies in a label array, and changes of such an array that can be taken back.

Both keep no more than a bounding box, eight voxels to a byte, so that hundreds of them fit into
memory beside a stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray


@dataclass(frozen=True)
class Footprint:
    """The voxels of one object: the box that holds them, and which voxels of it.

    Parameters
    ----------
    corner
        Index of the box's first voxel, one number for each axis of the array.
    shape
        The box's size.
    bits
        The mask within the box in C order, eight voxels to a byte as `numpy.packbits` has them.
    """

    corner: tuple[int, ...]
    shape: tuple[int, ...]
    bits: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_], corner: tuple[int, ...] = ()) -> Footprint:
        """The true voxels of `mask`, which begins at `corner` of a larger array.

        Parameters
        ----------
        mask
            Bool, of any number of axes.
        corner
            One number for each axis of the array. It may have more axes than `mask`, which then
            lies on a plane: ``Footprint.of(mask_yx, (z, 0, 0))``. Left out, the mask is the array.

        Raises
        ------
        ValueError
            If the mask is empty.
        """
        corner = corner or (0,) * mask.ndim
        mask = mask.reshape((1,) * (len(corner) - mask.ndim) + mask.shape)
        region = bounding_box(mask)
        if region is None:
            raise ValueError("The mask is empty: click on an object first.")
        cut = mask[region]
        start = tuple(int(first + part.start) for first, part in zip(corner, region, strict=True))
        return cls(start, cut.shape, np.packbits(cut).tobytes())

    @property
    def region(self) -> tuple[slice, ...]:
        """Index of the box in the array."""
        return tuple(
            slice(first, first + size) for first, size in zip(self.corner, self.shape, strict=True)
        )

    @property
    def box(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """First index and last index + 1 of the box along each axis."""
        region = self.region
        return tuple(each.start for each in region), tuple(each.stop for each in region)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The voxels within the box as bool."""
        count = int(np.prod(self.shape))
        bits = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=count)
        return bits.view(bool).reshape(self.shape)

    @cached_property
    def size(self) -> int:
        """How many voxels."""
        return int(np.unpackbits(np.frombuffer(self.bits, np.uint8)).sum(dtype=np.int64))

    @cached_property
    def digest(self) -> str:
        """Equal for equal voxels at the same place."""
        state = xxhash.xxh3_128(repr((self.corner, self.shape)).encode())
        state.update(self.bits)
        return state.hexdigest()

    def transposed(self, axes: tuple[int, ...]) -> Footprint:
        """The same voxels of an array with its axes in another order, as `numpy.transpose`.

        An empty order leaves them as they are.
        """
        if not axes:
            return self
        corner, shape = (tuple(each[axis] for axis in axes) for each in (self.corner, self.shape))
        return Footprint(corner, shape, np.packbits(self.mask.transpose(axes)).tobytes())

    def on_plane(self, plane: tuple[int, ...], shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
        """The voxels on one plane as a mask (Y, X); all False where the object is not."""
        whole = np.zeros(shape_yx, dtype=bool)
        at = tuple(index - first for index, first in zip(plane, self.corner[:-2], strict=True))
        if all(0 <= index < size for index, size in zip(at, self.shape[:-2], strict=True)):
            whole[self.region[-2:]] = self.mask[at]
        return whole

    def planes(self) -> list[tuple[int, ...]]:
        """The planes that hold a voxel."""
        filled = self.mask.any(axis=(-2, -1))
        starts = self.corner[:-2]
        return [
            tuple(int(index + first) for index, first in zip(at, starts, strict=True))
            for at in np.argwhere(filled)
        ]


@dataclass(frozen=True, eq=False)
class Patch:
    """Voxels of a label array that were changed: what they were, and what they became.

    Parameters
    ----------
    footprint
        Which voxels.
    before, after
        Their values in C order, or one number where all are equal.
    """

    footprint: Footprint
    before: int | NDArray[Any]
    after: int | NDArray[Any]

    @classmethod
    def between(
        cls, before: NDArray[Any], after: NDArray[Any], corner: tuple[int, ...]
    ) -> Patch | None:
        """The difference of two blocks that begin at `corner`; None if there is none."""
        changed = before != after
        if not changed.any():
            return None
        footprint = Footprint.of(changed, corner)
        return cls(footprint, _compact(before[changed]), _compact(after[changed]))

    @classmethod
    def write(cls, labels: Any, footprint: Footprint, value: int) -> Patch | None:
        """Set an object's voxels in `labels` to `value`; returns what undoes it."""
        before = np.array(labels[footprint.region])
        after = before.copy()
        after[footprint.mask] = value
        return cls.replace(labels, footprint.corner, before, after)

    @classmethod
    def replace(
        cls, labels: Any, corner: tuple[int, ...], before: NDArray[Any], after: NDArray[Any]
    ) -> Patch | None:
        """Put the block `after` where `before` is in `labels`; returns what undoes it."""
        patch = cls.between(before, after, corner)
        if patch is not None:
            region = tuple(slice(n, n + size) for n, size in zip(corner, after.shape, strict=True))
            labels[region] = after
        return patch

    def apply(self, labels: Any) -> Patch | None:
        """Make the change (again), except where something else was written since.

        Returns
        -------
        Patch or None
            What was really changed; None for nothing.
        """
        return self._swap(labels, self.before, self.after)

    def revert(self, labels: Any) -> Patch | None:
        """Take the change back, except where something else was written since; as `apply`."""
        return self._swap(labels, self.after, self.before)

    def values(self) -> tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], ...]]:
        """Each changed voxel's value before and after (N,), and its index (N,) for each axis."""
        where = np.nonzero(self.footprint.mask)
        index = tuple(at + first for at, first in zip(where, self.footprint.corner, strict=True))
        before, after = (np.broadcast_to(v, where[0].shape) for v in (self.before, self.after))
        return before, after, index

    def _swap(self, labels: Any, old: int | NDArray[Any], new: int | NDArray[Any]) -> Patch | None:
        block = np.array(labels[self.footprint.region])
        wanted = block.copy()
        mask = self.footprint.mask
        inside = block[mask]
        as_met = inside == old
        inside[as_met] = new if isinstance(new, int) else new[as_met]
        wanted[mask] = inside
        return Patch.replace(labels, self.footprint.corner, block, wanted)


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds every true voxel; None if there is none."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if filled.size == 0:
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _compact(values: NDArray[Any]) -> int | NDArray[Any]:
    first = values.flat[0]
    return int(first) if (values == first).all() else values.copy()
