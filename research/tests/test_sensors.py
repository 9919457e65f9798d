import numpy as np
import pytest
from scipy import ndimage as ndi

from simmat_research.generated import benchmark_scene
from simmat_research.scene import Scene, draw_scene
from simmat_research.sensors import (
    PSEUDO_SENSORS,
    SENSORS,
    draw_sensor_sample,
    fill_missing,
    hyperspectral_sensor,
    sensor_named,
    wavelengths,
)


@pytest.fixture(scope="module")
def glassy():
    """A scene in which most objects are clear glass."""
    scenes = (draw_scene(seed, 160, "discs") for seed in range(100))
    return next(s for s in scenes if s.glass.sum() > 0.4 * s.foreground.sum() > 4000)


def by_object(values: np.ndarray, scene: Scene) -> np.ndarray:
    count = np.bincount(scene.labels.ravel())
    return np.bincount(scene.labels.ravel(), values.ravel())[1:] / count[1:]


@pytest.fixture(scope="module")
def staged():
    """Scenes of the benchmark."""
    return [benchmark_scene(seed, 160) for seed in range(8)]


def test_crossed_polarizers_share_the_light_up_to_noise(glassy):
    zero, forty_five, ninety, hundred_thirty_five = SENSORS["polarization"].render(
        glassy, np.random.default_rng(0)
    )
    total, other = zero + ninety, forty_five + hundred_thirty_five
    assert abs(float((total - other).mean())) < 2e-3 * total.mean()
    # What differs is camera noise: white, so that a mean over 8 x 8 pixels is 8 times smaller.
    difference = total - other
    blocks = difference.reshape(20, 8, 20, 8).mean(axis=(1, 3))
    assert blocks.std() == pytest.approx(difference.std() / 8, rel=0.25)


@pytest.mark.parametrize("sensor", [name for name in SENSORS if name != "rgb"])
def test_no_channel_looks_like_a_photograph_of_the_scene(sensor, staged):
    """Mean correlation with luminance over scenes; that of polarization is not low."""
    correlations = []
    for number, scene in enumerate(staged):
        luminance = SENSORS["rgb"].render(scene, np.random.default_rng(number)).mean(axis=0)
        image = SENSORS[sensor].render(scene, np.random.default_rng([number, 1]))
        cue = image[:1] - image[2:3] if sensor == "polarization" else image
        correlations.append([np.corrcoef(luminance.ravel(), c.ravel())[0, 1] for c in cue])
    assert np.abs(np.mean(correlations, axis=0)).max() < 0.35


@pytest.mark.parametrize("name", PSEUDO_SENSORS)
def test_pseudo_sensor_stacks_color_and_a_sensor_of_one_scene(name):
    other = name.removeprefix("rgb+")
    scene, rng = benchmark_scene(1, 64), np.random.default_rng(5)
    both = sensor_named(name).render(scene, np.random.default_rng(5))
    np.testing.assert_array_equal(both[:3], SENSORS["rgb"].render(scene, rng))
    np.testing.assert_array_equal(both[3:], SENSORS[other].render(scene, rng))
    assert sensor_named(name).channels == SENSORS["rgb"].channels + SENSORS[other].channels


def test_every_sensor_but_color_has_a_pseudo_sensor():
    assert set(PSEUDO_SENSORS) == {f"rgb+{name}" for name in SENSORS} - {"rgb+rgb"}


def test_depth_counts_are_inverse_to_distance_with_holes(staged):
    for scene in staged:
        counts = SENSORS["depth"].render(scene, np.random.default_rng(0))[0]
        read = counts > 0
        np.testing.assert_array_equal(counts, np.rint(counts))
        assert 0.5 < read.mean() < 1
        assert np.corrcoef(counts[read], 1 / scene.depth[read])[0, 1] > 0.98
        assert abs(np.corrcoef(counts[read], scene.depth[read])[0, 1]) < 0.995  # bent, not linear


def test_hha_is_disparity_height_and_angle(staged):
    explained = []
    for scene in staged:
        code = SENSORS["hha"].render(scene, np.random.default_rng(1))
        np.testing.assert_array_equal(code, np.rint(np.clip(code, 0, 255)))
        assert 0.05 < (code == 0).all(axis=0).mean() < 0.5
        disparity, height, angle = fill_missing(code)
        read = code.any(axis=0)
        assert np.corrcoef(disparity[read], 1 / scene.depth[read])[0, 1] > 0.99
        assert height.min() == 0
        # The cosine of the angle is linear in the normal: its product with one direction.
        cosine = np.cos(np.radians(ndi.gaussian_filter(angle, 2) - 38)).ravel()
        normals = ndi.gaussian_filter(scene.normals, (2, 2, 0)).reshape(-1, 3)
        up, *_ = np.linalg.lstsq(normals, cosine, rcond=None)
        assert np.linalg.norm(up) == pytest.approx(1, abs=0.2)
        explained.append(1 - (cosine - normals @ up).var() / cosine.var())
    assert np.mean(explained) > 0.7


def test_glass_of_the_benchmark_shows_in_polarization_only(staged):
    hidden, shown = [], []
    for scene in staged:
        image = SENSORS["polarization"].render(scene, np.random.default_rng(4))
        glass = by_object(scene.glass * 1.0, scene) > 0.99
        ground = scene.regions == 0
        total = image.sum(axis=0)
        states = image[0] - image[2], image[1] - image[3]
        hidden += list(abs(by_object(total, scene) / total[ground].mean() - 1)[glass])
        shown += list(
            np.hypot(*(by_object(s, scene) - s[ground].mean() for s in states))[glass]
            / total[ground].std()
        )
    assert len(shown) > 20
    assert np.median(hidden) < 0.1
    assert np.median(shown) > 0.1


def test_spectra_are_smooth_and_the_air_takes_its_bands(staged):
    sensor = hyperspectral_sensor(210)
    image = sensor.render(staged[0], np.random.default_rng(6))
    assert image.shape[0] == len(sensor.channels) == len(set(sensor.channels)) == 210
    centers = wavelengths(210)
    spectrum = image.mean(axis=(1, 2))
    wet = (abs(centers - 1385) < 25) | (abs(centers - 1885) < 35)
    assert spectrum[wet].max() < 0.05 * spectrum.max()
    seen = np.convolve(wet, np.ones(15), "same") == 0
    steps = abs(np.diff(spectrum))[seen[1:] & seen[:-1] & (abs(centers[1:] - 760) > 30)]
    assert steps.max() < 0.1 * spectrum.max()
    assert sensor.cues(image).shape == (8, *staged[0].shape)


def test_an_unknown_sensor_is_named():
    with pytest.raises(ValueError, match="radar"):
        draw_sensor_sample("radar", 0, 64)
