"""The channels of an image: which open layers they can be, and what is wrong with a choice.

Everything is plain values. Without `InputChannels` of a model the functions are about an image to
train on, whose channels the user counts and names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from napari_simmat._text import differing_parts, format_list, format_shape, names_of_bands
from napari_simmat.engine.channels.matching import RGB, match_names
from napari_simmat.models.spec import InputChannels

MAX_CHANNELS = 32
"""A longer first axis is offered as channels only if it is named so."""
NO_IMAGE_OPEN = "No image is open: open one, or take a sample from File > Open Sample."
NO_IMAGE_TO_TRAIN_ON = "No image is open: open one and its labels, or choose a folder."
NO_CHANNEL = "No channel is chosen: choose an image."
NO_LAYER = "No layer is chosen for channel {}: choose one under Channels."
GAPS = (
    "{reader} reads {names}, but no open layer is chosen for {gaps}: open or rename it, or choose "
    "one under Channels."
)
CHOSEN_TWICE = "A layer is chosen for two channels: choose each once under Channels."
READ_TWICE = (
    "{reader} reads {count} different channels ({names}), but one layer is chosen twice: choose "
    "each once."
)
NAMED_TWICE = "Two channels are called {}: give each its own name under Channels."
NAME_REFUSED = (
    "{!r} cannot be a channel's name: it needs a letter, at most 60 characters, none "
    'of them / \\ : * ? " < > | or a comma, and no _labels at its end. Change it under '
    "Channels."
)
OTHER_SHAPE = "{} has {} pixels, but {} has {}: choose layers of one size."
NO_LABELS = (
    "No labels are chosen for {}: choose a labels layer that gives each object a number. (An image "
    "of objects becomes one with Layers > Convert to Labels.)"
)
LABELS_SHAPE = "{} has {} pixels, but {} has {}: choose labels of the image's size."
LABELS_ELSEWHERE = (
    "{} lies elsewhere than {} (scale, translate or affine): choose labels that lie on the image."
)
ELSEWHERE = (
    "{} lies elsewhere than {} (scale, translate or affine); pixels are combined by their index."
)
IN_ORDER = "Taken in the order of the layers: {}."
ALONG_AXIS = "Taken in the order of the first axis: 0 to {} as {}."
FIRST_TAKEN = "The first of {} channels are taken: {}. Choose others under Channels."
ONE_TAKEN = "Only channel {1} of {0} is read, as gray. Choose others under Channels."
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
    named
        Whether it is named at all.
    world
        As `placement`, from its voxels to the patient or the map; empty if unknown.
    content
        Identifies its pixels, also when they are opened again; empty if unknown.
    bands
        Names of the entries of its first axis, as its file has them; empty if unknown.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    rgb: bool = False
    placement: tuple[float, ...] = ()
    channels_first: bool = False
    named: bool = False
    world: tuple[float, ...] = ()
    content: str = ""
    bands: tuple[str, ...] = ()


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


Sources = tuple[LayerChannel | None, ...]
"""One for each channel, in order; None for a gap."""


class RememberedChannels(NamedTuple):
    """A choice by hand, as it outlives the layers it was made from."""

    names: tuple[str, ...]
    """Names of the model's channels."""
    contents: tuple[str, ...]
    """`LayerInfo.content` of the layer of each."""
    parts: tuple[int | None, ...]
    """`LayerChannel.part` of each."""
    among: int = 0
    """How many channels the image had; 0 if that is not known."""


class ChannelMapping(NamedTuple):
    """A choice of channels that the list of images offers."""

    title: str
    sources: tuple[LayerChannel, ...]
    remark: str = ""
    """What the user should check."""


def channel_mappings(
    layers: Sequence[LayerInfo], inputs: InputChannels | None, preferred: str | None = None
) -> list[ChannelMapping]:
    """All choices of whole layers that fit a model or, without one, make an image; the best first.

    Of several that fit equally well the preferred layer (its key) is used, by default the topmost;
    `layers` are in the viewer's order.
    """
    topmost = list(layers)[::-1]
    topmost.sort(key=lambda layer: layer.key != preferred)
    if inputs is None:
        mappings = _whole_images(layers, topmost, preferred)
    elif inputs.is_rgb:
        mappings = _rgb_images(layers, topmost, inputs)
    else:
        mappings = _multichannel_images(layers, topmost, inputs)
    if preferred is None:
        return mappings
    return sorted(
        mappings, key=lambda mapping: all(part.layer != preferred for part in mapping.sources)
    )


