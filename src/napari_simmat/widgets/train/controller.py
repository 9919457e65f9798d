"""Prepares, starts, follows and stops the training run of the tab."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from qtpy.QtCore import QObject, Signal

from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.layer_data import LabeledValue, write_layers_job
from napari_simmat.widgets.subprocess import ChildProcess, Ending
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
from napari_simmat.widgets.worker import BackgroundJob, Worker

TrainingState = Literal[
    "idle", "preparing", "starting", "training", "comparing", "stopping", "killing"
]
USE_MODEL_TEXT = "Segment with it"
LABELS_FAVOR_BASE = "Labels that were made by clicks on a model favor that model."
CANCELED_BEFORE = "Canceled before training started."
STOPPED_BEFORE = "Stopped before the first checkpoint; nothing was saved."
CRASHED_BEFORE = "The training process stopped unexpectedly; try again."
CRASHED_AT = "The training process stopped unexpectedly at step {step}, possibly out of memory."


class TrainingController(QObject):
    """One training run at a time, from layers to a checkpoint among the user's models.

    It has no parent: Qt may delete the widget that shows it, and it must be closed even then.

    Attributes
    ----------
    state
        Current phase.
    history
        The curves of the current or last run.
    metrics
        IoU before and after, of the last run; None until it is done.
    total
        Number of optimizer steps; 0 while unknown.
    """

    status = Signal(object)
    """A `Status`."""
    changed = Signal()
    """An attribute changed, or what the user may do next."""
    plotted = Signal()
    """The curves have a new point."""
    trained = Signal(str)
    """A new model of this name exists."""

    def __init__(self) -> None:
        super().__init__()
        self.worker = Worker("simmat-layers")
        self.process = ChildProcess(read_event)
        self.state: TrainingState = "idle"
        self.history = CurveHistory()
        self.metrics: Metrics | None = None
        self.total = 0
        self._run: WindowRun | None = None
        self._request = TrainRequest()
        self._then: Callable[[Any], None] = lambda _: None
        self._measured: Metrics | None = None
        self._pace = TimeEstimator()
        self._step = 0
        self._begun = 0.0
        self._note = ""
        self._clicked_labels = False
        self._job = BackgroundJob(self.worker, parent=self)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(lambda result: self._then(result))
        self._job.failed.connect(self._fail)
        self._job.stopped.connect(self._on_stopped)
        self.process.received.connect(self._on_event)
        self.process.noted.connect(self._on_note)
        self.process.ended.connect(self._on_ended)
        runs.remove_leftovers()

    @property
    def busy(self) -> bool:
        """Whether a run is in any phase but idle."""
        return self.state != "idle"

    @property
    def name(self) -> str:
        """Of the current or last run; empty before the first."""
        return "" if self._run is None else self._run.name

    @property
    def base(self) -> str:
        """The base of the current or last run."""
        return self._request.base

    @property
    def is_worse(self) -> bool:
        """Whether the last run made a model that is worse than its base."""
        return self.metrics is not None and mean_iou(self.metrics, "after") < mean_iou(
            self.metrics, "before"
        )

    def start(
        self,
        request: TrainRequest,
        images: Sequence[LabeledValue],
        *,
        clicked_labels: bool = False,
    ) -> None:
        """Start a new run.

        Parameters
        ----------
        request
            Its settings.
        images
            From open layers; empty if the request names a folder.
        clicked_labels
            Whether any labels were made with a model in the Segment tab.
        """
        self._clicked_labels = clicked_labels
        if (run := self._claim(request.name)) is None:
            return
        self._begin(request, CurveHistory(), "preparing", "Preparing")
        self._work("Writing the layers", lambda: _prepare_job(run, request, images), self._launch)

    def resume(self, name: str) -> None:
        """Continue an interrupted run."""
        if (run := self._claim(name)) is None:
            return
        try:
            request = run.request()
        except (ValueError, OSError) as error:
            self._fail(f"{name} cannot be resumed: {error} Discard it.")
            return
        self._begin(request, run.history(), "starting", "Starting")
        self._launch(None)

    def stop(self) -> None:
        """Stop and keep the best checkpoint; a second call kills the process."""
        if self.state == "preparing":
            self._job.stop()
            self._say("Canceling")
        elif self.state in ("starting", "stopping"):
            self.state = "killing"
            self.process.kill()
        elif self.state in ("training", "comparing"):
            assert self._run is not None
            try:
                self._run.request_stop()
            except OSError:  # the disk is full: kill it, what it saved last is kept
                self.state = "killing"
                self.process.kill()
                return
            self.state = "stopping"
            self._say("Stopping, the best checkpoint is kept")
            self.changed.emit()

    def keep_best(self, name: str) -> None:
        """Turn the best checkpoint of an interrupted run into a model."""
        if (run := self._claim(name)) is None:
            return
        self.history = run.history()
        self.state = "preparing"
        self._say(f"Keeping the best checkpoint of {name}")
        self._work("Keeping the best", run.keep_best_job, self._kept)

    def discard(self, name: str) -> None:
        """Delete an interrupted run with everything it saved."""
        if self._claim(name) is None:
            return
        self._abandon()
        self.history, self.metrics, self.total = CurveHistory(), None, 0
        self.plotted.emit()
        self._rest(Status("canceled", f"The training of {name} is discarded."))

    def close(self) -> None:
        """End thread and process without a signal; another window can resume the run."""
        self.worker.close()
        self.process.close()
        if self._run is not None:
            self._run.release()

    # ------------------------------------------------------------------- phases

    def _claim(self, name: str) -> WindowRun | None:
        """The run, locked for this window; None where that is impossible now."""
        if self.busy:
            return None
        run = WindowRun(name)
        try:
            run.claim()
        except (ValueError, OSError) as error:
            self.status.emit(Status("failed", str(error)))
            return None
        self._run = run
        return run

    def _begin(
        self, request: TrainRequest, history: CurveHistory, state: TrainingState, text: str
    ) -> None:
        self._request, self.history, self.metrics = request, history, None
        self.state, self.total, self._step = state, 0, history.step
        self._pace, self._note, self._measured = TimeEstimator(), "", None
        self._begun = time.monotonic()
        self.plotted.emit()
        self._say(text)
        self.changed.emit()

    def _work(self, name: str, job: Callable[[], Job[Any]], then: Callable[[Any], None]) -> None:
        self._then = then
        self._job.start(name, job)

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

    def _on_progress(self, progress: Progress) -> None:
        self._say(progress.message, progress.done / max(1, progress.total))

    def _on_stopped(self) -> None:
        if self._run is not None and not self._run.best.exists():
            self._abandon()  # the job may have written files before it saw the cancellation
        self._rest(Status("canceled", CANCELED_BEFORE))

    def _on_event(self, event: TrainEvent) -> None:
        if event.is_last:
            self._measured = event.metrics
            return
        if not event.is_step:
            self._on_phase(event)
            return
        self._step, self.total = event.done, event.total
        self._pace.add(time.monotonic(), event.done, event.total)
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

    def _on_ended(self, ending: Ending) -> None:
        run, state = self._run, self.state
        assert run is not None
        if ending.kind == "done":
            self.metrics = self._measured
            self._abandon()
            self.trained.emit(run.name)
            text, offer, other = self._summary(run.name), USE_MODEL_TEXT, ""
            if self.is_worse:
                assert self.metrics is not None
                text = worse_text(f"{run.name}{self._early}", self.base, self.metrics)
                text = f"{text} {self._note}".rstrip()
                if self._clicked_labels:
                    text = f"{text} {LABELS_FAVOR_BASE}"
                offer, other = use_text(self.base), USE_MODEL_TEXT
            self._rest(Status("done", text, offer=offer, other=other, seconds=self._seconds()))
        elif not run.best.exists():
            self._abandon()
            if state == "killing":
                self._rest(Status("canceled", STOPPED_BEFORE))
            else:
                self._fail(ending.text or CRASHED_BEFORE)
        elif state == "killing":
            text = f"Stopped at once at step {self._step}. {self._way_on()}"
            self._rest(Status("canceled", text))
        else:
            reason = ending.text or CRASHED_AT.format(step=self._step)
            self._fail(f"{reason} {self._way_on()}")

    @property
    def _early(self) -> str:
        """In words, that the training was stopped before its last step."""
        done, total = self._step, self.total
        return f" (stopped at step {done} of {total})" if done < total else ""

    def _summary(self, name: str) -> str:
        best = self.history.best
        at = "" if best is None else f", best at step {best[0]:.0f}"
        note = f" {self._note}" if self._note else ""
        return f"{name} is among your models{at}{self._early}.{note}"

    def _way_on(self) -> str:
        best = self.history.best
        reached = "" if best is None else f" (step {best[0]:.0f}, {best[1]:.1f} % IoU)"
        return f"The best checkpoint so far{reached} is saved: resume, keep it, or discard it."

    # ---------------------------------------------------------------------- ends

    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _say(self, text: str, fraction: float | None = None) -> None:
        way_out = {"preparing": "Cancel"}.get(self.state, "")
        self.status.emit(Status("working", text, fraction, way_out=way_out))

    def _abandon(self) -> None:
        """Delete the run's folder; a finished model stays."""
        if self._run is not None:
            self._run.clear()

    def _fail(self, text: str) -> None:
        self._rest(Status("failed", text))

    def _rest(self, status: Status) -> None:
        if self._run is not None:
            self._run.release()
        self.state = "idle"
        self.status.emit(status)
        self.changed.emit()


def _prepare_job(
    run: WindowRun, request: TrainRequest, images: Sequence[LabeledValue]
) -> Job[None]:
    """Write the layers, then the request, into an empty folder; on failure leave nothing."""
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


def mean_iou(metrics: Metrics, when: str) -> float:
    """Mean over the kinds of prompts, in percent; NaN if nothing was measured."""
    values = list(metrics.get(when, {}).values())
    return sum(values) / len(values) if values else math.nan


def worse_text(name: str, base: str, metrics: Metrics) -> str:
    """Message: the training did not help."""
    before, after = (mean_iou(metrics, when) for when in ("before", "after"))
    return (
        f"{name} is among your models, but worse than {base} on the validation images (mean IoU "
        f"{after:.1f} instead of {before:.1f} %): keep {base}, or label more images."
    )


def use_text(name: str) -> str:
    """Label of the button that segments with a model."""
    return f"Segment with {name}"
