"""Match open image layers to channels: of a model, or of an image to train on.

Plain values: no Qt, no napari. `channel_forms` shows what is decided here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from napari_simmat._text import format_list, format_shape
from napari_simmat.engine.image_stack import RGB, match_names
from napari_simmat.models.spec import InputChannels

MAX_CHANNELS = 32
"""A longer first axis is offered as channels only if it is named so."""
NO_IMAGE_OPEN = "No image is open: open one, or take a sample from File > Open Sample."
NO_IMAGE_TO_TRAIN_ON = "No image is open: open one and its labels, or choose a folder."
NO_CHANNEL = "No channel is chosen: choose an image."
CHOSEN_TWICE = "A layer is chosen for two channels: choose each once under Channels."
_FORBIDDEN = set('/\\:*?"<>|,')
_LABELS = "_labels"
"""Stem suffix of label files, as in `datasets.folder`, which is slow to import."""


@dataclass(frozen=True)
class LayerInfo:
    """Facts about an open image layer that decide how it can be used.

    Parameters
    ----------
    key
        Identifies the layer while it is open.
    name
        As the user sees it.
    shape
        (..., Y, X), without an RGB layer's color axis.
    rgb
        Whether the layer holds red, green and blue.
    placement
        Matrix (n + 1, n + 1) from pixels to the world, row by row; empty if unknown.
    channels_first
        Whether the first axis is named as channels.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    rgb: bool = False
    placement: tuple[float, ...] = ()
    channels_first: bool = False


@dataclass(frozen=True)
class LayerChannel:
    """One channel: a layer, a color of an RGB layer, or one entry of a layer's first axis.

    Parameters
    ----------
    layer
        The layer's key.
    part
        Index of the color or entry; None for the whole layer.
    """

    layer: str
    part: int | None = None


@dataclass(frozen=True)
class ChannelMapping:
    """A choice of channels that the list of images offers.

    Parameters
    ----------
    title
        For the list.
    sources
        One for each channel, in order.
    remark
        What the user should check, or empty.
    """

    title: str
    sources: tuple[LayerChannel, ...]
    remark: str = ""


@dataclass(frozen=True)
class NamedChannel:
    """A channel to train on.

    Parameters
    ----------
    name
        The model's name for it.
    source
        Where it is; None for a gap.
    """

    name: str
    source: LayerChannel | None


LayerChannels = tuple[LayerChannel | None, ...]
NamedChannels = tuple[NamedChannel, ...]


def channel_mappings(
    layers: Sequence[LayerInfo], inputs: InputChannels, preferred: str | None = None
) -> list[ChannelMapping]:
    """All choices of whole layers that fit a model, the best first.

    Parameters
    ----------
    layers
        Open image layers in the viewer's order.
    inputs
        What the model reads.
    preferred
        Key of the layer to use if several fit equally well; by default the topmost.
    """
    singles = [layer for layer in layers if not layer.rgb]
    groups = _aligned_groups(singles)
    count = len(inputs.names)
    found = [feed for group in groups if (feed := _by_name(group, inputs))]
    topmost = list(layers)[::-1]
    topmost.sort(key=lambda layer: layer.key != preferred)
    if inputs.is_rgb:
        if not found:
            found += [_in_order(group, inputs) for group in groups if len(group) == count]
        first_axis = [layer for layer in topmost if layer.channels_first]
        rest = [layer for layer in topmost if not layer.channels_first]
        found += [feed for layer in first_axis if (feed := _along_axis(layer, inputs))]
        found += [
            _colors(layer)
            if layer.rgb
            else ChannelMapping(layer.name, (LayerChannel(layer.key),) * count)
            for layer in topmost
        ]
        found += [feed for layer in rest if (feed := _along_axis(layer, inputs))]
        return _preferred_first(found, preferred)
    if count == 1:
        named = [layer for layer in topmost if layer.channels_first and layer.shape[0] > 1]
        found += [feed for layer in named if (feed := _along_axis(layer, inputs))]
        found += [
            ChannelMapping(layer.name, (LayerChannel(layer.key),))
            for layer in topmost
            if not layer.rgb
        ]
    else:
        partly = any(_matches(group, inputs) for group in groups)
        if not found and not partly:
            found += [_in_order(group, inputs) for group in groups if len(group) == count]
        found += [feed for layer in topmost if (feed := _along_axis(layer, inputs))]
        if count == 3:
            found += [_colors(layer) for layer in topmost if layer.rgb]
    return list({feed.sources: feed for feed in reversed(found)}.values())[::-1]


