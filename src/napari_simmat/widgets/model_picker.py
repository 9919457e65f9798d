"""The list of models by what they are for, and a summary; downloads models and opens files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import QModelIndex, Qt, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QMenu,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QToolButton,
    QWidget,
)

from napari_simmat.checkpoints import library, registry, sam_weights
from napari_simmat.checkpoints.catalog import IMAGE_KINDS, OTHER_SENSORS, catalog_words, image_kind
from napari_simmat.checkpoints.registry import ModelEntry
from napari_simmat.io.files import format_size
from napari_simmat.models.spec import STRATEGY_TITLES, ModelSpec
from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import Button, ComboBox, hbox, text_label, thin_bar, vbox
from napari_simmat.widgets.tones import set_tone
from napari_simmat.widgets.torch_import import import_torch_job
from napari_simmat.widgets.worker import BackgroundJob, Worker, sentence

NOT_DOWNLOADED = "{name} is not downloaded yet: download it, or choose another model."
OWN_MODELS = "Your own"
GROUPS = (*IMAGE_KINDS.values(), OTHER_SENSORS, OWN_MODELS)
"""Headings of the list, in order."""
_FILES = "Models (*.safetensors *.pth *.pt);;All files (*)"


class ModelPicker(QWidget):
    """A view of one value: the `ModelEntry` in use.

    Downloads and imports run in their own thread, so that predictions continue meanwhile.

    Parameters
    ----------
    listed
        Which models the list offers; opened files are always listed.

    Attributes
    ----------
    choice, more
        The list of models, and the menu beside it.
    card, fetch_button, bar, cancel_button
        Summary of the chosen model, and the controls of a download.
    details
        All of these, to be laid out below the list.
    """

    changed = Signal()

    def __init__(self, listed: Callable[[ModelEntry], bool] = lambda _: True) -> None:
        super().__init__()
        self._listed = listed
        self._entries: list[ModelEntry] = []
        self._opened: list[ModelEntry] = []
        self.transfers = Worker("simmat-transfer")
        self._job = BackgroundJob(self.transfers, parent=self)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_returned)
        self._job.failed.connect(self._on_failed)
        self.choice = ComboBox()
        self.choice.setMinimumContentsLength(6)  # beside it are a label and a menu
        self.choice.setToolTip("The model: built in, downloaded, available for download, or a file")
        self.choice.activated.connect(self._on_activated)
        self.choice.setItemDelegate(_Headings(self.choice))
        self.more = QToolButton()
        self.more.setText("⋯")
        self.more.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.more.setFixedWidth(28)
        self.more.setToolTip("Open a model file, add one to your models, reload the list")
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        menu = QMenu(self.more)
        menu.addAction("Open a model file...", self._ask_open)
        menu.addAction("Add a file to my models...", self._ask_import)
        menu.addAction("Reload the list", self.refresh)
        self.more.setMenu(menu)
        self.card = text_label()
        self.fetch_button = Button("Download")
        self.fetch_button.clicked.connect(self._on_fetch)
        self.bar = thin_bar()
        self.cancel_button = Button("Cancel")
        self.cancel_button.clicked.connect(self.cancel)

        vbox(hbox((self.choice, 1), self.more), parent=self)
        self.details = QWidget()
        transfer = hbox(self.fetch_button, (self.bar, 1), self.cancel_button)
        vbox(self.card, transfer, parent=self.details, spacing=3)
        self.refresh()

    def value(self) -> ModelEntry | None:
        """The chosen model, even if it is unusable."""
        number = self.choice.currentData()
        return None if number is None else self._entries[number]

    def set_value(self, name: str | Path) -> None:
        """Choose by name, with or without version, or by file; ValueError if there is none."""
        entry = registry.find_model(name)
        if entry.name not in [each.name for each in self._entries] or isinstance(name, Path):
            self._opened = [each for each in self._opened if each.path != entry.path] + [entry]
            self.refresh()
        self._choose(entry)
        self._on_activated()

    @property
    def is_embedded(self) -> bool:
        """Whether the embedded model is chosen, which works at once on any image."""
        return self.choice.currentData() == self._embedded()

    @property
    def is_missing(self) -> bool:
        """Whether the chosen model is known, but is still to be downloaded."""
        entry = self.value()
        return entry is not None and not entry.problem and entry.kind == "downloadable"

    def choose_embedded(self) -> None:
        """Choose the embedded model, as the user would."""
        self._choose(None)
        self._on_activated()

    def reference(self) -> str | Path:
        """What to load: the name, or the path of an opened file."""
        entry = self.value()
        if entry is None:
            return ""
        return entry.path if entry in self._opened and entry.path is not None else entry.name

    def problem(self) -> str | None:
        """Why the chosen model cannot be used, one sentence; None if it can."""
        entry = self.value()
        if entry is None:
            return "There is no model: open a file with the button next to the list."
        if entry.problem:
            return entry.problem
        if self.is_missing:
            return NOT_DOWNLOADED.format(name=entry.name)
        return None

    def refresh(self) -> None:
        """Reload the list; emits `changed` if the chosen model or its file has changed."""
        before = self.value()
        self._opened = [_refreshed(entry) for entry in self._opened]
        found = [*filter(self._listed, registry.list_models()), *self._opened]
        groups = {}
        for entry in found:
            is_own = entry.kind == "own" or entry in self._opened or entry.spec is None
            groups[entry.name] = OWN_MODELS if is_own else image_kind(entry.spec.modality)
        self._entries = sorted(found, key=lambda entry: GROUPS.index(groups[entry.name]))
        self.choice.clear()
        group = ""
        for number, entry in enumerate(self._entries):
            if groups[entry.name] != group:
                group = groups[entry.name]
                self.choice.addItem(group)
                model: Any = self.choice.model()
                item = model.item(self.choice.count() - 1)
                item.setEnabled(False)  # the keyboard passes it over
                font = item.font()
                font.setBold(True)
                item.setFont(font)
            self.choice.addItem(_title(entry, entry in self._opened), number)
        self._choose(before)
        self._show()
        if before is not None and self.value() != before:
            self.changed.emit()

    def cancel(self) -> None:
        """Stop the download; a later one begins anew."""
        if self._job.cancel():
            self._show()

    def release(self) -> None:
        """End the thread."""
        self._job.cancel()
        self.transfers.close()

    def _index(self, entry: ModelEntry) -> int | None:
        for index, each in enumerate(self._entries):
            if (each.name, each.path) == (entry.name, entry.path):
                return index
        named = [index for index, each in enumerate(self._entries) if each.name == entry.name]
        return named[0] if named else None

    def _choose(self, entry: ModelEntry | None) -> None:
        """Choose an entry of the list, or the embedded model if it is not listed."""
        number = None if entry is None else self._index(entry)
        number = self._embedded() if number is None else number
        self.choice.setCurrentIndex(self.choice.findData(number))

    def _embedded(self) -> int:
        try:
            return self._index(registry.find_model("tiny")) or 0
        except ValueError:
            return 0

    def _on_activated(self) -> None:
        self._show()
        self.changed.emit()

    def _on_fetch(self) -> None:
        entry = self.value()
        if entry is not None:
            self._start(f"Downloading {entry.name}", lambda: sam_weights.fetch_job(entry.name))

    def _ask_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model file", "", _FILES)
        if path:
            try:
                self.set_value(Path(path))
            except (ValueError, OSError) as error:
                self._complain(sentence(error))

    def _ask_import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Add a file to my models", "", _FILES)
        if path:
            self._start("Adding the model", lambda: _add_model_job(Path(path)))

    def _start(self, name: str, job: Callable[[], Job[Any]]) -> None:
        self._job.start(name, job)
        self._show()

    def _on_progress(self, progress: Progress) -> None:
        self.bar.setRange(0, 1000)
        self.bar.setValue(int(1000 * progress.done / max(1, progress.total)))
        self.card.setText(progress.message)

    def _on_returned(self, result: ModelEntry | Path) -> None:
        self.refresh()
        if isinstance(result, ModelEntry):
            self._choose(result)
        self._on_activated()

    def _on_failed(self, reason: str) -> None:
        self._show()
        self._complain(reason)

    def _complain(self, reason: str) -> None:
        self.card.setText(reason)
        set_tone(self.card, "error")

    def _show(self) -> None:
        entry, busy = self.value(), self._job.busy
        downloadable = entry is not None and entry.kind == "downloadable"
        self.fetch_button.setVisible(downloadable and not busy)
        if entry is not None:
            self.fetch_button.setText(f"Download {format_size(entry.size_bytes)}")
        self.bar.setRange(0, 0)
        self.bar.setVisible(busy)
        self.cancel_button.setVisible(busy)
        broken = entry is not None and entry.problem
        set_tone(self.card, "error" if broken else "muted")
        self.card.setText("" if entry is None else entry.problem or _card(entry))
        self.card.setToolTip("" if entry is None or entry.spec is None else _details(entry))


class _Headings(QStyledItemDelegate):
    """Draws headings, which are disabled, as readable as the models below them."""

    def initStyleOption(  # noqa: N802 - Qt's name
        self, option: QStyleOptionViewItem, index: QModelIndex
    ) -> None:
        """Let headings look enabled."""
        super().initStyleOption(option, index)
        if index.data(Qt.ItemDataRole.UserRole) is None:
            option.state |= QStyle.StateFlag.State_Enabled


def _refreshed(entry: ModelEntry) -> ModelEntry:
    """Reread an opened file; if that fails, keep what was known."""
    try:
        return entry if entry.path is None else registry.find_model(entry.path)
    except (ValueError, OSError):
        return entry


def _add_model_job(path: Path) -> Job[ModelEntry]:
    yield from import_torch_job()
    return (yield from library.import_file_job(path))


def _title(entry: ModelEntry, opened: bool) -> str:
    if entry.kind == "downloadable":
        return f"{entry.name} · needs download ({format_size(entry.size_bytes)})"
    kind = "opened file" if opened else "own file" if entry.kind == "own" else entry.kind
    return f"{entry.name} · {kind}{', unusable' if entry.problem else ''}"


def _card(entry: ModelEntry) -> str:
    spec = entry.spec
    if spec is None:
        return ""
    lines = [f"{spec.modality}: {', '.join(spec.channel_names)}", _metrics(spec)]
    return "\n".join(line for line in lines if line)


def _details(entry: ModelEntry) -> str:
    spec = entry.spec
    assert spec is not None
    rows = {
        "What": spec.description,
        "Base": spec.base.name if spec.base.name != spec.name else "",
        "Transfer layer": "" if spec.transfer == "zeroshot" else spec.transfer,
        "Trained": STRATEGY_TITLES.get(spec.strategy, spec.strategy),
        "Size": format_size(entry.size_bytes),
        "License": spec.license,
        "Author": spec.author,
        "Date": spec.date,
        "Cite": catalog_words(entry.name if entry.kind != "own" else "").get("citation", ""),
        "File": str(entry.path or ""),
    }
    return "\n".join(f"{name}: {text}" for name, text in rows.items() if text)


def _metrics(spec: ModelSpec) -> str:
    """Metrics as text, e.g. ``click 60 %, box 69 % IoU, drawn scenes``."""
    groups = {name: value for name, value in spec.metrics.items() if isinstance(value, Mapping)}
    # Of a foundation those on drawn scenes of all kinds, rather than on one source of images.
    groups = dict(sorted(groups.items(), key=lambda group: not group[0].startswith("drawn scenes")))
    single = {name: value for name, value in spec.metrics.items() if _number(value)}
    if "after" in groups:  # learned from few objects
        groups = {"objects left out": groups["after"], "zero-shot": groups.get("before", {})}
    own = groups.get(spec.transfer) or single or next(iter(groups.values()), {})
    before = groups.get("zero-shot", own)
    figures = []
    for name in ("click", "box"):
        if _number(own.get(name)):
            gain = "" if before is own else f" (base alone {before.get(name, 0):.0f} %)"
            figures.append(f"{name} {own[name]:.0f} %{gain}")
    data = str(spec.metrics.get("data", next(iter(groups), "")))
    data = data.removesuffix(", mean IoU %")
    return f"{', '.join(figures)} IoU, {data}" if figures else ""


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
