"""Sensors that look at one scene: colour, polarization, depth, heat, near infra-red, spectra.

Each renders (C, H, W) float32 in the sensor's own raw units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from napari_simmat.learn.scenes import photographs
from napari_simmat.learn.scenes.arrays import Floats, Ids
from napari_simmat.learn.scenes.optics import blur, camera_noise, gaussian
from napari_simmat.learn.scenes.scene import Scene, draw_scene
from napari_simmat.learn.scenes.tones import tones
from napari_simmat.learn.scenes.visibility import visible_labels

_LAYOUTS = ("leaves", "leaves", "large", "discs", "cells", "nested")
_ATTEMPTS = 20
_FULL_SCALE = 3900.0  # counts of the brightest pixels of a 12-bit camera
_ELECTRONS = 2.5  # electrons per count


class Sensor(NamedTuple):
    """Names of a sensor's channels, and the function that renders them from a scene."""

    channels: tuple[str, ...]
    render: Callable[[Scene, np.random.Generator], Floats]


def rgb(scene: Scene, rng: np.random.Generator) -> Floats:
    """Colour photograph (3, H, W), 0..255: diffuse reflection under one lamp, some gloss."""
    lamp = _lamp(rng)
    light = _illumination(scene, lamp, rng.uniform(0.3, 0.6))
    shine = scene.gloss * np.clip(scene.normals @ _halfway(lamp), 0, 1) ** 40
    shine = np.where(scene.glass, 0.03, 0.4) * shine
    image: Floats = scene.albedo * light[..., None] + shine[..., None]
    image = blur(image.astype(np.float32), rng.uniform(0.3, 0.8)).transpose(2, 0, 1)
    image = image + rng.uniform(0.003, 0.02) * gaussian(rng, image.shape)
    return np.asarray(np.clip(255 * image, 0, 255), np.float32)


def polarization(scene: Scene, rng: np.random.Generator) -> Floats:
    """Counts (4, H, W) of a 12-bit camera behind polarisers at 0, 45, 90 and 135 degrees.

    Light is the sum of a diffuse and a specular part. Each is partly linearly polarised as the
    Fresnel equations say (Hecht, Optics; degrees of polarization as in Atkinson and Hancock
    2006, polarised photography after Schechner 2003): the diffuse part, which left the
    surface by refraction, along the normal's azimuth; the specular part across it. Stokes'
    S0, S1, S2 of the two add up, and a polariser at angle a passes
    (S0 + S1 cos 2a + S2 sin 2a) / 2, so I0 + I90 = I45 + I135 up to noise.

    Clear glass lets the ground's light through, less what its two faces reflect, and adds the
    reflected surroundings, here about twice as bright as the ground: it hardly changes the
    intensity, but polarises.
    """
    index = scene.refractive_index
    azimuth = np.arctan2(scene.normals[..., 1], scene.normals[..., 0])
    sine2 = np.clip(1 - scene.normals[..., 2] ** 2, 0, 0.98)
    lamp = _lamp(rng)
    light = _illumination(scene, lamp, rng.uniform(0.3, 0.6))
    grey = scene.albedo.mean(axis=-1)
    reflectance = _fresnel_reflectance(sine2, index)

    diffuse = grey * light * np.where(scene.glass, (1 - reflectance) ** 2, 1)
    surroundings = np.where(scene.glass, 2 * grey * light, rng.uniform(0.4, 1.2) * scene.gloss)
    specular = reflectance * surroundings
    from_diffuse = diffuse * _diffuse_degree(sine2, index) * ~scene.glass
    from_specular = specular * _specular_degree(sine2, index)
    polarised = from_diffuse - from_specular  # along the azimuth; negative = across
    stokes = np.stack(
        [
            diffuse + specular,
            polarised * np.cos(2 * azimuth),
            polarised * np.sin(2 * azimuth),
        ],
        axis=-1,
    ).astype(np.float32)
    stokes = blur(stokes, rng.uniform(0.4, 0.9))

    # (4, H, W), polarisers at 0, 45, 90, 135 degrees
    halves = np.stack(
        [
            stokes[..., 0] + stokes[..., 1],
            stokes[..., 0] + stokes[..., 2],
            stokes[..., 0] - stokes[..., 1],
            stokes[..., 0] - stokes[..., 2],
        ]
    )
    exposure = rng.uniform(0.35, 0.95) * _FULL_SCALE / max(float(halves.max()), 1e-6)
    counts = camera_noise(rng, _ELECTRONS * exposure * halves, rng.uniform(3, 9)) / _ELECTRONS
    return (counts + rng.uniform(5, 60)).astype(np.float32)


def depth(scene: Scene, rng: np.random.Generator) -> Floats:
    """Depth (1, H, W) in arbitrary length units; 0 = missing."""
    return photographs.depth(scene, rng)[None]


def thermal(scene: Scene, rng: np.random.Generator) -> Floats:
    """Raw counts (1, H, W) of a long-wave infra-red camera, linear in temperature."""
    return photographs.thermal(scene, rng)[None]


