"""The form of an image's channels: which image, and a layer or part of one for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QLineEdit, QToolButton, QWidget
from superqt import QElidingLabel

from napari_simmat._text import format_list, pluralize
from napari_simmat.annotation.channel_choice import (
    ChannelMapping,
    LayerChannel,
    LayerInfo,
    RememberedChannels,
    Sources,
    all_layer_channels,
    channel_mappings,
    channel_names,
    channels_problem,
    mapping_remark,
    match_slots,
)
from napari_simmat.engine.channels.matching import LACKING
from napari_simmat.engine.channels.ranking import RankedPlane
from napari_simmat.models.spec import InputChannels
from napari_simmat.widgets.controls import (
    INDENT,
    Button,
    CollapsibleSection,
    ComboBox,
    hbox,
    remove_button,
    text_label,
    vbox,
)

CHOOSE_MODEL = "Choose a model."
NO_IMAGE = "no image is open"
FIRST_AXIS = "First axis is channels"
FIRST_AXIS_HINT = (
    "The first axis of {name} counts as {count} planes: if they are channels, tick "
    f"{FIRST_AXIS} under Channels."
)
AS_BEFORE = "Channels {parts} are taken, as on the image before. Choose others under Channels."
PROPOSED = "Channels {names} are taken: they show most. Choose others under Channels."
APART = "These bands lie up to {:.0f} pixels apart: masks follow one of them."
REGISTER = "Register the bands"
FAR = 1.0
"""Pixels between two bands from which on they are to be moved onto each other."""
DISPLAYED = "Displayed: {shown}. Segmented: {used}."
USE_DISPLAYED = "Use what is displayed"
CLEAREST = "Clearest structure:"
USE_RANKED = "Use {}"
MOST_REMEMBERED = 64


def rgb_pixmap(picture: np.ndarray) -> QPixmap:
    """A picture (Y, X, 3) of uint8."""
    height, width = picture.shape[:2]
    pixels = np.ascontiguousarray(picture)
    return QPixmap.fromImage(
        QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888)
    )


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
    remembered
        The choices by hand, the last first: an image that is shown again keeps its own.
    image, lone, slots, name_fields, removes
        The list of images, the name of the image where there is one only, and the widgets of each
        channel.
    section, notes
        The slots, and what is to be said of the choice.
    details
        Both, to be laid out below the list of images.
    """

    changed = Signal()
    first_axis_named = Signal(str, bool)
    """The user says of a layer, by its key, whether its first axis is channels."""
    registration_wanted = Signal()
    """The user wants the chosen channels to be moved onto each other."""
    displayed_wanted = Signal()
    """The user wants the channels that the viewer shows."""

    def __init__(self, *, asks_axis: bool = False, named: bool = False) -> None:
        super().__init__()
        self._asks_axis = asks_axis
        self._named = named
        self._inputs: InputChannels | None = None
        self._layers: list[LayerInfo] = []
        self._mappings: list[ChannelMapping] = []
        self._channels: list[tuple[str, LayerChannel]] = []
        self._value: Sources = ()
        self._by_hand = False
        self._ranked: tuple[str, tuple[int, ...]] = "", ()
        self._proposed: Sources = ()
        self.remembered: list[RememberedChannels] = []
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
        self.ranking = QWidget()
        self.pictures = [QLabel() for _ in range(3)]
        self.use_ranked = Button(
            "",
            "",
            "Channels in which neighboring pixels agree most, above their noise, and that differ",
        )
        self.use_ranked.clicked.connect(self._on_ranked)
        pictures = hbox(*self.pictures, (self.use_ranked, 1))
        pictures.setSpacing(4)
        title = text_label("muted")
        title.setText(CLEAREST)
        vbox(title, pictures, parent=self.ranking, spacing=2)
        self.displayed = Button(USE_DISPLAYED)
        self.displayed.clicked.connect(self.displayed_wanted)
        self.shown = text_label("muted")
        self.apart, self.register = text_label("warning"), Button(REGISTER)
        self.register.clicked.connect(self.registration_wanted)
        self._apart: tuple[str, float] = "", 0.0
        inside = QWidget()
        self.details = QWidget()
        rows = vbox(self._grid, self.add, self.first_axis, parent=inside, spacing=2)
        rows.setAlignment(self.add, Qt.AlignmentFlag.AlignLeft)
        self.section = CollapsibleSection("Channels", inside)
        self.remark, self.hint = text_label("warning"), text_label("muted")
        self.notes = QWidget()
        notes = (self.remark, self.ranking, self.apart, self.register)
        notes += (self.hint, self.shown, self.displayed)
        vbox(*notes, parent=self.notes, spacing=2)
        vbox(self.section, self.notes, parent=self.details, spacing=2)
        self.lone = QElidingLabel()
        self._offers = self._is_busy = False
        vbox(self.image, self.lone, parent=self)
        self._show()

    @property
    def inputs(self) -> InputChannels | None:
        """The channels that the model reads; None without a model."""
        return self._inputs

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
        self._value = tuple(value)
        self.names = names
        self._by_hand = True
        self._remember()
        self._show()
        self.changed.emit()

    def set_layers(self, layers: Sequence[LayerInfo], preferred: str | None = None) -> None:
        """Choose among the open image layers, as `channel_mappings`; a choice that fits is kept."""
        self._layers = list(layers)
        self._fill(preferred)

    def set_inputs(self, inputs: InputChannels | None) -> None:
        """Choose for another model; if there are several images, the one in use stays."""
        before = self._value
        used = next((each.layer for each in self._value if each), None)
        self._inputs = inputs
        self._by_hand = False
        self._value = ()
        self.names = () if inputs is None else inputs.names
        self._fill(used, before)
        self.section.set_open(len(self.names) > 1 and inputs is not None and not inputs.is_rgb)

    def follow(self, layer: str, *, recalls: bool = True) -> bool:
        """Choose the image that a layer makes, without a signal; whether there is one.

        Layers named as the model's channels are one image; otherwise the layer is one by itself.
        With `recalls` it gets the channels that the user last chose for it.
        """

        def layers_of(mapping: ChannelMapping) -> set[str]:
            return {source.layer for source in mapping.sources}

        made_from = [mapping for mapping in self._mappings if layer in layers_of(mapping)]
        # A remark on several layers says that their order was guessed.
        made_from.sort(key=lambda mapping: bool(mapping.remark) and layers_of(mapping) != {layer})
        if not made_from:
            return False
        recalled = self._recalled(layer) if recalls else ()
        self._by_hand = bool(recalled)
        self._choose(recalled or self._like_before(made_from[0]))
        self._show()
        return True

    def set_ranked(self, layer: str, ranked: Sequence[RankedPlane]) -> None:
        """Propose the channels of a layer, by its key, that are best seen."""
        self._ranked = layer, tuple(each.number for each in ranked)
        for label, (_, picture) in zip(self.pictures, ranked, strict=False):
            label.setPixmap(rgb_pixmap(picture))
        titles = {source: title for title, source in self._channels}
        found = [titles.get(LayerChannel(layer, part), "") for part in self._ranked[1]]
        for label, title in zip(self.pictures, found, strict=False):
            label.setToolTip(title)
        self._show()

    def propose(self) -> bool:
        """Choose the channels that are best seen, unless somebody has said which; whether it did.

        Without a name that a model knows the first ones are taken, which may show nothing.
        """
        layer, parts = self._ranked
        number = self._mapping_number()
        is_guessed = number is not None and bool(self._mappings[number].remark)
        first = tuple(LayerChannel(layer, part) for part in range(len(parts)))
        if self._by_hand or not is_guessed or not parts or self._value != first:
            return False
        self._proposed = tuple(LayerChannel(layer, part) for part in parts)
        if self._proposed != first:
            self.set_value(self._proposed)
        return self._proposed != first

    def show_displayed(self, sources: Sources) -> None:
        """Offer what the viewer shows, if that is something else than what is chosen."""
        offers = bool(sources) and self.problem() is None and not {*sources} <= {*self._value}
        titles = {source: title for title, source in self._channels}
        if offers:
            shown, used = (
                format_list(dict.fromkeys(titles.get(each, "") for each in them if each))
                for them in (sources, self._value)
            )
            self.shown.setText(DISPLAYED.format(shown=shown, used=used))
        self._offers = offers
        self._show_offer()

    def show_apart(self, layer: str, pixels: float) -> None:
        """Say how far the chosen channels of a layer, by its key, lie from each other."""
        self._apart = layer, pixels
        self.apart.setText(APART.format(pixels))
        self._show()

    def set_busy(self, busy: bool) -> None:
        """Offer nothing else while objects of the image are looked for or looked over."""
        self._is_busy = busy
        self._show_offer()

    def _show_offer(self) -> None:
        for part in (self.shown, self.displayed):
            part.setVisible(self._offers and not self._is_busy)

    def problem(self) -> str | None:
        """What is wrong with the choice, one sentence; None if nothing is."""
        if self._inputs is None and not self._named:
            return CHOOSE_MODEL
        return channels_problem(self.names, self._value, self._layers, self._inputs)

    def _fill(self, preferred: str | None, wanted: Sources = ()) -> None:
        """List the images; a choice that does not fit any more becomes `wanted` or the best."""
        before = (self._value, self.names)
        self._mappings = []
        if self._inputs is not None or self._named:
            self._mappings = channel_mappings(self._layers, self._inputs, preferred)
        self._channels = all_layer_channels(self._layers)
        if not self._fits():
            self._choose_anew(wanted)
        self._show()
        if (self._value, self.names) != before or self.problem():
            self.changed.emit()

    def _fits(self) -> bool:
        """Whether the choice can stay: of open layers, and valid or made by hand."""
        keys = {layer.key for layer in self._layers}
        is_open = all(source is None or source.layer in keys for source in self._value)
        if not self._value or not is_open:
            return False
        return self._by_hand or not self.problem()

    def _choose_anew(self, wanted: Sources) -> None:
        """Choose `wanted` if it is offered, what the user last chose for the image, or the best."""
        self._by_hand = False
        best: Sources = ()
        if self._mappings:
            best = self._mappings[0].sources
        elif self._inputs is not None:
            best = match_slots(self._layers, self._inputs)
        if any(wanted == mapping.sources for mapping in self._mappings):
            self._choose(wanted)
            return
        first = next((source.layer for source in best if source is not None), "")
        recalled = self._recalled(first)
        if recalled:
            self._by_hand = True
            self._choose(recalled)
            return
        self._choose(self._like_before(self._mappings[0]) if self._mappings else best)

    def _recalled(self, layer: str) -> Sources:
        """The channels that the user last chose for the image of a layer; empty for none."""
        infos = {info.key: info for info in self._layers}
        offered = {source for _, source in self._channels}
        # Of copies of one image it is the layer itself.
        keys = {info.content or info.key: info.key for info in self._layers}
        if layer in infos:
            keys[infos[layer].content or layer] = layer
        for names, contents, parts, _ in self.remembered:
            if names != self.names or not keys.keys() >= {*contents}:
                continue
            layers = [keys[content] for content in contents]
            used = tuple(map(LayerChannel, layers, parts))
            takes_stack = any(
                source.part is None and infos[source.layer].channels_first for source in used
            )
            is_offered = layer in layers and offered.issuperset(used)
            if takes_stack or not is_offered:
                continue
            if channels_problem(names, used, self._layers, self._inputs) is None:
                return used
        return ()

    def _like_before(self, mapping: ChannelMapping) -> Sources:
        """The sources of a mapping; where it takes the first of many channels, those chosen last.

        They are taken by their numbers, on an image of as many channels.
        """
        counts = {each.key: each.shape[0] for each in self._layers if each.channels_first}
        key = mapping.sources[0].layer
        if counts.get(key, len(self.names)) != len(self.names):
            for names, contents, parts, among in self.remembered:
                numbers = [-1 if part is None else part for part in parts]
                is_of_one_layer = len({*contents}) == 1 and min(numbers) >= 0
                is_alike = names == self.names and among in (0, counts[key])
                if is_of_one_layer and is_alike and max(numbers) < counts[key]:
                    return tuple(LayerChannel(key, part) for part in parts)
        return mapping.sources

    def _remember(self) -> None:
        """Remember a complete choice by hand."""
        if not self._named and None not in self._value and self.problem() is None:
            contents = {each.key: each.content or each.key for each in self._layers}
            pairs = [(contents[each.layer], each.part) for each in self._value if each]
            counts = {each.key: each.shape[0] for each in self._layers if each.channels_first}
            among = counts.get(next(each.layer for each in self._value if each), 0)
            layers, parts = zip(*pairs, strict=True)
            entry = RememberedChannels(self.names, layers, parts, among)
            others = [each for each in self.remembered if each != entry]
            self.remembered = [entry, *others][:MOST_REMEMBERED]

    def _choose(self, sources: Sources) -> None:
        self._value = sources
        if self._named:
            self.names = channel_names([each for each in sources if each], self._layers)

    def _on_image(self, index: int) -> None:
        if index < len(self._mappings):
            self._by_hand = True
            sources = self._mappings[index].sources
            before = {source.layer for source in self._value if source}
            was_other = before.isdisjoint(source.layer for source in sources)
            recalled = self._recalled(sources[0].layer) if was_other else ()
            # What is recalled may be another entry of the list, but this one was asked for.
            is_entry = any(recalled == mapping.sources for mapping in self._mappings)
            self._choose(recalled if recalled and not is_entry else sources)
            self._remember()
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
        source = None
        name = f"channel {len(self._value)}"
        if unused:
            source = unused[0]
            [name] = channel_names([source], self._layers)
        self.set_value((*self._value, source), (*self.names, name))

    def _on_remove(self, number: int) -> None:
        kept = [at for at in range(len(self._value)) if at != number]
        self.set_value([self._value[at] for at in kept], [self.names[at] for at in kept])

    def _on_ranked(self) -> None:
        layer, parts = self._ranked
        ranked = tuple(LayerChannel(layer, part) for part in parts)
        first = tuple(LayerChannel(layer, part) for part in range(len(parts)))
        self.set_value(first if self._value == ranked else ranked)

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
        columns: tuple[list[Any], ...] = self.name_fields, self.slots, self.removes
        columns = columns if self._named else columns[:2]
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
                field = QLineEdit()
                remove = remove_button("Remove this channel")
                field.setToolTip("What the model will call this channel")
                field.setAccessibleName("Name of the channel")
                field.setMaximumWidth(110)
                field.textEdited.connect(self._on_name)
                remove.setAccessibleName(remove.toolTip())
                remove.clicked.connect(lambda _=False, row=row: self._on_remove(row))
                self.removes.append(remove)
                self.name_fields.append(field)
            else:
                self.name_fields.append(QLabel())
            for number, column in enumerate(columns):
                self._grid.addWidget(column[row], row, number)

    def _show(self) -> None:
        stack = self._stack()
        self._make_rows()
        self._show_slots()
        self._show_images()
        self._show_first_axis(stack)
        if self._named:
            self.section.set_title(self._summary())
        self.section.setVisible(self._has_choice() or stack is not None)
        self.ranking.setVisible(self._offers_ranked(stack))
        layer, pixels = self._apart
        is_of_layer = all(each and each.layer == layer for each in self._value)
        for part in (self.apart, self.register):
            part.setVisible(pixels >= FAR and is_of_layer)
        self._offers = False
        self._show_offer()
        remark = self._remark()
        self.remark.setText(remark)
        self.remark.setVisible(bool(remark) and not self._named)

    def _show_slots(self) -> None:
        units = () if self._inputs is None else self._inputs.units
        sources = [source for _, source in self._channels]
        titles = [title for title, _ in self._channels]
        for row, (name, source) in enumerate(zip(self.names, self._value, strict=False)):
            unit = units[row] if row < len(units) else ""
            text = f"{name} [{unit}]" if unit else name
            if self.name_fields[row].text() != text:
                self.name_fields[row].setText(text)
            slot = self.slots[row]
            slot.setAccessibleName(text)
            slot.clear()
            slot.addItems(["-", *titles])
            slot.setCurrentIndex(sources.index(source) + 1 if source in sources else 0)

    def _show_images(self) -> None:
        self.image.clear()
        self.image.addItems([mapping.title for mapping in self._mappings])
        number = self._mapping_number()
        if number is None:
            self.image.addItem(self._described() if self._layers else NO_IMAGE)
            number = len(self._mappings)
        self.image.setCurrentIndex(number)
        is_choice = self.image.count() > 1
        self.lone.setText(self.image.currentText())
        self.lone.setToolTip(self.lone.text())
        self.image.setVisible(is_choice)
        self.lone.setVisible(not is_choice)

    def _described(self) -> str:
        """A choice by hand in words: ``bands: 42, 41, 39``, or the names of its layers."""
        titles = {source: title for title, source in self._channels}
        chosen = list(dict.fromkeys(titles.get(each, "") for each in self._value if each))
        layers, parts = zip(*(each.partition(" · ")[::2] for each in chosen or [""]), strict=True)
        if len({*layers}) == 1 and all(parts):
            return f"{layers[0]}: {', '.join(parts)}"
        return " + ".join(chosen) or NO_IMAGE

    def _show_first_axis(self, stack: LayerInfo | None) -> None:
        """Ask whether the first axis of a layer is its channels, as long as nobody has said it."""
        self.first_axis.setVisible(stack is not None)
        self.first_axis.setChecked(stack is not None and stack.channels_first)
        is_unsaid = stack is not None and not stack.channels_first and not stack.named
        if is_unsaid:
            self.hint.setText(FIRST_AXIS_HINT.format(name=stack.name, count=stack.shape[0]))
        self.hint.setVisible(is_unsaid)

    def _summary(self) -> str:
        """The named channels in a line: how many and, if these words are short, which."""
        count = pluralize(len(self.names), "channel")
        listed = ", ".join(self.names)
        return f"{count}: {listed}" if len(listed) <= 28 else count

    def _mapping_number(self) -> int | None:
        """Which entry of the list of images is chosen; None if the choice is another one."""
        offered = [mapping.sources for mapping in self._mappings]
        return offered.index(self._value) if self._value in offered else None

    def _offers_ranked(self, stack: LayerInfo | None) -> bool:
        """Whether the channels that are best seen are of this layer, and not chosen yet."""
        key, parts = self._ranked
        is_rgb = self._inputs is not None and self._inputs.is_rgb
        if not is_rgb or len(parts) != 3:
            return False
        if stack is None or not stack.channels_first or stack.key != key:
            return False
        ranked = tuple(LayerChannel(key, part) for part in parts)
        other = tuple(range(3)) if self._value == ranked else parts
        titles = {source: title for title, source in self._channels}
        found = (titles.get(LayerChannel(key, part), "").rpartition(" · ")[2] for part in other)
        self.use_ranked.setText(USE_RANKED.format(format_list(found)))
        return ranked == self._proposed or self._value != ranked

    def _remark(self) -> str:
        """What the user should check in the choice, or empty."""
        number = self._mapping_number()
        remark = "" if number is None else self._mappings[number].remark
        if self.problem() is not None:
            return remark
        chosen = [source for source in self._value if source is not None]
        pairs = zip(self.names, self._value, strict=False)
        lacking = [name for name, source in pairs if source is None]
        if lacking and self._inputs is not None:
            return LACKING % (format_list(lacking), self._inputs.reader)
        if number is None and not self._by_hand:
            parts = dict.fromkeys(str(source.part) for source in chosen)
            return AS_BEFORE.format(parts=format_list(parts))
        if self._proposed == self._value:
            titles = {source: title for title, source in self._channels}
            names = [titles.get(each, "").rpartition(" · ")[2] for each in chosen]
            return PROPOSED.format(names=format_list(names))
        return remark or mapping_remark(chosen, self._layers)
