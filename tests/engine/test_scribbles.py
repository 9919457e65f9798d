"""A line drawn over a mask: what changes and what stays, on bars that can be counted."""

import numpy as np
import pytest

from napari_simmat.engine.scribbles import correct_by_scribble, pixels_along, points_along

SHAPE = (60, 100)
BAR = np.zeros(SHAPE, bool)
BAR[20:40, 10:90] = True


def without(rows: slice, columns: slice) -> np.ndarray:
    mask = BAR.copy()
    mask[rows, columns] = False
    return mask


def share_of_wrong(found: np.ndarray, mask: np.ndarray) -> float:
    return float(np.count_nonzero(found ^ BAR) / np.count_nonzero(mask ^ BAR))


def test_points_along_are_few_and_equally_far_apart():
    corner = np.array([(0.0, 0.0), (0.0, 35.0), (35.0, 35.0)])
    points = points_along(corner)
    assert points.tolist()[0] == [0, 0]
    assert points.tolist()[-1] == [35, 35]
    assert len(points) == 8
    assert len(points_along(corner[:1])) == 1


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
