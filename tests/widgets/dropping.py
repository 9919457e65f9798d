"""Dragging a file or folder from a file manager onto a widget."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QMimeData, QPoint, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QWidget


def drop(widget: QWidget, path: Path) -> bool:
    """Drop a path; whether the widget took it."""
    assert widget.acceptDrops()
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    how = (
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    enter = QDragEnterEvent(QPoint(2, 2), *how)
    enter.ignore()
    QApplication.sendEvent(widget, enter)
    if enter.isAccepted():
        QApplication.sendEvent(widget, QDropEvent(QPoint(2, 2).toPointF(), *how))
    return enter.isAccepted()
