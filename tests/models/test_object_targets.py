"""Targets of the decoder of all objects, counted by hand."""

import numpy as np
import pytest
import torch

from napari_simmat.models.object_targets import CUT_WEIGHT, MapTargets, map_loss, map_targets
from napari_simmat.training.batches import UNKNOWN


@pytest.fixture
def two() -> MapTargets:
    """Touching squares of 5 x 5 inside a crop of 9 x 14; a pixel of the ground is unknown."""
    labels = np.zeros((1, 9, 14), np.int32)
    labels[0, 2:7, 2:7], labels[0, 2:7, 7:12] = 1, 2
    labels[0, 0, 0] = UNKNOWN
    return map_targets(labels)


def test_depth_is_relative_to_the_largest(two: MapTargets) -> None:
    assert two.depth[0, 4, 2:7].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])
    assert two.depth[0, 0].max() == 0
    assert two.inside.sum() == 50


def test_contact_lies_between_objects_alone(two: MapTargets) -> None:
    assert two.contact[0, 4].nonzero().ravel().tolist() == [6, 7]
    assert two.contact.sum() == 10
    assert two.outline[0, 4].nonzero().ravel().tolist() == [1, 2, 6, 7, 11, 12]


def test_unknown_pixels_do_not_count(two: MapTargets) -> None:
    assert two.known.sum() == 9 * 14 - 1
    maps = torch.zeros(1, 5, 9, 14, requires_grad=True)
    loss, parts = map_loss(maps, two)
    loss.backward()
    assert set(parts) == {"inside", "depth", "outline", "contact", "width"}
    assert maps.grad is not None
    assert maps.grad[0, :, 0, 0].abs().max() == 0
    assert maps.grad[0, 0, 4, 4] != 0


def test_object_that_the_crop_cuts_counts_less() -> None:
    labels = np.zeros((1, 8, 8), np.int32)
    labels[0, :4, :4], labels[0, 5:7, 5:7] = 1, 2
    whole = map_targets(labels).whole[0]
    assert whole[0, 0] == pytest.approx(CUT_WEIGHT)
    assert whole[5, 5] == whole[0, 7] == 1


def test_crop_of_one_object_has_no_outline() -> None:
    targets = map_targets(np.ones((1, 6, 6), np.int32))
    assert targets.outline.sum() == 0
    assert (targets.depth == 1).all()
