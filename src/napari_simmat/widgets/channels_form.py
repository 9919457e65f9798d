"""Which layers feed the model: fills itself, can be changed, says what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QVBoxLayout, QWidget

from napari_simmat.model.spec import InputChannels
from napari_simmat.widgets import feeds
from napari_simmat.widgets.controls import Choice, Fold
from napari_simmat.widgets.feeds import LayerInfo, Source

Value = tuple[Source | None, ...]


class ChannelsForm(QWidget):
    """A view of one value: for each of the model's channels a `Source`, or None for a gap.

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
        self._feeds: list[feeds.Feed] = []
        self._sources: list[tuple[str, Source]] = []
        self._value: Value = ()
        self._by_hand = False
        self._image = Choice()
        self._image.setToolTip("The image: one layer, or layers that are its channels")
        self._image.activated.connect(self._on_feed)
        self._slots: list[Choice] = []
        self._rows = QWidget()
        self._rows_layout = QFormLayout(self._rows)
        self._rows_layout.setContentsMargins(14, 0, 0, 0)
        self._rows_layout.setVerticalSpacing(2)
        self._fold = Fold("Channels", self._rows)
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

    def value(self) -> Value:
        """The choice, one entry for each of the model's channels."""
        return self._value

    def set_value(self, value: Sequence[Source | None]) -> None:
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
        return feeds.problem(self._value, self._layers, self._inputs)

    def _refill(self, preferred: str | None, wanted: Value = ()) -> None:
        """Fill what is not right any more: with `wanted` if that is offered, else with the best."""
        inputs = self._inputs
        before = self._value
        self._feeds = [] if inputs is None else feeds.feeds(self._layers, inputs, preferred)
        self._sources = feeds.all_sources(self._layers)
        if inputs is not None and not (before and self._still_right(inputs)):
            self._by_hand = False
            offered = [feed.sources for feed in self._feeds]
            best = offered[0] if offered else feeds.match_slots(self._layers, inputs)
            self._value = wanted if wanted in offered else best
        self._show()
        if self._value != before or self.problem():
            self.changed.emit()

    def _still_right(self, inputs: InputChannels) -> bool:
        """Whether the choice stays: right as it is, or still being made by hand."""
        open_layers = {layer.key for layer in self._layers}
        there = all(each is None or each.layer in open_layers for each in self._value)
        right = feeds.problem(self._value, self._layers, inputs) is None
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
            slot = Choice()
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
            text = feeds.remark(complete, self._layers)
        self._remark.setText(text)
        self._remark.setVisible(bool(text))
