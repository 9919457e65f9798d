"""The built-in models: the foundation on real images, the checkpoints on drawn ones."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.data import coins

from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.evaluation.protocols import UserProtocol
from napari_simmat.io.files import ASSETS
from napari_simmat.progress import finish
from napari_simmat.research.generated import GeneratedConfig, generate_job
from napari_simmat.training.validation import compare_with_base_job

pytestmark = pytest.mark.shipped_models


@pytest.mark.slow
def test_tiny_finds_objects_of_real_images(shared_image):
    """The promise of the first version: mean IoU 0.65 for a click and 0.80 for a box."""
    images = [
        (coins(), shared_image("coins_labels.tif")),
        (shared_image("phase2d_bacteria.tif"), shared_image("phase2d_bacteria_labels.tif")),
        (shared_image("fluo2d_hela.tif"), shared_image("fluo2d_hela_autolabels.tif")),
    ]
    predictor = Predictor(load_model("tiny"), "cpu", "exact")
    means = []
    for image, labels in images:
        predictor.set_image(image)
        scores = finish(UserProtocol(clicks=1).score_job(predictor, labels))
        means.append([np.mean([s.iou[kind] for s in scores]) for kind in ("click", "box")])
    click, box = np.mean(means, axis=0)
    assert click >= 0.65
    assert box >= 0.80


@pytest.mark.slow
@pytest.mark.parametrize("sensor", ["depth", "multispectral"])
def test_shipped_checkpoint_is_better_than_its_base(sensor):
    """On scenes never trained on; for thermal and polarization the base alone is as good."""
    drawn = finish(
        generate_job(GeneratedConfig(sensor=sensor, side=160, train=1, validation=1, test=4))
    )
    checkpoint = load_model(sensor)
    known = replace(drawn, channels=checkpoint.spec.channels)
    base = load_model(checkpoint.spec.base.name)
    figures, _ = finish(
        compare_with_base_job(base, checkpoint.spec, checkpoint.network, known, known.test, "cpu")
    )
    assert figures["after"]["click"] > figures["before"]["click"] + 3
    assert figures["after"]["box"] > figures["before"]["box"] + 2


def test_shipped_checkpoints_are_small_and_have_cards():
    paths = [path for path in ASSETS.glob("*.safetensors") if read_spec(path).base.sha256]
    assert len(paths) >= 4
    assert sum(path.stat().st_size for path in paths) < 6e6
    for path in paths:
        spec = read_spec(path)
        assert {"before", "after", "validation"} <= set(spec.metrics)
        assert spec.license
        assert spec.description
        base = load_model(spec.base.name).spec.base
        assert base.sha256 == spec.base.sha256
