"""What the window would do, as a command for a terminal: shown, folded away, and copied."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QPlainTextEdit, QVBoxLayout, QWidget

from napari_simmat.widgets.controls import Button, Fold


class CommandLine(Fold):
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
