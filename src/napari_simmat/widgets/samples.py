"""The sample data of napari's menu, and the three that an empty tab offers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from napari_simmat.io.files import SAMPLES

LayerData = tuple[Any, dict[str, Any], str]


def _real(function: str, name: str, **options: Any) -> list[LayerData]:
    """An image of scikit-image."""
    from skimage import data

    return [(getattr(data, function)(), {"name": name, **options}, "image")]


def _stored(name: str, **options: Any) -> list[LayerData]:
    """An image that comes with the package, and its true objects."""
    from napari_simmat.io.readers import read_image

    labels = read_image(SAMPLES / f"{name}_labels.tif").data
    return [
        (read_image(SAMPLES / f"{name}.tif").data, {"name": name, **options}, "image"),
        (labels.astype(np.int32), {"name": "known objects", "visible": False}, "labels"),
    ]


def _layer_for_each_channel(name: str) -> list[LayerData]:
    """A stored sample with a layer for each channel, the first of which is visible."""
    from napari_simmat.io.readers import read_image

    image, (_, truth) = read_image(SAMPLES / f"{name}.tif"), _stored(name)
    layers: list[LayerData] = [
        (channel, {"name": title, "visible": number == 0}, "image")
        for number, (channel, title) in enumerate(
            zip(image.data, image.channel_names or (), strict=True)
        )
    ]
    return [*layers, truth]


def fluorescence() -> list[LayerData]:
    """Drawn tissue with two stains, nuclei and membranes, and the true cells."""
    *stains, truth = _layer_for_each_channel("fluorescence")
    for (_, options, _), colormap in zip(stains, ("bop blue", "bop orange"), strict=True):
        options.update(colormap=colormap, blending="additive", visible=True)
    return [*stains, truth]


def cells_3d() -> list[LayerData]:
    """A drawn stack of cells, whose planes are twice as far apart as pixels, and the true cells."""
    layers = _stored("cells")
    for _, options, _ in layers:
        options.update(scale=(2.0, 1.0, 1.0), axis_labels=("z", "y", "x"))
    return layers


# The samples of napari's menu, by their names in `napari.yaml`.
coins = partial(_real, "coins", "coins")
cell = partial(_real, "cell", "cell")
immunohistochemistry = partial(_real, "immunohistochemistry", "tissue", rgb=True)
retina = partial(_real, "retina", "retina", rgb=True)
microaneurysms = partial(_real, "microaneurysms", "microaneurysms")
polarization = partial(_layer_for_each_channel, "polarization")
polarization_stack = partial(_stored, "polarization", axis_labels=("channel", "y", "x"))
multispectral = partial(_layer_for_each_channel, "multispectral")
thermal = partial(_stored, "thermal")
ct = partial(_stored, "ct", contrast_limits=(-160, 240))  # Hounsfield units
mri = partial(_stored, "mri")


class Offered(NamedTuple):
    """A real image that is there without a download, at most 300 kB."""

    title: str
    make: Callable[[], list[LayerData]]
    source: str


OFFERED = (
    Offered(
        "Coins",
        coins,
        "Greek coins from Pompeii, Brooklyn Museum Collection, no known copyright restrictions",
    ),
    Offered("A cell", cell, "A cell in saline, quantitative phase, by Paul Müller and others, CC0"),
    Offered("Retina", retina, "A fundus photograph, by Mikael Häggström, CC0"),
)
"""They come with scikit-image."""
