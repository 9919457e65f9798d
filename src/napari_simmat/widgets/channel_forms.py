"""Forms that choose which open layers are the channels of an image.

`ChannelsForm` has a slot for each channel that a model reads, `TrainChannels` as many named
channels as the user wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QLineEdit,
    QToolButton,
    QWidget,
)

from napari_simmat._text import pluralize
from napari_simmat.models.spec import InputChannels
from napari_simmat.widgets.channel_matching import (
    ChannelMapping,
    LayerChannel,
    LayerChannels,
    LayerInfo,
    NamedChannel,
    all_layer_channels,
    channel_mappings,
    channels_problem,
    mapping_problem,
    mapping_remark,
    match_slots,
    named_channels,
    whole_image_mappings,
)
from napari_simmat.widgets.controls import (
    INDENT,
    Button,
    CollapsibleSection,
    ComboBox,
    form_rows,
    remove_button,
    text_label,
    vbox,
)

CHOOSE_MODEL = "Choose a model."
NO_IMAGE = "no image is open"
BY_SLOTS = "as chosen below"
FIRST_AXIS = "First axis is channels"


class ChannelSlots(QWidget):
    """A list of images, and below it a list of single channels for each slot.

    A choice by hand is kept while its layers are open, even if it is incomplete.

    Attributes
    ----------
    details
        The slots, to be laid out below the list of images.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layers: list[LayerInfo] = []
        self._feeds: list[ChannelMapping] = []
        self._sources: list[tuple[str, LayerChannel]] = []
        self._value: tuple[Any, ...] = ()
        self._by_hand = False
        self._slots: list[ComboBox] = []
        self._image = ComboBox()
        self._image.setToolTip("The image: one layer, or layers that are its channels")
        self._image.activated.connect(self._on_feed)
        vbox(self._image, parent=self)

    def value(self) -> tuple[Any, ...]:
        """The choice, one entry per channel."""
        return self._value

    def set_value(self, value: Sequence[Any]) -> None:
        """Choose by hand."""
        self._value, self._by_hand = tuple(value), True
        self._show()
        self.changed.emit()

    def set_layers(self, layers: Sequence[LayerInfo], preferred: str | None = None) -> None:
        """Choose among these layers; a choice that still fits is kept.

        Parameters
        ----------
        layers
            The open image layers in the viewer's order.
        preferred
            Key of the layer to choose if several fit equally well.
        """
        self._layers = list(layers)
        self._fill(preferred)

    def problem(self) -> str | None:
        """What is wrong with the choice, one sentence; None if nothing is."""
        raise NotImplementedError

    def _fill(self, preferred: str | None) -> None:
        """List the images that the layers make, and `_refill` the choice."""
        raise NotImplementedError

    def _refill(
        self, found: list[ChannelMapping], best: LayerChannels, wanted: LayerChannels = ()
    ) -> None:
        """Offer other images; a choice that does not fit any more is replaced.

        Parameters
        ----------
        found
            The images.
        best
            Chosen if the present choice does not fit.
        wanted
            Chosen instead, if it is among the images.
        """
        before = self._value
        self._feeds = found
        self._sources = all_layer_channels(self._layers)
        keys = {layer.key for layer in self._layers}
        is_open = all(each is None or each.layer in keys for each in self._chosen())
        if not before or not is_open or (self.problem() and not self._by_hand):
            self._by_hand = False
            offered = [feed.sources for feed in found]
            self._choose(wanted if wanted in offered else best)
        self._show()
        if self._value != before or self.problem():
            self.changed.emit()

    def _chosen(self) -> LayerChannels:
        return self._value

    def _choose(self, sources: LayerChannels) -> None:
        self._value = sources

    def _on_feed(self, index: int) -> None:
        if index < len(self._feeds):
            self._by_hand = True
            self._choose(self._feeds[index].sources)
            self._show()
            self.changed.emit()

    def _in_slots(self) -> LayerChannels:
        """What the slots show."""
        chosen = [slot.currentIndex() for slot in self._slots]
        return tuple(None if index < 1 else self._sources[index - 1][1] for index in chosen)

    def _on_slot(self) -> None:
        self.set_value(self._in_slots())

    def _feed(self) -> ChannelMapping | None:
        """The image of the list that is the present choice."""
        return next((feed for feed in self._feeds if feed.sources == self._chosen()), None)

    def _show(self) -> None:
        titles = [title for title, _ in self._sources]
        sources = [source for _, source in self._sources]
        for slot, source in zip(self._slots, self._chosen(), strict=False):
            slot.clear()
            slot.addItems(["-", *titles])
            slot.setCurrentIndex(sources.index(source) + 1 if source in sources else 0)
        feed = self._feed()
        self._image.clear()
        self._image.addItems([each.title for each in self._feeds])
        if feed is None:
            self._image.addItem(BY_SLOTS if self._layers else NO_IMAGE)
        self._image.setCurrentIndex(len(self._feeds) if feed is None else self._feeds.index(feed))


