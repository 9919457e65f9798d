"""From the maps of `tiny`'s decoder to objects: a tree of regions, a chance of each, the best ones.

A watershed of the predicted depth, seeded where it is above the highest of several levels, divides
the foreground into basins. At a lower level seeds join, and so do their basins: a tree of regions,
each of which may be an object. A small network, trained after the decoder, says how likely that is,
by what the decoder sees in the region, at its rim and around it. Of the tree those regions are
chosen, none in another, that together promise most (as Arteta et al., MICCAI 2012,
doi:10.1007/978-3-642-33415-3_43, do with extremal regions). So it is learned where to divide.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy import sparse

from napari_simmat.models.object_decoder import (
    CONTACT,
    DEPTH,
    INSIDE,
    OUTLINE,
    WIDTH,
    WIDTH_LIMITS,
    WIDTH_UNIT,
    DecodedMaps,
)

LEVELS = 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8
"""Of the depth, at which seeds are found: at the first they hardly divide, at the last much."""
MIN_INSIDE = 0.4
"""Foreground from which a pixel may be part of an object."""
MIN_PIXELS = 12
"""Smaller regions are none."""
MIN_WORTH = 0.15
"""What a region's chance must exceed to be worth the choice."""
Labels = NDArray[np.int32]
Map = NDArray[np.float32]


