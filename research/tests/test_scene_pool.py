"""The pool of scenes: seeded by step, crops of drawn truth, padding as the engine pads."""

import numpy as np
import pytest
import torch

from simmat_research.scene_pool import (
    PADDING_VALUE,
    DrawnScene,
    ScenePool,
    augment_scene,
    random_normalize,
    scene_drawer,
)


def draw(rng):
    """A cheap scene: one bright rectangle whose place says which scene it is."""
    labels = np.zeros((150, 140), np.int32)
    y, x = rng.integers(0, 100, 2)
    labels[y : y + 30, x : x + 20] = 1
    image = np.broadcast_to(labels * 200.0, (3, 150, 140)).astype(np.float32)
    return DrawnScene(image, labels)


def test_pool_step_is_free_of_earlier_steps():
    ahead = ScenePool(1, draw, size=6, fresh=1.0)
    steps = {step: ahead.crops(step, 2) for step in (0, 3, 9)}
    resumed = ScenePool(1, draw, size=6, fresh=1.0)
    again = resumed.crops(9, 2)
    torch.testing.assert_close(again.images, steps[9].images, rtol=0, atol=0)
    np.testing.assert_array_equal(again.masks, steps[9].masks)
    other = ScenePool(2, draw, size=6, fresh=1.0).crops(9, 2)
    assert other.images.shape != again.images.shape or not torch.equal(other.images, again.images)


def test_crops_fit_their_masks_and_pad_as_the_engine():
    pool = ScenePool(0, draw, size=8)
    padded = 0
    for step in range(60):
        images, labels, masks, _ = pool.crops(step, 3)
        assert images.shape[-2:] == labels.shape[-2:] == masks.shape[-2:]
        assert images.shape[-1] % 32 == 0
        for image, ids, objects in zip(images, labels, masks, strict=True):
            assert objects.any((-1, -2)).all()
            inside = image[0].numpy() == 200
            np.testing.assert_array_equal(inside, ids.numpy() == 1)
            np.testing.assert_array_equal(objects[0], inside)
            padded += bool((image[0] == PADDING_VALUE).any())
    assert padded > 0


def test_crops_off_scale_show_smaller_and_larger_objects():
    pool = ScenePool(0, draw, size=8, off_scale=0.5)
    areas = {True: [], False: []}
    for step in range(60):
        crops = pool.crops(step, 1)
        for objects, is_off in zip(crops.masks, crops.off_scale, strict=True):
            areas[bool(is_off)].append(int(objects[0].sum()))
    drawn = 30 * 20
    assert min(areas[True]) < drawn / 36
    assert max(areas[True]) > drawn * 9
    assert max(areas[False]) == drawn
    share = len(areas[True]) / len(areas[True] + areas[False])
    assert 0.4 < share < 0.6


def test_augment_of_real_scenes_keeps_range_and_truth():
    pool = ScenePool(0, scene_drawer(("plain", "natural")), augment_scene, size=4)
    for step in range(6):
        images, labels, _, _ = pool.crops(step, 2)
        assert torch.isfinite(images).all()
        assert images.min() >= 0
        assert images.max() <= 255
        assert labels.max() > 0
    scene = draw(np.random.default_rng(0))
    for seed in range(30):
        varied, moved, _ = augment_scene(scene, np.random.default_rng(seed))
        inside, outside = varied[:, moved == 1], varied[:, moved == 0]
        assert np.ptp(inside, axis=1).max() < 1e-3
        assert abs(float(inside.mean()) - float(outside.mean())) > 20


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_random_normalize_is_mostly_the_products(shape):
    image = np.random.default_rng(0).gamma(2, 500, shape)
    exact = 0
    for seed in range(30):
        result = random_normalize(image, np.random.default_rng(seed))
        assert result.shape == (3, 40, 50)
        assert result.min() == 0
        assert result.max() == 255
        low, high = np.percentile(image, [0.5, 99.9])
        expected = np.clip((image - low) / (high - low), 0, 1) * 255
        expected = expected if image.ndim == 2 else np.moveaxis(expected, -1, 0)
        exact += np.allclose(result, expected, atol=1e-2)
    assert exact >= 3
