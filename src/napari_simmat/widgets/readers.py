"""napari's reader for NIfTI and DICOM, which the engine reads: `napari.yaml` names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np

from napari_simmat.engine.normalization import PercentileAccumulator, sample_blocks
from napari_simmat.io.dicom import holds_dicom, images_in, one_per_series
from napari_simmat.io.image_file import ImageFile
from napari_simmat.io.limits import RefusedFileError
from napari_simmat.io.readers import read_image, stem_of
from napari_simmat.widgets.layer_data import CHANNEL

LayerData = tuple[Any, dict[str, Any], str]
FILES = "SimMAT files"
"""Key of a layer's metadata: the files of the series that it shows, as strings."""
_NO_UNIT = "pixel"
_SHOWN_PERCENTS = (0.1, 99.9)
"""Percentiles that are shown black and white: metal and single hot voxels are brighter."""
_VOXELS_MEASURED = 2**20


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[Any]] | None:
    """The reader of files and folders; None for what it does not read.

    npe2 asks only for files whose names match the patterns in `napari.yaml`, but for all folders:
    those without DICOM files are left to other plugins.
    """
    for given in _paths(path):
        if not (given.is_file() or (given.is_dir() and holds_dicom(given))):
            return None
    return read_layers


def read_layers(path: str | list[str]) -> list[Any]:
    """Read images as layers, a DICOM series as one.

    Parameters
    ----------
    path
        A file, a folder with one or more DICOM series, or several of these, of which slices of one
        series give one layer. A slice of a series that the viewer shows already gives no layer:
        napari calls this for each of many files that are dropped together.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_image`.
    """
    images: list[Path] = []
    for given in _paths(path):
        images += (images_in(given) or [given]) if given.is_dir() else [given]
    new = [image for image in one_per_series(images) if not _go_to(image)]
    layers = [image_layer_data(read_image(image)) for image in new]
    return layers or [(None,)]  # napari's sign that this is all there is to do


def image_layer_data(file: ImageFile) -> LayerData:
    """An image as napari's layer data, with voxel size, units and axis names.

    Channels that are not colors become the first axis.

    Raises
    ------
    ValueError
        If the values are complex.
    """
    data, axes = file.data, file.axes
    if data.dtype.kind == "c":
        raise RefusedFileError(complex_values(file.path.name))
    channels = file.channel_axis
    if channels is not None and not file.rgb:
        data = np.moveaxis(data, channels, 0)
        axes = "C" + file.plane_axes
    elif file.rgb:
        axes = file.plane_axes
    options: dict[str, Any] = {
        "name": stem_of(file.path),
        "rgb": file.rgb,
        "scale": [file.scale.get(letter, 1.0) for letter in axes],
        "units": [file.units.get(letter) or _NO_UNIT for letter in axes],
        "axis_labels": [CHANNEL if letter == "C" else letter.lower() for letter in axes],
    }
    if len(file.files) > 1:
        options["metadata"] = {FILES: frozenset(str(each.absolute()) for each in file.files)}
    limits = None if file.rgb else _contrast_limits(data)
    return data, options | ({"contrast_limits": limits} if limits else {}), "image"


def complex_values(name: str) -> str:
    """Message: a file holds complex numbers."""
    return f"{name} holds complex numbers, which no image layer shows; save their magnitude."


def already_open(name: str, layer: str) -> str:
    """Message: a file's series is a layer."""
    return f"{name} is a slice of {layer}, which is open already; remove that layer to reread it."


def _paths(path: str | list[str]) -> list[Path]:
    return [Path(each) for each in ([path] if isinstance(path, str) else path)]


def _go_to(image: Path) -> bool:
    """Select the layer of the current viewer that shows the series of a file, if there is one."""
    viewer = napari.current_viewer()
    for layer in [] if viewer is None else viewer.layers:
        if str(image.absolute()) in layer.metadata.get(FILES, ()):
            viewer.layers.selection.active = layer
            viewer.status = already_open(image.name, layer.name)
            return True
    return False


def _contrast_limits(data: Any) -> tuple[float, float] | None:
    """Percentiles of a sample of the finite values; None, for napari's own, if these are equal."""
    pool = PercentileAccumulator(data.dtype)
    for index, rows, columns in sample_blocks(data.shape, _VOXELS_MEASURED):
        pool.add(np.asarray(data[(*index, rows, columns)]))
    if not len(pool):
        return None
    low, high = pool.percentiles(_SHOWN_PERCENTS)
    if low >= high:  # a few bright voxels on an even background
        low, high = pool.range()
    return (low, high) if low < high else None
