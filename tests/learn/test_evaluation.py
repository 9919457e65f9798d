"""Evaluation prompts a model as a user would."""

from __future__ import annotations

import numpy as np
import pytest

from napari_simmat.engine.loading import load_model
from napari_simmat.engine.predictor import Predictor
from napari_simmat.learn.evaluation import correction, evaluating, middle
from napari_simmat.progress import finish


def test_the_middle_lies_deepest_inside():
    mask = np.zeros((20, 30), bool)
    mask[2:5, 2:28] = True
    mask[2:17, 2:11] = True  # the thick part of an L
    y, x = middle(mask)
    assert 5 <= y <= 13
    assert 5 <= x <= 7
    assert middle(np.ones((1, 1), bool)) == (0, 0)
    assert middle(np.ones((5, 5), bool)) == (2, 2)  # the border of the image counts as outside


def test_corrections_go_to_the_largest_error():
    truth = np.zeros((20, 20), bool)
    truth[5:15, 5:15] = True
    assert correction(truth, truth) is None
    (y, x), label = correction(truth & (np.arange(20) < 9), truth)
    assert label == 1
    assert 9 <= x < 15
    assert 5 <= y < 15
    (y, x), label = correction(truth | (np.arange(20) > 13), truth)
    assert label == 0
    assert x > 13


def test_every_object_is_scored_and_corrections_help():
    y, x = np.mgrid[:96, :96]
    labels = np.zeros((96, 96), int)
    labels[(y - 30) ** 2 + (x - 30) ** 2 < 18**2] = 3
    labels[(y - 65) ** 2 + (x - 65) ** 2 < 15**2] = 7
    image = np.array([0, 0, 0, 200, 0, 0, 0, 120])[labels] + np.random.default_rng(0).normal(
        20, 5, labels.shape
    )
    predictor = Predictor(load_model("tiny"), "cpu")
    predictor.set_image(image)
    scores = finish(evaluating(predictor, labels, corrections=2))
    assert [score.label for score in scores] == [3, 7]
    for score in scores:
        assert len(score.corrected) == 2
        assert min(score.click, score.box, *score.corrected) > 0.75
    assert predictor.encodes == 1


def test_labels_of_another_shape_are_refused():
    predictor = Predictor(load_model("tiny"), "cpu")
    predictor.set_image(np.random.default_rng(0).normal(size=(40, 40)))
    with pytest.raises(ValueError, match="labels"):
        finish(evaluating(predictor, np.ones((30, 40), int)))
