"""Which of the masks that a model proposes become objects.

The filters are those of SAM's automatic mask generator (predicted IoU, stability, box
non-maximum suppression, small regions; https://github.com/facebookresearch/segment-anything).
What they leave still overlaps; four more make it a label image: seeds have to agree, masks that do
are put to the vote, a mask that others make up is none, and each pixel belongs to the best mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.automatic.candidates import Box, Candidate, Candidates
from napari_simmat.engine.automatic.settings import AutomaticSettings

ALIKE = 0.95
"""IoU of two masks from which on they outline the same object, pixel by pixel."""
WITHIN = 0.9
"""Share of a mask within a larger one from which on it is a part of it."""
MADE_UP = 0.1
"""Share of a mask that its parts cover from which on it is made up of them."""


@dataclass(frozen=True, eq=False)
class Instances:
    """A plane's objects.

    Attributes
    ----------
    labels
        (Y, X) uint32, 1..N in the order of the objects' first pixels; each object is one piece.
    scores
        (N,) float32, the model's own estimates of their IoU.
    """

    labels: NDArray[np.uint32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


def sift(candidates: Candidates, settings: AutomaticSettings) -> Instances:
    """Turn proposed masks into objects; of equal masks the earlier one stays."""
    best = _suppressed(candidates, passing(candidates, settings), settings)
    chosen = [one for one in best if _support(candidates, one, best[one]) >= settings.agreement]
    masks = {one: _cleaned(_voted(candidates, one, best[one]), settings.min_area) for one in chosen}
    boxes = {one: candidates.known[one].box for one in chosen}
    chosen = _not_made_up(chosen, masks, boxes)
    return _painted(candidates, chosen, masks, settings)


def passing(candidates: Candidates, settings: AutomaticSettings) -> list[int]:
    """Numbers of the candidates that their own numbers do not rule out."""
    known = enumerate(candidates.known)
    return [number for number, one in known if passes(one, settings, candidates.shape)]


def passes(one: Candidate, settings: AutomaticSettings, shape: tuple[int, int]) -> bool:
    """Whether a candidate's own numbers do not rule it out on a plane of this size."""
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
    candidates: Candidates, chosen: list[int], settings: AutomaticSettings
) -> dict[int, list[int]]:
    """The best of those with boxes alike, best first, each with all that are like it."""
    import torch
    from torchvision.ops import box_iou, nms

    if not chosen:
        return {}
    scores = np.array([_score(candidates, one) for one in chosen], np.float32)
    boxes = torch.from_numpy(candidates.boxes(chosen))
    best = nms(boxes, torch.from_numpy(scores), settings.box_overlap)
    alike = (box_iou(boxes[best], boxes) >= settings.box_overlap).numpy()
    alike[np.arange(len(best)), best] = True  # also where the threshold is above 1
    numbers = np.array(chosen)
    return {chosen[at]: numbers[row].tolist() for at, row in zip(best.tolist(), alike, strict=True)}


def _score(candidates: Candidates, one: int) -> float:
    known = candidates.known[one]
    return known.quality * known.stability


def _support(candidates: Candidates, one: int, alike: list[int]) -> float:
    """Share of the seeds on a mask that are answered with one like it."""
    seeds = {candidates.known[other].seed for other in alike}
    return len(seeds) / max(candidates.known[one].seeds_inside, 1)


def _voted(candidates: Candidates, one: int, alike: list[int]) -> NDArray[np.bool_]:
    """The pixels of a mask's box that most masks of the same object cover, by their scores."""
    box, mask = candidates.known[one].box, candidates.mask(one)
    area = np.count_nonzero(mask)
    votes, total = np.zeros(mask.shape, np.float32), 0.0
    for other in alike:
        into, out_of = _common(box, candidates.known[other].box)
        covered = np.zeros_like(mask)
        covered[into] = candidates.mask(other)[out_of]
        both = np.count_nonzero(mask & covered)
        if both >= ALIKE * (area + candidates.known[other].area - both):
            votes += covered * np.float32(_score(candidates, other))
            total += _score(candidates, other)
    most: NDArray[np.bool_] = votes > total / 2
    return most


def _cleaned(mask: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """The largest piece of a mask, holes of fewer than `least` pixels filled."""
    mask = _largest_piece(mask)
    if mask.all() or least < 2:
        return mask
    holes, count = ndi.label(~np.pad(mask, 1))  # the outside is one of them, whatever its size
    if count == 1:
        return mask
    sizes = np.bincount(holes.ravel())
    small = sizes < least
    small[[0, holes[0, 0]]] = False
    filled: NDArray[np.bool_] = mask | small[holes[1:-1, 1:-1]]
    return filled


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, count = ndi.label(mask)
    if count < 2:
        return mask
    largest: NDArray[np.bool_] = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return largest


def _not_made_up(
    chosen: list[int], masks: dict[int, NDArray[np.bool_]], boxes: dict[int, Box]
) -> list[int]:
    """Without masks of which two or more others, each much smaller, cover a tenth."""
    areas = {one: int(np.count_nonzero(masks[one])) for one in chosen}
    whole: list[int] = []
    for one in sorted(chosen, key=lambda one: areas[one]):
        covered, parts = np.zeros_like(masks[one]), 0
        for other in whole:
            if areas[other] > areas[one] * 0.7 or not _meet(boxes[one], boxes[other]):
                continue
            into, out_of = _common(boxes[one], boxes[other])
            shared = masks[one][into] & masks[other][out_of]
            if np.count_nonzero(shared) >= WITHIN * areas[other]:
                covered[into] |= shared
                parts += 1
        if parts < 2 or np.count_nonzero(covered) < MADE_UP * areas[one]:
            whole.append(one)
    kept = set(whole)
    return [one for one in chosen if one in kept]


def _painted(
    candidates: Candidates,
    chosen: list[int],
    masks: dict[int, NDArray[np.bool_]],
    settings: AutomaticSettings,
) -> Instances:
    """Objects in the order of `chosen`, each on the pixels that are still free."""
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
    return _ordered(labels, scores)


def _ordered(labels: NDArray[np.uint32], scores: list[float]) -> Instances:
    """The same objects, numbered in the order of their first pixels."""
    ids, first = np.unique(labels, return_index=True)
    order = ids[np.argsort(first)]
    order = order[order > 0]
    numbers = np.zeros(len(scores) + 1, np.uint32)
    numbers[order] = np.arange(1, len(order) + 1)
    return Instances(numbers[labels], np.array(scores, np.float32)[order.astype(np.intp) - 1])


def _meet(one: Box, other: Box) -> bool:
    return one.y0 < other.y1 and other.y0 < one.y1 and one.x0 < other.x1 and other.x0 < one.x1


def _common(one: Box, other: Box) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part that two boxes share, in the pixels of each."""
    y0, x0 = max(one.y0, other.y0), max(one.x0, other.x0)
    y1, x1 = min(one.y1, other.y1), min(one.x1, other.x1)
    mine, theirs = (
        (slice(y0 - box.y0, y1 - box.y0), slice(x0 - box.x0, x1 - box.x0)) for box in (one, other)
    )
    return mine, theirs
