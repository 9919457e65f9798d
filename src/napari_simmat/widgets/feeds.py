"""Which channels of which open layers feed a model: what is possible and what is wrong.

Plain values, no Qt, no napari: the form shows what is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from napari_simmat.engine.channels import match_names
from napari_simmat.model.spec import InputChannels
from napari_simmat.words import format_list, format_shape

MOST_CHANNELS = 32
"""A first axis that is longer is not offered as channels."""

_COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class LayerInfo:
    """What the choice needs to know about an open image layer.

    Parameters
    ----------
    key
        Tells layers apart for as long as they are open.
    name
        As the user sees it.
    shape
        (..., Y, X), without an RGB layer's colour axis.
    rgb
        Whether the layer holds red, green and blue.
    placement
        Matrix (n + 1, n + 1) from pixels to the world, row by row; empty where nothing is known.
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
class Source:
    """One channel: a layer, a colour of an RGB layer, or one entry of a layer's first axis.

    Parameters
    ----------
    layer
        The layer's key.
    part
        Which colour or entry; None for the whole layer.
    """

    layer: str
    part: int | None = None


@dataclass(frozen=True)
class Feed:
    """One way to feed the model.

    Parameters
    ----------
    title
        For the list.
    sources
        One for each of the model's channels, in its order.
    remark
        What the user should check, or empty.
    """

    title: str
    sources: tuple[Source, ...]
    remark: str = ""


def feeds(
    layers: Sequence[LayerInfo], inputs: InputChannels, preferred: str | None = None
) -> list[Feed]:
    """All ways in which whole layers feed the model without further choice, the best first.

    Parameters
    ----------
    layers
        Open image layers in the viewer's order.
    inputs
        What the model reads.
    preferred
        Key of the layer to use where several are as good; otherwise the topmost.
    """
    singles = [layer for layer in layers if not layer.rgb]
    groups = _groups(singles)
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
            _colours(layer) if layer.rgb else Feed(layer.name, (Source(layer.key),) * count)
            for layer in topmost
        ]
        found += [feed for layer in rest if (feed := _along_axis(layer, inputs))]
        return _preferred_first(found, preferred)
    if count == 1:
        found += [Feed(layer.name, (Source(layer.key),)) for layer in topmost if not layer.rgb]
    else:
        partly = any(_matches(group, inputs) for group in groups)
        if not found and not partly:
            found += [_in_order(group, inputs) for group in groups if len(group) == count]
        found += [feed for layer in topmost if (feed := _along_axis(layer, inputs))]
        if count == 3:
            found += [_colours(layer) for layer in topmost if layer.rgb]
    return list({feed.sources: feed for feed in reversed(found)}.values())[::-1]


def all_sources(layers: Iterable[LayerInfo]) -> list[tuple[str, Source]]:
    """Every single channel that any slot may take, with its title."""
    found: list[tuple[str, Source]] = []
    for layer in layers:
        if layer.rgb:
            found += [
                (f"{layer.name} · {colour}", Source(layer.key, n))
                for n, colour in enumerate(_COLOURS)
            ]
            continue
        found.append((layer.name, Source(layer.key)))
        if len(layer.shape) > 2 and layer.shape[0] <= MOST_CHANNELS:
            found += [(f"{layer.name} · {n}", Source(layer.key, n)) for n in range(layer.shape[0])]
    return found


def shape_of(source: Source, layer: LayerInfo) -> tuple[int, ...]:
    """Shape (..., Y, X) of one channel."""
    return layer.shape if layer.rgb or source.part is None else layer.shape[1:]


def problem(
    sources: Sequence[Source | None], layers: Iterable[LayerInfo], inputs: InputChannels
) -> str | None:
    """What is wrong with a choice, in one sentence, or None."""
    known = {layer.key: layer for layer in layers}
    if not known:
        return "No image is open: open one, or take a sample from File > Open Sample."
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
    chosen = [(source, known[source.layer]) for source in sources if source is not None]
    if not inputs.is_rgb and len({source for source, _ in chosen}) < len(chosen):
        return (
            f"{inputs.reader} reads {len(chosen)} different channels "
            f"({format_list(inputs.names)}), but one layer is chosen twice: choose each once."
        )
    first_name, first_shape = chosen[0][1].name, shape_of(*chosen[0])
    for source, layer in chosen[1:]:
        shape = shape_of(source, layer)
        if shape != first_shape:
            return (
                f"{layer.name} has {format_shape(shape)} pixels, but {first_name} has "
                f"{format_shape(first_shape)}: choose layers of one size."
            )
    return None


