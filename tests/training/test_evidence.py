"""Learning that teaches nothing is rarely offered, learning that teaches much nearly always."""

from dataclasses import replace

import numpy as np
import pytest

from napari_simmat.training import evidence
from napari_simmat.training.evidence import (
    ALREADY_GOOD,
    BY_CHANCE,
    FEW_LEFT,
    FITS_LEAST,
    LOSES_ALONE,
    NOT_BETTER,
    ONE_LOSES,
    TOTAL_CHANCE,
    AdaptationChoice,
    Evidence,
    LeftOutScores,
    chance_of_folds,
    chance_of_objects,
    least_count,
    least_gain,
    level_of,
    nothing_to_gain,
)
from tests.nightly import nightly_but
from tests.training.simulated_learning import (
    SKEWED,
    USELESS,
    gain_or_loss,
    gain_or_loss_by_choice,
    measured_runs,
    normal_luck,
    offered,
    offered_at_last,
    offered_of_measured,
    simulated,
    three_clicks,
    together,
)

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
@pytest.mark.parametrize("objects", nightly_but((3, 4, 5, 8, 20), 20))
def test_useless_learning_is_offered_in_at_most_one_of_twenty(draw, objects):
    """For few and many objects, and each by the mean of three spreads of a click."""
    shares = [len(offered(draw, objects, spread, 120)) / 120 for spread in (0.05, 0.15, 0.25)]
    assert np.mean(shares) <= 0.05


@pytest.mark.parametrize("draw", SKEWED, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("objects", nightly_but((3, 5, 10, 30, 40), 5))
def test_skewed_gains_are_offered_as_rarely(draw, objects):
    """As useless on average, though most objects gain and with luck no loser is left out."""
    assert len(offered(draw, objects, 0.6, 200)) <= 10


@pytest.mark.parametrize("luck", [0.1, 0.2])
def test_trainings_that_are_lucky_are_offered_as_rarely(luck):
    lucky = offered(together, 20, 0.01, 200, luck=normal_luck(luck))
    assert len(lucky) <= 10


@pytest.mark.parametrize("more", [0, 3], ids=["the same objects", "more objects"])
@pytest.mark.parametrize("draw", [gain_or_loss, gain_or_loss_by_choice])
def test_eight_presses_offer_something_useless_as_rarely_as_one(draw, more):
    assert offered_at_last(draw, 10, 0.15, 100, more) <= 0.05


def test_centered_gains_are_refused():
    """On each image, of which one passed a third of the time by a test of signs."""
    shares = {name: offered_of_measured(scores, 5, 40) for name, scores in measured_runs()}
    assert max(shares.values()) <= 0.05, shares


@pytest.mark.parametrize(("objects", "gain", "least"), [(10, 0.6, 0.75), (20, 0.4, 0.85)])
def test_learning_that_teaches_much_is_offered(objects, gain, least):
    assert len(offered(three_clicks, objects, 0.1, 100, gain)) >= 100 * least


def test_chance_of_objects_is_that_of_random_weights():
    """Of gains alike a, the loser's weight must be above a / (a + loss): (loss / (a + loss)) ** n.

    Otherwise the share of weights that show no gain, drawn here.
    """
    assert chance_of_objects(np.full(5, 30.0), 60) == pytest.approx((60 / 90) ** 5)
    assert chance_of_objects(np.full(5, -30.0), 60) == 1
    assert chance_of_objects(np.zeros(5), 60) == 1
    assert chance_of_objects(np.full(5, 1.0), 0) == 0, "there was nothing to lose"
    rng = np.random.default_rng(0)
    gains = np.array([30.0, 12, -8, 0, 25, 25, -3, 40])
    weights = rng.dirichlet(np.ones(len(gains) + 1), 200_000)
    share = np.mean(weights @ np.append(gains, -50) <= 0)
    assert chance_of_objects(gains, 50) == pytest.approx(share, abs=0.004)


def test_chance_of_folds_is_students():
    assert chance_of_folds([1.0, 3.0]) == pytest.approx(0.5 - np.arctan(2) / np.pi)
    assert chance_of_folds([5.0, 5.0, 5.0]) == 0
    assert chance_of_folds([0.0, 0.0]) == 1


def test_levels_of_all_tries_together_are_the_total():
    assert sum(map(level_of, range(1, 10_000))) == pytest.approx(TOTAL_CHANCE, rel=1e-3)
    assert level_of(2) == level_of(1) / 4


def test_the_fewest_objects_gain_what_the_least_gain_says():
    for count in (3, 10, 40):
        gain = least_gain(count, 60, 2)
        assert chance_of_objects(np.full(count, gain), 60) == pytest.approx(level_of(2))
        assert least_count(gain + 0.01, 60, 2) == count
        assert least_count(gain - 0.01, 60, 2) == count + 1


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


def test_a_gain_of_sixty_points_on_ten_objects_is_offered():
    gains = [0.6, 0.5, 0.7, 0.6, 0.6] * 2
    verdict = found(*gains).verdict()
    assert not verdict.refusal(10)
    assert verdict.choice == AdaptationChoice(1.0, False)
    assert verdict.before == pytest.approx((40, 80))
    assert verdict.after == pytest.approx((100, 80))
    assert verdict.gain == pytest.approx(30)
    assert verdict.chance == pytest.approx(chance_of_objects(50 * np.array(gains), 60))
    assert verdict.noise == pytest.approx(50 * np.std(gains, ddof=1) / 10**0.5)
    assert verdict.refusal(10, 2), "at a second try it would be too likely"


def test_training_lucky_in_one_fold_is_refused():
    """Sixteen objects gain 45 points and eight one: too much for chance, were each on its own."""
    verdict = found(*[0.9] * 16, *[0.02] * 8).verdict()
    of_objects = chance_of_objects(np.repeat([45.0, 1.0], [16, 8]), verdict.before.mean)
    assert of_objects < level_of(1) < verdict.chance


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
    verdict = found(0.4, 0.4, 0.4, 0.4, 0.4).verdict()  # (60 / 80) ** 5 is 24 %
    more = least_count(20, 60) - 5
    said = BY_CHANCE.format("5 objects", 20, "24 %", "1.8 %", "", more)
    assert verdict.refusal(5) == said
    third = verdict.refusal(5, 3)
    assert "0.2 % would do at try 3 on this image" in third
    small = found(*[0.015] * 5).verdict()
    assert small.refusal(5) == NOT_BETTER.format("5 objects", 0.75, evidence.MIN_GAIN)
    loses = found(*[0.6] * 5, box=-0.06, other=-0.7).verdict()
    assert loses.refusal(5) == ONE_LOSES.format("5 objects", "a click", 60, "a box", -6)


def test_learning_is_not_begun_where_too_little_is_left():
    good, fair = LeftOutScores(97, 98), LeftOutScores(70, 80)
    assert nothing_to_gain("tiny", good, 5) == ALREADY_GOOD.format("tiny", 97.5)
    # All that is left is 25 points: (75 / 100) ** 13 is 2.4 %, ** 14 is 1.8 %.
    assert nothing_to_gain("tiny", fair, 5) == FEW_LEFT.format("tiny", 75, "5 objects", "", 14)
    assert nothing_to_gain("tiny", fair, 13)
    assert not nothing_to_gain("tiny", fair, 14)
    assert nothing_to_gain("tiny", fair, 14, 2), "at a second try it takes more"
    assert not nothing_to_gain("tiny", LeftOutScores(0, 0), 3)


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
