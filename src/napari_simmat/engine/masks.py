"""Masks: overlap, interior point, connected parts, sparse masks, edits, and an index of labels.

Which objects a label array holds, how large they are and where: kept up to date by its changes.

Counting a large stack anew after each click would stop the window.

Where an object lies in a label array, and changes of such an array that can be taken back.

Both keep no more than a bounding box, eight voxels to a byte, so that hundreds of them fit into
memory beside a stack.

Masks of one object: how deep, how far, how alike, and what lies between two of them.

One object into several: its separate pieces, or the parts around given points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy import ndimage
from scipy import ndimage as ndi
from scipy.ndimage import find_objects

_STRIP = 1 << 24
"""Pixels that are read at a time."""
_TABLE = 1 << 16
"""Numbers up to this, or to as many as there are pixels, are counted in a table."""

VoxelBox = tuple[tuple[int, ...], tuple[int, ...]]
"""First index and last index + 1 along each axis."""


@dataclass
class LabelExtent:
    """One object: its number of voxels, and a box that holds them (it may be larger)."""

    size: int
    box: VoxelBox


class LabelIndex:
    """Size and place of every object of a label array; 0 is background."""

    def __init__(self) -> None:
        self._present: dict[int, LabelExtent] = {}

    @classmethod
    def of(cls, labels: Any) -> LabelIndex:
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
        return isinstance(other, LabelIndex) and self.sizes() == other.sizes()

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

    def box(self, label: int) -> VoxelBox:
        """A box that holds the object."""
        return self._present[label].box

    def footprint(self, labels: Any, label: int) -> ObjectMask | None:
        """The object's voxels as they are in `labels` now; None if there are none."""
        if label not in self._present:
            return None
        low, high = self._present[label].box
        region = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
        mask = np.asarray(labels[region]) == label
        return ObjectMask.of(mask, low) if mask.any() else None

    def note(self, patch: LabelEdit) -> None:
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
            self._present[label] = LabelExtent(count, (low, high))
            return
        present.size += count
        present.box = (
            tuple(map(min, present.box[0], low)),
            tuple(map(max, present.box[1], high)),
        )


def box_union(boxes: Sequence[VoxelBox]) -> VoxelBox:
    """The smallest box that holds all of some."""
    lows, highs = zip(*boxes, strict=True)
    return tuple(map(min, zip(*lows, strict=True))), tuple(map(max, zip(*highs, strict=True)))


@dataclass(frozen=True)
class ObjectMask:
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
    def of(cls, mask: NDArray[np.bool_], corner: tuple[int, ...] = ()) -> ObjectMask:
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

    def transposed(self, axes: tuple[int, ...]) -> ObjectMask:
        """The same voxels of an array with its axes in another order, as `numpy.transpose`.

        An empty order leaves them as they are.
        """
        if not axes:
            return self
        corner, shape = (tuple(each[axis] for axis in axes) for each in (self.corner, self.shape))
        return ObjectMask(corner, shape, np.packbits(self.mask.transpose(axes)).tobytes())

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
class LabelEdit:
    """Voxels of a label array that were changed: what they were, and what they became.

    Parameters
    ----------
    footprint
        Which voxels.
    before, after
        Their values in C order, or one number where all are equal.
    """

    footprint: ObjectMask
    before: int | NDArray[Any]
    after: int | NDArray[Any]

    @classmethod
    def between(
        cls, before: NDArray[Any], after: NDArray[Any], corner: tuple[int, ...]
    ) -> LabelEdit | None:
        """The difference of two blocks that begin at `corner`; None if there is none."""
        changed = before != after
        if not changed.any():
            return None
        footprint = ObjectMask.of(changed, corner)
        return cls(footprint, _compact(before[changed]), _compact(after[changed]))

    @classmethod
    def write(cls, labels: Any, footprint: ObjectMask, value: int) -> LabelEdit | None:
        """Set an object's voxels in `labels` to `value`; returns what undoes it."""
        before = np.array(labels[footprint.region])
        after = before.copy()
        after[footprint.mask] = value
        return cls.replace(labels, footprint.corner, before, after)

    @classmethod
    def replace(
        cls, labels: Any, corner: tuple[int, ...], before: NDArray[Any], after: NDArray[Any]
    ) -> LabelEdit | None:
        """Put the block `after` where `before` is in `labels`; returns what undoes it."""
        patch = cls.between(before, after, corner)
        if patch is not None:
            region = tuple(slice(n, n + size) for n, size in zip(corner, after.shape, strict=True))
            labels[region] = after
        return patch

    def apply(self, labels: Any) -> LabelEdit | None:
        """Make the change (again), except where something else was written since.

        Returns
        -------
        Patch or None
            What was really changed; None for nothing.
        """
        return self._swap(labels, self.before, self.after)

    def revert(self, labels: Any) -> LabelEdit | None:
        """Take the change back, except where something else was written since; as `apply`."""
        return self._swap(labels, self.after, self.before)

    def values(self) -> tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], ...]]:
        """Each changed voxel's value before and after (N,), and its index (N,) for each axis."""
        where = np.nonzero(self.footprint.mask)
        index = tuple(at + first for at, first in zip(where, self.footprint.corner, strict=True))
        before, after = (np.broadcast_to(v, where[0].shape) for v in (self.before, self.after))
        return before, after, index

    def _swap(
        self, labels: Any, old: int | NDArray[Any], new: int | NDArray[Any]
    ) -> LabelEdit | None:
        block = np.array(labels[self.footprint.region])
        wanted = block.copy()
        mask = self.footprint.mask
        inside = block[mask]
        as_met = inside == old
        inside[as_met] = new if isinstance(new, int) else new[as_met]
        wanted[mask] = inside
        return LabelEdit.replace(labels, self.footprint.corner, block, wanted)


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


Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
PixelSpacing = tuple[float, float]
"""Height and width of a pixel, in any one unit."""


