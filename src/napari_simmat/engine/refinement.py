"""`Refiner`: predict click by click, each click refining the mask of the clicks before it.

That is how the models were trained and how a person works. The result still depends on the prompt
alone: the clicks are replayed in their order, and intermediate masks are cached. So the same clicks
give the same mask after an undo, a restart or a replay. One object affects the next one only as
far as the prompt says (`Prompt.expected_area`).

A model that gets a mask and a click that contradicts it often returns another object altogether.
But a person who corrects a mask wants it changed near the click and unchanged elsewhere, and clicks
in the middle of what is wrong. `correct_mask` therefore takes from the model's mask only the change
that has the click in its middle (the idea of FocalClick's progressive merge, Chen et al. 2022). If
there is none, it moves the outline beyond the click. It is used for clicks on a mask prompt, and
for a third or later correction where the model would switch to another object. A scribble always
corrects the mask along its line (`engine.scribbles`), and an outline drawn by hand is the object,
but for its rim; clicks after either keep what was drawn.

A loose box also holds crumbs of what is beside the object: of the mask of a box only the main
pieces are kept, and those that were clicked.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat.engine.masks import Mask, ObjectMask, interior_point, iou, main_pieces
from napari_simmat.engine.outlines import shape_mask
from napari_simmat.engine.pen_line import closes
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.scribbles import (
    as_model_sees,
    begins_with_outline,
    correct_by_scribble,
    drawn_outline,
    settle_rim,
)
from napari_simmat.progress import Job, finish

if TYPE_CHECKING:
    from napari_simmat.engine.part_predictor import PartPredictor
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.result import Result


MIN_CLICK_CENTRALITY = 0.7
"""Least depth of the click within a change, as a fraction of the change's largest depth."""
MAX_CHANGE_DEPTH = 2.0
"""Largest depth of a change, in depths of the click. A person clicks the middle of a wrong region,
so the region ends about as far behind the click as the outline lies before it."""
OUTLINE_MOVE_RADIUS = 0.6
"""Width of the Gaussian with which the move of the outline falls off around the click, in radii of
the object. At 0.6 the outline at a distance of one radius moves by a quarter, and the opposite
side, two radii away, stays where it is (0.4 %)."""
SHALLOW_CLICK_DEPTH = 0.1
"""A click up to this depth, in radii of the object, moves the whole outline."""
MAX_REMEMBERED = 128
"""Masks that are cached; each takes some hundred KiB."""
FIRST_REFINING_CORRECTION = 3
"""Number of the correction from which on the mask is refined rather than another one sought.

Of some twelve such rules, tried with tiny-2, this lost at most 0.04 on 2 of 21 real images and
improved those on which corrections lead away; on drawn scenes it costs less than a point.
"""
SAME_OBJECT_IOU = 0.7
"""A mask of a lower IoU with the one before it shows another object."""
MIN_SURER = 0.1
"""By how much another mask's predicted IoU must exceed that of a box's mask to replace it after a
click on it. Without this, a box with a click was worse than the box alone on four of ten sources of
real images (docs/reports/foundation.md)."""

Point = tuple[float, float]
Depths = NDArray[np.float64]
"""(Y, X): distance of each pixel to the outline on the clicked side of it; 0 on the other side."""
CandidateChoices = Mapping[Prompt, int]
"""Which mask of a prompt the user chose: 0 is the model's own, 1.. the other candidates, and
`ALL_PIECES` the model's own with its small pieces."""
ALL_PIECES = -1


