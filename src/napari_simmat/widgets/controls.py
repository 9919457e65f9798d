"""Small controls that several tabs share, and the status line.

What the window would do, as a command for a terminal: shown, folded away, and copied.

Small controls that leave the keyboard to the canvas.

How everything is segmented, as a form: where to ask, and what to keep of it.

A field for a path: typed, browsed for, or dropped here.

The shape of pixels, for files that do not say it.

What the window says about its state, as a value.

The line below: what is going on, how far, for how long, and a way out.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from napari import Viewer
from napari.layers import Layer
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication, QWheelEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from napari_simmat.engine.automatic_settings import MIN_PREDICTED_IOU, AutomaticSettings


class ComboBox(QComboBox):
    """A list to choose from; a click does not take the focus, the wheel does not choose."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Leave the wheel to the panel."""
        event.ignore()


class LayerChoice(ComboBox):
    """A list of the viewer's layers of one kind; the first entry stands for a new layer.

    Parameters
    ----------
    viewer
        Its layers are listed, renamed and dropped as they change.
    kind
        Which layers are listed.
    new
        Text of the first entry.
    omit
        Layers that are not listed.
    """

    chosen = Signal(object)
    """The layer the user picked, or None for a new one."""

    def __init__(
        self,
        viewer: Viewer,
        kind: type[Layer],
        new: str,
        omit: Callable[[Layer], bool] = lambda _: False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._kind, self._new, self._omit = viewer, kind, new, omit
        self._layer: Layer | None = None
        self._listed: list[Layer | None] = []
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._list)
        self._events = [
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.reordered,
            viewer.layers.events.renamed,
        ]
        for event in self._events:
            event.connect(self._on_layers)
        self.activated.connect(self._on_activated)
        self._list()

    def value(self) -> Layer | None:
        """The chosen layer, or None for a new one."""
        return self._layer

    def set_value(self, layer: Layer | None) -> None:
        """Choose without telling."""
        self._layer = layer
        self._list()

    def release(self) -> None:
        """Stop following the viewer's layers."""
        self._later.stop()
        for event in self._events:
            event.disconnect(self._on_layers)

    def _on_layers(self) -> None:
        self._later.start(0)

    def _list(self) -> None:
        found = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, self._kind) and not self._omit(layer)
        ]
        self._listed = [None, *reversed(found)]
        if self._layer not in self._listed:
            self._layer = None
        self.clear()
        for layer in self._listed:
            self.addItem(self._new if layer is None else layer.name)
        self.setCurrentIndex(self._listed.index(self._layer))

    def _on_activated(self, index: int) -> None:
        self._layer = self._listed[index]
        self.chosen.emit(self._layer)


class Button(QPushButton):
    """A button that leaves the focus where it is and shows its shortcut."""

    def __init__(self, text: str, shortcut: str = "", tip: str = "") -> None:
        super().__init__(f"{text}  {shortcut}" if shortcut else text)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setToolTip(tip)


class MainButton(Button):
    """The button that a tab is for."""

    def __init__(self, text: str, shortcut: str = "", tip: str = "") -> None:
        super().__init__(text, shortcut, tip)
        self.setStyleSheet(
            "QPushButton:enabled { background-color: #2f6f9f; color: white; }"
            "QPushButton:enabled:hover { background-color: #3a86bf; }"
        )


