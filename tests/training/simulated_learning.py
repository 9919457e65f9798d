"""Learning that teaches nothing, or something, as `Evidence`: IoUs are drawn, no model is trained.

``python -m tests.training.simulated_learning`` prints how many of such trainings are offered, for
the report. A click and a box reach the object's own IoU plus an error that is drawn anew for each
training; where learning teaches nothing, before and after differ by it alone, and so they do where
what was measured on an image is taken for an error, less its mean.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.training.adapting import FewShotConfig
from napari_simmat.training.evidence import AdaptationChoice, Evidence

CHOICES = (
    *(AdaptationChoice(*each) for each in product((1.0, 0.5), (False, True))),
    AdaptationChoice(0.0, True),
)
"""Those of an embedded foundation."""
NOTHING = AdaptationChoice(0.0, False)
"""The further one of a new transfer layer."""
OFFER_ANYTHING = {
    "TOTAL_CHANCE": 1e9,
    "MIN_GAIN": -200.0,
    "MIN_LEFT": -1.0,
    "MAX_LOSS": 200.0,
}
"""Names and values in `evidence` by which whatever was learned is offered, as nets of random
weights gain nothing."""
SPREADS = (0.05, 0.15, 0.25)
"""Standard deviations of a click's IoU."""

Draw = Callable[[np.random.Generator, tuple[int, ...], float], NDArray[np.float64]]
"""Errors (trainings, objects, before and choices, 2) of click and box for a spread."""