class Refiner:
    """Predicts masks on the predictor's plane, one click after the other.

    Examples
    --------
    >>> Refiner().refine(predictor, [Prompt(points=((50, 45), (70, 60)), labels=(1, 0))])[0].mask
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, _PreviousMask] = OrderedDict()
        self._last: dict[Hashable, Result] = {}
        """Of the prompts that were predicted last: of many open objects a click changes one."""

    def refine(
        self, predictor: Predictor, prompts: Sequence[Prompt], subject: Hashable = ()
    ) -> list[Result]:
        """The result for each prompt; see `refine_job`."""
        return finish(self.refine_job(predictor, prompts, subject))

    def refine_job(
        self,
        predictor: Predictor | PartPredictor,
        prompts: Sequence[Prompt],
        subject: Hashable,
        choices: CandidateChoices | None = None,
    ) -> Job[list[Result]]:
        """Predict each prompt. The result for a mask alone is that mask.

        Parameters
        ----------
        predictor
            On the plane of the prompts.
        prompts
            One for each object; their points are clicks in the order they were made.
        subject
            Identifies model, image and plane in the cache; any value if there is only one.
        choices
            Where the user chose another of the candidates.
        """
        chosen = choices or {}
        made: dict[Hashable, Result] = {}
        results = []
        for prompt in prompts:
            key = subject, prompt, tuple(chosen.get(step, 0) for step in prompt_steps(prompt))
            result = self._last.get(key)
            if result is None:
                result = yield from self._refine_one_job(predictor, prompt, subject, chosen)
            made[key] = result
            results.append(result)
        self._last = made
        return results

    def _refine_one_job(
        self,
        predictor: Predictor | PartPredictor,
        prompt: Prompt,
        subject: Hashable,
        choices: CandidateChoices,
    ) -> Job[Result]:
        # Long, since it is the order of what may happen to a mask after a click.
        before = _PreviousMask()
        corrects = False
        if _is_mask_to_correct(prompt):
            assert prompt.mask is not None
            if not prompt.points:
                from napari_simmat.engine.result import Result  # loads torch, unlike the window

                return Result.of_mask(prompt.mask)
            before = _PreviousMask.of(prompt.mask, prompt.mask)
            corrects = True
        steps = prompt_steps(prompt)
        outlines = begins_with_outline(prompt) and not choices.get(steps[0], 0)
        corrects = corrects or outlines
        chosen: tuple[int, ...] = ()
        drops_crumbs = prompt.box is not None
        for number, step in enumerate(steps):
            choice = choices.get(step, 0)
            chosen = (*chosen, choice)
            drops_crumbs = drops_crumbs and choice != ALL_PIECES
            key = (subject, step, chosen)
            remembered = None if step == prompt else self._recall(key)
            if remembered is not None:
                before = remembered
                continue
            asked = step if before.given is None else replace(step, mask=before.given)
            [result] = yield from predictor.predict_many_job([asked])
            if choice > 0:
                result = result.alternative(choice % result.count)
            given: NDArray[Any] = result.logits
            score = result.score
            if outlines and before.object_mask is None:
                result = result.with_mask(_settled(step, result.mask))
                given = result.mask if result.mask.any() else given
            is_drawn = corrects or any(step.scribbles[len(steps[0].points) :])
            refines = is_drawn or (number >= FIRST_REFINING_CORRECTION and not choice)
            if refines and before.object_mask is not None:
                old = before.object_mask.on_plane((), result.mask.shape)
                leaves = is_drawn or iou(result.mask, old, empty=0.0) < SAME_OBJECT_IOU
                if leaves and _asks_for_change(old, step):
                    mask = yield from _corrected_job(predictor, asked, old, result.mask)
                    result = result.with_mask(mask)
                    given = mask if mask.any() else given  # an empty mask cannot be refined
            if not choice and _is_confirmed(step, before, result):
                assert before.object_mask is not None
                assert before.given is not None
                result = result.with_mask(before.object_mask.on_plane((), result.mask.shape))
                given = before.given
                score = before.score
            if drops_crumbs:
                pieces, left_out = main_pieces(result.mask, _clicked_pixels(step, result.mask))
                result = result.with_mask(pieces, left_out)
            before = _PreviousMask.of(given, result.mask, score)
            self._remember(key, before)
        return result

    def _recall(self, key: Hashable) -> _PreviousMask | None:
        """The mask of a step that was predicted before; None if it is not known any more."""
        mask = self._known.get(key)
        if mask is not None:
            self._known.move_to_end(key)
        return mask

    def _remember(self, key: Hashable, mask: _PreviousMask) -> None:
        self._known[key] = mask
        self._known.move_to_end(key)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


def _is_mask_to_correct(prompt: Prompt) -> bool:
    """Whether a prompt's clicks correct a mask of its own, rather than logits or a box's mask."""
    return prompt.mask is not None and prompt.mask.dtype == bool and prompt.box is None


def _corrected_job(
    predictor: Predictor | PartPredictor, asked: Prompt, old: Mask, predicted: Mask
) -> Job[Mask]:
    """The `old` mask after the last click of what was asked, which contradicts it."""
    line, label = asked.last_mark
    if closes(line):
        enclosed = shape_mask("polygon", line, (old.shape[0], old.shape[1]))
        return old | enclosed if label else old & ~enclosed
    # A further click on the old mask keeps the model from leaving the object.
    seen = as_model_sees(asked, (old.shape[0], old.shape[1]))
    points = (interior_point(old), *seen.points)
    inner = replace(seen, points=points, labels=(1, *seen.labels), mask=old)
    [other] = yield from predictor.predict_many_job([inner])
    if _ends_with_scribble(asked):
        return correct_by_scribble(old, [predicted, other.mask], line, label)
    return correct_mask(old, [predicted, other.mask], line[-1], label)


def candidate_masks(prompt: Prompt, result: Result) -> dict[int, Mask]:
    """The model's masks (Y, X) that look different, by their numbers in `CandidateChoices`."""
    own = result.original(0).mask
    masks = {0: _settled(prompt, own)}
    if prompt.box is not None:
        main, left_out = main_pieces(own, _clicked_pixels(prompt, own))
        if left_out:
            masks = {0: main, ALL_PIECES: own}
    return masks | {number: result.original(number).mask for number in result.distinct[1:]}


