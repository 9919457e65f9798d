"""What is trained and how: name, base, source of the images, strategy and the few settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_simmat.engine.checkpoints.zoo import ModelEntry
from napari_simmat.learn.train_config import EMBEDDED, TrainConfig
from napari_simmat.model.spec import STRATEGY_TITLES, StrategyName
from napari_simmat.widgets.controls import Choice, Fold
from napari_simmat.widgets.model_picker import ModelPicker
from napari_simmat.widgets.pixel_shape import PixelShape
from napari_simmat.widgets.train import runs
from napari_simmat.widgets.train.request import TrainRequest, with_settings

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
        self.source = Choice()
        self.source.addItems(["open layers", "a folder"])
        self.folder = FolderField()
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("all")
        self.channels.setToolTip("Names or numbers from 0, with commas between, in their order")
        self.pixels = PixelShape()
        self.strategy = Choice()
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
        form.addRow(Fold("More settings", more))
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
        return str(EMBEDDED["strategy"]) if self._embedded else TrainConfig.strategy

    def _good_rate(self) -> float:
        if self._embedded:
            return float(EMBEDDED["learning_rate"])
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
