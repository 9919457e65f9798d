"""Files of the AIMS benchmark: an image of several as one array for each channel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.engine.formats.reading import read_image, read_labels
from napari_simmat.learn.datasets.aims_layouts import ANGLES, Item
from napari_simmat.learn.datasets.content import Content
from napari_simmat.learn.datasets.stokes import polarization
from napari_simmat.words import format_shape

Channels = list[NDArray[Any]]
"""One array (Y, X) for each."""


@dataclass(frozen=True)
class ImageOfItem:
    """An item of the benchmark, read as one array for each channel."""

    item: Item
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The item's."""
        return self.item.name

    def read(self) -> Content:
        """The channels of all parts, and the labels; ValueError if a file holds something else."""
        files = self.item.files
        if "45" in files:
            parts = _polarization(files)
        else:
            parts = {part: _READERS[part](files[part]) for part in self.parts}
        arrays = [channel for part in self.parts for channel in parts[part]]
        return Content(arrays, np.asarray(read_labels(self.item.labels).data))


def _eight_bits(path: Path) -> NDArray[np.uint8]:
    """Channels (C, Y, X) of an 8-bit picture, without alpha."""
    file = read_image(path)
    data = np.asarray(file.data)
    if data.dtype != np.uint8 or len(file.shape) != 2:
        raise ValueError(
            f"{path.name} holds {data.dtype.name} values of shape "
            f"{format_shape(data.shape)}; in the benchmark it is a picture of 8 bits. Take "
            "the file as published."
        )
    axis = file.channel_axis
    channels = data[None] if axis is None else np.moveaxis(data, axis, 0)
    return channels[:3] if len(channels) == 4 else channels


def _colour(path: Path) -> Channels:
    channels = _eight_bits(path)
    if len(channels) == 1:  # a picture in grey
        channels = np.repeat(channels, 3, axis=0)
    if len(channels) != 3:
        raise ValueError(
            f"{path.name} has {len(channels)} channels, in the benchmark it has 3; take the file "
            "as published."
        )
    return list(channels)


def _grey(path: Path) -> Channels:
    """One channel; of a coloured picture its luma, as Pillow has it."""
    channels = _eight_bits(path)
    if len(channels) == 3:  # ITU-R 601-2, rounded to the nearest
        weights = np.array([19595, 38470, 7471])[:, None, None]
        channels = (((channels * weights).sum(axis=0) + 2**15) >> 16).astype(np.uint8)[None]
    return [channels[0]]


def _measured(path: Path) -> Channels:
    """A .npy of real numbers (Y, X), never 8 bits: it is scaled by its own range."""
    file = read_image(path)
    if file.channel_axis is not None or file.data.dtype.kind not in "iuf":
        raise ValueError(
            f"{path.name} holds {file.data.dtype.name} values of shape "
            f"{format_shape(file.data.shape)}; in the benchmark it is one number for each "
            "pixel. Take the file as published."
        )
    data = np.asarray(file.data, dtype=np.float32)
    return [data[0] if data.ndim == 3 and len(data) == 1 else data]


_READERS = {
    "RGB": _colour,
    "AoLP": _colour,
    "DoLP": _colour,
    "HHA": _colour,
    "NIR": _grey,
    "depth": _measured,
    "thermal": _measured,
}


def _polarization(files: dict[str, Path]) -> dict[str, Channels]:
    images = [np.stack(_colour(files[angle])) for angle in ANGLES]
    for path, image in zip(files.values(), images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"{path.name} has another size than the picture at 0 degrees; take the files as "
                "published."
            )
    found = polarization(*images)
    return {
        "intensity": list(found.intensity),
        "AoLP": list(found.angle),
        "DoLP": list(found.degree),
    }
