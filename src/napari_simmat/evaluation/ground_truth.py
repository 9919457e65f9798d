"""True objects of a label image: where a user would click, and how well an answer agrees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_simmat.engine.masks import Mask, Window, interior_point, iou
from napari_simmat.evaluation.metrics import boundary_f, davis_tolerance, dice
from napari_simmat.evaluation.scores import MaskAgreement


class GroundTruthObject:
    """A true object, kept as the part of the image that holds it.

    Parameters
    ----------
    labels, label, window
        The label image (Y, X), the object's id in it, and its bounding box.
    """

    def __init__(self, labels: NDArray[Any], label: int, window: Window) -> None:
        self.mask: Mask = labels[window] == label
        self.window = window
        self.area = int(np.count_nonzero(self.mask))
        self._labels, self._label = labels, label
        rows, columns = window
        self.box = (rows.start, columns.start, rows.stop, columns.stop)
        y, x = interior_point(self.mask, ties="median")
        self.middle = (rows.start + y, columns.start + x)

    def agreement(self, ours: Mask) -> MaskAgreement:
        """How well a mask (Y, X) of the whole image agrees with the object."""
        ours, truth = self._both(_padded_window(_window_union(self.window, ours), ours.shape), ours)
        tolerance = boundary_tolerance(self._labels.shape, self.area)
        boundary = boundary_f(ours, truth, tolerance).f
        return MaskAgreement(iou(ours, truth), dice(ours, truth), boundary)

    def iou(self, ours: Mask) -> float:
        """IoU with a mask (Y, X) of the whole image."""
        return iou(*self._both(_window_union(self.window, ours), ours))

    def correction(self, ours: Mask) -> tuple[tuple[float, float], int] | None:
        """`correcting_click` in the coordinates of the whole image."""
        window = _window_union(self.window, ours)
        found = correcting_click(*self._both(window, ours))
        if found is None:
            return None
        (y, x), kind = found
        return (window[0].start + y, window[1].start + x), kind

    def _both(self, window: Window, ours: Mask) -> tuple[Mask, Mask]:
        return ours[window], self._labels[window] == self._label


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


def disk(shape: tuple[int, ...], centre: tuple[float, float], radius: float) -> Mask:
    """A disk (Y, X), cut off at the image's border."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2)


def boundary_tolerance(shape: tuple[int, ...], area: int) -> float:
    """How far (pixels) a boundary may be off: as DAVIS, but at most a tenth of the object's width.

    DAVIS' tolerance is that of the whole image, made for objects that fill much of it. Of a
    nucleus 20 px wide in an image of 1024 px it would call every outline right. Never below 1.

    Parameters
    ----------
    shape
        The image's size (Y, X).
    area
        The object's pixels; its width is that of the disk of that area.
    """
    width = 2 * math.sqrt(area / math.pi)
    return max(1.0, min(davis_tolerance(shape), width / 10))


def _window_union(window: Window, ours: Mask) -> Window:
    """The smallest part of the image that holds a window and a mask."""
    rows, columns = np.flatnonzero(ours.any(axis=1)), np.flatnonzero(ours.any(axis=0))
    if not len(rows):
        return window
    return (
        slice(min(window[0].start, int(rows[0])), max(window[0].stop, int(rows[-1]) + 1)),
        slice(min(window[1].start, int(columns[0])), max(window[1].stop, int(columns[-1]) + 1)),
    )


def _padded_window(window: Window, shape: tuple[int, ...]) -> Window:
    """A pixel more on each side, within the image: boundaries reach that far."""
    rows, columns = (
        slice(max(side.start - 1, 0), min(side.stop + 1, length))
        for side, length in zip(window, shape, strict=True)
    )
    return rows, columns