def match_slots(
    layers: Sequence[LayerInfo], inputs: InputChannels
) -> tuple[LayerChannel | None, ...]:
    """The most complete match by names, with None for channels that no layer is named after."""
    best = max((_matches(group, inputs) for group in _aligned_groups(layers)), key=len, default={})
    return tuple(LayerChannel(best[name].key) if name in best else None for name in inputs.names)


def all_layer_channels(layers: Iterable[LayerInfo]) -> list[tuple[str, LayerChannel]]:
    """Every single channel of the layers, with its title."""
    found: list[tuple[str, LayerChannel]] = []
    for layer in layers:
        if layer.rgb:
            found += [
                (f"{layer.name} · {color}", LayerChannel(layer.key, n))
                for n, color in enumerate(RGB)
            ]
            continue
        found.append((layer.name, LayerChannel(layer.key)))
        if len(layer.shape) > 2 and (layer.channels_first or layer.shape[0] <= MAX_CHANNELS):
            found += [
                (f"{layer.name} · {n}", LayerChannel(layer.key, n)) for n in range(layer.shape[0])
            ]
    return found


def channel_shape(source: LayerChannel, layer: LayerInfo) -> tuple[int, ...]:
    """Shape (..., Y, X) of one channel."""
    return layer.shape if layer.rgb or source.part is None else layer.shape[1:]


def whole_image_mappings(
    layers: Sequence[LayerInfo], preferred: str | None = None
) -> list[ChannelMapping]:
    """All choices of whole layers as an image, the likeliest first.

    Parameters
    ----------
    layers
        Open image layers in the viewer's order.
    preferred
        Key of the layer to use if several fit equally well; by default the topmost.
    """
    plain = [layer for layer in layers if not layer.rgb and not layer.channels_first]
    found = [
        ChannelMapping(
            " + ".join(each.name for each in group), tuple(LayerChannel(each.key) for each in group)
        )
        for group in _aligned_groups(plain)
        if 1 < len(group) <= MAX_CHANNELS
    ]
    topmost = list(layers)[::-1]
    topmost.sort(key=lambda layer: (layer.key != preferred, not layer.channels_first))
    for layer in topmost:
        if layer.rgb:
            found.append(_colors(layer))
        elif layer.channels_first:
            found.append(_along_first_axis(layer))
        else:
            found.append(ChannelMapping(layer.name, (LayerChannel(layer.key),)))
            if len(layer.shape) > 2 and 1 < layer.shape[0] <= MAX_CHANNELS:
                found.append(_along_first_axis(layer))
    return _preferred_first(found, preferred)


def named_channels(
    sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]
) -> tuple[NamedChannel, ...]:
    """Name channels after their layers, without the words that all names start with."""
    known = {layer.key: layer for layer in layers}
    names = [_name(source, known[source.layer]) for source in sources]
    if len(names) > 1:
        names = _without_common_start(names)
    return tuple(
        NamedChannel(name, source) for name, source in zip(_unique(names), sources, strict=True)
    )


def all_image_channels(
    sources: Sequence[LayerChannel], layers: Sequence[LayerInfo]
) -> tuple[NamedChannel, ...]:
    """All channels of the image that some are taken from, named.

    They are the entries of its layer's first axis, or the layers of its shape that lie on it; none
    if it is not open.
    """
    known = {layer.key: layer for layer in layers}
    if not sources or any(source.layer not in known for source in sources):
        return ()
    first = known[sources[0].layer]
    if first.rgb:
        return named_channels(sources, layers)
    if sources[0].part is not None:
        return named_channels(_along_first_axis(first).sources, layers)
    plain = [layer for layer in layers if not layer.rgb]
    [group] = [group for group in _aligned_groups(plain) if first in group]
    return named_channels([LayerChannel(layer.key) for layer in group], layers)


def inputs_of(channels: Sequence[NamedChannel]) -> InputChannels:
    """The channels as further images must provide them."""
    return InputChannels(names=tuple(each.name for each in channels), reader="the training")


def mapping_problem(
    sources: Sequence[LayerChannel | None], layers: Iterable[LayerInfo], inputs: InputChannels
) -> str | None:
    """What is wrong with a choice for a model, one sentence, or None."""
    known = {layer.key: layer for layer in layers}
    if not known:
        return NO_IMAGE_OPEN
    empty = [
        name
        for name, source in zip(inputs.names, sources, strict=True)
        if source is None or source.layer not in known
    ]
    if empty:
        return (
            f"{inputs.reader} reads {format_list(inputs.names)}, but no open layer is chosen for "
            f"{format_list(empty)}: open or rename it, or choose one under Channels."
        )
    chosen = [source for source in sources if source is not None]
    if not inputs.is_rgb and len(set(chosen)) < len(chosen):
        return (
            f"{inputs.reader} reads {len(chosen)} different channels "
            f"({format_list(inputs.names)}), but one layer is chosen twice: choose each once."
        )
    return shapes_problem(chosen, known.values())


