"""Leica's LIF by liffile, if it is installed: also scans of other planes and of wavelengths."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.io.axes import distinct_axes, names_of_channels, planes_last
from napari_simmat.io.image_file import ImageFile, ReadOptions, package_of
from napari_simmat.io.refusals import RefusedFileError, check_memory

LIF = ".lif"
OTHER_IMAGES = "Of its images the first, {}, is read; {} {} left out."
NO_IMAGE = "{} holds no image."
SIDE_ON = "It is a scan of {} and {}, whose rows lie along {}; they are read as rows and columns."
_LETTERS = {"λ": "C", "Λ": "C", "H": "C", "S": "S"}
"""Axes of wavelengths, of lifetimes and of colors; others by their own letter."""
_SIZES = {"m": (1e6, "um"), "s": (1.0, "s")}
_METERS = "XYZ"


def reads_lif(path: Path) -> bool:
    """Whether a file is LIF by its name, and liffile is installed."""
    return path.suffix.lower() == LIF and find_spec("liffile") is not None


def read_lif(path: Path, options: ReadOptions) -> ImageFile:
    """Read the first image of a LIF file; wavelengths are its channels."""
    liffile: Any = import_module("liffile")
    with liffile.LifFile(path) as file:
        if not len(file.images):
            raise RefusedFileError(NO_IMAGE.format(path.name))
        image, others = file.images[0], len(file.images) - 1
        options.limits.check_array(path.name, image.shape, image.dtype)
        check_memory(image.nbytes, path.name)
        data, dims = np.asarray(image.asarray()), [str(name) for name in image.dims]
        coords = {name: np.asarray(values, float) for name, values in image.coords.items()}
        described = image.xml_element.iter("ChannelDescription")
        colors = [each.get("LUTName") or "" for each in described]
        name = str(image.name)
    notes = []
    if others:
        left = pluralize(others, "other")
        notes.append(OTHER_IMAGES.format(name, left, is_or_are(others)))
    rows, columns = _plane_of(dims)
    if (rows, columns) != ("Y", "X"):
        notes.append(SIDE_ON.format(columns, rows, rows))
    letters = {rows: "Y", columns: "X"}
    axes = distinct_axes("".join(letters.get(each, _LETTERS.get(each, each)) for each in dims))
    steps = dict(zip(dims, axes, strict=True))
    scale, units = {}, {}
    for dim, values in coords.items():
        letter = steps.get(dim, "")
        step = abs(float(values[-1] - values[0])) / (len(values) - 1) if len(values) > 1 else 0.0
        if step and letter in ("T", "Z", "Y", "X") and (dim in _METERS or dim == "T"):
            factor, units[letter] = _SIZES["m" if dim in _METERS else "s"]
            scale[letter] = step * factor
    data, axes = planes_last(data, axes)
    count = data.shape[axes.index("C")] if "C" in axes else 1
    return ImageFile(
        path,
        data,
        axes,
        channel_names=names_of_channels(colors, count),
        scale=scale,
        units=units,
        rgb="S" in axes,
        name=name,
        read_by=package_of("liffile"),
        notes=tuple(notes),
    )


def _plane_of(dims: list[str]) -> tuple[str, str]:
    """The axes of rows and columns: Y and X, or those of a scan that lacks one of them."""
    if {"Y", "X"} <= set(dims):
        return "Y", "X"
    spatial = [name for name in dims if name in _METERS] or dims
    if len(spatial) < 2:
        spatial = dims
    return spatial[-2], spatial[-1]
