"""True objects: where a click goes, and agreement as on the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_simmat.engine.masks import interior_point, iou, label_windows
from napari_simmat.evaluation.metrics import boundary_f, dice
from napari_simmat.evaluation.prompting import (
    GroundTruthObject,
    boundary_tolerance,
    correcting_click,
)


def test_the_middle_lies_deepest_inside():
    mask = np.zeros((20, 30), bool)
    mask[2:5, 2:28] = True
    mask[2:17, 2:11] = True  # the thick part of an L
    y, x = interior_point(mask, ties="median")
    assert 5 <= y <= 13
    assert 5 <= x <= 7
    assert interior_point(np.ones((1, 1), bool), ties="median") == (0, 0)
    assert interior_point(np.ones((5, 5), bool), ties="median") == (
        2,
        2,
    )  # the border of the image counts as outside


def test_corrections_go_to_the_largest_error():
    truth = np.zeros((20, 20), bool)
    truth[5:15, 5:15] = True
    assert correcting_click(truth, truth) is None
    (y, x), label = correcting_click(truth & (np.arange(20) < 9), truth)
    assert label == 1
    assert 9 <= x < 15
    assert 5 <= y < 15
    (y, x), label = correcting_click(truth | (np.arange(20) > 13), truth)
    assert label == 0
    assert x > 13


def test_labels_may_be_any_whole_numbers() -> None:
    labels = np.array([[-5, 0, 2_000_000_000], [-5, 3, 2_000_000_000]], np.int64)
    assert label_windows(labels) == [
        (3, (slice(1, 2), slice(1, 2))),
        (2_000_000_000, (slice(0, 2), slice(2, 3))),
    ]
    assert label_windows(np.zeros((3, 4), int)) == []


@pytest.mark.parametrize("seed", range(8))
def test_the_part_of_the_image_that_is_looked_at_decides_nothing(seed: int) -> None:
    """Blobs anywhere, also at the border: the same figures as from whole images."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, 60, 80)), (0, 4, 4))
    truth = noise[0] > np.quantile(noise[0], 0.8)
    ours = (noise[0] + 0.5 * noise[1]) > np.quantile(noise[0], 0.8)
    labels = np.where(truth, 5, 0)
    ((label, window),) = label_windows(labels)
    reached = GroundTruthObject(labels, label, window).agreement(ours)
    tolerance = boundary_tolerance(truth.shape, int(truth.sum()))
    assert reached.iou == iou(ours, truth)
    assert reached.dice == dice(ours, truth)
    assert reached.boundary_f == boundary_f(ours, truth, tolerance).f
    assert 0 < reached.boundary_f < 1


def test_a_boundary_may_be_off_by_a_tenth_of_the_object_at_most() -> None:
    """An image of 600 x 800 has a diagonal of 1000 pixels, so 8 in DAVIS' way."""
    area = np.pi / 4
    assert boundary_tolerance((600, 800), round(area * 300**2)) == 8
    assert boundary_tolerance((600, 800), round(area * 40**2)) == pytest.approx(4, abs=0.01)
    assert boundary_tolerance((600, 800), 4) == 1
