"""`simmat` in a process of its own: read line by line, and never left over."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

import psutil
from qtpy.QtCore import QObject, QProcess, QProcessEnvironment, Signal

from napari_simmat.io.files import user_folder

log = logging.getLogger(__name__)

_NICE = 5
"""How much the child steps back for the window and whatever else the user does."""
_KILL_TIMEOUT = 3000
"""Milliseconds for a killed process to be gone."""
_NOTE = "Note: "


class ChildProcess(QObject):
    """Runs one command after the other; the process ends with this object at the latest.

    It has no parent: the widget that owns it may be deleted by Qt while a command runs. A kind of
    command reads its lines in `read_line` and says in `finished` how it ended.
    """

    noted = Signal(str)
    """A remark of the command, such as that only one image is labelled."""

    def __init__(self) -> None:
        super().__init__()
        self._process: QProcess | None = None
        self._lines = b""
        self._words = b""
        self._messages: Path | None = None
        self.last_output = ""
        """The last thing it said that was no remark: mostly why it failed."""

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        return 0 if self._process is None else int(self._process.processId())

    def begin(self, arguments: Sequence[str], messages: Path | None = None) -> None:
        """Start ``simmat`` with `arguments`.

        Parameters
        ----------
        arguments
            What follows ``simmat``; that it speaks in lines of JSON is added.
        messages
            A file to which everything goes that is said beside the lines that are understood.
        """
        assert self._process is None
        self._lines, self._words, self.last_output = b"", b"", ""
        self._messages = messages
        process = QProcess()
        process.setProgram(sys.executable)
        # -P: what lies in the current folder is not imported.
        process.setArguments(["-P", "-m", "napari_simmat", *arguments, "--events"])
        process.setProcessEnvironment(_environment())
        process.readyReadStandardOutput.connect(self._on_lines)
        process.readyReadStandardError.connect(self._on_words)
        process.started.connect(self._on_started)
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        self._process = process
        _open_processes.add(self)
        process.start()

    def write(self, word: str) -> None:
        """Say a word on the command's stdin."""
        if self._process is not None:
            self._process.write(f"{word}\n".encode())

    def kill(self) -> None:
        """End it at once; what it saved last is kept."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End it without a word, and see it gone."""
        process, self._process = self._process, None
        if process is None:
            return
        _disconnect(process)
        process.kill()
        process.waitForFinished(_KILL_TIMEOUT)
        process.deleteLater()

    def read_line(self, line: str) -> bool:
        """Take up a line of stdout; whether it was understood."""
        raise NotImplementedError

    def finished(self, code: int | None) -> None:
        """It has ended: with a status, or without one when it crashed or was killed."""
        raise NotImplementedError

    def _on_started(self) -> None:
        try:
            process = psutil.Process(self.pid)
            if sys.platform == "win32":
                process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
            else:
                process.nice(min(19, psutil.Process().nice() + _NICE))
        except psutil.Error:  # it has ended already
            log.debug("the child's priority stays", exc_info=True)

    def _on_lines(self) -> None:
        assert self._process is not None
        self._lines += bytes(self._process.readAllStandardOutput())
        *whole, self._lines = self._lines.split(b"\n")
        for line in whole:
            if not self.read_line(line.decode("utf-8", "replace")):
                self._keep(line)

    def _on_words(self) -> None:
        assert self._process is not None
        self._words += bytes(self._process.readAllStandardError())
        *whole, self._words = self._words.split(b"\n")
        for line in whole:
            self._keep(line)
            text = line.decode("utf-8", "replace").strip()
            if text.startswith(_NOTE):
                self.noted.emit(text.removeprefix(_NOTE))
            elif text:
                self.last_output = text

    def _keep(self, line: bytes) -> None:
        if self._messages is None:
            return
        try:
            self._messages.parent.mkdir(parents=True, exist_ok=True)
            with self._messages.open("ab") as file:
                file.write(line + b"\n")
        except OSError:  # a full disk: what was said is shown, if not kept
            self._messages = None

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart and self._process is not None:
            self.last_output = f"{sys.executable} could not be started."
            self._end(1)

    def _on_finished(self, code: int, how: QProcess.ExitStatus) -> None:
        if self._process is None:
            return
        self._on_lines()
        self._on_words()
        if self._words:
            self._words += b"\n"
            self._on_words()
        self._end(None if how == QProcess.ExitStatus.CrashExit else code)

    def _end(self, code: int | None) -> None:
        process, self._process = self._process, None
        if process is not None:
            _disconnect(process)
            process.deleteLater()
        self.finished(code)


def _environment() -> QProcessEnvironment:
    environment = QProcessEnvironment.systemEnvironment()
    for name in list(environment.keys()):
        # A desktop on a cluster's node is a job itself; the child is no task of it.
        if name.startswith("SLURM_") or name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
            environment.remove(name)
    environment.insert("NAPARI_SIMMAT_HOME", os.fspath(user_folder().absolute()))
    environment.insert("PYTHONUTF8", "1")
    environment.insert("NO_COLOR", "1")
    return environment


def _disconnect(process: QProcess) -> None:
    for signal in (
        process.readyReadStandardOutput,
        process.readyReadStandardError,
        process.started,
        process.finished,
        process.errorOccurred,
    ):
        signal.disconnect()


_open_processes: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """No child outlives the window that shows it."""
    for process in list(_open_processes):
        process.close()
