"""Whether learning helped: what the objects left out say, and whether that could be chance.

Objects are left out in folds, each scored by a model that learned from the others. As there are
few, nobody can look at their scores, take the best of several choices, and then quote the same
scores for it: of five useless choices one looks better by chance. So the gain is *cross-fitted*: an
object counts with the choice that the objects of the other folds would have made.

Had learning done nothing, the mean gain of all objects of the image would be zero or less, of which
a few objects show little. Two tests bound the *chance* of what was found, and the larger counts:

- Of the *objects*. Gains may be skewed: most objects gain a little, a few lose much, and with luck
  none of these is among those left out. So one more object is imagined, which loses all that it
  had, and the chance is the share of random weightings of all (uniform on the simplex) by which
  there is no gain (Gaffke 2005; Learned-Miller and Thomas 2019). That takes no shape for granted:
  the gains only have to be independent, and bounded by the loss of that object. Five that all gain
  as much need to gain as much as the model reached before; ten four tenths of it, 40 a tenth.
- Of the *folds*. Those of a fold share a training, which may be lucky. So the means of the folds
  are tested, too, as independent normal values (Student's t).

Who learns again and again on an image will be lucky once. So the chance that is allowed is spent
over the tries: the k-th is offered if its chance is at most 3 % of 6 / (pi k) ** 2. The sum of all
these is 3 %, so that all tries together offer something useless in less than one of 20 cases though
each takes the best of several choices: cross-fitting does not make up for that where each choice
has losers of its own. Simulations say so (``tests/training/simulated_learning.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from napari_simmat._text import pluralize

TOTAL_CHANCE = 0.03
"""What is spent over all tries on an image; as choices are compared, less than the 5 % that they
may offer by chance."""
ENOUGH = 20
"""Objects from which on a gain of 11 points shows, where the model reaches half."""
FEW = 8
"""Objects from which on one of 32 points does."""
MIN_GAIN = 1.0
"""Mean gain, in points of IoU, below which an adapted model is not offered."""
NOISE_FACTOR = 1.5
"""Standard errors that are taken off a choice's mean gain when choices are compared."""
MIN_LEFT = 3.0
"""Points left to gain, below which learning does not begin."""
MAX_LOSS = 0.5
"""Points that neither clicks nor boxes may lose on average: choices by which they do come last, and
a model by which they do, surely enough, is not offered."""

NOT_BETTER = (
    "Nothing changed: on the objects left out, what {} taught gains {:+z.1f} points of IoU; it "
    "needs {:.1f}. Correct the outlines, or commit more objects."
)
BY_CHANCE = (
    "Nothing changed: on the objects left out, what {} taught gains {:+z.1f} points of IoU, which "
    "may be chance ({}; at most {} would do{}). Correct the outlines, or commit more objects, at "
    "least {}."
)
ONE_LOSES = (
    "Nothing changed: on the objects left out, {} taught {} {:+.1f} points of IoU, but {} {:+.1f}."
)
ALREADY_GOOD = (
    "Nothing to learn: {} reaches {:.0f} % mean IoU on these objects, by a click and by a box. If "
    "they are its own masks, correct them first."
)
FEW_LEFT = (
    "Nothing changed: {} reaches {:.0f} % mean IoU on these objects, by a click and by a box. "
    "Whatever is gained from {} may be chance{}; commit {} or more."
)
AT_TRY = " at try {} on this image"
LOSES_ALONE = " Object {} stands in the way: it changes by {:+z.1f} points, the others by {:+z.1f}."
FITS_LEAST = " Object {} fits least: {:.0f} % IoU, the others {:.0f} %. Look at its outline first."
APART = 15.0
"""Points that an object is below the mean of the others, at least, where it is named."""
MIN_TOLD = 4
"""Objects from which on one can stand apart from the others."""
APART_SPREADS = 3.0
"""And standard deviations of the others."""


def level_of(number: int) -> float:
    """The chance that the try of that number, from 1, may have."""
    return TOTAL_CHANCE * 6 / (math.pi * number) ** 2


def least_gain(count: int, before: float = 50.0, number: int = 1) -> float:
    """Points that so many objects must gain alike; `before` is what the model reaches, in percent.

    `number` is that of the try.
    """
    needed: float = before * (level_of(number) ** (-1 / count) - 1)
    return max(0.0, needed)


def least_count(gain: float, before: float, number: int = 1) -> int:
    """How many objects must gain so many points alike, or how many are left to be gained."""
    if before <= 0:
        return 1
    return max(1, math.ceil(math.log(level_of(number)) / math.log(before / (before + gain))))


