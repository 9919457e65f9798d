"""Sensors that image a scene: color, polarization, depth, heat, near infra-red, spectra.

Each renders (C, H, W) float32 in the sensor's own raw units, with the sensor's typical faults.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from simmat_research.canvas import Floats, Ids, Shape
from simmat_research.renderers import (
    blur,
    camera_noise,
    draw_lamp,
    gaussian,
    halfway,
    illumination,
)
from simmat_research.samples import visible_labels
from simmat_research.scene import Scene, draw_scene, tones
from simmat_research.textures import smooth_field

_CAMERA_LAYOUTS = ("leaves", "leaves", "large", "discs", "cells", "nested")
_ATTEMPTS = 20


def camera_scene(rng: Generator, size: int | tuple[int, int]) -> Scene:
    """Draw a scene of a layout that cameras see."""
    return draw_scene(rng, size, str(rng.choice(_CAMERA_LAYOUTS)))


def draw_sensor_sample(
    sensor: str,
    rng: Generator | int,
    size: int | tuple[int, int] = 256,
    draw: Callable[[Generator, int | tuple[int, int]], Scene] = camera_scene,
) -> tuple[Floats, Ids, Scene]:
    """Draw scenes until `sensor` shows an object of one.

    Parameters
    ----------
    sensor
        A name in `SENSORS` or `PSEUDO_SENSORS`.
    rng
        Generator, which is advanced, or a seed.
    size
        Side, or height and width, in pixels.
    draw
        Draws a scene: `camera_scene`, or `benchmark_scene`.

    Returns
    -------
    image
        (C, H, W) float32, raw units.
    labels
        Int32 (H, W), ids 1..N (N >= 1) of the objects visible in the sensor's cues.
    scene
        The scene itself, for imaging with other sensors.
    """
    instrument, rng = sensor_named(sensor), np.random.default_rng(rng)
    for _ in range(_ATTEMPTS):
        scene = draw(rng, size)
        if scene.labels.max() == 0:
            continue
        image = instrument.render(scene, rng)
        labels = visible_labels(instrument.cues(image).transpose(1, 2, 0), scene.labels)
        if labels.max() > 0:
            return image, labels, scene
    raise RuntimeError(f"In {_ATTEMPTS} scenes {sensor} shows no object; draw larger scenes.")


def differences(image: Floats) -> Floats:
    """Cues (K, H, W): each channel, and its difference from the mean of all (C, H, W)."""
    return image if len(image) == 1 else np.concatenate([image, image - image.mean(axis=0)])


class Sensor(NamedTuple):
    """A sensor: its channels, their rendering, and the cues by which objects are visible.

    Parameters
    ----------
    channels
        Names of the C channels.
    render
        (scene, generator) -> image (C, H, W) float32.
    cues
        Image (C, H, W) -> cues (K, H, W) in which borders may be visible.
    """

    channels: tuple[str, ...]
    render: Callable[[Scene, Generator], Floats]
    cues: Callable[[Floats], Floats] = differences


def sensor_named(name: str) -> Sensor:
    """Sensor by its name in `SENSORS` or `PSEUDO_SENSORS`; a ValueError lists the names."""
    sensors = SENSORS | PSEUDO_SENSORS
    if name not in sensors:
        raise ValueError(f"Sensor {name!r} is unknown; use one of {', '.join(sensors)}.")
    return sensors[name]


def rgb(scene: Scene, rng: Generator) -> Floats:
    """Color photograph (3, H, W), 0..255: diffuse reflection under one lamp, some gloss."""
    lamp = draw_lamp(rng)
    light = illumination(scene, lamp, rng.uniform(0.3, 0.6))
    shine = scene.gloss * np.clip(scene.normals @ halfway(lamp), 0, 1) ** 40
    shine = np.where(scene.glass, 0.03, 0.4) * shine
    image: Floats = scene.albedo * light[..., None] + shine[..., None]
    image = blur(image.astype(np.float32), rng.uniform(0.3, 0.8)).transpose(2, 0, 1)
    image = image + rng.uniform(0.003, 0.02) * gaussian(rng, image.shape)
    return np.asarray(np.clip(255 * image, 0, 255), np.float32)


_FULL_SCALE = 3900.0
"""Counts of the brightest pixels of a 12-bit camera."""
_ELECTRONS_PER_COUNT = 2.5


def polarization(scene: Scene, rng: Generator) -> Floats:
    """Counts (4, H, W) of a 12-bit camera behind polarizers at 0, 45, 90 and 135 degrees.

    Light is the sum of a diffuse and a specular part, each partly linearly polarized by the
    Fresnel equations (Hecht, Optics; degrees of polarization as in Atkinson and Hancock 2006,
    polarized photography after Schechner 2003): the diffuse part, which left the surface by
    refraction, along the normal's azimuth, the specular part across it. Their Stokes parameters
    S0, S1, S2 add up, and a polarizer at angle a passes (S0 + S1 cos 2a + S2 sin 2a) / 2, so that
    I0 + I90 = I45 + I135 up to noise.

    Clear glass transmits the ground's light, except for the reflections at its two faces, and adds
    the reflected surroundings, here about twice as bright as the ground: it hardly changes the
    intensity, but polarizes.
    """
    index = scene.refractive_index
    azimuth = np.arctan2(scene.normals[..., 1], scene.normals[..., 0])
    sine2 = np.clip(1 - scene.normals[..., 2] ** 2, 0, 0.98)
    lamp = draw_lamp(rng)
    light = illumination(scene, lamp, rng.uniform(0.3, 0.6))
    gray = scene.albedo.mean(axis=-1)
    reflectance = _fresnel_reflectance(sine2, index)

    diffuse = gray * light * np.where(scene.glass, (1 - reflectance) ** 2, 1)
    surroundings = np.where(scene.glass, 2 * gray * light, rng.uniform(0.4, 1.2) * scene.gloss)
    specular = reflectance * surroundings
    from_diffuse = diffuse * _diffuse_degree(sine2, index) * ~scene.glass
    from_specular = specular * _specular_degree(sine2, index)
    polarized = from_diffuse - from_specular  # along the azimuth; negative = across
    along, aslant = polarized * np.cos(2 * azimuth), polarized * np.sin(2 * azimuth)
    stokes = np.stack([diffuse + specular, along, aslant], axis=-1).astype(np.float32)
    s0, s1, s2 = np.moveaxis(blur(stokes, rng.uniform(0.4, 0.9)), -1, 0)

    transmitted: Floats = np.stack([s0 + s1, s0 + s2, s0 - s1, s0 - s2])  # 0, 45, 90, 135 degrees
    exposure = rng.uniform(0.35, 0.95) * _FULL_SCALE / max(float(transmitted.max()), 1e-6)
    transmitted = _ELECTRONS_PER_COUNT * exposure * transmitted
    electrons = camera_noise(rng, transmitted, rng.uniform(3, 9))
    return (electrons / _ELECTRONS_PER_COUNT + rng.uniform(5, 60)).astype(np.float32)


def _fresnel_reflectance(sine2: Floats, index: Floats) -> Floats:
    """Share of unpolarized light that a dielectric reflects; `sine2` = sin^2 of incidence."""
    cosine, refracted = np.sqrt(1 - sine2), np.sqrt(index**2 - sine2)
    across = ((cosine - refracted) / (cosine + refracted)) ** 2
    along = ((index**2 * cosine - refracted) / (index**2 * cosine + refracted)) ** 2
    return np.asarray((across + along) / 2, np.float32)


def _diffuse_degree(sine2: Floats, index: Floats) -> Floats:
    """Degree of linear polarization of light from below the surface."""
    cosine = np.sqrt(1 - sine2)
    above = (index - 1 / index) ** 2 * sine2
    below = 2 + 2 * index**2 - (index + 1 / index) ** 2 * sine2
    return np.asarray(above / (below + 4 * cosine * np.sqrt(index**2 - sine2)), np.float32)


def _specular_degree(sine2: Floats, index: Floats) -> Floats:
    """Degree of linear polarization of reflected light; 1 at Brewster's angle."""
    above = 2 * sine2 * np.sqrt((1 - sine2) * (index**2 - sine2))
    below = index**2 - sine2 - index**2 * sine2 + 2 * sine2**2
    return np.asarray(above / below, np.float32)


