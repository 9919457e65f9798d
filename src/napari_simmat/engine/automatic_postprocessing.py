"""From mask candidates to a label image: filter, merge, and stitch tiles.

The filters are those of SAM's automatic mask generator (predicted IoU, stability, box
non-maximum suppression, small regions; https://github.com/facebookresearch/segment-anything).
The masks that pass still overlap. Four further steps make a label image of them: masks found by
too few of the seeds on them are dropped, masks of the same object are merged by majority vote,
masks covered by smaller ones are dropped, and each remaining pixel goes to the best mask.

`sift` keeps the objects that are like those a user committed, by size, intensity and appearance.
Each property is one number: how far an object is from the committed ones. The largest distance of
a committed object from the others (leave-one-out), with some room, is what it may be. So every
object that is left out has a reason that can be told.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat._text import format_list, pluralize
from napari_simmat.engine.masks import bounding_box, iou
from napari_simmat.engine.object_properties import mean_embedding, object_intensities
from napari_simmat.engine.settings import DEFAULT_THRESHOLDS, AutomaticSettings

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

SAME_MASK_IOU = 0.95
"""Masks of at least this IoU outline the same object and vote on its pixels."""
COMPARED_AT_ONCE = 256
"""Boxes compared with all others at once, which bounds the memory."""
PART_SHARE = 0.9
"""A mask is part of a larger one if at least this share of it lies within."""
COMPOSITE_SHARE = 0.1
"""A mask is composed of others if they cover at least this share of it."""
STITCH_IOU = 0.5
"""Two tiles show the same object if its masks have at least this IoU where they overlap."""
TILE_EDGE_MARGIN = 2
"""A mask within so many pixels of a tile's edge counts as cut by it."""


class PixelBox(NamedTuple):
    """Rows ``y0 .. y1 - 1`` and columns ``x0 .. x1 - 1`` of a plane."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as an index of the plane."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0


class MaskCandidate(NamedTuple):
    """Measurements of one mask, on which the filters decide without its pixels.

    Attributes
    ----------
    box
        Bounding box in the plane's pixels.
    area
        Number of pixels.
    quality
        Predicted IoU; reduced for the candidates of a prompt with a single mask.
    stability
        IoU of the masks at a higher and a lower cutoff.
    rim
        Share of the outermost pixels of its crop that the mask covers.
    seed
        Number of the seed that yielded it.
    seeds_inside
        Number of seeds of the same crop that lie on it.
    layer
        Crop layer: 0 for the whole plane, higher for smaller crops.
    """

    box: PixelBox
    area: int
    quality: float
    stability: float
    rim: float = 0.0
    seed: int = 0
    seeds_inside: int = 1
    layer: int = 0


@dataclass(eq=False)
class MaskCandidates:
    """All mask candidates of a plane of `shape`: measurements, and compressed masks.

    `thresholds` are those of the model, for settings that set none. If they are `disjoint`, no two
    share a pixel, and each is an object as it is.
    """

    shape: tuple[int, int]
    thresholds: tuple[float, float] = DEFAULT_THRESHOLDS
    known: list[MaskCandidate] = field(default_factory=list)
    disjoint: bool = False
    _bits: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.known)

    @property
    def nbytes(self) -> int:
        """Memory of the masks in bytes."""
        return sum(map(len, self._bits))

    def add(self, candidate: MaskCandidate, mask: NDArray[np.bool_]) -> None:
        """Keep a mask (h, w) over the candidate's box, packed and compressed."""
        self.known.append(candidate)
        self._bits.append(zlib.compress(np.packbits(mask).tobytes(), level=1))

    def mask(self, number: int) -> NDArray[np.bool_]:
        """The mask over its box."""
        height, width = self.known[number].box.size
        packed = np.frombuffer(zlib.decompress(self._bits[number]), np.uint8)
        bits = np.unpackbits(packed, count=height * width)
        return bits.reshape(height, width).astype(bool)

    def weighed(self, likeness: NDArray[np.float32]) -> MaskCandidates:
        """The same masks, whose quality counts as much as what they lie on.

        `likeness` (Y, X) says how likely each pixel is part of an object; more than 1 is as good.
        """
        worth = [
            min(float(likeness[each.box.slices][self.mask(number)].mean()), 1.0)
            for number, each in enumerate(self.known)
        ]
        known = [
            each._replace(quality=each.quality * share)
            for each, share in zip(self.known, worth, strict=True)
        ]
        return replace(self, known=known)

    def only(self, keep: Sequence[bool] | NDArray[np.bool_]) -> MaskCandidates:
        """Those of the masks for which `keep` (N,) is true."""
        chosen = np.flatnonzero(keep).tolist()
        known, bits = [self.known[one] for one in chosen], [self._bits[one] for one in chosen]
        return replace(self, known=known, _bits=bits)

    def boxes(self, numbers: Sequence[int] | NDArray[np.intp]) -> NDArray[np.float32]:
        """Boxes (N, 4) as x0, y0, x1, y1, which is torchvision's order."""
        boxes = [self.known[number].box for number in numbers]
        return np.array(boxes, np.float32).reshape(-1, 4)[:, [1, 0, 3, 2]]


