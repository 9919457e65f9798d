"""The evaluation protocol of SimMAT's paper: one click in each region, scored on a coarse grid.

arXiv 2409.08083 and what its authors' code does: every region above a size, the middle one of its
pixels in row-major order as the click, logits cut at 0, IoU and Dice on 256 x 256 cells, averaged
over all masks. The model is asked through the Predictor, so every kind of model can be: the
answer is the one the Predictor chooses for a lone click (`Result.mask`), cut at 0 at the image's
resolution and then brought to the grid.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.mask_geometry import iou
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.prompts import Prompt
from napari_simmat.learn.datasets.dataset import SIDE, large_regions
from napari_simmat.learn.evaluation import Show, check_size
from napari_simmat.learn.metrics import dice
from napari_simmat.learn.object_score import Agreement, ObjectScore
from napari_simmat.progress import Job, Progress

GRID = 256
"""Masks are compared on as many rows and columns."""


def evaluating_as_paper(
    predictor: Predictor,
    labels: NDArray[Any],
    smallest: int = 0,
    *,
    only: Collection[int] | None = None,
    show: Show | None = None,
) -> Job[list[ObjectScore]]:
    """Click into every region of `labels` (Y, X) on the predictor's current plane.

    Parameters
    ----------
    predictor
        With the image.
    labels
        True regions, 0 for the background.
    smallest
        Only regions of more pixels, if the plane had 1024 x 1024.
    only
        The labels to prompt; all by default.
    show
        Called with each answer.

    Raises
    ------
    ValueError
        If the labels have another size than the image.
    """
    check_size(predictor, labels)
    clicks = centre_clicks(labels, smallest)
    clicks = {label: yx for label, yx in clicks.items() if only is None or label in only}
    truth = on_grid(labels, GRID)
    scores = []
    for done, (label, point) in enumerate(clicks.items(), start=1):
        answer = predictor.predict(points=[point], labels=[1])
        ours, theirs = on_grid(answer.mask, GRID), truth == label
        reached = Agreement(iou(ours, theirs), dice(ours, theirs))
        if show is not None:
            prompt = Prompt(points=(point,), labels=(1,), object=label)
            show("paper", prompt, answer.mask, reached)
        area = int(np.count_nonzero(labels == label))
        scores.append(ObjectScore(label, area, paper=reached))
        yield Progress(done, len(clicks), "evaluating")
    return scores


def centre_clicks(labels: NDArray[Any], smallest: int = 0) -> dict[int, tuple[float, float]]:
    """The click (y, x) in image pixels for each region of (Y, X) that the protocol asks for.

    The middle one of the region's pixels in row-major order at 1024 x 1024 (the upper of two),
    which need not lie in its middle. A region without a pixel there or on the coarse grid, as
    may happen in images larger than these, cannot be clicked or scored and is left out.

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