def match_slots(layers: Sequence[LayerInfo], inputs: InputChannels) -> Sources:
    """The most complete match by names, with None for channels that none is named after."""
    matches = [_matches(group, inputs) for group in _aligned_groups(layers)]
    matches += [_matching_bands(layer, inputs) for layer in layers]
    best = max(matches, key=len, default={})
    return tuple(best.get(name) for name in inputs.names)


def all_layer_channels(layers: Iterable[LayerInfo]) -> list[tuple[str, LayerChannel]]:
    """Every single channel of the layers, with its title."""
    channels: list[tuple[str, LayerChannel]] = []
    for layer in layers:
        parts: list[tuple[int, object]] = []
        if layer.rgb:
            parts = list(enumerate(RGB))
        else:
            channels.append((layer.name, LayerChannel(layer.key)))
            if len(layer.shape) > 2 and (layer.channels_first or layer.shape[0] <= MAX_CHANNELS):
                parts = list(enumerate(layer.bands or range(layer.shape[0])))
        channels += [(f"{layer.name} · {name}", LayerChannel(layer.key, n)) for n, name in parts]
    return channels


def matching_channels(
    wanted: Sequence[str], offered: Sequence[LayerChannel], layers: Iterable[LayerInfo]
) -> list[int | None]:
    """The position in `offered` of the channel for each wanted name.

    Layers and their entries are compared by their own names, so that a title of both hides none.
    Without any match, exactly as many single channels as are wanted are taken in their order.

    Returns
    -------
    list of int or None
        None where nobody can say which channel is meant.
    """
    by_key = {layer.key: layer for layer in layers}
    names = []
    for channel in offered:
        layer = by_key[channel.layer]
        parts = RGB if layer.rgb else layer.bands
        if channel.part is None:
            names.append(layer.name)
        else:
            names.append(parts[channel.part] if parts else "")  # its number is not a name
    matches = match_names(wanted, names)
    planes = [n for n, channel in enumerate(offered) if _is_single(channel, by_key[channel.layer])]
    if not matches and len(planes) == len(wanted):
        return [*planes]
    return [matches.get(name) for name in wanted]


def all_image_channels(
    sources: Sequence[LayerChannel], layers: Sequence[LayerInfo]
) -> tuple[LayerChannel, ...]:
    """All channels of the image that some are taken from.

    They are the entries of its layer's first axis, or the layers of its shape that lie on it; none
    if it is not open.
    """
    opened = {layer.key: layer for layer in layers}
    if not sources or any(source.layer not in opened for source in sources):
        return ()
    first = opened[sources[0].layer]
    if first.rgb:
        return tuple(sources)
    if sources[0].part is not None:
        return _along_first_axis(first).sources
    plain = [layer for layer in layers if not layer.rgb]
    [group] = [group for group in _aligned_groups(plain) if first in group]
    return tuple(LayerChannel(layer.key) for layer in group)


def channel_names(sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]) -> tuple[str, ...]:
    """Name channels after their layers, without the words that all names share.

    The names are distinct; files can have them, and none is a number alone.
    """
    by_key = {layer.key: layer for layer in layers}
    names = []
    for source in sources:
        layer = by_key[source.layer]
        if source.part is None:
            names.append(layer.name)
        else:
            bands = layer.bands or range(layer.shape[0])
            names.append(RGB[source.part] if layer.rgb else f"{layer.name} {bands[source.part]}")
    # "nuclei" and "membranes" of "field1 nuclei" and "field1 membranes"
    return tuple(_unique(differing_parts(names)))


def measured_names(
    sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]
) -> dict[LayerChannel, str]:
    """What tables call channels: the names that files or layers have, whatever the model's are.

    A table of one image has the same columns as that of the next: what all layers are called is
    left out, and a channel without a name has its number.
    """
    infos = list(layers)
    by_key = {layer.key: layer for layer in infos}
    distinct = list(dict.fromkeys(sources))
    count = len({source.layer for source in distinct})
    if count > 1:
        if count == len(distinct):  # a layer for each channel
            names = _unique(names_of_bands([by_key[source.layer].name for source in distinct]))
        else:
            names = list(channel_names(distinct, infos))
        return dict(zip(distinct, names, strict=True))
    named = {}
    for source in distinct:
        layer = by_key[source.layer]
        parts = RGB if layer.rgb else layer.bands
        if source.part is not None and parts:
            named[source] = parts[source.part]
        else:
            named[source] = f"channel{source.part or 0}"
    return named


