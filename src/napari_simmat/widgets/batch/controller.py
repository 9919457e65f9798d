"""Scans the files of a batch run, runs them, and opens results."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qtpy.QtCore import QObject, QTimer, Signal

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.widgets.batch.form import OPENABLE_STATES, FilesModel, rows_of
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
from napari_simmat.widgets.subprocess import ChildProcess, Ending
from napari_simmat.widgets.worker import BackgroundJob, Worker

BatchState = Literal["idle", "running", "paused", "stopping", "killing", "trying"]

SCANNING = "Scanning files"
STOPPED = "Stopped."
CRASHED = (
    "The batch process stopped unexpectedly, possibly out of memory. Start it again to resume."
)
TRIAL_CRASHED = "The process stopped unexpectedly, possibly out of memory."
# Words of `cli.terminal`, which the window does not import.
PAUSE, GO, STOP = "pause", "go", "stop"
_SCAN_DELAY = 300
"""Milliseconds without a change of the form before the files are scanned."""


@dataclass(frozen=True)
class Step:
    """One line of ``simmat segment --events``.

    Parameters
    ----------
    fraction, message
        The completed part of the run, and what happens in words.
    number, state
        Index of the task, and its state; None for work before the first task.
    file
        The task's outcome, once known.
    is_last
        Whether the run is complete.
    """

    fraction: float | None = None
    message: str = ""
    number: int | None = None
    state: str = ""
    file: Mapping[str, Any] | None = None
    is_last: bool = False


def read_event(line: str) -> PlannedRun | Step | None:
    """Parse a line of ``simmat segment --events``; None for anything else."""
    try:
        values = json.loads(line)
        if "plan" in values:
            return PlannedRun.read(values["plan"])
        if "finished" in values:
            return Step(is_last=True)
        return Step(
            values["fraction"],
            str(values["message"]),
            values.get("number"),
            str(values.get("state", "")),
            values.get("file"),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


class BatchController(QObject):
    """Scans the files before a run, runs them in a child process, and opens results.

    Parameters
    ----------
    files
        The table that follows the run.
    """

    status = Signal(object)
    """A `Status`."""
    changed = Signal()
    """`state` changed."""
    scanned = Signal(object)
    """A `RunPreflight`."""
    opened = Signal(object)
    """An `OpenedResult`."""

    def __init__(self, files: FilesModel) -> None:
        super().__init__()
        self.files = files
        self.state: BatchState = "idle"
        self.preflight: RunPreflight | None = None
        self.worker = Worker("simmat-batch")
        self.process = ChildProcess(read_event)
        self._job = BackgroundJob(self.worker, parent=self)
        self._job.returned.connect(self._on_returned)
        self._job.failed.connect(lambda reason: self.status.emit(Status("failed", reason)))
        self.process.received.connect(self._on_event)
        self.process.ended.connect(self._on_ended)
        self._wanted: BatchRequest | None = None
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_SCAN_DELAY)
        self._later.timeout.connect(self._start_scan)
        self._output = Path()
        self._ran = False
        self._is_trial = False
        self._trial: Path | None = None
        self._tried: tuple[Path, Path] | None = None
        self._reason = ""
        self._begun = self._begun_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether a run is active."""
        return self.state != "idle"

    @property
    def scanning(self) -> bool:
        """Whether files are being scanned, or a result is being opened."""
        return self._later.isActive() or self._job.busy

    def close(self) -> None:
        """End process and thread."""
        self._later.stop()
        self.process.close()
        self.worker.close()
        self._forget_trial()

    # --------------------------------------------------------------- before a run

    def has_scanned(self, request: BatchRequest) -> bool:
        """Whether the request's files were scanned, and no run has changed them since."""
        return (
            self.preflight is not None
            and not self._ran
            and request.plans_as(self.preflight.request)
        )

    def scan(self, request: BatchRequest) -> None:
        """Scan the request's files as soon as it stops changing."""
        self._wanted, self.preflight = request, None
        self._later.start()

    def _start_scan(self) -> None:
        request = self._wanted
        if request is not None and not self.busy:
            self.status.emit(Status("working", SCANNING, way_out=""))
            self._job.start(SCANNING, lambda: preflight_job(request))

    def open(self, image: Path, labels: Path) -> None:
        """Open an image and its labels."""
        self._job.start("Opening", lambda: open_result_job(image, labels))

    def _on_returned(self, result: Any) -> None:
        if isinstance(result, OpenedResult):
            self.opened.emit(result)
        elif isinstance(result, RunPreflight) and result.request == self._wanted and not self.busy:
            self.preflight, self._ran = result, False
            plan = result.plan
            self.files.set_rows([] if plan is None else rows_of(PlannedRun.of(plan)))
            self.scanned.emit(result)

    # -------------------------------------------------------------------- the run

    def start(self, request: BatchRequest) -> None:
        """Run the files that were scanned."""
        assert self.preflight is not None
        assert self.preflight.plan is not None
        save_request(request)
        self._ran = True
        self.files.set_rows(rows_of(PlannedRun.of(self.preflight.plan)))
        self._run(request, "running")

    def try_one(self, request: BatchRequest, number: int = 0) -> None:
        """Run one file into a temporary folder, and open the result."""
        assert self.preflight is not None
        assert self.preflight.plan is not None
        self._forget_trial()
        self._trial = Path(tempfile.mkdtemp(prefix="simmat-"))
        single = single_task_request(request, self.preflight.plan.tasks[number], self._trial)
        self._tried, self._reason = None, ""
        self._run(single, "trying")

    def pause(self) -> None:
        """Pause at the next step, or resume."""
        if self.state in ("running", "paused"):
            self.process.write(PAUSE if self.state == "running" else GO)
            self.state = "paused" if self.state == "running" else "running"
            if self.state == "paused":
                self.status.emit(Status("ready", f"Paused; {self._counted()}."))
            self.changed.emit()

    def stop(self) -> None:
        """Stop after the current step; a second call kills the process."""
        if self.state in ("running", "paused", "trying"):
            self.state = "stopping"
            self.process.write(STOP)
            self.status.emit(Status("working", "Stopping", way_out=""))
        elif self.state == "stopping":
            self.state = "killing"
            self.process.kill()
        self.changed.emit()

    def _run(self, request: BatchRequest, state: BatchState) -> None:
        self.state, self._begun, self._begun_at = state, time.monotonic(), time.time()
        self._is_trial = state == "trying"  # stays while the trial is being stopped
        self.status.emit(Status("working", "Starting", way_out=""))
        self.process.start(request.arguments())
        self.process.write(GO)  # after its first word it stops when its stdin closes
        self.changed.emit()

    def _on_event(self, event: PlannedRun | Step) -> None:
        if isinstance(event, PlannedRun):
            self._output = event.output
            if not self._is_trial:
                self.files.set_rows(rows_of(event))
        elif not event.is_last:
            self._on_step(event)

    def _on_step(self, step: Step) -> None:
        if self.state in ("running", "trying"):
            self.status.emit(Status("working", step.message, step.fraction, way_out=""))
        if self._is_trial and step.file is not None:
            self._reason = str(step.file.get("error", ""))
            if not self._reason:
                self._tried = Path(step.file["image"]), Path(step.file["labels_file"])
        if step.number is None or self._is_trial:
            return
        self.files.update(step.number, step.state, step.file)

    def _on_ended(self, ending: Ending) -> None:
        state, self.state = self.state, "idle"
        seconds = time.monotonic() - self._begun
        if not self._is_trial:
            self.files.end_run(self._begun_at)
        if self._is_trial:
            self._end_of_trial(ending, stopped=state != "trying")
        elif ending.kind == "done":
            self.status.emit(Status("done", self._summary(), seconds=seconds))
        elif ending.kind == "failed":
            self.status.emit(Status("failed", ending.text))
        elif ending.kind == "canceled" or state in ("stopping", "killing"):
            text = f"{STOPPED} {self._counted()}; start to resume."
            self.status.emit(Status("canceled", text, seconds=seconds))
        else:
            self.status.emit(Status("failed", CRASHED))
        self.changed.emit()

    def _end_of_trial(self, ending: Ending, stopped: bool) -> None:
        if ending.kind == "done" and self._tried is not None:
            image, labels = self._tried
            self.status.emit(Status("done", f"Tried on {image.name}; nothing was kept."))
            self.open(image, labels)
        elif ending.kind == "canceled" or stopped:
            self.status.emit(Status("canceled", STOPPED))
        else:
            text = self._reason or self.process.last_message or TRIAL_CRASHED
            self.status.emit(Status("failed", text))

    def _counted(self) -> str:
        """How many files are done, and how many failed."""
        rows = self.files.rows
        done = sum(row.state in OPENABLE_STATES for row in rows)
        failed = sum(row.state == "failed" for row in rows)
        wanted = pluralize(sum(row.image is not None for row in rows), "file")
        return f"{done} of {wanted} done" + (f", {failed} failed" if failed else "")

    def _summary(self) -> str:
        rows = self.files.rows
        done = sum(row.state in OPENABLE_STATES for row in rows)
        failed = sum(row.state == "failed" for row in rows)
        objects = sum(row.objects or 0 for row in rows)
        trouble = f" {failed} could not be segmented: click its row to see why." if failed else ""
        made = f"{pluralize(done, 'file')} with {pluralize(objects, 'object')}"
        return f"{made} {is_or_are(done)} in {self._output}.{trouble}"

    def _forget_trial(self) -> None:
        if self._trial is not None:
            shutil.rmtree(self._trial, ignore_errors=True)
            self._trial = None
