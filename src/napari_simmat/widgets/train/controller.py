"""Start, stop and follow training in a child process.

`simmat train` in a process of its own.

The training that the tab shows: prepares it, starts it, follows it, and says how it stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qtpy.QtCore import QObject, Qt, Signal

from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.layer_data import LabelledValue, write_layers_job
from napari_simmat.widgets.subprocess import ChildProcess
from napari_simmat.widgets.train import runs
from napari_simmat.widgets.train.runs import (
    CurveHistory,
    Metrics,
    TimeEstimator,
    TrainEvent,
    TrainRequest,
    WindowRun,
    read_event,
)
from napari_simmat.widgets.worker import Worker, WorkerTask


@dataclass(frozen=True)
class TrainingEnd:
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


class TrainingProcess(ChildProcess):
    """Runs one training after the other."""

    event_read = Signal(object)
    """An `Event`."""
    ended = Signal(object)
    """An `TrainingEnd`."""

    def __init__(self) -> None:
        super().__init__()
        self._metrics: Metrics | None = None

    def start(self, arguments: Sequence[str], messages: Path) -> None:
        """Start `simmat train`; what it says beside its events goes into the file `messages`."""
        self._metrics = None
        self.begin(arguments, messages)

    def read_line(self, line: str) -> bool:
        """Pass on an event."""
        event = read_event(line)
        if event is None:
            return False
        if event.metrics is not None:
            self._metrics = event.metrics
        else:
            self.event_read.emit(event)
        return True

    def finished(self, code: int | None) -> None:
        """Say how it ended."""
        if code == 0 and self._metrics is not None:
            self.ended.emit(TrainingEnd("done", metrics=self._metrics))
        elif code is not None and self.last_output:
            self.ended.emit(TrainingEnd("failed", self.last_output))
        else:
            self.ended.emit(TrainingEnd("crashed"))


TrainingState = Literal[
    "idle", "preparing", "starting", "training", "comparing", "stopping", "killing"
]
USE_MODEL_TEXT = "Segment with it"


class TrainingController(QObject):
    """One training at a time, from the layers to a checkpoint among the user's models.

    It has no parent: Qt may delete the widget that shows it, and then it has to be closed.

    Attributes
    ----------
    state
        What is going on.
    history
        The curves of the training that runs, or ran last.
    metrics
        Before and after, of the training that ended last; None until it is done.
    total
        Optimiser steps in all; 0 while that is not known.
    """

    status = Signal(object)
    """A `Status` for the status line."""
    changed = Signal()
    """Something of the attributes, or of what can go on."""
    plotted = Signal()
    """The curves have a new point."""
    trained = Signal(str)
    """A new model of this name is there."""

    def __init__(self) -> None:
        super().__init__()
        self.worker = Worker("simmat-layers")
        self.process = TrainingProcess()
        self.state: TrainingState = "idle"
        self.history = CurveHistory()
        self.metrics: Metrics | None = None
        self.total = 0
        self._run: WindowRun | None = None
        self._request = TrainRequest()
        self._task: WorkerTask | None = None
        self._then: Callable[[Any], None] = lambda _: None
        self._pace = TimeEstimator()
        self._step = 0
        self._begun = 0.0
        self._note = ""
        queued = Qt.ConnectionType.QueuedConnection
        self.worker.progressed.connect(self._on_progress, queued)
        self.worker.returned.connect(self._on_returned, queued)
        self.worker.failed.connect(self._on_failed, queued)
        self.worker.stopped.connect(self._on_stopped, queued)
        self.process.event_read.connect(self._on_event)
        self.process.noted.connect(self._on_note)
        self.process.ended.connect(self._on_ended)
        runs.remove_leftovers()

    @property
    def busy(self) -> bool:
        """Whether something is going on."""
        return self.state != "idle"

    @property
    def name(self) -> str:
        """Of the training that runs, or ran last; empty before the first."""
        return "" if self._run is None else self._run.name

    def start(self, request: TrainRequest, images: Sequence[LabelledValue]) -> None:
        """Begin a new training.

        Parameters
        ----------
        request
            What is wanted.
        images
            From open layers; nothing for a folder.
        """
        if self.busy or not self._claim(WindowRun(request.name)):
            return
        run = self._run
        assert run is not None
        self._begin(request, CurveHistory(), "preparing", "Preparing")
        self._work("Writing the layers", lambda: _prepare_job(run, request, images), self._launch)

    def resume(self, name: str) -> None:
        """Go on with a training that was interrupted."""
        if self.busy or not self._claim(WindowRun(name)):
            return
        run = self._run
        assert run is not None
        try:
            request = run.request()
        except (ValueError, OSError) as error:
            self._fail(f"The training of {name} cannot go on: {error} Discard it.")
            return
        self._begin(request, run.history(), "starting", "Starting")
        self._launch(None)

    def stop(self) -> None:
        """End it and keep the best; when it was asked before, end it at once."""
        if self.state == "preparing":
            assert self._task is not None
            self._task.cancel()
            self._say("Cancelling")
        elif self.state in ("starting", "stopping"):
            self.state = "killing"
            self.process.kill()
        elif self.state in ("training", "comparing"):
            assert self._run is not None
            try:
                self._run.ask_to_stop()
            except OSError:  # a full disk: then it ends with what it saved last
                self.state = "killing"
                self.process.kill()
                return
            self.state = "stopping"
            self._say("Stopping, the best checkpoint is kept")
            self.changed.emit()

    def keep_best(self, name: str) -> None:
        """Make the best checkpoint of an interrupted training a model, without going on."""
        if self.busy or not self._claim(WindowRun(name)):
            return
        run = self._run
        assert run is not None
        self.history = run.history()
        self.state = "preparing"
        self._say(f"Keeping the best checkpoint of {name}")
        self._work("Keeping the best", run.keep_best_job, self._kept)

    def discard(self, name: str) -> None:
        """Remove an interrupted training with all that it saved."""
        if self.busy or not self._claim(WindowRun(name)):
            return
        self._abandon()
        self.history, self.metrics, self.total = CurveHistory(), None, 0
        self.plotted.emit()
        self._rest(Status("cancelled", f"The training of {name} is discarded."))

    def close(self) -> None:
        """End thread and process without a word; the training can go on in another window."""
        self.worker.close()
        self.process.close()
        if self._run is not None:
            self._run.release()

    # -------------------------------------------------------------------- course

    def _claim(self, run: WindowRun) -> bool:
        try:
            run.claim()
        except (ValueError, OSError) as error:
            self.status.emit(Status("failed", str(error)))
            return False
        self._run = run
        return True

    def _begin(
        self, request: TrainRequest, history: CurveHistory, state: TrainingState, text: str
    ) -> None:
        self._request, self.history, self.metrics = request, history, None
        self.state, self.total, self._step = state, 0, history.step
        self._pace, self._note = TimeEstimator(), ""
        self._begun = time.monotonic()
        self.plotted.emit()
        self._say(text)
        self.changed.emit()

    def _work(self, name: str, job: Callable[[], Job[Any]], then: Callable[[Any], None]) -> None:
        self._then = then
        self._task = self.worker.submit(name, job)

    def _launch(self, _: object) -> None:
        run = self._run
        assert run is not None
        self.state = "starting"
        self._say("Starting")
        self.process.start(run.arguments(self._request), run.messages)
        self.changed.emit()

    def _kept(self, path: Path) -> None:
        assert self._run is not None
        name = self._run.name
        self._abandon()
        self.trained.emit(name)
        self._rest(Status("done", f"{path.stem} is among your models.", offer=USE_MODEL_TEXT))

    def _on_progress(self, task: WorkerTask, progress: Progress) -> None:
        if task is self._task:
            self._say(progress.message, progress.done / max(1, progress.total))

    def _on_returned(self, task: WorkerTask, result: object) -> None:
        if task is self._task:
            self._task = None
            self._then(result)

    def _on_failed(self, task: WorkerTask, reason: str) -> None:
        if task is self._task:
            self._fail(reason)

    def _on_stopped(self, task: WorkerTask) -> None:
        if task is self._task:
            if self._run is not None and not self._run.best.exists():
                self._abandon()  # what was written before the last look at Cancel
            self._rest(Status("cancelled", "Cancelled; nothing was trained."))

    def _on_event(self, event: TrainEvent) -> None:
        if not event.is_step:
            self._on_phase(event)
            return
        self._step, self.total = event.done, event.total
        self._pace.update(time.monotonic(), event.done, event.total)
        if self.state == "starting":
            self.state = "training"
            self.changed.emit()
        if self.history.add(event.figures):
            self.plotted.emit()
        if self.state == "training":
            parts = [f"Step {event.done} of {event.total}", self._pace.left]
            self._say(", ".join(filter(None, parts)), event.done / max(1, event.total))

    def _on_phase(self, event: TrainEvent) -> None:
        if self.state == "training" and self._step >= self.total:
            self.state = "comparing"
            self.changed.emit()
        if self.state == "starting":
            self._say(event.message[:1].upper() + event.message[1:])
        elif self.state == "comparing":
            self._say("Comparing with the base on the validation images")

    def _on_note(self, text: str) -> None:
        self._note = text

    def _on_ended(self, ending: TrainingEnd) -> None:
        run, state = self._run, self.state
        assert run is not None
        if ending.kind == "done":
            self.metrics = ending.metrics
            self._abandon()
            self.trained.emit(run.name)
            self._rest(
                Status("done", self._done(run.name), offer=USE_MODEL_TEXT, seconds=self._seconds())
            )
        elif not run.best.exists():
            self._abandon()
            if state == "killing":
                self._rest(Status("cancelled", "Stopped before anything was learnt."))
            else:
                self._fail(ending.text or "The training's process ended without a word; try again.")
        elif state == "killing":
            text = f"Stopped at once at step {self._step}. {self._way_on()}"
            self._rest(Status("cancelled", text))
        elif ending.kind == "crashed":
            self._fail(
                f"The training's process was ended from outside or crashed at step {self._step} "
                f"(perhaps the memory was full). {self._way_on()}"
            )
        else:
            self._fail(f"{ending.text} {self._way_on()}")

    def _done(self, name: str) -> str:
        early = (
            f" (stopped at step {self._step} of {self.total})" if self._step < self.total else ""
        )
        best = self.history.best
        at = "" if best is None else f", best at step {best[0]:.0f}"
        note = f" {self._note}" if self._note else ""
        return f"{name} is among your models{at}{early}.{note}"

    def _way_on(self) -> str:
        best = self.history.best
        reached = "" if best is None else f" (step {best[0]:.0f}, {best[1]:.1f} % IoU)"
        return f"The best checkpoint so far{reached} is kept: resume, keep it as it is, or discard."

    # ---------------------------------------------------------------------- ends

    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _say(self, text: str, fraction: float | None = None) -> None:
        way_out = {"preparing": "Cancel"}.get(self.state, "")
        self.status.emit(Status("working", text, fraction, way_out=way_out))

    def _abandon(self) -> None:
        """Remove what is on the disk; the model, where there is one, stays."""
        if self._run is not None:
            self._run.clear()

    def _fail(self, text: str) -> None:
        self._rest(Status("failed", text))

    def _rest(self, status: Status) -> None:
        if self._run is not None:
            self._run.release()
        self.state, self._task = "idle", None
        self.status.emit(status)
        self.changed.emit()


def _prepare_job(
    run: WindowRun, request: TrainRequest, images: Sequence[LabelledValue]
) -> Job[None]:
    """An empty folder with the layers in it, then the request; all of it or nothing."""
    yield Progress(0, 1, "Preparing")
    done = False
    try:
        run.begin()
        if images:
            yield from write_layers_job(images, run.data)
        run.prepared(request)
        done = True
    finally:
        if not done:
            run.clear()
