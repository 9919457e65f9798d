"""Masks and label arrays: their geometry, and the sparse mask of an object."""

from __future__ import annotations

from collections.abc import Sequence
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
LABELS_IN_TABLE = 1 << 16
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
    if largest <= max(LABELS_IN_TABLE, labels.size):
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
