"""Score a model on labelled objects with simulated prompts, as a user would give them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refining import Refiner
from napari_simmat.learn.datasets.dataset import large_regions
from napari_simmat.learn.object_score import Agreement, ObjectScore, click_column
from napari_simmat.learn.score_config import SMALLEST
from napari_simmat.learn.truth import Mask, Truth, disk, found_objects
from napari_simmat.progress import Job, Progress
from napari_simmat.words import format_shape

Asked = Literal["click", "box", "iterative", "all"]
"""Prompts given to a model: iterative is the click and its corrections."""
Show = Callable[[str, Prompt, Mask, Agreement], object]
"""Called with a column's name, the prompt, its mask (Y, X) and the agreement with the truth."""


class PromptProtocol(ABC):
    """Which objects of a plane are prompted, how, and how the masks are scored."""

    @abstractmethod
    def objects(self, labels: NDArray[Any]) -> list[int]:
        """The labels of a plane (Y, X) that count."""

    @abstractmethod
    def targets(self, labels: NDArray[Any], only: Collection[int] | None) -> list[Any]:
        """What `score_target_job` needs to know of each object of `labels` (Y, X)."""

    @abstractmethod
    def score_target_job(
        self, predictor: Predictor, target: Any, show: Show | None
    ) -> Job[ObjectScore]:
        """Prompt and score one object."""

    def score_job(
        self,
        predictor: Predictor,
        labels: NDArray[Any],
        only: Collection[int] | None = None,
        show: Show | None = None,
    ) -> Job[list[ObjectScore]]:
        """Prompt the objects of `labels` (Y, X) on the predictor's current plane.

        Parameters
        ----------
        predictor
            Holds the image.
        labels
            True objects, 0 for the background.
        only
            Labels to prompt; all by default.
        show
            Observes the masks.

        Raises
        ------
        ValueError
            If the labels have another size than the image.
        """
        if labels.shape != predictor.shape[-2:]:
            raise ValueError(
                f"The labels have {format_shape(labels.shape)} pixels, the image's planes "
                f"{format_shape(predictor.shape[-2:])}; give labels of the same plane."
            )
        targets = self.targets(labels, only)
        scores = []
        for done, target in enumerate(targets, start=1):
            scores.append((yield from self.score_target_job(predictor, target, show)))
            yield Progress(done, len(targets), "evaluating")
        return scores


@dataclass(frozen=True)
class UserProtocol(PromptProtocol):
    """Prompt as a user: a click, clicks that correct the mask, and the bounding box.

    The first click is the pixel deepest inside the object (`mask_geometry.deepest`). Each further
    one is the deepest pixel of the largest wrong region, and refines the previous mask as in the
    window (`engine.refining`). Once nothing is wrong, the mask stays. `show` gets the masks of the
    first click, of all clicks, and of the box.

    Parameters
    ----------
    asked
        Which prompts are given.
    clicks
        Clicks per object, including the first, where corrections are asked.
    smallest
        Objects count if they have more pixels than this, in a plane of 1024 x 1024, and at least
        `SMALLEST` pixels.
    """

    asked: Asked = "all"
    clicks: int = 4
    smallest: int = 0

    def objects(self, labels: NDArray[Any]) -> list[int]:
        """As `PromptProtocol`."""
        large = set(large_regions(labels, self.smallest))
        return [
            label
            for label, window in found_objects(labels)
            if label in large and np.count_nonzero(labels[window] == label) >= SMALLEST
        ]

    def targets(
        self, labels: NDArray[Any], only: Collection[int] | None
    ) -> list[tuple[int, Truth, Mask]]:
        """Label, object, and the baseline: a disk of the median object's size at the click."""
        objects = [
            (label, Truth(labels, label, window))
            for label, window in found_objects(labels)
            if only is None or label in only
        ]
        areas = [truth.area for _, truth in objects]
        radius = math.sqrt(float(np.median(areas)) / math.pi) if areas else 0.0
        return [(n, truth, disk(labels.shape, truth.middle, radius)) for n, truth in objects]

    def score_target_job(
        self, predictor: Predictor, target: tuple[int, Truth, Mask], show: Show | None
    ) -> Job[ObjectScore]:
        """As `PromptProtocol`."""
        label, truth, baseline = target
        clicked: tuple[Agreement, ...] = ()
        boxed = None
        if self.asked != "box":
            clicked = yield from self._click_job(predictor, truth, label, show)
        if self.asked in ("box", "all"):
            answer = predictor.predict(box=truth.box)
            boxed = truth.agreement(answer.mask)
            if show is not None:
                show("box", Prompt(box=truth.box, object=label), answer.mask, boxed)
        filled = truth.area / truth.mask.size
        overlap = truth.iou(baseline)
        return ObjectScore(label, truth.area, clicked, boxed, filled_box=filled, disk=overlap)

    def _click_job(
        self, predictor: Predictor, truth: Truth, label: int, show: Show | None
    ) -> Job[tuple[Agreement, ...]]:
        """The agreement after each click."""
        clicks = 1 if self.asked == "click" else self.clicks
        refiner = Refiner()
        prompt = Prompt(points=(truth.middle,), labels=(1,), object=label)
        reached: list[Agreement] = []
        while True:
            [answer] = yield from refiner.refining(predictor, [prompt], ())
            reached.append(truth.agreement(answer.mask))
            further = truth.correction(answer.mask) if len(reached) < clicks else None
            if show is not None and len(reached) == 1:
                show(click_column(1), prompt, answer.mask, reached[0])
            if further is None:
                break
            point, kind = further
            prompt = replace(prompt, points=(*prompt.points, point), labels=(*prompt.labels, kind))
        reached += [reached[-1]] * (clicks - len(reached))  # nothing was wrong any more
        if show is not None and clicks > 1:
            show(click_column(clicks), prompt, answer.mask, reached[-1])
        return tuple(reached)
