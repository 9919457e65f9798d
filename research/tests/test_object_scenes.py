"""Scenes for the decoder of all objects."""

import numpy as np
import pytest

from simmat_research.object_scenes import MIXES, ObjectScene, draw_object_scene
from simmat_research.renderers import FAMILIES

OWN = ("palisades", "chains", "bent_colony", "packed_grains", "unlike_grains", "crystals")


@pytest.mark.parametrize("layout", OWN)
def test_layout_draws_objects_the_same_again(layout: str) -> None:
    scenes = [ObjectScene.draw(3, (160, 200), layout) for _ in range(2)]
    assert np.array_equal(scenes[0].labels, scenes[1].labels)
    counts = [ObjectScene.draw(seed, (160, 200), layout).labels.max() for seed in range(6)]
    assert np.median(counts) >= 4


def test_each_mix_has_a_renderer_and_layouts() -> None:
    for name, (share, layouts) in MIXES.items():
        assert name in FAMILIES or name == "rough ground"
        assert share > 0
        assert set(layouts) <= set(ObjectScene.layouts)


def test_rods_of_a_palisade_touch() -> None:
    labels = ObjectScene.draw(1, (200, 200), "palisades").labels
    right, left = labels[:, 1:], labels[:, :-1]
    beside = (right != left) & (right > 0) & (left > 0)
    assert beside.sum() > 30


def test_scenes_are_drawn_the_same_again_and_some_are_empty() -> None:
    first, again = (draw_object_scene(np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    scenes = [draw_object_scene(np.random.default_rng(seed)) for seed in range(60)]
    empty = sum(not scene.labels.any() for scene in scenes)
    assert 0 < empty < 15
    for image, labels, _ in scenes:
        assert image.shape == (3, *labels.shape)
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() <= 255