class VerticalScroll(QScrollArea):
    """As high as its content where there is room; where there is not, it scrolls."""

    def __init__(self, content: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """All of the content."""
        content, viewport = self.widget(), self.viewport()
        if content is None or viewport is None:
            return super().sizeHint()
        hint = content.sizeHint()
        around = self.size() - viewport.size()  # what a theme puts there
        height = hint.height()
        if content.hasHeightForWidth() and viewport.width() > 0:
            height = content.heightForWidth(viewport.width())
        return QSize(hint.width(), height + around.height())

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """The content's width, and some of its height."""
        content = self.widget()
        if content is None:
            return super().minimumSizeHint()
        least = content.minimumSizeHint()
        return QSize(least.width(), min(least.height(), 120))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Follow the content when it opens or closes."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)


class CollapsibleSection(QWidget):
    """A titled part of the form that opens and closes."""

    toggled = Signal(bool)
    """Whether it is open."""

    def __init__(self, title: str, content: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._content = content
        self._opened = False
        self._head = QToolButton()
        self._head.setText(title)
        self._head.setCheckable(True)
        self._head.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._head.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._head.setStyleSheet("QToolButton { border: none; background: transparent; }")
        self._head.toggled.connect(self.set_open)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self._head)
        layout.addWidget(content)
        self.set_open(False)

    def set_title(self, title: str) -> None:
        """Change the title."""
        self._head.setText(title)

    def set_open(self, opened: bool) -> None:
        """Show or hide the content."""
        self._head.setChecked(opened)
        self._head.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self._content.setVisible(opened)
        if opened != self._opened:
            self._opened = opened
            self.toggled.emit(opened)

    @property
    def is_open(self) -> bool:
        """Whether the content is shown."""
        return self._opened


class CommandLine(CollapsibleSection):
    """The command line of what is chosen; empty while something is missing."""

    def __init__(self, parent: QWidget | None = None) -> None:
        self.field = QPlainTextEdit()
        self.field.setReadOnly(True)
        self.field.setMaximumHeight(84)
        self.field.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.copy = Button("Copy", tip="Copy the command line")
        self.copy.clicked.connect(self._on_copy)
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(14, 0, 0, 0)
        layout.addWidget(self.field)
        layout.addWidget(self.copy, alignment=Qt.AlignmentFlag.AlignLeft)
        super().__init__("Command line", content, parent)

    def value(self) -> str:
        """The command as it is shown."""
        return self.field.toPlainText()

    def set_value(self, arguments: Sequence[str]) -> None:
        """Show what follows ``simmat``; nothing if there are no arguments."""
        self.field.setPlainText(in_a_shell(arguments) if arguments else "")
        self.copy.setEnabled(bool(arguments))

    def _on_copy(self) -> None:
        QGuiApplication.clipboard().setText(self.value())


def in_a_shell(arguments: Sequence[str]) -> str:
    """The command ``simmat`` with its arguments as it can be pasted into a terminal."""
    words = ["simmat", *arguments]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


_SEEDS = {"grid": "a grid", "maxima": "bright spots"}


class EverythingForm(QWidget):
    """A view of one value: `AutomaticSettings`."""

    sifted = Signal()
    """Which of the proposed masks are kept has changed."""
    asked = Signal()
    """Where the model is asked has changed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._base = AutomaticSettings()
        self.seeds = ComboBox()
        for text in _SEEDS.values():
            self.seeds.addItem(text)
        self.points = _Number(512, "as fits", "Seeds along the longer side; 0 for as many as fit")
        self.crops = _Number(2, "none", "Ask again in smaller parts, for small crowded objects")
        self.quality = _Share(MIN_PREDICTED_IOU, "The model's own estimate of a mask's IoU")
        self.stability = _Share(0, "How little a mask depends on its cutoff")
        self.agreement = _Share(0, "Share of the seeds on a mask that are answered with it")
        self.area = _Number(1_000_000, "", "Smaller objects go, smaller holes are filled")
        self.border = QCheckBox("Keep objects at the border")
        self._lay_out()
        self._connect()
        self.set_value(self._base)

    def value(self) -> AutomaticSettings:
        """The settings that are shown; thresholds that were not moved stay the model's own."""
        base = self._base
        shown = (round(self.quality.value(), 2), round(self.stability.value(), 2))
        quality, stability = (
            own if moved == round(default, 2) else moved
            for own, moved, default in zip(
                (base.quality, base.stability), shown, base.thresholds, strict=True
            )
        )
        return replace(
            base,
            seeds=list(_SEEDS)[self.seeds.currentIndex()],
            points_per_side=self.points.value(),
            crop_layers=self.crops.value(),
            quality=quality,
            stability=stability,
            agreement=round(self.agreement.value(), 2),
            min_area=self.area.value(),
            keep_border=self.border.isChecked(),
        )

    def set_value(self, settings: AutomaticSettings) -> None:
        """Show settings without telling; those without a control are kept."""
        self._base = settings
        quality, stability = settings.thresholds
        shown: list[tuple[Any, Any]] = [
            (self.points, settings.points_per_side),
            (self.crops, settings.crop_layers),
            (self.quality, quality),
            (self.stability, stability),
            (self.agreement, settings.agreement),
            (self.area, settings.min_area),
        ]
        for control, value in shown:
            control.blockSignals(True)
            control.setValue(value)
            control.blockSignals(False)
        self.seeds.setCurrentIndex(list(_SEEDS).index(settings.seeds))
        self.border.blockSignals(True)
        self.border.setChecked(settings.keep_border)
        self.border.blockSignals(False)

    def _lay_out(self) -> None:
        self.rows = QFormLayout(self)
        self.rows.setContentsMargins(14, 0, 0, 0)
        self.rows.setVerticalSpacing(4)
        self.rows.addRow("Ask on", self.seeds)
        self.rows.addRow("Seeds per side", self.points)
        self.rows.addRow("Layers of crops", self.crops)
        self.rows.addRow("Quality", self.quality)
        self.rows.addRow("Stability", self.stability)
        self.rows.addRow("Agreement", self.agreement)
        self.rows.addRow("Smallest area", self.area)
        self.rows.addRow(self.border)

    def _connect(self) -> None:
        for control in (self.quality, self.stability, self.agreement, self.area):
            control.valueChanged.connect(lambda _: self.sifted.emit())
        self.border.toggled.connect(lambda _: self.sifted.emit())
        self.seeds.activated.connect(lambda _: self.asked.emit())
        for number in (self.points, self.crops):
            number.valueChanged.connect(lambda _: self.asked.emit())


class _Number(QSpinBox):
    def __init__(self, most: int, zero: str, tip: str) -> None:
        super().__init__()
        self.setRange(0, most)
        self.setSpecialValueText(zero)
        self.setToolTip(tip)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)


