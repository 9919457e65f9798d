"""Learning that teaches nothing, or something, as `Evidence`: IoUs are drawn, no model is trained.

``python -m tests.training.simulated_learning`` prints how many of such trainings are offered, for
the report. A click and a box reach the object's own IoU plus an error that is drawn anew for each
training; where learning teaches nothing, before and after differ by it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_simmat.training.evidence import AdaptationChoice, Evidence

CHOICES = (
    *(AdaptationChoice(*each) for each in product((1.0, 0.5), (False, True))),
    AdaptationChoice(0.0, True),
)
"""Those of an embedded foundation."""
OFFER_ANYTHING = {
    "FEW": 0,
    "CHANCE": 1.0,
    "MIN_GAIN": -200.0,
    "MIN_LEFT": -1.0,
    "MAX_LOSS": 200.0,
}
"""Names and values in `evidence` by which whatever was learned is offered, as nets of random
weights gain nothing."""
SPREADS = (0.05, 0.1, 0.15, 0.2, 0.25)
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


USELESS: tuple[Draw, ...] = (
    three_clicks, together, alike_choices, heavy_tails, failing_clicks, gain_or_loss,
    gain_or_loss_by_choice,
)  # fmt: skip
"""Ways to err, none of which gains anything."""


def simulated(
    draw: Draw, objects: int, spread: float, trainings: int, gain: float = 0.0
) -> Iterator[Evidence]:
    """Trainings with so many objects, by whose choices a click gains up to `gain` IoU."""
    rng = np.random.default_rng([objects, round(100 * spread), trainings])
    shape = (trainings, objects, 1 + len(CHOICES))
    own = rng.uniform((0.4, 0.5), (0.8, 0.9), (trainings, objects, 1, 2))
    if gain:
        own -= (0.4, 0)  # leave room
    scores = own + draw(rng, shape, spread)
    scores[..., 1:, 0] += gain * np.array([0.8, 1, 0.6, 0.9, 0.5])
    scores = scores.clip(0, 1)
    folds = np.array_split(np.arange(objects), 2 if objects >= 8 else 3)
    for each in scores:
        after = [[each[fold, choice].tolist() for choice in range(1, shape[2])] for fold in folds]
        before = {number: each[number, 0].tolist() for number in range(objects)}
        yield Evidence(CHOICES, [fold.tolist() for fold in folds], before, after)


def offered(
    draw: Draw, objects: int, spread: float, trainings: int, gain: float = 0.0
) -> list[float]:
    """The gain in points that is told of each training that is offered."""
    verdicts = (each.verdict() for each in simulated(draw, objects, spread, trainings, gain))
    return [each.gain for each in verdicts if not each.refusal(objects, objects)]


def main(trainings: int = 600) -> None:
    """Print the share of trainings that are offered, in percent, the most of all spreads."""
    counts = (3, 4, 5, 6, 8, 10, 20)
    print(f"| | {' | '.join(f'{count} objects' for count in counts)} |")
    print(f"| --- |{' ---: |' * len(counts)}")
    for draw in USELESS:
        shares = [
            max(len(offered(draw, count, spread, trainings)) for spread in SPREADS)
            for count in counts
        ]
        cells = " | ".join(f"{100 * share / trainings:.1f}" for share in shares)
        print(f"| {draw.__name__.replace('_', ' ')} | {cells} |", flush=True)
    for spread, gain in product((0.1, 0.2), (0.1, 0.2, 0.4, 0.6)):
        cells = []
        for count in counts:
            told = offered(three_clicks, count, spread, trainings // 4, gain)
            cells.append(f"{400 * len(told) / trainings:.0f}")
        print(f"| gain {100 * gain:.0f}, spread {spread} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
