"""How well masks agree: pure functions on arrays. Objects of a label image: `learn.matching`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, hypot
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.mask_geometry import as_masks, iou

_DAVIS_TOLERANCE = 0.008
"""Tolerance of a boundary as a share of the image's diagonal, as the DAVIS benchmark has it."""


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


def mean_iou(
    ours: Sequence[NDArray[Any]] | NDArray[Any], theirs: Sequence[NDArray[Any]] | NDArray[Any]
) -> float:
    """Mean IoU of an image's objects: the k-th mask of `ours` answers the k-th of `theirs`.

    Parameters
    ----------
    ours, theirs
        N masks each, all of one shape; an array (N, H, W) will do.

    Returns
    -------
    float
        NaN where there is no object (N = 0): such an image says nothing.

    Raises
    ------
    ValueError
        If there are not as many masks on either side, or their shapes differ.

    Examples
    --------
    >>> mean_iou(np.array([[1, 1, 0], [0, 0, 1]]), np.array([[1, 0, 0], [0, 0, 1]]))
    0.75
    """
    if len(ours) != len(theirs):
        raise ValueError(
            f"{len(ours)} masks cannot answer {len(theirs)} objects; give one mask for each."
        )
    scores = [iou(one, other) for one, other in zip(ours, theirs, strict=True)]
    return float(np.mean(scores)) if scores else float("nan")


class DatasetIoU(NamedTuple):
    """Mean IoU of a data set, counted in two ways, and what was counted.

    Parameters
    ----------
    by_object
        Every object counts as much: the mIoU of SimMAT's tables ("averaged over masks").
    by_image
        Every image with an object counts as much, however many it has.
    objects, images
        Numbers of objects, and of images that have any.
    """

    by_object: float
    by_image: float
    objects: int
    images: int


def dataset_iou(scores: Iterable[Sequence[float] | NDArray[np.floating[Any]]]) -> DatasetIoU:
    """Mean IoU of a data set from each image's IoUs (any other score per object as well).

    Images without objects are left out; both means are NaN where none is left.

    Examples
    --------
    >>> dataset_iou([[1.0, 1.0, 0.25], [], [0.5]])
    DatasetIoU(by_object=0.6875, by_image=0.625, objects=4, images=2)
    """
    rows = [np.asarray(row, float) for row in scores]
    rows = [row for row in rows if row.size]
    if not rows:
        return DatasetIoU(float("nan"), float("nan"), 0, 0)
    objects = np.concatenate(rows)
    by_image = float(np.mean([row.mean() for row in rows]))
    return DatasetIoU(float(objects.mean()), by_image, len(objects), len(rows))


class BoundaryScore(NamedTuple):
    """Agreement of two boundaries: `precision` of ours, `recall` of theirs, their mean `f`."""

    f: float
    precision: float
    recall: float


def boundary_f(
    ours: NDArray[Any], theirs: NDArray[Any], tolerance: float | None = None
) -> BoundaryScore:
    """Boundary F measure of DAVIS (Perazzi et al., CVPR 2016, section 5).

    Precision is the share of our boundary pixels with one of theirs within `tolerance`, recall the
    share of theirs with one of ours; F is the harmonic mean. DAVIS matches by dilation with a disk,
    which is the same.

    Parameters
    ----------
    ours, theirs
        Masks (H, W).
    tolerance
        Largest distance in pixels; by default 0.8 % of the image's diagonal, rounded up.

    Returns
    -------
    BoundaryScore
        All 1 where neither mask has a boundary (empty, or filling the image). Where only one has:
        what has no pixels has no wrong one and gets 1, the other 0, and F is 0.

    Raises
    ------
    ValueError
        If the masks are not two-dimensional or of different shapes.

    Examples
    --------
    A square and the same one 2 px further right: the two sides that are shared, and no others,
    are found within 1 px.

    >>> square, moved = np.zeros((12, 16)), np.zeros((12, 16))
    >>> square[3:9, 3:9] = moved[3:9, 5:11] = 1
    >>> boundary_f(square, square, 0).f, boundary_f(square, moved, 2).f
    (1.0, 1.0)
    >>> round(boundary_f(square, moved, 1).f, 3)
    0.583
    """
    ours, theirs = as_masks(ours, theirs)
    if ours.ndim != 2:
        raise ValueError(f"A boundary is that of a mask (H, W), got the shape {ours.shape}.")
    if tolerance is None:
        tolerance = davis_tolerance(ours.shape)
    mine, other = boundary(ours), boundary(theirs)
    precision, recall = _share_near(mine, other, tolerance), _share_near(other, mine, tolerance)
    total = precision + recall
    return BoundaryScore(2 * precision * recall / total if total else 0.0, precision, recall)


def davis_tolerance(shape: tuple[int, ...]) -> int:
    """DAVIS' tolerance in pixels for an image (H, W): 0.8 % of its diagonal, rounded up."""
    return ceil(_DAVIS_TOLERANCE * hypot(*shape))


def boundary(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels (H, W) that differ from the one to the right, below, or right below.

    One pixel wide, as DAVIS draws it: half a pixel beside the true border, for every mask alike.
    The image's own edge is no boundary.
    """
    inside = np.pad(np.asarray(mask).astype(bool), (0, 1), mode="edge")
    here = inside[:-1, :-1]
    return np.asarray(
        (here != inside[:-1, 1:]) | (here != inside[1:, :-1]) | (here != inside[1:, 1:])
    )


def _share_near(some: NDArray[np.bool_], others: NDArray[np.bool_], tolerance: float) -> float:
    """Share of the pixels `some` with one of `others` within `tolerance`; 1 of no pixels."""
    if not some.any():
        return 1.0
    if not others.any():
        return 0.0
    away = ndi.distance_transform_edt(~others)
    return float(np.mean(away[some] <= tolerance))
