"""Learning that teaches nothing is rarely offered, learning that teaches much nearly always."""

from dataclasses import replace

import numpy as np
import pytest

from napari_simmat.training import evidence
from napari_simmat.training.evidence import (
    ALREADY_GOOD,
    BY_CHANCE,
    CHANCE,
    FEW_LEFT,
    FEW_TOLD,
    FITS_LEAST,
    LEAP,
    LEAP_NOISE,
    LOSES_ALONE,
    NOT_BETTER,
    ONE_LOSES,
    AdaptationChoice,
    Evidence,
    LeftOutScores,
    nothing_to_gain,
)
from tests.nightly import nightly_but
from tests.training.simulated_learning import USELESS, offered, simulated, three_clicks

CLICKS = (0.3, 0.35, 0.4, 0.45, 0.5)
"""IoU of the clicks of five objects before learning."""

BOTH = AdaptationChoice(1.0, False), AdaptationChoice(0.5, False)
"""The two choices that are compared."""


def found(*gains: float, box: float = 0.0, other: float = -0.1) -> Evidence:
    """Objects whose clicks gain so much IoU by one choice, and lose by the other; boxes stay."""
    count = len(gains)
    folds = [each.tolist() for each in np.array_split(np.arange(count), 3)]
    before = {number: [CLICKS[number % 5], 0.8] for number in range(count)}
    after = [
        [
            [[before[number][0] + gains[number], 0.8 + box] for number in fold],
            [[before[number][0] + other, 0.8] for number in fold],
        ]
        for fold in folds
    ]
    return Evidence(BOTH, folds, before, after)


def begins(sentence: str, pattern: str) -> bool:
    """Whether a sentence was made from a pattern, by its words before the first figure."""
    return bool(sentence) and sentence.split("gains")[0] == pattern.split("gains")[0].format(
        "5 objects"
    )


