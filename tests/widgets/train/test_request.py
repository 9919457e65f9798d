"""What the tab trains by default."""

from napari_simmat.checkpoints import registry
from napari_simmat.training.config import practical_config
from napari_simmat.widgets.train.request import DEFAULT_STEPS, TrainRequest


def test_the_default_config_is_that_of_practical():
    tiny = registry.find_model("tiny").spec
    assert practical_config(tiny, steps=DEFAULT_STEPS) == TrainRequest().config