class ChannelsForm(ChannelSlots):
    """A view of one value: for each of the model's channels a `LayerChannel`, or None for a gap.

    Parameters
    ----------
    asks_axis
        Ask whether the first axis of a stack is channels: `first_axis_named` must be answered.
    """

    first_axis_named = Signal(str, bool)
    """The user says of a layer, by its key, whether its first axis is channels."""

    def __init__(self, parent: QWidget | None = None, *, asks_axis: bool = False) -> None:
        super().__init__(parent)
        self._asks_axis = asks_axis
        self._inputs: InputChannels | None = None
        self._rows = QWidget()
        self._rows_layout = form_rows(parent=self._rows, spacing=2, indent=INDENT)
        self.first_axis = QCheckBox(FIRST_AXIS)
        self.first_axis.setToolTip("Use entries of the layer as channels, not each as an image")
        self.first_axis.clicked.connect(self._on_first_axis)
        inside = QWidget()
        vbox(self._rows, self.first_axis, parent=inside, spacing=2)
        self._fold = CollapsibleSection("Channels", inside)
        self._remark = text_label("warning")
        self.details = QWidget()
        vbox(self._fold, self._remark, parent=self.details, spacing=2)
        self._show()

    def set_value(self, value: Sequence[LayerChannel | None]) -> None:
        """Choose by hand: one entry for each of the model's channels."""
        if self._inputs is None or len(value) != len(self._inputs.names):
            raise ValueError("A choice has one entry for each of the model's channels.")
        super().set_value(value)

    def follow(self, layer: str) -> bool:
        """Choose the image that a layer makes, without a signal; whether there is one.

        Layers named as the model's channels are one image; otherwise the layer is one by itself.
        """
        found = [feed for feed in self._feeds if layer in {each.layer for each in feed.sources}]
        # A remark on several layers says that their order was guessed.
        found.sort(
            key=lambda feed: bool(feed.remark) and any(layer != each.layer for each in feed.sources)
        )
        if not found:
            return False
        self._by_hand = False
        self._choose(found[0].sources)
        self._show()
        return True

    def set_inputs(self, inputs: InputChannels | None) -> None:
        """Choose for another model; if there are several images, the one in use stays."""
        before, used = self._value, next((each.layer for each in self._value if each), None)
        self._inputs, self._by_hand, self._value = inputs, False, ()
        self._make_slots()
        self._fill(used, before)
        self._fold.set_open(inputs is not None and len(inputs.names) > 1 and not inputs.is_rgb)

    def problem(self) -> str | None:
        """What is wrong with the choice, one sentence; None if nothing is."""
        if self._inputs is None:
            return CHOOSE_MODEL
        return mapping_problem(self._value, self._layers, self._inputs)

    def _fill(self, preferred: str | None, wanted: LayerChannels = ()) -> None:
        if self._inputs is None:
            self._refill([], ())
            return
        found = channel_mappings(self._layers, self._inputs, preferred)
        gaps = match_slots(self._layers, self._inputs)
        self._refill(found, found[0].sources if found else gaps, wanted)

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
        if len(self._slots) < 2 or not self._layers:
            return False
        lone = self._layers[0] if len(self._layers) == 1 else None
        is_picture = lone is not None and (lone.rgb or len(self._sources) == 1)
        return not (is_picture and self._inputs is not None and self._inputs.is_rgb)

    def _on_first_axis(self, on: bool) -> None:
        if (stack := self._stack()) is not None:
            self.first_axis_named.emit(stack.key, on)

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
        super()._show()
        stack = self._stack()
        self.first_axis.setVisible(stack is not None)
        if stack is not None:
            self.first_axis.setChecked(stack.channels_first)
        self._fold.setVisible(self._has_choice() or stack is not None)
        feed = self._feed()
        text = "" if feed is None else feed.remark
        if not text and not self.problem():
            text = mapping_remark([each for each in self._value if each is not None], self._layers)
        self._remark.setText(text)
        self._remark.setVisible(bool(text))


