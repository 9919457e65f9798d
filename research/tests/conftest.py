"""What the tests of research share: the surroundings of the product's, and a small training."""

import pytest

pytest_plugins = ["tests.model_files", "tests.surroundings"]


@pytest.fixture
def small_training(monkeypatch):
    """Small batches and few scenes, so that a step of a training takes a fraction of a second."""
    from simmat_research import pretrain, scene_pool

    class SmallPool(scene_pool.ScenePool):
        pixels_per_step = 2 * 96 * 96

        def __init__(self, *args, **named):
            super().__init__(*args, **{**named, "size": 8})

        def crops(self, step, objects, sizes=(96,)):
            return super().crops(step, objects, sizes)

    monkeypatch.setattr(pretrain, "ScenePool", SmallPool)
