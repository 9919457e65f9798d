"""The settings of a training run: base, images, and the options of `TrainConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from napari import Viewer
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QWidget

from napari_simmat.annotation.channel_choice import (
    LayerInfo,
    Sources,
    channel_mappings,
    labels_problem,
)
from napari_simmat.checkpoints.registry import ModelEntry
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.io.captures import names_captures
from napari_simmat.models.spec import STRATEGY_TITLES, InputChannels
from napari_simmat.training.config import EMBEDDED_SETTINGS, TrainConfig
from napari_simmat.widgets.capture_offer import CaptureOffer
from napari_simmat.widgets.channels_form import ChannelsForm
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
from napari_simmat.widgets.forms import Options, PathField, PixelShape
from napari_simmat.widgets.layer_choice import LayerChoice
from napari_simmat.widgets.layer_data import layer_info, layer_key
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.segment.layers.outputs import CHOSEN, PREVIEW
from napari_simmat.widgets.train.request import TrainRequest
from napari_simmat.widgets.train.training_layers import labeled_layers, pixel_ratio_of
from napari_simmat.widgets.train.window_run import name_problem

OPEN_LAYERS, A_FOLDER = SOURCES = ("open layers", "a folder")
LABELS_TIP = "The objects to learn: a labels layer with a number for each object"
LABELS_TWICE = (
    "{} is chosen as the labels of two images: choose another one, or remove the second image."
)
IS_MODALITY = "{} is a modality checkpoint: train on its base{}, instead."
NO_FOLDER = "There is no folder {}; check its name."
CHOOSE_FOLDER = "Choose a folder of images with labels, or drop it here."
_FULL_RATE = 3e-5
"""Best learning rate for full fine-tuning of SAM (arXiv 2409.08083, Fig. 5a); `TrainConfig` has
that of the other strategies."""


class TrainForm(QWidget):
    """A view of one value: a `TrainRequest`.

    Parameters
    ----------
    images
        The form of images from open layers, shown where they are the source.
    """

    changed = Signal()

    def __init__(self, images: QWidget) -> None:
        super().__init__()
        self._rate_by_hand = self._strategy_by_hand = False
        self._request = TrainRequest()
        self.base = ModelPicker(lambda entry: entry.is_base)
        self.source = ComboBox()
        self.source.addItems(SOURCES)
        self.folder = PathField(
            "folder",
            "Images with labels",
            "Images with labels: STEM.tif and STEM_labels.tif, or images/ and labels/; or a "
            "pattern of captures with a file for each band, {capture}_{band}.tif",
        )
        self.captures = CaptureOffer(self.folder)
        self.pixels = PixelShape()
        self.texts = Options(self._request, self)
        self.options = Options(self._request.config, self)
        self.strategy_text = text_label("muted")
        for row, title in enumerate(STRATEGY_TITLES.values()):
            self.options["strategy"].setItemData(row, title, Qt.ItemDataRole.ToolTipRole)
        self.name = self.texts["name"]
        self.texts["channels"].setPlaceholderText("all")
        self.texts["modality"].setPlaceholderText("as the name")
        self._layer_rows = images
        self._lay_out()
        self.set_value(self._request)
        self._connect()

    def value(self) -> TrainRequest:
        """The request; ValueError if settings contradict each other."""
        request: TrainRequest = self.texts.value()
        config: TrainConfig = self.options.value()
        in_folder = self.uses_folder
        return replace(
            request,
            base=str(self.base.reference()),
            folder=self.folder.value() if in_folder else "",
            channels=request.channels if in_folder else "",
            pixel_ratio=self.pixels.value() if in_folder else 1.0,
            config=replace(config, complete=config.complete and self._embedded),
        )

    def set_value(self, request: TrainRequest) -> None:
        """Show a request; ValueError if its base does not exist."""
        path = Path(request.base).expanduser()
        self.base.set_value(path if path.is_file() else request.base)
        config = request.config
        self.source.setCurrentIndex(1 if request.folder else 0)
        self.folder.set_value(request.folder)
        self.pixels.set_value(request.pixel_ratio if request.folder else 1.0)
        self.texts.set_value(request)
        self.options.set_value(config, steps=config.steps or config.epochs)
        self._strategy_by_hand = config.strategy != self._good_strategy()
        self._rate_by_hand = config.learning_rate != self._good_rate(config.strategy)
        self._show()
        self.changed.emit()

    def problem(self) -> str | None:
        """What is wrong with the request itself, one sentence; None if nothing is."""
        entry: ModelEntry | None = self.base.value()
        if problem := self.base.problem():
            return problem
        if entry is not None and not entry.is_base:
            base = "" if entry.spec is None else f", {entry.spec.base.name}"
            return IS_MODALITY.format(entry.name, base)
        if self.uses_folder:
            folder = self.folder.value()
            if not folder:
                return CHOOSE_FOLDER
            path = Path(folder).expanduser()
            if not path.is_dir() and not names_captures(path):
                return NO_FOLDER.format(folder)
        try:
            return name_problem(self.value().name)
        except ValueError as error:
            return str(error)

    @property
    def uses_folder(self) -> bool:
        """Whether the images come from a folder."""
        return self.source.currentText() == A_FOLDER

    def choose_folder(self, path: str) -> None:
        """Train on this folder."""
        self.source.setCurrentText(A_FOLDER)
        self.folder.set_value(path)
        self._on_changed()

    def _lay_out(self) -> None:
        self._folder_rows = QWidget()
        rows = form_rows(("Folder", self.folder), ("", self.captures), parent=self._folder_rows)
        self.texts.add_rows(rows, "channels")
        rows.addRow(self.pixels)
        form = form_rows(
            ("Base", self.base),
            self.base.details,
            ("Images", self.source),
            self._layer_rows,
            self._folder_rows,
            parent=self,
            spacing=6,
        )
        self.options.add_rows(form, "strategy")
        form.addRow(self.strategy_text)
        self.options.add_rows(form, "steps")
        self.texts.add_rows(form, "name")
        more = QWidget()
        rows = form_rows(parent=more, indent=INDENT)
        self.texts.add_rows(rows, "modality")
        self.options.add_rows(rows, "learning_rate", "batch", "drop_channels", "seed", "complete")
        self._more = rows
        form.addRow(CollapsibleSection("More settings", more))

    def _connect(self) -> None:
        self.base.changed.connect(self._on_changed)
        self.source.activated.connect(self._on_changed)
        self.folder.changed.connect(self.changed)
        self.pixels.changed.connect(self.changed)
        self.texts.changed.connect(lambda _: self.changed.emit())
        self.options.changed.connect(self._on_option)

    def _on_option(self, name: str) -> None:
        self._strategy_by_hand = self._strategy_by_hand or name == "strategy"
        self._rate_by_hand = self._rate_by_hand or name == "learning_rate"
        self._on_changed()

    def _on_changed(self) -> None:
        # Strategy and learning rate follow the base until they are set by hand.
        if not self._strategy_by_hand:
            self.options.show(strategy=self._good_strategy())
        if not self._rate_by_hand:
            self.options.show(learning_rate=self._good_rate(self.options.shown("strategy")))
        self._show()
        self.changed.emit()

    @property
    def _embedded(self) -> bool:
        entry = self.base.value()
        return entry is None or entry.spec is None or entry.spec.base.embedded

    def _good_strategy(self) -> str:
        return str(EMBEDDED_SETTINGS["strategy"]) if self._embedded else TrainConfig.strategy

    def _good_rate(self, strategy: str) -> float:
        if self._embedded:
            return float(EMBEDDED_SETTINGS["learning_rate"])
        return _FULL_RATE if strategy == "full" else TrainConfig.learning_rate

    def _show(self) -> None:
        title = STRATEGY_TITLES[self.options.shown("strategy")]
        self.strategy_text.setText(f"{title[0].upper()}{title[1:]}.")
        self._more.setRowVisible(self.options["complete"], self._embedded)
        self._folder_rows.setVisible(self.uses_folder)
        self._layer_rows.setVisible(not self.uses_folder)


class LabeledLayers(NamedTuple):
    """One image and its labels."""

    names: tuple[str, ...]
    sources: Sources
    """The channels of the image."""
    labels: str | None
    """Key of the labels layer, or None."""


class ImageForm(QWidget):
    """The channels and the labels of one image.

    Those after the first are chosen as for a model that reads the channels of the first.
    """

    removed = Signal(object)

    def __init__(self, viewer: Viewer, *, is_first: bool = False) -> None:
        super().__init__()
        self.channels = ChannelsForm(named=is_first)
        self.labels = LayerChoice(
            viewer, Labels, "choose", lambda layer: layer.name in (PREVIEW, CHOSEN)
        )
        self.labels.setToolTip(LABELS_TIP)
        details = self.channels.details
        form = form_rows(("Image", self.channels), details, ("Labels", self.labels), parent=self)
        if not is_first:
            self.title, self.remove = QLabel(), remove_button("Remove this image")
            self.remove.clicked.connect(lambda: self.removed.emit(self))
            form.insertRow(0, self.title, self.remove)

    def value(self, names: tuple[str, ...]) -> LabeledLayers:
        """The choice, with one source for each name."""
        sources, labels = self.channels.value(), self.labels.value()
        padded = (*sources, *[None] * (len(names) - len(sources)))[: len(names)]
        return LabeledLayers(names, padded, None if labels is None else layer_key(labels))


class ImagesForm(QWidget):
    """A view of one value: a `LabeledLayers` for each image; all have the first one's channels."""

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layers: list[LayerInfo] = []
        self._names: tuple[str, ...] = ()
        self._labels_by_hand = False
        self.first = ImageForm(viewer, is_first=True)
        self.channels, self.labels = self.first.channels, self.first.labels
        self.more: list[ImageForm] = []
        self.add = Button("Another image", tip="Train on one more image with its labels")
        self._layout = vbox(self.first, self.add, parent=self)
        self._layout.setAlignment(self.add, Qt.AlignmentFlag.AlignLeft)
        self.channels.changed.connect(self._on_channels)
        self.labels.chosen.connect(self._on_labels)
        self.add.clicked.connect(self._on_add)

    @property
    def forms(self) -> tuple[ImageForm, ...]:
        """The form of each image."""
        return self.first, *self.more

    def value(self) -> tuple[LabeledLayers, ...]:
        """The images."""
        names = self.channels.names
        return tuple(form.value(names) for form in self.forms)

    def set_value(self, value: Sequence[LabeledLayers]) -> None:
        """Choose by hand."""
        self._labels_by_hand = True
        self.channels.set_value(value[0].sources, value[0].names)
        while len(self.more) > len(value) - 1:
            self._remove(self.more[-1])
        while len(self.more) < len(value) - 1:
            self._on_add()
        for form, each in zip(self.forms, value, strict=True):
            if form is not self.first:
                form.channels.set_value(each.sources)
            form.labels.set_value(self._layer(each.labels))
        self.changed.emit()

    def images(self) -> list[LabeledImage]:
        """The chosen layers as arrays; call it only if there is no `problem`."""
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        return [
            labeled_layers(each.names, each.sources, self._layer(each.labels), layers)
            for each in self.value()
        ]

    def set_layers(self, layers: Sequence[Image], preferred: str | None = None) -> None:
        """Choose among the open image layers; a choice that still fits is kept."""
        self._layers = [layer_info(layer) for layer in layers]
        self.channels.set_layers(self._layers, preferred)
        for form in self.more:
            form.channels.set_layers(self._layers)
        self._find_labels()
        self.changed.emit()

    def problem(self) -> str | None:
        """What is wrong with the choice, one sentence; None if nothing is."""
        used: set[str | None] = set()
        for form, each in zip(self.forms, self.value(), strict=True):
            if problem := form.channels.problem():
                return problem
            sources = [source for source in each.sources if source is not None]
            layer = self._layer(each.labels)
            info = None if layer is None else layer_info(layer)
            if problem := labels_problem(info, sources, self._layers):
                return problem
            if each.labels in used:
                return LABELS_TWICE.format(layer.name)
            used.add(each.labels)
        try:
            pixel_ratio_of(self.images())
        except (ValueError, TypeError) as error:
            return str(error)
        return None

    def release(self) -> None:
        """Stop following the viewer's layers."""
        for form in self.forms:
            form.labels.release()

    def _layer(self, key: str | None) -> Labels | None:
        return next((layer for layer in self._viewer.layers if layer_key(layer) == key), None)

    def _on_channels(self) -> None:
        if self.channels.names != self._names:
            self._names = self.channels.names
            for form in self.more:
                self._give_inputs(form)
        self._find_labels()
        self.changed.emit()

    def _on_labels(self) -> None:
        self._labels_by_hand = True
        self.changed.emit()

    def _on_add(self) -> None:
        form = ImageForm(self._viewer)
        form.channels.changed.connect(self.changed)
        form.labels.chosen.connect(self.changed)
        form.removed.connect(self._remove)
        self.more.append(form)
        self._layout.insertWidget(len(self.more), form)
        self._give_inputs(form)
        self._number()
        for layer in self._unused_labels():
            if self._suit(layer, form):
                break
        self.changed.emit()

    def _remove(self, form: ImageForm) -> None:
        self.more.remove(form)
        form.labels.release()
        self._layout.removeWidget(form)
        form.deleteLater()
        self._number()
        self.changed.emit()

    def _number(self) -> None:
        for number, form in enumerate(self.more, start=2):
            form.title.setText(f"Image {number}")

    def _give_inputs(self, form: ImageForm) -> None:
        if self.channels.problem() is None:
            form.channels.set_inputs(InputChannels(names=self._names, reader="the training"))
            form.channels.set_layers(self._layers)

    def _suit(self, labels: Labels, form: ImageForm) -> bool:
        """Choose labels with unused layers that they lie on; whether there are such layers."""
        others = [each.channels.value() for each in self.forms if each is not form]
        used = {source.layer for sources in others for source in sources if source is not None}
        rest = [layer for layer in self._layers if layer.key not in used]
        info = layer_info(labels)
        for mapping in channel_mappings(rest, None):
            fits = labels_problem(info, mapping.sources, self._layers) is None
            if fits and len(mapping.sources) == len(self._names):
                # Among these layers alone the form finds the order of the first image's channels.
                form.channels.set_layers(rest)
                ordered = form.channels.value()
                same = {each for each in ordered if each} == set(mapping.sources)
                form.channels.set_layers(self._layers)
                form.channels.set_value(ordered if same else mapping.sources)
                form.labels.set_value(labels)
                return True
        return False

    def _find_labels(self) -> None:
        """Choose labels that lie on the image, unless the user chose or the present ones fit."""
        if self.channels.problem() is not None:
            return
        sources = [each for each in self.channels.value() if each is not None]

        def suits(layer: Labels) -> bool:
            return labels_problem(layer_info(layer), sources, self._layers) is None

        chosen = self.labels.value()
        if chosen is None or not (self._labels_by_hand or suits(chosen)):
            for layer in filter(suits, self._unused_labels()):
                self.labels.set_value(layer)
                return

    def _unused_labels(self) -> list[Labels]:
        """Labels layers that no image has, the topmost first."""
        used = [form.labels.value() for form in self.forms]
        return [
            layer
            for layer in reversed(self._viewer.layers)
            if isinstance(layer, Labels)
            and layer.name not in (PREVIEW, CHOSEN)
            and layer not in used
        ]
