"""The forms of the Train tab.

What is trained and how: name, base, source of the images, strategy and the few settings.

Images to train on, from open layers: the channels of each, and its labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from napari import Viewer
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_simmat.checkpoints.registry import ModelEntry
from napari_simmat.models.spec import STRATEGY_TITLES, StrategyName
from napari_simmat.training.config import EMBEDDED_SETTINGS, TrainConfig
from napari_simmat.widgets import channel_matching
from napari_simmat.widgets.channel_matching import (
    ChannelsForm,
    LayerChannel,
    LayerInfo,
    NamedChannel,
    TrainChannels,
)
from napari_simmat.widgets.controls import (
    Button,
    CollapsibleSection,
    ComboBox,
    LayerChoice,
    PixelShape,
)
from napari_simmat.widgets.layer_data import (
    LabelledValue,
    labelled_value,
    labels_info,
    layer_info,
    layer_key,
    pixel_ratio_of,
)
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.segment.outputs import PREVIEW
from napari_simmat.widgets.train import runs
from napari_simmat.widgets.train.runs import TrainRequest, with_settings

_RATE, _FULL_RATE = 3e-4, 3e-5
"""Where SAM's strategies and its full fine-tuning are best (arXiv 2409.08083, Fig. 5a)."""
_SCALE = 1e-4
"""Learning rates are shown as multiples of this."""