def channels_problem(
    names: Sequence[str],
    sources: Sequence[LayerChannel | None],
    layers: Iterable[LayerInfo],
    inputs: InputChannels | None = None,
) -> str | None:
    """What is wrong with a choice for a model or a training, one sentence; None if nothing is."""
    opened = {layer.key: layer for layer in layers}
    if not opened:
        return NO_IMAGE_TO_TRAIN_ON if inputs is None else NO_IMAGE_OPEN
    chosen = [source for source in sources if source is not None and source.layer in opened]
    if inputs is None:
        problem = _naming_problem(names, sources, chosen)
    else:
        problem = _reading_problem(names, sources, chosen, inputs)
    return problem or _size_problem(chosen, opened)


def labels_problem(
    labels: LayerInfo | None, sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]
) -> str | None:
    """Why labels do not belong to an image, one sentence; None if they do."""
    first = next(layer for layer in layers if layer.key == sources[0].layer)
    if labels is None:
        return NO_LABELS.format(first.name)
    shape = _shape(sources[0], first)
    if labels.shape != shape:
        return LABELS_SHAPE.format(
            labels.name, format_shape(labels.shape), first.name, format_shape(shape)
        )
    if not are_aligned(labels, first):
        return LABELS_ELSEWHERE.format(labels.name, first.name)
    return None


def mapping_remark(sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]) -> str:
    """What the user should check in a valid choice, or empty."""
    by_key = {layer.key: layer for layer in layers}
    first = by_key[sources[0].layer]
    for source in sources[1:]:
        other = by_key[source.layer]
        if not are_aligned(other, first):
            return ELSEWHERE.format(other.name, first.name)
    return ""


def are_aligned(one: LayerInfo, other: LayerInfo) -> bool:
    """Whether the pixels of two layers coincide in the world along the axes that both have.

    Axes are counted from the last, so that a first axis of channels makes no difference. The
    viewer shows no rotation that a file has, so the world of the files counts as well.
    """
    pairs = zip(one.world, other.world, strict=False)
    if any(abs(one_value - other_value) > 1e-3 for one_value, other_value in pairs):
        return False
    sides = [max(math.isqrt(len(layer.placement)), 1) for layer in (one, other)]
    axes = min(sides) - 1

    def last_rows(layer: LayerInfo, side: int) -> list[tuple[float, ...]]:
        starts = [row * side for row in range(side - 1 - axes, side - 1)]
        return [layer.placement[start + side - 1 - axes : start + side] for start in starts]

    return last_rows(one, sides[0]) == last_rows(other, sides[1])


def _naming_problem(
    names: Sequence[str],
    sources: Sequence[LayerChannel | None],
    chosen: Sequence[LayerChannel],
) -> str | None:
    """What is wrong with the channels to train on, which the user counts and names."""
    for name, source in zip(names, sources, strict=True):
        if source not in chosen:
            return NO_LAYER.format(name)
        if not name.strip() or _unique([name]) != [name]:
            return NAME_REFUSED.format(name[:60])
    if not chosen:
        return NO_CHANNEL
    plain = [name.strip().casefold() for name in names]
    for name in plain:
        if plain.count(name) > 1:
            return NAMED_TWICE.format(name)
    return CHOSEN_TWICE if _has_twice(chosen) else None


def _reading_problem(
    names: Sequence[str],
    sources: Sequence[LayerChannel | None],
    chosen: Sequence[LayerChannel],
    inputs: InputChannels,
) -> str | None:
    """What is wrong with the channels that a model reads."""
    read = {"reader": inputs.reader, "names": format_list(names)}
    pairs = zip(names, sources, strict=True)
    gaps = [name for name, source in pairs if source not in chosen]
    may_lack = inputs.may_lack and chosen
    if gaps and not may_lack:
        return GAPS.format(**read, gaps=format_list(gaps))
    if _has_twice(chosen) and not inputs.is_rgb:  # gray is three times the same
        return READ_TWICE.format(**read, count=len(chosen))
    return None


def _size_problem(chosen: Sequence[LayerChannel], opened: Mapping[str, LayerInfo]) -> str | None:
    """Which channel has other pixels than the first."""
    first = opened[chosen[0].layer]
    shape = _shape(chosen[0], first)
    for source in chosen[1:]:
        other = opened[source.layer]
        other_shape = _shape(source, other)
        if other_shape != shape:
            return OTHER_SHAPE.format(
                other.name, format_shape(other_shape), first.name, format_shape(shape)
            )
    return None


def _has_twice(chosen: Sequence[LayerChannel]) -> bool:
    return len(set(chosen)) < len(chosen)


