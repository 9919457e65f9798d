"""Open image layers as values: what the form chooses from, and what the model gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels

from napari_simmat.engine.images import ChannelStack
from napari_simmat.engine.sources import Source as ChannelSource
from napari_simmat.model.spec import ModelSpec
from napari_simmat.widgets.feeds import LayerInfo, Source
from napari_simmat.widgets.levels import image_shape, level_of
from napari_simmat.widgets.place import Place, matrix_of
from napari_simmat.widgets.segment.image_value import ImageValue
from napari_simmat.widgets.train.data import LabelledValue
from napari_simmat.widgets.train.feeds import NamedSource


def key_of(layer: Any) -> str:
    """Tells layers apart for as long as they are open."""
    return str(layer.unique_id)


def describe(layer: Image) -> LayerInfo:
    """What the form needs to know about a layer."""
    return LayerInfo(
        key=key_of(layer),
        name=layer.name,
        shape=image_shape(layer),
        rgb=layer.rgb,
        placement=tuple(np.round(matrix_of(layer), 9).ravel().tolist()),
        channels_first=_means_channels(layer.axis_labels[0]),
    )


def channel_axis(layer: Image) -> int:
    """Which axis amid the others is named as channels; 0 where none is, or the first."""
    named = [n for n, name in enumerate(layer.axis_labels[:-2]) if _means_channels(name)]
    return named[0] if named else 0


def _means_channels(name: object) -> bool:
    return str(name).casefold() in ("c", "channel", "channels")


def describe_labels(layer: Labels) -> LayerInfo:
    """What has to be known about labels to say whether they lie on an image."""
    data = layer.data[0] if layer.multiscale else layer.data
    return LayerInfo(
        key=key_of(layer),
        name=layer.name,
        shape=tuple(int(size) for size in data.shape),
        placement=tuple(np.round(matrix_of(layer), 9).ravel().tolist()),
    )


def labelled_of(
    channels: Sequence[NamedSource], labels: Labels, layers: Iterable[Image]
) -> LabelledValue:
    """An image and its objects as arrays to train on; nothing is read."""
    known = {key_of(layer): layer for layer in layers}
    chosen = [(each.name, each.source) for each in channels if each.source is not None]
    first = known[chosen[0][1].layer]
    arrays = tuple((name, channel_of(known[each.layer], each.part)) for name, each in chosen)
    data = labels.data[0] if labels.multiscale else labels.data
    for name, array in arrays:
        ChannelSource.of(array, None, f"Channel {name} of {first.name}")  # says what is wrong
    height, width = place_of([chosen[0][1]], known.values()).spacing[-2:]
    ratio = float(f"{height / width:.6g}")
    return LabelledValue(first.name, arrays, data, labels.name, ratio)


def image_of(
    sources: Sequence[Source], layers: Iterable[Image], spec: ModelSpec, versions: dict[str, int]
) -> ImageValue:
    """The chosen channels as arrays, cut loose from their layers.

    Parameters
    ----------
    sources
        One for each of the model's channels.
    layers
        The open image layers.
    spec
        The model.
    versions
        How often the data of a layer was replaced.

    Raises
    ------
    ValueError, TypeError
        If this cannot be the model's input; one sentence says why. Nothing is read.
    """
    known = {key_of(layer): layer for layer in layers}
    levels = [level_of(known[source.layer]) for source in sources]
    arrays = [
        channel_of(known[source.layer], source.part, level)
        for source, level in zip(sources, levels, strict=True)
    ]
    token = tuple(
        (each.layer, each.part, versions.get(each.layer, 0), level)
        for each, level in zip(sources, levels, strict=True)
    )
    once = spec.is_rgb and len(set(sources)) == 1
    names = None if once else spec.channel_names
    value = arrays[0] if once else arrays
    ChannelStack.build(
        value, inputs=spec.inputs, names=names
    )  # says what is wrong before anything runs
    return ImageValue(value, names, token)


def place_of(sources: Sequence[Source], layers: Iterable[Image]) -> Place:
    """Where the image lies: as its first channel does."""
    first = sources[0]
    layer = next(layer for layer in layers if key_of(layer) == first.layer)
    channels_first = first.part is not None and not layer.rgb
    return Place(layer, channels_first=channels_first, level=level_of(layer))


def channel_of(layer: Image, part: int | None, level: int = 0) -> Any:
    """The array (..., Y, X) of a layer, of one of its colours, or of an entry of its first axis."""
    data = layer.data[level] if layer.multiscale else layer.data
    if part is None:
        return data
    if not isinstance(data, np.ndarray) and not type(data).__module__.startswith("dask"):
        from dask.array import from_array

        data = from_array(data)  # zarr and alike would read all that is cut out
    return data[..., part] if layer.rgb else data[part]