def shapes_problem(sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]) -> str | None:
    """Which channel differs in shape from the first, one sentence, or None."""
    known = {layer.key: layer for layer in layers}
    first = channel_shape(sources[0], known[sources[0].layer])
    for source in sources[1:]:
        shape = channel_shape(source, known[source.layer])
        if shape != first:
            return (
                f"{known[source.layer].name} has {format_shape(shape)} pixels, but "
                f"{known[sources[0].layer].name} has {format_shape(first)}: choose layers of one "
                "size."
            )
    return None


def channels_problem(channels: Sequence[NamedChannel], layers: Iterable[LayerInfo]) -> str | None:
    """What is wrong with the channels of an image, one sentence, or None."""
    known = {layer.key: layer for layer in layers}
    if not known:
        return NO_IMAGE_TO_TRAIN_ON
    for channel in channels:
        if channel.source is None or channel.source.layer not in known:
            return f"No layer is chosen for channel {channel.name}: choose one under Channels."
        if problem := _name_problem(channel.name):
            return problem
    if not channels:
        return NO_CHANNEL
    plain = [channel.name.strip().casefold() for channel in channels]
    if len(set(plain)) < len(plain):
        twice = next(name for name in plain if plain.count(name) > 1)
        return f"Two channels are called {twice}: give each its own name under Channels."
    sources = [channel.source for channel in channels if channel.source is not None]
    if len(set(sources)) < len(sources):
        return CHOSEN_TWICE
    return shapes_problem(sources, known.values())


def labels_problem(
    labels: LayerInfo | None, sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]
) -> str | None:
    """Why labels do not belong to an image, one sentence, or None."""
    known = {layer.key: layer for layer in layers}
    first = known[sources[0].layer]
    if labels is None:
        return (
            f"No labels are chosen for {first.name}: choose a labels layer that gives each object "
            "a number. (An image of objects becomes one with Layers > Convert to Labels.)"
        )
    shape = channel_shape(sources[0], first)
    if labels.shape != shape:
        return (
            f"{labels.name} has {format_shape(labels.shape)} pixels, but {first.name} has "
            f"{format_shape(shape)}: choose labels of the image's size."
        )
    if not are_aligned(labels, first):
        return (
            f"{labels.name} lies elsewhere than {first.name} (scale, translate or affine): choose "
            "labels that lie on the image."
        )
    return None


def mapping_remark(sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]) -> str:
    """What the user should check in a valid choice, or empty."""
    known = {layer.key: layer for layer in layers}
    first = known[sources[0].layer]
    for source in sources[1:]:
        other = known[source.layer]
        if not are_aligned(other, first):
            return (
                f"{other.name} lies elsewhere than {first.name} (scale, translate or affine); "
                "pixels are combined by their index."
            )
    return ""


def are_aligned(one: LayerInfo, other: LayerInfo) -> bool:
    """Whether the pixels of two layers coincide in the world along the axes that both have.

    Axes are counted from the last, so that a first axis of channels makes no difference.
    """
    axes = min(_axes(one), _axes(other))
    return _of_last_axes(one, axes) == _of_last_axes(other, axes)


def _aligned_groups(layers: Sequence[LayerInfo]) -> list[list[LayerInfo]]:
    """Layers of equal shape and placement, in the viewer's order."""
    groups: dict[tuple[object, ...], list[LayerInfo]] = {}
    for layer in layers:
        groups.setdefault((layer.shape, layer.placement), []).append(layer)
    return list(groups.values())


def _colors(layer: LayerInfo) -> ChannelMapping:
    """The colors of an RGB layer."""
    return ChannelMapping(
        f"{layer.name} (RGB)", tuple(LayerChannel(layer.key, n) for n in range(3))
    )


def _along_first_axis(
    layer: LayerInfo, remark: str = "", count: int | None = None
) -> ChannelMapping:
    """The entries of a layer's first axis, or the first `count` of them."""
    sources = tuple(LayerChannel(layer.key, n) for n in range(layer.shape[0])[:count])
    return ChannelMapping(f"{layer.name} (first axis = channels)", sources, remark)


