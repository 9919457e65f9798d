"""Small controls that several tabs share, and the status line.

None of them takes the keyboard focus from the canvas on a click.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal
from weakref import WeakSet

from napari import Viewer
from napari.layers import Layer
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QContextMenuEvent, QIcon, QWheelEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible
from superqt.utils import qdebounced

from napari_simmat.progress import time_left
from napari_simmat.widgets.worker import later

Tone = Literal["", "muted", "info", "good", "warning", "error"]
"""What the color of a text means; empty for the theme's own color."""
TONES: dict[Tone, tuple[str, str]] = {
    "muted": ("#b9bfc7", "#474c53"),
    "info": ("#8cc8ff", "#0a3dbc"),
    "good": ("#7cfcce", "#143b22"),
    "warning": ("#f4da11", "#5c4902"),
    "error": ("#fc9e88", "#8d155d"),
}
"""Colors on dark and on light themes; each can be read on panels, tables and buttons.

The color-blind tell them apart, but for muted texts.
"""
NAMED_CONTROLS = (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
)
"""What a screen reader speaks of."""
INDENT = 14
"""Pixels that the content of a section is indented."""
_ANY_HEIGHT = 2**24 - 1  # Qt's QWIDGETSIZE_MAX
OPEN_WIDGETS: WeakSet[Any] = WeakSet()
"""The plugin's widgets that are in use; they enter themselves."""


class ComboBox(QComboBox):
    """A combo box that a click does not focus and the wheel does not change."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Leave the wheel to the panel."""
        event.ignore()


class LayerChoice(ComboBox):
    """A combo box of the viewer's layers of one kind; the first entry stands for no layer.

    Unlike magicgui's, it keeps its value when a layer is renamed.

    Parameters
    ----------
    viewer
        Its layers are followed.
    kind
        Type of the listed layers.
    new
        Text of the first entry.
    omit
        Layers that are not listed.
    """

    chosen = Signal(object)
    """The layer the user picked; None for the first entry."""

    def __init__(
        self,
        viewer: Viewer,
        kind: type[Layer],
        new: str,
        omit: Callable[[Layer], bool] = lambda _: False,
    ) -> None:
        super().__init__()
        self._viewer, self._kind, self._new, self._omit = viewer, kind, new, omit
        self._layer: Layer | None = None
        self._listed: list[Layer | None] = []
        events = viewer.layers.events
        self._events = [events.inserted, events.removed, events.reordered, events.renamed]
        for event in self._events:
            event.connect(self._on_layers)
        self.activated.connect(self._on_activated)
        self._list()

    def value(self) -> Layer | None:
        """The chosen layer; None for the first entry."""
        return self._layer

    def set_value(self, layer: Layer | None) -> None:
        """Choose without a signal."""
        self._layer = layer
        self._list()

    def release(self) -> None:
        """Stop following the viewer's layers."""
        self._list_later.cancel()
        for event in self._events:
            event.disconnect(self._on_layers)

    def _on_layers(self) -> None:
        self._list_later()

    @qdebounced(timeout=0)
    def _list_later(self) -> None:
        self._list()

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
    """A button that a click does not focus; it shows its shortcut."""

    def __init__(self, text: str, shortcut: str = "", tip: str = "") -> None:
        super().__init__(f"{text}  {shortcut}" if shortcut else text)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setToolTip(tip)


class MainButton(Button):
    """The main action of a tab."""

    def __init__(self, text: str, shortcut: str = "", tip: str = "") -> None:
        super().__init__(text, shortcut, tip)
        self.setStyleSheet(
            "QPushButton:enabled { background-color: #2f6f9f; color: white; }"
            "QPushButton:enabled:hover { background-color: #3579ad; }"
        )


class MenuButton(QToolButton):
    """A button with a menu: its only one, or beside what a press does.

    Parameters
    ----------
    text, tip
        As of `Button`.
    splits
        Whether a press on the text does something else than open the menu.
    """

    def __init__(self, text: str, tip: str = "", *, splits: bool = False) -> None:
        super().__init__()
        modes = QToolButton.ToolButtonPopupMode
        self.setText(text)
        self.setToolTip(tip)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setPopupMode(modes.MenuButtonPopup if splits else modes.InstantPopup)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMenu(QMenu(self))


