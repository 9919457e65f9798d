"""Score a model on labeled objects with simulated prompts, by a user's or the paper's protocol.

The paper's (arXiv 2409.08083 and its authors' code): every region above a size, the middle one of
its pixels in row-major order as the click, logits cut at 0, IoU and Dice on 256 x 256 cells,
averaged over all masks. The model is prompted through the Predictor, so any kind of model can be
scored. By the paper's protocol the mask is the one that the Predictor chooses for a lone click
(`Result.mask`), cut at 0 at the image's resolution and then resampled to the grid; by a user's it
is the one that window and command line give (`Refiner`).

Training draws its prompts from true masks, as a user would give them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_shape
from napari_simmat.datasets.dataset import REFERENCE_SIDE, large_regions
from napari_simmat.engine.masks import Mask, iou, label_windows
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.evaluation.ground_truth import GroundTruthObject, disk
from napari_simmat.evaluation.metrics import dice
from napari_simmat.evaluation.scores import MIN_OBJECT_PIXELS, ObjectScore, click_column
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

EvaluationPrompts = Literal["click", "box", "iterative", "all"]
"""Prompts given to a model: iterative is the click and its corrections."""
OnResult = Callable[[str, Prompt, Mask, float], object]
"""Called with a column's name, the prompt, its mask (Y, X) and the IoU with the truth."""
PAPER_GRID = 256
"""Rows and columns on which masks are compared."""