_COUNTS_AT_1_M = 348.0
"""Disparity in eighths of a pixel: 580 px focal length x 7.5 cm baseline x 8 (Kinect)."""
_PER_PIXEL = 8.0
_FARTHEST_SHADOW = 8
"""Largest width in pixels of the projector's shadow."""
_NEAREST = 0.5
"""Distance in meters whose disparity is white in the HHA code."""
_METERS_OF_HEIGHT = 3.0
"""Height above ground that is white in the HHA code."""


def depth(scene: Scene, rng: Generator) -> Floats:
    """Raw counts (1, H, W) of a structured-light depth camera; 0 = no reading.

    The camera measures disparity in whole eighths of a pixel, inverse to the distance z, so that a
    step of the surface fades with 1 / z^2 (Khoshelham and Elberink, Sensors 12, 2012). The receding
    ground takes nearly the whole range; objects on it show as steps of a few counts. There is no
    reading in the projector's shadow at one side of raised objects, in patches on glass, which
    scatters little of the pattern back, and on steep faces, and at many single pixels where the
    pattern is not recognized.
    """
    counts = _COUNTS_AT_1_M / _meters(scene, rng)
    raw = np.rint(_with_matching_error(counts, rng))
    lost = _missing_readings(scene, counts, rng)
    return np.asarray(np.where(lost, 0, np.maximum(raw, 0)), np.float32)[None]