def _is_single(channel: LayerChannel, layer: LayerInfo) -> bool:
    """Whether a channel is not a layer whose first axis is its channels."""
    return channel.part is not None or not layer.channels_first


def _shape(source: LayerChannel, layer: LayerInfo) -> tuple[int, ...]:
    return layer.shape if layer.rgb or source.part is None else layer.shape[1:]


def _aligned_groups(layers: Sequence[LayerInfo]) -> list[list[LayerInfo]]:
    """Layers of equal shape and placement, in the viewer's order."""
    groups: dict[tuple[object, ...], list[LayerInfo]] = {}
    for layer in layers:
        groups.setdefault((layer.shape, layer.placement), []).append(layer)
    return list(groups.values())


def _rgb_images(
    layers: Sequence[LayerInfo], topmost: Sequence[LayerInfo], inputs: InputChannels
) -> list[ChannelMapping]:
    groups = _aligned_groups([layer for layer in layers if not layer.rgb])
    mappings = _by_name(groups, inputs)
    if not mappings:
        mappings = [_in_order(group, inputs) for group in groups if len(group) == 3]
    # Three planes of a stack are colors only if the first axis is named so; else last of all.
    named = [layer for layer in topmost if layer.channels_first]
    rest = [layer for layer in topmost if not layer.channels_first]
    mappings += _along_axes(named, inputs)
    for layer in topmost:
        gray = ChannelMapping(layer.name, (LayerChannel(layer.key),) * 3)
        mappings.append(_colors(layer) if layer.rgb else gray)
    return mappings + _along_axes(rest, inputs)


def _multichannel_images(
    layers: Sequence[LayerInfo], topmost: Sequence[LayerInfo], inputs: InputChannels
) -> list[ChannelMapping]:
    groups = _aligned_groups([layer for layer in layers if not layer.rgb])
    count = len(inputs.names)
    mappings = _by_name(groups, inputs)
    if count == 1:
        named = [layer for layer in topmost if layer.channels_first and layer.shape[0] > 1]
        mappings += _along_axes(named, inputs)
        mappings += [_of_layers([layer]) for layer in topmost if not layer.rgb]
        for photo in (layer for layer in topmost if layer.rgb):
            mappings += _single_colors(photo, inputs)
    else:
        # Where some names match, an order is not guessed.
        if not any(_matches(group, inputs) for group in groups):
            mappings += [_in_order(group, inputs) for group in groups if len(group) == count]
        mappings += _along_axes(topmost, inputs)
        if count == 3:
            mappings += [_colors(layer) for layer in topmost if layer.rgb]
    return list({mapping.sources: mapping for mapping in reversed(mappings)}.values())[::-1]


def _whole_images(
    layers: Sequence[LayerInfo], topmost: Sequence[LayerInfo], preferred: str | None
) -> list[ChannelMapping]:
    plain = [layer for layer in layers if not layer.rgb and not layer.channels_first]
    mappings = []
    for group in _aligned_groups(plain):
        if 1 < len(group) <= MAX_CHANNELS:
            title = " + ".join(layer.name for layer in group)
            mappings.append(
                ChannelMapping(title, tuple(LayerChannel(layer.key) for layer in group))
            )

    def order(layer: LayerInfo) -> tuple[bool, bool]:
        return layer.key != preferred, not layer.channels_first

    for layer in sorted(topmost, key=order):
        if layer.rgb:
            mappings.append(_colors(layer))
        elif layer.channels_first:
            mappings.append(_along_first_axis(layer))
        else:
            mappings.append(_of_layers([layer]))
            if len(layer.shape) > 2 and 1 < layer.shape[0] <= MAX_CHANNELS:
                mappings.append(_along_first_axis(layer))
    return mappings


def _colors(layer: LayerInfo) -> ChannelMapping:
    sources = tuple(LayerChannel(layer.key, n) for n in range(3))
    return ChannelMapping(f"{layer.name} (RGB)", sources)


def _single_colors(layer: LayerInfo, inputs: InputChannels) -> list[ChannelMapping]:
    """Each color for a model of one channel; that of the channel's name first, else green."""
    wanted = next(iter(match_names(inputs.names, RGB).values()), RGB.index("green"))
    numbers = sorted(range(len(RGB)), key=lambda number: number != wanted)
    return [
        ChannelMapping(
            f"{layer.name} · {RGB[number]}",
            (LayerChannel(layer.key, number),),
            ONE_TAKEN.format(layer.name, RGB[number]),
        )
        for number in numbers
    ]


