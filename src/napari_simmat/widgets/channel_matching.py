"""Layers and axes as the channels of a model: matching and form.

Which layers feed the model: fills itself, can be changed, says what is wrong.

Which channels of which open layers feed a model: what is possible and what is wrong.

Plain values, no Qt, no napari: the form shows what is decided here.

The channels of an image to train on: fill themselves from open layers, can be named.

Which open layers make an image to train on, what its channels are called, what is wrong.

Plain values, no Qt, no napari, as in `feeds`; a model that could say how many channels there are
does not exist yet, so whole layers decide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QGridLayout,
    QLabel,
    QLineEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_simmat._text import format_list, format_shape, pluralize
from napari_simmat.engine.channels import match_names
from napari_simmat.models.spec import InputChannels
from napari_simmat.widgets.controls import Button, CollapsibleSection, ComboBox

MAX_CHANNELS = 32
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
class LayerChannel:
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
class ChannelMapping:
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
    sources: tuple[LayerChannel, ...]
    remark: str = ""


def channel_mappings(
    layers: Sequence[LayerInfo], inputs: InputChannels, preferred: str | None = None
) -> list[ChannelMapping]:
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
            _colours(layer)
            if layer.rgb
            else ChannelMapping(layer.name, (LayerChannel(layer.key),) * count)
            for layer in topmost
        ]
        found += [feed for layer in rest if (feed := _along_axis(layer, inputs))]
        return _preferred_first(found, preferred)
    if count == 1:
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
            found += [_colours(layer) for layer in topmost if layer.rgb]
    return list({feed.sources: feed for feed in reversed(found)}.values())[::-1]


def all_layer_channels(layers: Iterable[LayerInfo]) -> list[tuple[str, LayerChannel]]:
    """Every single channel that any slot may take, with its title."""
    found: list[tuple[str, LayerChannel]] = []
    for layer in layers:
        if layer.rgb:
            found += [
                (f"{layer.name} · {colour}", LayerChannel(layer.key, n))
                for n, colour in enumerate(_COLOURS)
            ]
            continue
        found.append((layer.name, LayerChannel(layer.key)))
        if len(layer.shape) > 2 and layer.shape[0] <= MAX_CHANNELS:
            found += [
                (f"{layer.name} · {n}", LayerChannel(layer.key, n)) for n in range(layer.shape[0])
            ]
    return found


def channel_shape(source: LayerChannel, layer: LayerInfo) -> tuple[int, ...]:
    """Shape (..., Y, X) of one channel."""
    return layer.shape if layer.rgb or source.part is None else layer.shape[1:]


def mapping_problem(
    sources: Sequence[LayerChannel | None], layers: Iterable[LayerInfo], inputs: InputChannels
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
    first_name, first_shape = chosen[0][1].name, channel_shape(*chosen[0])
    for source, layer in chosen[1:]:
        shape = channel_shape(source, layer)
        if shape != first_shape:
            return (
                f"{layer.name} has {format_shape(shape)} pixels, but {first_name} has "
                f"{format_shape(first_shape)}: choose layers of one size."
            )
    return None


def mapping_remark(sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]) -> str:
    """What a valid choice leaves for the user to check, or empty."""
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


def _by_name(group: Sequence[LayerInfo], inputs: InputChannels) -> ChannelMapping | None:
    matches = _matches(group, inputs)
    if len(matches) < len(inputs.names):
        return None
    chosen = [matches[name] for name in inputs.names]
    return ChannelMapping(_titles(chosen), tuple(LayerChannel(layer.key) for layer in chosen))


def _matches(group: Sequence[LayerInfo], inputs: InputChannels) -> dict[str, LayerInfo]:
    """For each channel the one layer that bears its name, where there is exactly one."""
    found = match_names(inputs.names, [layer.name for layer in group])
    return {name: group[index] for name, index in found.items()}


def match_slots(
    layers: Sequence[LayerInfo], inputs: InputChannels
) -> tuple[LayerChannel | None, ...]:
    """The fullest choice that names allow, with gaps where no layer bears the name."""
    best = max((_matches(group, inputs) for group in _groups(layers)), key=len, default={})
    return tuple(LayerChannel(best[name].key) if name in best else None for name in inputs.names)


def _in_order(group: Sequence[LayerInfo], inputs: InputChannels) -> ChannelMapping:
    pairs = zip(inputs.names, group, strict=True)
    taken = ", ".join(f"{layer.name} as {name}" for name, layer in pairs)
    return ChannelMapping(
        _titles(group),
        tuple(LayerChannel(layer.key) for layer in group),
        f"Taken in the order of the layers: {taken}.",
    )


def _along_axis(layer: LayerInfo, inputs: InputChannels) -> ChannelMapping | None:
    count = len(inputs.names)
    if layer.rgb or len(layer.shape) < 3 or layer.shape[0] != count:
        return None
    names = f"0 to {count - 1} as {format_list(inputs.names)}"
    return ChannelMapping(
        f"{layer.name} (first axis = channels)",
        tuple(LayerChannel(layer.key, n) for n in range(count)),
        f"Taken in the order of the first axis: {names}.",
    )


def _colours(layer: LayerInfo) -> ChannelMapping:
    return ChannelMapping(
        f"{layer.name} (RGB)", tuple(LayerChannel(layer.key, n) for n in range(3))
    )


def _preferred_first(
    found: Sequence[ChannelMapping], preferred: str | None
) -> list[ChannelMapping]:
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


LayerChannels = tuple[LayerChannel | None, ...]


class ChannelsForm(QWidget):
    """A view of one value: for each of the model's channels a `LayerChannel`, or None for a gap.

    Attributes
    ----------
    details
        The choice for each channel, to be laid out below the list.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._inputs: InputChannels | None = None
        self._layers: list[LayerInfo] = []
        self._feeds: list[ChannelMapping] = []
        self._sources: list[tuple[str, LayerChannel]] = []
        self._value: LayerChannels = ()
        self._by_hand = False
        self._image = ComboBox()
        self._image.setToolTip("The image: one layer, or layers that are its channels")
        self._image.activated.connect(self._on_feed)
        self._slots: list[ComboBox] = []
        self._rows = QWidget()
        self._rows_layout = QFormLayout(self._rows)
        self._rows_layout.setContentsMargins(14, 0, 0, 0)
        self._rows_layout.setVerticalSpacing(2)
        self._fold = CollapsibleSection("Channels", self._rows)
        self._remark = QLabel()
        self._remark.setWordWrap(True)
        self._remark.setStyleSheet("color: #ffb000;")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._image)
        self.details = QWidget()
        below = QVBoxLayout(self.details)
        below.setContentsMargins(0, 0, 0, 0)
        below.setSpacing(2)
        below.addWidget(self._fold)
        below.addWidget(self._remark)
        self._show()

    def value(self) -> LayerChannels:
        """The choice, one entry for each of the model's channels."""
        return self._value

    def set_value(self, value: Sequence[LayerChannel | None]) -> None:
        """Choose, as by hand: kept for as long as the layers are open."""
        if self._inputs is None or len(value) != len(self._inputs.names):
            raise ValueError("A choice has one entry for each of the model's channels.")
        self._value, self._by_hand = tuple(value), True
        self._show()
        self.changed.emit()

    def set_inputs(self, inputs: InputChannels | None) -> None:
        """Choose for another model, anew; of several images the one in use stays."""
        before, used = self._value, next((each.layer for each in self._value if each), None)
        self._inputs, self._by_hand, self._value = inputs, False, ()
        self._make_slots()
        self._refill(used, before)
        self._fold.set_open(inputs is not None and len(inputs.names) > 1 and not inputs.is_rgb)

    def set_layers(self, layers: Sequence[LayerInfo], preferred: str | None = None) -> None:
        """Choose among these layers; a choice that is still right is kept.

        Parameters
        ----------
        layers
            The open image layers in the viewer's order.
        preferred
            Key of the layer to choose where several are as good.
        """
        self._layers = list(layers)
        self._refill(preferred)

    def problem(self) -> str | None:
        """What is wrong with the choice, in one sentence; None if nothing is."""
        if self._inputs is None:
            return "Choose a model."
        return mapping_problem(self._value, self._layers, self._inputs)

    def _refill(self, preferred: str | None, wanted: LayerChannels = ()) -> None:
        """Fill what is not right any more: with `wanted` if that is offered, else with the best."""
        inputs = self._inputs
        before = self._value
        self._feeds = [] if inputs is None else channel_mappings(self._layers, inputs, preferred)
        self._sources = all_layer_channels(self._layers)
        if inputs is not None and not (before and self._still_right(inputs)):
            self._by_hand = False
            offered = [feed.sources for feed in self._feeds]
            best = offered[0] if offered else match_slots(self._layers, inputs)
            self._value = wanted if wanted in offered else best
        self._show()
        if self._value != before or self.problem():
            self.changed.emit()

    def _still_right(self, inputs: InputChannels) -> bool:
        """Whether the choice stays: right as it is, or still being made by hand."""
        open_layers = {layer.key for layer in self._layers}
        there = all(each is None or each.layer in open_layers for each in self._value)
        right = mapping_problem(self._value, self._layers, inputs) is None
        return there and (right or self._by_hand)

    def _on_feed(self, index: int) -> None:
        if index < len(self._feeds):
            self._value, self._by_hand = self._feeds[index].sources, True
            self._show()
            self.changed.emit()

    def _on_slot(self) -> None:
        chosen = [slot.currentIndex() for slot in self._slots]
        self._value = tuple(None if index < 1 else self._sources[index - 1][1] for index in chosen)
        self._by_hand = True
        self._show()
        self.changed.emit()

    def _make_slots(self) -> None:
        while self._rows_layout.rowCount():
            self._rows_layout.removeRow(0)
        self._slots = []
        inputs = self._inputs
        names, units = ((), ()) if inputs is None else (inputs.names, inputs.units)
        for name, unit in zip_longest(names, units, fillvalue=""):
            slot = ComboBox()
            slot.activated.connect(self._on_slot)
            self._rows_layout.addRow(f"{name} [{unit}]" if unit else name, slot)
            self._slots.append(slot)

    def _show(self) -> None:
        titles = [title for title, _ in self._sources]
        sources = [source for _, source in self._sources]
        for slot, source in zip(self._slots, self._value, strict=False):
            slot.clear()
            slot.addItems(["-", *titles])
            slot.setCurrentIndex(sources.index(source) + 1 if source in sources else 0)
        self._image.clear()
        self._image.addItems([feed.title for feed in self._feeds])
        chosen = [n for n, feed in enumerate(self._feeds) if feed.sources == self._value]
        if not chosen:
            self._image.addItem("as chosen below" if self._layers else "no image is open")
        self._image.setCurrentIndex(chosen[0] if chosen else len(self._feeds))
        self._fold.setVisible(len(self._slots) > 1 and bool(self._layers))
        text = self._feeds[chosen[0]].remark if chosen else ""
        if not text and self._inputs is not None and not self.problem():
            complete = [source for source in self._value if source is not None]
            text = mapping_remark(complete, self._layers)
        self._remark.setText(text)
        self._remark.setVisible(bool(text))


