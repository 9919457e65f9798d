"""The score of regions: what is right, what counts, what is learned."""

import numpy as np
import pytest
import torch

from napari_simmat.engine.object_regions import ObjectMaps, region_tree
from napari_simmat.models.object_decoder import MEASURES, WIDTHS, RegionScore
from napari_simmat.training.region_score import fit_score, hits, judged_regions


@pytest.fixture
def tree():
    """Two squares of ten pixels a side, five apart."""
    inside = np.zeros((30, 40), np.float32)
    inside[10:20, 5:15] = inside[10:20, 20:30] = 1
    flat = np.zeros_like(inside)
    features = np.zeros((WIDTHS[-1], 15, 20), np.float32)
    return region_tree(ObjectMaps(inside, inside, flat, flat, 5 * inside, features))


def test_regions_are_judged_by_the_object_that_they_meet(tree):
    labels = np.zeros((30, 40), np.int32)
    labels[10:20, 5:15] = 7
    labels[10:20, 20:25] = 3  # half of the other square
    measures, iou = judged_regions(tree, labels)
    assert sorted(iou.tolist()) == pytest.approx([0.5, 1])
    assert measures.shape == (2, MEASURES)


def test_regions_are_judged_by_labels_of_another_size(tree):
    labels = np.zeros((60, 80), np.int32)
    labels[20:40, 10:30] = 1
    assert sorted(judged_regions(tree, labels)[1].tolist()) == [0, 1]


def test_regions_of_unknown_pixels_do_not_count(tree):
    labels = np.zeros((30, 40), np.int32)
    labels[10:20, 20:30] = -1
    labels[10:20, 5:15] = 1
    assert judged_regions(tree, labels)[1].tolist() == [1]


def test_hits_are_right_and_nearly_right():
    assert hits(torch.tensor([0.8, 0.75, 0.6, 0.4])).tolist() == [[1, 1], [1, 1], [0, 1], [0, 0]]


def test_score_learns_from_regions_and_comes_again_the_same():
    rng = np.random.default_rng(0)
    measures = rng.normal(size=(400, MEASURES)).astype(np.float32)
    iou = np.where(measures[:, 3] > 0, 0.9, 0.1).astype(np.float32)
    chances = []
    for _ in range(2):
        torch.manual_seed(1)
        score = RegionScore().requires_grad_(False)  # as in a decoder that is in use
        with torch.no_grad():
            fit_score(score, measures, iou, steps=60, rate=2e-3)
        chances.append(score(torch.tensor(measures)).sigmoid()[:, 0].numpy())
    assert ((chances[0] > 0.5) == (iou > 0.75)).mean() > 0.95
    np.testing.assert_array_equal(*chances)
