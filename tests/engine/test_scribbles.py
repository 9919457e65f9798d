"""A line drawn over or around: what changes and what stays, on bars that can be counted."""

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_simmat.engine.outlines import shape_mask
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.scribbles import (
    as_model_sees,
    correct_by_scribble,
    drawn_outline,
    pixels_along,
    settle_rim,
)

SHAPE = (60, 100)
BAR = np.zeros(SHAPE, bool)
BAR[20:40, 10:90] = True


def without(rows: slice, columns: slice) -> np.ndarray:
    mask = BAR.copy()
    mask[rows, columns] = False
    return mask


RECTANGLE = ((5.0, 5.0), (5.0, 45.0), (25.0, 45.0), (25.0, 5.0), (5.0, 5.0))
"""A line around rows 5 to 25, columns 5 to 45."""


def as_scribble(line, label=1, **named):
    return Prompt(points=line, labels=[label] * len(line), scribbles=[1] * len(line), **named)


def share_of_wrong(found: np.ndarray, mask: np.ndarray) -> float:
    return float(np.count_nonzero(found ^ BAR) / np.count_nonzero(mask ^ BAR))


def test_pixels_along_are_those_that_the_line_passes():
    rows, columns = pixels_along([(2, 3), (2, 6), (-5, 6)], (10, 8))
    expected = {(2, 3), (2, 4), (2, 5), (2, 6), (1, 6), (0, 6)}
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected, "each on the plane"
    assert len(rows) == len(expected)


@pytest.mark.parametrize(
    ("rows", "columns", "line"),
    [
        (slice(20, 26), slice(10, 90), [(22.5, 12), (22.5, 87)]),  # a strip along the bar
        (slice(20, 40), slice(80, 90), [(25, 84.5), (34, 84.5)]),  # its end
    ],
)
def test_scribble_over_what_is_missing_adds_it(rows, columns, line):
    mask = without(rows, columns)
    found = correct_by_scribble(mask, [BAR], line, 1)
    assert not (mask & ~found).any(), "a positive line takes nothing away"
    assert share_of_wrong(found, mask) < 0.1
    alone = correct_by_scribble(mask, [mask], line, 1)
    assert share_of_wrong(alone, mask) < 0.6, "even if the model does not follow"
    assert not (alone & ~BAR).any(), "the line is sure of its middle only"


def test_scribble_over_what_is_too_much_takes_it_away():
    mask = BAR.copy()
    mask[40:48, 10:90] = True
    line = [(43.5, 12), (43.5, 87)]
    found = correct_by_scribble(mask, [BAR], line, 0)
    assert not (found & ~mask).any(), "a negative line adds nothing"
    assert share_of_wrong(found, mask) < 0.1
    assert found[20:39].sum() == BAR[20:39].sum(), "far from the line all is as it was"


def test_model_decides_on_the_rim_alone():
    mask = without(slice(20, 26), slice(10, 90))
    elsewhere = BAR.copy()
    elsewhere[45:55, 40:60] = True
    found = correct_by_scribble(mask, [elsewhere], [(22.5, 12), (22.5, 87)], 1)
    assert not found[45:55].any(), "another object is not taken along"


def test_far_line_adds_no_more_than_the_object_is_broad():
    small = np.zeros(SHAPE, bool)
    small[28:32, 2:6] = True  # 16 pixels, a disk of radius 2.3
    found = correct_by_scribble(small, [small], [(30, 80), (30, 90)], 1)
    added = np.argwhere(found & ~small)
    assert np.abs(added[:, 0] - 30).max() <= 1
    assert added[:, 1].min() >= 78


def test_line_along_the_whole_middle_does_not_erase_the_object():
    kept = without(slice(28, 32), slice(10, 90))
    found = correct_by_scribble(BAR, [kept], [(29.5, 12), (29.5, 87)], 0)
    assert np.array_equal(found, kept), "it is cut in two, as the model says"


def test_line_on_the_right_side_changes_nothing():
    assert np.array_equal(correct_by_scribble(BAR, [BAR], [(30, 20), (30, 80)], 1), BAR)


def test_model_sees_few_clicks_of_an_open_line():
    line = [(float(n), 3.0) for n in range(40)]
    seen = as_model_sees(as_scribble(line, box=(0, 0, 50, 20)), SHAPE)
    assert len(seen.points) == 8
    assert (seen.points[0], seen.points[-1]) == (line[0], line[-1])
    assert seen.labels == (1,) * 8
    assert seen.box == (0, 0, 50, 20)
    short = as_scribble(line[:5])
    assert as_model_sees(short, SHAPE).points == short.points


def test_model_sees_no_click_of_a_line_that_closes():
    beside = as_model_sees(as_scribble(RECTANGLE, label=0, box=(0, 0, 50, 60)), SHAPE)
    assert (beside.points, beside.box, beside.mask) == ((), (0, 0, 50, 60), None)
    alone = as_model_sees(as_scribble(RECTANGLE), SHAPE)
    assert (alone.points, alone.box) == ((), (5, 5, 26, 46))
    assert alone.mask is not None
    assert alone.mask.sum() == 21 * 41
    absent = as_scribble(RECTANGLE, label=0)
    assert as_model_sees(absent, SHAPE).points == absent.points, "or nothing would be left"


def test_drawn_outline_is_the_line_with_which_a_prompt_begins():
    drawn = drawn_outline(as_scribble(RECTANGLE), SHAPE)
    assert np.array_equal(drawn, shape_mask("polygon", RECTANGLE, SHAPE))
    for other in (
        Prompt(box=(0, 0, 9, 9)),
        Prompt(mask=BAR),
        Prompt(box=(10, 10, 20, 20), mask=BAR),  # an ellipse, or a box and a mask of a file
        as_scribble(RECTANGLE, box=(0, 0, 9, 9)),
        Prompt(points=((1, 1), *RECTANGLE), scribbles=(0, *[1] * 5)),
    ):
        assert drawn_outline(other, SHAPE) is None


def test_model_settles_the_rim_of_an_outline_alone():
    predicted = np.zeros(SHAPE, bool)
    predicted[24:60, :] = True  # four rows less above, all rows below
    found = settle_rim(BAR, predicted)
    assert not found[:18].any()
    assert not found[43:].any(), "15 % of a half width of 10 and a half are a pixel and a half"
    assert found[22:38, 12:88].all(), "the model takes no more than the rim"
    assert found[40, 12:88].all(), "but the rim it does"
    assert not found[20, 10:90].any()
    assert settle_rim(np.ones(SHAPE, bool), predicted)[30:].all()


@pytest.mark.parametrize("seed", range(6))
def test_windows_of_an_outline_change_no_distance(seed):
    rng = np.random.default_rng(seed)
    drawn = ndi.gaussian_filter(rng.normal(size=SHAPE), 5) > 0.02 * (seed % 3 - 1)
    predicted = ndi.gaussian_filter(rng.normal(size=SHAPE), 4) > 0
    inner, outer = (ndi.distance_transform_edt(side) for side in (drawn, ~drawn))
    reach = 0.15 * inner.max()
    expected = (inner > reach) | (predicted & (outer <= reach))
    assert np.array_equal(settle_rim(drawn, predicted), expected)
    assert drawn[:, [0, -1]].any(), "also at the border"
