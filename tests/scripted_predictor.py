"""Predictors whose answers a test chooses, and the agreement of label images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_simmat.engine.prompts import Prompt
from napari_simmat.evaluation.metrics import match_at_thresholds


@dataclass
class Answer:
    mask: np.ndarray
    logits: np.ndarray
    score: float = 0.5
    count: int = 1
    left_out: int = 0

    def alternative(self, number: int) -> Answer:
        """There is but one."""
        assert number == 0
        return self

    def with_mask(self, mask: np.ndarray, left_out: int = 0) -> Answer:
        """The answer, corrected."""
        return replace(self, mask=mask, left_out=left_out)


class Scripted:
    """Gives the masks it was given, one for each prompt, and keeps what it was asked."""

    def __init__(self, *masks: np.ndarray, scores: Sequence[float] = ()) -> None:
        self.shape = masks[0].shape
        self.asked: list[Prompt] = []
        self._masks, self._scores = list(masks), list(scores) or [0.5] * len(masks)

    def predict(self, points=None, labels=None, box=None, mask=None):
        return self._answer(Prompt(points=points or (), labels=labels or (), box=box, mask=mask))

    def predict_many_job(self, prompts):
        yield from ()
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: Prompt) -> Answer:
        self.asked.append(prompt)
        logits = np.full((4, 4), float(len(self.asked)))
        return Answer(self._masks.pop(0), logits, self._scores.pop(0))


def all_match(found: np.ndarray, truth: np.ndarray, threshold: float) -> bool:
    """Whether each object of a label image has a partner in the other, of a larger IoU."""
    [matching] = match_at_thresholds(found.astype(int), truth.astype(int), (threshold,))
    return matching.average_precision == 1
