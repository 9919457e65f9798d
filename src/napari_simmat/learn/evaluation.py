"""A model against true objects, prompted as a user would: a click, a box, corrections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_simmat.engine.predictor import Predictor
from napari_simmat.learn.metrics import iou
from napari_simmat.progress import Job, Progress

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ObjectScore:
    """IoU reached on one object.

    Parameters
    ----------
    label
        Its id in the label image.
    click, box
        With one click in its middle; with its bounding box.
    corrected
        After each of the following corrections of the click.
    """

    label: int
    click: float
    box: float
    corrected: tuple[float, ...]


def evaluating(
    predictor: Predictor, labels: NDArray[Any], corrections: int = 3
) -> Job[list[ObjectScore]]:
    """Prompt every object of `labels` (Y, X) on the predictor's current plane.

    The click is the pixel deepest inside the object (`middle`). A correction is a click in the
    deepest pixel of the largest wrong region, given with the logits of the answer before it, as
    the window does.

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
    scores = []
    boxes = ndimage.find_objects(labels)
    present = [label for label, box in enumerate(boxes, start=1) if box is not None]
    for done, label in enumerate(present, start=1):
        truth: Mask = labels == label
        rows, columns = boxes[label - 1]
        box = (rows.start, columns.start, rows.stop, columns.stop)
        points, kinds = [middle(truth)], [1]
        answer = predictor.predict(points=points, labels=kinds)
        click, corrected = iou(answer.mask, truth), []
        for _ in range(corrections):
            point, kind = correction(answer.mask, truth) or (points[0], 1)
            points, kinds = [*points, point], [*kinds, kind]
            answer = predictor.predict(points=points, labels=kinds, mask=answer.logits)
            corrected.append(iou(answer.mask, truth))
        boxed = iou(predictor.predict(box=box).mask, truth)
        scores.append(ObjectScore(label, click, boxed, tuple(corrected)))
        yield Progress(done, len(present), "evaluating")
    return scores


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
    y, x = middle(wrong == largest)
    return (y, x), int(truth[int(y), int(x)])