def hha(scene: Scene, rng: Generator) -> Floats:
    """Depth as three channels of 0..255 (3, H, W): disparity, height above ground, angle.

    The code of Gupta, Girshick, Arbelaez and Malik (ECCV 2014, arXiv 1407.5736): horizontal
    disparity; height above the lowest point; angle between the surface normal and the direction
    against gravity, which is estimated from the image and hence slightly off. Channels are scaled
    alike for all images of a data set. Disparity and height vary far more along the ground than
    between objects; the slant of objects shows in the angle, under the error of normals fitted to
    noisy points. All channels are 0 where `depth` has no reading.
    """
    counts = _COUNTS_AT_1_M / _meters(scene, rng)
    z = _COUNTS_AT_1_M / _with_matching_error(counts, rng)
    pitch = rng.uniform(0.3, 1.0)  # radians by which the camera looks down
    focal = 1.1 * max(scene.shape)
    across, down = (
        z * (np.arange(n, dtype=np.float32) - n / 2).reshape(axes) / focal
        for n, axes in ((scene.shape[1], (1, -1)), (scene.shape[0], (-1, 1)))
    )
    roll, nod = rng.normal(0, 0.03, 2)  # error of the estimated direction of gravity
    up = np.array([np.sin(roll), -np.cos(pitch + nod), -np.sin(pitch + nod)], np.float32)
    height = across * up[0] + down * up[1] + z * up[2]
    height = height - np.percentile(height, 1)
    normal = scene.normals * np.array([1, 1, -1], np.float32)  # z away from the camera
    angle = np.degrees(np.arccos(np.clip(blur(normal, 0.8) @ up, -1, 1)))
    error = blur(gaussian(rng, scene.shape), rng.uniform(0.8, 1.8))
    angle = angle + rng.uniform(5, 11) * error / error.std()
    code = np.stack([255 * _NEAREST / z, height * (255 / _METERS_OF_HEIGHT), angle + 38])
    code = np.where(_missing_readings(scene, counts, rng), 0, np.clip(code, 0, 255))
    return np.asarray(np.rint(code), np.float32)