class LeftOutScores(NamedTuple):
    """Mean IoU in percent on the objects left out, by a click and by a box."""

    click: float
    box: float

    @property
    def mean(self) -> float:
        """Mean of click and box."""
        return (self.click + self.box) / 2

    @classmethod
    def of(cls, scores: NDArray[Any] | Sequence[Sequence[float]]) -> LeftOutScores:
        """Means of IoUs (N, 2), 0..1."""
        click, box = (100 * np.array(scores).mean(0)).tolist()
        return cls(click, box)


class AdaptationChoice(NamedTuple):
    """What a model takes of what it learned: the strength, and the size that a click means."""

    strength: float
    sized: bool


class Verdict(NamedTuple):
    """What to take of what was learned, what that brings, and whether it may be chance.

    Attributes
    ----------
    choice
        The one that is most surely better on all objects left out.
    before, after
        Scores of the objects left out; after with the choice of the other folds' objects.
    gain, noise
        Mean gain of an object from one to the other, in points (the mean of click and box), and its
        standard error.
    noise_of_kinds
        Standard errors of the mean gains by a click and by a box, in points.
    chance
        Largest share of useless trainings that look as good, 0..1.
    """

    choice: AdaptationChoice
    before: LeftOutScores
    after: LeftOutScores
    gain: float
    noise: float
    noise_of_kinds: LeftOutScores
    chance: float

    @classmethod
    def none(cls, before: LeftOutScores) -> Verdict:
        """That of a model that did not learn."""
        return cls(AdaptationChoice(0, False), before, before, 0, 0, LeftOutScores(0, 0), 1)

    def refusal(self, objects: int, number: int = 1) -> str:
        """Why the model of a try of that number, from so many `objects`, is not offered, if so."""
        count = pluralize(objects, "object")
        if self.gain < MIN_GAIN:
            return NOT_BETTER.format(count, self.gain, MIN_GAIN)
        click = self.after.click - self.before.click
        box = self.after.box - self.before.box
        if _surely_loses(box, self.noise_of_kinds.box):
            return ONE_LOSES.format(count, "a click", click, "a box", box)
        if _surely_loses(click, self.noise_of_kinds.click):
            return ONE_LOSES.format(count, "a box", box, "a click", click)
        level = level_of(number)
        if self.chance > level:
            needed = least_count(self.gain, self.before.mean, number)
            return BY_CHANCE.format(
                count,
                self.gain,
                _percent(self.chance),
                _percent(level),
                _at_try(number),
                max(needed - objects, 1),
            )
        return ""


def _percent(chance: float) -> str:
    return f"{100 * chance:.2g} %"


def _at_try(number: int) -> str:
    return AT_TRY.format(number) if number > 1 else ""


def _surely_loses(gain: float, noise: float) -> bool:
    """Whether a mean gain is a loss that its standard error does not explain, both in points."""
    return gain < -MAX_LOSS - NOISE_FACTOR * noise


class Hindrance(NamedTuple):
    """An object that stands apart from the others, and what is said of it."""

    pattern: str
    number: int
    value: float
    others: float

    def told(self, label: int) -> str:
        """The sentence, with the object's id."""
        return self.pattern.format(label, self.value, self.others)


def _apart(pattern: str, numbers: Sequence[int], values: NDArray[np.float64]) -> Hindrance | None:
    """The object whose value (N,), in points, is far below those of the others, if there is one."""
    if len(values) < MIN_TOLD:
        return None
    lowest = int(values.argmin())
    others = np.delete(values, lowest)
    least = max(APART, APART_SPREADS * float(others.std()))
    if others.mean() - values[lowest] < least:
        return None
    return Hindrance(pattern, numbers[lowest], float(values[lowest]), float(others.mean()))


def nothing_to_gain(name: str, before: LeftOutScores, new: int, number: int = 1) -> str:
    """Why a model of that name need not learn from so many new objects, if so.

    What is left to gain is too little to be offered, even if it were gained in full. `number` is
    that of the try.
    """
    left = 100 - before.mean
    if left <= MIN_LEFT:
        return ALREADY_GOOD.format(name, before.mean)
    if left < least_gain(new, before.mean, number):
        needed = least_count(left, before.mean, number)
        count = pluralize(new, "object")
        return FEW_LEFT.format(name, before.mean, count, _at_try(number), needed)
    return ""