def three_clicks(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> NDArray:
    """Three clicks and a box err each on their own, the box half as much."""
    clicks = rng.normal(0, spread, (*shape, 3)).mean(-1)
    return np.stack([clicks, rng.normal(0, spread / 2, shape)], -1)


def together(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> NDArray:
    """All clicks and the box of an object err alike."""
    return np.repeat(rng.normal(0, spread, shape)[..., None], 2, -1)


def alike_choices(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> NDArray:
    """All choices err nearly alike, as the same training at two strengths does."""
    errors = rng.normal(0, spread, shape)
    common = rng.normal(0, spread, (*shape[:-1], 1))
    errors[..., 1:] = 0.8**0.5 * common + 0.2**0.5 * errors[..., 1:]
    return np.stack([errors, errors / 2], -1)


def heavy_tails(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> NDArray:
    """Student's t of two degrees of freedom, which has no variance."""
    return spread * rng.standard_t(2, (*shape, 2)).clip(-10, 10) / 2


def failing_clicks(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> NDArray:
    """Each of three clicks misses its object at times, as often as the spread says."""
    clicks = -0.7 * (rng.random((*shape, 3)) < spread).mean(-1)
    return np.stack([clicks, rng.normal(0, 0.02, shape)], -1)


def gain_or_loss(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> NDArray:
    """By all choices an object gains as much as another one loses."""
    signs = rng.choice([-1.0, 1.0], (*shape[:-1], 1))
    errors = spread * signs + rng.normal(0, 0.01, shape)
    errors[..., 0] = 0
    return np.repeat(errors[..., None], 2, -1)


def gain_or_loss_by_choice(
    rng: np.random.Generator, shape: tuple[int, ...], spread: float
) -> NDArray:
    """The same, but other objects gain by each choice."""
    errors = spread * rng.choice([-1.0, 1.0], shape) + rng.normal(0, 0.01, shape)
    errors[..., 0] = 0
    return np.repeat(errors[..., None], 2, -1)


def few_lose_much(rng: np.random.Generator, shape: tuple[int, ...], loss: float) -> NDArray:
    """By all choices 15 % of the objects lose much, the others gain a little."""
    return _losing(rng, (*shape[:-1], 1), shape, 0.15, loss)


def few_lose_much_by_choice(
    rng: np.random.Generator, shape: tuple[int, ...], loss: float
) -> NDArray:
    """The same, but other objects lose by each choice."""
    return _losing(rng, shape, shape, 0.15, loss)


def very_few_lose_much(rng: np.random.Generator, shape: tuple[int, ...], loss: float) -> NDArray:
    """By all choices 5 % of the objects lose much."""
    return _losing(rng, (*shape[:-1], 1), shape, 0.05, loss)


def some_lose_much(rng: np.random.Generator, shape: tuple[int, ...], loss: float) -> NDArray:
    """By all choices 20 % of the objects lose much."""
    return _losing(rng, (*shape[:-1], 1), shape, 0.2, loss)


def some_lose_much_by_choice(
    rng: np.random.Generator, shape: tuple[int, ...], loss: float
) -> NDArray:
    """The same, but other objects lose by each choice."""
    return _losing(rng, shape, shape, 0.2, loss)


def _losing(
    rng: np.random.Generator,
    drawn: tuple[int, ...],
    shape: tuple[int, ...],
    share: float,
    loss: float,
) -> NDArray:
    """A share of what is `drawn` loses, the rest gains so much that the mean is zero."""
    errors = np.where(rng.random(drawn) < share, -loss, loss * share / (1 - share))
    errors = errors + rng.normal(0, 0.01, shape)
    errors[..., 0] = 0
    return np.repeat(errors[..., None], 2, -1)


USELESS: tuple[Draw, ...] = (
    three_clicks, together, alike_choices, heavy_tails, failing_clicks, gain_or_loss,
    gain_or_loss_by_choice,
)  # fmt: skip
"""Ways to err, none of which gains anything."""
SKEWED: tuple[Draw, ...] = (
    very_few_lose_much, few_lose_much, few_lose_much_by_choice, some_lose_much,
    some_lose_much_by_choice,
)  # fmt: skip
"""The same, for which a spread is what an object loses."""
LOSSES = (0.1, 0.2, 0.4, 0.6)
LUCKS = (0.03, 0.1, 0.2)
"""Standard deviations of what all objects of a fold gain or lose, as they share a training."""
PRESSES = 8
MORE = 3
"""Objects that are added from one press to the next, where any are."""
MEASURED = Path(__file__).parents[2] / "docs/reports/data/learn.csv"
PRESSED: tuple[tuple[Draw, float, float], ...] = (
    (together, 0.15, 0.0), (gain_or_loss_by_choice, 0.25, 0.0), (few_lose_much, 0.6, 0.0),
    (few_lose_much_by_choice, 0.6, 0.0), (some_lose_much_by_choice, 0.6, 0.0),
    (together, 0.05, 0.1),
)  # fmt: skip
"""Ways to err, their spread and the luck of a fold, for users who press again and again."""
COUNTS = (3, 5, 6, 8, 10, 15, 20, 40)


def own_ious(
    rng: np.random.Generator, draw: Draw, trainings: int, objects: int, gain: float = 0.0
) -> NDArray[np.float64]:
    """What a click and a box reach in each object (trainings, objects, 1, 2)."""
    low, high = (0.4, 0.5), (0.8, 0.9)
    if draw in SKEWED:  # so that nothing is cut off at 0 or 1, which would move the mean
        low, high = (0.62, 0.62), (0.8, 0.8)
    own = rng.uniform(low, high, (trainings, objects, 1, 2))
    return own - (0.4, 0) if gain else own  # leave room


def folds_of(objects: int) -> list[NDArray[np.intp]]:
    """As many as the program makes."""
    return np.array_split(np.arange(objects), min(FewShotConfig().folds, objects))


def evidence_of(scores: NDArray[np.float64]) -> Evidence:
    """From IoUs (objects, before and choices, 2)."""
    folds = folds_of(len(scores))
    after = [[scores[fold, n].tolist() for n in range(1, scores.shape[1])] for fold in folds]
    before = {number: each[0].tolist() for number, each in enumerate(scores)}
    choices = CHOICES if scores.shape[1] == len(CHOICES) + 1 else (*CHOICES, NOTHING)
    return Evidence(choices, [fold.tolist() for fold in folds], before, after)


def simulated(
    draw: Draw,
    objects: int,
    spread: float,
    trainings: int,
    gain: float = 0.0,
    luck: Callable[[np.random.Generator, int], NDArray[np.float64]] | None = None,
) -> Iterator[Evidence]:
    """Trainings with so many objects, by whose choices a click gains up to `gain` IoU.

    `luck` draws what all objects of a fold gain or lose, for so many trainings.
    """
    rng = np.random.default_rng([objects, round(100 * spread), trainings])
    shape = (trainings, objects, 1 + len(CHOICES))
    scores = own_ious(rng, draw, trainings, objects, gain) + draw(rng, shape, spread)
    scores[..., 1:, 0] += gain * np.array([0.8, 1, 0.6, 0.9, 0.5])
    for fold in folds_of(objects) if luck is not None else ():
        scores[:, fold, 1:] += luck(rng, trainings)[:, None, None, None]
    yield from map(evidence_of, scores.clip(0, 1))


def normal_luck(spread: float) -> Callable[[np.random.Generator, int], NDArray[np.float64]]:
    """A training is better or worse than others by so much."""
    return lambda rng, trainings: rng.normal(0, spread, trainings)


def failing_luck(loss: float) -> Callable[[np.random.Generator, int], NDArray[np.float64]]:
    """One training in seven fails and loses so much, the others gain a little."""
    return lambda rng, trainings: np.where(rng.random(trainings) < 1 / 7, -loss, loss / 6)


def offered(
    draw: Draw, objects: int, spread: float, trainings: int, gain: float = 0.0, luck: Any = None
) -> list[float]:
    """The gain in points that is told of each training that is offered."""
    some = simulated(draw, objects, spread, trainings, gain, luck)
    verdicts = (each.verdict() for each in some)
    return [each.gain for each in verdicts if not each.refusal(objects)]


def offered_at_last(
    draw: Draw, objects: int, spread: float, users: int, more: int, luck: float = 0.0
) -> float:
    """Share of users to whom one of eight presses offers something useless.

    With `more` objects from one press to the next, all of which are learned from and judged; what
    they reach before learning stays as it was.
    """
    rng = np.random.default_rng([objects, round(100 * spread), users, more])
    most = objects + (PRESSES - 1) * more
    shape = (users, most, 1 + len(CHOICES))
    own = own_ious(rng, draw, users, most)
    before = draw(rng, shape, spread)[..., :1, :]
    is_offered = np.zeros(users, bool)
    for number in range(1, PRESSES + 1):
        errors = draw(rng, shape, spread)
        errors[..., :1, :] = before
        count = objects + (number - 1) * more
        scores = (own + errors)[:, :count]
        for fold in folds_of(count):
            scores[:, fold, 1:] += rng.normal(0, luck, (users, 1, 1, 1))
        for user in np.flatnonzero(~is_offered):
            verdict = evidence_of(scores[user].clip(0, 1)).verdict()
            is_offered[user] = not verdict.refusal(count, number)
    return float(is_offered.mean())


def measured_runs() -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Name and IoUs (objects, before and choices, 2) of each image that learning was measured on.

    Each choice's mean gain is taken off by click and box, so that nothing is gained.
    """
    with MEASURED.open(newline="") as file:
        lines = list(csv.DictReader(file))
    for name, some in groupby(lines, lambda line: f"{line['image']}, {line['objects']}"):
        of_run = list(some)
        columns = [each[7:] for each in of_run[0] if each.startswith("clicks ")]
        scores = np.array(
            [
                [[float(line[f"{kind} {each}"]) / 100 for kind in ("clicks", "box")]
                 for each in columns if line[f"box {each}"]]
                for line in of_run
            ]
        )  # fmt: skip
        gains = scores[:, 1:] - scores[:, :1]
        scores[:, 1:] -= gains.mean(0)
        yield name, scores


def offered_of_measured(scores: NDArray[np.float64], objects: int, trainings: int) -> float:
    """Share of trainings that are offered, each with so many objects drawn from those measured."""
    rng = np.random.default_rng([objects, trainings])
    drawn = scores[rng.integers(len(scores), size=(trainings, objects))]
    return float(np.mean([not evidence_of(each).verdict().refusal(objects) for each in drawn]))


def row(name: str, values: Iterable[float]) -> None:
    """Print a row of the table, in percent."""
    print(f"| {name} | {' | '.join(f'{100 * each:.1f}' for each in values)} |", flush=True)


def worst(
    draw: Draw, objects: int, spreads: Iterable[float], trainings: int, luck: Any = None
) -> float:
    """The largest share that is offered, by any of the spreads."""
    shares = (len(offered(draw, objects, each, trainings, luck=luck)) for each in spreads)
    return max(shares) / trainings


def main(trainings: int = 2000) -> None:
    """Print the share of trainings that are offered, in percent, the most of all spreads."""
    print(f"| | {' | '.join(f'{count} objects' for count in COUNTS)} |")
    print(f"| --- |{' ---: |' * len(COUNTS)}")
    for draws, spreads in ((USELESS, SPREADS), (SKEWED, LOSSES)):
        for draw in draws:
            name = draw.__name__.replace("_", " ")
            row(name, (worst(draw, count, spreads, trainings) for count in COUNTS))
    for kind, make in (("luck", normal_luck), ("one training in seven loses", failing_luck)):
        for size in LUCKS:
            lucky = (worst(together, count, (0.01, 0.1), trainings, make(size)) for count in COUNTS)
            row(f"{kind} {100 * size:.0f}", lucky)
    for draw, spread, luck in PRESSED:
        for more in (0, MORE):
            words = f"{PRESSES} presses, {more} more objects: {draw.__name__.replace('_', ' ')}"
            name = f"{words} {100 * spread:.0f}{f', luck {100 * luck:.0f}' if luck else ''}"
            shares = (
                offered_at_last(draw, count, spread, trainings, more, luck) for count in COUNTS
            )
            row(name, shares)
    runs = list(measured_runs())
    shares = np.array(
        [[offered_of_measured(each, count, trainings) for count in COUNTS] for _, each in runs]
    )
    row("measured gains, mean of the runs", shares.mean(0))
    row("measured gains, the most of a run", shares.max(0))
    for spread, gain in product((0.1, 0.2), (0.1, 0.2, 0.4, 0.6)):
        shares = (
            len(offered(three_clicks, count, spread, trainings // 4, gain)) / (trainings // 4)
            for count in COUNTS
        )
        row(f"gain {100 * gain:.0f}, spread {spread}", shares)


if __name__ == "__main__":
    main()