def fill_missing(image: Floats) -> Floats:
    """Fill pixels without a reading, 0 in all channels (C, H, W), with the local mean."""
    read = np.asarray((image > 0).any(axis=0))
    weight = np.maximum(blur(np.asarray(read, np.float32), 1.5), 1e-3)
    near_by = blur(image.transpose(1, 2, 0), 1.5).transpose(2, 0, 1) / weight
    return np.where(read, image, near_by).astype(np.float32)


def _meters(scene: Scene, rng: Generator) -> Floats:
    """Distance (H, W) from the camera in meters, with a median of 1 to 2 m."""
    distance = scene.depth / np.median(scene.depth) * np.float32(rng.uniform(1, 2))
    return np.asarray(distance, np.float32)


def _with_matching_error(counts: Floats, rng: Generator) -> Floats:
    """Disparity with the matching error, which is correlated over the matching window."""
    window = blur(gaussian(rng, counts.shape), rng.uniform(0.6, 1.0))
    noise = rng.uniform(0.4, 0.9) * window / window.std()
    return np.asarray(blur(counts, rng.uniform(0.3, 0.6)) + noise, np.float32)


def _missing_readings(scene: Scene, counts: Floats, rng: Generator) -> NDArray[np.bool_]:
    """Pixels without a reading: in shadows, in patches of some surfaces, single ones."""
    patches = smooth_field(rng, scene.shape, rng.uniform(4, 9))
    steep = scene.normals[..., 2] < 0.45
    # Pixels hidden from the projector, which stands to the right, by something nearer.
    hidden = np.zeros(counts.shape, bool)
    for away in range(1, min(_FARTHEST_SHADOW, counts.shape[1] - 1) + 1):
        nearer = counts[:, away:] - counts[:, :-away]
        hidden[:, :-away] |= nearer > _PER_PIXEL * away
    lost = hidden | (patches > np.select([scene.glass, steep], [1.2, 0.9], 2.4))
    single = rng.random(scene.shape, dtype=np.float32) < rng.uniform(0.1, 0.3)
    return np.asarray(lost | single)


def thermal(scene: Scene, rng: Generator) -> Floats:
    """Raw counts (1, H, W) of an uncooled long-wave infra-red camera without a shutter.

    Counts are linear in the surface's temperature. The uncorrected camera adds its own warmth (a
    gradient across the field, darker corners and slow clouds); offsets of the two amplifiers that
    read even and odd columns in turn, many times the differences between objects; a small offset
    of every column and row; white noise (Vollmer and Moellmann, Infrared Thermal Imaging, 2018;
    fixed pattern of focal plane arrays: Scribner, Kruer and Killiany, Proceedings of the IEEE 79,
    1991). Averaging neighboring columns reveals the objects. Glass is opaque.
    """
    height, width = scene.shape
    kelvin = blur(scene.temperature, rng.uniform(0.5, 0.9)) - 293
    kelvin = kelvin + rng.uniform(3, 9) * _housing(rng, scene.shape)
    gap = rng.uniform(6, 18) * rng.choice([-1, 1])
    kelvin = kelvin + gap * (np.arange(width, dtype=np.float32) % 2 - 0.5)
    kelvin = kelvin + rng.uniform(0.1, 0.4) * gaussian(rng, (1, width))
    kelvin = kelvin + rng.uniform(0.0, 0.1) * gaussian(rng, (height, 1))
    kelvin = kelvin + rng.uniform(0.03, 0.1) * gaussian(rng, scene.shape)
    counts = rng.uniform(6000, 9000) + 25 * kelvin  # counts for each kelvin
    return np.asarray(np.rint(counts), np.float32)[None]


