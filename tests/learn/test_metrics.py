"""Metrics on masks that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_simmat.learn.metrics import dice, iou


def test_worked_example():
    ours = np.array([[1, 1, 0], [0, 0, 0]])
    theirs = np.array([[0, 1, 1], [1, 0, 0]])
    assert iou(ours, theirs) == 1 / 4
    assert dice(ours, theirs) == 2 / 5


def test_empty_masks():
    nothing, all_of_it = np.zeros((3, 3)), np.ones((3, 3))
    assert iou(nothing, nothing) == dice(nothing, nothing) == 1
    assert iou(nothing, all_of_it) == dice(nothing, all_of_it) == 0


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
