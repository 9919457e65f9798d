"""Refine masks at full resolution and correct them with clicks.

A click on a mask that is there already: what changes, and what stays.

A model that is given a mask and a click that contradicts it often answers with another object
altogether. But whoever corrects a mask wants it otherwise near the click and as it is elsewhere,
and clicks in the middle of what is wrong. So of the model's answer no more is taken than
the change that has the click in its middle (the idea of FocalClick's progressive merge, Chen et
al. 2022); where there is none, the outline is moved beyond the click.

Click by click: each click of a prompt refines the answer to the clicks before it.

That is how the models were trained and how a person works. The answer still follows from the
prompt alone: the clicks are gone through in their order, and what was answered on the way is
remembered. So the same clicks give the same mask after an undo, a restart or a replay, and nothing
of one object reaches the next.

A click that contradicts a mask with which the prompt begins corrects it near the click
(`engine.correcting`). So does a third or later correction to which the model would answer with
another object altogether: by then a person refines, and keeps what is right already.
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

from napari_simmat.engine.masks import Mask, ObjectMask, interior_point, iou
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.result import Result
from napari_simmat.progress import Job, finish

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor


MIN_CLICK_CENTRALITY = 0.7
"""How deep in a change the click lies at least, as a part of the largest depth there is."""
MAX_CHANGE_DEPTH = 2.0
"""How deep a change may be, in depths of the click: what is wrong ends as far behind the click."""
OUTLINE_MOVE_RADIUS = 0.6
"""How far from the click the outline is moved, as a part of the object's radius."""

SHALLOW_CLICK_DEPTH = 0.1
"""Depth of a click, as a part of the object's radius, up to which it speaks of all the outline."""

Point = tuple[float, float]
Depths = NDArray[np.float64]
"""(Y, X): distance of each pixel to the outline on the clicked side of it; 0 on the other."""


def contradicts(mask: Mask, point: Point, label: int) -> bool:
    """Whether a click inside (1) or outside (0) is not what a mask (Y, X) says there."""
    return bool(mask[pixel_of(point, mask)]) != bool(label)


def correct_mask(mask: Mask, answers: Sequence[Mask], point: Point, label: int) -> Mask:
    """The mask after a click that contradicts it.

    Parameters
    ----------
    mask
        (Y, X), before the click.
    answers
        What the model makes of mask and click, asked in at least one way.
    point
        y, x of the click.
    label
        1 if the object is there, 0 if not.
    """
    at = pixel_of(point, mask)
    depths = _depths(mask if not label else ~mask)
    changes = [_change(mask, answer, depths, at) for answer in answers]
    fits = [_click_centrality(change, float(depths[at]), at) for change in changes]
    best = int(np.argmax(fits))
    answered = mask ^ changes[best]
    if fits[best] >= MIN_CLICK_CENTRALITY:
        return answered
    moved = _move_outline(mask, depths, at, label)
    vanishes = 2 * np.count_nonzero(moved) < np.count_nonzero(mask)
    return answered if vanishes and fits[best] > 0 else moved


