"""Layers as values: facts for the forms, arrays for models, and files for training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import permutations
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import xxhash
from napari import Viewer
from napari.layers import Image, Labels
from napari.utils.transforms import Affine
from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.channel_choice import (
    MAX_CHANNELS,
    LayerChannel,
    LayerInfo,
    measured_names,
)
from napari_simmat.annotation.image_value import ImageValue, identifying_bytes
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.io.missing_values import MissingAsNaN, has_missing
from napari_simmat.models.spec import ModelSpec
from napari_simmat.widgets.placement import (
    ImageGeometry,
    image_shape,
    layer_matrix,
    level_of,
    reference_of,
)

CHANNEL = "channel"
"""Name of an axis of channels."""
PROVENANCE = "SimMAT"
"""Key of a layer's metadata: program, models, image and number of prompts that made it."""
_PLACES = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
_LOOKS = ("visible", "opacity", "blending")
_OPAQUE = ("opaque", "translucent", "translucent_no_depth")
_SAMPLED = 256
"""Rows and columns, at least, of the level on which channels are compared."""
_TIMES_LONGER = 4
_HIDDEN = 0.5
"""An image of which others cover this part is not the one that the user looks at."""


class ImageWatch(QObject):
    """Reports changes of image layers.

    Attributes
    ----------
    versions
        Number of times each layer's data was replaced, by the layer's key.
    followed
        The layers.
    """

    changed = Signal()
    """The data or the transform of a layer was replaced, or it was shown or hidden."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.versions: dict[str, int] = {}
        self.followed: list[Image] = []

    def follow(self, images: Sequence[Image]) -> None:
        """Follow exactly these layers."""
        for layer in self.followed:
            layer.events.data.disconnect(self._on_data)
            for name in (*_PLACES, *_LOOKS):
                getattr(layer.events, name).disconnect(self._on_place)
        self.followed = list(images)
        for layer in images:
            layer.events.data.connect(self._on_data)
            for name in (*_PLACES, *_LOOKS):
                getattr(layer.events, name).connect(self._on_place)

    def _on_place(self) -> None:
        self.changed.emit()

    def _on_data(self, event: object) -> None:
        layer = getattr(event, "source", None)
        if isinstance(layer, Image):
            key = layer_key(layer)
            self.versions[key] = self.versions.get(key, 0) + 1
        self.changed.emit()


def layer_key(layer: Any) -> str:
    """Identifies a layer while it is open."""
    return str(layer.unique_id)


def image_in_front(
    images: Sequence[Image], chosen: Collection[str], axes: Sequence[int]
) -> Image | None:
    """The image that the user sees in place of the chosen one; None if that one is in sight.

    Parameters
    ----------
    images
        The open images, the topmost last.
    chosen
        Keys of the layers of the chosen image.
    axes
        The two axes along which the viewer shows the images, counted from the last, as -1.
    """
    for image in reversed([image for image in images if image.visible]):
        if layer_key(image) in chosen:
            return None
        opaque = image.opacity > 0.9 and image.blending in _OPAQUE
        own = [each for each in images if layer_key(each) in chosen and each.visible]
        if not own or (opaque and all(_covered(each, image, axes) > _HIDDEN for each in own)):
            return image
    return None


def _covered(image: Image, other: Image, axes: Sequence[int]) -> float:
    """The part of an image that another covers where both are displayed."""
    (low, high), (first, last) = world_bounds(image), world_bounds(other)
    part = 1.0
    for axis in axes:
        if -axis <= min(image.ndim, other.ndim):
            shared = min(high[axis], last[axis]) - max(low[axis], first[axis])
            part *= max(0.0, shared) / (high[axis] - low[axis])
    return part


def canvas_size(viewer: Viewer) -> tuple[int, int]:
    """Height and width of the canvas in screen pixels."""
    canvas = getattr(viewer, "canvas", None)  # from napari 0.9
    return viewer._canvas_size if canvas is None else canvas.size


def world_bounds(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Where an image begins and ends along the axes of the world (ndim,), with whole pixels."""
    low, high = image.extent.world
    half = np.abs(image.extent.step) / 2
    return low - half, high + half


def layer_info(layer: Image | Labels) -> LayerInfo:
    """Facts about an image or labels layer that decide how it can be used."""
    reference = reference_of(layer)
    shape = image_shape(layer)
    world = reference.world
    bands = tuple(reference.channels)
    fits = len(bands) == shape[0] == len(set(bands)) and all(bands)
    return LayerInfo(
        key=layer_key(layer),
        name=layer.name,
        shape=shape,
        rgb=isinstance(layer, Image) and layer.rgb,
        placement=tuple(np.round(layer_matrix(layer), 9).ravel().tolist()),
        channels_first=_means_channels(layer.axis_labels[0]),
        named=not str(layer.axis_labels[0]).lstrip("-").isdecimal(),
        world=() if world is None else tuple(np.round(world.affine, 6).ravel().tolist()),
        content=_content(layer),
        bands=bands if fits else (),
    )


