"""The evaluation protocol of SimMAT's paper: one click in each region, scored on a coarse grid.

From arXiv 2409.08083 and its authors' code: every region above a size, the middle one of its
pixels in row-major order as the click, logits cut at 0, IoU and Dice on 256 x 256 cells, averaged
over all masks. The model is prompted through the Predictor, so any kind of model can be scored:
the mask is the one that the Predictor chooses for a lone click (`Result.mask`), cut at 0 at the
image's resolution and then resampled to the grid.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.mask_geometry import iou
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.learn.datasets.dataset import SIDE, large_regions
from napari_simmat.learn.evaluation import PromptProtocol, Show
from napari_simmat.learn.metrics import dice
from napari_simmat.learn.object_score import Agreement, ObjectScore
from napari_simmat.progress import Job

GRID = 256
"""Rows and columns on which masks are compared."""


@dataclass(frozen=True)
class PaperProtocol(PromptProtocol):
    """Click once into each region, as SimMAT's paper does; `show` gets every mask.

    Parameters
    ----------
    smallest
        Regions count if they have more pixels than this, in a plane of 1024 x 1024.
    """

    smallest: int = 0

    def objects(self, labels: NDArray[Any]) -> list[int]:
        """As `PromptProtocol`."""
        return list(centre_clicks(labels, self.smallest))

    def targets(
        self, labels: NDArray[Any], only: Collection[int] | None
    ) -> list[tuple[int, tuple[float, float], int, NDArray[np.bool_]]]:
        """Label, click (y, x), area in pixels and mask on the grid."""
        truth = on_grid(labels, GRID)
        return [
            (label, point, int(np.count_nonzero(labels == label)), truth == label)
            for label, point in centre_clicks(labels, self.smallest).items()
            if only is None or label in only
        ]

    def score_target_job(
        self, predictor: Predictor, target: Any, show: Show | None
    ) -> Job[ObjectScore]:
        """As `PromptProtocol`."""
        yield from ()
        label, point, area, truth = target
        answer = predictor.predict(points=[point], labels=[1])
        ours = on_grid(answer.mask, GRID)
        reached = Agreement(iou(ours, truth), dice(ours, truth))
        if show is not None:
            prompt = Prompt(points=(point,), labels=(1,), object=label)
            show("paper", prompt, answer.mask, reached)
        return ObjectScore(label, area, paper=reached)


def centre_clicks(labels: NDArray[Any], smallest: int = 0) -> dict[int, tuple[float, float]]:
    """The protocol's click (y, x) in image pixels for each region of (Y, X).

    The middle one of the region's pixels in row-major order at 1024 x 1024 (the upper of two),
    which need not lie in its middle. A region without a pixel there or on the coarse grid, as
    may happen in larger images, cannot be clicked or scored and is left out.

    Parameters
    ----------
    labels
        Ids, 0 for the background.
    smallest
        As `datasets.dataset.large_regions`.
    """
    fine, scored = on_grid(labels, SIDE), set(np.unique(on_grid(labels, GRID)).tolist())
    clicks = {}
    for label in large_regions(labels, smallest):
        pixels = np.flatnonzero(fine == label)
        if len(pixels) and label in scored:
            cell = np.array(divmod(int(pixels[len(pixels) // 2]), SIDE))
            y, x = (cell + 0.5) * np.array(labels.shape) / SIDE - 0.5
            clicks[label] = (float(y), float(x))
    return clicks


def on_grid(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """A plane (Y, X) as (side, side): the pixel in which each cell's centre lies."""
    rows, columns = (
        ((np.arange(side) + 0.5) * length / side).astype(np.intp) for length in plane.shape
    )
    return np.asarray(plane[np.ix_(rows, columns)])