@dataclass(frozen=True, eq=False)
class Instances:
    """A plane's objects.

    Attributes
    ----------
    labels
        (Y, X) uint32, 1..N in the order of the objects' first pixels; each object is connected.
    scores
        (N,) float32, predicted IoU.
    """

    labels: NDArray[np.uint32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


def masks_to_instances(candidates: MaskCandidates, settings: AutomaticSettings) -> Instances:
    """Filter and merge candidates into objects; of equal masks the earlier one stays."""
    settings = settings.with_thresholds(candidates.thresholds)
    accepted = accepted_candidates(candidates, settings)
    if candidates.disjoint:
        return _disjoint_instances(candidates, accepted)
    best = _suppressed(candidates, accepted, settings)
    chosen = []
    for one, alike in best.items():
        # A spurious mask is found by one seed in many; an object by most of the seeds on it.
        seeds = {candidates.known[other].seed for other in alike}
        agreement = len(seeds) / max(candidates.known[one].seeds_inside, 1)
        if agreement >= settings.agreement:
            chosen.append(one)
    masks = {
        one: _clean_mask(_majority_mask(candidates, one, best[one]), settings.min_area)
        for one in chosen
    }
    boxes = {one: candidates.known[one].box for one in chosen}
    chosen = _without_composites(chosen, masks, boxes)
    return _paint_instances(candidates, chosen, masks, settings)


def accepted_candidates(candidates: MaskCandidates, settings: AutomaticSettings) -> list[int]:
    """Numbers of the candidates that pass the filters on their own measurements."""
    known = enumerate(candidates.known)
    return [number for number, one in known if is_accepted(one, settings, candidates.shape)]


def is_accepted(one: MaskCandidate, settings: AutomaticSettings, shape: tuple[int, int]) -> bool:
    """Whether a candidate's own measurements pass the filters on a plane of this size."""
    height, width = shape
    quality, stability = settings.thresholds
    touches = one.box.y0 == 0 or one.box.x0 == 0 or one.box.y1 == height or one.box.x1 == width
    return (
        one.quality > quality
        and one.stability >= stability
        and settings.min_area <= one.area <= settings.max_area * height * width
        and one.rim < settings.background
        and (settings.keep_border or not touches)
    )


def _suppressed(
    candidates: MaskCandidates, chosen: list[int], settings: AutomaticSettings
) -> dict[int, list[int]]:
    """Non-maximum suppression by boxes: the best candidates, best first, each with its like."""
    import torch
    from torchvision.ops import box_iou, nms

    if not chosen:
        return {}
    scores = np.array([_score(candidates, one) for one in chosen], np.float32)
    boxes = torch.from_numpy(candidates.boxes(chosen))
    best = nms(boxes, torch.from_numpy(scores), settings.box_overlap)
    numbers = np.array(chosen)
    found: dict[int, list[int]] = {}
    for some in best.split(COMPARED_AT_ONCE):
        alike = (box_iou(boxes[some], boxes) >= settings.box_overlap).numpy()
        alike[np.arange(len(some)), some] = True  # itself, even if rounding puts its IoU below 1
        rows = zip(some.tolist(), alike, strict=True)
        found |= {chosen[at]: numbers[row].tolist() for at, row in rows}
    return found


def _score(candidates: MaskCandidates, one: int) -> float:
    known = candidates.known[one]
    return known.quality * known.stability


def _majority_mask(candidates: MaskCandidates, one: int, alike: list[int]) -> NDArray[np.bool_]:
    """The pixels of a mask's box that most masks of the same object cover, weighted by score.

    The seeds of an object yield outlines that differ by a pixel here and there. Their majority is
    closer to the truth than the best of them. Only masks of high IoU vote: others of a like box
    may be of another object.
    """
    box = candidates.known[one].box
    mask = candidates.mask(one)
    area = np.count_nonzero(mask)
    votes = np.zeros(mask.shape, np.float32)
    total = 0.0
    for other in alike:
        into, out_of = _box_intersection(box, candidates.known[other].box)
        covered = np.zeros_like(mask)
        covered[into] = candidates.mask(other)[out_of]
        both = np.count_nonzero(mask & covered)
        if both >= SAME_MASK_IOU * (area + candidates.known[other].area - both):
            votes += covered * np.float32(_score(candidates, other))
            total += _score(candidates, other)
    return np.asarray(votes > total / 2, bool)


def _clean_mask(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    """The largest connected part of a mask, holes of fewer than `min_area` pixels filled."""
    mask = _largest_piece(mask)
    if mask.all() or min_area < 2:
        return mask
    holes, count = ndi.label(~np.pad(mask, 1))  # the outside is one of them, and never filled
    if count == 1:
        return mask
    sizes = np.bincount(holes.ravel())
    small = sizes < min_area
    small[[0, holes[0, 0]]] = False
    return np.asarray(mask | small[holes[1:-1, 1:-1]], bool)


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, count = ndi.label(mask)
    if count < 2:
        return mask
    largest: NDArray[np.bool_] = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return largest


def _without_composites(
    chosen: list[int], masks: dict[int, NDArray[np.bool_]], boxes: dict[int, PixelBox]
) -> list[int]:
    """Drop masks that two or more others, each much smaller, compose: clusters of objects."""
    areas = {one: int(np.count_nonzero(masks[one])) for one in chosen}
    whole: list[int] = []
    for one in sorted(chosen, key=lambda one: areas[one]):
        covered = np.zeros_like(masks[one])
        parts = 0
        for other in whole:
            into, out_of = _box_intersection(boxes[one], boxes[other])
            apart = any(side.start >= side.stop for side in into)
            if apart or areas[other] > areas[one] * 0.7:
                continue
            shared = masks[one][into] & masks[other][out_of]
            if np.count_nonzero(shared) >= PART_SHARE * areas[other]:
                covered[into] |= shared
                parts += 1
        if parts < 2 or np.count_nonzero(covered) < COMPOSITE_SHARE * areas[one]:
            whole.append(one)
    kept = set(whole)
    return [one for one in chosen if one in kept]


def _paint_instances(
    candidates: MaskCandidates,
    chosen: list[int],
    masks: dict[int, NDArray[np.bool_]],
    settings: AutomaticSettings,
) -> Instances:
    """Label the masks in the order of `chosen`, each on the pixels that are still free."""
    labels = np.zeros(candidates.shape, np.uint32)
    scores = []
    for one in chosen:
        under = labels[candidates.known[one].box.slices]
        area = np.count_nonzero(masks[one])
        visible = masks[one] & (under == 0)
        if np.count_nonzero(visible) < (1 - settings.overlap) * area:
            continue
        visible = _largest_piece(visible)
        if np.count_nonzero(visible) < max(settings.min_area, 1):
            continue
        scores.append(candidates.known[one].quality)
        under[visible] = len(scores)
    return _numbered(labels, scores)


def _disjoint_instances(candidates: MaskCandidates, chosen: list[int]) -> Instances:
    """Masks that share no pixel as objects, each as it is."""
    labels = np.zeros(candidates.shape, np.uint32)
    for number, one in enumerate(chosen, start=1):
        labels[candidates.known[one].box.slices][candidates.mask(one)] = number
    return _numbered(labels, [candidates.known[one].quality for one in chosen])


def _numbered(labels: NDArray[np.uint32], scores: list[float]) -> Instances:
    """Objects and their scores, numbered anew in the order of their first pixels."""
    ids, first = np.unique(labels, return_index=True)
    order = ids[np.argsort(first)]
    order = order[order > 0]
    numbers = np.zeros(len(scores) + 1, np.uint32)
    numbers[order] = np.arange(1, len(order) + 1)
    return Instances(numbers[labels], np.array(scores, np.float32)[order.astype(np.intp) - 1])


def _box_intersection(
    one: PixelBox, other: PixelBox
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The intersection of two boxes, as an index into each; empty or reversed if they are apart."""
    y0, x0 = max(one.y0, other.y0), max(one.x0, other.x0)
    y1, x1 = min(one.y1, other.y1), min(one.x1, other.x1)
    mine, theirs = (
        (slice(y0 - box.y0, y1 - box.y0), slice(x0 - box.x0, x1 - box.x0)) for box in (one, other)
    )
    return mine, theirs


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


MIN_EXAMPLES = 3
"""Committed objects needed to tell what they have in common."""
ROOM = 1.5
"""What an object may be, in largest distances of a committed object from the others."""
MIN_DISTANCES = {"size": 0.4, "intensity": 0.35, "appearance": 0.1}
"""Distances that always pass: few committed objects may be alike by chance. Size is the logarithm
of the area, intensity is in standard deviations of the image, appearance is 1 less the cosine of
the embeddings' angle."""
TOO_FEW = "Three committed objects are needed to tell which objects are like them, {} {} here."
ALL_ALIKE = "All {} are like the committed ones."
KEPT = "{} of {} are like the committed ones; left out by {}."


@dataclass(frozen=True, eq=False)
class ObjectProperties:
    """Properties of N objects.

    Parameters
    ----------
    ids
        In order.
    vectors
        ``size`` (N, 1), ``intensity`` (N, 2 C): mean of each channel, and its difference from the
        ring around the object; ``appearance`` (N, D): the mean embedding, of unit length.
    """

    ids: tuple[int, ...]
    vectors: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Sifted:
    """The objects that are like the committed ones.

    Parameters
    ----------
    instances
        These objects, renumbered.
    kept
        Their ids before.
    left_out
        Number of objects left out by each property; one that fails several counts for each.
    sentence
        The outcome in words.
    """

    instances: Instances
    kept: tuple[int, ...]
    left_out: Mapping[str, int]
    sentence: str


def measure_properties(
    predictor: Predictor, labels: NDArray[Any], index: tuple[int, ...] = ()
) -> ObjectProperties:
    """The properties of objects on the predictor's current plane.

    Parameters
    ----------
    predictor
        On the plane.
    labels
        The plane's labels (Y, X).
    index
        The plane's index along the axes before Y and X.
    """
    embedding = predictor.embedding
    ids: list[int] = []
    vectors: dict[str, list[Any]] = {"size": [], "intensity": [], "appearance": []}
    for seen in object_intensities(predictor.stack.normalized(index), labels):
        mean = mean_embedding(embedding, labels, seen.label, seen.around)
        ids.append(seen.label)
        vectors["size"].append([np.log(seen.area)])
        vectors["intensity"].append([*seen.mean, *seen.difference])
        vectors["appearance"].append(mean)
    return ObjectProperties(
        tuple(ids), {name: np.array(rows, float) for name, rows in vectors.items()}
    )


def sift(found: Instances, properties: ObjectProperties, committed: ObjectProperties) -> Sifted:
    """Keep the objects that are like the committed ones.

    Parameters
    ----------
    found
        E.g. of `segment_everything`.
    properties
        Those of these objects.
    committed
        Properties of at least `MIN_EXAMPLES` objects that a user committed.

    Raises
    ------
    ValueError
        If there are fewer.
    """
    count = len(committed.ids)
    if count < MIN_EXAMPLES:
        raise ValueError(TOO_FEW.format(count, "is" if count == 1 else "are"))
    fits = {
        name: _fits(name, properties.vectors[name], examples)
        for name, examples in committed.vectors.items()
    }
    keep = np.logical_and.reduce(list(fits.values()))
    kept = tuple(label for label, fit in zip(properties.ids, keep, strict=True) if fit)
    left_out = {name: int(np.count_nonzero(~fit)) for name, fit in fits.items()}
    numbers = np.zeros(int(found.labels.max(initial=0)) + 1, np.uint32)
    numbers[list(kept)] = np.arange(1, len(kept) + 1)
    instances = Instances(numbers[found.labels], found.scores[[label - 1 for label in kept]])
    objects = pluralize(len(keep), "object")
    if len(kept) == len(keep):
        sentence = ALL_ALIKE.format(objects)
    else:
        reasons = [f"{name} {number}" for name, number in left_out.items() if number]
        sentence = KEPT.format(len(kept), objects, format_list(reasons))
    return Sifted(instances, kept, left_out, sentence)


def _fits(
    name: str, vectors: NDArray[np.float64], examples: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which of N vectors are about as near to an example as the examples are to each other."""
    if not len(vectors):
        return np.zeros(0, bool)
    apart = []
    for number in range(len(examples)):
        others = np.delete(examples, number, axis=0)
        apart.append(_distance(name, examples[number : number + 1], others)[0])
    allowed = max(MIN_DISTANCES[name], ROOM * max(apart))
    return np.asarray(_distance(name, vectors, examples) <= allowed)


def _distance(
    name: str, vectors: NDArray[np.float64], examples: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far each of N vectors is from the nearest of the examples, (N,)."""
    if name == "appearance":
        apart = 1 - vectors @ examples.T
    else:
        apart = np.abs(vectors[:, None] - examples[None]).mean(2)
    return np.asarray(apart.min(1))
