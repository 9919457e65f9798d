"""An object whose mask is known: how well another mask agrees, and where a user would click."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_simmat.engine.masks import Mask, Window, interior_point, iou
from napari_simmat.evaluation.metrics import dice


class GroundTruthObject:
    """A true object, stored as the part of the image that holds it.

    Parameters
    ----------
    labels, label, window
        The label image (Y, X), the object's id in it, and its bounding box.
    """

    def __init__(self, labels: NDArray[Any], label: int, window: Window) -> None:
        self.mask: Mask = labels[window] == label
        self.window = window
        self.area = int(np.count_nonzero(self.mask))
        self._labels, self.label = labels, label
        rows, columns = window
        self.box = (rows.start, columns.start, rows.stop, columns.stop)
        y, x = interior_point(self.mask, ties="median")
        self.middle = (rows.start + y, columns.start + x)

    def agreement(self, ours: Mask) -> tuple[float, float]:
        """IoU and Dice of a mask (Y, X) of the whole image with the object."""
        ours, truth = self._both(_window_union(self.window, ours), ours)
        return iou(ours, truth), dice(ours, truth)

    def correction(self, ours: Mask) -> tuple[tuple[float, float], int] | None:
        """See `correcting_click`; in the coordinates of the whole image."""
        window = _window_union(self.window, ours)
        found = correcting_click(*self._both(window, ours))
        if found is None:
            return None
        (y, x), kind = found
        return (window[0].start + y, window[1].start + x), kind

    def _both(self, window: Window, ours: Mask) -> tuple[Mask, Mask]:
        return ours[window], self._labels[window] == self.label


def correcting_click(ours: Mask, truth: Mask) -> tuple[tuple[float, float], int] | None:
    """A click in the largest wrong region and its label; None where nothing is wrong."""
    wrong, count = ndimage.label(ours ^ truth)
    if not count:
        return None
    largest = np.bincount(wrong.ravel())[1:].argmax() + 1
    rows, columns = ndimage.find_objects(wrong)[largest - 1]
    y, x = interior_point(wrong[rows, columns] == largest, ties="median")
    y, x = rows.start + y, columns.start + x
    return (y, x), int(truth[int(y), int(x)])


def disk(shape: tuple[int, ...], center: tuple[float, float], radius: float) -> Mask:
    """A disk (Y, X), cut off at the image's border."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2)


def _window_union(window: Window, ours: Mask) -> Window:
    """The smallest part of the image that holds a window and a mask."""
    rows, columns = np.flatnonzero(ours.any(axis=1)), np.flatnonzero(ours.any(axis=0))
    if not len(rows):
        return window
    return (
        slice(min(window[0].start, int(rows[0])), max(window[0].stop, int(rows[-1]) + 1)),
        slice(min(window[1].start, int(columns[0])), max(window[1].stop, int(columns[-1]) + 1)),
    )
