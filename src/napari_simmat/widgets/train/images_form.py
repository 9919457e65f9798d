"""Images to train on, from open layers: the channels of each, and its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari import Viewer
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from napari_simmat.widgets.channels_form import ChannelsForm
from napari_simmat.widgets.controls import Button, LayerChoice
from napari_simmat.widgets.feeds import LayerInfo, Source
from napari_simmat.widgets.inputs import describe, describe_labels, key_of, labelled_of
from napari_simmat.widgets.segment.outputs import PREVIEW
from napari_simmat.widgets.train import feeds as train_feeds
from napari_simmat.widgets.train.channels import TrainChannels
from napari_simmat.widgets.train.data import LabelledValue, pixel_ratio_of
from napari_simmat.widgets.train.feeds import NamedSource


@dataclass(frozen=True)
class Labelled:
    """One image and its labels.

    Parameters
    ----------
    channels
        The image.
    labels
        Key of the labels layer; None while there is none.
    """

    channels: tuple[NamedSource, ...]
    labels: str | None


class ImagesForm(QWidget):
    """A view of one value: a `Labelled` for each image; all have the channels of the first."""

    changed = Signal()

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: list[LayerInfo] = []
        self._names: tuple[str, ...] = ()
        self.channels = TrainChannels()
        self.labels = _labels_choice(viewer)
        self.more: list[_Further] = []
        self.add = Button("Another image", tip="Train on one more image with its labels")
        self._labels_by_hand = False
        first = QFormLayout()
        first.setVerticalSpacing(4)
        first.addRow("Image", self.channels)
        first.addRow(self.channels.details)
        first.addRow("Labels", self.labels)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self._layout.addLayout(first)
        self._layout.addWidget(self.add, alignment=Qt.AlignmentFlag.AlignLeft)
        self.channels.changed.connect(self._on_channels)
        self.labels.chosen.connect(self._on_labels)
        self.add.clicked.connect(self._on_add)

    def value(self) -> tuple[Labelled, ...]:
        """What is chosen."""
        first = Labelled(self.channels.value(), _key(self.labels.value()))
        return (first, *(each.value(self._names) for each in self.more))

    def set_value(self, value: Sequence[Labelled]) -> None:
        """Choose, as by hand."""
        self._labels_by_hand = True
        self.channels.set_value(value[0].channels)
        self.labels.set_value(self._layer(value[0].labels))
        while len(self.more) > len(value) - 1:
            self._remove(self.more[-1])
        while len(self.more) < len(value) - 1:
            self._on_add()
        for further, each in zip(self.more, value[1:], strict=True):
            further.channels.set_value([channel.source for channel in each.channels])
            further.labels.set_value(self._layer(each.labels))
        self.changed.emit()

    def images(self) -> list[LabelledValue]:
        """The chosen layers as arrays; only where there is no `problem`."""
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        return [
            labelled_of(each.channels, self._layer(each.labels), layers) for each in self.value()
        ]

    def set_layers(self, layers: Sequence[Image], preferred: str | None = None) -> None:
        """Choose among the open image layers; a choice that is still right is kept."""
        self._layers = [describe(layer) for layer in layers]
        self.channels.set_layers(self._layers, preferred)
        for further in self.more:
            further.channels.set_layers(self._layers)
        self._find_labels()
        self.changed.emit()

    def problem(self) -> str | None:
        """What is wrong with the choice, in one sentence; None if nothing is."""
        if found := self.channels.problem():
            return found
        used: set[str] = set()
        for number, each in enumerate(self.value()):
            if number and (found := self.more[number - 1].channels.problem()):
                return found
            sources = [channel.source for channel in each.channels if channel.source is not None]
            layer = self._layer(each.labels)
            info = None if layer is None else describe_labels(layer)
            if found := train_feeds.labels_problem(info, sources, self._layers):
                return found
            if each.labels in used:
                return (
                    f"{layer.name} is chosen as the labels of two images: choose another one, or "
                    "take the second image away."
                )
            used.add(str(each.labels))
        try:
            pixel_ratio_of(self.images())
        except (ValueError, TypeError) as error:
            return str(error)
        return None

    def release(self) -> None:
        """Stop following the viewer's layers."""
        for choice in (self.labels, *(further.labels for further in self.more)):
            choice.release()

    def _layer(self, key: str | None) -> Labels | None:
        return next((layer for layer in self._viewer.layers if key_of(layer) == key), None)

    def _on_channels(self) -> None:
        channels = self.channels.value()
        names = tuple(each.name for each in channels)
        if names != self._names:
            self._names = names
            for further in self.more:
                self._give_model(further)
        self._find_labels()
        self.changed.emit()

    def _on_labels(self) -> None:
        self._labels_by_hand = True
        self.changed.emit()

    def _on_add(self) -> None:
        further = _Further(self._viewer)
        further.channels.changed.connect(self.changed)
        further.labels.chosen.connect(self.changed)
        further.removed.connect(self._remove)
        self.more.append(further)
        self._layout.insertWidget(len(self.more), further)
        self._give_model(further)
        free = self._unused_labels()
        for layer in free:
            if self._suit(layer, further):
                break
        self.changed.emit()

    def _remove(self, further: _Further) -> None:
        self.more.remove(further)
        further.labels.release()
        self._layout.removeWidget(further)
        further.deleteLater()
        self.changed.emit()

    def _give_model(self, further: _Further) -> None:
        if self.channels.problem() is None:
            further.channels.set_inputs(train_feeds.inputs_of(self.channels.value()))
            further.channels.set_layers(self._layers)

    def _suit(self, labels: Labels, further: _Further) -> bool:
        """Choose labels, and layers of their size that no other image uses; whether there are."""
        used = {each.source for each in self.channels.value()}
        for other in self.more:
            if other is not further:
                used |= set(other.channels.value())
        info = describe_labels(labels)
        rest = [
            layer
            for layer in self._layers
            if not any(source is not None and source.layer == layer.key for source in used)
        ]
        for feed in train_feeds.whole_images(rest):
            fits = train_feeds.labels_problem(info, feed.sources, self._layers) is None
            if fits and len(feed.sources) == len(self._names):
                further.channels.set_layers(rest)
                ordered = further.channels.value()
                same = {each for each in ordered if each} == set(feed.sources)
                further.channels.set_layers(self._layers)
                further.channels.set_value(ordered if same else feed.sources)
                further.labels.set_value(labels)
                return True
        return False

    def _find_labels(self) -> None:
        """Choose labels that lie on the image, unless those that are chosen do, or were by hand."""
        if self.channels.problem() is not None:
            return
        sources = [each.source for each in self.channels.value() if each.source is not None]

        def suits(layer: Labels) -> bool:
            found = train_feeds.labels_problem(describe_labels(layer), sources, self._layers)
            return found is None

        chosen = self.labels.value()
        if chosen is not None and (self._labels_by_hand or suits(chosen)):
            return
        for layer in filter(suits, self._unused_labels()):
            self.labels.set_value(layer)
            return

    def _unused_labels(self) -> list[Labels]:
        """The topmost first, none that another image has."""
        used = [choice.labels.value() for choice in (self, *self.more)]
        return [
            layer
            for layer in reversed(self._viewer.layers)
            if isinstance(layer, Labels) and layer.name != PREVIEW and layer not in used
        ]


