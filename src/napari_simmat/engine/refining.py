"""Click by click: each click of a prompt refines the answer to the clicks before it.

That is how the models were trained and how a person works. The answer still follows from the
prompt alone: the clicks are gone through in their order, and what was answered on the way is
remembered. So the same clicks give the same mask after an undo, a restart or a replay, and nothing
of one object reaches the next.

Where the first thing given is a mask, a click that contradicts it corrects it near the click
(`engine.correcting`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.correcting import contradicts, corrected
from napari_simmat.engine.mask_geometry import Mask, deepest
from napari_simmat.engine.prompts import Prompt
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

LIMIT = 128
"""Answers that are remembered; each takes some hundred KiB."""

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
    """Answers prompts on the predictor's plane, one click after the other."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._known: OrderedDict[Hashable, _Before] = OrderedDict()

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
            Equal for the same model, image and plane.
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
        if prompt.mask is not None and not prompt.points and prompt.box is None:
            return Refined(prompt.mask, float("nan"))
        corrects = prompt.mask is not None and prompt.mask.dtype == bool and prompt.box is None
        before = _Before(prompt.mask, prompt.mask) if corrects else _Before()
        taken: tuple[int, ...] = ()
        for step in steps_of(prompt):
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
            if corrects and before.mask.any() and contradicts(before.mask, *_click(step)):
                mask = given = yield from _correcting(predictor, asked, before.mask, mask)
            before = _Before(given, mask if corrects else None)
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
    mask
        The mask that the click may contradict, where the prompt began with one.
    """

    given: NDArray[Any] | None = None
    mask: Any = None


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