_contents: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()
"""The array of which `_content` was last told, and the answer, by layer."""


def _content(layer: Any) -> str:
    """Identifies the pixels of a layer, also when they are opened again."""
    array = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    known, content = _contents.get(layer, (None, ""))
    if known is not array:
        state = xxhash.xxh3_128()
        for piece in identifying_bytes(array, layer.name):
            state.update(piece)
        content = state.hexdigest()
        _contents[layer] = array, content
    return content


def elsewhere_layers(layers: Sequence[Image]) -> list[Image]:
    """Those layers of one patient or map that lie elsewhere than the first, by their files."""
    worlds = [reference_of(layer).world for layer in layers]
    return [
        layer
        for layer, world in zip(layers[1:], worlds[1:], strict=True)
        if world is not None
        and worlds[0] is not None
        and world.space == worlds[0].space
        and layer.ndim == layers[0].ndim <= 3
        and not layer.multiscale
        and not (
            image_shape(layer) == image_shape(layers[0])
            and world.agrees(worlds[0], image_shape(layer))
        )
    ]


def channel_axis(layer: Image) -> int:
    """The axis of a layer's data that is channels; 0 if none is, or the first.

    It is the one named so, or the last if the layer's file says so: pixel-interleaved files open
    as stacks or, of four bands, as colors. Of a layer without a file the last axis counts that is
    much shorter than the two before it.
    """
    named = [n for n, name in enumerate(layer.axis_labels[:-2]) if _means_channels(name)]
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    if named or len(shape) != 3:
        return named[0] if named else 0
    bands = reference_of(layer).channels
    short = 1 < shape[-1] <= MAX_CHANNELS and _TIMES_LONGER * shape[-1] <= min(shape[:2])
    unnamed = layer.axis_labels[-1] == "-1" or _means_channels(layer.axis_labels[-1])
    by_shape = short and unnamed and not layer.rgb and not bands
    return 2 if by_shape or 1 < len(bands) == shape[-1] else 0


def name_first_axis(layer: Image, channels: bool) -> None:
    """Name a layer's first axis as channels, or take such a name away."""
    plain = str(-layer.ndim)  # napari's own
    layer.axis_labels = (CHANNEL if channels else plain, *layer.axis_labels[1:])


def channels_in_front(layer: Image, axis: int) -> Image:
    """The same image with another axis in front; nothing is read or copied.

    Parameters
    ----------
    layer
        (..., C, ..., Y, X), numpy or lazy, multiscale or not.
    axis
        The axis that becomes the first.
    """
    levels = layer.data if layer.multiscale else [layer.data]
    order = [axis, *(n for n in range(levels[0].ndim) if n != axis)]
    moved = [as_dask(level).transpose(order) for level in levels]
    reference_of(layer)  # into its metadata: the new layer has no file
    if layer.rgb:  # four bands that were taken as colors
        placed = np.eye(layer.ndim + 2)
        placed[1:, 1:] = layer_matrix(layer)
        return Image(
            moved if layer.multiscale else moved[0],
            name=layer.name,
            multiscale=layer.multiscale,
            axis_labels=[CHANNEL, *layer.axis_labels],
            units=["pixel", *layer.units],
            metadata=layer.metadata,
            affine=placed,
        )
    kept = ("name", "colormap", "contrast_limits", "gamma", "opacity", "blending", "visible")
    labels = [layer.axis_labels[n] for n in order]
    if axis == layer.ndim - 1:
        labels = [CHANNEL, *(str(n - layer.ndim) for n in range(1, layer.ndim))]
    return Image(
        moved if layer.multiscale else moved[0],
        multiscale=layer.multiscale,
        axis_labels=labels,
        units=[layer.units[n] for n in order],
        metadata=layer.metadata,
        **{name: getattr(layer, name) for name in kept},
        **_placed(layer, order),
    )


def _placed(layer: Image, order: list[int]) -> dict[str, Any]:
    """The layer's transform with its axes in another order."""
    whole = [*order, layer.ndim]
    linear = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear).linear_matrix
    if not np.allclose(linear, np.diag(layer.scale)):  # rotated or sheared: as one matrix
        return {"affine": layer_matrix(layer)[np.ix_(whole, whole)]}
    return {
        "scale": layer.scale[order],
        "translate": layer.translate[order],
        "affine": np.array(layer.affine)[np.ix_(whole, whole)],
    }


def as_dask(data: Any) -> Any:
    """A lazy array as dask: slicing or transposing zarr would read all of it."""
    if isinstance(data, np.ndarray) or type(data).__module__.startswith("dask"):
        return data
    from dask.array import from_array

    return from_array(data)


def _means_channels(name: object) -> bool:
    return str(name).casefold() in ("c", CHANNEL, "channels")