class TrainForm(QWidget):
    """A view of one value: a `TrainRequest`.

    Parameters
    ----------
    images
        The form of images from open layers, shown where they are the source.
    """

    changed = Signal()

    def __init__(self, images: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._request = TrainRequest()
        self._rate_by_hand = self._strategy_by_hand = False
        self.base = ModelPicker(lambda entry: entry.is_base)
        self.source = ComboBox()
        self.source.addItems(["open layers", "a folder"])
        self.folder = FolderField()
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("all")
        self.channels.setToolTip("Names or numbers from 0, with commas between, in their order")
        self.pixels = PixelShape()
        self.strategy = ComboBox()
        for name in get_args(StrategyName):
            self.strategy.addItem(f"{name}: {STRATEGY_TITLES[name]}", name)
        self.strategy.setToolTip("What is trained beside the transfer layer")
        self.steps = _spin(1, 1_000_000, "More steps take longer; it can be stopped at any time")
        self.name = QLineEdit()
        self.name.setToolTip("What the new model is called in the list of models")
        self.modality = QLineEdit()
        self.modality.setToolTip("What the sensor measures; it stands in the model's description")
        self.rate = QDoubleSpinBox()
        self.rate.setRange(0.001, 9999.0)
        self.rate.setDecimals(3)
        self.rate.setSuffix("e-4")
        self.rate.setToolTip("Adam's; 10e-4 suits tiny, 3e-4 SAM, and 0.3e-4 its full fine-tuning")
        self.batch = _spin(1, 256, "Images for each step; fewer take less memory")
        self.seed = _spin(0, 2**31 - 1, "Fixes everything that is random")
        for field in (self.steps, self.rate, self.batch, self.seed):
            field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            field.setKeyboardTracking(False)
        self._folder_rows = QWidget()
        rows = QFormLayout(self._folder_rows)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addRow("Folder", self.folder)
        rows.addRow("Channels", self.channels)
        rows.addRow(self.pixels)
        self._layer_rows = images
        self._lay_out()
        self.set_value(self._request)
        self._connect()

    def value(self) -> TrainRequest:
        """What is asked for; ValueError if settings do not fit together."""
        in_folder = self.source.currentIndex() == 1
        shown: dict[str, Any] = {
            "strategy": self.strategy.currentData(),
            "steps": self.steps.value(),
            "batch": self.batch.value(),
            "learning_rate": round(self.rate.value() * _SCALE, 9),
            "seed": self.seed.value(),
        }
        return TrainRequest(
            name=self.name.text().strip(),
            base=str(self.base.reference()),
            modality=self.modality.text().strip(),
            folder=self.folder.value() if in_folder else "",
            channels=self.channels.text().strip() if in_folder else "",
            pixel_ratio=self.pixels.value() if in_folder else 1.0,
            config=with_settings(self._request.config, **shown),
        )

    def set_value(self, request: TrainRequest) -> None:
        """Show a request; ValueError if its base is not there."""
        self.base.set_value(_reference(request.base))
        self._request = request
        config = request.config
        self.source.setCurrentIndex(1 if request.folder else 0)
        self.folder.set_value(request.folder)
        self.channels.setText(request.channels)
        self.pixels.set_value(request.pixel_ratio if request.folder else 1.0)
        self.name.setText(request.name)
        self.modality.setText(request.modality)
        self.strategy.setCurrentIndex(self.strategy.findData(config.strategy))
        self.steps.setValue(config.steps or config.epochs)
        self.batch.setValue(config.batch)
        self.rate.setValue(config.learning_rate / _SCALE)
        self.seed.setValue(config.seed)
        self._strategy_by_hand = config.strategy != self._good_strategy()
        self._rate_by_hand = config.learning_rate != self._good_rate()
        self._show()
        self.changed.emit()

    def problem(self) -> str | None:
        """What is wrong with the request itself, in one sentence; None if nothing is."""
        entry: ModelEntry | None = self.base.value()
        if problem := self.base.problem():
            return problem
        if entry is not None and not entry.is_base:
            base = "" if entry.spec is None else f", {entry.spec.base.name}"
            return f"{entry.name} is a modality checkpoint: train on its base{base}, instead."
        if self.uses_folder and (problem := self.folder.problem()):
            return problem
        try:
            request = self.value()
        except ValueError as error:
            return str(error)
        return runs.name_problem(request.name)

    @property
    def uses_folder(self) -> bool:
        """Whether the images come from a folder."""
        return self.source.currentIndex() == 1

    def choose_folder(self, path: str) -> None:
        """Train on this folder."""
        self.source.setCurrentIndex(1)
        self.folder.set_value(path)
        self._show()
        self.changed.emit()

    def release(self) -> None:
        """End the thread of downloads."""
        self.base.release()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setVerticalSpacing(6)
        form.setHorizontalSpacing(8)
        form.addRow("Base", self.base)
        form.addRow(self.base.details)
        form.addRow("Images", self.source)
        form.addRow(self._layer_rows)
        form.addRow(self._folder_rows)
        form.addRow("Train", self.strategy)
        form.addRow("Steps", self.steps)
        form.addRow("Name", self.name)
        more = QWidget()
        rows = QFormLayout(more)
        rows.setContentsMargins(14, 0, 0, 0)
        rows.addRow("Measures", self.modality)
        rows.addRow("Learning rate", self.rate)
        rows.addRow("Batch", self.batch)
        rows.addRow("Seed", self.seed)
        form.addRow(CollapsibleSection("More settings", more))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)

    def _connect(self) -> None:
        self.base.changed.connect(self._on_base)
        self.source.activated.connect(self._on_source)
        self.folder.changed.connect(self.changed)
        self.pixels.changed.connect(self.changed)
        self.strategy.activated.connect(self._on_strategy)
        self.rate.valueChanged.connect(self._on_rate)
        for field in (self.name, self.channels, self.modality):
            field.textChanged.connect(self.changed)
        for spin in (self.steps, self.batch, self.seed):
            spin.valueChanged.connect(self.changed)

    def _on_source(self) -> None:
        self._show()
        self.changed.emit()

    def _on_base(self) -> None:
        if not self._strategy_by_hand:
            self.strategy.setCurrentIndex(self.strategy.findData(self._good_strategy()))
        self._on_kind()

    def _on_strategy(self) -> None:
        self._strategy_by_hand = True
        self._on_kind()

    def _on_kind(self) -> None:
        """Base and strategy decide which learning rate is a good one."""
        if not self._rate_by_hand:
            self.rate.setValue(self._good_rate() / _SCALE)
            self._rate_by_hand = False
        self.changed.emit()

    @property
    def _embedded(self) -> bool:
        entry = self.base.value()
        return entry is None or entry.spec is None or entry.spec.base.embedded

    def _good_strategy(self) -> str:
        return str(EMBEDDED_SETTINGS["strategy"]) if self._embedded else TrainConfig.strategy

    def _good_rate(self) -> float:
        if self._embedded:
            return float(EMBEDDED_SETTINGS["learning_rate"])
        return _FULL_RATE if self.strategy.currentData() == "full" else _RATE

    def _on_rate(self) -> None:
        self._rate_by_hand = True
        self.changed.emit()

    def _show(self) -> None:
        self._folder_rows.setVisible(self.uses_folder)
        self._layer_rows.setVisible(not self.uses_folder)
        self.modality.setPlaceholderText("as the name")