def _clicked_pixels(prompt: Prompt, mask: Mask) -> list[tuple[int, int]]:
    points = zip(prompt.points, prompt.labels, strict=True)
    return [pixel_of(point, mask.shape) for point, label in points if label]


class _PreviousMask(NamedTuple):
    """The mask that a click refines; all empty before the first click."""

    given: NDArray[Any] | None = None  # logits of the last result, or a corrected mask
    object_mask: ObjectMask | None = None  # what the click may contradict, if there is something
    score: float = 0.0  # its predicted IoU

    @classmethod
    def of(cls, given: NDArray[Any], mask: Mask, score: float = 0.0) -> _PreviousMask:
        """From a mask (Y, X)."""
        return cls(given, ObjectMask.of(mask) if mask.any() else None, score)


def _is_confirmed(step: Prompt, before: _PreviousMask, result: Result) -> bool:
    """Whether the last click of a box lies on the mask before it, and no surer one was found."""
    is_clicked_box = step.box is not None and bool(step.points)
    if not is_clicked_box or not step.labels[-1] or before.object_mask is None:
        return False
    old = before.object_mask.on_plane((), result.mask.shape)
    return not _asks_for_change(old, step) and result.score < before.score + MIN_SURER


def _settled(step: Prompt, predicted: Mask) -> Mask:
    """The model's mask (Y, X) for an outline drawn by hand, if the step begins with one."""
    outline = drawn_outline(step, (predicted.shape[0], predicted.shape[1]))
    return predicted if outline is None else settle_rim(outline, predicted)


def _asks_for_change(old: Mask, step: Prompt) -> bool:
    """Whether the last mark disagrees with a mask (Y, X); a line that closes is one of change."""
    return closes(step.last_mark.points) or contradicts(old, *step.last_mark)


def _ends_with_scribble(step: Prompt) -> bool:
    """Whether the last mark is a line rather than a click."""
    return bool(step.points) and len(step.last_mark[0]) > 1


def prompt_steps(prompt: Prompt) -> list[Prompt]:
    """The prompt as it grew click by click; a scribble is a step if something was there before it.

    It starts with the box and the mask, otherwise with the points up to the first positive one.
    """
    count = len(prompt.points)
    first = 0
    if prompt.box is None and prompt.mask is None:
        first = prompt.labels.index(1) + 1 if 1 in prompt.labels else count
    elif prompt.mask is not None and prompt.box is None:
        first = min(1, count)  # a mask alone needs no prediction
    while _is_within_scribble(prompt, first):
        first += 1
    return [
        prompt.until(number)
        for number in range(first, count + 1)
        if not _is_within_scribble(prompt, number)
    ]