class VerticalScroll(QScrollArea):
    """As high as its content if there is room, else it scrolls."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
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
        around = self.size() - viewport.size()  # the theme's margins
        return QSize(content.sizeHint().width(), self.content_height + around.height())

    @property
    def content_height(self) -> int:
        """Height of all of the content at the width that it has."""
        content, width = self.widget(), self.viewport().width()
        if content.hasHeightForWidth() and width > 0:
            return int(content.heightForWidth(width))
        return int(content.sizeHint().height())

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """The content's width beside the scroll bar, and part of its height."""
        content, bar = self.widget(), self.verticalScrollBar()
        if content is None or bar is None:
            return super().minimumSizeHint()
        minimum = content.minimumSizeHint()
        return QSize(minimum.width() + bar.sizeHint().width(), min(minimum.height(), 120))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Resize when the content opens or closes."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)


class CollapsibleSection(QCollapsible):
    """A titled part of a form, closed at first."""

    pressed = Signal(bool)
    """The user opened or closed it."""
    # superqt's icons ignore napari's themes. It takes no empty ones from PySide6, where an empty
    # icon is false.
    _collapsed_icon = _expanded_icon = QIcon()

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__(title, None, QIcon(), QIcon())
        self._title = title
        self.setDuration(0)
        self.toggleButton().setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.toggleButton().clicked.connect(self.pressed)
        self.toggleButton().setStyleSheet(
            "QPushButton { text-align: left; border: none; background: transparent; padding: 2px; }"
        )
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.layout().setSpacing(2)
        self.setContent(content)
        self.toggled.connect(self._on_toggled)
        self._on_toggled(False)

    def set_title(self, title: str) -> None:
        """Change the title."""
        self._title = title
        self.setText(f"{'▾' if self.is_open else '▸'} {title}")

    def set_open(self, opened: bool) -> None:
        """Show or hide the content."""
        if opened != self.is_open:
            self.expand(animate=False) if opened else self.collapse(animate=False)

    @property
    def is_open(self) -> bool:
        """Whether the content is shown."""
        return bool(self.isExpanded())

    def _on_toggled(self, opened: bool) -> None:
        self.set_title(self._title)
        # superqt fixes the height that the content has now; ours may grow while it is open.
        self.content().setMaximumHeight(_ANY_HEIGHT)
        self.content().setVisible(opened)


Row = QWidget | tuple[str, QWidget]
Part = QWidget | QLayout | tuple[QWidget, int]
"""A part of a layout; a pair adds its stretch."""


def hbox(*parts: Part, parent: QWidget | None = None) -> QHBoxLayout:
    """Widgets and layouts from left to right, without margins."""
    return _filled(QHBoxLayout(parent), parts)


def vbox(
    *parts: Part, parent: QWidget | None = None, spacing: int = 4, indent: int = 0
) -> QVBoxLayout:
    """Widgets and layouts from top to bottom, without margins."""
    layout = _filled(QVBoxLayout(parent), parts)
    layout.setSpacing(spacing)
    layout.setContentsMargins(indent, 0, 0, 0)
    return layout


def form_rows(
    *rows: Row, parent: QWidget | None = None, spacing: int = 4, indent: int = 0
) -> QFormLayout:
    """Labeled rows, without margins; a widget alone spans both columns."""
    layout = QFormLayout(parent)
    layout.setVerticalSpacing(spacing)
    layout.setContentsMargins(indent, 0, 0, 0)
    for each in rows:
        layout.addRow(*each) if isinstance(each, tuple) else layout.addRow(each)
    return layout


def keep_place(widget: QWidget) -> None:
    """Let nothing move when a widget is hidden."""
    policy = widget.sizePolicy()
    policy.setRetainSizeWhenHidden(True)
    widget.setSizePolicy(policy)


def name_controls(root: QWidget) -> None:
    """Name what has no text of its own for screen readers: by its label, else by its tooltip.

    A label also stands for the parts of the control that it is the buddy of.
    """
    labels = {each.buddy(): each.text() for each in root.findChildren(QLabel) if each.buddy()}
    for control in root.findChildren(QWidget):
        if not isinstance(control, NAMED_CONTROLS):  # PySide6 finds one type at a time
            continue
        is_worded = isinstance(control, QAbstractButton) and len(control.text()) > 1
        if is_worded or control.accessibleName():
            continue
        ancestor: QWidget | None = control
        while ancestor not in labels and ancestor is not None:
            ancestor = ancestor.parentWidget()
        control.setAccessibleName(labels.get(ancestor) or control.toolTip())