def interior_point(
    mask: Mask, pixel: PixelSpacing = (1.0, 1.0), ties: Literal["first", "median"] = "first"
) -> tuple[float, float]:
    """The pixel y, x of a mask (Y, X) that is farthest from its outline.

    What lies beyond the image is outside the mask.

    Parameters
    ----------
    pixel
        Height and width of a pixel.
    ties
        Which of several equally deep pixels, in row-major order. The median one, which evaluation
        and training click on, is nearer to the middle of a long object; the window and propagation
        take the first.
    """
    rows, columns = _padded_box(mask)
    depth = ndi.distance_transform_edt(np.pad(mask[rows, columns], 1), sampling=pixel)
    found = np.flatnonzero(depth == depth.max())
    y, x = np.unravel_index(found[0 if ties == "first" else len(found) // 2], depth.shape)
    return float(y + rows.start - 1), float(x + columns.start - 1)


def iou(ours: NDArray[Any], theirs: NDArray[Any], empty: float = 1.0) -> float:
    """Intersection over union of two masks of equal shape.

    Parameters
    ----------
    empty
        The value where both masks are empty. Metrics take 1: finding nothing where there is
        nothing is right. To tell whether two masks show the same object take 0: there is none.

    Examples
    --------
    >>> iou(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0])) == 1 / 3
    True
    """
    ours, theirs = as_masks(ours, theirs)
    union = np.count_nonzero(ours | theirs)
    return float(np.count_nonzero(ours & theirs) / union) if union else empty


def as_masks(ours: NDArray[Any], theirs: NDArray[Any]) -> tuple[Mask, Mask]:
    """Two arrays as bool; ValueError if their shapes differ."""
    if ours.shape != theirs.shape:
        raise ValueError(
            f"Masks of shape {ours.shape} and {theirs.shape} cannot be compared; give both on the "
            "same image."
        )
    return ours.astype(bool, copy=False), theirs.astype(bool, copy=False)


def dilated(mask: Mask, reach: float, pixel: PixelSpacing = (1.0, 1.0)) -> Mask:
    """All pixels (Y, X) that lie no further than `reach` from the mask."""
    rows, columns = _padded_box(mask, reach / pixel[0], reach / pixel[1])
    whole = np.zeros_like(mask)
    away = ndi.distance_transform_edt(~mask[rows, columns], sampling=pixel)
    whole[rows, columns] = away <= reach
    return whole


def interpolated_mask(
    one: Mask, other: Mask, part: float, pixel: PixelSpacing = (1.0, 1.0)
) -> Mask:
    """The mask at `part` (0..1) of the way from `one` to `other`, by shape.

    Signed distances to both outlines are mixed (Raya and Udupa 1990, shape-based interpolation),
    after both masks were moved onto the place that their middles have on the way; so an object
    that moves is moved, not faded.
    """
    middles = [np.array(ndi.center_of_mass(mask)) for mask in (one, other)]
    middle = (1 - part) * middles[0] + part * middles[1]
    moves = [np.round(middle - each).astype(int) for each in middles]
    rows, columns = _padded_box(one | other, *np.abs(moves).max(axis=0).tolist())
    near, far = (
        signed_distance(_translated(mask[rows, columns], move), pixel)
        for mask, move in zip((one, other), moves, strict=True)
    )
    mixed = (1 - part) * near + part * far > 0
    if not mixed.any():  # both are thinner than the way between them
        return one if part < 0.5 else other
    whole = np.zeros_like(one)
    whole[rows, columns] = mixed
    return whole


def signed_distance(mask: Mask, pixel: PixelSpacing = (1.0, 1.0)) -> Floats:
    """Distance of each pixel (Y, X) to the outline: positive inside, negative outside.

    The image's border is no outline: what is cut off there goes on.
    """
    if mask.all() or not mask.any():
        far = float(np.hypot(*mask.shape) * max(pixel))
        return np.full(mask.shape, far if mask.all() else -far, np.float32)
    inside = ndi.distance_transform_edt(mask, sampling=pixel)
    outside = ndi.distance_transform_edt(~mask, sampling=pixel)
    return np.asarray(inside - outside, np.float32)


def _padded_box(mask: Mask, more_y: float = 0.0, more_x: float = 0.0) -> tuple[slice, slice]:
    """The mask's box and some pixels more on each side, at least one, within the image."""
    region = bounding_box(mask)
    assert region is not None
    rows, columns = (
        slice(max(0, part.start - int(more) - 1), min(size, part.stop + int(more) + 1))
        for part, size, more in zip(region, mask.shape, (more_y, more_x), strict=True)
    )
    return rows, columns


def _translated(mask: Mask, move: NDArray[np.int_]) -> Mask:
    """The mask moved by whole pixels; what leaves the field is lost."""
    moved = np.zeros_like(mask)
    to = tuple(slice(max(0, n), size + min(0, n)) for n, size in zip(move, mask.shape, strict=True))
    come = tuple(
        slice(max(0, -n), size - max(0, n)) for n, size in zip(move, mask.shape, strict=True)
    )
    moved[to] = mask[come]
    return moved


def connected_components(mask: NDArray[np.bool_], corner: tuple[int, ...] = ()) -> list[ObjectMask]:
    """The connected pieces of an object, the largest first.

    Parameters
    ----------
    mask
        Bool, of any number of axes. Voxels that touch at a corner are connected.
    corner
        Where in a larger array the mask begins.
    """
    from scipy.ndimage import find_objects
    from skimage.measure import label

    found = []
    numbered = label(mask, connectivity=mask.ndim)
    for number, box in enumerate(find_objects(numbered), start=1):  # there may be thousands
        start = tuple(part.start for part in box)
        first = tuple(map(sum, zip(start, corner or (0,) * mask.ndim, strict=True)))
        found.append(ObjectMask.of(numbered[box] == number, first))
    return sorted(found, key=lambda piece: -piece.size)


def split_at_points(
    mask: NDArray[np.bool_],
    points: Sequence[Sequence[int]],
    spacing: Sequence[float] | None = None,
) -> list[NDArray[np.bool_]]:
    """Cut an object at its narrow places, so that each point gets a part of its own.

    A watershed on the distance to the object's border. A piece of the object without a point goes
    to the part of the first one.

    Parameters
    ----------
    mask
        Bool, of any number of axes.
    points
        Indices of voxels of the object, one for each part.
    spacing
        Size of a voxel along each axis; by default all are equal.

    Returns
    -------
    list of bool arrays
        One part for each point, in order; together they are the object.

    Raises
    ------
    ValueError
        If a point lies beside the object, or two are the same voxel.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import watershed

    markers = np.zeros(mask.shape, dtype=np.int32)
    for number, point in enumerate(points, start=1):
        at = tuple(int(index) for index in point)
        if not mask[at]:
            raise ValueError(f"The point {at} lies beside the object; place it on the object.")
        if markers[at]:
            raise ValueError(f"Two points lie on the same voxel {at}; place them apart.")
        markers[at] = number
    distance = distance_transform_edt(np.pad(mask, 1), sampling=spacing)
    inner = distance[(slice(1, -1),) * mask.ndim]
    parts = watershed(
        -inner, markers, mask.ndim, mask=mask
    )  # through corners, as `connected_components` are
    parts[mask & (parts == 0)] = 1
    return [parts == number for number in range(1, len(points) + 1)]


Window = tuple[slice, slice]


def label_windows(labels: NDArray[Any]) -> list[tuple[int, Window]]:
    """Each label above 0, in order, and its bounding box as slices of rows and columns."""
    there = np.where(labels > 0, labels, 0)
    if there.max(initial=0) < there.size:
        ids: list[int] = [*range(1, int(there.max(initial=0)) + 1)]
        windows = ndimage.find_objects(there.astype(np.intp))
    else:  # boxes are listed up to the highest id
        known, compact = np.unique(there, return_inverse=True)
        ids = known[known > 0].tolist()
        windows = ndimage.find_objects(compact.reshape(there.shape) + bool(there.all()))
    pairs = zip(ids, windows, strict=True)
    return [(label, window) for label, window in pairs if window is not None]