class FolderField(QWidget):
    """A view of one folder's path: typed, browsed for, or dropped here."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.path = QLineEdit()
        self.path.setPlaceholderText("drop a folder here")
        self.path.setToolTip(
            "Images with labels: STEM.tif and STEM_labels.tif, or images/ and labels/"
        )
        self.path.setAcceptDrops(False)  # the whole field takes a folder, as a path
        self.browse = QToolButton()
        self.browse.setText("⋯")
        self.browse.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.browse.setToolTip("Choose the folder")
        self.setAcceptDrops(True)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.path, stretch=1)
        layout.addWidget(self.browse)
        self.path.textChanged.connect(self.changed)
        self.browse.clicked.connect(self._ask)

    def value(self) -> str:
        """The path, as it stands there."""
        return self.path.text().strip()

    def set_value(self, path: str) -> None:
        """Show a path."""
        self.path.setText(path)

    def problem(self) -> str | None:
        """Why it cannot be used, in one sentence; what is in it is looked at later."""
        if not self.value():
            return "Choose a folder of images with labels, or drop it here."
        if not Path(self.value()).expanduser().is_dir():
            return f"There is no folder {self.value()}; check its name."
        return None

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Take one folder."""
        if dropped_folder(event) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Show the folder that was dropped."""
        folder = dropped_folder(event)
        if folder is not None:
            self.set_value(folder)
            event.acceptProposedAction()

    def _ask(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Images with labels", self.value())
        if path:
            self.set_value(path)


def dropped_folder(event: QDropEvent) -> str | None:
    """The one folder that is dragged, if it is one."""
    data = event.mimeData()
    paths = [url.toLocalFile() for url in data.urls()] if data is not None else []
    return paths[0] if len(paths) == 1 and Path(paths[0]).is_dir() else None


def _reference(base: str) -> str | Path:
    path = Path(base).expanduser()
    return path if path.is_file() else base


def _spin(low: int, high: int, tip: str) -> QSpinBox:
    spin = QSpinBox()
    spin.setRange(low, high)
    spin.setToolTip(tip)
    return spin


@dataclass(frozen=True)
class LabelledLayers:
    """One image and its labels.

    Parameters
    ----------
    channels
        The image.
    labels
        Key of the labels layer; None while there is none.
    """

    channels: tuple[NamedChannel, ...]
    labels: str | None


class ImagesForm(QWidget):
    """A view of one value: a `LabelledLayers` for each image; all have the channels of the first."""

    changed = Signal()

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: list[LayerInfo] = []
        self._names: tuple[str, ...] = ()
        self.channels = TrainChannels()
        self.labels = _labels_choice(viewer)
        self.more: list[_AdditionalImage] = []
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

    def value(self) -> tuple[LabelledLayers, ...]:
        """What is chosen."""
        first = LabelledLayers(self.channels.value(), _key(self.labels.value()))
        return (first, *(each.value(self._names) for each in self.more))

    def set_value(self, value: Sequence[LabelledLayers]) -> None:
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
            labelled_value(each.channels, self._layer(each.labels), layers) for each in self.value()
        ]

    def set_layers(self, layers: Sequence[Image], preferred: str | None = None) -> None:
        """Choose among the open image layers; a choice that is still right is kept."""
        self._layers = [layer_info(layer) for layer in layers]
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
            info = None if layer is None else labels_info(layer)
            if found := channel_matching.labels_problem(info, sources, self._layers):
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
        return next((layer for layer in self._viewer.layers if layer_key(layer) == key), None)

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
        further = _AdditionalImage(self._viewer)
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

    def _remove(self, further: _AdditionalImage) -> None:
        self.more.remove(further)
        further.labels.release()
        self._layout.removeWidget(further)
        further.deleteLater()
        self.changed.emit()

    def _give_model(self, further: _AdditionalImage) -> None:
        if self.channels.problem() is None:
            further.channels.set_inputs(channel_matching.inputs_of(self.channels.value()))
            further.channels.set_layers(self._layers)

    def _suit(self, labels: Labels, further: _AdditionalImage) -> bool:
        """Choose labels, and layers of their size that no other image uses; whether there are."""
        used = {each.source for each in self.channels.value()}
        for other in self.more:
            if other is not further:
                used |= set(other.channels.value())
        info = labels_info(labels)
        rest = [
            layer
            for layer in self._layers
            if not any(source is not None and source.layer == layer.key for source in used)
        ]
        for feed in channel_matching.whole_image_mappings(rest):
            fits = channel_matching.labels_problem(info, feed.sources, self._layers) is None
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
            found = channel_matching.labels_problem(labels_info(layer), sources, self._layers)
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


class _AdditionalImage(QWidget):
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

    def value(self, names: Sequence[str]) -> LabelledLayers:
        """The choice, with the channels' names of the first image."""
        sources: Sequence[LayerChannel | None] = self.channels.value()
        padded = [*sources, *[None] * (len(names) - len(sources))]
        channels = zip(names, padded[: len(names)], strict=True)
        return LabelledLayers(
            tuple(NamedChannel(name, source) for name, source in channels),
            _key(self.labels.value()),
        )


def _labels_choice(viewer: Viewer) -> LayerChoice:
    choice = LayerChoice(viewer, Labels, "choose", lambda layer: layer.name == PREVIEW)
    choice.setToolTip("The objects to learn: a labels layer, each object with its number")
    return choice


def _key(layer: Labels | None) -> str | None:
    return None if layer is None else layer_key(layer)
