"""The channels of an image: which open layers they can be, what is wrong with a choice, and a form.

Everything above `ChannelsForm` is plain values. Without `InputChannels` of a model the functions
are about an image to train on, whose channels the user counts and names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QLineEdit, QToolButton, QWidget

from napari_simmat._text import format_list, format_shape, pluralize
from napari_simmat.engine.image_stack import RGB, match_names
from napari_simmat.models.spec import InputChannels
from napari_simmat.widgets.controls import (
    INDENT,
    Button,
    CollapsibleSection,
    ComboBox,
    remove_button,
    text_label,
    vbox,
)

MAX_CHANNELS = 32
"""A longer first axis is offered as channels only if it is named so."""
CHOOSE_MODEL = "Choose a model."
NO_IMAGE = "no image is open"
BY_SLOTS = "as chosen below"
FIRST_AXIS = "First axis is channels"
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


Sources = tuple[LayerChannel | None, ...]
"""One for each channel, in order; None for a gap."""


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
    if inputs is not None and not inputs.is_rgb:
        return _multichannel_images(layers, topmost, inputs)
    if inputs is None:
        found = _whole_images(layers, topmost, preferred)
    else:
        found = _rgb_images(layers, topmost, inputs)
    if preferred is None:
        return found
    return sorted(found, key=lambda each: all(part.layer != preferred for part in each.sources))


def match_slots(layers: Sequence[LayerInfo], inputs: InputChannels) -> Sources:
    """The most complete match by names, with None for channels that no layer is named after."""
    best = max((_matches(group, inputs) for group in _aligned_groups(layers)), key=len, default={})
    return tuple(LayerChannel(best[name].key) if name in best else None for name in inputs.names)


def all_layer_channels(layers: Iterable[LayerInfo]) -> list[tuple[str, LayerChannel]]:
    """Every single channel of the layers, with its title."""
    found: list[tuple[str, LayerChannel]] = []
    for layer in layers:
        parts: list[tuple[int, object]] = []
        if layer.rgb:
            parts = list(enumerate(RGB))
        else:
            found.append((layer.name, LayerChannel(layer.key)))
            if len(layer.shape) > 2 and (layer.channels_first or layer.shape[0] <= MAX_CHANNELS):
                parts = [(n, n) for n in range(layer.shape[0])]
        found += [(f"{layer.name} · {name}", LayerChannel(layer.key, n)) for n, name in parts]
    return found


def all_image_channels(
    sources: Sequence[LayerChannel], layers: Sequence[LayerInfo]
) -> tuple[LayerChannel, ...]:
    """All channels of the image that some are taken from.

    They are the entries of its layer's first axis, or the layers of its shape that lie on it; none
    if it is not open.
    """
    known = {layer.key: layer for layer in layers}
    if not sources or any(source.layer not in known for source in sources):
        return ()
    first = known[sources[0].layer]
    if first.rgb:
        return tuple(sources)
    if sources[0].part is not None:
        return _along_first_axis(first).sources
    plain = [layer for layer in layers if not layer.rgb]
    [group] = [group for group in _aligned_groups(plain) if first in group]
    return tuple(LayerChannel(layer.key) for layer in group)


def channel_names(sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]) -> tuple[str, ...]:
    """Name channels after their layers, without the words that all names start with.

    The names are distinct; files can have them, and none is a number alone.
    """
    known = {layer.key: layer for layer in layers}
    names = []
    for source in sources:
        layer = known[source.layer]
        if source.part is None:
            names.append(layer.name)
        else:
            names.append(RGB[source.part] if layer.rgb else f"{layer.name} {source.part}")
    if len(names) > 1:
        # "nuclei" and "membranes" of "field1 nuclei" and "field1 membranes"
        words = [re.split(r"(?<=[ _\-.·:])", name) for name in names]
        shared = 0
        while all(len(each) > shared + 1 for each in words) and len({e[shared] for e in words}) < 2:
            shared += 1
        names = ["".join(each[shared:]).strip() for each in words]
    return tuple(_unique(names))


def channels_problem(
    names: Sequence[str],
    sources: Sequence[LayerChannel | None],
    layers: Iterable[LayerInfo],
    inputs: InputChannels | None = None,
) -> str | None:
    """What is wrong with a choice for a model or a training, one sentence; None if nothing is."""
    known = {layer.key: layer for layer in layers}
    if not known:
        return NO_IMAGE_TO_TRAIN_ON if inputs is None else NO_IMAGE_OPEN
    chosen = [source for source in sources if source is not None and source.layer in known]
    is_repeated = len(set(chosen)) < len(chosen)
    if inputs is None:
        plain = [name.strip().casefold() for name in names]
        for name, source in zip(names, sources, strict=True):
            if source not in chosen:
                return NO_LAYER.format(name)
            if not name.strip() or _unique([name]) != [name]:
                return NAME_REFUSED.format(name[:60])
        if not chosen:
            return NO_CHANNEL
        if twice := [name for name in plain if plain.count(name) > 1]:
            return NAMED_TWICE.format(twice[0])
        if is_repeated:
            return CHOSEN_TWICE
    else:
        read = {"reader": inputs.reader, "names": format_list(names)}
        pairs = zip(names, sources, strict=True)
        if gaps := [name for name, source in pairs if source not in chosen]:
            return GAPS.format(**read, gaps=format_list(gaps))
        if is_repeated and not inputs.is_rgb:
            return READ_TWICE.format(**read, count=len(chosen))
    first = known[chosen[0].layer]
    for source in chosen[1:]:
        shapes = [_shape(each, known[each.layer]) for each in (source, chosen[0])]
        if shapes[0] != shapes[1]:
            here, there = map(format_shape, shapes)
            return OTHER_SHAPE.format(known[source.layer].name, here, first.name, there)
    return None


def labels_problem(
    labels: LayerInfo | None, sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]
) -> str | None:
    """Why labels do not belong to an image, one sentence; None if they do."""
    first = next(layer for layer in layers if layer.key == sources[0].layer)
    if labels is None:
        return NO_LABELS.format(first.name)
    if labels.shape != (shape := _shape(sources[0], first)):
        here, there = format_shape(labels.shape), format_shape(shape)
        return LABELS_SHAPE.format(labels.name, here, first.name, there)
    if not are_aligned(labels, first):
        return LABELS_ELSEWHERE.format(labels.name, first.name)
    return None


def mapping_remark(sources: Sequence[LayerChannel], layers: Iterable[LayerInfo]) -> str:
    """What the user should check in a valid choice, or empty."""
    known = {layer.key: layer for layer in layers}
    first = known[sources[0].layer]
    for source in sources[1:]:
        other = known[source.layer]
        if not are_aligned(other, first):
            return ELSEWHERE.format(other.name, first.name)
    return ""


def are_aligned(one: LayerInfo, other: LayerInfo) -> bool:
    """Whether the pixels of two layers coincide in the world along the axes that both have.

    Axes are counted from the last, so that a first axis of channels makes no difference.
    """
    sides = [max(math.isqrt(len(layer.placement)), 1) for layer in (one, other)]
    axes = min(sides) - 1

    def last_rows(layer: LayerInfo, side: int) -> list[tuple[float, ...]]:
        starts = [row * side for row in range(side - 1 - axes, side - 1)]
        return [layer.placement[start + side - 1 - axes : start + side] for start in starts]

    return last_rows(one, sides[0]) == last_rows(other, sides[1])


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
    found = _by_name(groups, inputs)
    if not found:
        found = [_in_order(group, inputs) for group in groups if len(group) == 3]
    # Three planes of a stack are colors only if the first axis is named so; else last of all.
    named = [layer for layer in topmost if layer.channels_first]
    rest = [layer for layer in topmost if not layer.channels_first]
    found += _along_axes(named, inputs)
    for layer in topmost:
        gray = ChannelMapping(layer.name, (LayerChannel(layer.key),) * 3)
        found.append(_colors(layer) if layer.rgb else gray)
    return found + _along_axes(rest, inputs)


def _multichannel_images(
    layers: Sequence[LayerInfo], topmost: Sequence[LayerInfo], inputs: InputChannels
) -> list[ChannelMapping]:
    groups = _aligned_groups([layer for layer in layers if not layer.rgb])
    count = len(inputs.names)
    found = _by_name(groups, inputs)
    if count == 1:
        named = [layer for layer in topmost if layer.channels_first and layer.shape[0] > 1]
        found += _along_axes(named, inputs)
        found += [_of_layers([layer]) for layer in topmost if not layer.rgb]
    else:
        # Where some names match, an order is not guessed.
        if not any(_matches(group, inputs) for group in groups):
            found += [_in_order(group, inputs) for group in groups if len(group) == count]
        found += _along_axes(topmost, inputs)
        if count == 3:
            found += [_colors(layer) for layer in topmost if layer.rgb]
    return list({mapping.sources: mapping for mapping in reversed(found)}.values())[::-1]


def _whole_images(
    layers: Sequence[LayerInfo], topmost: Sequence[LayerInfo], preferred: str | None
) -> list[ChannelMapping]:
    plain = [layer for layer in layers if not layer.rgb and not layer.channels_first]
    found = [
        ChannelMapping(
            " + ".join(each.name for each in group), tuple(LayerChannel(each.key) for each in group)
        )
        for group in _aligned_groups(plain)
        if 1 < len(group) <= MAX_CHANNELS
    ]
    for layer in sorted(topmost, key=lambda each: (each.key != preferred, not each.channels_first)):
        if layer.rgb:
            found.append(_colors(layer))
        elif layer.channels_first:
            found.append(_along_first_axis(layer))
        else:
            found.append(_of_layers([layer]))
            if len(layer.shape) > 2 and 1 < layer.shape[0] <= MAX_CHANNELS:
                found.append(_along_first_axis(layer))
    return found


def _colors(layer: LayerInfo) -> ChannelMapping:
    sources = tuple(LayerChannel(layer.key, n) for n in range(3))
    return ChannelMapping(f"{layer.name} (RGB)", sources)


def _along_first_axis(
    layer: LayerInfo, remark: str = "", count: int | None = None
) -> ChannelMapping:
    """The entries of a layer's first axis, or the first `count` of them."""
    sources = tuple(LayerChannel(layer.key, n) for n in range(layer.shape[0])[:count])
    return ChannelMapping(f"{layer.name} (first axis = channels)", sources, remark)