class TrainChannels(ChannelSlots):
    """A view of one value: a `NamedChannel` for each channel, in order.

    Unlike in the Segment tab, the user decides how many channels there are and names them.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._names: list[QLineEdit] = []
        self._removes: list[QToolButton] = []
        self._rows = QWidget()
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self._add = Button("Add a channel")
        self._add.clicked.connect(self._on_add)
        inside = vbox(self._grid, self._add, parent=self._rows, indent=INDENT)
        inside.setAlignment(self._add, Qt.AlignmentFlag.AlignLeft)
        self.details = CollapsibleSection("Channels", self._rows)
        self._show()

    def problem(self) -> str | None:
        """What is wrong with the choice, one sentence; None if nothing is."""
        return channels_problem(self._value, self._layers)

    def _fill(self, preferred: str | None) -> None:
        found = whole_image_mappings(self._layers, preferred)
        self._refill(found, found[0].sources if found else ())

    def _chosen(self) -> LayerChannels:
        return tuple(each.source for each in self._value)

    def _choose(self, sources: LayerChannels) -> None:
        complete = [source for source in sources if source is not None]
        self._value = named_channels(complete, self._layers)

    def _on_slot(self) -> None:
        pairs = zip(self._value, self._in_slots(), strict=True)
        self.set_value([NamedChannel(each.name, source) for each, source in pairs])

    def _on_name(self) -> None:
        pairs = zip(self._names, self._value, strict=True)
        self._value = tuple(NamedChannel(field.text(), each.source) for field, each in pairs)
        self._by_hand = True
        self.changed.emit()

    def _on_add(self) -> None:
        taken = self._chosen()
        source = next((source for _, source in self._sources if source not in taken), None)
        if source is None:
            added = NamedChannel(f"channel {len(self._value)}", None)
        else:
            (added,) = named_channels([source], self._layers)
        self.set_value((*self._value, added))

    def _on_remove(self, number: int) -> None:
        self.set_value([each for at, each in enumerate(self._value) if at != number])

    def _make_slots(self) -> None:
        """Adapt the number of rows; rows that stay keep the focus."""
        while len(self._slots) > len(self._value):
            for row in (self._names, self._slots, self._removes):
                widget = row.pop()
                self._grid.removeWidget(widget)
                widget.hide()
                widget.deleteLater()  # not at once: it may be the one that was pressed
        while len(self._slots) < len(self._value):
            row = len(self._slots)
            name, slot = QLineEdit(), ComboBox()
            remove = remove_button("Remove this channel")
            name.setToolTip("What the model will call this channel")
            name.setMaximumWidth(110)
            name.textEdited.connect(self._on_name)
            slot.activated.connect(self._on_slot)
            remove.clicked.connect(lambda _=False, row=row: self._on_remove(row))
            for place, widget in enumerate((name, slot, remove)):
                self._grid.addWidget(widget, row, place)
            self._names.append(name)
            self._slots.append(slot)
            self._removes.append(remove)

    def _show(self) -> None:
        self._make_slots()
        super()._show()
        for field, each in zip(self._names, self._value, strict=True):
            if field.text() != each.name:
                field.setText(each.name)
        self.details.setVisible(bool(self._layers))
        shown = ", ".join(each.name for each in self._value)
        count = pluralize(len(self._value), "channel")
        self.details.set_title(f"{count}: {shown}" if len(shown) <= 28 else count)
