"""A part of the form.

It computes nothing: it shows what it is given, and emits what the user asks for. A button emits the
name of its action.
"""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_simmat.widgets.controls import Button
from napari_simmat.widgets.shortcuts import SHORTCUTS

KEYS = {each.action: str(each.binding()) for each in SHORTCUTS}


class Panel(QWidget):
    """A part of the form."""

    acted = Signal(str)
    """The name of an action."""

    def button(self, action: str, text: str, tip: str, kind: type[Button] = Button) -> Button:
        """A button that emits its action, and shows the key of it."""
        button = kind(text, KEYS.get(action, ""), tip)
        button.clicked.connect(lambda: self.acted.emit(action))
        return button