def _along_axes(layers: Iterable[LayerInfo], inputs: InputChannels) -> list[ChannelMapping]:
    """The first entries of the layers' first axes, which may be more only if they are channels."""
    count, found = len(inputs.names), []
    for layer in layers:
        if layer.rgb or len(layer.shape) < 3:
            continue
        if layer.channels_first and layer.shape[0] > count:
            pairs = [f"{number} as {name}" for number, name in enumerate(inputs.names)]
            remark = FIRST_TAKEN.format(layer.shape[0], format_list(pairs))
            found.append(_along_first_axis(layer, remark, count))
        elif layer.shape[0] == count:
            remark = ALONG_AXIS.format(count - 1, format_list(inputs.names))
            found.append(_along_first_axis(layer, remark))
    return found


def _by_name(groups: Iterable[Sequence[LayerInfo]], inputs: InputChannels) -> list[ChannelMapping]:
    return [
        _of_layers([match[name] for name in inputs.names])
        for match in (_matches(group, inputs) for group in groups)
        if len(match) == len(inputs.names)
    ]


def _matches(group: Sequence[LayerInfo], inputs: InputChannels) -> dict[str, LayerInfo]:
    """The layer named after each channel, if there is exactly one."""
    found = match_names(inputs.names, [layer.name for layer in group])
    return {name: group[index] for name, index in found.items()}


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


