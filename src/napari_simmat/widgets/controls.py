"""Small controls that several tabs share.

None of them takes the keyboard focus from the canvas on a click.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from weakref import WeakSet

from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
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

from napari_simmat.widgets.tones import Tone, set_tone

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
