import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_simmat.research.generated import benchmark_scene
from napari_simmat.research.samples import MIN_BORDER_CONTRAST, border_contrast
from napari_simmat.research.scene import Scene, draw_scene
from napari_simmat.research.sensors import (
    PSEUDO_SENSORS,
    SENSORS,
    draw_sensor_sample,
    fill_missing,
    hyperspectral_sensor,
    sensor_named,
    spectral_contrasts,
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


def explained_variance(values: np.ndarray, scene: Scene) -> float:
    """Share 0..1 of the variance that regions explain: 1 where each has a value of its own."""
    index = np.arange(scene.n_regions)
    count = np.bincount(scene.regions.ravel(), minlength=len(index))
    mean = ndi.sum(values, scene.regions, index) / np.maximum(count, 1)
    return float(np.var(mean[scene.regions]) / np.var(values))


@pytest.mark.parametrize("sensor", [*SENSORS, *PSEUDO_SENSORS])
@pytest.mark.parametrize("size", [64, (96, 130)])
def test_every_sensor_renders_its_channels(sensor, size):
    image, labels, scene = draw_sensor_sample(sensor, 3, size)
    assert image.shape == (len(sensor_named(sensor).channels), *scene.shape)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert labels.shape == scene.shape
    assert labels.max() >= 1


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_same_seed_gives_the_same_picture(sensor):
    (first, labels, _), (again, labels_again, _) = (
        draw_sensor_sample(sensor, 8, 72) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(labels, labels_again)


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


def test_counts_are_those_of_a_12_bit_camera(glassy):
    image = SENSORS["polarization"].render(glassy, np.random.default_rng(1))
    assert -50 < image.min() < image.max() < 4600
    assert image.max() > 800


def test_degree_of_polarization_is_physical(glassy):
    image = SENSORS["polarization"].render(glassy, np.random.default_rng(2))
    zero, forty_five, ninety, hundred_thirty_five = image.reshape(4, 20, 8, 20, 8).mean(axis=(2, 4))
    degree = np.hypot(zero - ninety, forty_five - hundred_thirty_five) / (zero + ninety)
    assert (degree >= 0).all()
    assert (degree < 1).all()
    assert degree.max() > 0.05


def test_glass_is_seen_by_polarization_and_hardly_by_intensity(glassy):
    image = SENSORS["polarization"].render(glassy, np.random.default_rng(3))
    glass = np.concatenate([[False], by_object(glassy.glass * 1.0, glassy) > 0.99])
    intensity = border_contrast(image.mean(axis=0), glassy.labels)
    cues = np.stack([image[0] - image[2], image[1] - image[3]], axis=-1)
    polarized = border_contrast(cues, glassy.labels)
    assert (polarized[glass] >= MIN_BORDER_CONTRAST).mean() > 0.8
    assert np.median(polarized[glass]) > np.median(intensity[glass])


def test_glass_hardly_changes_the_intensity(glassy):
    total = SENSORS["polarization"].render(glassy, np.random.default_rng(4)).sum(axis=0)
    inside = by_object(total, glassy)
    glass = by_object(glassy.glass * 1.0, glassy) > 0.99
    ground = total[glassy.regions == 0].mean()
    assert np.median(abs(inside[glass] - ground)) < 0.05 * ground
    assert np.median(abs(inside[~glass] - ground)) > 0.05 * ground


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


def test_nothing_is_read_to_the_left_of_what_stands_out():
    scene = benchmark_scene(0, 96)
    slab = np.zeros(scene.shape, np.float32)
    slab[:, 40:] = 0.2
    object.__setattr__(scene, "depth", 1 - slab)
    holes = np.mean(
        [SENSORS["depth"].render(scene, np.random.default_rng(seed))[0] == 0 for seed in range(9)],
        axis=(0, 1),
    )
    assert holes[38:40].min() > 0.95  # the projector, to the right, does not reach it
    assert 0.1 < holes[42:].mean() < 0.5


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


def test_heat_of_things_is_little_beside_the_cameras_own(staged):
    agreement = []
    for scene in staged:
        kelvin = SENSORS["thermal"].render(scene, np.random.default_rng(2))[0] / 25
        assert scene.temperature.std() < 0.5 * kelvin.std()
        # The mean over two columns is free of what their amplifiers differ by.
        kelvin = (kelvin + np.roll(kelvin, 1, axis=1)) / 2
        # A smooth background and the columns' offsets taken off, temperature is left.
        fine, true = (t - ndi.gaussian_filter(t, 10) for t in (kelvin, scene.temperature))
        fine, true = (t - np.median(t, axis=0) for t in (fine, true))
        agreement.append(np.corrcoef(ndi.gaussian_filter(fine, 1).ravel(), true.ravel())[0, 1])
    assert np.mean(agreement) > 0.6


def test_columns_of_a_heat_camera_have_offsets_of_their_own(staged):
    spread = []
    for seed in range(6):
        counts = SENSORS["thermal"].render(staged[0], np.random.default_rng(seed))[0]
        steps = [np.median(np.diff(counts, axis=axis), axis=1 - axis) for axis in (1, 0)]
        spread.append([step.std() for step in steps])
    columns, rows = np.mean(spread, axis=0)
    assert columns > 10 * rows  # two amplifiers in turn


def test_near_infrared_fields_differ_by_the_lamps_light(staged):
    """Regions differ little in an image, but in the difference of rows, and not by color."""
    single, difference, colors = [], [], []
    for number, scene in enumerate(staged):
        counts = SENSORS["near_infrared"].render(scene, np.random.default_rng(number))[0]
        fields = abs(ndi.convolve1d(counts, [1, -2, 1], axis=0)) / 2
        single.append(explained_variance(counts, scene))
        difference.append(explained_variance(ndi.gaussian_filter(fields, 1), scene))
        pair = by_object(fields, scene), by_object(scene.albedo.mean(axis=-1), scene)
        colors.append(np.corrcoef(*pair)[0, 1])
    assert np.mean(single) < 0.3
    assert np.mean(difference) > 1.5 * np.mean(single)
    assert abs(np.mean(colors)) < 0.4


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


def test_one_band_tells_little_and_differences_tell_much(staged):
    for name in ("multispectral", "hyperspectral"):
        single, several = [], []
        for scene in staged:
            image = SENSORS[name].render(scene, np.random.default_rng(5))
            cues = ndi.gaussian_filter(spectral_contrasts(image), (0, 0.7, 0.7))
            single.append(
                np.mean([explained_variance(np.log(np.maximum(b, 1)), scene) for b in image])
            )
            several.append(max(explained_variance(cue, scene) for cue in cues))
        assert np.mean(single) < 0.35, name
        assert np.mean(several) > 0.7, name


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