_FORBIDDEN = set('/\\:*?"<>|,')
_LABELS = "_labels"
"""What the names of files of labels end with; `datasets.folder` has it, which loads more."""


@dataclass(frozen=True)
class NamedChannel:
    """A channel to train on.

    Parameters
    ----------
    name
        As the model will ask for it.
    source
        Where it is; None for a gap.
    """

    name: str
    source: LayerChannel | None


def whole_image_mappings(
    layers: Sequence[LayerInfo], preferred: str | None = None
) -> list[ChannelMapping]:
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
        ChannelMapping(
            " + ".join(each.name for each in group), tuple(LayerChannel(each.key) for each in group)
        )
        for group in groups.values()
        if 1 < len(group) <= MAX_CHANNELS
    ]
    topmost = list(layers)[::-1]
    topmost.sort(key=lambda layer: (layer.key != preferred, not layer.channels_first))
    for layer in topmost:
        along = ChannelMapping(
            f"{layer.name} (first axis = channels)",
            tuple(LayerChannel(layer.key, number) for number in range(layer.shape[0])),
        )
        if layer.rgb:
            found.append(
                ChannelMapping(
                    f"{layer.name} (RGB)", tuple(LayerChannel(layer.key, n) for n in range(3))
                )
            )
        elif layer.channels_first:
            found.append(along)
        else:
            found.append(ChannelMapping(layer.name, (LayerChannel(layer.key),)))
            if len(layer.shape) > 2 and 1 < layer.shape[0] <= MAX_CHANNELS:
                found.append(along)
    if preferred is not None:
        found.sort(key=lambda feed: all(each.layer != preferred for each in feed.sources))
    return found


