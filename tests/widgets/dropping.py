"""Dragging a file or folder from a file manager onto a widget."""

from pathlib import Path

from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QWidget


def drop(widget: QWidget, *paths: Path) -> bool:
    """Drop paths; whether the widget took them."""
    assert widget.acceptDrops()
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    how = (
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    place = QPointF(2, 2)
    try:
        enter = QDragEnterEvent(place, *how)
    except TypeError:  # before Qt 6.12
        enter = QDragEnterEvent(place.toPoint(), *how)
    enter.ignore()
    QApplication.sendEvent(widget, enter)
    if enter.isAccepted():
        QApplication.sendEvent(widget, QDropEvent(place, *how))
    return enter.isAccepted()
