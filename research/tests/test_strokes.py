"""A scribble as an unsteady hand draws it, along bars whose middle is known."""

import numpy as np
import pytest

from napari_simmat.engine.outlines import shape_mask
from simmat_research.finishing import SimulatedUser
from simmat_research.strokes import (
    length_of,
    line_around,
    outline_length,
    outline_of,
    scribble_over,
)
from tests.scripted_predictor import Scripted


def bar(rows, columns):
    mask = np.zeros((60, 100), bool)
    mask[rows, columns] = True
    return mask


def test_scribble_runs_along_the_middle_of_the_largest_part():
    truth = bar(slice(20, 40), slice(10, 90))
    wrong = bar(slice(20, 29), slice(10, 90)) | bar(slice(50, 52), slice(0, 20))
    line, length, label = scribble_over(wrong, truth, seed=0)
    assert label == 1
    assert 60 < length < length_of(line), "a hand that trembles has no longer way"
    assert np.sqrt(np.mean((line[:, 0] - 24) ** 2)) < 0.4 * 4.5, "half widths of the bar"
    assert np.ptp(line[:, 1]) > 60
    assert scribble_over(bar(slice(50, 55), slice(0, 50)), truth, seed=0).label == 0
    assert not np.array_equal(*(scribble_over(wrong, truth, seed).line for seed in (0, 1)))


def test_scribble_over_a_pixel_is_a_click():
    pixel = bar(slice(30, 31), slice(7, 8))
    line, length, label = scribble_over(pixel, np.zeros_like(pixel), seed=0)
    assert line.shape == (1, 2)
    assert np.abs(line - (30, 7)).max() <= 1
    assert (length, label) == (0, 0)


def test_box_and_scribbles_are_counted_until_an_object_is_done():
    labels = np.where(bar(slice(20, 40), slice(10, 90)), 1, 0).astype(np.int32)
    half = bar(slice(30, 40), slice(10, 90))
    whole = labels > 0
    user = SimulatedUser(labels)
    # The box gives half; the model follows the scribble, and is asked again from the mask.
    actions, mask = user.box_and_scribbles(Scripted(half, whole, whole), 1)
    assert actions == 2
    assert user.is_done(1, mask)


@pytest.mark.parametrize("expected", [1, 0])
def test_line_around_encloses_the_largest_wrong_part_alone(expected):
    truth = bar(slice(20, 40), slice(10, 90))
    mask = bar(slice(20, 40), slice(10, 60)) if expected else bar(slice(20, 50), slice(10, 90))
    line, _, label = line_around(mask ^ truth, truth, seed=0)
    assert label == expected
    enclosed = shape_mask("polygon", line, truth.shape)
    corrected = mask | enclosed if label else mask & ~enclosed
    wrong = np.count_nonzero(mask ^ truth)
    assert 0 < np.count_nonzero(corrected ^ truth) < 0.25 * wrong, "hands are not steady"


def test_line_is_not_drawn_around_what_surrounds_the_object():
    truth = bar(slice(20, 40), slice(30, 70))
    assert line_around(bar(slice(10, 50), slice(20, 80)) ^ truth, truth, seed=0) is None


def test_outline_is_off_by_a_tenth_of_the_half_width():
    truth = bar(slice(10, 50), slice(20, 80))
    drawn = shape_mask("polygon", outline_of(truth, seed=0).line, truth.shape)
    agreed = np.count_nonzero(drawn & truth) / np.count_nonzero(drawn | truth)
    assert 0.8 < agreed < 0.97
    assert outline_length(truth) == pytest.approx(200, rel=0.03)


def test_box_and_pen_outlines_an_object_once_and_counts_the_line():
    labels = np.where(bar(slice(10, 50), slice(20, 80)), 1, 0).astype(np.int32)
    wrong = bar(slice(0, 10), slice(0, 99))  # nothing of it: both would have to be encircled
    user = SimulatedUser(labels)
    actions, mask = user.box_and_pen(Scripted(wrong, labels > 0), 1)
    assert actions == 2
    assert user.is_done(1, mask)
    assert user.time.drawn == pytest.approx(200, rel=0.05), "about once around"
