"""A model against true objects, prompted as a user would: a click, corrections, a box."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refining import Refiner
from napari_simmat.learn.object_score import Agreement, ObjectScore, click_column
from napari_simmat.learn.truth import Mask, Truth, disk, found_objects
from napari_simmat.progress import Job, Progress
from napari_simmat.words import format_shape

Asked = Literal["click", "box", "iterative", "all"]
"""Which prompts a model is asked: iterative is the click and its corrections."""
Show = Callable[[str, Prompt, Mask, Agreement], object]
"""Gets a column's name, the prompt, its answer (Y, X) and how well that agrees."""


def evaluating(
    predictor: Predictor,
    labels: NDArray[Any],
    clicks: int = 4,
    *,
    asked: Asked = "all",
    only: Collection[int] | None = None,
    show: Show | None = None,
) -> Job[list[ObjectScore]]:
    """Prompt every object of `labels` (Y, X) on the predictor's current plane.

    The first click is the pixel deepest inside the object (`mask_geometry.deepest`). Each further
    one is the deepest pixel of the largest wrong region, and refines the answer before it as in the
    window (`engine.refining`). Where nothing is wrong any more, the answer stays.

    Parameters
    ----------
    predictor
        With the image.
    labels
        True objects, 0 for the background.
    clicks
        How many clicks an object gets, the first one included, where corrections are asked.
    asked
        Which prompts are given.
    only
        The labels to prompt; all by default.
    show
        Called with the answers to the first click, to all clicks, and to the box.

    Raises
    ------
    ValueError
        If the labels have another size than the image.
    """
    check_size(predictor, labels)
    objects = [
        (label, Truth(labels, label, window))
        for label, window in found_objects(labels)
        if only is None or label in only
    ]
    areas = [truth.area for _, truth in objects]
    radius = math.sqrt(float(np.median(areas)) / math.pi) if areas else 0.0
    scores = []
    for done, (label, truth) in enumerate(objects, start=1):
        clicked: tuple[Agreement, ...] = ()
        boxed = None
        if asked != "box":
            number = 1 if asked == "click" else clicks
            clicked = yield from _clicking(predictor, truth, label, number, show)
        if asked in ("box", "all"):
            answer = predictor.predict(box=truth.box)
            boxed = truth.agreement(answer.mask)
            if show is not None:
                show("box", Prompt(box=truth.box, object=label), answer.mask, boxed)
        scores.append(
            ObjectScore(
                label,
                truth.area,
                clicked,
                boxed,
                filled_box=truth.area / truth.mask.size,
                disk=truth.iou(disk(labels.shape, truth.middle, radius)),
            )
        )
        yield Progress(done, len(objects), "evaluating")
    return scores


def check_size(predictor: Predictor, labels: NDArray[Any]) -> None:
    """Raise ValueError unless labels (Y, X) are of the size of the predictor's planes."""
    if labels.shape != predictor.shape[-2:]:
        raise ValueError(
            f"The labels have {format_shape(labels.shape)} pixels, the image's planes "
            f"{format_shape(predictor.shape[-2:])}; give labels of the same plane."
        )


def _clicking(
    predictor: Predictor, truth: Truth, label: int, clicks: int, show: Show | None
) -> Job[tuple[Agreement, ...]]:
    """How well the answer agrees after each of so many clicks."""
    refiner = Refiner()
    asked = Prompt(points=(truth.middle,), labels=(1,), object=label)
    reached: list[Agreement] = []
    while True:
        [answer] = yield from refiner.refining(predictor, [asked], ())
        reached.append(truth.agreement(answer.mask))
        further = truth.correction(answer.mask) if len(reached) < clicks else None
        if show is not None and len(reached) == 1:
            show(click_column(1), asked, answer.mask, reached[0])
        if further is None:
            break
        point, kind = further
        asked = replace(asked, points=(*asked.points, point), labels=(*asked.labels, kind))
    reached += [reached[-1]] * (clicks - len(reached))  # nothing was wrong any more
    if show is not None and clicks > 1:
        show(click_column(clicks), asked, answer.mask, reached[-1])
    return tuple(reached)