class _Share(QLabeledDoubleSlider):
    """A slider from a least value to 1."""

    def __init__(self, least: float, tip: str) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setRange(least, 1.0)
        self.setDecimals(2)
        self.setSingleStep(0.01)
        self.setToolTip(tip)


PathKind = Literal["folder", "file", "either"]


class PathField(QWidget):
    """A view of one path.

    Parameters
    ----------
    kind
        Which paths are taken.
    title
        Of the dialogue, and what the empty field says.
    """

    changed = Signal()

    def __init__(self, kind: PathKind, title: str, tip: str = "", parent: QWidget | None = None):
        super().__init__(parent)
        self._kind, self._title = kind, title
        self.path = QLineEdit()
        self.path.setPlaceholderText("drop it here")
        self.path.setToolTip(tip)
        self.path.setAcceptDrops(False)  # the whole field takes it, as a path
        self.browse = QToolButton()
        self.browse.setText("⋯")
        self.browse.setToolTip(title)
        if kind == "either":
            menu = QMenu(self.browse)
            menu.addAction("A folder...", self._ask_folder)
            menu.addAction("A file or manifest...", self._ask_file)
            self.browse.setMenu(menu)
            self.browse.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
            self.browse.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        else:
            self.browse.clicked.connect(self._ask_folder if kind == "folder" else self._ask_file)
        self.setAcceptDrops(True)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.path, stretch=1)
        layout.addWidget(self.browse)
        self.path.textChanged.connect(self.changed)

    def value(self) -> str:
        """The path, as it stands there."""
        return self.path.text().strip()

    def set_value(self, path: str) -> None:
        """Show a path."""
        self.path.setText(path)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Take one path of the right kind."""
        if self._dropped(event) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Show the path that was dropped."""
        path = self._dropped(event)
        if path is not None:
            self.set_value(path)
            event.acceptProposedAction()

    def _dropped(self, event: QDropEvent) -> str | None:
        path = dropped_path(event)
        if path is None:
            return None
        fits = {"folder": Path(path).is_dir, "file": Path(path).is_file, "either": lambda: True}
        return path if fits[self._kind]() else None

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, self._title, self.value())
        if path:
            self.set_value(path)

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, self._title, self.value())
        if path:
            self.set_value(path)


def dropped_path(event: QDropEvent) -> str | None:
    """The one local path that is dragged."""
    data = event.mimeData()
    paths = [url.toLocalFile() for url in data.urls()] if data is not None else []
    return paths[0] if len(paths) == 1 and paths[0] else None


_TITLE = "Pixel shape"


