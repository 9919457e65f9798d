"""Whether learning helped: what the objects left out say, and whether that could be chance.

Objects are left out in folds, each scored by a model that learned from the others. As there are
few, nobody can look at their scores, take the best of several choices, and then quote the same
scores for it: of five useless choices one looks better by chance. Two things keep it honest.

The *gain that is told* is cross-fitted: an object counts with the choice that the objects of the
other folds would have made.

The *chance* is that of the whole procedure. Had learning done nothing, each object would be as
likely to lose what it gained, by click and box and by all choices together. So the signs of whole
objects are flipped in all ways, the best choice is sought each time, and the chance is the share of
flips that look at least as good as what was found (a sign-flip test of the maximum; Westfall and
Young 1993, Winkler et al. 2014). It holds whatever the spread of the gains and however choices,
clicks and boxes go together, as long as objects are independent.

Five objects have 32 such flips, so one of them is a chance of 3 %, and the next best is too much:
one object that gains nothing refuses four that gain a lot. Three or four objects have 8 or 16
flips, too few for any evidence. So a *leap* is offered, too, whatever the signs: a gain larger than
chance gives, and larger than several of its standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import pluralize

CHANCE = 1 / 32
"""Largest chance of a result as good, had learning done nothing, at which a model is offered: the
least that five objects can have. Below 5 % by a margin, as gains and losses are not quite alike
(an IoU ends at 0 and 1), and a leap is offered as well."""
FEW = 5
"""Objects from which on signs are evidence: with four, the best chance is 1 in 16."""
LEAP = 30.0
"""Points of a mean gain that is not chance even where signs are no evidence. Where all clicks and
the box of an object err alike, with a standard deviation of 25 points, 4 % of useless trainings
with three objects pass, and 4 % of those with five pass by this or by their signs."""
LEAP_NOISE = 2.5
"""Standard errors that the mean gain of a leap must exceed."""
MIN_GAIN = 1.0
"""Mean gain, in points of IoU, below which an adapted model is not offered."""
NOISE_FACTOR = 1.5
"""Standard errors that are taken off a choice's mean gain when choices are compared."""
MIN_LEFT = 3.0
"""Points left to gain, below which learning does not begin."""
MAX_LOSS = 0.5
"""Points that neither clicks nor boxes may lose on average: choices by which they do come last, and
a model by which they do, surely enough, is not offered."""
ALL_FLIPS = 12
"""Up to so many objects all flips of signs are tried, of more a sample of 4,096."""

NOT_BETTER = (
    "Nothing changed: on the objects left out, what {} taught gains {:+z.1f} points of IoU; it "
    "needs {:.1f}. Correct the outlines, or commit more objects."
)
BY_CHANCE = (
    "Nothing changed: on the objects left out, what {} taught gains {:+z.1f} points of IoU, which "
    "may be chance: {:.0f} % of useless trainings look as good. Correct the outlines, or commit "
    "more objects."
)
FEW_TOLD = (
    "Nothing changed: on the objects left out, what {} taught gains {:+z.1f} points of IoU. From "
    "fewer than {} a gain below {:.0f} points may be chance; commit more."
)
ONE_LOSES = (
    "Nothing changed: on the objects left out, {} taught {} {:+.1f} points of IoU, but {} {:+.1f}."
)
ALREADY_GOOD = (
    "Nothing to learn: {} reaches {:.0f} % mean IoU on these objects, by a click and by a box. If "
    "they are its own masks, correct them first."
)
FEW_LEFT = (
    "Nothing changed: {} reaches {:.0f} % mean IoU on these objects, by a click and by a box. From "
    "fewer than {} a gain below {:.0f} points may be chance; commit more."
)
LOSES_ALONE = " Object {} stands in the way: it changes by {:+z.1f} points, the others by {:+z.1f}."
FITS_LEAST = " Object {} fits least: {:.0f} % IoU, the others {:.0f} %. Look at its outline first."
APART = 15.0
"""Points that an object is below the mean of the others, at least, where it is named."""
MIN_TOLD = 4
"""Objects from which on one can stand apart from the others."""
APART_SPREADS = 3.0
"""And standard deviations of the others."""


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
        Share of useless trainings that look as good, 0..1.
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

    def refusal(self, objects: int, new: int) -> str:
        """Why a model that learned from `objects`, some of them `new`, is not offered, if so."""
        count = pluralize(objects, "object")
        has_few = new < FEW
        if has_few and self.gain < LEAP:
            return FEW_TOLD.format(count, self.gain, pluralize(FEW, "object"), LEAP)
        least = LEAP_NOISE * self.noise if has_few else MIN_GAIN
        if self.gain < least:
            return NOT_BETTER.format(count, self.gain, least)
        click = self.after.click - self.before.click
        box = self.after.box - self.before.box
        if _surely_loses(box, self.noise_of_kinds.box):
            return ONE_LOSES.format(count, "a click", click, "a box", box)
        if _surely_loses(click, self.noise_of_kinds.click):
            return ONE_LOSES.format(count, "a box", box, "a click", click)
        is_leap = self.gain >= LEAP and self.gain > LEAP_NOISE * self.noise
        if self.chance > CHANCE and not is_leap:
            return BY_CHANCE.format(count, self.gain, 100 * self.chance)
        return ""


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


