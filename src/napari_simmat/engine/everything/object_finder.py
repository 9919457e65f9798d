"""All objects of a plane by `tiny`'s decoder: at several scales, each where its chance is best.

Objects are seen best at some ten to forty pixels, so the plane is decoded as it is, at a half and
at a quarter, and enlarged where its objects are narrow. Of all scales the regions
(`object_regions`) are taken in the order of their chances, each on what the better ones leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.coordinates import InputTransform, zoomed
from napari_simmat.engine.everything.candidates import MaskCandidate, MaskCandidates, PixelBox
from napari_simmat.engine.everything.stitching import tile_boxes
from napari_simmat.engine.masks import bounding_box
from napari_simmat.engine.object_regions import (
    ObjectMaps,
    RegionTree,
    best_regions,
    region_tree,
)
from napari_simmat.engine.settings import OBJECT_THRESHOLDS
from napari_simmat.progress import Job, Progress, as_part

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.models.object_decoder import ObjectDecoder

ZOOMS = 1.0, 0.5, 0.25
"""Scales at which every plane is decoded, in the network's pixels for each of its input."""
FINE_ZOOM = 2.0
PART_SIDE, PART_SHARED = 1088, 128
"""Side in the network's pixels of what is decoded at once, and what neighbors share of it; two
cover 2048."""
NARROW = 14.0
"""Width in pixels of the median object below which the plane is decoded enlarged, too."""
LARGE = 700_000
"""Pixels of the network's input from which a plane takes more than a second or two."""
AT_ONCE = 1_200_000
"""Pixels of the network that are decoded before what was found is shown for the first time."""
MORE = 0.25
"""How many more are decoded until it is shown again, as a share of those before."""
MIN_SIDE = 64
"""A plane is reduced as long as its longer side has so many pixels."""
FREE = 0.7
"""Share of a region that better ones must leave."""
FINER_IS_BETTER = 0.03
"""What each doubling of the scale adds to a chance where regions of several scales compete."""
NOTABLE = 0.3
"""Chance above which an object's width counts."""
MEASURED = 200
"""How many notable objects are measured."""


class _Found(NamedTuple):
    """A region that was chosen at a scale."""

    rank: float
    chance: float
    box: PixelBox
    mask: NDArray[np.bool_]


class Piece(NamedTuple):
    """A part of what is looked at, in its pixels, at a scale."""

    zoom: float
    box: PixelBox


@dataclass(eq=False)
class Look:
    """What was found so far of a plane, or of a part of it, and what is left to look at.

    Attributes
    ----------
    box
        The part of the plane.
    left, done
        Pieces in their order, and pixels of the network that were decoded.
    """

    box: PixelBox
    left: list[Piece]
    done: int = 0
    _found: list[_Found] = field(default_factory=list)
    _widths: list[float] = field(default_factory=list)
    _is_fine: bool = False

    @classmethod
    def at(
        cls,
        predictor: Predictor,
        box: PixelBox | None = None,
        near: tuple[float, float] | None = None,
    ) -> Look:
        """Nothing yet of a part, by default of all.

        Pieces go scale by scale, or begin `near` a place (y, x) of the plane, large ones first.
        """
        look = cls(box or PixelBox(0, 0, *predictor.shape[-2:]), [])
        for zoom in _scales(predictor, look.box):
            look.left += look._pieces(predictor, zoom)
        if near is not None:
            y, x = near[0] - look.box.y0, near[1] - look.box.x0
            look.left.sort(key=lambda piece: (_distance(piece.box, y, x), piece.zoom))
        return look

    def on_job(
        self,
        predictor: Predictor,
        plane: tuple[int, ...] = (),
        decoder: ObjectDecoder | None = None,
        most: int | None = None,
    ) -> Job[None]:
        """Look at what is left.

        With `most` at the first piece, and on until so many of the network's pixels are decoded.
        """
        begun = self.done
        total = begun + sum(self._work(predictor, piece) for piece in self.left)
        while self.left:
            piece = self.left[0]
            work = self._work(predictor, piece)
            if most is not None and self.done > begun and self.done + work > begun + most:
                return
            job = _piece_job(predictor, plane, self.box, piece, decoder)
            found, widths = yield from as_part(job, self.done / total, (self.done + work) / total)
            self._found += found
            self._widths += widths if piece.zoom == 1 else []
            self.done += work
            del self.left[0]
            if not self.left and not self._is_fine and 0 < self._median < NARROW:
                self._is_fine = True
                self.left = self._pieces(predictor, FINE_ZOOM)
                total = self.done + sum(self._work(predictor, each) for each in self.left)

    @property
    def candidates(self) -> MaskCandidates:
        """The objects, as `find_objects_job` returns them."""
        return _disjoint(self._found, self.box.size)

    @property
    def _median(self) -> float:
        """Width of the median notable object in input pixels; 0 without one."""
        return float(np.median(self._widths)) if self._widths else 0.0

    def _pieces(self, predictor: Predictor, zoom: float) -> list[Piece]:
        """All pieces of a scale.

        A large plane is decoded piece by piece, so that memory is bounded, and no step is long.
        """
        enlarged = zoom * math.sqrt(math.prod(predictor.input_transform(self.box.size).scale))
        side, shared = round(PART_SIDE / enlarged), round(PART_SHARED / enlarged)
        return [Piece(zoom, part) for part in tile_boxes(self.box.size, side, shared)]

    def _work(self, predictor: Predictor, piece: Piece) -> int:
        """How many of the network's pixels a piece takes."""
        transform = zoomed(predictor.input_transform(piece.box.size), piece.zoom)
        return math.prod(transform.resized)


