"""A field for a path: typed, browsed for, or dropped here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qtpy.QtCore import Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QMenu, QToolButton, QWidget

Kind = Literal["folder", "file", "either"]


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

    def __init__(self, kind: Kind, title: str, tip: str = "", parent: QWidget | None = None):
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
