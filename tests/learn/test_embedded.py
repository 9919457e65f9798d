"""The embedded foundation on real images that its training never saw."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import coins

from napari_simmat.engine.loading import load_model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.learn.evaluation import evaluating
from napari_simmat.progress import finish


@pytest.mark.slow
def test_one_click_and_one_box_find_the_objects_of_real_images(shared_image) -> None:
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
        scores = finish(evaluating(predictor, labels, clicks=1))
        means.append([np.mean([s.iou[kind] for s in scores]) for kind in ("click", "box")])
    click, box = np.mean(means, axis=0)
    assert click >= 0.65
    assert box >= 0.80