def nothing_to_gain(name: str, before: LeftOutScores, new: int) -> str:
    """Why a model of that name need not learn from so many new objects, if so.

    What is left to gain is too little to be offered, even if it were gained in full.
    """
    left = 100 - before.mean
    if left <= MIN_LEFT:
        return ALREADY_GOOD.format(name, before.mean)
    if new < FEW and left <= LEAP:
        return FEW_LEFT.format(name, before.mean, pluralize(FEW, "object"), LEAP)
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
        best = _best(gains)

        told = _cross_fitted(after, gains, fold_of)
        told_gains = 100 * (told - before)
        root = math.sqrt(len(before))
        return Verdict(
            choice=self.choices[best],
            before=LeftOutScores.of(before),
            after=LeftOutScores.of(told),
            gain=float(told_gains.mean()),
            noise=float(told_gains.mean(1).std(ddof=1)) / root,
            noise_of_kinds=LeftOutScores(*(told_gains.std(0, ddof=1) / root).tolist()),
            chance=_chance(gains.mean(-1), best),
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


def _chance(gains: NDArray[np.float64], best: int) -> float:
    """Share of flips of signs by which a choice has the merit of the `best`; gains (C, N).

    A choice that surely loses does not count: nobody would take it, but turned around it would
    look better than any other. (In simulations that adds less than half a percent of useless
    trainings.)
    """
    surely_loses = _merits(-gains) > 0
    if surely_loses[best]:
        return 1.0
    merit = _merits(gains)[best]
    highest = _merits(gains[~surely_loses], _flips(gains.shape[1])).max(1)
    return float(np.mean((highest >= merit) | np.isclose(highest, merit)))


def _merits(
    gains: NDArray[np.float64], signs: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """How surely each choice is better (C,) or (F, C): an object's mean gain, less its noise.

    Parameters
    ----------
    gains
        (C, N) by choice and object, in points.
    signs
        (F, N), those of the objects in each flip; by default none is flipped.
    """
    count = gains.shape[1]
    means = (np.ones(count) if signs is None else signs) @ gains.T / count
    variance = np.maximum((gains**2).mean(1) - means**2, 0)  # squares have no sign
    merits: NDArray[np.float64] = means - NOISE_FACTOR * np.sqrt(variance / max(count - 1, 1))
    return merits


@cache
def _flips(count: int) -> NDArray[np.float64]:
    """Signs (F, N) of so many objects: all ways, or a sample of many; the first has none."""
    if count <= ALL_FLIPS:
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        bits = np.random.default_rng(0).integers(2, size=(2**ALL_FLIPS, count))
        bits[0] = 0
    return np.where(bits, -1.0, 1.0)
