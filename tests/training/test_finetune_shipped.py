"""The built-in models: what the foundation finds on real images, and what the checkpoints say."""

import numpy as np
import pytest
from skimage.data import coins

from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.evaluation.protocols import UserProtocol
from napari_simmat.io.files import ASSETS
from napari_simmat.progress import finish

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