def near_infrared(scene: Scene, rng: np.random.Generator) -> Floats:
    """Near infra-red photograph (1, H, W): other reflectances than in the visible."""
    base = tones(scene, rng, gap=0.15, low=0.1, high=0.95)[:, 0]
    light = rng.uniform(0.3, 0.6) + 0.6 * np.clip(scene.normals @ _lamp(rng), 0, 1)
    image = blur((base[scene.regions] * light).astype(np.float32), rng.uniform(0.4, 1.0))
    return camera_noise(rng, 3000 * image, 8.0)[None].astype(np.float32)


def multispectral(scene: Scene, rng: np.random.Generator) -> Floats:
    """Reflectance counts (6, H, W) in six bands; spectra are smooth from band to band."""
    knots = tones(scene, rng, gap=0.15, low=0.05, high=0.9, channels=3)
    bands = np.linspace(0, 2, 6)
    below = np.minimum(bands.astype(int), 1)
    part = (bands - below).astype(np.float32)
    spectra = knots[:, below] * (1 - part) + knots[:, below + 1] * part
    image = spectra[scene.regions] * (0.9 + 0.1 * scene.normals[..., 2:])
    image = blur(image.astype(np.float32), rng.uniform(0.4, 0.9)).transpose(2, 0, 1)
    return camera_noise(rng, 2000 * image, 8.0).astype(np.float32)


SENSORS: dict[str, Sensor] = {
    "rgb": Sensor(("red", "green", "blue"), rgb),
    "polarization": Sensor(("0 deg", "45 deg", "90 deg", "135 deg"), polarization),
    "depth": Sensor(("depth",), depth),
    "thermal": Sensor(("temperature",), thermal),
    "near_infrared": Sensor(("near infra-red",), near_infrared),
    "multispectral": Sensor(tuple(f"band {number}" for number in range(1, 7)), multispectral),
}
"""Name -> `Sensor`. A new sensor is a new row; a test walks all rows."""


def draw_sensor_sample(
    sensor: str,
    rng: np.random.Generator | int,
    size: int | tuple[int, int] = 256,
    layout: str | None = None,
) -> tuple[Floats, Ids, Scene]:
    """Draw a scene and look at it through `sensor`.

    Parameters
    ----------
    sensor
        A name in `SENSORS`.
    rng
        Generator, which is advanced, or a seed.
    size
        Side, or height and width, in pixels.
    layout
        A name in `LAYOUTS`; one that suits cameras by default.

    Returns
    -------
    image
        (C, H, W) float32, raw units.
    labels
        The scene's objects that this sensor can tell apart, in any channel or by how channels
        differ; ids 1..N.
    scene
        The scene itself, to be looked at through other sensors.
    """
    if sensor not in SENSORS:
        raise ValueError(f"Sensor {sensor!r} is unknown; use one of {', '.join(SENSORS)}.")
    rng = np.random.default_rng(rng)
    for _ in range(_ATTEMPTS):
        scene = draw_scene(rng, size, layout or str(rng.choice(_LAYOUTS)))
        if scene.labels.max() == 0:
            continue
        image = SENSORS[sensor].render(scene, rng)
        cues = image if len(image) == 1 else np.concatenate([image, image - image.mean(axis=0)])
        labels = visible_labels(cues.transpose(1, 2, 0), scene.labels)
        if labels.max() > 0:
            return image, labels, scene
    raise RuntimeError(f"No scene of {size} pixels shows {sensor} an object; draw larger scenes.")


def _lamp(rng: np.random.Generator) -> Floats:
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.9)
    direction = np.array([np.cos(angle) * tilt, np.sin(angle) * tilt, 1.0])
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def _illumination(scene: Scene, lamp: Floats, ambient: float) -> Floats:
    """Light on the surface (Lambert's law), or on the ground behind clear glass."""
    light = ambient + 0.6 * np.clip(scene.normals @ lamp, 0, 1)
    bare = scene.regions == 0
    ground = np.median(light[bare]) if bare.any() else np.median(light)
    return np.asarray(np.where(scene.glass, ground, light), np.float32)


def _halfway(lamp: Floats) -> Floats:
    """Between the lamp and the camera, where a mirror facet would have to point (Blinn 1977)."""
    direction = lamp + np.array([0, 0, 1], np.float32)
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def _fresnel_reflectance(sine2: Floats, index: Floats) -> Floats:
    """Share of unpolarised light that a dielectric reflects; `sine2` = sin^2 of incidence."""
    cosine, refracted = np.sqrt(1 - sine2), np.sqrt(index**2 - sine2)
    across = ((cosine - refracted) / (cosine + refracted)) ** 2
    along = ((index**2 * cosine - refracted) / (index**2 * cosine + refracted)) ** 2
    return np.asarray((across + along) / 2, np.float32)


def _diffuse_degree(sine2: Floats, index: Floats) -> Floats:
    """Degree of linear polarization of light that came from below the surface."""
    cosine = np.sqrt(1 - sine2)
    above = (index - 1 / index) ** 2 * sine2
    below = 2 + 2 * index**2 - (index + 1 / index) ** 2 * sine2
    return np.asarray(above / (below + 4 * cosine * np.sqrt(index**2 - sine2)), np.float32)


def _specular_degree(sine2: Floats, index: Floats) -> Floats:
    """Degree of linear polarization of reflected light; 1 at Brewster's angle."""
    above = 2 * sine2 * np.sqrt((1 - sine2) * (index**2 - sine2))
    below = index**2 - sine2 - index**2 * sine2 + 2 * sine2**2
    return np.asarray(above / below, np.float32)
