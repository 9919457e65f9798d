"""Settings that change nothing: said of those alone, and truly nothing."""

from dataclasses import fields, replace

import numpy as np
import pytest
from skimage.data import coins

from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.everything.idle_settings import idle_sentence, idle_settings
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.settings import AutomaticSettings

TINY = load_model("tiny")
MICRO_SAM = sam_spec("mine", "vit_b", "", with_decoder=True)
OTHERS = {
    "second_look": True, "maxima_channel": 0, "maxima_distance": 3, "maxima_height": 0.6,
    "stability": 0.99, "offset": 3.0, "agreement": 0.9, "box_overlap": 0.2, "background": 0.01,
    "crop_overlap": 0.1, "center_distance_threshold": 0.2, "boundary_distance_threshold": 0.2,
    "foreground_threshold": 0.9, "foreground_smoothing": 5.0, "distance_smoothing": 5.0,
    "points_per_side": 4, "object_side": 30.0, "crop_layers": 1, "seeds": "maxima",
}  # fmt: skip


@pytest.fixture(scope="module")
def predictor():
    predictor = Predictor(TINY)
    predictor.set_image(coins()[:140, :160])
    return predictor


@pytest.mark.parametrize(
    "settings",
    [
        AutomaticSettings(),
        AutomaticSettings(by="decoder"),
        AutomaticSettings(by="clicks", points_per_side=5),
        AutomaticSettings(seeds="maxima", maxima_distance=20),
    ],
    ids=["auto", "decoder", "clicks", "maxima"],
)
def test_idle_settings_change_nothing(predictor, settings):
    idle = idle_settings(settings, TINY.spec)
    found = segment_everything(predictor, settings)
    changed = replace(settings, **{name: OTHERS[name] for name in idle})
    again = segment_everything(predictor, changed)
    np.testing.assert_array_equal(again.labels, found.labels)
    assert idle, "there are some"


@pytest.mark.parametrize(
    ("settings", "reads"),
    [
        ({}, {"seeds", "points_per_side", "object_side", "crop_layers", "quality", "keep_border"}),
        ({"by": "clicks"}, {"second_look", "agreement", "stability", "points_per_side"}),
        ({"seeds": "maxima"}, {"maxima_distance", "maxima_channel", "maxima_height"}),
        ({"seeds": "hematoxylin"}, {"maxima_distance", "maxima_height"}),
        ({"crop_layers": 1}, {"crop_overlap"}),
    ],
)
def test_settings_that_are_read_are_not_idle(settings, reads):
    assert not reads & idle_settings(AutomaticSettings(**settings), TINY.spec)


def test_given_seeds_leave_filters_alone():
    idle = idle_settings(AutomaticSettings(), TINY.spec, seeded=True)
    assert {"seeds", "second_look", "points_per_side"} <= idle
    assert not {"stability", "agreement", "quality"} & idle


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, ""),
        ({"min_area": 3, "keep_border": False, "tile": 512}, ""),
        (
            {"second_look": True},
            "--auto.second-look: without effect where a decoder finds the objects; "
            "--auto.by clicks makes use of it.",
        ),
        (
            {"second_look": True, "foreground_threshold": 0.6},
            "--auto.second-look, --auto.foreground-threshold: without effect where a decoder "
            "finds the objects.",
        ),
        (
            {"second_look": True, "object_side": 20.0},
            "--auto.second-look: without effect on clicks as the other settings place them.",
        ),
    ],
)
def test_idle_options_are_told(settings, sentence):
    told = idle_sentence(AutomaticSettings(**settings), TINY.spec)
    order = [each.name for each in fields(AutomaticSettings)]
    assert order.index("second_look") < order.index("foreground_threshold")
    assert told == sentence


def test_micro_sams_decoder_reads_its_own():
    assert idle_sentence(AutomaticSettings(foreground_threshold=0.6), MICRO_SAM) == ""
    assert "stability" in idle_sentence(AutomaticSettings(stability=0.5), MICRO_SAM)
    assert "foreground" in idle_sentence(AutomaticSettings(foreground_threshold=0.6), TINY.spec)
