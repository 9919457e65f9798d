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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from napari_simmat._text import format_shape
from napari_simmat.datasets.dataset import REFERENCE_SIDE, large_regions
from napari_simmat.engine.masks import Mask, Window, interior_point, iou, label_windows
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner
from napari_simmat.evaluation.metrics import dice
from napari_simmat.evaluation.scores import MIN_OBJECT_PIXELS, ObjectScore, click_column
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

PROMPT_KIND_WEIGHTS = {
    "click": 0.36,
    "box": 0.22,
    "points": 0.09,
    "click+box": 0.13,
    "points+box": 0.06,
    "mask": 0.05,
    "box+mask": 0.05,
    "scribble": 0.04,
}
"""Kinds of first prompts and how often each is trained."""
SCRIBBLE_POINTS = 5
"""Points of a scribble."""
BoolMasks = NDArray[np.bool_]


class PromptBatch(NamedTuple):
    """Points (N, K, 2) as x, y, labels (N, K) as in `TinyNetwork.decode_batch`, mask logits."""

    points: Tensor
    labels: Tensor
    mask: Tensor | None = None


def draw_prompts(kind: str, masks: BoolMasks, rng: np.random.Generator) -> PromptBatch:
    """One prompt of a kind for each mask (N, H, W).

    A click falls into the object, every second time into its middle, or always anywhere; a box is
    loose or tight by a few percent of its side, and holds most of the object; a mask prompt is the
    object moved and grown or shrunk. A drawn outline reaches the model as box and mask, a scribble
    as points along it.
    """
    points, labels = [], []
    for mask in masks:
        own: list[NDArray[np.floating]] = []
        kinds: list[int] = []
        if kind in ("click", "points", "click+box", "points+box"):
            if rng.random() < 0.5:
                own.append(np.array(interior_point(mask, ties="median")[::-1]))
            else:
                own.append(_random_pixel(mask, rng))
            kinds.append(1)
        if kind == "anywhere":
            own.append(_random_pixel(mask, rng))
            kinds.append(1)
        if kind == "scribble":
            # Points of the object in the order of a stroke drawn across it.
            stroke = np.array([_random_pixel(mask, rng) for _ in range(SCRIBBLE_POINTS)])
            angle = rng.uniform(0, np.pi)
            own += list(stroke[np.argsort(stroke @ np.array([np.cos(angle), np.sin(angle)]))])
            kinds += [1] * SCRIBBLE_POINTS
        if "points" in kind:
            own += [_random_pixel(mask, rng), _pixel_near_outside(mask, rng)]
            kinds += [1, 0]
        if "box" in kind:
            own += list(_loosen_box(bounding_box(mask), rng))
            kinds += [2, 3]
        else:
            own.append(np.zeros(2))
            kinds.append(-1)
        points.append(own)
        labels.append(kinds)
    coarse = _coarse_mask_logits(masks, rng) if "mask" in kind else None
    return PromptBatch(
        torch.tensor(np.array(points), dtype=torch.float32), torch.tensor(labels), coarse
    )


def add_correction(
    batch: PromptBatch,
    logits: Tensor,
    target: Tensor,
    stride: int,
    known: Tensor | None = None,
) -> PromptBatch:
    """Add a click in the largest error, and hand on the logits, as the window does.

    Parameters
    ----------
    logits, target
        (N, 1, h, w): the masks so far and the truth in 0..1.
    stride
        Pixels per cell of their grid.
    known
        (N, 1, h, w), 0 in cells where nothing is an error; by default there are none.
    """
    truth = target[:, 0] > 0.5
    wrong = (logits[:, 0] > 0) ^ truth
    if known is not None:
        wrong &= known[:, 0] > 0
    depth = wrong.float()[:, None]
    for window in (3, 5, 9):  # a cell deep inside a large wrong region scores highest
        depth = functional.avg_pool2d(depth, window, 1, window // 2) * wrong[:, None]
    empty = ~wrong.flatten(1).any(1)
    score = torch.where(empty[:, None], truth.flatten(1).float(), depth.flatten(1))
    best = score.argmax(1)
    width = wrong.shape[-1]
    xy = torch.stack([best % width, best // width], dim=1).float() * stride + (stride - 1) / 2
    label = truth.flatten(1).gather(1, best[:, None]).long()
    return PromptBatch(
        torch.cat([xy[:, None], batch.points], dim=1),
        torch.cat([label, batch.labels], dim=1),
        logits.detach(),
    )


def bounding_box(mask: BoolMasks) -> NDArray[np.float64]:
    """Corners ((x0, y0), (x1, y1)) of an object, half-open."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], dtype=float)


def _random_pixel(mask: BoolMasks, rng: np.random.Generator) -> NDArray[np.float64]:
    inside = np.flatnonzero(mask)
    pixel = inside[rng.integers(len(inside))]
    return np.array([pixel % mask.shape[1], pixel // mask.shape[1]], dtype=float)


def _pixel_near_outside(mask: BoolMasks, rng: np.random.Generator) -> NDArray[np.float64]:
    low, high = bounding_box(mask)
    reach = (high - low) * 0.4 + 4
    x0, y0 = np.maximum(low - reach, 0).astype(int)
    x1, y1 = np.minimum(high + reach, mask.shape[::-1]).astype(int)
    outside = ~mask[y0:y1, x0:x1]
    if not outside.any():
        x0 = y0 = 0
        outside = ~mask
    if not outside.any():  # an object that fills the image: its corner must do
        return np.zeros(2)
    return np.asarray(_random_pixel(outside, rng) + np.array([x0, y0]))


def _loosen_box(box: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    if rng.random() < 0.3:
        return box - 0.5  # edges of pixels in pixel-center coordinates
    sides = box[1] - box[0]
    side = sides.mean()
    low, high = rng.normal(0, 0.05 * side + 0.5, (2, 2)).clip(-0.2 * side, 0.2 * side)
    # Into a thin object no further than into its own width, else the corners would change places.
    shift = np.stack([low.clip(max=0.2 * sides), high.clip(min=-0.2 * sides)])
    return np.asarray(box - 0.5 + shift)


def _coarse_mask_logits(masks: BoolMasks, rng: np.random.Generator) -> Tensor:
    """Mask prompts as logits at stride 2: moved by up to a tenth, grown or shrunk, blocky."""
    coarse = []
    for mask in masks:
        low, high = bounding_box(mask)
        reach = max(1, int((high - low).mean() * 0.1))
        moved = np.roll(mask, rng.integers(-reach, reach + 1, 2), axis=(0, 1))
        blurred = torch.tensor(moved, dtype=torch.float32)[None]
        window = 2 * int(rng.integers(0, reach + 1)) + 1
        blurred = functional.avg_pool2d(blurred, window, 1, window // 2)
        coarse.append(blurred > rng.uniform(0.2, 0.8))
    grid = functional.avg_pool2d(torch.stack(coarse).float(), 2)
    return (grid - 0.5) * 12


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
            ours, theirs = resample_to_grid(mask, PAPER_GRID), truth == label
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