def named_channels(
    sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]
) -> tuple[NamedChannel, ...]:
    """Channels with names of their own: those of the layers without what all of them share."""
    known = {layer.key: layer for layer in layers}
    names = [_name(source, known[source.layer]) for source in sources]
    if len(names) > 1:
        names = _without_common_start(names)
    return tuple(
        NamedChannel(name, source) for name, source in zip(_unique(names), sources, strict=True)
    )


def channels_problem(channels: Sequence[NamedChannel], layers: Iterable[LayerInfo]) -> str | None:
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
        if channel_shape(source, layer) != channel_shape(sources[0], first):
            return (
                f"{layer.name} has {format_shape(channel_shape(source, layer))} pixels, but "
                f"{first.name} has {format_shape(channel_shape(sources[0], first))}: choose layers of "
                "one size."
            )
    return None


def labels_problem(
    labels: LayerInfo | None, sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]
) -> str | None:
    """Why labels do not belong to an image, in one sentence, or None."""
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


def inputs_of(channels: Sequence[NamedChannel]) -> InputChannels:
    """These channels as an image is to provide them, so that another image is chosen alike."""
    return InputChannels(names=tuple(each.name for each in channels), reader="the training")


def _name(source: LayerChannel, layer: LayerInfo) -> str:
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


NamedChannels = tuple[NamedChannel, ...]


