"""Sample data in napari's menu: real images that come with scikit-image, and drawn scenes.

Everything is made on this computer; nothing is downloaded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LayerData = tuple[Any, dict[str, Any], str]

_SCENE_SIZE = 384


def coins() -> list[LayerData]:
    """Coins from Pompeii, grey, 8 bit."""
    return [_real("coins", "coins")]


def cell() -> list[LayerData]:
    """A single cell in phase contrast, grey, 8 bit."""
    return [_real("cell", "cell")]


def immunohistochemistry() -> list[LayerData]:
    """Stained tissue, RGB."""
    return [_real("immunohistochemistry", "tissue", rgb=True)]


def retina() -> list[LayerData]:
    """A retina, RGB."""
    return [_real("retina", "retina", rgb=True)]


def microaneurysms() -> list[LayerData]:
    """Lesions of a retina, grey, 8 bit."""
    return [_real("microaneurysms", "microaneurysms")]


def polarization() -> list[LayerData]:
    """A drawn scene behind polarisers at four angles: one layer each, and its known objects."""
    image, labels, names = _drawn("polarization")
    layers: list[LayerData] = [
        (channel, {"name": name, "visible": number == 0}, "image")
        for number, (channel, name) in enumerate(zip(image, names, strict=True))
    ]
    return [*layers, _truth(labels)]


def polarization_stack() -> list[LayerData]:
    """The same scene as one layer whose first axis holds the channels."""
    image, labels, _ = _drawn("polarization")
    options = {"name": "polarization", "axis_labels": ("channel", "y", "x")}
    return [(image, options, "image"), _truth(labels)]


def multispectral() -> list[LayerData]:
    """A drawn scene in six bands: one layer each, and its known objects."""
    image, labels, names = _drawn("multispectral")
    layers: list[LayerData] = [
        (band, {"name": name, "visible": number == 0}, "image")
        for number, (band, name) in enumerate(zip(image, names, strict=True))
    ]
    return [*layers, _truth(labels)]


def fluorescence() -> list[LayerData]:
    """Drawn tissue with two stains, nuclei and membranes, and its known cells."""
    from napari_simmat.learn.scenes import draw_scene, render

    scene = draw_scene(21, _SCENE_SIZE, "cells")
    stains = {"nuclei": ("fluorescence", "bop blue"), "membranes": ("membranes", "bop orange")}
    layers: list[LayerData] = []
    for number, (name, (look, colormap)) in enumerate(stains.items()):
        counts = np.clip(render(scene, look, np.random.default_rng(number)), 0, 65535)
        options = {"name": name, "colormap": colormap, "blending": "additive"}
        layers.append((counts.astype(np.uint16), options, "image"))
    return [*layers, _truth(scene.labels)]


def _real(function: str, name: str, **options: Any) -> LayerData:
    from skimage import data

    return getattr(data, function)(), {"name": name, **options}, "image"


def _drawn(sensor: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    from napari_simmat.learn.scenes import SENSORS, draw_sensor_sample

    image, labels, _ = draw_sensor_sample(sensor, 4, _SCENE_SIZE, "large")
    return np.clip(image, 0, 65535).astype(np.uint16), labels, SENSORS[sensor].channels


def _truth(labels: np.ndarray) -> LayerData:
    return labels, {"name": "known objects", "visible": False}, "labels"
