"""The batch run of the window: its process, and what it says."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.progress import GO, PAUSE, STOP, JobEvent
from napari_simmat.widgets.batch.file_table import FilesModel, rows_of
from napari_simmat.widgets.batch.opened_result import OpenedResult, open_result_job
from napari_simmat.widgets.batch.preflight import RunPreflight, preflight_job
from napari_simmat.widgets.batch.request import BatchRequest, save_request, single_task_request
from napari_simmat.widgets.child_process import Ending
from napari_simmat.widgets.job_controller import JobController
from napari_simmat.widgets.status_line import Status, StatusKind
from napari_simmat.widgets.worker import BackgroundJob, later

SCANNING = "Scanning files"
STOPPED = "Stopped."
REVIEW = "Review {}"
"""The button after a run."""
TO_RESUME = "Stopped. {}; start to resume."
CRASHED = (
    "The batch process stopped unexpectedly, possibly out of memory. Start it again to resume."
)
TRIAL_DONE = "Tried on {}; nothing was kept."
TRIAL_CRASHED = "The process stopped unexpectedly, possibly out of memory."
SOME_FAILED = " {} could not be segmented; its row says why."
OPENABLE_STATES = ("written", "kept")
"""States of files that can be opened."""
_SCAN_DELAY = 300
"""Milliseconds without a change of the form before the files are scanned."""


class BatchController(JobController):
    """Scans the files before a run, runs them in a child process, and opens results.

    `state` is ``idle``, ``running``, ``paused``, ``trying``, ``stopping`` or ``killing``.

    Parameters
    ----------
    files
        The table that follows the run.
    """

    scanned = Signal(object)
    """A `RunPreflight`."""
    opened = Signal(object)
    """An `OpenedResult`."""

    def __init__(self, files: FilesModel) -> None:
        super().__init__("simmat-batch")
        self.files = files
        self.preflight: RunPreflight | None = None
        # Scanning and opening are one job: the newer takes the place of the other.
        self._job = BackgroundJob(self.worker, parent=self)
        self._job.returned.connect(self._on_returned)
        self._job.failed.connect(lambda reason: self.status.emit(Status("failed", reason)))
        self._request: BatchRequest | None = None
        self._later = later(self, self._start_scan, _SCAN_DELAY)
        self._output = ""
        self._has_run = False
        self._trial: Path | None = None
        self._trial_outcomes: list[Mapping[str, Any]] = []
        self._is_trial = False
        self._began_at = 0.0

    @property
    def scanning(self) -> bool:
        """Whether files are being scanned, or a result is being opened."""
        return self._later.isActive() or self._job.busy

    def close(self) -> None:
        """End process and thread."""
        self._later.stop()
        super().close()
        self._remove_trial()

    # --------------------------------------------------------------- before a run

    def has_scanned(self, request: BatchRequest) -> bool:
        """Whether the request's files were scanned, and no run has changed them since."""
        if self.preflight is None or self._has_run:
            return False
        before = self.preflight.request
        return _planned(request) == _planned(before)

    def scan(self, request: BatchRequest) -> None:
        """Scan the request's files as soon as it stops changing."""
        self._request = request
        self.preflight = None
        self._later.start()

    def _start_scan(self) -> None:
        request = self._request
        if request is not None and not self.busy:
            self._say(SCANNING)
            self._job.start(SCANNING, lambda: preflight_job(request))

    def open(self, image: Path, labels: Path, children: Path | None = None) -> None:
        """Open an image, its labels, and those of the objects within if they are given."""
        self._job.start("Opening", lambda: open_result_job(image, labels, children))

    def _on_returned(self, result: Any) -> None:
        if isinstance(result, OpenedResult):
            self.opened.emit(result)
        elif result.request == self._request and not self.busy:
            self.preflight = result
            self._has_run = False
            self.files.set_rows([] if result.plan is None else rows_of(result.plan.to_plain()))
            self.scanned.emit(result)

    # -------------------------------------------------------------------- the run

    def start(self, request: BatchRequest) -> None:
        """Run the files that were scanned."""
        save_request(request)
        self._has_run = True
        self.files.set_rows(rows_of(self.preflight.plan.to_plain()))
        self._run(request, "running")

    def try_one(self, request: BatchRequest, number: int = 0) -> None:
        """Run one file into a temporary folder, and open the result."""
        self._remove_trial()
        self._trial, self._trial_outcomes = Path(tempfile.mkdtemp(prefix="simmat-")), []
        task = self.preflight.plan.tasks[number]
        self._run(single_task_request(request, task, self._trial), "trying")

    def pause(self) -> None:
        """Pause at the next step, or resume."""
        if self.state == "running":
            self.process.write(PAUSE)
            self.status.emit(Status("ready", f"Paused; {self._counted()}."))
            self._enter("paused")
        elif self.state == "paused":
            self.process.write(GO)
            self._enter("running")

    def stop(self) -> None:
        """Stop after the current step; a second call kills the process."""
        if self.state in ("running", "paused", "trying"):
            self.process.write(STOP)
            self._enter("stopping", "Stopping")
        elif self.state == "stopping":
            self._kill()

    def _run(self, request: BatchRequest, state: str) -> None:
        self._begun, self._began_at = time.monotonic(), time.time()
        self._is_trial = state == "trying"  # stays while the trial is being stopped
        self._enter(state, "Starting")
        self.process.start(request.arguments())
        self.process.write(GO)  # after its first word it stops when its stdin closes

    def _on_event(self, event: JobEvent) -> None:
        if event.plan is not None:
            self._output = event.plan["output"]
            if not self._is_trial:
                self.files.set_rows(rows_of(event.plan))
            return
        if event.message is not None and self.state in ("running", "trying"):
            self._say(event.message, event.fraction, event.left or "")
        if self._is_trial:
            self._trial_outcomes += [] if event.file is None else [event.file]
        elif event.number is not None:
            self.files.update(event.number, event.state, event.file)

    def _on_ended(self, ending: Ending) -> None:
        if self._is_trial:
            self._end_trial(ending)
            return
        self.files.end_run(self._began_at)
        seconds = time.monotonic() - self._begun
        if ending.kind == "done":
            kind: StatusKind = "done" if self._numbers()[0] else "failed"
            done = {row.image for row in self.files.rows if row.state in OPENABLE_STATES}
            count = len(done)  # of an image the objects and their children are two files
            offer = REVIEW.format(pluralize(count, "image")) if count else ""
            self._rest(Status(kind, self._summary(), seconds=seconds, offer=offer))
        elif ending.kind == "failed":
            self._fail(ending.text)
        elif ending.kind == "canceled" or self.state in ("stopping", "killing"):
            self._rest(Status("canceled", TO_RESUME.format(self._counted()), seconds=seconds))
        else:
            self._fail(CRASHED)

    def _end_trial(self, ending: Ending) -> None:
        outcomes = self._trial_outcomes
        reason = next((each["error"] for each in outcomes if "error" in each), "")
        if ending.kind == "done" and outcomes and not reason:
            image = Path(outcomes[0]["image"])
            self._rest(Status("done", TRIAL_DONE.format(image.name)))
            self.open(image, *(Path(each["labels_file"]) for each in outcomes))
        elif ending.kind == "canceled" or self.state != "trying":
            self._rest(Status("canceled", STOPPED))
        else:
            self._fail(reason or self.process.last_message or TRIAL_CRASHED)

    def _counted(self) -> str:
        """How many files are done, and how many failed."""
        done, failed = self._numbers()
        files = pluralize(sum(row.image is not None for row in self.files.rows), "file")
        return f"{done} of {files} done" + (f", {failed} failed" if failed else "")

    def _summary(self) -> str:
        done, failed = self._numbers()
        objects = pluralize(sum(row.objects or 0 for row in self.files.rows), "object")
        trouble = SOME_FAILED.format(failed) if failed else ""
        files = pluralize(done, "file")
        return f"{files} with {objects} {is_or_are(done)} in {self._output}.{trouble}"

    def _numbers(self) -> tuple[int, int]:
        """Number of files that are done, and that failed."""
        states = [row.state for row in self.files.rows]
        return sum(state in OPENABLE_STATES for state in states), states.count("failed")

    def _remove_trial(self) -> None:
        if self._trial is not None:
            shutil.rmtree(self._trial, ignore_errors=True)
            self._trial = None


def _planned(request: BatchRequest) -> tuple[object, ...]:
    """What decides which files are read and written."""
    return request.images, request.output, request.prompts, request.files, request.series.link