def _is_within_scribble(prompt: Prompt, number: int) -> bool:
    """Whether the scribble of the point before `number` goes on."""
    around = prompt.scribbles[max(number - 1, 0) : number + 1]
    return len(around) == 2 and around[0] == around[1] != 0


def contradicts(mask: Mask, points: Sequence[Point], label: int) -> bool:
    """Whether most of a positive (1) or negative (0) mark disagrees with a mask (Y, X)."""
    inside = [bool(mask[pixel_of(point, mask.shape)]) for point in points]
    return 2 * inside.count(not label) > len(inside)


def correct_mask(mask: Mask, predicted: Sequence[Mask], point: Point, label: int) -> Mask:
    """The mask after a click that contradicts it.

    Parameters
    ----------
    mask
        (Y, X), before the click.
    predicted
        Masks that the model predicts from mask and click; at least one.
    point, label
        y, x of the click, and 1 if it is positive, 0 if negative.
    """
    at = pixel_of(point, mask.shape)
    depths = _depths(mask if not label else ~mask)
    changes = [_change(mask, each, depths, at) for each in predicted]
    centrality = [_click_centrality(change, float(depths[at]), at) for change in changes]
    best = int(np.argmax(centrality))
    changed = mask ^ changes[best]
    if centrality[best] >= MIN_CLICK_CENTRALITY:
        return changed
    moved = _move_outline(mask, depths, at, label)
    # A negative click in the middle of a small object would erase it: the model knows better.
    vanishes = 2 * np.count_nonzero(moved) < np.count_nonzero(mask)
    return changed if vanishes and centrality[best] > 0 else moved


def pixel_of(point: Point, shape: Sequence[int]) -> tuple[int, int]:
    """The pixel of a plane of a shape (Y, X) at a point, or the nearest one."""
    y, x = (
        int(np.clip(np.floor(value + 0.5), 0, size - 1))
        for value, size in zip(point, shape, strict=True)
    )
    return y, x


def _depths(side: Mask) -> Depths:
    if side.all():
        return np.full(side.shape, float(max(side.shape)))
    depths: Depths = np.asarray(ndi.distance_transform_edt(side), np.float64)
    return depths


def _change(mask: Mask, predicted: Mask, depths: Depths, at: tuple[int, int]) -> Mask:
    """The region around the click in which a predicted mask differs, up to the largest depth."""
    differs = (mask != predicted) & (depths > 0) & (depths <= MAX_CHANGE_DEPTH * depths[at] + 1)
    patches, _ = ndi.label(differs, np.ones((3, 3)))
    return np.asarray((patches == patches[at]) & differs, bool)


def _click_centrality(change: Mask, depth: float, at: tuple[int, int]) -> float:
    """How close the click is to the middle of a change that reaches to the outline, 0..1."""
    if not change[at]:
        return 0.0
    within = _depths(np.pad(change, 1))[1:-1, 1:-1]
    return float(within[at]) / max(float(within.max()), depth)


def _move_outline(mask: Mask, depths: Depths, at: tuple[int, int], label: int) -> Mask:
    """The outline moved by twice the depth of the click, less with the distance from the click.

    A click very close to the outline means that the whole mask is a little too wide or too narrow:
    then the outline moves by the depth of the click all around.
    """
    radius = math.sqrt(max(int(np.count_nonzero(mask)), 1) / math.pi)
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    away = ((y - at[0]) ** 2 + (x - at[1]) ** 2) / (OUTLINE_MOVE_RADIUS * radius) ** 2
    around = np.clip(2 - depths[at] / (SHALLOW_CLICK_DEPTH * radius), 0, 1)
    move = depths[at] * np.maximum(MAX_CHANGE_DEPTH * np.exp(-away / 2), around)
    changes = (depths > 0) & (depths <= move)
    return np.asarray(mask | changes if label else mask & ~changes, bool)