def displayed_sources(
    images: Sequence[Image], chosen: Collection[str], dims: Any
) -> tuple[LayerChannel, ...]:
    """The channels that the viewer shows of the chosen image, three for an RGB model.

    Parameters
    ----------
    images
        The open images, the topmost last.
    chosen
        Keys of the layers of the chosen image.
    dims
        The viewer's.

    Returns
    -------
    tuple of LayerChannel
        The entry of a first axis of channels at which the slider stands, or the layers on the same
        pixels that are seen through each other, ordered by their colors; empty if unknown.
    """
    own = [each for each in images if layer_key(each) in chosen]
    if not own or any(each.rgb for each in own):
        return ()
    first = own[0]
    if layer_info(first).channels_first:
        axis = dims.ndim - first.ndim
        part = min(int(dims.current_step[axis]), first.data.shape[0] - 1)
        shown = axis not in dims.displayed and first.visible
        return (LayerChannel(layer_key(first), part),) * 3 if shown else ()
    seen: list[Image] = []
    for image in reversed(images):
        alike = image_shape(image) == image_shape(first) and not image.rgb
        if image.visible and alike and np.allclose(layer_matrix(image), layer_matrix(first)):
            seen.append(image)
            if image.opacity > 0.9 and image.blending in _OPAQUE:
                break  # it hides those below
    if not 1 <= len(seen) <= 3:
        return ()
    best = max(permutations(seen), key=_colorfulness)
    channels = [LayerChannel(layer_key(layer)) for layer in best]
    if len(channels) == 2:
        return (*channels, channels[1])
    return tuple((channels * 3)[:3])


def _colorfulness(layers: Sequence[Image]) -> float:
    """How well colors of layers fit red, green and blue in this order."""
    colors = [layer.colormap.map(np.array([1.0]))[0] for layer in layers]
    return sum(float(color[number]) for number, color in enumerate(colors))


def ranked_array(layer: Image) -> Any:
    """The channels of a layer for `rank_channels_job`: (C, ..., Y, X), of a pyramid a coarse level.

    It is the coarsest on which something can be seen.
    """
    if not layer.multiscale:
        return as_dask(layer.data)
    seen = [level for level in layer.data if min(level.shape[-2:]) >= _SAMPLED]
    return as_dask(seen[-1] if seen else layer.data[0])


def image_value(
    sources: Sequence[LayerChannel],
    names: tuple[str, ...],
    layers: Iterable[Image],
    spec: ModelSpec,
    versions: dict[str, int],
) -> ImageValue:
    """The chosen channels as arrays, independent of their layers.

    Parameters
    ----------
    sources, names
        One for each of the model's channels that the image has, and what the model calls it.
    layers
        The open image layers.
    spec
        The model.
    versions
        How often each layer's data was replaced.

    Raises
    ------
    ValueError, TypeError
        If the model cannot read them; no pixels are read for that.
    """
    known = {layer_key(layer): layer for layer in layers}
    levels = [level_of(known[source.layer]) for source in sources]
    arrays = [
        channel_array(known[source.layer], source.part, level)
        for source, level in zip(sources, levels, strict=True)
    ]
    token = tuple(
        (each.layer, each.part, versions.get(each.layer, 0), level)
        for each, level in zip(sources, levels, strict=True)
    )
    own = measured_names(sources, [layer_info(layer) for layer in known.values()])
    measured = tuple(own[source] for source in sources)
    once = spec.is_rgb and len(set(sources)) == 1
    called = None if once else names
    value = arrays[0] if once else arrays
    # It raises if the model cannot read them.
    ChannelStack.build(value, inputs=spec.inputs, channel_names=called)
    token = token if names == spec.channel_names else (*token, names)
    return ImageValue(value, called, token, measured=measured[:1] if once else measured)


def image_geometry(sources: Sequence[LayerChannel], layers: Iterable[Image]) -> ImageGeometry:
    """Placement of the image: that of its first channel."""
    first = sources[0]
    layer = next(layer for layer in layers if layer_key(layer) == first.layer)
    channels_first = first.part is not None and not layer.rgb
    return ImageGeometry(layer, channels_first=channels_first, level=level_of(layer))


def channel_array(layer: Image, part: int | None, level: int = 0) -> Any:
    """Array (..., Y, X) of a layer, of one color, or of one entry of its first axis."""
    data = layer.data[level] if layer.multiscale else layer.data
    if part is not None:
        data = as_dask(data)[..., part] if layer.rgb else as_dask(data)[part]
    reference = reference_of(layer)
    photograph = layer.rgb and data.dtype == np.uint8  # stays bytes, as in `read_image`
    missing = reference.missing if has_missing(data.dtype, reference.missing) else None
    if photograph or (missing is None and reference.valid is None):
        return data
    return MissingAsNaN(data, missing, reference.valid)