@dataclass
class Evidence:
    """IoU of click and box, 0..1, of the objects left out, before and after learning.

    Parameters
    ----------
    choices
        Those that are compared.
    folds
        Numbers of the objects that are left out together.
    before
        (2,) for each new object, by its number; empty at first.
    after
        For each fold that was scored and each choice, (2,) for each of its objects.
    """

    choices: Sequence[AdaptationChoice]
    folds: Sequence[Sequence[int]]
    before: dict[int, list[float]]
    after: list[list[list[list[float]]]]

    @property
    def is_conclusive(self) -> bool:
        """Whether two folds were scored, so that one can choose for the other."""
        return len(self.after) > 1

    def hindrance(self) -> Hindrance | None:
        """The object that gains far less than the others, else that which fits far less; or None.

        Before anything was learned it is the one that the model's masks fit far less.
        """
        if not self.is_conclusive:
            numbers, before = list(self.before), np.array(list(self.before.values()))
            return _apart(FITS_LEAST, numbers, 100 * before.mean(1))
        numbers, before, after, fold_of = self._scored()
        told = _cross_fitted(after, 100 * (after - before), fold_of)
        gains = _apart(LOSES_ALONE, numbers, 100 * (told - before).mean(1))
        return gains or _apart(FITS_LEAST, numbers, 100 * told.mean(1))

    def _scored(
        self,
    ) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
        """Numbers (N,), scores before (N, 2) and after (C, N, 2), and the fold of each object."""
        done = self.folds[: len(self.after)]
        numbers = list(chain.from_iterable(done))
        before = np.array([self.before[number] for number in numbers])
        after = np.concatenate([np.array(fold) for fold in self.after], axis=1)
        return numbers, before, after, np.repeat(np.arange(len(done)), [len(each) for each in done])

    def verdict(self) -> Verdict:
        """What the folds that were scored so far say, at least two."""
        _, before, after, fold_of = self._scored()
        gains = 100 * (after - before)
        told = _cross_fitted(after, gains, fold_of)
        told_gains = 100 * (told - before)
        of_objects = told_gains.mean(1)
        root = math.sqrt(len(before))
        return Verdict(
            choice=self.choices[_best(gains)],
            before=LeftOutScores.of(before),
            after=LeftOutScores.of(told),
            gain=float(of_objects.mean()),
            noise=float(of_objects.std(ddof=1)) / root,
            noise_of_kinds=LeftOutScores(*(told_gains.std(0, ddof=1) / root).tolist()),
            chance=max(
                chance_of_objects(of_objects, 100 * float(before.mean())),
                chance_of_folds([float(of_objects[fold_of == n].mean()) for n in set(fold_of)]),
            ),
        )


def _cross_fitted(
    after: NDArray[np.float64], gains: NDArray[np.float64], fold_of: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The scores (N, 2) of objects, each with the choice that the other folds would have made.

    Parameters
    ----------
    after, gains
        (C, N, 2), by choice.
    fold_of
        (N,), the fold of each object.
    """
    told = np.empty(after.shape[1:])
    for fold in np.unique(fold_of):
        is_left_out = fold_of == fold
        choice = _best(gains[:, ~is_left_out])
        told[is_left_out] = after[choice, is_left_out]
    return told


def _best(gains: NDArray[np.float64]) -> int:
    """The choice of the highest merit by gains (C, N, 2); one by which nothing loses, if any."""
    loses = (gains.mean(1) < -MAX_LOSS).any(-1)
    return int(np.lexsort((_merits(gains.mean(-1)), ~loses))[-1])


def chance_of_objects(gains: NDArray[np.float64], loss: float) -> float:
    """Largest chance of gains (N,) whose mean is none, where no object can lose more than `loss`.

    That of a weighting of them and of one that loses all, at random, by which there is no gain. The
    weights are shares of independent exponential times: the chance is that the time of all gains is
    over before that of all losses. Whichever gain and loss run, which of the two ends first depends
    on their sizes alone, as an exponential time has no memory.
    """
    up = gains[gains > 0].tolist()
    down = [*(-gains[gains < 0]).tolist(), loss]
    ends = [1.0] * (len(down) + 1)  # after all gains; by how many losses are over
    for gain in up:
        before = [0.0] * len(ends)
        for n in reversed(range(len(down))):
            first = down[n] / (gain + down[n])
            before[n] = first * ends[n] + (1 - first) * before[n + 1]
        ends = before
    return ends[0]


def chance_of_folds(gains: Sequence[float]) -> float:
    """Chance of mean gains of folds as high, if they are normal and their mean is zero."""
    mean, spread = float(np.mean(gains)), float(np.std(gains, ddof=1))
    if spread == 0:
        return float(mean <= 0)
    t = mean / spread * math.sqrt(len(gains))
    return float(stdtr(len(gains) - 1, -t))


def _merits(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """How surely each choice (C,) is better: an object's mean gain (C, N), less its noise."""
    root = math.sqrt(max(gains.shape[1] - 1, 1))
    merits: NDArray[np.float64] = gains.mean(1) - NOISE_FACTOR * gains.std(1) / root
    return merits
