"""`simmat train` in a process of its own: read line by line, stopped, and never left over."""

from __future__ import annotations

import atexit
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

from napari_simmat.engine.folders import user_folder
from napari_simmat.widgets.train_events import Metrics, read_event

log = logging.getLogger(__name__)

_NICE = 5
"""How much the training steps back for the window and whatever else the user does."""
_PATIENCE = 3000
"""Milliseconds for a killed process to be gone."""
_NOTE = "Note: "


@dataclass(frozen=True)
class Ending:
    """How a training's process ended.

    Parameters
    ----------
    kind
        ``"done"``: the checkpoint is written; ``"failed"``: the training said why it cannot go
        on; ``"crashed"``: it ended without a word.
    text
        The reason in one sentence.
    metrics
        Of a checkpoint that is done.
    """

    kind: Literal["done", "failed", "crashed"]
    text: str = ""
    metrics: Metrics | None = None


class TrainingProcess(QObject):
    """Runs one training after the other; the process ends with this object at the latest.

    It has no parent: the widget that owns it may be deleted by Qt while a training runs.
    """

    told = Signal(object)
    """An `Event`."""
    noted = Signal(str)
    """A remark of the training, such as that only one image is labelled."""
    ended = Signal(object)
    """An `Ending`."""

    def __init__(self) -> None:
        super().__init__()
        self._process: QProcess | None = None
        self._lines = b""
        self._words = b""
        self._said = ""
        self._metrics: Metrics | None = None
        self._messages: Path | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        return 0 if self._process is None else int(self._process.processId())

    def start(self, arguments: Sequence[str], messages: Path) -> None:
        """Start ``simmat`` with `arguments`.

        Parameters
        ----------
        arguments
            Of `simmat train`; that it speaks in lines of JSON is added.
        messages
            A file to which everything goes that is said beside the events.
        """
        assert self._process is None
        self._lines, self._words, self._said, self._metrics = b"", b"", "", None
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
        process.waitForFinished(_PATIENCE)
        process.deleteLater()

    def _on_started(self) -> None:
        try:
            process = psutil.Process(self.pid)
            if sys.platform == "win32":
                process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
            else:
                process.nice(min(19, psutil.Process().nice() + _NICE))
        except psutil.Error:  # it has ended already
            log.debug("the training's priority stays", exc_info=True)

    def _on_lines(self) -> None:
        assert self._process is not None
        self._lines += bytes(self._process.readAllStandardOutput())
        *whole, self._lines = self._lines.split(b"\n")
        for line in whole:
            event = read_event(line.decode("utf-8", "replace"))
            if event is None:
                self._keep(line)
            elif event.metrics is not None:
                self._metrics = event.metrics
            else:
                self.told.emit(event)

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
                self._said = text

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
            self._end(Ending("failed", f"{sys.executable} could not be started."))

    def _on_finished(self, code: int, how: QProcess.ExitStatus) -> None:
        if self._process is None:
            return
        self._on_lines()
        self._on_words()
        if self._words:
            self._words += b"\n"
            self._on_words()
        if how == QProcess.ExitStatus.CrashExit:
            self._end(Ending("crashed"))
        elif code == 0 and self._metrics is not None:
            self._end(Ending("done", metrics=self._metrics))
        elif self._said:
            self._end(Ending("failed", self._said))
        else:
            self._end(Ending("crashed"))

    def _end(self, ending: Ending) -> None:
        process, self._process = self._process, None
        if process is not None:
            _disconnect(process)
            process.deleteLater()
        self.ended.emit(ending)


def _environment() -> QProcessEnvironment:
    environment = QProcessEnvironment.systemEnvironment()
    for name in list(environment.keys()):
        # A desktop on a cluster's node is a job itself; the training is no task of it.
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


_open_processes: weakref.WeakSet[TrainingProcess] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """No training outlives the window that shows it."""
    for process in list(_open_processes):
        process.close()