def _preferred_first(
    found: Sequence[ChannelMapping], preferred: str | None
) -> list[ChannelMapping]:
    """Choices that use the preferred layer before the others; otherwise the order is kept."""
    return sorted(
        found,
        key=lambda feed: (
            preferred is not None and all(source.layer != preferred for source in feed.sources)
        ),
    )


def _axes(layer: LayerInfo) -> int:
    return max(math.isqrt(len(layer.placement)) - 1, 0)


def _of_last_axes(layer: LayerInfo, axes: int) -> list[tuple[float, ...]]:
    """Rows of the placement for the last axes: their columns of the matrix, and their offset."""
    side = _axes(layer) + 1
    starts = [row * side for row in range(side - 1 - axes, side - 1)]
    return [layer.placement[start + side - 1 - axes : start + side] for start in starts]


def _by_name(group: Sequence[LayerInfo], inputs: InputChannels) -> ChannelMapping | None:
    matches = _matches(group, inputs)
    if len(matches) < len(inputs.names):
        return None
    chosen = [matches[name] for name in inputs.names]
    return ChannelMapping(_titles(chosen), tuple(LayerChannel(layer.key) for layer in chosen))


def _matches(group: Sequence[LayerInfo], inputs: InputChannels) -> dict[str, LayerInfo]:
    """The layer named after each channel, if there is exactly one."""
    found = match_names(inputs.names, [layer.name for layer in group])
    return {name: group[index] for name, index in found.items()}


def _in_order(group: Sequence[LayerInfo], inputs: InputChannels) -> ChannelMapping:
    pairs = zip(inputs.names, group, strict=True)
    taken = ", ".join(f"{layer.name} as {name}" for name, layer in pairs)
    return ChannelMapping(
        _titles(group),
        tuple(LayerChannel(layer.key) for layer in group),
        f"Taken in the order of the layers: {taken}.",
    )


def _along_axis(layer: LayerInfo, inputs: InputChannels) -> ChannelMapping | None:
    """The first entries of a layer's first axis, which may be more only if they are channels."""
    count = len(inputs.names)
    if layer.rgb or len(layer.shape) < 3:
        return None
    if layer.channels_first and layer.shape[0] > count:
        return _along_first_axis(layer, first_taken(layer.shape[0], inputs), count)
    if layer.shape[0] != count:
        return None
    names = f"0 to {count - 1} as {format_list(inputs.names)}"
    return _along_first_axis(layer, f"Taken in the order of the first axis: {names}.")


def first_taken(available: int, inputs: InputChannels) -> str:
    """Remark: a layer has more channels than the model reads."""
    pairs = [f"{number} as {name}" for number, name in enumerate(inputs.names)]
    return (
        f"The first of {available} channels are taken: {format_list(pairs)}. Choose others under "
        "Channels."
    )


def _titles(layers: Sequence[LayerInfo]) -> str:
    if len(layers) > 2:
        return f"{len(layers)} layers: {layers[0].name} ..."
    return " + ".join(layer.name for layer in layers)


def _name(source: LayerChannel, layer: LayerInfo) -> str:
    if source.part is None:
        return layer.name
    return RGB[source.part] if layer.rgb else f"{layer.name} {source.part}"


def _without_common_start(names: Sequence[str]) -> list[str]:
    """``nuclei`` and ``membranes`` of ``field1 nuclei`` and ``field1 membranes``."""
    words = [re.split(r"(?<=[ _\-.·:])", name) for name in names]
    shared = 0
    while all(len(each) > shared + 1 for each in words) and len({e[shared] for e in words}) == 1:
        shared += 1
    return ["".join(each[shared:]).strip() for each in words]


def _unique(names: Sequence[str]) -> list[str]:
    """Make distinct names that file names may contain and that are not numbers alone."""
    made: list[str] = []
    for name in names:
        plain = "".join("-" if letter in _FORBIDDEN else letter for letter in name).strip(" .")
        plain = "".join(letter for letter in plain if letter.isprintable())[:60] or "channel"
        if plain.endswith(_LABELS):  # its file would be read as labels
            plain = f"{plain.removesuffix(_LABELS)} labels".strip()
        if plain.isdecimal() or plain.casefold() == "labels":
            plain = f"channel {plain}"
        tried, number = plain, 2
        while tried.casefold() in {each.casefold() for each in made}:
            tried, number = f"{plain} {number}", number + 1
        made.append(tried)
    return made


def _name_problem(name: str) -> str | None:
    if name.strip() and _unique([name]) == [name]:
        return None
    return (
        f"{name[:60]!r} cannot be a channel's name: it needs a letter, at most 60 characters, none "
        'of them / \\ : * ? " < > | or a comma, and no _labels at its end. Change it under '
        "Channels."
    )
