"""Lists and tables search for what is typed; shortcuts shall act there as well."""

from __future__ import annotations

from contextlib import suppress

from app_model.backends.qt import qkeysequence2modelkeybinding
from qtpy.QtCore import QCoreApplication, QEvent, QObject
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import QAbstractItemView, QApplication, QComboBox, QDockWidget, QWidget

from napari_simmat.widgets.keys import SHORTCUTS, typing


class ListKeys(QObject):
    """Hands shortcuts on to the viewer while a list or a table of its window has the focus.

    Parameters
    ----------
    inside
        A widget of the window; lists of other windows are left alone.
    """

    def __init__(self, inside: QWidget) -> None:
        super().__init__(inside)
        self._inside = inside
        self._watched: QWidget | None = None
        self._keys = {each.binding() for each in SHORTCUTS}
        application = QApplication.instance()
        assert isinstance(application, QApplication)
        self._application = application
        application.focusChanged.connect(self._on_focus)

    def release(self) -> None:
        """Hand nothing on any more."""
        self._application.focusChanged.disconnect(self._on_focus)
        self._watch(None)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Send a shortcut to the window in place of the list."""
        if event.type() != QEvent.Type.KeyPress or typing() or not self._is_shortcut(event):
            return super().eventFilter(watched, event)
        window = self._window()
        if window is None:
            return super().eventFilter(watched, event)
        QCoreApplication.sendEvent(window, event.clone())
        return True

    def _on_focus(self, _: QWidget | None, focused: QWidget | None) -> None:
        searches = isinstance(focused, (QAbstractItemView, QComboBox))
        self._watch(focused if searches and self._is_ours(focused) else None)

    def _watch(self, widget: QWidget | None) -> None:
        if self._watched is not None:
            with suppress(RuntimeError):  # Qt has deleted it
                self._watched.removeEventFilter(self)
        self._watched = widget
        if widget is not None:
            widget.installEventFilter(self)

    def _is_ours(self, widget: QWidget) -> bool:
        return widget.window() in (self._window(), self._inside.window())

    def _window(self) -> QWidget | None:
        """The viewer's window, also while the widget floats in one of its own."""
        window = self._inside.window()
        return window.parentWidget() if isinstance(window, QDockWidget) else window

    def _is_shortcut(self, event: QKeyEvent) -> bool:
        with suppress(KeyError, ValueError, TypeError):  # a key that has no name there
            sequence = QKeySequence(event.keyCombination())
            return qkeysequence2modelkeybinding(sequence) in self._keys
        return False