class ObjectMaps(NamedTuple):
    """What the decoder says of a plane or of a part of it, at one scale.

    Attributes
    ----------
    inside, depth, outline, contact
        (Y, X) in 0..1: see `models.object_decoder`.
    width
        (Y, X), the largest depth of the pixel's object in pixels.
    features
        (F, ceil(Y / 2), ceil(X / 2)).
    """

    inside: Map
    depth: Map
    outline: Map
    contact: Map
    width: Map
    features: Map

    @classmethod
    def of(cls, decoded: DecodedMaps, size: tuple[int, int]) -> ObjectMaps:
        """The maps of a decoded image without its padding; `size` is its height and width."""
        height, width = size
        maps = decoded.maps[0, :, :height, :width].cpu()
        features = decoded.features[0, :, : -(-height // 2), : -(-width // 2)]
        shares = maps[:WIDTH].sigmoid().numpy()
        low, high = WIDTH_LIMITS
        return cls(
            inside=shares[INSIDE],
            depth=shares[DEPTH],
            outline=shares[OUTLINE],
            contact=shares[CONTACT],
            width=(maps[WIDTH].clamp(low, high).exp() * WIDTH_UNIT).numpy(),
            features=features.float().cpu().numpy(),
        )


class RegionTree(NamedTuple):
    """Regions, wholes before their parts.

    Attributes
    ----------
    basins
        (Y, X) ids 1..B of the smallest parts; 0 for none.
    members
        (N, B + 1) whether a basin is part of a region.
    parent
        (N,) the region that it is a part of; -1 for none.
    area
        (N,) in pixels.
    measures
        (N, M) what the chance depends on.
    boxes
        (B + 1, 4) y0, x0, y1, x1 of each basin, half-open.
    """

    basins: Labels
    members: sparse.csr_array
    parent: NDArray[np.intp]
    area: NDArray[np.intp]
    measures: Map
    boxes: NDArray[np.intp]

    def window(self, one: int) -> tuple[slice, slice]:
        """Rows and columns of a region."""
        members = self._members(one)
        top, left = self.boxes[members, :2].min(0)
        bottom, right = self.boxes[members, 2:].max(0)
        return slice(int(top), int(bottom)), slice(int(left), int(right))

    def mask(self, one: int, window: tuple[slice, slice]) -> NDArray[np.bool_]:
        """Where a region lies in rows and columns."""
        inside = np.zeros(self.members.shape[1], bool)
        inside[self._members(one)] = True
        return np.asarray(inside[self.basins[window]])

    def _members(self, one: int) -> NDArray[np.int32]:
        start, stop = self.members.indptr[one : one + 2]
        members: NDArray[np.int32] = self.members.indices[start:stop]
        return members


def region_tree(maps: ObjectMaps) -> RegionTree:
    """All regions of the maps, with their measures."""
    from skimage.segmentation import watershed

    mask = maps.inside > MIN_INSIDE
    seeds, owners = _nested_seeds(np.where(mask, maps.depth - 0.5 * maps.contact, -1))
    basins = watershed(maps.outline - maps.depth, seeds, mask=mask).astype(np.int32)
    members, parent = _tree(owners)
    sizes = np.bincount(basins.ravel(), minlength=members.shape[1])
    area = np.asarray(members @ sizes)
    keep = area >= MIN_PIXELS
    members, area = members[keep], area[keep]
    parent = _without(parent, keep)
    boxes = np.zeros((members.shape[1], 4), np.intp)
    for number, at in enumerate(ndi.find_objects(basins), start=1):
        if at is not None:
            boxes[number] = at[0].start, at[1].start, at[0].stop, at[1].stop
    measures = _measures(maps, basins, members, area)
    return RegionTree(basins, members, parent, area, measures, boxes)


def _nested_seeds(height: Map) -> tuple[Labels, list[NDArray[np.intp]]]:
    """Seeds (Y, X), and for each level but the first the seed below that each belongs to.

    A seed that has none at a higher level stays there.
    """
    owners: list[NDArray[np.intp]] = []
    below: Labels = np.zeros(height.shape, np.int32)
    for at, cut in enumerate(LEVELS):
        found, count = ndi.label(height > cut, np.ones((3, 3), bool))
        markers = found.astype(np.int32)
        if at:
            belongs = np.zeros(count + 1, np.intp)
            where = np.flatnonzero(markers)
            belongs[markers.ravel()[where]] = below.ravel()[where]
            lasting = np.setdiff1d(np.arange(1, below.max(initial=0) + 1), belongs)
            renamed = np.zeros(below.max(initial=0) + 1, np.int32)
            renamed[lasting] = count + 1 + np.arange(len(lasting))
            markers = np.where(markers > 0, markers, renamed[below])
            owners.append(np.concatenate([belongs, lasting]))
        below = markers
    return below, owners


def _tree(owners: list[NDArray[np.intp]]) -> tuple[sparse.csr_array, NDArray[np.intp]]:
    """Which seeds of the highest level are in which region, and the regions' parents.

    A seed that is the only part of another is no region of its own.
    """
    # One pass from the lowest level up: each needs the regions of the one below.
    basins = len(owners[-1]) - 1
    ancestry = [np.arange(basins + 1)]
    for belongs in reversed(owners):
        ancestry.append(belongs[ancestry[-1]])
    ancestry.reverse()  # for each level the seed that a basin belongs to
    rows: list[NDArray[np.intp]] = []
    columns: list[NDArray[np.intp]] = []
    parent: list[int] = []
    region_of: NDArray[np.intp] = np.zeros(0, np.intp)
    for at, seeds in enumerate(ancestry):
        count = int(seeds.max(initial=0))
        here = np.full(count + 1, -1, np.intp)
        if at:
            belongs = owners[at - 1]
            siblings = np.bincount(belongs[1:], minlength=len(region_of))[belongs]
            alone = siblings == 1
            here[alone] = region_of[belongs[alone]]
            fresh = np.flatnonzero(~alone)
            fresh = fresh[fresh > 0]
        else:
            fresh = np.arange(1, count + 1)
        here[fresh] = len(parent) + np.arange(len(fresh))
        parent += [int(region_of[owners[at - 1][one]]) if at else -1 for one in fresh]
        mine = here[seeds]
        is_new = np.isin(seeds, fresh) & (np.arange(basins + 1) > 0)
        rows.append(mine[is_new])
        columns.append(np.flatnonzero(is_new))
        here[0] = -1
        region_of = here
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = len(parent), basins + 1
    members = sparse.csr_array((np.ones(len(row), np.int64), (row, column)), shape=shape)
    return members, np.array(parent, np.intp)


def _without(parent: NDArray[np.intp], keep: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Parents of the regions to keep; a part is never kept without its whole, which is larger."""
    renamed = np.cumsum(keep) - 1
    kept = parent[keep]
    return np.where(kept >= 0, renamed[kept], -1)


def _measures(
    maps: ObjectMaps, basins: Labels, members: sparse.csr_array, area: NDArray[np.intp]
) -> Map:
    """What the chance of each region depends on, (N, M); nothing depends on where it lies.

    Means of the decoder's features and maps inside, at the rim and beyond it; the region's shape;
    what it borders. All are sums over basins and over pairs of neighboring basins.
    """
    # Long, but straight: what basins and pairs sum up to, then what regions make of it, column by
    # column in the order in which the score was trained.
    half = basins[::2, ::2]
    count = members.shape[1]
    planes = np.concatenate([maps.features, np.stack([each[::2, ::2] for each in maps[:4]])])
    values = planes.reshape(len(planes), -1).T  # (pixels, planes)
    inside = np.zeros((count, len(planes)))
    flat = half.ravel()
    for plane in range(len(planes)):
        inside[:, plane] = np.bincount(flat, values[:, plane], minlength=count)
    pixels = np.bincount(flat, minlength=count)
    own, other, at, beyond = _border(half)
    pairs, which = np.unique(own.astype(np.int64) * count + other, return_inverse=True)
    a, b = pairs // count, pairs % count
    collect = sparse.csr_array(
        (np.ones(len(which)), (which, np.arange(len(which)))), shape=(len(pairs), len(which))
    )
    length = np.bincount(which, minlength=len(pairs))
    rim, outer = collect @ values[at], collect @ values[beyond]
    chosen = members[:, a]
    across = chosen - chosen.multiply(members[:, b])  # pairs across the rim of a region
    border = np.maximum(across @ length, 1)
    open_ground = across @ np.where(b == 0, length, 0)
    depth = ndi.distance_transform_edt(basins > 0)
    numbers = np.arange(count)
    deepest, top = (
        _largest(members, np.nan_to_num(ndi.maximum(each, basins, numbers)))
        for each in (depth, maps.depth)
    )
    said = (members @ np.bincount(basins.ravel(), maps.width.ravel(), minlength=count)) / area
    sides = np.zeros(count)
    for side in (basins[0], basins[-1], basins[:, 0], basins[:, -1]):
        sides += np.bincount(side, minlength=count)
    root = np.sqrt(area)
    deepest, said = np.maximum(deepest, 0.5), np.maximum(said, 0.5)
    shape = [
        np.log(area) / 4,
        border / root / 4,
        np.log(deepest),
        np.log(said),
        np.log(said / deepest),
        deepest / root,
        top,
        open_ground / border,
        (members @ sides) / root,
    ]
    parts = [
        (members @ inside) / np.maximum(members @ pixels, 1)[:, None],
        (across @ rim) / border[:, None],
        (across @ outer) / border[:, None],
        np.stack(shape, axis=1),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _largest(members: sparse.csr_array, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest value (N,) of the basins (B + 1,) of each region; all are at least 0."""
    return np.asarray(members.multiply(values[None]).max(axis=1).todense()).ravel()


def _border(basins: Labels) -> tuple[NDArray[np.int32], ...]:
    """Pairs of neighboring pixels of unlike basins, from either side, but not from the ground.

    The basin of each, that of the other, and the places of both in the flat plane.
    """
    places = np.arange(basins.size, dtype=np.int32).reshape(basins.shape)
    found: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = basins[one] != basins[other]
        first, second = places[one][differ], places[other][differ]
        found += [(first, second), (second, first)]
    at, beyond = (np.concatenate(each) for each in zip(*found, strict=True))
    flat = basins.ravel()
    real = flat[at] > 0
    at, beyond = at[real], beyond[real]
    return flat[at], flat[beyond], at, beyond


def best_regions(tree: RegionTree, chances: Map) -> NDArray[np.intp]:
    """The regions, none in another, that together promise most; `chances` (N,) are in 0..1."""
    count = len(tree.parent)
    below = np.zeros(count)  # the most that the parts of each promise
    worth = np.maximum(chances - MIN_WORTH, 0)
    whole = np.zeros(count, bool)
    for one in range(count - 1, -1, -1):  # parts come after wholes
        whole[one] = worth[one] >= below[one]
        if (owner := tree.parent[one]) >= 0:
            below[owner] += max(worth[one], below[one])
    chosen, covered = [], np.zeros(count, bool)
    for one in range(count):
        owner = tree.parent[one]
        covered[one] = owner >= 0 and bool(covered[owner] or whole[owner])
        if whole[one] and not covered[one] and worth[one] > 0:
            chosen.append(one)
    return np.array(chosen, np.intp)
