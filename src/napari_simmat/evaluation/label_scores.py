"""How the labels of any program meet the true objects, and what is left to do by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.evaluation.metrics import (
    Matching,
    match_at_thresholds,
    pairwise_iou,
    sum_matchings,
    without_covered,
)

DONE = 0.75
"""IoU from which an object is done."""
NEARLY = 0.5
"""IoU from which it counts as found."""


@dataclass(frozen=True)
class LabelScore:
    """How labels meet the true objects of a plane; those of several planes add up.

    Parameters
    ----------
    best
        IoU of the best label of each true object.
    labels
        Number of labels.
    wrong
        Labels that meet no object at `DONE`.
    replaced
        Those of them that are gone once the missed objects are made: more than half of their
        pixels belong to these.
    matchings
        One to one, at `NEARLY` and `DONE`.
    """

    best: tuple[float, ...]
    labels: int
    wrong: int
    replaced: int
    matchings: tuple[Matching, Matching]

    @property
    def missed(self) -> int:
        """True objects that no label meets at `DONE`."""
        return sum(reached < DONE for reached in self.best)

    @property
    def actions(self) -> int:
        """Actions that finish the plane at least: one for a missed object, one for a deletion.

        A lower bound: the user makes every object at once, and sees every mistake. A wrong label
        that missed objects replace costs no deletion of its own.
        """
        return self.missed + self.wrong - self.replaced

    @property
    def figures(self) -> dict[str, float]:
        """Every figure by column; `wrong` and `actions` are per true object."""
        count, best = len(self.best), np.array(self.best)
        return {
            "found@75": float(np.mean(best >= DONE)),
            "found@50": float(np.mean(best >= NEARLY)),
            "wrong": self.wrong / count,
            "iou": float(np.mean(best)),
            "ap@50": self.matchings[0].average_precision,
            "ap@75": self.matchings[1].average_precision,
            "actions": self.actions / count,
        }

    @property
    def row(self) -> dict[str, object]:
        """A row of the table."""
        return {**self.counts([self]), **self.figures}

    @staticmethod
    def pooled(planes: Sequence[LabelScore]) -> dict[str, float]:
        """The figures of all planes' objects as if they were of one plane."""
        return _together(planes).figures

    @staticmethod
    def counts(planes: Sequence[LabelScore]) -> dict[str, int]:
        """Number of true objects and of labels."""
        best = sum(len(plane.best) for plane in planes)
        return {"objects": best, "labels": sum(plane.labels for plane in planes)}


def score_labels(
    labels: NDArray[Any], truth: NDArray[Any], ignored: NDArray[np.bool_]
) -> LabelScore:
    """Compare labels with the true objects of a plane, both (Y, X).

    True objects in `ignored` pixels do not count, nor do labels of which more than half lies there.

    Examples
    --------
    The first object is met, the second at IoU 2/3, the third not at all; one label lies nowhere:

    >>> truth = np.array([[1, 1, 0, 2, 2, 2, 0, 3, 3, 0, 0]])
    >>> found = np.array([[7, 7, 0, 0, 5, 5, 0, 0, 0, 0, 9]])
    >>> score = score_labels(found, truth, np.zeros(truth.shape, bool))
    >>> score.missed, score.wrong, score.replaced, score.actions
    (2, 2, 1, 3)
    """
    labels, truth = without_covered(labels, ignored), np.where(ignored, 0, truth)
    overlaps = pairwise_iou(labels, truth)  # (labels, true objects), in the order of their ids
    best = overlaps.max(axis=0, initial=0)
    met = overlaps.max(axis=1, initial=0) >= DONE
    ids, objects = (np.unique(each[each > 0]) for each in (labels, truth))
    wrong = np.where(np.isin(labels, ids[~met]), labels, 0)
    left = without_covered(wrong, np.isin(truth, objects[best < DONE]))
    count = int(np.count_nonzero(~met))
    nearly, done = match_at_thresholds(labels, truth, (NEARLY, DONE))
    return LabelScore(
        best=tuple(best.tolist()),
        labels=len(ids),
        wrong=count,
        replaced=count - len(np.unique(left[left > 0])),
        matchings=(nearly, done),
    )


def _together(planes: Sequence[LabelScore]) -> LabelScore:
    nearly, done = (
        sum_matchings(each) for each in zip(*(plane.matchings for plane in planes), strict=True)
    )
    return LabelScore(
        best=tuple(reached for plane in planes for reached in plane.best),
        labels=sum(plane.labels for plane in planes),
        wrong=sum(plane.wrong for plane in planes),
        replaced=sum(plane.replaced for plane in planes),
        matchings=(nearly, done),
    )