def looks_coarsely(predictor: Predictor) -> bool:
    """Whether a plane is so large that it is worth while to show what is found meanwhile."""
    resized = predictor.input_transform((predictor.shape[-2], predictor.shape[-1])).resized
    return math.prod(resized) >= LARGE


def find_objects_job(
    predictor: Predictor,
    plane: tuple[int, ...] = (),
    box: PixelBox | None = None,
    decoder: ObjectDecoder | None = None,
) -> Job[MaskCandidates]:
    """Find the objects of a plane, or of a part of it.

    Parameters
    ----------
    predictor
        Holds the image, and a model with this decoder; its current plane is the same afterwards.
    plane, box
        Which plane, and which part of it; by default all. The masks are in the part's pixels.
    decoder
        In place of the model's own.

    Returns
    -------
    MaskCandidates
        Disjoint masks, the likeliest first. Their quality is the chance that they meet an object,
        their stability 1.
    """
    look = Look.at(predictor, box)
    yield from look.on_job(predictor, plane, decoder)
    yield Progress(99, 100, "separating objects")
    return look.candidates


def regions_job(
    predictor: Predictor, decoder: ObjectDecoder, box: PixelBox
) -> Job[list[RegionTree]]:
    """All regions of a part of a plane at each of its scales, good or not, to learn from.

    The part is decoded at once.
    """
    trees = []
    for zoom in _scales(predictor, box):
        transform = zoomed(predictor.input_transform(box.size), zoom)
        maps = yield from predictor.object_maps_job((), box.slices, transform, decoder)
        trees.append(region_tree(maps))
    return trees


def _scales(predictor: Predictor, box: PixelBox) -> list[float]:
    """The scales at which a part is decoded whatever it shows, its own first."""
    longest = max(predictor.input_transform(box.size).resized)
    return [zoom for zoom in ZOOMS if zoom == 1 or zoom * longest >= MIN_SIDE]


def _distance(box: PixelBox, y: float, x: float) -> float:
    """From a place to a box; 0 inside."""
    away = max(box.y0 - y, y - box.y1, 0), max(box.x0 - x, x - box.x1, 0)
    return math.hypot(*away)


def _piece_job(
    predictor: Predictor,
    plane: tuple[int, ...],
    box: PixelBox,
    piece: Piece,
    decoder: ObjectDecoder | None,
) -> Job[tuple[list[_Found], list[float]]]:
    """The best regions of a piece, in the pixels of `box`, and the widths of some notable ones.

    Pieces overlap; what a piece's edge cuts is left to the next one, or to a coarser scale.
    """
    part = piece.box
    here = PixelBox(part.y0 + box.y0, part.x0 + box.x0, part.y1 + box.y0, part.x1 + box.x0)
    transform = zoomed(predictor.input_transform(part.size), piece.zoom)
    regions, widths = yield from _regions_job(predictor, plane, here, transform, decoder)
    found = []
    for one in regions:
        if not _is_cut(one.box, part, box.size):
            y0, x0, y1, x1 = one.box
            moved = PixelBox(y0 + part.y0, x0 + part.x0, y1 + part.y0, x1 + part.x0)
            found.append(one._replace(box=moved))
    return found, widths


def _is_cut(region: PixelBox, part: PixelBox, size: tuple[int, int]) -> bool:
    """Whether a region, in the part's pixels, reaches an edge beyond which the plane goes on."""
    height, width = part.size
    return (
        (region.y0 == 0 and part.y0 > 0)
        or (region.x0 == 0 and part.x0 > 0)
        or (region.y1 == height and part.y1 < size[0])
        or (region.x1 == width and part.x1 < size[1])
    )