@pytest.mark.parametrize("draw", USELESS, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("objects", nightly_but((3, 4, 5, 8, 20), 5))
def test_useless_learning_is_offered_in_at_most_one_of_twenty(draw, objects):
    """For few and many objects, and each by the mean of three spreads of a click."""
    shares = [len(offered(draw, objects, spread, 240)) / 240 for spread in (0.05, 0.15, 0.25)]
    assert np.mean(shares) <= 0.05


@pytest.mark.parametrize(("objects", "gain", "least"), [(5, 0.6, 0.85), (8, 0.2, 0.8)])
def test_learning_that_teaches_much_is_offered(objects, gain, least):
    assert len(offered(three_clicks, objects, 0.1, 100, gain)) >= 100 * least


@pytest.mark.parametrize("objects", [5, 20])
def test_gain_that_is_told_has_no_winners_curse(objects):
    """Learning that teaches nothing is told to gain nothing on average; its best seems to."""
    told, best = [], []
    for each in simulated(three_clicks, objects, 0.15, 400):
        told.append(each.verdict().gain)
        before = np.array([each.before[number] for fold in each.folds for number in fold])
        after = np.concatenate([np.array(fold) for fold in each.after], axis=1)
        best.append(100 * (after - before).mean((1, 2)).max())
    assert abs(np.mean(told)) < 3 * np.std(told) / 20
    assert np.mean(best) > 1.5


def test_a_gain_of_sixty_points_on_five_objects_is_offered():
    verdict = found(0.6, 0.5, 0.7, 0.6, 0.6).verdict()
    assert not verdict.refusal(5, 5)
    assert verdict.choice == AdaptationChoice(1.0, False)
    assert verdict.chance == 1 / 32
    assert verdict.before == pytest.approx((40, 80))
    assert verdict.after == pytest.approx((100, 80))
    assert verdict.gain == pytest.approx(30)
    assert verdict.noise == pytest.approx(
        100 * np.std([0.3, 0.25, 0.35, 0.3, 0.3], ddof=1) / 5**0.5
    )


def test_chance_is_that_of_the_signs_of_whole_objects():
    """As good are only itself, the flip of an object without a gain, and that of any one object."""
    assert found(*[0.3] * 6).verdict().chance == 1 / 64
    assert found(0.3, 0.3, 0.3, 0.3, 0.0).verdict().chance == 2 / 32
    assert found(0.3, 0.3, 0.3, 0.3, 0.3, -0.3).verdict().chance == 7 / 64
    assert found(*[0.08] * 5, other=-0.3).verdict().chance == 1 / 32, "a loser does not count"
    many = found(*[0.3] * 40).verdict()
    assert many.chance == 1 / 4096
    assert many == found(*[0.3] * 40).verdict(), "the same flips each time"


def test_gain_that_is_told_is_of_the_choice_of_the_other_folds():
    """By one choice two objects gain, by the other the rest; each fails where it counts."""
    folds = [[0, 1], [2, 3], [4, 5]]
    before = {number: [0.5, 0.5] for number in range(6)}
    first, second = np.full((6, 2), 0.5), np.full((6, 2), 0.5)
    first[:2] += 0.3
    second[2:] += 0.1
    after = [[first[fold].tolist(), second[fold].tolist()] for fold in folds]
    verdict = Evidence(BOTH, folds, before, after).verdict()
    told = np.full((6, 2), 0.5)
    told[2:] = first[2:]  # the first two objects choose it for the others, in vain
    told[:2] = second[:2]
    assert verdict.after == LeftOutScores.of(told)
    assert verdict.gain == pytest.approx(0)


def test_refusals_say_what_was_found_and_what_would_do():
    chance = found(0.4, 0.4, 0.4, 0.4, -0.1).verdict()
    assert begins(chance.refusal(5, 5), BY_CHANCE)
    assert "6 % of useless trainings" in chance.refusal(5, 5)
    small = found(*[0.015] * 5).verdict()
    assert small.chance <= CHANCE
    assert small.refusal(5, 5) == NOT_BETTER.format("5 objects", 0.75, evidence.MIN_GAIN)
    loses = found(*[0.6] * 5, box=-0.06, other=-0.7).verdict()
    assert loses.refusal(5, 5) == ONE_LOSES.format("5 objects", "a click", 60, "a box", -6)


def test_a_leap_is_offered_though_one_object_gains_nothing():
    verdict = found(0.9, 0.8, 0.9, -0.01, 0.9).verdict()
    assert verdict.chance == 2 / 32
    assert verdict.gain >= LEAP
    assert not verdict.refusal(5, 5)
    assert verdict._replace(noise=verdict.gain / LEAP_NOISE).refusal(5, 5)


def test_fewer_than_five_objects_need_a_leap():
    small, large, uneven = found(*[0.5] * 4), found(*[0.65] * 4), found(1.9, 0.1, 0.4, 0.1)
    assert small.verdict().refusal(4, 4) == FEW_TOLD.format("4 objects", 25, "5 objects", LEAP)
    assert not large.verdict().refusal(4, 4)
    verdict = uneven.verdict()
    assert verdict.gain > LEAP
    needed = LEAP_NOISE * verdict.noise
    assert verdict.refusal(4, 4) == NOT_BETTER.format("4 objects", verdict.gain, needed)


def test_learning_is_not_begun_where_too_little_is_left():
    good, fair = LeftOutScores(97, 98), LeftOutScores(70, 80)
    assert nothing_to_gain("tiny", good, 5) == ALREADY_GOOD.format("tiny", 97.5)
    assert nothing_to_gain("tiny", good, 3) == ALREADY_GOOD.format("tiny", 97.5)
    assert nothing_to_gain("tiny", fair, 3) == FEW_LEFT.format("tiny", 75, "5 objects", LEAP)
    assert not nothing_to_gain("tiny", fair, 5)
    assert not nothing_to_gain("tiny", LeftOutScores(10, 80), 3)


def test_one_fold_alone_says_nothing():
    all_folds = found(*[0.3] * 6)
    assert all_folds.is_conclusive
    assert not replace(all_folds, after=all_folds.after[:1]).is_conclusive
    assert replace(all_folds, after=all_folds.after[:2]).verdict().gain == pytest.approx(15)


def test_refusal_names_the_object_that_gains_far_less():
    evidence = found(0.1, 0.1, -0.5, 0.1, 0.1, other=-0.6)
    hindrance = evidence.hindrance()
    assert hindrance is not None
    assert hindrance.number == 2
    # The click loses 50 points and the box stays; those of the others gain 10.
    assert hindrance.told(7) == LOSES_ALONE.format(7, -25, 5)
    assert found(0.1, 0.1, 0.1, 0.1, 0.1).hindrance() is None
    assert found(0.1, 0.1, -0.1, 0.1, 0.1).hindrance() is None, "10 points below the others"
    assert found(0.1, 0.1, -0.5).hindrance() is None, "of three none stands apart"


def test_refusal_names_the_object_that_fits_far_less():
    before = {3: [0.9, 0.94], 4: [0.9, 0.94], 5: [0.44, 0.52], 6: [0.9, 0.94]}
    nothing_learned = Evidence(BOTH, [[3, 4], [5, 6]], before, [])
    hindrance = nothing_learned.hindrance()
    assert hindrance is not None
    assert hindrance.told(12) == FITS_LEAST.format(12, 48, 92)
    after = [[[before[n] for n in fold]] * 2 for fold in ([3, 4], [5, 6])]
    assert Evidence(BOTH, [[3, 4], [5, 6]], before, after).hindrance() == hindrance