def _filled(layout: Any, parts: Sequence[Part]) -> Any:
    layout.setContentsMargins(0, 0, 0, 0)
    widgets = [part[0] if isinstance(part, tuple) else part for part in parts]
    for label, control in pairwise(widgets):
        if type(label) is QLabel and label.text() and isinstance(control, NAMED_CONTROLS):
            label.setBuddy(control)
    for part in parts:
        if isinstance(part, tuple):
            layout.addWidget(part[0], stretch=part[1])
        elif isinstance(part, QWidget):
            layout.addWidget(part)
        else:
            layout.addLayout(part)
    return layout


def tone_color(tone: Tone, on: QWidget) -> str:
    """The color of a tone on the background of a widget."""
    dark, light = TONES[tone]
    return dark if _is_dark(on) else light


def tone_sheet(on: QWidget) -> str:
    """The style sheet that colors what `set_tone` has marked inside `on`, and `MenuButton`."""
    colors = (f'*[tone="{tone}"] {{ color: {tone_color(tone, on)}; }}' for tone in TONES)
    return "".join([*colors, _MENU_BUTTON % _BUTTON_COLORS[not _is_dark(on)]])


_BUTTON_COLORS = (
    {"rest": "#424a54", "hover": "#61696e", "checked": "#4560c4", "off": "#7f868e"},
    {"rest": "#c5c3c1", "hover": "#afacaa", "checked": "#a0b8ff", "off": "#7a7876"},
)
"""Of napari's buttons on dark and on light themes: it styles no tool buttons with text."""
_MENU_BUTTON = """
MenuButton { background-color: %(rest)s; border: 0; border-radius: 2px; padding: 4px; }
MenuButton:hover, MenuButton::menu-button:hover { background-color: %(hover)s; }
MenuButton:checked { background-color: %(checked)s; }
MenuButton:disabled { background-color: transparent; border: 1px solid %(rest)s; color: %(off)s; }
MenuButton::menu-button { border: 0; width: 20px; }
"""


def _is_dark(on: QWidget) -> bool:
    return bool(on.palette().window().color().lightness() < 128)


def set_tone(widget: QWidget, tone: Tone) -> None:
    """Color the text of a widget; the color follows the theme."""
    if widget.property("tone") != tone:
        widget.setProperty("tone", tone)
        widget.style().unpolish(widget)  # style sheets look at properties only when they polish
        widget.style().polish(widget)


