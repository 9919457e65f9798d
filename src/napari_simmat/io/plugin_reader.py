"""Files that a napari reader plugin reads: asked through npe2, which needs neither napari nor Qt.

What a plugin returns are layers. Image layers of one shape are the channels of one image; their
axis names, scale and units are taken as they are, nothing is guessed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from napari_simmat._text import is_or_are
from napari_simmat.io.axes import names_of_channels, planes_last, unnamed_axes
from napari_simmat.io.image_file import ImageFile, ReadOptions, package_of
from napari_simmat.io.refusals import RefusedFileError
from napari_simmat.io.units import known_unit

logger = logging.getLogger(__name__)
NOT_ASKED = frozenset({"napari", "napari-simmat"})
"""Plugins that read what is read here already."""
OTHER_LAYERS = "Of the images in it the first is read; {} of other shapes {} left out."
NO_PLANE = "{} holds no image but a line of {} values, such as a spectrum."
NO_UNIT = (
    "Its reader gives pixels of {} without a unit, so the table is in pixels; --pixel-size and "
    "--unit state it."
)
LETTERS = {
    "t": "T", "time": "T", "z": "Z", "depth": "Z", "c": "C", "channel": "C", "channels": "C",
    "y": "Y", "height": "Y", "x": "X", "width": "X",
}  # fmt: skip
"""Axes by the names that plugins give them."""


@dataclass(frozen=True)
class _Layer:
    """An image layer as a plugin returns it."""

    data: Any
    levels: tuple[Any, ...]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, layer: Sequence[Any]) -> _Layer | None:
        """The layer; None for what is no image."""
        kind = layer[2] if len(layer) > 2 else "image"
        if layer[0] is None or str(kind).lower() not in ("image", "labels"):
            return None
        data, options = layer[0], layer[1] if len(layer) > 1 else {}
        if isinstance(data, (list, tuple)):  # a pyramid, the finest first
            return cls(data[0], tuple(data[1:]), options or {})
        return cls(data, (), options or {})

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.data.shape)

    @property
    def rgb(self) -> bool:
        return bool(self.options.get("rgb", False)) and self.shape[-1] in (3, 4)

    @property
    def name(self) -> str:
        return str(self.options.get("name") or "")


def read_with_plugins(path: Path, options: ReadOptions) -> ImageFile | None:
    """Read a file by napari's reader plugins: the first that gives pixels a size, else the first.

    None if npe2 or such a plugin is not installed. What a plugin does with a file, and how much
    memory it takes, is up to it; shape and type of what it returns are checked.

    Raises RefusedFileError if every plugin for such files fails, with the reason of the last.
    """
    if find_spec("npe2") is None:
        return None
    manager: Any = import_module("npe2").PluginManager.instance()
    manager.discover()
    failure = ""
    first: ImageFile | None = None
    for reader in manager.iter_compatible_readers([str(path)]):
        if reader.plugin_name in NOT_ASKED:
            continue
        try:
            layers = _layers_of(reader, path, manager)
        except Exception as error:  # plugins raise anything
            logger.debug("%s failed on %s", reader.plugin_name, path.name, exc_info=True)
            failure = f"{reader.plugin_name} failed ({' '.join(str(error).split())[:200]})"
            continue
        found = _as_image(path, layers, _version_of(reader, manager), options) if layers else None
        if found is not None and found.scale:
            return found
        first = first or found
    if first is None and failure:
        raise RefusedFileError(f"Cannot read {path.name}: {failure}; save it as TIFF.")
    return first


def has_plugin(path: Path) -> bool:
    """Whether a napari plugin other than this one says that it reads such files."""
    if find_spec("npe2") is None:
        return False
    manager: Any = import_module("npe2").PluginManager.instance()
    manager.discover()
    readers = manager.iter_compatible_readers([str(path)])
    return any(reader.plugin_name not in NOT_ASKED for reader in readers)


def _version_of(reader: Any, manager: Any) -> str:
    """The package of a plugin, and its version."""
    package = manager.get_manifest(reader.plugin_name).package_metadata
    if package is None:
        return package_of(reader.plugin_name)
    return f"{package.name} {package.version}"


def _layers_of(reader: Any, path: Path, manager: Any) -> list[_Layer]:
    """The image layers that a plugin makes of a file; none if it does not read it."""
    given = {"path": [str(path)], "stack": False, "_registry": manager.commands}
    read = reader.exec(kwargs=given)
    layers = [] if read is None else read([str(path)], stack=False)
    return [one for one in (_Layer.of(each) for each in layers or ()) if one is not None]


def _as_image(path: Path, layers: list[_Layer], by: str, options: ReadOptions) -> ImageFile:
    """One image of layers: those of the first one's shape are its channels.

    Lines, such as the spectra beside a micrograph, are no images.
    """
    first = next((one for one in layers if len(one.shape) - one.rgb >= 2), None)
    if first is None:
        raise RefusedFileError(NO_PLANE.format(path.name, math.prod(layers[0].shape)))
    alike = [one for one in layers if one.shape == first.shape and not one.rgb]
    notes = []
    if len(alike) < len(layers) and len(layers) > 1:
        left = len(layers) - max(len(alike), 1)
        notes.append(OTHER_LAYERS.format(left, is_or_are(left)))
    several = len(alike) > 1
    axes, scale, units = _described(path, first)
    options.limits.check_array(
        path.name, (len(alike), *first.shape) if several else first.shape, first.data.dtype
    )
    data, names = first.data, first.options.get("name")
    given = [one.name for one in alike] if several else names
    if several:
        data, axes = _stacked([one.data for one in alike]), f"C{axes}"
    data, axes = _without_singletons(*planes_last(data, axes))
    count = int(data.shape[axes.index("C")]) if "C" in axes else 1
    named = list(map(str, given)) if isinstance(given, (list, tuple)) else []
    known = {letter for letter in units if units[letter]}
    bare = {letter: size for letter, size in scale.items() if letter in "XY" and size != 1}
    if bare and not known:
        notes.append(NO_UNIT.format(" x ".join(f"{size:.4g}" for size in bare.values())))
    return ImageFile(
        path,
        data,
        axes,
        channel_names=names_of_channels(named, count),
        scale={letter: size for letter, size in scale.items() if letter in known},
        units={letter: units[letter] for letter in known},
        rgb=first.rgb,
        levels=() if several else first.levels,
        read_by=by,
        notes=tuple(notes),
    )


def _without_singletons(data: Any, axes: str) -> tuple[Any, str]:
    """Leave out axes of length 1 other than Y and X: many plugins give every image five."""
    kept = [n for n, letter in enumerate(axes) if data.shape[n] > 1 or letter in "YXS"]
    sizes = tuple(int(data.shape[n]) for n in kept)
    return data.reshape(sizes), "".join(axes[n] for n in kept)


def _stacked(arrays: list[Any]) -> Any:
    """Channels as one array, lazy if they are."""
    if all(isinstance(each, np.ndarray) for each in arrays):
        return np.stack(arrays)
    dask: Any = import_module("dask.array")
    return dask.stack([dask.asarray(each) for each in arrays])


def _described(path: Path, layer: _Layer) -> tuple[str, dict[str, float], dict[str, str]]:
    """Letters of a layer's axes, and size and unit along those that have them."""
    count = len(layer.shape) - layer.rgb
    channel = layer.options.get("channel_axis")
    spatial = [n for n in range(count) if channel is None or n != channel % count]
    labels = [str(name).strip().lower() for name in layer.options.get("axis_labels") or ()]
    letters = list(unnamed_axes(path, len(spatial)))
    if len(labels) == count:
        spatial = list(range(count))
        letters = [LETTERS.get(name, "Q") for name in labels]
        if not {"Y", "X"} <= set(letters):
            letters = list(unnamed_axes(path, count))
    elif len(labels) == len(spatial) and {"y", "x"} <= set(labels):
        letters = [LETTERS.get(name, "Q") for name in labels]
    axes = dict(zip(spatial, letters, strict=True)) | ({} if channel is None else {channel: "C"})
    scale = [float(size) for size in layer.options.get("scale") or ()]
    units = _units(layer, len(scale))
    of = dict(zip(letters, scale, strict=False)) if len(scale) == len(letters) else {}
    unit_of = dict(zip(letters, units, strict=False)) if len(units) == len(letters) else {}
    named = "".join(axes[n] for n in sorted(axes)) + "S" * layer.rgb
    return named, of, {letter: known_unit(unit) for letter, unit in unit_of.items()}


def _units(layer: _Layer, count: int) -> list[str]:
    """The units of a layer's scale: its own, or those of the axes in its metadata.

    RosettaSciIO describes each axis in a table with the entry ``units``.
    """
    given = layer.options.get("units")
    if isinstance(given, str):
        return [given] * count
    if given:
        return [str(unit) for unit in given]
    axes = (layer.options.get("metadata") or {}).get("axes") or ()
    told = [str(axis.get("units") or "") for axis in axes if isinstance(axis, Mapping)]
    return told if len(told) == count else []
