"""A model against true objects, prompted as a user would: a click, a box, corrections."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.learn.metrics import iou
from napari_simmat.progress import Job, Progress

Mask = NDArray[np.bool_]
Asked = Literal["click", "box", "iterative", "all"]
"""Which prompts a model is asked: iterative is the click and its corrections."""
Window = tuple[slice, slice]


@dataclass(frozen=True)
class ObjectScore:
    """IoU reached on one object; NaN where the prompt was not asked.

    Parameters
    ----------
    label
        Its id in the label image.
    click, box
        With one click in its middle; with its bounding box.
    corrected
        After each of the following corrections of the click.
    area
        Its pixels.
    filled_box, disk
        What needs no model: the whole bounding box; a disk at the click that is as large as the
        median object of the plane.
    """

    label: int
    click: float
    box: float
    corrected: tuple[float, ...]
    area: int = 0
    filled_box: float = math.nan
    disk: float = math.nan


def evaluating(
    predictor: Predictor,
    labels: NDArray[Any],
    corrections: int = 3,
    *,
    asked: Asked = "all",
    only: Collection[int] | None = None,
    show: Callable[[str, Prompt, Mask], object] | None = None,
) -> Job[list[ObjectScore]]:
    """Prompt every object of `labels` (Y, X) on the predictor's current plane.

    The click is the pixel deepest inside the object (`middle`). A correction is a click in the
    deepest pixel of the largest wrong region, given with the logits of the answer before it, as
    the window does.

    Parameters
    ----------
    predictor
        With the image.
    labels
        True objects, 0 for the background.
    corrections
        How many clicks follow the first one.
    asked
        Which prompts are given.
    only
        The labels to prompt; all by default.
    show
        Called with ``"click"`` or ``"box"``, the prompt and its answer (Y, X).

    Raises
    ------
    ValueError
        If the labels have another size than the image.
    """
    if labels.shape != predictor.shape[-2:]:
        raise ValueError(
            f"The labels have {' x '.join(map(str, labels.shape))} pixels, the image's planes "
            f"{' x '.join(map(str, predictor.shape[-2:]))}; give labels of the same plane."
        )
    objects = {
        label: window for label, window in found_objects(labels) if only is None or label in only
    }
    areas = {label: int((labels[where] == label).sum()) for label, where in objects.items()}
    radius = math.sqrt(float(np.median(list(areas.values()))) / math.pi) if areas else 0.0
    scores = []
    for done, (label, window) in enumerate(objects.items(), start=1):
        truth = Truth(labels, label, window)
        click, boxed, corrected = math.nan, math.nan, []
        if asked != "box":
            points, kinds = [truth.middle], [1]
            answer = predictor.predict(points=points, labels=kinds)
            click = truth.iou(answer.mask)
            if show is not None:
                show("click", Prompt(points=(points[0],), labels=(1,), object=label), answer.mask)
            for _ in range(0 if asked == "click" else corrections):
                point, kind = truth.correction(answer.mask) or (points[0], 1)
                points, kinds = [*points, point], [*kinds, kind]
                answer = predictor.predict(points=points, labels=kinds, mask=answer.logits)
                corrected.append(truth.iou(answer.mask))
        if asked in ("box", "all"):
            answer = predictor.predict(box=truth.box)
            boxed = truth.iou(answer.mask)
            if show is not None:
                show("box", Prompt(box=truth.box, object=label), answer.mask)
        scores.append(
            ObjectScore(
                label,
                click,
                boxed,
                tuple(corrected),
                area=areas[label],
                filled_box=areas[label] / truth.mask.size,
                disk=truth.iou(disk(labels.shape, truth.middle, radius)),
            )
        )
        yield Progress(done, len(objects), "evaluating")
    return scores


class Truth:
    """A true object, kept as the part of the image that holds it.

    Parameters
    ----------
    labels, label, window
        The label image (Y, X), the object's id in it, and its bounding box.
    """

    def __init__(self, labels: NDArray[Any], label: int, window: Window) -> None:
        self.mask: Mask = labels[window] == label
        self.window = window
        self._labels, self._label = labels, label
        rows, columns = window
        self.box = (rows.start, columns.start, rows.stop, columns.stop)
        y, x = middle(self.mask)
        self.middle = (rows.start + y, columns.start + x)

    def iou(self, ours: Mask) -> float:
        """IoU with a mask (Y, X) of the whole image."""
        window = _union(self.window, ours)
        return iou(ours[window], self._labels[window] == self._label)

    def correction(self, ours: Mask) -> tuple[tuple[float, float], int] | None:
        """`correction` in the coordinates of the whole image."""
        window = _union(self.window, ours)
        found = correction(ours[window], self._labels[window] == self._label)
        if found is None:
            return None
        (y, x), kind = found
        return (window[0].start + y, window[1].start + x), kind


def found_objects(labels: NDArray[Any]) -> list[tuple[int, Window]]:
    """Each label above 0, in order, and its bounding box as slices of rows and columns."""
    ids, compact = np.unique(labels, return_inverse=True)
    windows = ndimage.find_objects(np.where(labels > 0, compact.reshape(labels.shape) + 1, 0))
    pairs = zip(ids.tolist(), windows, strict=False)
    return [(label, window) for label, window in pairs if window is not None]


def middle(mask: Mask) -> tuple[float, float]:
    """The pixel (y, x) deepest inside a mask; the median one among the deepest."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth == depth.max())
    which = len(rows) // 2
    return float(rows[which]), float(columns[which])


def correction(ours: Mask, truth: Mask) -> tuple[tuple[float, float], int] | None:
    """A click in the largest wrong region and its label; None where nothing is wrong."""
    wrong, count = ndimage.label(ours ^ truth)
    if not count:
        return None
    largest = np.bincount(wrong.ravel())[1:].argmax() + 1
    rows, columns = ndimage.find_objects(wrong)[largest - 1]
    y, x = middle(wrong[rows, columns] == largest)
    y, x = rows.start + y, columns.start + x
    return (y, x), int(truth[int(y), int(x)])


def disk(shape: tuple[int, ...], centre: tuple[float, float], radius: float) -> Mask:
    """A disk (Y, X), cut off at the image's border."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2)


def _union(window: Window, ours: Mask) -> Window:
    """The smallest part of the image that holds a window and a mask."""
    rows, columns = np.flatnonzero(ours.any(axis=1)), np.flatnonzero(ours.any(axis=0))
    if not len(rows):
        return window
    return (
        slice(min(window[0].start, int(rows[0])), max(window[0].stop, int(rows[-1]) + 1)),
        slice(min(window[1].start, int(columns[0])), max(window[1].stop, int(columns[-1]) + 1)),
    )