def _regions_job(
    predictor: Predictor,
    plane: tuple[int, ...],
    box: PixelBox,
    transform: InputTransform,
    decoder: ObjectDecoder | None,
) -> Job[tuple[list[_Found], list[float]]]:
    """The best regions of a part at one scale, and the widths of some notable ones."""
    decoding = predictor.object_maps_job(plane, box.slices, transform, decoder)
    maps = yield from as_part(decoding, 0, 0.8)
    yield Progress(8, 10, "separating objects")
    tree = region_tree(maps)
    if not len(tree.area):
        return [], []
    chances = predictor.object_chances(tree.measures, decoder)
    yield Progress(9, 10, "separating objects")
    chosen = best_regions(tree, chances)
    notable = [one for one in chosen if chances[one] >= NOTABLE]
    widths = [_width(maps, tree, int(one)) for one in notable[:MEASURED]]
    bonus = FINER_IS_BETTER * math.log2(math.prod(transform.scale)) / 2
    found = []
    for one in chosen:
        placed = _in_image(tree, int(one), transform)
        if placed is not None:
            found.append(_Found(float(chances[one]) + bonus, float(chances[one]), *placed))
    return found, widths


def _width(maps: ObjectMaps, tree: RegionTree, one: int) -> float:
    """Width of a region as the decoder says, in the network's pixels."""
    window = tree.window(one)
    return 2 * float(maps.width[window][tree.mask(one, window)].mean())


def _in_image(
    tree: RegionTree, one: int, transform: InputTransform
) -> tuple[PixelBox, NDArray[np.bool_]] | None:
    """A region in the image's pixels: its box, and its mask (h, w) there; None if it vanishes."""
    rows, columns = tree.window(one)
    mask = tree.mask(one, (rows, columns))
    if transform.resized == transform.image:
        return PixelBox(rows.start, columns.start, rows.stop, columns.stop), mask
    height, width = transform.image
    scale_y, scale_x = transform.scale
    top, along_y = _resampling(rows, height, scale_y)
    left, along_x = _resampling(columns, width, scale_x)
    smooth = along_y @ np.pad(mask, 1).astype(np.float32) @ along_x.T > 0.5
    window = bounding_box(smooth)
    if window is None:
        return None
    inside = smooth[window]
    top += window[0].start
    left += window[1].start
    return PixelBox(top, left, top + inside.shape[0], left + inside.shape[1]), inside


def _resampling(side: slice, size: int, scale: float) -> tuple[int, NDArray[np.float32]]:
    """Linear interpolation of a region along an axis, from the network's pixels to the image's.

    The first of the image's `size` pixels that the region may reach, and for each from there on the
    weights (n, length + 2) of the region's pixels, padded by one at either end.
    """
    first = max(math.floor((side.start - 1) / scale), 0)
    last = min(math.ceil((side.stop + 1) / scale), size)
    at = (np.arange(first, last) + 0.5) * scale - 0.5 - (side.start - 1)
    below = np.clip(np.floor(at).astype(int), 0, side.stop - side.start)
    part = np.clip(at - below, 0, 1)
    index = np.arange(last - first)
    weights = np.zeros((last - first, side.stop - side.start + 2), np.float32)
    weights[index, below] = 1 - part
    weights[index, below + 1] += part
    return first, weights


def _disjoint(found: list[_Found], size: tuple[int, int]) -> MaskCandidates:
    """The regions in the order of their rank, each on what the better ones leave."""
    candidates = MaskCandidates(size, OBJECT_THRESHOLDS, disjoint=True)
    taken = np.zeros(size, bool)
    # Of equal ones the order is that of their places, not that in which they were found.
    for number, one in enumerate(sorted(found, key=lambda each: (-each.rank, each.box))):
        free = one.mask & ~taken[one.box.slices]
        area = int(np.count_nonzero(free))
        if area < FREE * np.count_nonzero(one.mask) or not area:
            continue
        window = bounding_box(free)
        assert window is not None
        rows, columns = window
        box = PixelBox(
            one.box.y0 + rows.start,
            one.box.x0 + columns.start,
            one.box.y0 + rows.stop,
            one.box.x0 + columns.stop,
        )
        free = free[window]
        taken[box.slices] |= free
        candidates.add(MaskCandidate(box, area, one.chance, 1.0, seed=number), free)
    return candidates
