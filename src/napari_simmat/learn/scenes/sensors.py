"""Sensors that look at one scene: colour, polarization, depth, heat, near infra-red, spectra.

Each renders (C, H, W) float32 in the sensor's own raw units.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from napari_simmat.learn.scenes.arrays import Floats, Ids
from napari_simmat.learn.scenes.infrared import near_infrared, thermal
from napari_simmat.learn.scenes.lighting import draw_lamp, halfway, illumination
from napari_simmat.learn.scenes.optics import blur, gaussian
from napari_simmat.learn.scenes.polarimetry import polarization
from napari_simmat.learn.scenes.ranging import depth, filled, hha
from napari_simmat.learn.scenes.scene import Scene, draw_scene
from napari_simmat.learn.scenes.spectral import (
    BANDS,
    LANDSAT,
    hyperspectral,
    multispectral,
    spectral_contrasts,
    wavelengths,
)
from napari_simmat.learn.scenes.visibility import visible_labels

AnyScene = TypeVar("AnyScene", bound=Scene)
_LAYOUTS = ("leaves", "leaves", "large", "discs", "cells", "nested")
_ATTEMPTS = 20


def differences(image: Floats) -> Floats:
    """Where objects show: in a channel, or in how it differs from the mean of all (K, H, W)."""
    return image if len(image) == 1 else np.concatenate([image, image - image.mean(axis=0)])


class Sensor(NamedTuple):
    """A sensor's channels, how it renders them from a scene, and where objects show in them.

    Parameters
    ----------
    channels
        Names of the C channels.
    render
        (scene, generator) -> image (C, H, W) float32.
    cues
        Image (C, H, W) -> what is searched for visible borders (K, H, W).
    """

    channels: tuple[str, ...]
    render: Callable[[Scene, np.random.Generator], Floats]
    cues: Callable[[Floats], Floats] = differences


def rgb(scene: Scene, rng: np.random.Generator) -> Floats:
    """Colour photograph (3, H, W), 0..255: diffuse reflection under one lamp, some gloss."""
    lamp = draw_lamp(rng)
    light = illumination(scene, lamp, rng.uniform(0.3, 0.6))
    shine = scene.gloss * np.clip(scene.normals @ halfway(lamp), 0, 1) ** 40
    shine = np.where(scene.glass, 0.03, 0.4) * shine
    image: Floats = scene.albedo * light[..., None] + shine[..., None]
    image = blur(image.astype(np.float32), rng.uniform(0.3, 0.8)).transpose(2, 0, 1)
    image = image + rng.uniform(0.003, 0.02) * gaussian(rng, image.shape)
    return np.asarray(np.clip(255 * image, 0, 255), np.float32)


def hyperspectral_sensor(bands: int) -> Sensor:
    """A spectrometer of any number of bands, a few hundred as well, named by wavelength."""
    names = tuple(f"{centre:.0f} nm" for centre in wavelengths(bands))
    return Sensor(names, partial(hyperspectral, bands=bands), spectral_contrasts)


SENSORS: dict[str, Sensor] = {
    "rgb": Sensor(("red", "green", "blue"), rgb),
    "polarization": Sensor(("0 deg", "45 deg", "90 deg", "135 deg"), polarization),
    "depth": Sensor(("depth",), depth, filled),
    "hha": Sensor(("disparity", "height", "angle"), hha, lambda code: differences(filled(code))),
    "thermal": Sensor(("temperature",), thermal),
    "near_infrared": Sensor(("near infra-red",), near_infrared),
    "multispectral": Sensor(tuple(LANDSAT), multispectral, spectral_contrasts),
    "hyperspectral": hyperspectral_sensor(BANDS),
}
"""Name -> `Sensor`. A new sensor is a new row; a test walks all rows."""


def stacked(first: Sensor, second: Sensor) -> Sensor:
    """The channels of two sensors that see the same scene, registered, as one sensor.

    Units differ from channel to channel. An object counts as visible if either sensor shows it.
    """

    def render(scene: Scene, rng: np.random.Generator) -> Floats:
        return np.concatenate([first.render(scene, rng), second.render(scene, rng)])

    def cues(image: Floats) -> Floats:
        split = len(first.channels)
        return np.concatenate([first.cues(image[:split]), second.cues(image[split:])])

    return Sensor((*first.channels, *second.channels), render, cues)


PSEUDO_SENSORS: dict[str, Sensor] = {
    f"rgb+{name}": stacked(SENSORS["rgb"], sensor)
    for name, sensor in SENSORS.items()
    if name != "rgb"
}
"""SimMAT's pseudo new modalities: colour and another sensor's channels in one stack."""


def sensor_named(name: str) -> Sensor:
    """The sensor of a name in `SENSORS` or `PSEUDO_SENSORS`.

    Raises
    ------
    ValueError
        If there is none; the message lists the names.
    """
    sensors = SENSORS | PSEUDO_SENSORS
    if name not in sensors:
        raise ValueError(f"Sensor {name!r} is unknown; use one of {', '.join(sensors)}.")
    return sensors[name]


def observe(sensor: Sensor, scene: Scene, rng: np.random.Generator) -> tuple[Floats, Ids]:
    """Image (C, H, W) of `scene`, and the ids (H, W) of the objects that it shows, 1..N."""
    image = sensor.render(scene, rng)
    return image, visible_labels(sensor.cues(image).transpose(1, 2, 0), scene.labels)


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
        A name in `SENSORS` or `PSEUDO_SENSORS`.
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
    rng = np.random.default_rng(rng)
    return shown(sensor, rng, lambda: draw_scene(rng, size, layout or str(rng.choice(_LAYOUTS))))


def shown(
    sensor: str, rng: np.random.Generator, draw: Callable[[], AnyScene]
) -> tuple[Floats, Ids, AnyScene]:
    """Draw scenes until the sensor tells an object of one apart: image, labels, scene."""
    looking = sensor_named(sensor)
    for _ in range(_ATTEMPTS):
        scene = draw()
        if scene.labels.max() == 0:
            continue
        image, labels = observe(looking, scene, rng)
        if labels.max() > 0:
            return image, labels, scene
    raise RuntimeError(f"In {_ATTEMPTS} scenes {sensor} shows no object; draw larger scenes.")
