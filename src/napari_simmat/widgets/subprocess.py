"""A `simmat` command in a child process: read line by line, and never left over.

`JobController` and `JobTab` are what the Train and the Batch tab have in common around it.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shlex
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import list2cmdline
from typing import Literal

import psutil
from qtpy.QtCore import QObject, QProcess, QProcessEnvironment, Signal
from qtpy.QtGui import QDropEvent, QGuiApplication
from qtpy.QtWidgets import (
    QFileDialog,
    QFrame,
    QMessageBox,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_simmat.io.files import user_folder, write_text
from napari_simmat.io.plain import from_plain
from napari_simmat.progress import JobEvent
from napari_simmat.widgets.controls import (
    INDENT,
    Button,
    CollapsibleSection,
    Part,
    Status,
    StatusLine,
    VerticalScroll,
    hbox,
    vbox,
)
from napari_simmat.widgets.forms import DropTarget, PathKind
from napari_simmat.widgets.worker import Worker

log = logging.getLogger(__name__)

CANCELED = 130
"""Exit status of a command that was interrupted."""
_NICE = 5
"""Added to the child's niceness, so that the window keeps its share of the processor."""
_KILL_TIMEOUT = 3000
"""Milliseconds to wait for a killed process to disappear."""
_NOTE = "Note: "
SAVE_SETTINGS = "Save settings ..."


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
        self._stdout, self._stderr, self.last_message = b"", b"", ""
        self._is_complete, self._messages = False, messages
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


class JobController(QObject):
    """Runs one job of a tab at a time: a command in a child process, and work around it.

    It has no parent: Qt may delete the widget that shows it, and it must be closed even then.

    Parameters
    ----------
    thread
        Name of the thread for work that needs no process of its own.

    Attributes
    ----------
    state
        Current phase of the job; ``idle`` without one.
    worker, process
        The thread and the process.
    """

    status = Signal(object)
    """A `Status`."""
    changed = Signal()
    """`state` changed, or what the user may do next."""

    def __init__(self, thread: str) -> None:
        super().__init__()
        self.state = "idle"
        self.worker = Worker(thread)
        self.process = ChildProcess()
        self.process.received.connect(self._on_event)
        self.process.ended.connect(self._on_ended)
        self._begun = 0.0

    @property
    def busy(self) -> bool:
        """Whether there is a job."""
        return self.state != "idle"

    def close(self) -> None:
        """End thread and process without a signal."""
        self.worker.close()
        self.process.close()

    def _on_event(self, event: JobEvent) -> None:
        raise NotImplementedError

    def _on_ended(self, ending: Ending) -> None:
        raise NotImplementedError

    def _enter(self, state: str, text: str = "") -> None:
        """Begin another phase, and say what happens in it."""
        self.state = state
        if text:
            self._say(text)
        self.changed.emit()

    def _say(self, text: str, fraction: float | None = None, left: str = "") -> None:
        way_out = "Cancel" if self.state == "preparing" else ""
        self.status.emit(Status("working", text, fraction, way_out=way_out, left=left))

    def _kill(self) -> None:
        self._enter("killing")
        self.process.kill()

    def _fail(self, text: str) -> None:
        self._rest(Status("failed", text))

    def _rest(self, status: Status) -> None:
        """The job is over, with this outcome."""
        self.state = "idle"
        self.status.emit(status)
        self.changed.emit()


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


class JobTab(DropTarget):
    """A tab whose job runs in a child process: settings above, progress below.

    Parameters
    ----------
    form
        The settings.
    drops
        Which paths can be dropped on the tab while no job runs.
    job
        The job; the status line shows its status.

    Attributes
    ----------
    settings, command, status
        The section with the form, the same as a command line, and the status line.
    """

    def __init__(self, form: QWidget, drops: PathKind, job: JobController) -> None:
        super().__init__(drops)
        self._job = job
        self.settings = CollapsibleSection("Settings", form)
        self.settings.set_open(True)
        self.command = CommandLine()
        self.status = StatusLine()
        job.status.connect(self.status.set_value)
        job.changed.connect(self._on_changed)

    def _on_changed(self) -> None:
        raise NotImplementedError

    def _lay_out(self, *parts: Part) -> QVBoxLayout:
        above, rule = QWidget(), QFrame()
        vbox(self.settings, self.command, parent=above, spacing=8)
        rule.setFrameShape(QFrame.Shape.HLine)
        layout = vbox(VerticalScroll(above), rule, *parts, parent=self, spacing=8)
        layout.setContentsMargins(8, 8, 8, 8)
        return layout

    def _dropped(self, event: QDropEvent) -> str:
        return "" if self._job.busy else super()._dropped(event)
