"""A click on a mask that is there: what changes and what stays, on discs that can be counted."""

from typing import Any

import numpy as np

from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.refinement import Refiner, contradicts, correct_mask
from napari_simmat.engine.result import Result
from napari_simmat.progress import finish

SHAPE = (80, 120)


def disc(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.indices(SHAPE)
    return np.asarray(np.hypot(rows - y, columns - x) < radius)


def wrong(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.count_nonzero(one ^ other))


def test_contradicts_compares_click_and_mask():
    mask = disc(40, 40, 15)
    assert contradicts(mask, [(40, 40)], 0)
    assert contradicts(mask, [(40, 70)], 1)
    assert not contradicts(mask, [(40, 40)], 1)
    assert not contradicts(mask, [(40.4, 500)], 0), "beyond the image counts as its border"


def test_correct_mask_takes_a_change_around_the_click():
    one, two = disc(40, 40, 15), disc(40, 68, 15)
    assert np.array_equal(correct_mask(one | two, [one], (40, 68), 0), one)
    assert np.array_equal(correct_mask(one, [one | two], (40, 68), 1), one | two)


def test_correct_mask_keeps_what_changed_elsewhere():
    one, two, other = disc(40, 30, 12), disc(40, 52, 12), disc(40, 100, 10)
    result = one | other  # without the second disc, as was asked, and with a third unasked
    assert np.array_equal(correct_mask(one | two, [result], (40, 54), 0), one)


def test_correct_mask_refuses_another_object():
    mask, other = disc(40, 40, 20), disc(20, 100, 15)
    found = correct_mask(mask, [other], (40, 58), 0)
    assert not found[40, 58]
    assert not (found & other).any()
    assert wrong(found, mask) < 0.35 * np.count_nonzero(mask)


def test_correct_mask_at_the_outline_moves_all_of_it():
    mask, right = disc(40, 40, 20), disc(40, 40, 17)
    found = correct_mask(mask, [mask], (40.0, 58.0), 0)
    assert wrong(found, right) < 0.6 * wrong(mask, right)
    grown = correct_mask(right, [right], (40.0, 58.0), 1)
    assert wrong(grown, mask) < 0.6 * wrong(right, mask)


class Stubborn:
    """A stand-in for a predictor that always answers with one mask."""

    def __init__(self, result: np.ndarray) -> None:
        self.result = result
        self.asked: list[Prompt] = []

    def predict_many_job(self, prompts: Any) -> Any:
        yield from ()
        self.asked += prompts
        return [Result.of_mask(self.result)] * len(prompts)


def test_refine_of_a_given_mask_corrects_click_by_click():
    mask = disc(40, 40, 20)
    refiner, predictor = Refiner(), Stubborn(disc(20, 100, 15))
    first = Prompt(points=[(40, 58)], labels=[0], mask=mask)
    both = Prompt(points=[(40, 58), (40, 22)], labels=[0, 0], mask=mask)
    [once], [twice] = (
        finish(refiner.refine_job(predictor, [prompt], "here"))  # type: ignore[arg-type]
        for prompt in (first, both)
    )
    assert not once.mask[40, 58]
    assert not twice.mask[40, 58]
    assert not twice.mask[40, 22]
    [fresh] = finish(Refiner().refine_job(predictor, [both], "here"))  # type: ignore[arg-type]
    assert np.array_equal(fresh.mask, twice.mask), "it follows from the clicks alone"
    agreeing = Prompt(points=[(40, 40)], labels=[1], mask=mask)
    [refined] = finish(refiner.refine_job(predictor, [agreeing], "here"))  # type: ignore[arg-type]
    assert np.array_equal(refined.mask, predictor.result)