class PixelShape(CollapsibleSection):
    """A view of one number: the height of a pixel over its width; closed, its title tells it."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        self.ratio = QDoubleSpinBox()
        self.ratio.setDecimals(3)
        self.ratio.setRange(0.01, 100.0)
        self.ratio.setSingleStep(0.1)
        self.ratio.setValue(1.0)
        self.ratio.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.ratio.setToolTip(
            "Height of a pixel over its width, where a file does not say; 1 for squares"
        )
        content = QWidget()
        rows = QFormLayout(content)
        rows.setContentsMargins(14, 0, 0, 0)
        rows.addRow("Height / width", self.ratio)
        super().__init__(_TITLE, content, parent)
        self.ratio.valueChanged.connect(self._on_ratio)

    def value(self) -> float:
        """Height over width."""
        return round(self.ratio.value(), 3)

    def set_value(self, ratio: float) -> None:
        """Show a ratio."""
        self.ratio.setValue(ratio)

    def _on_ratio(self) -> None:
        ratio = self.value()
        self.set_title(_TITLE if ratio == 1 else f"{_TITLE}: {ratio:g} times as high as wide")
        self.changed.emit()


StatusKind = Literal["nothing", "ready", "working", "cancelled", "failed", "done"]


@dataclass(frozen=True)
class Status:
    """What the status line shows.

    Parameters
    ----------
    kind
        Decides the look.
    text
        One sentence.
    fraction
        How far the work is, where that is known.
    seconds
        How long it took; while working it is counted by the status line.
    offer
        A label for a button that helps, e.g. to make a new layer; empty for none.
    other
        A label for a second such button, where there are two ways to go on.
    way_out
        What the button beside the progress says; empty where another one ends the work.
    """

    kind: StatusKind
    text: str
    fraction: float | None = None
    seconds: float | None = None
    offer: str = ""
    other: str = ""
    way_out: str = "Cancel"


_COLOURS = {
    "nothing": "#8a8f98",
    "ready": "#4aa3ff",
    "working": "#ffb000",
    "cancelled": "#8a8f98",
    "failed": "#ff5c50",
    "done": "#2ecc71",
}
_SHOW_DELAY = 150
"""Milliseconds before work is shown: a click that is answered at once shall not flicker."""


class StatusLine(QWidget):
    """A view of one `Status`; each kind has its look."""

    cancelled = Signal()
    accepted = Signal()
    other_accepted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._status = Status("nothing", "")
        self._since = 0.0
        self._dot = QLabel("●")
        self._text = QLabel()
        self._text.setWordWrap(True)
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._text.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._warning = QLabel()
        self._warning.setWordWrap(True)
        self._warning.setTextFormat(Qt.TextFormat.PlainText)
        self._warning.setStyleSheet(f"color: {_COLOURS['working']};")
        self._warning.hide()
        self._time = QLabel()
        self._time.setStyleSheet("color: #8a8f98;")
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(6)
        self._cancel = QPushButton("Cancel")
        self._cancel.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._cancel.clicked.connect(self.cancelled)
        self._offer = QPushButton()
        self._offer.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._offer.clicked.connect(self.accepted)
        self._other = QPushButton()
        self._other.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._other.clicked.connect(self.other_accepted)
        self._clock = QTimer(self)
        self._clock.setInterval(100)
        self._clock.timeout.connect(self._tick)
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.setInterval(_SHOW_DELAY)
        self._late.timeout.connect(self._show)

        line = QHBoxLayout()
        line.addWidget(self._dot, alignment=Qt.AlignmentFlag.AlignTop)
        line.addWidget(self._text, stretch=1)
        line.addWidget(self._time, alignment=Qt.AlignmentFlag.AlignTop)
        below = QHBoxLayout()
        below.addWidget(self._bar, stretch=1)
        below.addWidget(self._cancel)
        below.addWidget(self._offer)
        below.addWidget(self._other)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addLayout(below)
        layout.addWidget(self._warning)
        self._show()

    def value(self) -> Status:
        """What was set last."""
        return self._status

    def set_value(self, status: Status) -> None:
        """Show a status; work that ends quickly is not shown as work."""
        was_working = self._status.kind == "working"
        self._status = status
        if status.kind == "working":
            if not was_working:
                self._since = time.monotonic()
                self._clock.start()
                self._late.start()
            elif not self._late.isActive():
                self._show()
        else:
            self._clock.stop()
            self._late.stop()
            self._show()

    @property
    def warning(self) -> str:
        """What is shown below, whatever the status; empty for nothing."""
        return self._warning.text()

    def set_warning(self, text: str) -> None:
        """Show a sentence that stays, whatever the status."""
        self._warning.setText(text)
        self._warning.setVisible(bool(text))

    def _show(self) -> None:
        status = self._status
        working = status.kind == "working"
        self.setProperty("state", status.kind)
        self._dot.setStyleSheet(f"color: {_COLOURS[status.kind]};")
        self._text.setText(status.text + (" ..." if working else ""))
        self._bar.setVisible(working)
        self._cancel.setVisible(working and bool(status.way_out))
        self._cancel.setText(status.way_out)
        self._offer.setVisible(bool(status.offer))
        self._offer.setText(status.offer)
        self._other.setVisible(bool(status.other))
        self._other.setText(status.other)
        if working:
            known = status.fraction is not None
            self._bar.setRange(0, 1000 if known else 0)
            self._bar.setValue(int(1000 * (status.fraction or 0.0)))
        self._tick()

    def _tick(self) -> None:
        status = self._status
        seconds = time.monotonic() - self._since if status.kind == "working" else status.seconds
        self._time.setText("" if seconds is None else _clock(seconds))


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