def _housing(rng: Generator, shape: Shape) -> Floats:
    """Signal (H, W) of the camera's own warmth, about -1 to 1: slope, corners, clouds."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.sin(angle) * y[:, None] + np.cos(angle) * x[None]
    y0, x0 = rng.uniform(-0.3, 0.3, 2)
    corners = 0.5 - ((y[:, None] - y0) ** 2 + (x[None] - x0) ** 2)
    clouds = smooth_field(rng, shape, min(shape) * rng.uniform(0.5, 1.0))
    mix = rng.dirichlet([2, 2, 1])
    return np.asarray(mix[0] * slope + mix[1] * corners + mix[2] * clouds, np.float32)


def near_infrared(scene: Scene, rng: Generator) -> Floats:
    """Counts (1, H, W) of an interlaced silicon camera whose 850 nm lamp lights every other row.

    Such a lamp flashes with one of the two fields, so that their difference is free of ambient
    light (Ebisawa, IEEE Transactions on Instrumentation and Measurement 47, 1998). Ambient light is
    patchy sunlight and much brighter than the lamp. The chip, hardly thicker than the absorption
    length of the light, adds etalon fringes to both (Howell, Handbook of CCD Astronomy, 2006). At
    850 nm dyes are clear and clear glass is not (ferrous iron), so that reflectances are
    independent of colors (Salamati, Fredembach and Suesstrunk, CIC 2009).
    """
    shape = scene.shape
    base = tones(scene, rng, gap=0.12, low=0.25, high=0.75)[:, 0]
    grain = 1 + rng.uniform(0.02, 0.08) * scene.detail
    ambient: Floats = np.full(shape, rng.uniform(1.2, 2.0), np.float32)
    ambient = _shade_patches(ambient, rng, 0.25, 0.5)
    surface = blur(base[scene.regions], rng.uniform(0.4, 0.7))
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    y0, x0 = rng.uniform(-0.5, 0.5, 2)
    beam = 1 / (1 + ((y[:, None] - y0) ** 2 + (x[None] - x0) ** 2) / rng.uniform(1.5, 4.0))
    lit = (np.arange(shape[0]) + rng.integers(2)) % 2 == 0
    light = ambient + rng.uniform(0.5, 0.8) * beam * lit[:, None]
    # The phase grows with the chip's thickness, so fringes are level lines some 8 to 20 px apart.
    thickness = min(shape) * rng.uniform(0.35, 0.7)
    turns = thickness / rng.uniform(8, 20)
    phase = 2 * np.pi * turns * smooth_field(rng, shape, thickness)
    fringes = 1 + rng.uniform(0.05, 0.15) * np.cos(phase)
    electrons = np.asarray(8000 * surface * grain * light * fringes, np.float32)
    return camera_noise(rng, electrons, 15.0)[None].astype(np.float32)


BANDS = 48
SHORTEST, LONGEST = 400.0, 2500.0
"""Range in nanometers of an imaging spectrometer such as AVIRIS."""

ABSORPTIONS: dict[str, tuple[float, float]] = {
    "chlorophyll": (670.0, 35.0),
    "ferric iron": (880.0, 80.0),
    "ferrous iron": (1020.0, 120.0),
    "water": (1200.0, 50.0),
    "cellulose, plastics (C-H)": (1725.0, 45.0),
    "clay (Al-OH)": (2200.0, 40.0),
    "carbonate": (2335.0, 40.0),
}
"""Absorption bands of common materials: center and width (sigma) in nanometers (Clark 1999)."""
_ATMOSPHERE = ((760, 8, 0.4), (940, 25, 0.5), (1130, 30, 0.6), (1385, 45, 0.99), (1885, 60, 0.99))
"""Bands of oxygen and water vapor: center and width in nanometers, absorbed share."""

LANDSAT = {
    "480 nm": (450.0, 510.0),
    "560 nm": (530.0, 590.0),
    "655 nm": (640.0, 670.0),
    "865 nm": (850.0, 880.0),
    "1610 nm": (1570.0, 1650.0),
    "2200 nm": (2110.0, 2290.0),
}
"""Bands 2 to 7 of Landsat 8's imager: name by center -> range in nanometers."""


