"""Small controls that leave the keyboard to the canvas."""

from __future__ import annotations

from collections.abc import Callable

from napari import Viewer
from napari.layers import Layer
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)


class Choice(QComboBox):
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


class LayerChoice(Choice):
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


class Scroll(QScrollArea):
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


class Fold(QWidget):
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
