"""Metrics of masks and label images, counted by hand and compared with MONAI's."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage as ndi
from skimage.measure import label

from napari_simmat.engine.masks import iou
from napari_simmat.evaluation import metrics
from napari_simmat.evaluation.label_scores import DONE, score_labels
from napari_simmat.evaluation.metrics import (
    Matching,
    dice,
    match_at_thresholds,
    pairwise_iou,
    sum_matchings,
    without_covered,
)
from tests.nightly import nightly_but


def test_iou_and_dice_of_a_small_mask_are_counted_by_hand():
    ours = np.array([[1, 1, 0], [0, 0, 0]])
    theirs = np.array([[0, 1, 1], [1, 0, 0]])
    assert iou(ours, theirs) == 1 / 4
    assert dice(ours, theirs) == 2 / 5


def test_iou_and_dice_of_empty_masks_are_defined():
    nothing, all_of_it = np.zeros((3, 3)), np.ones((3, 3))
    assert iou(nothing, nothing) == dice(nothing, nothing) == 1
    assert iou(nothing, all_of_it) == dice(nothing, all_of_it) == 0
    assert iou(nothing, nothing, empty=0.0) == 0


@given(st.data())
def test_iou_is_symmetric_bounded_and_determines_dice(data):
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    ours, theirs = (data.draw(arrays(bool, shape)) for _ in range(2))
    value = iou(ours, theirs)
    assert 0 <= value <= 1
    assert value == iou(theirs, ours)
    assert iou(ours, ours) == 1
    assert dice(ours, theirs) == pytest.approx(2 * value / (1 + value))


def test_iou_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3,\) cannot be compared"):
        iou(np.ones((2, 2)), np.ones(3))


def test_labels_covered_by_more_than_half_are_left_out():
    labels = np.array([[3, 3, 3, 3, 8, 8, 8, 8, 0]])
    half, more = np.array([[1, 1, 0, 0, 1, 1, 1, 0, 1]]) > 0, np.ones((1, 9), bool)
    assert without_covered(labels, half).tolist() == [[3, 3, 3, 3, 0, 0, 0, 0, 0]]
    assert not without_covered(labels, more).any()
    assert without_covered(labels, ~more).tolist() == labels.tolist()


LABELS = arrays(np.int32, (5, 6), elements=st.integers(0, 4))


def match(found, truth, threshold=0.5):
    [matching] = match_at_thresholds(found, truth, (threshold,))
    return matching


@pytest.fixture(scope="module")
def images():
    """Objects found, and the truth, alike to different degrees."""
    pairs = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        field = ndi.gaussian_filter(rng.standard_normal((96, 80)), 4)
        other = field + (0.1 + 0.3 * seed) * ndi.gaussian_filter(rng.standard_normal((96, 80)), 4)
        pairs.append((label(other > 0.5 * other.std()), label(field > 0.5 * field.std())))
    return pairs


def test_docstring_examples_run():
    done = doctest.testmod(metrics)
    assert done.attempted >= 6
    assert done.failed == 0


def test_matching_of_a_scene_is_counted_by_hand():
    truth, found = np.zeros((2, 20), int), np.zeros((2, 20), int)
    truth[:, 0:4], truth[:, 6:10], truth[:, 12:16] = 1, 2, 3
    found[:, 0:4], found[:, 6:9], found[:, 15:18], found[:, 19:] = 3, 1, 8, 9
    # IoUs: 1, 3/4, 2/12; one more is invented.
    assert match(found, truth) == Matching(2, 2, 1, 1.75)
    assert match(found, truth).quality == pytest.approx((1.75 / 3.5, 1.75 / 2, 2 / 3.5))
    precision = [match(found, truth, at).average_precision for at in (0.1, 0.5, 0.75, 0.9)]
    np.testing.assert_allclose(precision, [3 / 4, 2 / 5, 2 / 5, 1 / 6])


@pytest.mark.parametrize(("pixels", "threshold"), [(2, 0.5), (3, 0.75)])
def test_iou_that_equals_the_threshold_reaches_it(pixels, threshold):
    """One of two objects is found in part: of four pixels so many, so that IoU is the threshold."""
    truth, found = np.zeros((1, 12), int), np.zeros((1, 12), int)
    truth[0, :4], truth[0, 6:10] = 1, 2
    found[0, :pixels] = 5
    assert match(found, truth, threshold) == Matching(1, 0, 1, threshold)
    assert match(found, truth, threshold).average_precision == 1 / 2
    assert match(found, truth, np.nextafter(threshold, 1)) == Matching(0, 1, 2, 0)
    score = score_labels(found, truth, np.zeros(truth.shape, bool))
    assert score.missed == (2 if threshold < DONE else 1)
    assert score.matchings[1].false_negatives == score.missed, "found is what AP counts"


def test_objects_that_do_not_meet_are_no_pair_at_any_threshold():
    truth, found = np.array([[1, 1, 0, 0]]), np.array([[0, 0, 2, 2]])
    assert match(found, truth, 0.0) == Matching(0, 1, 1, 0)


def test_match_prefers_two_pairs_to_the_best_one():
    """Taken greedily, the best pair (4/9) would leave the two others alone."""
    truth = np.array([[1, 1, 1, 1, 1, 1, 2, 2, 2]])
    found = np.array([[1, 1, 2, 2, 2, 2, 2, 2, 2]])
    np.testing.assert_allclose(pairwise_iou(found, truth), [[2 / 6, 0], [4 / 9, 3 / 7]])
    assert match(found, truth, 0.3) == Matching(2, 0, 0, pytest.approx(2 / 6 + 3 / 7))


def test_matching_of_empty_images_is_defined():
    nothing, one = np.zeros((4, 4), np.uint16), np.ones((4, 4), np.uint16)
    assert match(nothing, nothing) == Matching(0, 0, 0, 0)
    assert match(nothing, nothing).quality == (1, 1, 1)
    assert match(nothing, nothing).average_precision == 1
    assert match(one, nothing) == Matching(0, 1, 0, 0)
    assert match(nothing, one) == Matching(0, 0, 1, 0)
    assert match(one, nothing).quality == match(nothing, one).quality == (0, 0, 0)
    assert match(one, nothing).average_precision == 0
    assert sum_matchings([]) == Matching(0, 0, 0, 0)


@given(LABELS, LABELS, st.sampled_from((0.0, 0.3, 0.5, 0.8)))
@settings(deadline=None)
def test_match_ignores_ids_and_mirrors_its_sides(found, truth, threshold):
    there = match(found, truth, threshold)
    assert match(found * 7, truth + 3 * (truth > 0), threshold) == there
    back = match(truth, found, threshold)
    assert back[:3] == (there[0], there[2], there[1])
    assert back.iou_sum == pytest.approx(there.iou_sum)
    same = match(truth, truth, threshold)
    assert same.quality == (1, 1, 1)
    pq, sq, rq = there.quality
    assert pq == pytest.approx(sq * rq) or not there.true_positives


@pytest.mark.parametrize("threshold", nightly_but((0.25, 0.5, 0.7, 0.9), 0.5))
def test_match_agrees_with_monai(images, threshold):
    """`compute_panoptic_quality` of MONAI: TP, FP, FN and the sum of IoUs at any threshold.

    MONAI takes IoUs above the threshold: one that equals it would be no pair, but here none does.
    """
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("monai.metrics.panoptic_quality").compute_panoptic_quality
    for found, truth in images:
        counts = reference(
            torch.tensor(found),
            torch.tensor(truth),
            match_iou_threshold=threshold,
            output_confusion_matrix=True,
        )
        assert not (pairwise_iou(found, truth) == threshold).any()
        ours = match(found, truth, threshold)
        np.testing.assert_allclose(ours, counts.numpy(), rtol=1e-5)
        if threshold == 0.5:
            values = [
                float(reference(torch.tensor(found), torch.tensor(truth), metric_name=name))
                for name in ("pq", "sq", "rq")
            ]
            np.testing.assert_allclose(ours.quality, values, atol=1e-5)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (np.zeros((2, 3), int), r"\(2, 3\) and \(2, 2\) cannot be compared"),
        (np.zeros((2, 2)), "whole numbers, one per object, got float64"),
        (np.full((2, 2), -1), "positive, got -1"),
    ],
)
def test_match_refuses_unfit_input(found, words):
    with pytest.raises(ValueError, match=words):
        match(found, np.ones((2, 2), int))
