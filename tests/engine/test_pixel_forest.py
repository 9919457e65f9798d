"""A pixel classifier taught with a few objects and strokes."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from napari_simmat.engine import pixel_forest
from napari_simmat.engine.pixel_forest import (
    BORDER,
    GROUND,
    OBJECT,
    PixelForest,
    likelihood,
    local_features,
    segment_by_forest,
    training_classes,
)


def packed_discs():
    """Image (96, 120, 2) and labels of discs that touch their neighbors."""
    y, x = np.indices((96, 120))
    labels = np.zeros((96, 120), np.int32)
    for number, (row, column) in enumerate(
        ((row, column) for row in range(14, 90, 20) for column in range(14, 80, 20)), start=1
    ):
        labels[(y - row) ** 2 + (x - column) ** 2 <= 9**2] = number
    rng = np.random.default_rng(0)
    shown = gaussian_filter((labels > 0) * 100.0, 1) + rng.normal(0, 4, labels.shape)
    return np.stack([shown, -shown], -1).astype(np.float32), labels


def taught(labels):
    """Four of the objects, and a stroke on open ground."""
    objects = np.where(np.isin(labels, (1, 6, 7, 12)), labels, 0)
    ground = np.zeros(labels.shape, bool)
    ground[30:60, 100:115] = True
    return objects, ground


def test_all_objects_that_are_like_the_taught_ones_are_found():
    image, labels = packed_discs()
    found = segment_by_forest(image, *taught(labels))
    assert found.max() <= labels.max() + 2
    for number in range(1, labels.max() + 1):
        mine = found[labels == number]
        best = np.bincount(mine[mine > 0]).argmax()
        both = np.count_nonzero((found == best) & (labels == number))
        either = np.count_nonzero((found == best) | (labels == number))
        assert both / either > 0.75


def test_the_same_seed_gives_the_same_objects():
    image, labels = packed_discs()
    first, second = (segment_by_forest(image, *taught(labels), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_no_rule_calls_a_neighbor_ground():
    """Rings as wide as an object once made the neighbors of packed objects ground."""
    _, labels = packed_discs()
    objects, ground = taught(labels)
    classes = training_classes(objects, ground)
    others = (labels > 0) & (objects == 0)
    assert not (classes[others] == GROUND).any()
    assert (classes[others] == BORDER).mean() < 0.1
    assert (classes[objects > 0] == OBJECT).all()
    assert (classes[ground] == GROUND).all()


@pytest.mark.parametrize("gap", [np.nan, np.inf])
def test_features_of_gaps_are_finite(gap):
    image, _ = packed_discs()
    image[:5, :, 0] = gap
    image[..., 1] = 7
    features = local_features(np.moveaxis(image, -1, 0))
    assert features.shape[:2] == image.shape[:2]
    assert np.isfinite(features).all()


def test_objects_far_smaller_than_the_taught_ones_are_left_out():
    image, labels = packed_discs()
    image[50:53, 105:108] += 100
    found = segment_by_forest(image, *taught(labels))
    assert not found[50:53, 105:108].any()
    assert label(found > 0)[1] >= 1


def test_a_plane_in_blocks_has_the_likelihoods_of_the_whole(monkeypatch):
    image, labels = packed_discs()
    planes, lesson = np.moveaxis(image, -1, 0) / 100, taught(labels)
    whole_forest = PixelForest.of(planes, *lesson)
    whole = likelihood(whole_forest, planes)
    monkeypatch.setattr(pixel_forest, "BLOCK", 40)
    forest = PixelForest.of(planes, *lesson)
    np.testing.assert_array_equal(forest.pixels.classes, whole_forest.pixels.classes)
    np.testing.assert_allclose(forest.pixels.features, whole_forest.pixels.features, atol=1e-5)
    np.testing.assert_array_equal(likelihood(whole_forest, planes), whole)


def test_objects_left_out_are_as_likely_as_others():
    image, labels = packed_discs()
    planes = np.moveaxis(image, -1, 0) / 100
    objects, ground = taught(labels)
    forest = PixelForest.of(planes, objects, ground)
    left = forest.left_out()
    assert set(left) == {1, 6, 7, 12}
    unseen = (labels > 0) & (objects == 0)
    found = likelihood(forest, planes)
    assert found[unseen].mean() > 0.8 * min(left.values()) > 0.3
    assert found[ground].mean() < 0.05
