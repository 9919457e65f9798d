"""Start, pause and follow a batch run in a child process.

A run over files as the window sees it: its state, its files, its process.

`simmat segment` in a process of its own: paused, stopped and read line by line.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.widgets.batch.form import FilesModel, rows_of
from napari_simmat.widgets.batch.request import (
    BatchRequest,
    OpenedResult,
    PlannedRun,
    RunPreflight,
    open_result_job,
    preflight_job,
    save_request,
    single_task_request,
)
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.subprocess import ChildProcess
from napari_simmat.widgets.worker import Worker
from napari_simmat.widgets.worker import WorkerTask as Work

BatchState = Literal["idle", "running", "paused", "stopping", "killing", "trying"]
_SCAN_DELAY = 300
"""Milliseconds without a change before the files are looked at."""


class BatchController(QObject):
    """Looks at files before a run, runs it in a process, and opens what came out.

    Parameters
    ----------
    files
        The table that follows the run.
    """

    status = Signal(object)
    """A `Status`."""
    changed = Signal()
    """The state is another."""
    looked = Signal(object)
    """A `RunPreflight`."""
    opened = Signal(object)
    """An `OpenedResult`."""

    def __init__(self, files: FilesModel) -> None:
        super().__init__()
        self.files = files
        self.state: BatchState = "idle"
        self.look: RunPreflight | None = None
        self.worker = Worker("simmat-batch")
        self.process = BatchProcess()
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)
        self.process.planned.connect(self._on_planned)
        self.process.progressed.connect(self._on_progressed)
        self.process.ended.connect(self._on_ended)
        self._work: Work | None = None
        self._asked: BatchRequest | None = None
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_SCAN_DELAY)
        self._later.timeout.connect(self._begin_look)
        self._output = Path()
        self._ran = False
        self._is_trial = False
        self._trial: Path | None = None
        self._tried: tuple[Path, Path] | None = None
        self._reason = ""
        self._done = 0
        self._begun = 0.0

    @property
    def busy(self) -> bool:
        """Whether a run goes on."""
        return self.state != "idle"

    @property
    def looking(self) -> bool:
        """Whether the files are still looked at, or a result is being opened."""
        return self._later.isActive() or self._work is not None

    def close(self) -> None:
        """End process and thread."""
        self._later.stop()
        self.process.close()
        self.worker.close()
        self._forget_trial()

    # ------------------------------------------------------------------ before

    def knows(self, request: BatchRequest) -> bool:
        """Whether the files of a request were looked at, and no run has changed them since."""
        return self.look is not None and not self._ran and request.plans_as(self.look.request)

    def look_at(self, request: BatchRequest) -> None:
        """Look at the files of a request, once it has not changed for a moment."""
        self._asked, self.look = request, None
        self._later.start()

    def _begin_look(self) -> None:
        request = self._asked
        if request is not None and not self.busy:
            self.status.emit(Status("working", "Looking at the files", way_out=""))
            self._work = self.worker.submit("Looking", lambda: preflight_job(request))

    def open(self, image: Path, labels: Path) -> None:
        """Open an image and its labels."""
        self._work = self.worker.submit("Opening", lambda: open_result_job(image, labels))

    def _on_returned(self, work: Work, result: Any) -> None:
        if work is not self._work:
            return
        self._work = None
        if isinstance(result, OpenedResult):
            self.opened.emit(result)
        elif isinstance(result, RunPreflight) and result.request == self._asked and not self.busy:
            self.look, self._ran = result, False
            plan = result.plan
            self.files.set_rows([] if plan is None else rows_of(PlannedRun.of(plan)))
            self.looked.emit(result)

    def _on_failed(self, work: Work, reason: str) -> None:
        if work is self._work:
            self._work = None
            self.status.emit(Status("failed", reason))

    # ------------------------------------------------------------------ the run

    def start(self, request: BatchRequest) -> None:
        """Begin the run whose files were looked at."""
        assert self.look is not None
        assert self.look.plan is not None
        save_request(request)
        self._ran = True
        self.files.set_rows(rows_of(PlannedRun.of(self.look.plan)))
        self._run(request, "running")

    def try_one(self, request: BatchRequest, number: int = 0) -> None:
        """Run one file alone, with its results in a temporary folder, and open it."""
        assert self.look is not None
        assert self.look.plan is not None
        self._forget_trial()
        self._trial = Path(tempfile.mkdtemp(prefix="simmat-"))
        single = single_task_request(request, self.look.plan.tasks[number], self._trial)
        self._tried, self._reason = None, ""
        self._run(single, "trying")

    def pause(self) -> None:
        """Stop at the next step, or go on."""
        if self.state in ("running", "paused"):
            self.process.write(PAUSE if self.state == "running" else GO)
            self.state = "paused" if self.state == "running" else "running"
            if self.state == "paused":
                self.status.emit(Status("ready", f"Paused; {pluralize(self._done, 'file')} done."))
            self.changed.emit()

    def stop(self) -> None:
        """End the run after the step it is at; asked again, at once."""
        if self.state in ("running", "paused", "trying"):
            self.state = "stopping"
            self.process.write(STOP)
            self.status.emit(Status("working", "Stopping", way_out=""))
        elif self.state == "stopping":
            self.state = "killing"
            self.process.kill()
        self.changed.emit()

    def _run(self, request: BatchRequest, state: BatchState) -> None:
        self.state, self._done, self._begun = state, 0, time.monotonic()
        self._is_trial = state == "trying"  # also while it is being stopped
        self.status.emit(Status("working", "Starting", way_out=""))
        self.process.start(request.arguments())
        self.changed.emit()

    def _on_planned(self, planned: PlannedRun) -> None:
        self._output = planned.output
        if not self._is_trial:
            self.files.set_rows(rows_of(planned))

    def _on_progressed(self, step: BatchStep) -> None:
        fraction = step.done / step.total if step.total else None
        if self.state in ("running", "trying"):
            self.status.emit(Status("working", step.message, fraction, way_out=""))
        if self._is_trial and step.file is not None:
            self._reason = str(step.file.get("error", ""))
            if not self._reason:
                self._tried = Path(step.file["image"]), Path(step.file["labels_file"])
        if step.number is None or self._is_trial:
            return
        self.files.update(step.number, step.state, step.file)
        if step.file is not None:
            self._done += 1

    def _on_ended(self, ending: BatchEnd) -> None:
        state, self.state = self.state, "idle"
        seconds = time.monotonic() - self._begun
        if self._is_trial:
            self._end_of_trial(ending, stopped=state != "trying")
        elif ending.kind == "done":
            self.status.emit(Status("done", self._summary(), seconds=seconds))
        elif ending.kind == "failed":
            self.status.emit(Status("failed", ending.text))
        elif ending.kind == "cancelled" or state in ("stopping", "killing"):
            wanted = sum(row.image is not None for row in self.files.rows)
            left = f"{self._done} of {pluralize(wanted, 'file')} done"
            text = f"Stopped; {left}. Start again to go on with the others."
            self.status.emit(Status("cancelled", text, seconds=seconds))
        else:
            self.status.emit(
                Status(
                    "failed",
                    "The run's process ended without a word (perhaps the memory was full); start "
                    "again to go on where it was.",
                )
            )
        self.changed.emit()

    def _end_of_trial(self, ending: BatchEnd, stopped: bool) -> None:
        if ending.kind == "done" and self._tried is not None:
            image, labels = self._tried
            self.status.emit(Status("done", f"Tried on {image.name}; nothing was kept."))
            self.open(image, labels)
        elif ending.kind == "cancelled" or stopped:
            self.status.emit(Status("cancelled", "Stopped."))
        else:
            text = self._reason or self.process.last_output or "The process ended without a word."
            self.status.emit(Status("failed", text))

    def _summary(self) -> str:
        rows = self.files.rows
        done = sum(row.state in ("written", "kept") for row in rows)
        failed = sum(row.state == "failed" for row in rows)
        objects = sum(row.objects or 0 for row in rows)
        trouble = f" {failed} could not be segmented; the table says why." if failed else ""
        made = f"{pluralize(done, 'file')} with {pluralize(objects, 'object')}"
        return f"{made} {is_or_are(done)} in {self._output}.{trouble}"

    def _forget_trial(self) -> None:
        if self._trial is not None:
            shutil.rmtree(self._trial, ignore_errors=True)
            self._trial = None


# Words of `cli.remote`, which the window does not import.
PAUSE, GO, STOP = "pause", "go", "stop"
_CANCELLED = 130


@dataclass(frozen=True)
class BatchStep:
    """One line of ``simmat segment --events``.

    Parameters
    ----------
    done, total, message
        Of files, where there are several, and in words.
    number, state
        Which task it is about, and what that is at; None for work before the first.
    file
        What became of it, once that is known.
    """

    done: int
    total: int
    message: str
    number: int | None = None
    state: str = ""
    file: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class BatchEnd:
    """How a run's process ended.

    Parameters
    ----------
    kind
        ``"done"``, whatever became of each file; ``"cancelled"``; ``"failed"``: it said why it
        cannot run; ``"crashed"``: it ended without a word.
    text
        The reason in one sentence.
    """

    kind: Literal["done", "cancelled", "failed", "crashed"]
    text: str = ""


class BatchProcess(ChildProcess):
    """Runs one `simmat segment` after the other."""

    planned = Signal(object)
    """A `PlannedRun`, before it begins: files may have come or gone since they were looked at."""
    progressed = Signal(object)
    """A `BatchStep`."""
    ended = Signal(object)
    """An `BatchEnd`."""

    def __init__(self) -> None:
        super().__init__()
        self._complete = False

    def start(self, arguments: Sequence[str]) -> None:
        """Start `simmat segment`."""
        self._complete = False
        self.begin(arguments)
        self.write(GO)  # from now on it stops by itself when the window is gone

    def read_line(self, line: str) -> bool:
        """Pass on a step."""
        try:
            values = json.loads(line)
            if "plan" in values:
                self.planned.emit(PlannedRun.from_event(values["plan"]))
                return True
            if "finished" in values:
                self._complete = True
                return True
            step = BatchStep(
                int(values["done"]),
                int(values["total"]),
                str(values["message"]),
                values.get("number"),
                str(values.get("state", "")),
                values.get("file"),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return False
        self.progressed.emit(step)
        return True

    def finished(self, code: int | None) -> None:
        """Say how it ended."""
        if self._complete:
            self.ended.emit(BatchEnd("done"))
        elif code == _CANCELLED:
            self.ended.emit(BatchEnd("cancelled"))
        elif code is not None and self.last_output:
            self.ended.emit(BatchEnd("failed", self.last_output))
        else:
            self.ended.emit(BatchEnd("crashed"))
