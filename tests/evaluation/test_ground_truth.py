"""Where a user would click, and how well masks agree."""

import numpy as np
import pytest
from scipy import ndimage

from napari_simmat.engine.masks import iou, label_windows
from napari_simmat.evaluation.ground_truth import GroundTruthObject, correcting_click
from napari_simmat.evaluation.metrics import dice


def test_correcting_click_lies_in_the_largest_error():
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


def test_ground_truth_middle_lies_deepest_inside():
    labels = np.zeros((20, 30), np.int64)
    labels[2:5, 2:28] = labels[2:17, 2:11] = 2_000_000_000  # an L, thick below
    labels[19, 29], labels[19, 0] = 3, -5
    (_, window), (label, other) = label_windows(labels)
    y, x = GroundTruthObject(labels, label, other).middle
    assert 5 <= y <= 13
    assert 5 <= x <= 7
    assert GroundTruthObject(labels, 3, window).middle == (19, 29)
    assert label_windows(np.zeros((3, 4), int)) == []


@pytest.mark.parametrize("seed", range(3))
def test_agreement_equals_that_of_whole_images(seed):
    """Blobs anywhere, also at the border: the same figures as from whole images."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(2, 60, 80)), (0, 4, 4))
    truth = noise[0] > np.quantile(noise[0], 0.8)
    ours = (noise[0] + 0.5 * noise[1]) > np.quantile(noise[0], 0.8)
    labels = np.where(truth, 5, 0)
    ((label, window),) = label_windows(labels)
    reached = GroundTruthObject(labels, label, window).agreement(ours)
    assert reached == (iou(ours, truth), dice(ours, truth))
    assert 0 < reached[0] < 1
