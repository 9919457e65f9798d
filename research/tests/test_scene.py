import numpy as np
import pytest
from skimage.measure import label

from simmat_research.layouts import LAYOUTS
from simmat_research.scene import MIN_AREA, compact, draw_scene

MAPS = ("albedo", "depth", "normals", "temperature", "refractive_index", "gloss", "glass", "dome")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [64, (96, 200)])
def test_draw_scene_labels_connected_objects(layout, size):
    for seed in range(3):
        scene = draw_scene(seed, size, layout)
        labels = scene.labels
        assert labels.shape == ((size, size) if isinstance(size, int) else size)
        assert labels.dtype == np.int32
        area = np.bincount(labels.ravel())[1:]
        assert (area >= MIN_AREA).all()
        for number in range(1, len(area) + 1):
            assert label(labels == number, connectivity=1).max() == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scene_maps_are_finite_and_physical(layout):
    scene = draw_scene(11, (72, 120), layout)
    for name in MAPS:
        assert np.isfinite(getattr(scene, name)).all(), name
        assert getattr(scene, name).shape[:2] == (72, 120), name
    assert 0 <= scene.albedo.min() <= scene.albedo.max() <= 1
    assert scene.depth.min() > 0
    np.testing.assert_allclose(np.linalg.norm(scene.normals, axis=-1), 1, atol=1e-5)
    assert (scene.normals[..., 2] > 0).all()
    assert 250 < scene.temperature.min() <= scene.temperature.max() < 350


def test_scene_maps_are_free_of_the_order_of_access():
    one, other = draw_scene(3, 64, "leaves"), draw_scene(3, 64, "leaves")
    depth, temperature = one.depth, one.temperature
    np.testing.assert_array_equal(temperature, other.temperature)
    np.testing.assert_array_equal(depth, other.depth)


def test_draw_scene_of_few_pixels_is_refused():
    with pytest.raises(ValueError, match="too small"):
        draw_scene(0, 8)


def test_compact_renumbers_what_it_keeps():
    labels = np.array([[0, 1], [2, 3]], np.int32)
    np.testing.assert_array_equal(
        compact(labels, np.array([True, False, True, True])), [[0, 0], [1, 2]]
    )