class TrainChannels(QWidget):
    """A view of one value: the channels with their names, in order.

    As the Segment tab's form, but the channels are chosen here, not by a model.

    Attributes
    ----------
    details
        Name and layer of each channel, to be laid out below the list.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers: list[LayerInfo] = []
        self._feeds: list[ChannelMapping] = []
        self._sources: list[tuple[str, LayerChannel]] = []
        self._value: NamedChannels = ()
        self._by_hand = False
        self._image = ComboBox()
        self._image.setToolTip("The image: one layer, or layers that are its channels")
        self._image.activated.connect(self._on_feed)
        self._names: list[QLineEdit] = []
        self._slots: list[ComboBox] = []
        self._removes: list[QToolButton] = []
        self._rows = QWidget()
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self._add = Button("Add a channel")
        self._add.clicked.connect(self._on_add)
        inside = QVBoxLayout(self._rows)
        inside.setContentsMargins(14, 0, 0, 0)
        inside.setSpacing(4)
        inside.addLayout(self._grid)
        inside.addWidget(self._add, alignment=Qt.AlignmentFlag.AlignLeft)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._image)
        self.details = CollapsibleSection("Channels", self._rows)
        self._show()

    def value(self) -> NamedChannels:
        """The channels."""
        return self._value

    def set_value(self, value: Sequence[NamedChannel]) -> None:
        """Choose, as by hand: kept for as long as the layers are open."""
        self._value, self._by_hand = tuple(value), True
        self._show()
        self.changed.emit()

    def set_layers(self, layers: Sequence[LayerInfo], preferred: str | None = None) -> None:
        """Choose among these layers; a choice that is still right is kept.

        Parameters
        ----------
        layers
            The open image layers in the viewer's order.
        preferred
            Key of the layer to choose where several are as good.
        """
        self._layers = list(layers)
        self._feeds = whole_image_mappings(self._layers, preferred)
        self._sources = all_layer_channels(self._layers)
        before = self._value
        known = {layer.key for layer in layers}
        there = all(each.source is None or each.source.layer in known for each in before)
        if not before or not there or (self.problem() and not self._by_hand):
            self._by_hand = False
            first = self._feeds[0].sources if self._feeds else ()
            self._value = named_channels(first, self._layers)
        self._show()
        if self._value != before or self.problem():
            self.changed.emit()

    def problem(self) -> str | None:
        """What is wrong with the choice, in one sentence; None if nothing is."""
        return channels_problem(self._value, self._layers)

    def _on_feed(self, index: int) -> None:
        if index < len(self._feeds):
            self.set_value(named_channels(self._feeds[index].sources, self._layers))

    def _on_slot(self) -> None:
        chosen = [slot.currentIndex() for slot in self._slots]
        sources = [None if index < 1 else self._sources[index - 1][1] for index in chosen]
        self.set_value([NamedChannel(e.name, s) for e, s in zip(self._value, sources, strict=True)])

    def _on_name(self) -> None:
        names = [field.text() for field in self._names]
        self._value = tuple(
            NamedChannel(name, each.source) for name, each in zip(names, self._value, strict=True)
        )
        self._by_hand = True
        self.changed.emit()

    def _on_add(self) -> None:
        taken = {each.source for each in self._value}
        free = [source for _, source in self._sources if source not in taken]
        source = free[0] if free else None
        if source is None:
            self.set_value((*self._value, NamedChannel(f"channel {len(self._value)}", None)))
            return
        name = named_channels([source], self._layers)[0].name
        self.set_value((*self._value, NamedChannel(name, source)))

    def _on_remove(self, number: int) -> None:
        self.set_value([each for at, each in enumerate(self._value) if at != number])

    def _make_slots(self) -> None:
        """As many rows as there are channels; rows that stay keep the focus."""
        while len(self._slots) > len(self._value):
            for row in (self._names, self._slots, self._removes):
                widget = row.pop()
                self._grid.removeWidget(widget)
                widget.hide()
                widget.deleteLater()  # it may be the one that was pressed
        while len(self._slots) < len(self._value):
            row = len(self._slots)
            name, slot, remove = QLineEdit(), ComboBox(), QToolButton()
            name.setToolTip("What the model will call this channel")
            name.setMaximumWidth(110)
            name.textEdited.connect(self._on_name)
            slot.activated.connect(self._on_slot)
            remove.setText("\N{MULTIPLICATION SIGN}")
            remove.setToolTip("Leave this channel out")
            remove.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            remove.clicked.connect(lambda _=False, row=row: self._on_remove(row))
            for column, widget in enumerate((name, slot, remove)):
                self._grid.addWidget(widget, row, column)
            self._names.append(name)
            self._slots.append(slot)
            self._removes.append(remove)

    def _show(self) -> None:
        self._make_slots()
        titles = [title for title, _ in self._sources]
        sources = [source for _, source in self._sources]
        for field, slot, each in zip(self._names, self._slots, self._value, strict=True):
            if field.text() != each.name:
                field.setText(each.name)
            slot.clear()
            slot.addItems(["-", *titles])
            slot.setCurrentIndex(sources.index(each.source) + 1 if each.source in sources else 0)
        chosen = tuple(each.source for each in self._value)
        at = [number for number, feed in enumerate(self._feeds) if feed.sources == chosen]
        self._image.clear()
        self._image.addItems([feed.title for feed in self._feeds])
        if not at:
            self._image.addItem("as chosen below" if self._layers else "no image is open")
        self._image.setCurrentIndex(at[0] if at else len(self._feeds))
        self.details.setVisible(bool(self._layers))
        shown = ", ".join(each.name for each in self._value)
        count = pluralize(len(self._value), "channel")
        self.details.set_title(f"{count}: {shown}" if len(shown) <= 28 else count)