class _Further(QWidget):
    """One more image: chosen as for a model that has the channels of the first."""

    removed = Signal(object)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.channels = ChannelsForm()
        self.labels = _labels_choice(viewer)
        remove = QToolButton()
        remove.setText("\N{MULTIPLICATION SIGN}")
        remove.setToolTip("Take this image away")
        remove.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        remove.clicked.connect(lambda: self.removed.emit(self))
        self.remove = remove
        form = QFormLayout(self)
        form.setContentsMargins(0, 6, 0, 0)
        form.setVerticalSpacing(4)
        head = QLabel("And")
        form.addRow(head, remove)
        form.addRow("Image", self.channels)
        form.addRow(self.channels.details)
        form.addRow("Labels", self.labels)

    def value(self, names: Sequence[str]) -> Labelled:
        """The choice, with the channels' names of the first image."""
        sources: Sequence[Source | None] = self.channels.value()
        padded = [*sources, *[None] * (len(names) - len(sources))]
        channels = zip(names, padded[: len(names)], strict=True)
        return Labelled(
            tuple(NamedSource(name, source) for name, source in channels),
            _key(self.labels.value()),
        )


def _labels_choice(viewer: Viewer) -> LayerChoice:
    choice = LayerChoice(viewer, Labels, "choose", lambda layer: layer.name == PREVIEW)
    choice.setToolTip("The objects to learn: a labels layer, each object with its number")
    return choice


def _key(layer: Labels | None) -> str | None:
    return None if layer is None else key_of(layer)