def pixel_of(point: Point, mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel of a mask (Y, X) on which a point lies, or the nearest to it."""
    y, x = (
        int(np.clip(np.floor(value + 0.5), 0, size - 1))
        for value, size in zip(point, mask.shape, strict=True)
    )
    return y, x


def _depths(side: Mask) -> Depths:
    if side.all():
        return np.full(side.shape, float(max(side.shape)))
    depths: Depths = np.asarray(ndi.distance_transform_edt(side), np.float64)
    return depths


def _change(mask: Mask, answer: Mask, depths: Depths, at: tuple[int, int]) -> Mask:
    """The patch around the click in which an answer differs, as deep as a click may mean."""
    differs = (mask != answer) & (depths > 0) & (depths <= MAX_CHANGE_DEPTH * depths[at] + 1)
    patches, _ = ndi.label(differs, np.ones((3, 3)))
    return np.asarray((patches == patches[at]) & differs, bool)


def _click_centrality(change: Mask, depth: float, at: tuple[int, int]) -> float:
    """How well the click lies in the middle of a change that reaches to the outline, 0..1."""
    if not change[at]:
        return 0.0
    within = _depths(np.pad(change, 1))[1:-1, 1:-1]
    return float(within[at]) / max(float(within.max()), depth)


def _move_outline(mask: Mask, depths: Depths, at: tuple[int, int], label: int) -> Mask:
    """The outline moved twice as far as the click lies from it, less and less away from there.

    A click very near to the outline tells that all of it is too wide or too narrow: the
    outline passes through the click all around.
    """
    radius = math.sqrt(max(int(np.count_nonzero(mask)), 1) / math.pi)
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    away = ((y - at[0]) ** 2 + (x - at[1]) ** 2) / (OUTLINE_MOVE_RADIUS * radius) ** 2
    around = np.clip(2 - depths[at] / (SHALLOW_CLICK_DEPTH * radius), 0, 1)
    move = depths[at] * np.maximum(MAX_CHANGE_DEPTH * np.exp(-away / 2), around)
    changes = (depths > 0) & (depths <= move)
    return np.asarray(mask | changes if label else mask & ~changes, bool)


MAX_REMEMBERED = 128
"""Answers that are remembered; each takes some hundred KiB."""

FIRST_REFINING_CORRECTION = 3
"""Number of the correction from which on the answer is refined, and not another one sought.

Of some twelve such rules, tried with tiny-2, this lost at most 0.04 on 2 of 21 real images and
mended those on which corrections lead away; on drawn scenes it costs less than a point.
"""
SAME_OBJECT_IOU = 0.7
"""IoU with the answer before it, below which an answer is another object."""

CandidateChoices = Mapping[Prompt, int]
"""For a prompt, which of its answers is taken: 0 the model's own, 1 .. the other candidates."""


class Refiner:
    """Answers prompts on the predictor's plane, one click after the other.

    Examples
    --------
    >>> Refiner().refine(predictor, [Prompt(points=((50, 45), (70, 60)), labels=(1, 0))])[0].mask
    """

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._known: OrderedDict[Hashable, _PreviousMask] = OrderedDict()

    def refine(
        self, predictor: Predictor, prompts: Sequence[Prompt], subject: Hashable = ()
    ) -> list[Result]:
        """`refine_job` at once."""
        return finish(self.refine_job(predictor, prompts, subject))

    def refine_job(
        self,
        predictor: Predictor,
        prompts: Sequence[Prompt],
        subject: Hashable,
        choices: CandidateChoices | None = None,
    ) -> Job[list[Result]]:
        """Answer each prompt; a mask alone is its own answer until something is added to it.

        Parameters
        ----------
        predictor
            On the plane of the prompts.
        prompts
            One for each object; their points are clicks in the order they were made.
        subject
            Equal for the same model, image and plane; one for all where there is but one.
        choices
            Where the user chose another of the candidates.
        """
        answers = []
        for prompt in prompts:
            answers.append(
                (yield from self._refine_one_job(predictor, prompt, subject, choices or {}))
            )
        return answers

    def _refine_one_job(
        self, predictor: Predictor, prompt: Prompt, subject: Hashable, choices: CandidateChoices
    ) -> Job[Result]:
        corrects = prompt.mask is not None and prompt.mask.dtype == bool and prompt.box is None
        if corrects and not prompt.points:
            assert prompt.mask is not None
            return Result.of_mask(prompt.mask)
        before = _PreviousMask()
        if corrects:
            assert prompt.mask is not None
            before = _PreviousMask.of(prompt.mask, prompt.mask)
        taken: tuple[int, ...] = ()
        for number, step in enumerate(prompt_steps(prompt)):
            choice = choices.get(step, 0)
            taken = (*taken, choice)
            last = step == prompt
            known = None if last else self._known.get((subject, step, taken))
            if known is not None:
                self._known.move_to_end((subject, step, taken))
                before = known
                continue
            asked = step if before.given is None else replace(step, mask=before.given)
            [result] = yield from predictor.predict_many_job([asked])
            if choice:
                result = result.alternative(choice % result.count)
            mask: Mask = result.mask
            given: NDArray[Any] = result.logits
            refines = corrects or (number >= FIRST_REFINING_CORRECTION and not choice)
            if refines and before.footprint is not None:
                old = before.footprint.on_plane((), mask.shape)
                local = corrects or iou(mask, old, empty=0.0) < SAME_OBJECT_IOU
                if local and contradicts(old, *_click(step)):
                    mask = yield from _correct_job(predictor, asked, old, mask)
                    result = result.with_mask(mask)
                    given = mask if mask.any() else given  # nothing is no mask to be refined
            before = _PreviousMask.of(given, mask)
            self._store((subject, step, taken), before)
        return result

    def _store(self, key: Hashable, before: _PreviousMask) -> None:
        self._known[key] = before
        self._known.move_to_end(key)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)


class _PreviousMask(NamedTuple):
    """What a click refines.

    Parameters
    ----------
    given
        Logits of the answer before, or a mask that was corrected; None for nothing.
    footprint
        The mask that the click may contradict; None where there is none, or it is empty.
    """

    given: NDArray[Any] | None = None
    footprint: ObjectMask | None = None

    @classmethod
    def of(cls, given: NDArray[Any], mask: Mask) -> _PreviousMask:
        """What goes on from a mask (Y, X)."""
        return cls(given, ObjectMask.of(mask) if mask.any() else None)


def _correct_job(predictor: Predictor, asked: Prompt, mask: Mask, answer: Mask) -> Job[Mask]:
    """The mask as its last click says, from that answer and one with a click on the mask."""
    inner = replace(
        asked, points=(interior_point(mask), *asked.points), labels=(1, *asked.labels), mask=mask
    )
    [other] = yield from predictor.predict_many_job([inner])
    return correct_mask(mask, [answer, other.mask], *_click(asked))


def _click(step: Prompt) -> tuple[tuple[float, float], int]:
    """Position and label of the last click."""
    return step.points[-1], step.labels[-1]


def prompt_steps(prompt: Prompt) -> list[Prompt]:
    """The prompt as it grew: box and mask first, or the clicks up to the first on the object."""
    count = len(prompt.points)
    first = 0
    if prompt.box is None and prompt.mask is None:
        first = prompt.labels.index(1) + 1 if 1 in prompt.labels else count
    elif prompt.mask is not None and prompt.box is None:
        first = min(1, count)  # a mask alone is its own answer
    return [
        replace(prompt, points=prompt.points[:number], labels=prompt.labels[:number])
        for number in range(first, count + 1)
    ]