class TextLabel(QLabel):
    """A label that wraps, shows any text as it is, and is never lower than its text.

    Qt's layouts give a label that wraps less height than it needs where something between them and
    the label does not pass on that its height depends on its width.

    Attributes
    ----------
    least_lines
        Lines that it has room for, whatever its text.
    drawn
        Its text as it is drawn: long words, such as names of files, may be broken anywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.least_lines = 0
        self.drawn = ""
        self._text = ""
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)

    def setText(self, text: str) -> None:  # noqa: N802 - Qt's name
        """Show a text."""
        self._text = text
        self.drawn = _LONG_WORD.sub(lambda word: _ZERO_WIDTH_SPACE.join(word.group()), text)
        super().setText(self.drawn)
        self._fit()

    def text(self) -> str:
        """The text that was set."""
        return self._text

    def event(self, event: QEvent) -> bool:
        """Adapt the height to the width and the font."""
        done = super().event(event)
        if event.type() in _REFITTED:
            self._fit()
        return done

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:  # noqa: N802 - Qt's name
        """Copy what is selected, or all, without the breaks of long words."""
        said = self.selectedText().replace(_ZERO_WIDTH_SPACE, "") or self._text
        menu = QMenu(self)
        menu.addAction("Copy", lambda: QApplication.clipboard().setText(said))
        menu.popup(event.globalPos())

    def _fit(self) -> None:
        if self.isVisible():
            room = self.least_lines * self.fontMetrics().lineSpacing()
            needed = max(room, self.heightForWidth(self.width()) if self.text() else 0)
            if self.minimumHeight() != needed:
                self.setMinimumHeight(needed)


_LONG_WORD, _ZERO_WIDTH_SPACE = re.compile(r"\S{24,}"), "\u200b"
_REFITTED = {
    QEvent.Type.Resize,
    QEvent.Type.Show,
    QEvent.Type.FontChange,
    QEvent.Type.StyleChange,
    QEvent.Type.ContentsRectChange,
}


def text_label(tone: Tone = "") -> TextLabel:
    """A label with the color of a tone."""
    label = TextLabel()
    set_tone(label, tone)
    return label


def thin_bar() -> QProgressBar:
    """A progress bar without text."""
    bar = QProgressBar()
    bar.setAccessibleName("Progress")
    bar.setTextVisible(False)
    bar.setFixedHeight(6)
    return bar


def remove_button(tip: str) -> QToolButton:
    """A button with a cross."""
    button = QToolButton()
    button.setText("\N{MULTIPLICATION SIGN}")
    button.setToolTip(tip)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return button


StatusKind = Literal["nothing", "ready", "working", "canceled", "failed", "done"]


@dataclass(frozen=True)
class Status:
    """What the status line shows.

    Parameters
    ----------
    kind
        Decides the color.
    text
        One sentence.
    fraction
        Progress 0..1, if known.
    seconds
        Duration of finished work; the status line counts it while working.
    left
        How long the work will still take, in words; empty: the status line estimates it.
    offer
        Label of a button that helps, e.g. makes a new layer; empty for none.
    other
        Label of a second such button.
    way_out
        Label of the button beside the progress bar; empty if another button stops the work.
    """

    kind: StatusKind
    text: str
    fraction: float | None = None
    seconds: float | None = None
    offer: str = ""
    other: str = ""
    way_out: str = "Cancel"
    left: str = ""


STATUS_TONES: dict[StatusKind, Tone] = {
    "nothing": "muted",
    "ready": "info",
    "working": "warning",
    "canceled": "muted",
    "failed": "error",
    "done": "good",
}
MIN_FRACTION, MIN_SECONDS = 0.03, 2.0
"""What must be done, and how long it must have taken, before the time left is estimated."""
_SHOW_DELAY = 150
"""Milliseconds before work is shown, so that quick results do not flicker."""


class StatusLine(QWidget):
    """A view of one `Status`.

    Attributes
    ----------
    dot, text, time, bar, left, cancel, offer, other
        What shows the parts of the status.
    """

    canceled = Signal()
    accepted = Signal()
    other_accepted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._status = Status("nothing", "")
        self._since = 0.0
        self.dot = QLabel("●")
        self.text = text_label()
        self.text.least_lines = 2  # so that what is above stays where it is
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.text.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._warning = text_label("warning")
        self._warning.hide()
        self.time = QLabel()
        self.left = QLabel()
        for label in (self.time, self.left):
            set_tone(label, "muted")
        self.bar = thin_bar()
        self.cancel, self.offer, self.other = Button("Cancel"), Button(""), Button("")
        self.cancel.clicked.connect(self.canceled)
        self.offer.clicked.connect(self.accepted)
        self.other.clicked.connect(self.other_accepted)
        self._clock = QTimer(self)
        self._clock.setInterval(100)
        self._clock.timeout.connect(self._tick)
        self._late = later(self, self._show, _SHOW_DELAY)
        line = hbox(self.dot, (self.text, 1), self.time)
        self.text.setAlignment(Qt.AlignmentFlag.AlignTop)
        for part in (self.dot, self.time):
            line.setAlignment(part, Qt.AlignmentFlag.AlignTop)
        below = hbox((self.bar, 1), self.left, self.cancel, self.offer, self.other)
        vbox(line, below, self._warning, parent=self, spacing=6)
        self._show()

    def value(self) -> Status:
        """The status set last."""
        return self._status

    def set_value(self, status: Status) -> None:
        """Show a status; short work never appears as working."""
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
        """A sentence shown below any status; empty for none."""
        return self._warning.text()

    def set_warning(self, text: str) -> None:
        """Show a sentence below any status."""
        self._warning.setText(text)
        self._warning.setVisible(bool(text))

    def _show(self) -> None:
        status = self._status
        working = status.kind == "working"
        self.setProperty("state", status.kind)
        set_tone(self.dot, STATUS_TONES[status.kind])
        self.text.setText(status.text + (" ..." if working else ""))
        self.bar.setVisible(working)
        self.left.setVisible(working)
        self.cancel.setVisible(working and bool(status.way_out))
        self.cancel.setText(status.way_out)
        self.offer.setVisible(bool(status.offer))
        self.offer.setText(status.offer)
        self.other.setVisible(bool(status.other))
        self.other.setText(status.other)
        if working:
            known = status.fraction is not None
            self.bar.setRange(0, 1000 if known else 0)
            self.bar.setValue(int(1000 * (status.fraction or 0.0)))
        self._tick()

    def _tick(self) -> None:
        status = self._status
        seconds = time.monotonic() - self._since if status.kind == "working" else status.seconds
        self.time.setText("" if seconds is None else _clock(seconds))
        fraction = status.fraction or 0.0
        can_tell = seconds is not None and seconds >= MIN_SECONDS and fraction >= MIN_FRACTION
        estimated = time_left(seconds, fraction, 1 - fraction) if can_tell else ""
        self.left.setText(status.left or estimated)


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
