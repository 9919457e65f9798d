"""Agreement of masks and of label images: pure functions on arrays.

Objects of label images are matched one to one; ids play no part, 0 is the background.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from napari_simmat.engine.masks import as_masks

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""IoU thresholds of the Data Science Bowl 2018."""


class Matching(NamedTuple):
    """Objects found, invented and missed at one threshold; those of several images add up.

    Parameters
    ----------
    true_positives, false_positives, false_negatives
        Pairs whose IoU reaches the threshold; objects found that have no partner; true objects
        that have none.
    iou_sum
        Sum of the IoUs of the pairs.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    iou_sum: float

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN); 1 where nothing was there and nothing was found.

        The score per threshold of the Data Science Bowl 2018 (Caicedo et al., Nature Methods 2019)
        and of StarDist; not an area under a curve, as masks have no confidence here.
        """
        all_of_them = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / all_of_them if all_of_them else 1.0

    @property
    def quality(self) -> PanopticQuality:
        """Panoptic quality of these matches."""
        count = self.true_positives + (self.false_positives + self.false_negatives) / 2
        if count == 0:
            return PanopticQuality(1.0, 1.0, 1.0)
        found = self.true_positives
        segmentation = self.iou_sum / found if found else 0.0
        return PanopticQuality(self.iou_sum / count, segmentation, found / count)


class PanopticQuality(NamedTuple):
    """Panoptic quality of objects of one class (Kirillov et al., CVPR 2019, arXiv 1801.00868).

    `pq` = `sq` (mean IoU of the matched pairs) x `rq` (F1 of the detection); `sq` is 0 if nothing
    was matched. All three are 1 if nothing was there and nothing was found.
    """

    pq: float
    sq: float
    rq: float


def match_at_thresholds(
    found: NDArray[Any], truth: NDArray[Any], thresholds: Sequence[float] = THRESHOLDS
) -> tuple[Matching, ...]:
    """Match the objects of two label images (H, W) or (Z, Y, X) one to one, at each threshold.

    Among the matchings with the most pairs that reach a threshold, one with the largest sum of IoUs
    is taken (Kuhn 1955). Above 0.5 it is unique: no object overlaps two others by more than half.
    An IoU that equals the threshold reaches it, as in StarDist's `matching`; Kirillov et al. and
    MONAI take those above it alone.

    Raises
    ------
    ValueError
        If the shapes differ, or ids are negative or no integers.

    Examples
    --------
    Two of three objects are found, one with IoU 2/3, and one is invented:

    >>> truth = np.array([[1, 1, 1, 0, 2, 2, 0, 3, 3, 0]])
    >>> found = np.array([[7, 7, 0, 0, 5, 5, 0, 0, 0, 9]])
    >>> [matching] = match_at_thresholds(found, truth, (0.5,))
    >>> matching[:3], round(matching.iou_sum, 3), matching.average_precision
    ((2, 1, 1), 1.667, 0.5)
    """
    overlaps = pairwise_iou(found, truth)
    return tuple(_match_overlaps(overlaps, each) for each in thresholds)


def sum_matchings(matchings: Iterable[Matching]) -> Matching:
    """Matches of a data set: the counts of its images, added up.

    Its `quality` is the panoptic quality of the data set as Kirillov et al. define it, and its
    `average_precision` that of StarDist's `matching_dataset`: objects count alike, not images.

    Examples
    --------
    >>> sum_matchings([Matching(2, 1, 0, 1.5), Matching(0, 0, 3, 0.0)])
    Matching(true_positives=2, false_positives=1, false_negatives=3, iou_sum=1.5)
    """
    columns = list(zip(*matchings, strict=True)) or [(0,), (0,), (0,), (0.0,)]
    return Matching(*map(sum, columns))


def without_covered(labels: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Labels without the objects of which more than half of the pixels lie in a mask.

    Examples
    --------
    >>> without_covered(np.array([4, 4, 4, 9, 9]), np.array([0, 1, 1, 0, 1]) > 0).tolist()
    [0, 0, 0, 9, 9]
    """
    ids, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    inside = np.bincount(index[mask], minlength=len(ids))
    covered = 2 * inside > np.bincount(index.ravel(), minlength=len(ids))
    return np.where(covered[index], 0, labels)


def pairwise_iou(found: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """IoU (objects found, true objects) of every pair, both in the order of their ids.

    Examples
    --------
    >>> pairwise_iou(np.array([4, 4, 9, 0]), np.array([1, 1, 1, 1])).tolist()
    [[0.5], [0.25]]
    """
    if found.shape != truth.shape:
        raise ValueError(
            f"Labels of shape {found.shape} and {truth.shape} cannot be compared; give both on "
            "the same image."
        )
    (ours, our_index), (theirs, their_index) = _compact(found), _compact(truth)
    pairs = our_index * theirs + their_index
    common = np.bincount(pairs, minlength=ours * theirs).reshape(ours, theirs)
    union = common.sum(1, keepdims=True) + common.sum(0, keepdims=True) - common
    return np.asarray((common / np.maximum(union, 1))[1:, 1:], np.float64)


def _compact(labels: NDArray[Any]) -> tuple[int, NDArray[np.intp]]:
    """How many ids there are, 0 included, and each pixel's number among them."""
    if not (np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool):
        raise ValueError(
            f"Labels are whole numbers, one per object, got {labels.dtype}; convert them first."
        )
    if labels.size and labels.min() < 0:
        raise ValueError(f"Ids of objects are positive, got {labels.min()}; 0 is the background.")
    ids, index = np.unique(np.append(labels.ravel(), 0), return_inverse=True)
    return len(ids), index[:-1]


def _match_overlaps(overlaps: NDArray[np.float64], threshold: float) -> Matching:
    allowed = (overlaps >= threshold) & (overlaps > 0)
    # A pair counts for more than all IoUs together, so that no pair is given up for better ones.
    gain = allowed * (1 + min(overlaps.shape, default=0)) + allowed * overlaps
    rows, columns = linear_sum_assignment(gain, maximize=True)
    pairs = allowed[rows, columns]
    found = int(np.count_nonzero(pairs))
    return Matching(
        true_positives=found,
        false_positives=overlaps.shape[0] - found,
        false_negatives=overlaps.shape[1] - found,
        iou_sum=float(overlaps[rows, columns][pairs].sum()),
    )


def dice(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Dice coefficient (F1 of the pixels) of two masks of equal shape; 1 where both are empty.

    Examples
    --------
    >>> dice(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0]))
    0.5
    """
    ours, theirs = as_masks(ours, theirs)
    total = np.count_nonzero(ours) + np.count_nonzero(theirs)
    return float(2 * np.count_nonzero(ours & theirs) / total) if total else 1.0
