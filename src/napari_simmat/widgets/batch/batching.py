"""A run over files as the window sees it: its state, its files, its process."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_simmat.widgets.batch.look import Look, Opened, Planned, alone, looking, opening
from napari_simmat.widgets.batch.process import GO, PAUSE, STOP, BatchProcess, Ending, Step
from napari_simmat.widgets.batch.request import BatchRequest, remember
from napari_simmat.widgets.batch.table import FilesModel, rows_of
from napari_simmat.widgets.status import Status
from napari_simmat.widgets.worker import Task as Work
from napari_simmat.widgets.worker import Worker
from napari_simmat.words import are, counted

State = Literal["idle", "running", "paused", "stopping", "killing", "trying"]
_WAIT = 300
"""Milliseconds without a change before the files are looked at."""


class Batching(QObject):
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
    """A `Look`."""
    opened = Signal(object)
    """An `Opened`."""

    def __init__(self, files: FilesModel) -> None:
        super().__init__()
        self.files = files
        self.state: State = "idle"
        self.look: Look | None = None
        self.worker = Worker("simmat-batch")
        self.process = BatchProcess()
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)
        self.process.planned.connect(self._on_planned)
        self.process.told.connect(self._on_told)
        self.process.ended.connect(self._on_ended)
        self._work: Work | None = None
        self._asked: BatchRequest | None = None
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_WAIT)
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
            self._work = self.worker.submit("Looking", lambda: looking(request))

    def open(self, image: Path, labels: Path) -> None:
        """Open an image and its labels."""
        self._work = self.worker.submit("Opening", lambda: opening(image, labels))

    def _on_returned(self, work: Work, result: Any) -> None:
        if work is not self._work:
            return
        self._work = None
        if isinstance(result, Opened):
            self.opened.emit(result)
        elif isinstance(result, Look) and result.request == self._asked and not self.busy:
            self.look, self._ran = result, False
            plan = result.plan
            self.files.set_rows([] if plan is None else rows_of(Planned.of(plan)))
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
        remember(request)
        self._ran = True
        self.files.set_rows(rows_of(Planned.of(self.look.plan)))
        self._run(request, "running")

    def try_one(self, request: BatchRequest, number: int = 0) -> None:
        """Run one file alone, with its results in a temporary folder, and open it."""
        assert self.look is not None
        assert self.look.plan is not None
        self._forget_trial()
        self._trial = Path(tempfile.mkdtemp(prefix="simmat-"))
        single = alone(request, self.look.plan.tasks[number], self._trial)
        self._tried, self._reason = None, ""
        self._run(single, "trying")

    def pause(self) -> None:
        """Stop at the next step, or go on."""
        if self.state in ("running", "paused"):
            self.process.write(PAUSE if self.state == "running" else GO)
            self.state = "paused" if self.state == "running" else "running"
            if self.state == "paused":
                self.status.emit(Status("ready", f"Paused; {counted(self._done, 'file')} done."))
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

    def _run(self, request: BatchRequest, state: State) -> None:
        self.state, self._done, self._begun = state, 0, time.monotonic()
        self._is_trial = state == "trying"  # also while it is being stopped
        self.status.emit(Status("working", "Starting", way_out=""))
        self.process.start(request.arguments())
        self.changed.emit()

    def _on_planned(self, planned: Planned) -> None:
        self._output = planned.output
        if not self._is_trial:
            self.files.set_rows(rows_of(planned))

    def _on_told(self, step: Step) -> None:
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

    def _on_ended(self, ending: Ending) -> None:
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
            left = f"{self._done} of {counted(wanted, 'file')} done"
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

    def _end_of_trial(self, ending: Ending, stopped: bool) -> None:
        if ending.kind == "done" and self._tried is not None:
            image, labels = self._tried
            self.status.emit(Status("done", f"Tried on {image.name}; nothing was kept."))
            self.open(image, labels)
        elif ending.kind == "cancelled" or stopped:
            self.status.emit(Status("cancelled", "Stopped."))
        else:
            text = self._reason or self.process.said or "The process ended without a word."
            self.status.emit(Status("failed", text))

    def _summary(self) -> str:
        rows = self.files.rows
        done = sum(row.state in ("written", "kept") for row in rows)
        failed = sum(row.state == "failed" for row in rows)
        objects = sum(row.objects or 0 for row in rows)
        trouble = f" {failed} could not be segmented; the table says why." if failed else ""
        made = f"{counted(done, 'file')} with {counted(objects, 'object')}"
        return f"{made} {are(done)} in {self._output}.{trouble}"

    def _forget_trial(self) -> None:
        if self._trial is not None:
            shutil.rmtree(self._trial, ignore_errors=True)
            self._trial = None