def _along_first_axis(
    layer: LayerInfo, remark: str = "", count: int | None = None
) -> ChannelMapping:
    """The entries of a layer's first axis, or the first `count` of them."""
    sources = tuple(LayerChannel(layer.key, n) for n in range(layer.shape[0])[:count])
    return ChannelMapping(f"{layer.name} (first axis = channels)", sources, remark)


def _along_axes(layers: Iterable[LayerInfo], inputs: InputChannels) -> list[ChannelMapping]:
    """The entries of first axes that are named after the model's channels, else the first ones.

    They may be more than the model reads only if they are channels.
    """
    count = len(inputs.names)
    mappings = []
    for layer in layers:
        if layer.rgb or len(layer.shape) < 3:
            continue
        named = _matching_bands(layer, inputs)
        if len(named) == count:
            sources = tuple(named[name] for name in inputs.names)
            mappings.append(_along_first_axis(layer)._replace(sources=sources))
        elif named and not inputs.is_rgb:
            continue  # where some names match, an order is not guessed
        elif layer.channels_first and layer.shape[0] > count:
            called = layer.bands or range(count)
            pairs = [f"{called[number]} as {name}" for number, name in enumerate(inputs.names)]
            remark = FIRST_TAKEN.format(layer.shape[0], format_list(pairs))
            mappings.append(_along_first_axis(layer, remark, count))
        elif layer.channels_first and layer.shape[0] < count and inputs.is_rgb:
            # As planes of one channel they would be segmented, measured and saved one by one.
            bands = layer.bands or range(layer.shape[0])
            remark = ONE_TAKEN.format(len(bands), bands[0]) if len(bands) > 1 else ""
            gray = (LayerChannel(layer.key, 0),) * count
            mappings.append(_along_first_axis(layer, remark)._replace(sources=gray))
        elif layer.shape[0] == count:
            remark = ALONG_AXIS.format(count - 1, format_list(inputs.names))
            mappings.append(_along_first_axis(layer, remark))
    return mappings


def _by_name(groups: Iterable[Sequence[LayerInfo]], inputs: InputChannels) -> list[ChannelMapping]:
    mappings = []
    for group in groups:
        by_key = {layer.key: layer for layer in group}
        match = _matches(group, inputs)
        if len(match) == len(inputs.names):
            mappings.append(_of_layers([by_key[match[name].layer] for name in inputs.names]))
    return mappings


def _matches(group: Sequence[LayerInfo], inputs: InputChannels) -> dict[str, LayerChannel]:
    """The layer named after each channel, if there is exactly one."""
    matches = match_names(inputs.names, [layer.name for layer in group])
    return {name: LayerChannel(group[index].key) for name, index in matches.items()}


def _matching_bands(layer: LayerInfo, inputs: InputChannels) -> dict[str, LayerChannel]:
    """The entry of a layer's first axis that its file names after each channel."""
    if not layer.channels_first or len(layer.bands) != layer.shape[0]:
        return {}
    matches = match_names(inputs.names, layer.bands)
    return {name: LayerChannel(layer.key, index) for name, index in matches.items()}


def _in_order(group: Sequence[LayerInfo], inputs: InputChannels) -> ChannelMapping:
    pairs = zip(inputs.names, group, strict=True)
    order = ", ".join(f"{layer.name} as {name}" for name, layer in pairs)
    return _of_layers(group, IN_ORDER.format(order))


def _of_layers(group: Sequence[LayerInfo], remark: str = "") -> ChannelMapping:
    """A whole layer for each channel."""
    title = " + ".join(layer.name for layer in group)
    if len(group) > 2:
        title = f"{len(group)} layers: {group[0].name} ..."
    return ChannelMapping(title, tuple(LayerChannel(layer.key) for layer in group), remark)


def _unique(names: Sequence[str]) -> list[str]:
    """Make distinct names that file names may contain and that are not numbers alone."""
    distinct: list[str] = []
    for name in names:
        plain = _plain_name(name)
        tried = plain
        number = 2
        while tried.casefold() in {other.casefold() for other in distinct}:
            tried = f"{plain} {number}"
            number += 1
        distinct.append(tried)
    return distinct


def _plain_name(name: str) -> str:
    """A name that a file's name may contain, and that is not a number alone."""
    plain = "".join("-" if letter in _FORBIDDEN else letter for letter in name).strip(" .")
    plain = "".join(letter for letter in plain if letter.isprintable())[:60] or "channel"
    if plain.endswith(_LABELS):  # its file would be read as labels
        plain = f"{plain.removesuffix(_LABELS)} labels".strip()
    if plain.isdecimal() or plain.casefold() == "labels":
        plain = f"channel {plain}"
    return plain