REDEDGE = {
    "475 nm": (459.0, 491.0),
    "560 nm": (546.5, 573.5),
    "668 nm": (660.0, 676.0),
    "717 nm": (711.0, 723.0),
    "842 nm": (813.5, 870.5),
}
"""Bands of a drone's camera, MicaSense's RedEdge-P by its data sheet: name by center -> range in
nanometers.
"""


def hyperspectral(scene: Scene, rng: Generator, bands: int = BANDS) -> Floats:
    """Counts (bands, H, W) of a pushbroom imaging spectrometer, 400 to 2500 nm.

    Radiance is sunlight times atmospheric transmission times reflectance. Reflectance is one smooth
    continuum for all materials of a scene, with absorption bands whose depths differ (Clark,
    Spectroscopy of Rocks and Minerals, 1999). Shading, damp patches, cloud shadows and grain scale
    the whole spectrum of a pixel, and by more than materials differ in any band: a single band
    shows patches, the ratio of two shows materials. Where water vapor absorbs all light only
    noise is left. Every detector, which records one column of one band, has its own gain.
    """
    centers = wavelengths(bands)
    half = (LONGEST - SHORTEST) / bands / 2
    return _radiance(scene, rng, [(c - half, c + half) for c in centers], photons=3000)


def multispectral(scene: Scene, rng: Generator) -> Floats:
    """Counts (6, H, W) in the bands 2 to 7 of Landsat 8; otherwise as `hyperspectral`."""
    return _radiance(scene, rng, list(LANDSAT.values()), photons=20_000)


def rededge(scene: Scene, rng: Generator) -> Floats:
    """Counts (5, H, W) of a drone's five cameras; otherwise as `hyperspectral`, registered."""
    return _radiance(scene, rng, list(REDEDGE.values()), photons=8000)


def wavelengths(bands: int = BANDS) -> NDArray[np.float64]:
    """Centers (bands,) of equal bands in nanometers."""
    width = (LONGEST - SHORTEST) / bands
    return np.asarray(SHORTEST + width * (np.arange(bands) + 0.5), np.float64)


def _radiance(
    scene: Scene, rng: Generator, bands: list[tuple[float, float]], photons: float
) -> Floats:
    """Counts (C, H, W) in `bands`, each a range in nanometers."""
    fine = np.arange(SHORTEST, LONGEST, 5.0)
    # Radiance of a black body at 5800 K below the atmosphere, 1 at its peak (Planck's law).
    planck = fine**-5 / np.expm1(1.4388e7 / (fine * 5800))
    for center, width, share in _ATMOSPHERE:
        planck = planck * (1 - share * np.exp(-(((fine - center) / width) ** 4)))
    light = np.asarray(planck / planck.max()) * _reflectance(scene, rng, fine)  # (regions, fine)
    seen = np.stack(
        [light[:, (fine >= low - 2.5) & (fine <= high + 2.5)].mean(axis=1) for low, high in bands]
    ).astype(np.float32)
    bright = illumination(scene, draw_lamp(rng), rng.uniform(0.4, 0.7))
    bright = _shade_patches(bright, rng, 0.45, 0.8)  # cloud shadows or damp patches
    bright = bright * np.exp(rng.uniform(0.04, 0.12) * scene.detail)
    bright = np.asarray(bright * photons / np.median(bright), np.float32)
    sharpness = rng.uniform(0.4, 0.7)
    image = np.stack([blur(bright * band[scene.regions], sharpness) for band in seen])
    image *= 1 + rng.uniform(0.003, 0.012) * gaussian(rng, (len(image), 1, scene.shape[1]))
    return camera_noise(rng, image, 6.0).astype(np.float32)


