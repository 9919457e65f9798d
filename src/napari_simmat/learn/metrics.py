"""How well masks agree: pure functions on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def iou(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Intersection over union of two masks of equal shape; 1 where both are empty.

    Examples
    --------
    >>> iou(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0])) == 1 / 3
    True
    """
    ours, theirs = _masks(ours, theirs)
    union = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / union if union else 1.0


def dice(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Dice coefficient (F1 of the pixels) of two masks of equal shape; 1 where both are empty.

    Examples
    --------
    >>> dice(np.array([1, 1, 0, 0]), np.array([0, 1, 1, 0]))
    0.5
    """
    ours, theirs = _masks(ours, theirs)
    total = np.count_nonzero(ours) + np.count_nonzero(theirs)
    return 2 * np.count_nonzero(ours & theirs) / total if total else 1.0


def _masks(ours: NDArray[Any], theirs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if ours.shape != theirs.shape:
        raise ValueError(
            f"Masks of shape {ours.shape} and {theirs.shape} cannot be compared; give both on the "
            "same image."
        )
    return ours.astype(bool), theirs.astype(bool)