class ChannelsForm(QWidget):
    """A view of one value: a `LayerChannel` for each channel, or None for a gap.

    It shows a list of images, and below it a list of single channels for each slot. A choice by
    hand is kept while its layers are open, even if it is incomplete.

    Parameters
    ----------
    asks_axis
        Ask whether the first axis of a stack is channels: `first_axis_named` must be answered.
    named
        The user decides how many channels there are, and names them; otherwise a model does
        (`set_inputs`).

    Attributes
    ----------
    names
        Of the channels.
    image, slots, name_fields, removes
        The list of images, and the widgets of each channel.
    details
        The slots, to be laid out below the list of images.
    """

    changed = Signal()
    first_axis_named = Signal(str, bool)
    """The user says of a layer, by its key, whether its first axis is channels."""

    def __init__(
        self, parent: QWidget | None = None, *, asks_axis: bool = False, named: bool = False
    ) -> None:
        super().__init__(parent)
        self._asks_axis, self._named = asks_axis, named
        self._inputs: InputChannels | None = None
        self._layers: list[LayerInfo] = []
        self._mappings: list[ChannelMapping] = []
        self._channels: list[tuple[str, LayerChannel]] = []
        self._value: Sources = ()
        self._by_hand = False
        self.names: tuple[str, ...] = ()
        self.slots: list[ComboBox] = []
        self.name_fields: list[QLineEdit | QLabel] = []
        self.removes: list[QToolButton] = []
        self.image = ComboBox()
        self.image.setToolTip("The image: one layer, or layers that are its channels")
        self.image.activated.connect(self._on_image)
        self._grid = QGridLayout()
        self._grid.setContentsMargins(INDENT, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self.add = Button("Add a channel")
        self.add.setVisible(named)
        self.add.clicked.connect(self._on_add)
        self.first_axis = QCheckBox(FIRST_AXIS)
        self.first_axis.setToolTip("Use entries of the layer as channels, not each as an image")
        self.first_axis.clicked.connect(self._on_first_axis)
        inside, self.details = QWidget(), QWidget()
        rows = vbox(self._grid, self.add, self.first_axis, parent=inside, spacing=2)
        rows.setAlignment(self.add, Qt.AlignmentFlag.AlignLeft)
        self.section = CollapsibleSection("Channels", inside)
        self.remark = text_label("warning")
        vbox(self.section, self.remark, parent=self.details, spacing=2)
        vbox(self.image, parent=self)
        self._show()

    def value(self) -> Sources:
        """The choice, one entry per channel."""
        return self._value

    def set_value(
        self, value: Sequence[LayerChannel | None], names: Sequence[str] | None = None
    ) -> None:
        """Choose by hand; ValueError if there is not one entry for each channel.

        `names` are new names for the channels of a training; by default they keep theirs.
        """
        names = self.names if names is None else tuple(names)
        if len(value) != len(names) or not (self._named or self._inputs):
            raise ValueError("A choice has one entry for each of the model's channels.")
        self._value, self.names, self._by_hand = tuple(value), names, True
        self._show()
        self.changed.emit()

    def set_layers(self, layers: Sequence[LayerInfo], preferred: str | None = None) -> None:
        """Choose among the open image layers, as `channel_mappings`; a choice that fits is kept."""
        self._layers = list(layers)
        self._fill(preferred)

    def set_inputs(self, inputs: InputChannels | None) -> None:
        """Choose for another model; if there are several images, the one in use stays."""
        before, used = self._value, next((each.layer for each in self._value if each), None)
        self._inputs, self._by_hand, self._value = inputs, False, ()
        self.names = () if inputs is None else inputs.names
        self._fill(used, before)
        self.section.set_open(len(self.names) > 1 and inputs is not None and not inputs.is_rgb)

    def follow(self, layer: str) -> bool:
        """Choose the image that a layer makes, without a signal; whether there is one.

        Layers named as the model's channels are one image; otherwise the layer is one by itself.
        """
        found = [each for each in self._mappings if layer in {one.layer for one in each.sources}]
        # A remark on several layers says that their order was guessed.
        found.sort(
            key=lambda each: bool(each.remark) and any(layer != one.layer for one in each.sources)
        )
        if not found:
            return False
        self._by_hand = False
        self._choose(found[0].sources)
        self._show()
        return True

    def problem(self) -> str | None:
        """What is wrong with the choice, one sentence; None if nothing is."""
        if self._inputs is None and not self._named:
            return CHOOSE_MODEL
        return channels_problem(self.names, self._value, self._layers, self._inputs)

    def _fill(self, preferred: str | None, wanted: Sources = ()) -> None:
        """List the images; a choice that does not fit any more becomes `wanted` or the best."""
        before = (self._value, self.names)
        best: Sources = ()
        self._mappings = []
        if self._inputs is not None or self._named:
            self._mappings = channel_mappings(self._layers, self._inputs, preferred)
        if self._mappings:
            best = self._mappings[0].sources
        elif self._inputs is not None:
            best = match_slots(self._layers, self._inputs)
        self._channels = all_layer_channels(self._layers)
        keys = {layer.key for layer in self._layers}
        is_open = all(each is None or each.layer in keys for each in self._value)
        if not self._value or not is_open or (self.problem() and not self._by_hand):
            self._by_hand = False
            offered = [each.sources for each in self._mappings]
            self._choose(wanted if wanted in offered else best)
        self._show()
        if (self._value, self.names) != before or self.problem():
            self.changed.emit()

    def _choose(self, sources: Sources) -> None:
        self._value = sources
        if self._named:
            self.names = channel_names([each for each in sources if each], self._layers)

    def _on_image(self, index: int) -> None:
        if index < len(self._mappings):
            self._by_hand = True
            self._choose(self._mappings[index].sources)
            self._show()
            self.changed.emit()

    def _on_slot(self) -> None:
        chosen = [slot.currentIndex() for slot in self.slots]
        self.set_value([None if at < 1 else self._channels[at - 1][1] for at in chosen])

    def _on_name(self) -> None:
        self.names = tuple(field.text() for field in self.name_fields)
        self._by_hand = True
        self.changed.emit()

    def _on_add(self) -> None:
        unused = [source for _, source in self._channels if source not in self._value]
        if unused:
            source, (name,) = unused[0], channel_names(unused[:1], self._layers)
        else:
            source, name = None, f"channel {len(self._value)}"
        self.set_value((*self._value, source), (*self.names, name))

    def _on_remove(self, number: int) -> None:
        kept = [at for at in range(len(self._value)) if at != number]
        self.set_value([self._value[at] for at in kept], [self.names[at] for at in kept])

    def _on_first_axis(self, on: bool) -> None:
        if (stack := self._stack()) is not None:
            self.first_axis_named.emit(stack.key, on)

    def _stack(self) -> LayerInfo | None:
        """The first chosen layer, or else the topmost, if its first axis may be channels."""
        if not self._asks_axis:
            return None
        chosen = [each.layer for each in self._value if each is not None]
        layers = [layer for layer in self._layers if not chosen or layer.key == chosen[0]]
        found = layers[-1] if layers else None
        return found if found and len(found.shape) > 2 and not found.rgb else None

    def _has_choice(self) -> bool:
        """Whether a channel can be another than the one that the list of images gives it."""
        if self._named or not self._layers:
            return bool(self._layers)
        lone = self._layers[0] if len(self._layers) == 1 else None
        is_picture = lone is not None and (lone.rgb or len(self._channels) == 1)
        is_rgb = self._inputs is not None and self._inputs.is_rgb
        return len(self.names) > 1 and not (is_picture and is_rgb)

    def _make_rows(self) -> None:
        """Adapt the number of rows; rows that stay keep the focus."""
        columns = (self.name_fields, self.slots, *[self.removes] * self._named)
        while len(self.slots) > len(self.names):
            for column in columns:
                widget = column.pop()
                self._grid.removeWidget(widget)
                widget.hide()
                widget.deleteLater()  # not at once: it may be the one that was pressed
        while len(self.slots) < len(self.names):
            row = len(self.slots)
            self.slots.append(ComboBox())
            self.slots[row].activated.connect(self._on_slot)
            if self._named:
                field, remove = QLineEdit(), remove_button("Remove this channel")
                remove.setAccessibleName(remove.toolTip())
                field.setToolTip("What the model will call this channel")
                field.setAccessibleName("Name of the channel")
                field.setMaximumWidth(110)
                field.textEdited.connect(self._on_name)
                remove.clicked.connect(lambda _=False, row=row: self._on_remove(row))
                self.removes.append(remove)
                self.name_fields.append(field)
            else:
                self.name_fields.append(QLabel())
            for number, column in enumerate(columns):
                self._grid.addWidget(column[row], row, number)

    def _show(self) -> None:
        self._make_rows()
        units = () if self._inputs is None else self._inputs.units
        for row, (name, source) in enumerate(zip(self.names, self._value, strict=False)):
            text = f"{name} [{units[row]}]" if row < len(units) and units[row] else name
            if self.name_fields[row].text() != text:
                self.name_fields[row].setText(text)
            self.slots[row].setAccessibleName(text)
            sources = [each for _, each in self._channels]
            self.slots[row].clear()
            self.slots[row].addItems(["-", *[title for title, _ in self._channels]])
            self.slots[row].setCurrentIndex(sources.index(source) + 1 if source in sources else 0)
        offered = [each.sources for each in self._mappings]
        number = offered.index(self._value) if self._value in offered else None
        self.image.clear()
        self.image.addItems([each.title for each in self._mappings])
        if number is None:
            self.image.addItem(BY_SLOTS if self._layers else NO_IMAGE)
        self.image.setCurrentIndex(len(offered) if number is None else number)
        if self._named:
            shown = ", ".join(self.names)
            count = pluralize(len(self.names), "channel")
            self.section.set_title(f"{count}: {shown}" if len(shown) <= 28 else count)
        stack = self._stack()
        self.first_axis.setVisible(stack is not None)
        self.first_axis.setChecked(stack is not None and stack.channels_first)
        self.section.setVisible(self._has_choice() or stack is not None)
        remark = "" if number is None else self._mappings[number].remark
        if not remark and not self.problem():
            remark = mapping_remark([each for each in self._value if each], self._layers)
        self.remark.setText(remark)
        self.remark.setVisible(bool(remark) and not self._named)
