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

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.settings import (
    DEFAULT_THRESHOLDS,
    MIN_PREDICTED_IOU,
    AutomaticSettings,
)

SAME_MASK_IOU = 0.95
"""Masks of at least this IoU outline the same object and vote on its pixels."""
COMPARED_AT_ONCE = 256
"""Boxes compared with all others at once, which bounds the memory."""
PART_SHARE = 0.9
"""A mask is part of a larger one if at least this share of it lies within."""
COMPOSITE_SHARE = 0.1
"""A mask is composed of others if they cover at least this share of it."""


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


class Unsure(NamedTuple):
    """What a decoder left out because each was too unlikely.

    Attributes
    ----------
    kept
        How many objects it found.
    masks
        How many more there are at the lowest threshold that can be set.
    objects
        How many objects all that was left out promises: the sum of the chances.
    """

    kept: int = 0
    masks: int = 0
    objects: float = 0.0

    @property
    def share(self) -> float:
        """Of all objects that are likely there, those that were left out, 0 to 1."""
        return self.objects / max(self.kept + self.objects, 1e-9)

    def with_plane(self, other: Unsure) -> Unsure:
        """With those of another plane."""
        added = (one + more for one, more in zip(self, other, strict=True))
        return Unsure(*added)  # type: ignore[arg-type]


NOTHING_LEFT_OUT = Unsure()


@dataclass(frozen=True, eq=False)
class Instances:
    """A plane's objects.

    Attributes
    ----------
    labels
        (Y, X) uint32, 1..N in the order of the objects' first pixels; each object is connected.
    scores
        (N,) float32, predicted IoU.
    unsure
        What was left out, where scores are chances and the threshold is not raised.
    """

    labels: NDArray[np.uint32]
    scores: NDArray[np.float32]
    unsure: Unsure = NOTHING_LEFT_OUT

    def __len__(self) -> int:
        return len(self.scores)


def masks_to_instances(candidates: MaskCandidates, settings: AutomaticSettings) -> Instances:
    """Filter and merge candidates into objects; of equal masks the earlier one stays."""
    settings = settings.with_thresholds(candidates.thresholds)
    accepted = accepted_candidates(candidates, settings)
    if candidates.disjoint:
        found = _disjoint_instances(candidates, accepted)
        return replace(found, unsure=_unsure(candidates, len(found), settings))
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


def _unsure(candidates: MaskCandidates, kept: int, settings: AutomaticSettings) -> Unsure:
    """What the quality alone rejects; nothing where it is higher than the decoder's own."""
    quality, _ = settings.thresholds
    if quality > candidates.thresholds[0]:
        return Unsure(kept)
    chances = [
        one.quality
        for one in candidates.known
        if one.quality <= quality
        and is_accepted(one._replace(quality=1.0), settings, candidates.shape)
    ]
    shown = sum(chance > MIN_PREDICTED_IOU for chance in chances)
    return Unsure(kept, shown, float(sum(chances)))


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
