"""A scribble as an unsteady hand draws it, along bars whose middle is known."""

import numpy as np

from napari_simmat.engine.scribbles import MOST_POINTS
from simmat_research.finishing import SimulatedUser
from simmat_research.strokes import scribble_over
from tests.scripted_predictor import Scripted


def bar(rows, columns):
    mask = np.zeros((60, 100), bool)
    mask[rows, columns] = True
    return mask


def test_scribble_runs_along_the_middle_of_the_largest_part():
    truth = bar(slice(20, 40), slice(10, 90))
    wrong = bar(slice(20, 29), slice(10, 90)) | bar(slice(50, 52), slice(0, 20))
    line, label = scribble_over(wrong, truth, seed=0)
    assert label == 1
    assert len(line) == MOST_POINTS
    assert np.sqrt(np.mean((line[:, 0] - 24) ** 2)) < 0.4 * 4.5, "half widths of the bar"
    assert np.ptp(line[:, 1]) > 60
    _, label = scribble_over(bar(slice(50, 55), slice(0, 50)), truth, seed=0)
    assert label == 0
    assert not np.array_equal(*(scribble_over(wrong, truth, seed)[0] for seed in (0, 1)))


def test_scribble_over_a_pixel_is_a_click():
    pixel = bar(slice(30, 31), slice(7, 8))
    line, label = scribble_over(pixel, np.zeros_like(pixel), seed=0)
    assert line.shape == (1, 2)
    assert np.abs(line - (30, 7)).max() <= 1
    assert label == 0


def test_box_and_scribbles_are_counted_until_an_object_is_done():
    labels = np.where(bar(slice(20, 40), slice(10, 90)), 1, 0).astype(np.int32)
    half = bar(slice(30, 40), slice(10, 90))
    whole = labels > 0
    user = SimulatedUser(labels)
    # The box gives half; the model follows the scribble, and is asked again from the mask.
    actions, mask = user.box_and_scribbles(Scripted(half, whole, whole), 1)
    assert actions == 2
    assert user.is_done(1, mask)
