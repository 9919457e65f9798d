"""Metrics on masks that can be counted by hand."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.morphology import dilation, disk

from napari_simmat.engine.masks import iou
from napari_simmat.evaluation import metrics
from napari_simmat.evaluation.metrics import (
    boundary_f,
    boundary_pixels,
    dice,
)

MASKS = arrays(bool, st.tuples(st.integers(2, 9), st.integers(2, 9)))


def test_the_worked_examples_are_true():
    done = doctest.testmod(metrics)
    assert done.attempted >= 7
    assert done.failed == 0


def test_worked_example():
    ours = np.array([[1, 1, 0], [0, 0, 0]])
    theirs = np.array([[0, 1, 1], [1, 0, 0]])
    assert iou(ours, theirs) == 1 / 4
    assert dice(ours, theirs) == 2 / 5


def test_empty_masks():
    nothing, all_of_it = np.zeros((3, 3)), np.ones((3, 3))
    assert iou(nothing, nothing) == dice(nothing, nothing) == 1
    assert iou(nothing, all_of_it) == dice(nothing, all_of_it) == 0
    assert iou(nothing, nothing, empty=0.0) == 0


@given(st.data())
def test_symmetric_bounded_and_tied_together(data):
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    ours, theirs = (data.draw(arrays(bool, shape)) for _ in range(2))
    value = iou(ours, theirs)
    assert 0 <= value <= 1
    assert value == iou(theirs, ours)
    assert iou(ours, ours) == 1
    assert dice(ours, theirs) == pytest.approx(2 * value / (1 + value))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3,\) cannot be compared"):
        iou(np.ones((2, 2)), np.ones(3))
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3, 2\) cannot be compared"):
        boundary_f(np.ones((2, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"\(H, W\), got the shape \(2, 2, 2\)"):
        boundary_f(np.ones((2, 2, 2)), np.ones((2, 2, 2)))


def test_the_boundary_of_a_square_is_counted_by_hand():
    square = np.zeros((10, 10), bool)
    square[3:7, 3:7] = True
    # What differs from its right, lower or lower right neighbor: row 2 and column 2 outside (5
    # each, one shared), row 6 and column 6 inside (4 each, one shared).
    assert np.count_nonzero(boundary_pixels(square)) == 9 + 7
    assert not boundary_pixels(np.ones((5, 6))).any()


def test_boundaries_within_the_tolerance_agree():
    left, right = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
    left[:, :10], right[:, :13] = True, True  # two straight borders, 3 px apart
    assert boundary_f(left, right, 2) == (0, 0, 0)
    assert boundary_f(left, right, 3) == (1, 1, 1)
    assert boundary_f(left, right) == (0, 0, 0)  # 0.8 % of the diagonal: 1 px
    left[:, 25:], right[:, 25:] = True, True
    assert boundary_f(left, right, 2) == (0.5, 0.5, 0.5)


def test_boundaries_of_empty_and_full_masks_are_defined():
    nothing, something, full = np.zeros((9, 9)), np.zeros((9, 9)), np.ones((9, 9))
    something[3:5, 3:5] = 1
    assert boundary_f(nothing, nothing) == boundary_f(nothing, full) == (1, 1, 1)
    assert boundary_f(nothing, something) == (0, 1, 0)
    assert boundary_f(something, nothing) == (0, 0, 1)


@given(MASKS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_matching_by_distance_is_davis_dilation_with_scikit_image(mask, tolerance, random):
    other = np.roll(mask, (random.randint(-2, 2), random.randint(-2, 2)), (0, 1))
    mine, theirs = boundary_pixels(mask), boundary_pixels(other)
    reach = disk(tolerance)
    score = boundary_f(mask, other, tolerance)
    if mine.any() and theirs.any():
        precision = (mine & dilation(theirs, reach)).sum() / mine.sum()
        recall = (theirs & dilation(mine, reach)).sum() / theirs.sum()
        assert score[1:] == pytest.approx((precision, recall))
    assert boundary_f(mask, mask, 0) == (1, 1, 1)
    assert score.f == boundary_f(other, mask, tolerance).f
