"""A `simmat` command in a child process: read line by line, and never left over."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from qtpy.QtCore import QObject, QProcess, QProcessEnvironment, Signal

from napari_simmat.io.files import user_folder
from napari_simmat.io.plain import from_plain
from napari_simmat.progress import JobEvent

log = logging.getLogger(__name__)
CANCELED = 130
"""Exit status of a command that was interrupted."""
_NICE = 5
"""Added to the child's niceness, so that the window keeps its share of the processor."""
_KILL_TIMEOUT = 3000
"""Milliseconds to wait for a killed process to disappear."""
_NOTE = "Note: "


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Parameters
    ----------
    kind
        ``"done"``: its last event was read; ``"canceled"``: interrupted; ``"failed"``: it
        printed a reason and exited; ``"crashed"``: anything else, such as a kill.
    text
        The reason of a failure, one sentence.
    """

    kind: Literal["done", "canceled", "failed", "crashed"]
    text: str = ""


class ChildProcess(QObject):
    """Runs one command after the other; no process outlives this object.

    It has no parent: Qt may delete the widget that owns it while a command runs.
    """

    received = Signal(object)
    """A `JobEvent`."""
    noted = Signal(str)
    """A remark on stderr, such as that only one image is labeled."""
    ended = Signal(object)
    """An `Ending`."""

    def __init__(self) -> None:
        super().__init__()
        self._process: QProcess | None = None
        self._stdout = b""
        self._stderr = b""
        self._messages: Path | None = None
        self._is_complete = False
        self.last_message = ""
        """The last line on stderr that is no remark: usually the reason of a failure."""

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Number of the process; 0 without one."""
        return 0 if self._process is None else int(self._process.processId())

    def start(self, arguments: Sequence[str], messages: Path | None = None) -> None:
        """Start ``simmat`` with `arguments`.

        Parameters
        ----------
        arguments
            What follows ``simmat``; ``--events`` is added.
        messages
            File that all lines but the events are appended to.
        """
        assert self._process is None
        self._stdout = b""
        self._stderr = b""
        self.last_message = ""
        self._is_complete = False
        self._messages = messages
        process = QProcess()
        process.setProgram(sys.executable)
        # -P: modules in the current folder are not imported.
        process.setArguments(["-P", "-m", "napari_simmat", *arguments, "--events"])
        process.setProcessEnvironment(_environment())
        process.readyReadStandardOutput.connect(self._on_stdout)
        process.readyReadStandardError.connect(self._on_stderr)
        process.started.connect(self._on_started)
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        self._process = process
        _open_processes.add(self)
        process.start()

    def write(self, word: str) -> None:
        """Write a line to the command's stdin."""
        if self._process is not None:
            self._process.write(f"{word}\n".encode())

    def kill(self) -> None:
        """Kill it; what it has saved stays."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Kill it without a signal and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.blockSignals(True)
        process.kill()
        process.waitForFinished(_KILL_TIMEOUT)
        process.deleteLater()

    def _on_started(self) -> None:
        try:
            process = psutil.Process(self.pid)
            if sys.platform == "win32":
                process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
            else:
                process.nice(min(19, psutil.Process().nice() + _NICE))
        except psutil.Error:  # it has ended already
            log.debug("the child's priority stays", exc_info=True)

    def _on_stdout(self) -> None:
        assert self._process is not None
        self._stdout += bytes(self._process.readAllStandardOutput())
        *lines, self._stdout = self._stdout.split(b"\n")
        for line in lines:
            event = read_event(line)
            if event is None:
                self._log(line)
                continue
            self._is_complete = self._is_complete or event.is_last
            self.received.emit(event)

    def _on_stderr(self) -> None:
        assert self._process is not None
        self._stderr += bytes(self._process.readAllStandardError())
        *lines, self._stderr = self._stderr.split(b"\n")
        for line in lines:
            self._log(line)
            text = line.decode("utf-8", "replace").strip()
            if text.startswith(_NOTE):
                self.noted.emit(text.removeprefix(_NOTE))
            elif text:
                self.last_message = text

    def _log(self, line: bytes) -> None:
        if self._messages is None:
            return
        try:
            self._messages.parent.mkdir(parents=True, exist_ok=True)
            with self._messages.open("ab") as file:
                file.write(line + b"\n")
        except OSError:  # a full disk: the window still shows the messages
            self._messages = None

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart and self._process is not None:
            self.last_message = f"{sys.executable} could not be started."
            self._end(1)

    def _on_finished(self, code: int, how: QProcess.ExitStatus) -> None:
        if self._process is None:
            return
        self._on_stdout()
        self._on_stderr()
        if self._stderr:  # a last line without its newline
            self._stderr += b"\n"
            self._on_stderr()
        self._end(None if how == QProcess.ExitStatus.CrashExit else code)

    def _end(self, code: int | None) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.blockSignals(True)
            process.deleteLater()
        if self._is_complete:
            ending = Ending("done")
        elif code == CANCELED:
            ending = Ending("canceled", self.last_message)
        elif code is not None and self.last_message:
            ending = Ending("failed", self.last_message)
        else:
            ending = Ending("crashed")
        self.ended.emit(ending)


def read_event(line: bytes) -> JobEvent | None:
    """Parse a line of stdout; None if it is not an event, since libraries print there too."""
    try:
        return from_plain(JobEvent, json.loads(line))
    except ValueError:
        return None


def _environment() -> QProcessEnvironment:
    environment = QProcessEnvironment.systemEnvironment()
    for name in list(environment.keys()):
        # On a cluster's node the desktop is a job itself; the child must not join it as a task.
        if name.startswith("SLURM_") or name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
            environment.remove(name)
    environment.insert("NAPARI_SIMMAT_HOME", os.fspath(user_folder().absolute()))
    environment.insert("PYTHONUTF8", "1")
    environment.insert("NO_COLOR", "1")
    return environment


_open_processes: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Kill what still runs when the interpreter exits."""
    for process in list(_open_processes):
        process.close()
