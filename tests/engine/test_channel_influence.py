"""What the foundation gets of a plane, and what each channel does for a mask."""

from dataclasses import replace

import numpy as np
import pytest

from napari_simmat import Predictor, Prompt, load_model
from napari_simmat.engine.channel_influence import channel_influence_job, foundation_colors
from napari_simmat.engine.refinement import Refiner
from napari_simmat.progress import finish


@pytest.fixture(scope="module")
def bar():
    """A predictor on a bar that only the second of three channels shows; and a click on it."""
    image = np.random.default_rng(0).normal(50, 4, (3, 128, 128))
    image[1, 30:42, 10:115] += 120
    image[2] = 50
    predictor = Predictor(load_model("tiny"), "cpu")
    predictor.set_image(image, 0, channel_names=("noise", "bar", "flat"))
    return predictor, Prompt(points=((36.0, 20.0),), labels=(1,))


def test_channel_influence_names_the_one_with_the_object(bar):
    predictor, click = bar
    before = predictor.predict(points=click.points).mask
    [found] = finish(channel_influence_job(predictor, [click]))
    assert [each.channel for each in found] == ["noise", "bar", "flat"]
    noise, shows, flat = found
    assert shows.influence > 0.5 > 0.4 > noise.influence
    assert flat.influence == 0
    assert (shows.mean, flat.mean) == pytest.approx((170, 50), abs=10)
    assert flat.std == 0
    assert np.array_equal(predictor.predict(points=click.points).mask, before)


def test_channel_influence_is_on_the_mask_that_users_get(bar):
    """Of several clicks each refines the mask before it."""
    predictor, click = bar
    clicks = replace(click, points=(*click.points, (30, 100)), labels=(1, 0))
    [users] = Refiner().refine(predictor, [clicks])
    assert not np.array_equal(users.mask, predictor.predict_many([clicks])[0].mask)
    [[noise, *_]] = finish(channel_influence_job(predictor, [clicks]))
    raw = predictor.stack.plane()[0]
    assert noise.mean == pytest.approx(raw[users.mask].mean(), abs=1e-6)


def test_channel_influence_hides_a_repeated_channel_whole(bar):
    predictor, click = bar
    other = Predictor(predictor.model, "cpu")
    other.set_image(predictor.stack.plane()[1])
    [[only]] = finish(channel_influence_job(other, [click]))
    assert only.influence > 0.5
    assert only.mean == pytest.approx(170, abs=10)


def test_colors_of_an_rgb_foundation_are_its_input(bar):
    predictor, _ = bar
    colors = foundation_colors(predictor)
    assert colors.shape == (3, 128, 128)
    assert np.ptp(colors[2]) == 0
    assert colors[1][36, 50] > colors[1][5, 5] + 1


def test_colors_of_a_model_for_four_angles_are_three():
    image = np.random.default_rng(0).uniform(0, 255, (4, 130, 140)).astype(np.float32)
    predictor = Predictor(load_model("polarization"), "cpu")
    predictor.set_image(image, 0)
    colors = foundation_colors(predictor)
    assert colors.shape == (3, 130, 140)
    assert np.isfinite(colors).all()
    assert colors.std(axis=(1, 2)).min() > 0
