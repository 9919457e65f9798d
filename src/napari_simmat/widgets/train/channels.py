"""The channels of an image to train on: fill themselves from open layers, can be named."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QLineEdit, QToolButton, QVBoxLayout, QWidget

from napari_simmat.widgets import feeds
from napari_simmat.widgets.controls import Button, Choice, Fold
from napari_simmat.widgets.feeds import LayerInfo, Source
from napari_simmat.widgets.train import feeds as train_feeds
from napari_simmat.widgets.train.feeds import NamedSource
from napari_simmat.words import counted

Value = tuple[NamedSource, ...]


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
        self._feeds: list[feeds.Feed] = []
        self._sources: list[tuple[str, Source]] = []
        self._value: Value = ()
        self._by_hand = False
        self._image = Choice()
        self._image.setToolTip("The image: one layer, or layers that are its channels")
        self._image.activated.connect(self._on_feed)
        self._names: list[QLineEdit] = []
        self._slots: list[Choice] = []
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
        self.details = Fold("Channels", self._rows)
        self._show()

    def value(self) -> Value:
        """The channels."""
        return self._value

    def set_value(self, value: Sequence[NamedSource]) -> None:
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
        self._feeds = train_feeds.whole_images(self._layers, preferred)
        self._sources = feeds.all_sources(self._layers)
        before = self._value
        known = {layer.key for layer in layers}
        there = all(each.source is None or each.source.layer in known for each in before)
        if not before or not there or (self.problem() and not self._by_hand):
            self._by_hand = False
            first = self._feeds[0].sources if self._feeds else ()
            self._value = train_feeds.named(first, self._layers)
        self._show()
        if self._value != before or self.problem():
            self.changed.emit()

    def problem(self) -> str | None:
        """What is wrong with the choice, in one sentence; None if nothing is."""
        return train_feeds.channels_problem(self._value, self._layers)

    def _on_feed(self, index: int) -> None:
        if index < len(self._feeds):
            self.set_value(train_feeds.named(self._feeds[index].sources, self._layers))

    def _on_slot(self) -> None:
        chosen = [slot.currentIndex() for slot in self._slots]
        sources = [None if index < 1 else self._sources[index - 1][1] for index in chosen]
        self.set_value([NamedSource(e.name, s) for e, s in zip(self._value, sources, strict=True)])

    def _on_name(self) -> None:
        names = [field.text() for field in self._names]
        self._value = tuple(
            NamedSource(name, each.source) for name, each in zip(names, self._value, strict=True)
        )
        self._by_hand = True
        self.changed.emit()

    def _on_add(self) -> None:
        taken = {each.source for each in self._value}
        free = [source for _, source in self._sources if source not in taken]
        source = free[0] if free else None
        if source is None:
            self.set_value((*self._value, NamedSource(f"channel {len(self._value)}", None)))
            return
        name = train_feeds.named([source], self._layers)[0].name
        self.set_value((*self._value, NamedSource(name, source)))

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
            name, slot, remove = QLineEdit(), Choice(), QToolButton()
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
        count = counted(len(self._value), "channel")
        self.details.set_title(f"{count}: {shown}" if len(shown) <= 28 else count)