class PromptProtocol(ABC):
    """Which objects of a plane are prompted, how, and how the masks are scored."""

    @abstractmethod
    def objects(self, labels: NDArray[Any]) -> list[int]:
        """The labels of a plane (Y, X) that count."""

    @abstractmethod
    def object_jobs(
        self,
        predictor: Predictor,
        labels: NDArray[Any],
        only: Collection[int] | None,
        show: OnResult | None,
    ) -> list[Job[ObjectScore]]:
        """For each object of `labels` (Y, X), a job that prompts and scores it."""

    def score_job(
        self,
        predictor: Predictor,
        labels: NDArray[Any],
        only: Collection[int] | None = None,
        show: OnResult | None = None,
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
        jobs = self.object_jobs(predictor, labels, only, show)
        scores = []
        for done, job in enumerate(jobs, start=1):
            scores.append((yield from job))
            yield Progress(done, len(jobs), "evaluating")
        return scores


@dataclass(frozen=True)
class UserProtocol(PromptProtocol):
    """Prompt as a user: a click, clicks that correct the mask, and the bounding box.

    The first click is the pixel deepest inside the object (`masks.interior_point`). Each further
    one is the deepest pixel of the largest wrong region. Masks are those that a user gets
    (`refinement`): a click refines the mask before it, a box comes without crumbs. Once nothing is
    wrong, the mask stays. `show` gets the masks of the first click, of all clicks, and of the box.

    Parameters
    ----------
    prompts
        Which prompts are given.
    clicks
        Clicks per object, including the first, if there are corrections.
    min_size
        Objects count if they have more pixels than this, in a plane of 1024 x 1024, and at least
        `MIN_OBJECT_PIXELS` pixels.
    """

    prompts: EvaluationPrompts = "all"
    clicks: int = 4
    min_size: int = 0

    def objects(self, labels: NDArray[Any]) -> list[int]:
        """As `PromptProtocol`."""
        large = set(large_regions(labels, self.min_size))
        return [
            label
            for label, window in label_windows(labels)
            if label in large and np.count_nonzero(labels[window] == label) >= MIN_OBJECT_PIXELS
        ]

    def object_jobs(
        self,
        predictor: Predictor,
        labels: NDArray[Any],
        only: Collection[int] | None,
        show: OnResult | None,
    ) -> list[Job[ObjectScore]]:
        """As `PromptProtocol`."""
        truths = [
            GroundTruthObject(labels, label, window)
            for label, window in label_windows(labels)
            if only is None or label in only
        ]
        radius = math.sqrt(float(np.median([t.area for t in truths])) / math.pi) if truths else 0.0
        return [self._score_job(predictor, truth, radius, show) for truth in truths]

    def _score_job(
        self,
        predictor: Predictor,
        truth: GroundTruthObject,
        radius: float,
        show: OnResult | None,
    ) -> Job[ObjectScore]:
        """`radius` is that of the baseline, a disk at the click."""
        ious: dict[str, float] = {}
        dices: dict[str, float] = {}
        predicted: dict[str, float] = {}
        if self.prompts != "box":
            ious, dices, predicted = yield from self._click_job(predictor, truth, show)
        if self.prompts in ("box", "all"):
            prompt = Prompt(box=truth.box, object=truth.label)
            [result] = yield from Refiner().refine_job(predictor, [prompt], ())
            ious["box"], dices["box"] = truth.agreement(result.mask)
            predicted["box"] = result.score
            if show is not None:
                show("box", prompt, result.mask, ious["box"])
        ious["filled_box"] = truth.area / truth.mask.size
        shape = (predictor.shape[-2], predictor.shape[-1])
        ious["disk"], _ = truth.agreement(disk(shape, truth.middle, radius))
        return ObjectScore(truth.label, truth.area, ious, dices, predicted)

    def _click_job(
        self, predictor: Predictor, truth: GroundTruthObject, show: OnResult | None
    ) -> Job[list[dict[str, float]]]:
        """IoU, Dice and predicted IoU after each click, each by column."""
        clicks = 1 if self.prompts == "click" else self.clicks
        refiner = Refiner()
        prompt = Prompt(points=(truth.middle,), labels=(1,), object=truth.label)
        reached: list[tuple[float, float, float]] = []
        while True:
            [result] = yield from refiner.refine_job(predictor, [prompt], ())
            reached.append((*truth.agreement(result.mask), result.score))
            further = truth.correction(result.mask) if len(reached) < clicks else None
            if show is not None and len(reached) == 1:
                show(click_column(1), prompt, result.mask, reached[0][0])
            if further is None:
                break
            point, kind = further
            prompt = replace(prompt, points=(*prompt.points, point), labels=(*prompt.labels, kind))
        reached += [reached[-1]] * (clicks - len(reached))  # nothing was wrong any more
        if show is not None and clicks > 1:
            show(click_column(clicks), prompt, result.mask, reached[-1][0])
        columns = [click_column(number) for number in range(1, clicks + 1)]
        return [dict(zip(columns, values, strict=True)) for values in zip(*reached, strict=True)]


@dataclass(frozen=True)
class PaperProtocol(PromptProtocol):
    """Click once into each region, as SimMAT's paper does; `show` gets every mask.

    Parameters
    ----------
    min_size
        Regions count if they have more pixels than this, in a plane of 1024 x 1024.
    """

    min_size: int = 0

    def objects(self, labels: NDArray[Any]) -> list[int]:
        """As `PromptProtocol`."""
        return list(center_clicks(labels, self.min_size))

    def object_jobs(
        self,
        predictor: Predictor,
        labels: NDArray[Any],
        only: Collection[int] | None,
        show: OnResult | None,
    ) -> list[Job[ObjectScore]]:
        """As `PromptProtocol`."""
        truth = resample_to_grid(labels, PAPER_GRID)

        def score_job(label: int, point: tuple[float, float]) -> Job[ObjectScore]:
            yield from ()
            mask = predictor.predict(points=[point], labels=[1]).mask
            ours = resample_to_grid(mask, PAPER_GRID)
            theirs = truth == label
            reached = iou(ours, theirs)
            if show is not None:
                show("paper", Prompt(points=(point,), labels=(1,), object=label), mask, reached)
            area = int(np.count_nonzero(labels == label))
            return ObjectScore(label, area, {"paper": reached}, {"paper": dice(ours, theirs)})

        return [
            score_job(label, point)
            for label, point in center_clicks(labels, self.min_size).items()
            if only is None or label in only
        ]


def center_clicks(labels: NDArray[Any], min_size: int = 0) -> dict[int, tuple[float, float]]:
    """The protocol's click (y, x) in image pixels for each region of (Y, X).

    The middle one of the region's pixels in row-major order at 1024 x 1024 (the upper of two),
    which need not lie in its middle. A region without a pixel there or on the coarse grid, as may
    happen in larger images, cannot be clicked or scored and is left out. For `min_size` see
    `large_regions`.
    """
    fine = resample_to_grid(labels, REFERENCE_SIDE)
    scored = set(np.unique(resample_to_grid(labels, PAPER_GRID)).tolist())
    clicks = {}
    for label in large_regions(labels, min_size):
        pixels = np.flatnonzero(fine == label)
        if len(pixels) and label in scored:
            cell = np.array(divmod(int(pixels[len(pixels) // 2]), REFERENCE_SIDE))
            y, x = (cell + 0.5) * np.array(labels.shape) / REFERENCE_SIDE - 0.5
            clicks[label] = (float(y), float(x))
    return clicks


def resample_to_grid(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """A plane (Y, X) as (side, side): the pixel in which each cell's center lies."""
    rows, columns = (
        ((np.arange(side) + 0.5) * length / side).astype(np.intp) for length in plane.shape
    )
    return np.asarray(plane[np.ix_(rows, columns)])
