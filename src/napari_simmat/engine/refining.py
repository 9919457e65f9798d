"""Click by click: each click of a prompt refines the answer to the clicks before it.

That is how the models were trained and how a person works. The answer still follows from the
prompt alone: the clicks are gone through in their order, and what was answered on the way is
remembered. So the same clicks give the same mask after an undo, a restart or a replay, and nothing
of one object reaches the next.

A click that contradicts a mask with which the prompt begins corrects it near the click
(`engine.correcting`). So does a third or later correction to which the model would answer with
another object altogether: by then a person refines, and keeps what is right already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.correcting import contradicts, corrected
from napari_simmat.engine.footprints import Footprint
from napari_simmat.engine.mask_geometry import Mask, deepest, iou
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Job, finish

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

LIMIT = 128
"""Answers that are remembered; each takes some hundred KiB."""

SETTLED = 3
"""Number of the correction from which on the answer is refined, and not another one sought.

Of some twelve such rules, tried with tiny-2, this lost at most 0.04 on 2 of 21 real images and
mended those on which corrections lead away; on drawn scenes it costs less than a point.
"""
ANOTHER = 0.7
"""IoU with the answer before it, below which an answer is another object."""

Choices = Mapping[Prompt, int]
"""For a prompt, which of its answers is taken: 0 the model's own, 1 .. the other candidates."""


@dataclass(frozen=True, eq=False)
class Refined:
    """The answer to one prompt.

    Parameters
    ----------
    mask
        (Y, X) bool.
    score
        The model's own estimate of its IoU; NaN where no model was asked.
    choice, count
        Which of so many different answers this is.
    """

    mask: NDArray[np.bool_]
    score: float
    choice: int = 0
    count: int = 1


class Refiner:
    """Answers prompts on the predictor's plane, one click after the other.

    Examples
    --------
    >>> Refiner().refine(predictor, [Prompt(points=((50, 45), (70, 60)), labels=(1, 0))])[0].mask
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._known: OrderedDict[Hashable, _Before] = OrderedDict()

    def refine(
        self, predictor: Predictor, prompts: Sequence[Prompt], subject: Hashable = ()
    ) -> list[Refined]:
        """`refining` at once."""
        return finish(self.refining(predictor, prompts, subject))

    def refining(
        self,
        predictor: Predictor,
        prompts: Sequence[Prompt],
        subject: Hashable,
        choices: Choices | None = None,
    ) -> Job[list[Refined]]:
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
            answers.append((yield from self._answering(predictor, prompt, subject, choices or {})))
        return answers

    def _answering(
        self, predictor: Predictor, prompt: Prompt, subject: Hashable, choices: Choices
    ) -> Job[Refined]:
        corrects = prompt.mask is not None and prompt.mask.dtype == bool and prompt.box is None
        if corrects and not prompt.points:
            assert prompt.mask is not None
            return Refined(prompt.mask, float("nan"))
        before = _Before()
        if corrects:
            assert prompt.mask is not None
            before = _Before.of(prompt.mask, prompt.mask)
        taken: tuple[int, ...] = ()
        for number, step in enumerate(steps_of(prompt)):
            choice = choices.get(step, 0)
            taken = (*taken, choice)
            last = step == prompt
            known = None if last else self._known.get((subject, step, taken))
            if known is not None:
                self._known.move_to_end((subject, step, taken))
                before = known
                continue
            asked = step if before.given is None else replace(step, mask=before.given)
            [result] = yield from predictor.predicting([asked])
            if choice or last:
                count = result.count
                choice %= count
                result = result.alternative(choice)
            mask: Mask = result.mask
            given: NDArray[Any] = result.logits
            refines = corrects or (number >= SETTLED and not choice)
            if refines and before.footprint is not None:
                old = before.footprint.on_plane((), mask.shape)
                local = corrects or iou(mask, old, empty=0.0) < ANOTHER
                if local and contradicts(old, *_click(step)):
                    mask = yield from _correcting(predictor, asked, old, mask)
                    given = mask if mask.any() else given  # nothing is no mask to be refined
            before = _Before.of(given, mask)
            self._remember((subject, step, taken), before)
        return Refined(mask, result.score, choice, count)

    def _remember(self, key: Hashable, before: _Before) -> None:
        self._known[key] = before
        self._known.move_to_end(key)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)


class _Before(NamedTuple):
    """What a click refines.

    Parameters
    ----------
    given
        Logits of the answer before, or a mask that was corrected; None for nothing.
    footprint
        The mask that the click may contradict; None where there is none, or it is empty.
    """

    given: NDArray[Any] | None = None
    footprint: Footprint | None = None

    @classmethod
    def of(cls, given: NDArray[Any], mask: Mask) -> _Before:
        """What goes on from a mask (Y, X)."""
        return cls(given, Footprint.of(mask) if mask.any() else None)


def _correcting(predictor: Predictor, asked: Prompt, mask: Mask, answer: Mask) -> Job[Mask]:
    """The mask as its last click says, from that answer and one with a click on the mask."""
    inner = replace(
        asked, points=(deepest(mask), *asked.points), labels=(1, *asked.labels), mask=mask
    )
    [other] = yield from predictor.predicting([inner])
    return corrected(mask, [answer, other.mask], *_click(asked))


def _click(step: Prompt) -> tuple[tuple[float, float], int]:
    """Position and label of the last click."""
    return step.points[-1], step.labels[-1]


def steps_of(prompt: Prompt) -> list[Prompt]:
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
