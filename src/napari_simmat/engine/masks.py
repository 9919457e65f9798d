"""Masks and label arrays: geometry, sparse masks, undoable edits, and an index of the objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy import ndimage as ndi

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
PixelSpacing = tuple[float, float]
"""Height and width of a pixel, in any one unit."""
Window = tuple[slice, slice]
"""Rows and columns."""
VoxelBox = tuple[tuple[int, ...], tuple[int, ...]]
"""First index and last index + 1 along each axis."""

MIN_PIECE_SHARE = 0.25
"""Pieces of this fraction of the largest one belong to a mask."""
_STRIP = 1 << 24
"""Pixels that are read at a time."""
_TABLE = 1 << 16
"""Labels up to this, or to the number of pixels, are counted in a table."""


def iou(ours: NDArray[Any], theirs: NDArray[Any], empty: float = 1.0) -> float:
    """Intersection over union of two masks of equal shape.

    `empty` is the value where both masks are empty. Metrics use 1, since finding nothing where
    there is nothing is right. To decide whether two masks show the same object use 0.

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


def interior_point(
    mask: Mask, pixel: PixelSpacing = (1.0, 1.0), ties: Literal["first", "median"] = "first"
) -> tuple[float, float]:
    """The pixel y, x of a mask (Y, X) that is farthest from its outline and the image's border.

    Of several such pixels, `ties` takes the first or the median in row-major order. Evaluation and
    training click on the median one, which is nearer to the middle of a long object; the window
    and propagation take the first.
    """
    rows, columns = _padded_box(mask)
    depth = ndi.distance_transform_edt(np.pad(mask[rows, columns], 1), sampling=pixel)
    found = np.flatnonzero(depth == depth.max())
    y, x = np.unravel_index(found[0 if ties == "first" else len(found) // 2], depth.shape)
    return float(y + rows.start - 1), float(x + columns.start - 1)


def dilated(mask: Mask, reach: float, pixel: PixelSpacing = (1.0, 1.0)) -> Mask:
    """All pixels (Y, X) within a distance of `reach` from the mask."""
    rows, columns = _padded_box(mask, reach / pixel[0], reach / pixel[1])
    whole = np.zeros_like(mask)
    away = ndi.distance_transform_edt(~mask[rows, columns], sampling=pixel)
    whole[rows, columns] = away <= reach
    return whole


def interpolated_mask(
    one: Mask, other: Mask, part: float, pixel: PixelSpacing = (1.0, 1.0)
) -> Mask:
    """The mask at the fraction `part` (0..1) of the way from `one` to `other`.

    Shape-based interpolation (Raya and Udupa 1990): signed distances to both outlines are mixed.
    Both masks are first shifted so that their centers lie at the interpolated center; without
    that, an object that moves fades out in one place and in at another.
    """
    middles = [np.array(ndi.center_of_mass(mask)) for mask in (one, other)]
    middle = (1 - part) * middles[0] + part * middles[1]
    moves = [np.round(middle - each).astype(int) for each in middles]
    rows, columns = _padded_box(one | other, *np.abs(moves).max(axis=0).tolist())
    near, far = (
        signed_distance(ndi.shift(mask[rows, columns], move, order=0), pixel)
        for mask, move in zip((one, other), moves, strict=True)
    )
    mixed = (1 - part) * near + part * far > 0
    if not mixed.any():  # both are thinner than the distance between them
        return one if part < 0.5 else other
    whole = np.zeros_like(one)
    whole[rows, columns] = mixed
    return whole


def signed_distance(mask: Mask, pixel: PixelSpacing = (1.0, 1.0)) -> Floats:
    """Distance of each pixel (Y, X) to the outline: positive inside, negative outside.

    The image's border is no outline: an object that it cuts continues beyond.
    """
    if mask.all() or not mask.any():
        far = float(np.hypot(*mask.shape) * max(pixel))
        return np.full(mask.shape, far if mask.all() else -far, np.float32)
    inside = ndi.distance_transform_edt(mask, sampling=pixel)
    outside = ndi.distance_transform_edt(~mask, sampling=pixel)
    return np.asarray(inside - outside, np.float32)


def connected_components(mask: Mask, corner: tuple[int, ...] = ()) -> list[ObjectMask]:
    """The connected components of a mask, the largest first.

    Voxels that touch at a corner are connected. `corner` is where the mask begins in a larger
    array.
    """
    from skimage.measure import label

    found = []
    numbered = label(mask, connectivity=mask.ndim)
    for number, box in enumerate(ndi.find_objects(numbered), start=1):  # there may be thousands
        start = tuple(part.start for part in box)
        first = tuple(map(sum, zip(start, corner or (0,) * mask.ndim, strict=True)))
        found.append(ObjectMask.of(numbered[box] == number, first))
    return sorted(found, key=lambda piece: -piece.size)


def main_pieces(mask: Mask, points: Sequence[tuple[int, int]] = ()) -> tuple[Mask, int]:
    """A mask (Y, X) without its small pieces, and how many these are.

    Parameters
    ----------
    mask
        Pixels that touch at a corner are connected.
    points
        Pixels y, x whose pieces are kept in any case, as those of `MIN_PIECE_SHARE`.
    """
    region = bounding_box(mask)
    if region is None:
        return mask, 0
    pieces, count = ndi.label(mask[region], np.ones((3, 3)))
    if count == 1:
        return mask, 0
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = sizes >= MIN_PIECE_SHARE * sizes.max()
    rows, columns = region
    for y, x in points:
        if mask[y, x]:
            kept[pieces[y - rows.start, x - columns.start]] = True
    main = np.zeros_like(mask)
    main[region] = kept[pieces]
    return main, count - int(np.count_nonzero(kept))


def split_at_points(
    mask: Mask,
    points: Sequence[Sequence[int]],
    spacing: Sequence[float] | None = None,
) -> list[Mask]:
    """Cut an object at its narrow places into one part for each point, in order.

    A watershed on the distance to the object's border. Components without a point go to the part
    of the first point.

    Parameters
    ----------
    mask
        Bool, of any number of axes.
    points
        Indices of voxels of the object.
    spacing
        Size of a voxel along each axis; by default all are equal.

    Raises
    ------
    ValueError
        If a point lies outside the object, or two points on the same voxel.
    """
    from skimage.segmentation import watershed

    markers = np.zeros(mask.shape, dtype=np.int32)
    for number, point in enumerate(points, start=1):
        at = tuple(int(index) for index in point)
        if not mask[at]:
            raise ValueError(f"The point {at} lies outside the object; place it on the object.")
        if markers[at]:
            raise ValueError(f"Two points lie on the same voxel {at}; place them apart.")
        markers[at] = number
    distance = ndi.distance_transform_edt(np.pad(mask, 1), sampling=spacing)
    inner = distance[(slice(1, -1),) * mask.ndim]
    parts = watershed(-inner, markers, mask.ndim, mask=mask)  # connected through corners
    parts[mask & (parts == 0)] = 1
    return [parts == number for number in range(1, len(points) + 1)]


def bounding_box(mask: Mask) -> tuple[slice, ...] | None:
    """The smallest box that holds every true voxel; None if there is none."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if filled.size == 0:
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def label_windows(labels: NDArray[Any]) -> list[tuple[int, Window]]:
    """Each label above 0, in order, and its bounding box as slices of rows and columns."""
    compact, numbers = compact_labels(np.where(labels > 0, labels, 0))
    windows = enumerate(ndi.find_objects(compact.astype(np.intp)), start=1)
    return [(numbers[number], window) for number, window in windows if window is not None]


def compact_labels(labels: NDArray[Any]) -> tuple[NDArray[Any], Sequence[int]]:
    """Renumber labels that are very large; also returns the original label of each number.

    Functions that find objects make tables as long as the largest label: 30 GB for a billion.
    """
    largest = int(labels.max(initial=0))
    if largest <= max(_TABLE, labels.size):
        return labels, range(largest + 1)
    present = np.unique(labels[labels > 0])
    return np.searchsorted(present, labels, side="right"), [0, *present.tolist()]


@dataclass(frozen=True)
class ObjectMask:
    """The voxels of one object, packed within their bounding box.

    Hundreds of them fit into memory beside a stack.

    Parameters
    ----------
    corner
        Index of the box's first voxel, one number for each axis of the array.
    shape
        The box's size.
    bits
        The mask within the box in C order, eight voxels to a byte (`numpy.packbits`).
    """

    corner: tuple[int, ...]
    shape: tuple[int, ...]
    bits: bytes

    @classmethod
    def of(cls, mask: Mask, corner: tuple[int, ...] = ()) -> ObjectMask:
        """The true voxels of `mask`, which begins at `corner` of a larger array.

        The array may have more axes: ``ObjectMask.of(mask_yx, (z, 0, 0))`` lies on a plane. By
        default the mask is the array. Raises ValueError if the mask is empty.
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
    def box(self) -> VoxelBox:
        """First index and last index + 1 of the box along each axis."""
        return self.corner, tuple(map(sum, zip(self.corner, self.shape, strict=True)))

    @property
    def mask(self) -> Mask:
        """The voxels within the box as bool."""
        count = int(np.prod(self.shape))
        bits = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=count)
        return bits.view(bool).reshape(self.shape)

    @cached_property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.unpackbits(np.frombuffer(self.bits, np.uint8)).sum(dtype=np.int64))

    @cached_property
    def digest(self) -> str:
        """Hash of the voxels and their position."""
        state = xxhash.xxh3_128(repr((self.corner, self.shape)).encode())
        state.update(self.bits)
        return state.hexdigest()

    def transposed(self, axes: tuple[int, ...]) -> ObjectMask:
        """The same voxels after `numpy.transpose` of the array; unchanged if `axes` is empty."""
        if not axes:
            return self
        corner, shape = (tuple(each[axis] for axis in axes) for each in (self.corner, self.shape))
        return ObjectMask(corner, shape, np.packbits(self.mask.transpose(axes)).tobytes())

    def on_plane(self, plane: tuple[int, ...], shape_yx: tuple[int, int]) -> Mask:
        """The voxels on one plane as a mask (Y, X); all False if the object is not there."""
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
    def largest(self) -> int:
        """The largest label; 0 if there is none."""
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
        before, after, index = edit.values()
        for label, count in zip(*np.unique(before, return_counts=True), strict=True):
            if (present := self._present.get(int(label))) is not None:
                present.size -= int(count)
                if present.size <= 0:
                    del self._present[int(label)]
        kept = after != 0
        self._grow(after[kept], tuple(at[kept] for at in index))

    def _count(self, values: NDArray[Any], corner: tuple[int, ...]) -> None:
        """Add the objects of a block (Y, X) that begins at `corner`."""
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


def box_union(boxes: Sequence[VoxelBox]) -> VoxelBox:
    """The smallest box that contains all of `boxes`."""
    lows, highs = zip(*boxes, strict=True)
    return tuple(map(min, zip(*lows, strict=True))), tuple(map(max, zip(*highs, strict=True)))


def _padded_box(mask: Mask, more_y: float = 0.0, more_x: float = 0.0) -> tuple[slice, slice]:
    """The mask's bounding box, enlarged by at least a pixel on each side, within the image."""
    region = bounding_box(mask)
    assert region is not None
    rows, columns = (
        slice(max(0, part.start - int(more) - 1), min(size, part.stop + int(more) + 1))
        for part, size, more in zip(region, mask.shape, (more_y, more_x), strict=True)
    )
    return rows, columns


def _compact(values: NDArray[Any]) -> int | NDArray[Any]:
    first = values.flat[0]
    return int(first) if (values == first).all() else values.copy()
