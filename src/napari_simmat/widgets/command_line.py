"""The command that does the same as a form, to be copied or saved."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import list2cmdline

from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog, QMessageBox, QPlainTextEdit, QWidget

from napari_simmat.io.files import write_text
from napari_simmat.widgets.controls import INDENT, Button, CollapsibleSection, hbox, vbox

SAVE_SETTINGS = "Save settings ..."


class CommandLine(CollapsibleSection):
    """The command line of the form; empty while the form is incomplete."""

    def __init__(self) -> None:
        self.field = QPlainTextEdit()
        self.field.setAccessibleName("Command line")
        self.field.setReadOnly(True)
        self.field.setMaximumHeight(84)
        self.field.setTabChangesFocus(True)
        self.copy = Button("Copy", tip="Copy the command line")
        self.copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.value()))
        self.save = Button(SAVE_SETTINGS, tip="Write a TOML file for simmat ... --config FILE")
        self.save.clicked.connect(self._on_save)
        self._arguments: Sequence[str] = ()
        content = QWidget()
        buttons = hbox(self.copy, self.save)
        buttons.addStretch(1)
        vbox(self.field, buttons, parent=content, indent=INDENT)
        super().__init__("Command line", content)

    def value(self) -> str:
        """The command as shown."""
        return self.field.toPlainText()

    def set_value(self, arguments: Sequence[str]) -> None:
        """Show ``simmat`` with these arguments; nothing if there are none."""
        self._arguments = arguments
        self.field.setPlainText(in_a_shell(arguments) if arguments else "")
        self.copy.setEnabled(bool(arguments))
        self.save.setEnabled(bool(arguments))

    def _on_save(self) -> None:
        start = f"{self._arguments[0]}.toml"
        name, _ = QFileDialog.getSaveFileName(self, SAVE_SETTINGS, start, "TOML (*.toml)")
        if not name:
            return
        try:
            write_text(Path(name).with_suffix(".toml"), settings_text(self._arguments))
        except OSError as error:
            QMessageBox.warning(self, SAVE_SETTINGS, str(error))


def settings_text(arguments: Sequence[str]) -> str:
    """The options of a command line as the TOML that ``--config`` reads.

    What has no name, such as the images, stays on the command line.
    """
    command, *words = arguments
    options: dict[str, list[str | bool]] = {}
    for word in words:
        if not word.startswith("--"):
            continue  # a path, which may hold a "=" too
        name, is_valued, value = word.removeprefix("--").partition("=")
        if is_valued:
            options.setdefault(name, []).append(value)
        else:
            options[name.removeprefix("no-")] = [not name.startswith("no-")]
    lines = [
        f"{name} = {json.dumps(values if len(values) > 1 else values[0], ensure_ascii=False)}"
        for name, values in options.items()
    ]
    return "\n".join([f"[{command}]", *lines, ""])


def in_a_shell(arguments: Sequence[str]) -> str:
    """``simmat`` with its arguments, quoted for the shell."""
    words = ["simmat", *arguments]
    return list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
