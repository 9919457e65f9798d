from __future__ import annotations

import numpy as np
import pytest

from napari_simmat.learn.scenes import SENSORS, draw_scene, draw_sensor_sample
from napari_simmat.learn.scenes.scene import Scene
from napari_simmat.learn.scenes.visibility import THRESHOLD, border_contrast


@pytest.fixture(scope="module")
def glassy() -> Scene:
    """A scene in which most objects are clear glass."""
    scenes = (draw_scene(seed, 160, "discs") for seed in range(100))
    return next(s for s in scenes if s.glass.sum() > 0.4 * s.foreground.sum() > 4000)


def by_object(values: np.ndarray, scene: Scene) -> np.ndarray:
    count = np.bincount(scene.labels.ravel())
    return np.bincount(scene.labels.ravel(), values.ravel())[1:] / count[1:]


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("size", [64, (96, 130)])
def test_every_sensor_renders_its_channels(sensor: str, size: int | tuple[int, int]) -> None:
    image, labels, scene = draw_sensor_sample(sensor, 3, size)
    assert image.shape == (len(SENSORS[sensor].channels), *scene.shape)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert labels.shape == scene.shape
    assert labels.max() >= 1


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_same_seed_gives_the_same_picture(sensor: str) -> None:
    (first, labels, _), (again, labels_again, _) = (
        draw_sensor_sample(sensor, 8, 72) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(labels, labels_again)


def test_crossed_polarisers_share_the_light_up_to_noise(glassy: Scene) -> None:
    zero, forty_five, ninety, hundred_thirty_five = SENSORS["polarization"].render(
        glassy, np.random.default_rng(0)
    )
    total, other = zero + ninety, forty_five + hundred_thirty_five
    assert abs(float((total - other).mean())) < 2e-3 * total.mean()
    # What differs is camera noise: white, so that a mean over 8 x 8 pixels is 8 times smaller.
    difference = total - other
    blocks = difference.reshape(20, 8, 20, 8).mean(axis=(1, 3))
    assert blocks.std() == pytest.approx(difference.std() / 8, rel=0.25)


def test_counts_are_those_of_a_12_bit_camera(glassy: Scene) -> None:
    image = SENSORS["polarization"].render(glassy, np.random.default_rng(1))
    assert -50 < image.min() < image.max() < 4600
    assert image.max() > 800


def test_degree_of_polarization_is_physical(glassy: Scene) -> None:
    image = SENSORS["polarization"].render(glassy, np.random.default_rng(2))
    zero, forty_five, ninety, hundred_thirty_five = image.reshape(4, 20, 8, 20, 8).mean(axis=(2, 4))
    degree = np.hypot(zero - ninety, forty_five - hundred_thirty_five) / (zero + ninety)
    assert (degree >= 0).all()
    assert (degree < 1).all()
    assert degree.max() > 0.05


def test_glass_is_seen_by_polarization_and_hardly_by_intensity(glassy: Scene) -> None:
    image = SENSORS["polarization"].render(glassy, np.random.default_rng(3))
    glass = np.concatenate([[False], by_object(glassy.glass * 1.0, glassy) > 0.99])
    intensity = border_contrast(image.mean(axis=0), glassy.labels)
    cues = np.stack([image[0] - image[2], image[1] - image[3]], axis=-1)
    polarised = border_contrast(cues, glassy.labels)
    assert (polarised[glass] >= THRESHOLD).mean() > 0.8
    assert np.median(polarised[glass]) > np.median(intensity[glass])


def test_glass_hardly_changes_the_intensity(glassy: Scene) -> None:
    total = SENSORS["polarization"].render(glassy, np.random.default_rng(4)).sum(axis=0)
    inside = by_object(total, glassy)
    glass = by_object(glassy.glass * 1.0, glassy) > 0.99
    ground = total[glassy.regions == 0].mean()
    assert np.median(abs(inside[glass] - ground)) < 0.05 * ground
    assert np.median(abs(inside[~glass] - ground)) > 0.05 * ground


def test_an_unknown_sensor_is_named() -> None:
    with pytest.raises(ValueError, match="radar"):
        draw_sensor_sample("radar", 0, 64)