def _reflectance(
    scene: Scene, rng: Generator, nanometers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spectra (regions, wavelengths) in 0..1."""
    reddening = rng.uniform(200, 900)
    continuum = rng.uniform(0.4, 0.7) * (1 - 0.8 * np.exp(-(nanometers - 250) / reddening))
    depths = tones(scene, rng, gap=0.15, low=0.0, high=0.5, channels=len(ABSORPTIONS))
    spectra = np.tile(continuum, (scene.n_regions, 1))
    for depth, (center, width) in zip(depths.T, ABSORPTIONS.values(), strict=True):
        spectra *= 1 - depth[:, None] * np.exp(-(((nanometers - center) / width) ** 2) / 2)
    return spectra


def spectral_contrasts(image: Floats, components: int = 8) -> Floats:
    """The (at most `components`) directions of the spectrum with the highest signal-to-noise ratio.

    (C, H, W) -> (K, H, W): principal components of the logarithm, where brightness is an offset
    common to all bands, after dividing each band by its noise (after Green et al. 1988).
    """
    logs = np.log(np.maximum(image, 1.0)).reshape(len(image), -1)
    logs -= logs.mean(axis=1, keepdims=True)
    rows = logs.reshape(image.shape)
    noise = np.median(np.abs(np.diff(rows, axis=1)), axis=(1, 2)) / 0.954 + 1e-4
    logs /= noise[:, None]
    _, directions = np.linalg.eigh(np.asarray(logs @ logs.T, np.float64))
    leading = directions[:, ::-1][:, :components].T.astype(np.float32)
    return np.asarray((leading @ logs).reshape(-1, *image.shape[1:]), np.float32)


def _shade_patches(light: Floats, rng: Generator, low: float, high: float) -> Floats:
    """Multiply `light` (H, W) by patches of sun and shade whose borders are not the objects'."""
    shape = (light.shape[0], light.shape[1])
    for length in (0.3, 0.12):
        patches = smooth_field(rng, shape, max(6.0, length * rng.uniform(0.6, 1.4) * min(shape)))
        light = light * rng.uniform(low, high) ** (np.tanh(4 * patches) / 2)
    return light


def hyperspectral_sensor(bands: int) -> Sensor:
    """A spectrometer with any number of bands, even hundreds, named by wavelength."""
    names = tuple(f"{center:.0f} nm" for center in wavelengths(bands))
    return Sensor(names, partial(hyperspectral, bands=bands), spectral_contrasts)


SENSORS: dict[str, Sensor] = {
    "rgb": Sensor(("red", "green", "blue"), rgb),
    "polarization": Sensor(("0 deg", "45 deg", "90 deg", "135 deg"), polarization),
    "depth": Sensor(("depth",), depth, fill_missing),
    "hha": Sensor(
        ("disparity", "height", "angle"), hha, lambda code: differences(fill_missing(code))
    ),
    "thermal": Sensor(("temperature",), thermal),
    "near_infrared": Sensor(("near infra-red",), near_infrared),
    "multispectral": Sensor(tuple(LANDSAT), multispectral, spectral_contrasts),
    "hyperspectral": hyperspectral_sensor(BANDS),
    "rededge": Sensor(tuple(REDEDGE), rededge, spectral_contrasts),
}
"""Name -> `Sensor`. A new sensor is a new row; a test walks all rows."""


def stack_sensors(first: Sensor, second: Sensor) -> Sensor:
    """One sensor with the registered channels of two sensors, each in its own units.

    An object counts as visible if either sensor shows it.
    """

    def render(scene: Scene, rng: Generator) -> Floats:
        return np.concatenate([first.render(scene, rng), second.render(scene, rng)])

    def cues(image: Floats) -> Floats:
        split = len(first.channels)
        return np.concatenate([first.cues(image[:split]), second.cues(image[split:])])

    return Sensor((*first.channels, *second.channels), render, cues)


PSEUDO_SENSORS: dict[str, Sensor] = {
    f"rgb+{name}": stack_sensors(SENSORS["rgb"], sensor)
    for name, sensor in SENSORS.items()
    if name != "rgb"
}
"""SimMAT's pseudo new modalities: color and another sensor's channels in one stack."""
