"""Which open layers make an image to train on, what its channels are called, what is wrong.

Plain values, no Qt, no napari, as in `feeds`; a model that could say how many channels there are
does not exist yet, so whole layers decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from napari_simmat.model.spec import InputChannels
from napari_simmat.widgets.feeds import (
    MOST_CHANNELS,
    Feed,
    LayerInfo,
    Source,
    lie_alike,
    shape_of,
)
from napari_simmat.words import format_shape

_COLOURS = ("red", "green", "blue")
_FORBIDDEN = set('/\\:*?"<>|,')
_LABELS = "_labels"
"""What the names of files of labels end with; `learn.labelled` has it, which loads more."""


@dataclass(frozen=True)
class NamedSource:
    """A channel to train on.

    Parameters
    ----------
    name
        As the model will ask for it.
    source
        Where it is; None for a gap.
    """

    name: str
    source: Source | None


def whole_images(layers: Sequence[LayerInfo], preferred: str | None = None) -> list[Feed]:
    """All ways in which whole layers are an image, the likeliest first.

    Parameters
    ----------
    layers
        Open image layers in the viewer's order.
    preferred
        Key of the layer to use where several are as good; otherwise the topmost.
    """
    groups: dict[tuple[object, ...], list[LayerInfo]] = {}
    for layer in layers:
        if not layer.rgb and not layer.channels_first:
            groups.setdefault((layer.shape, layer.placement), []).append(layer)
    found = [
        Feed(" + ".join(each.name for each in group), tuple(Source(each.key) for each in group))
        for group in groups.values()
        if 1 < len(group) <= MOST_CHANNELS
    ]
    topmost = list(layers)[::-1]
    topmost.sort(key=lambda layer: (layer.key != preferred, not layer.channels_first))
    for layer in topmost:
        along = Feed(
            f"{layer.name} (first axis = channels)",
            tuple(Source(layer.key, number) for number in range(layer.shape[0])),
        )
        if layer.rgb:
            found.append(Feed(f"{layer.name} (RGB)", tuple(Source(layer.key, n) for n in range(3))))
        elif layer.channels_first:
            found.append(along)
        else:
            found.append(Feed(layer.name, (Source(layer.key),)))
            if len(layer.shape) > 2 and 1 < layer.shape[0] <= MOST_CHANNELS:
                found.append(along)
    if preferred is not None:
        found.sort(key=lambda feed: all(each.layer != preferred for each in feed.sources))
    return found


def named(sources: Sequence[Source], layers: Iterable[LayerInfo]) -> tuple[NamedSource, ...]:
    """Channels with names of their own: those of the layers without what all of them share."""
    known = {layer.key: layer for layer in layers}
    names = [_name(source, known[source.layer]) for source in sources]
    if len(names) > 1:
        names = _without_common_start(names)
    return tuple(
        NamedSource(name, source) for name, source in zip(_unique(names), sources, strict=True)
    )


def channels_problem(channels: Sequence[NamedSource], layers: Iterable[LayerInfo]) -> str | None:
    """What is wrong with the channels of an image, in one sentence, or None."""
    known = {layer.key: layer for layer in layers}
    if not known:
        return "No image is open: open one and its labels, or choose a folder."
    for channel in channels:
        if channel.source is None or channel.source.layer not in known:
            return f"No layer is chosen for channel {channel.name}: choose one under Channels."
        if problem := _name_problem(channel.name):
            return problem
    if not channels:
        return "No channel is chosen: choose an image."
    plain = [channel.name.strip().casefold() for channel in channels]
    if len(set(plain)) < len(plain):
        twice = next(name for name in plain if plain.count(name) > 1)
        return f"Two channels are called {twice}: give each its own name under Channels."
    sources = [channel.source for channel in channels if channel.source is not None]
    if len(set(sources)) < len(sources):
        return "A layer is chosen for two channels: choose each once under Channels."
    first = known[sources[0].layer]
    for source in sources[1:]:
        layer = known[source.layer]
        if shape_of(source, layer) != shape_of(sources[0], first):
            return (
                f"{layer.name} has {format_shape(shape_of(source, layer))} pixels, but "
                f"{first.name} has {format_shape(shape_of(sources[0], first))}: choose layers of "
                "one size."
            )
    return None


def labels_problem(
    labels: LayerInfo | None, sources: Sequence[Source], layers: Iterable[LayerInfo]
) -> str | None:
    """Why labels do not belong to an image, in one sentence, or None."""
    known = {layer.key: layer for layer in layers}
    first = known[sources[0].layer]
    if labels is None:
        return (
            f"No labels are chosen for {first.name}: choose a labels layer that gives each object "
            "a number. (An image of objects becomes one with Layers > Convert to Labels.)"
        )
    shape = shape_of(sources[0], first)
    if labels.shape != shape:
        return (
            f"{labels.name} has {format_shape(labels.shape)} pixels, but {first.name} has "
            f"{format_shape(shape)}: choose labels of the image's size."
        )
    if not lie_alike(labels, first):
        return (
            f"{labels.name} lies elsewhere than {first.name} (scale, translate or affine): choose "
            "labels that lie on the image."
        )
    return None


def inputs_of(channels: Sequence[NamedSource]) -> InputChannels:
    """These channels as an image is to provide them, so that another image is chosen alike."""
    return InputChannels(names=tuple(each.name for each in channels), reader="the training")


def _name(source: Source, layer: LayerInfo) -> str:
    if source.part is None:
        return layer.name
    return _COLOURS[source.part] if layer.rgb else f"{layer.name} {source.part}"


def _without_common_start(names: Sequence[str]) -> list[str]:
    """``nuclei`` and ``membranes`` of ``field1 nuclei`` and ``field1 membranes``."""
    words = [re.split(r"(?<=[ _\-.·:])", name) for name in names]
    shared = 0
    while all(len(each) > shared + 1 for each in words) and len({e[shared] for e in words}) == 1:
        shared += 1
    return ["".join(each[shared:]).strip() for each in words]


def _unique(names: Sequence[str]) -> list[str]:
    """Names that can be channels': without what files cannot have, none only a number."""
    made: list[str] = []
    for name in names:
        plain = "".join("-" if letter in _FORBIDDEN else letter for letter in name).strip(" .")
        plain = "".join(letter for letter in plain if letter.isprintable())[:60] or "channel"
        if plain.endswith(_LABELS):  # a file of that name would be taken for objects
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