def remark(sources: Sequence[Source], layers: Iterable[LayerInfo]) -> str:
    """What a valid choice leaves for the user to check, or empty."""
    known = {layer.key: layer for layer in layers}
    first = known[sources[0].layer]
    for source in sources[1:]:
        other = known[source.layer]
        if not lie_alike(other, first):
            return (
                f"{other.name} lies elsewhere than {first.name} (scale, translate or affine); "
                "pixels are combined by their index."
            )
    return ""


def lie_alike(one: LayerInfo, other: LayerInfo) -> bool:
    """Whether the pixels of two layers lie on each other, as far as they have the same axes.

    Axes are counted from the last, so that a first one of channels makes no difference.
    """
    axes = min(_axes(one), _axes(other))
    return _of_last_axes(one, axes) == _of_last_axes(other, axes)


def _axes(layer: LayerInfo) -> int:
    return max(math.isqrt(len(layer.placement)) - 1, 0)


def _of_last_axes(layer: LayerInfo, axes: int) -> list[tuple[float, ...]]:
    """How the last axes of the pixels become those of the world, and where they begin."""
    side = _axes(layer) + 1
    starts = [row * side for row in range(side - 1 - axes, side - 1)]
    return [layer.placement[start + side - 1 - axes : start + side] for start in starts]


def _groups(layers: Sequence[LayerInfo]) -> list[list[LayerInfo]]:
    """Layers of equal shape and placement, in the viewer's order."""
    groups: dict[tuple[object, ...], list[LayerInfo]] = {}
    for layer in layers:
        groups.setdefault((layer.shape, layer.placement), []).append(layer)
    return list(groups.values())


def _by_name(group: Sequence[LayerInfo], inputs: InputChannels) -> Feed | None:
    matches = _matches(group, inputs)
    if len(matches) < len(inputs.names):
        return None
    chosen = [matches[name] for name in inputs.names]
    return Feed(_titles(chosen), tuple(Source(layer.key) for layer in chosen))


def _matches(group: Sequence[LayerInfo], inputs: InputChannels) -> dict[str, LayerInfo]:
    """For each channel the one layer that bears its name, where there is exactly one."""
    found = match_names(inputs.names, [layer.name for layer in group])
    return {name: group[index] for name, index in found.items()}


def match_slots(layers: Sequence[LayerInfo], inputs: InputChannels) -> tuple[Source | None, ...]:
    """The fullest choice that names allow, with gaps where no layer bears the name."""
    best = max((_matches(group, inputs) for group in _groups(layers)), key=len, default={})
    return tuple(Source(best[name].key) if name in best else None for name in inputs.names)


def _in_order(group: Sequence[LayerInfo], inputs: InputChannels) -> Feed:
    pairs = zip(inputs.names, group, strict=True)
    taken = ", ".join(f"{layer.name} as {name}" for name, layer in pairs)
    return Feed(
        _titles(group),
        tuple(Source(layer.key) for layer in group),
        f"Taken in the order of the layers: {taken}.",
    )


def _along_axis(layer: LayerInfo, inputs: InputChannels) -> Feed | None:
    count = len(inputs.names)
    if layer.rgb or len(layer.shape) < 3 or layer.shape[0] != count:
        return None
    names = f"0 to {count - 1} as {format_list(inputs.names)}"
    return Feed(
        f"{layer.name} (first axis = channels)",
        tuple(Source(layer.key, n) for n in range(count)),
        f"Taken in the order of the first axis: {names}.",
    )


def _colours(layer: LayerInfo) -> Feed:
    return Feed(f"{layer.name} (RGB)", tuple(Source(layer.key, n) for n in range(3)))


def _preferred_first(found: Sequence[Feed], preferred: str | None) -> list[Feed]:
    """Feeds that use the preferred layer before those that do not, otherwise as they are."""
    return sorted(
        found,
        key=lambda feed: (
            preferred is not None and all(source.layer != preferred for source in feed.sources)
        ),
    )


def _titles(layers: Sequence[LayerInfo]) -> str:
    if len(layers) > 2:
        return f"{len(layers)} layers: {layers[0].name} ..."
    return " + ".join(layer.name for layer in layers)
