"""The training of the window: its process, its curves, and what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from qtpy.QtCore import Signal

from napari_simmat._text import format_duration
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.progress import JobEvent, time_left
from napari_simmat.widgets.child_process import Ending
from napari_simmat.widgets.job_controller import JobController
from napari_simmat.widgets.status_line import Status
from napari_simmat.widgets.train.curve_history import CurveHistory
from napari_simmat.widgets.train.folder_check import CHECKING, FolderCheck, check_folder_job
from napari_simmat.widgets.train.request import TrainRequest
from napari_simmat.widgets.train.window_run import WindowRun, remove_leftovers
from napari_simmat.widgets.worker import BackgroundJob, later

_CHECK_DELAY = 300
"""Milliseconds without a change of the form before its folder is checked."""
NOT_RESUMED = "{} cannot be resumed: {} Discard it."
DISCARDED = "The training of {} is discarded."
ADDED = "{} is among your models."
TRAINED = "{name} is among your models{best}{early}.{note}"
WORSE = (
    "{name} is among your models, but worse than {base} on the validation images (mean IoU "
    "{after:.1f} instead of {before:.1f} %): keep {base}, or label more images."
)
LABELS_FAVOR_BASE = "Labels that were made by clicks on a model favor that model."
CANCELED_BEFORE = "Canceled before training started."
STOPPED_BEFORE = "Stopped before the first checkpoint; nothing was saved."
STOPPED_AT = "Stopped at once at step {}."
CRASHED_BEFORE = "The training process stopped unexpectedly; try again."
CRASHED_AT = "The training process stopped unexpectedly at step {}, possibly out of memory."
BEST_SAVED = "The best checkpoint so far{} is saved: resume, keep it, or discard it."
USE_MODEL, USE_THIS_MODEL = "Segment with it", "Segment with {}"
Metrics = Mapping[str, Mapping[str, float]]
"""Mean IoU in percent by prompt (click, box), ``before`` and ``after``."""


def _folder_key(request: TrainRequest | None) -> object:
    """What a check of a request's folder depends on, also which files are in it."""
    if request is None:
        return None
    top = Path(request.folder).expanduser()
    changed = []
    for part in ("", "train", "validation", "val", "test"):
        for folder in (top / part, top / part / "images", top / part / "labels"):
            with suppress(OSError):
                changed.append(folder.stat().st_mtime_ns)
    return request.folder, request.channels, request.pixel_ratio, request.config.seed, *changed


class TrainingController(JobController):
    """One training run at a time, from layers to a checkpoint among the user's models.

    `state` is ``idle``, ``preparing``, ``starting``, ``training``, ``comparing``, ``stopping`` or
    ``killing``.

    Attributes
    ----------
    history
        The curves of the current or last run.
    metrics
        IoU before and after, of the last run; None until it is done.
    total
        Number of optimizer steps; 0 while unknown.
    base
        The base of the current or last run.
    """

    checked = Signal()
    """`check` has found what is in the folder."""
    plotted = Signal()
    """The curves have a new point."""
    trained = Signal(str)
    """A new model of this name exists."""

    def __init__(self) -> None:
        super().__init__("simmat-layers")
        self.history = CurveHistory()
        self.metrics: Metrics | None = None
        self.total = 0
        self.base = ""
        self._run: WindowRun | None = None
        self._request = TrainRequest()
        self._measured: Metrics = {}
        self._first_step: tuple[float, int] | None = None
        self._step = 0
        self._note = ""
        self._clicked_labels = False
        self._preparing = BackgroundJob(self.worker, parent=self)
        self._preparing.progressed.connect(lambda step: self._say(step.message, step.fraction))
        self._preparing.returned.connect(self._launch)
        self._preparing.failed.connect(self._fail)
        self._preparing.stopped.connect(self._on_canceled)
        self._checking = BackgroundJob(self.worker, 1, self)
        self._checking.progressed.connect(lambda step: self._say(step.message, step.fraction))
        self._checking.returned.connect(self._on_checked)
        self._checking.failed.connect(lambda reason: self._on_checked(FolderCheck("", reason)))
        self._to_check: TrainRequest | None = None
        self._checked_key: object = None
        self._found: tuple[object, FolderCheck] | None = None
        self._later = later(self, self._start_check, _CHECK_DELAY)
        self._seconds_per_step: float | None = None
        self._keeping = BackgroundJob(self.worker, parent=self)
        self._keeping.returned.connect(self._on_kept)
        self._keeping.failed.connect(self._fail)
        self._keeping.stopped.connect(self._on_canceled)
        self.process.noted.connect(partial(setattr, self, "_note"))
        remove_leftovers()

    @property
    def name(self) -> str:
        """Name of the current or last run; empty before the first."""
        return "" if self._run is None else self._run.name

    @property
    def is_worse(self) -> bool:
        """Whether the last run made a model that is worse than its base."""
        return self.metrics is not None and mean_iou(self.metrics, "after") < mean_iou(
            self.metrics, "before"
        )

    @property
    def checking(self) -> bool:
        """Whether a folder is being checked."""
        return self._later.isActive() or self._checking.busy

    def check(self, request: TrainRequest) -> FolderCheck | None:
        """What is in the folder of a request; None, and `checked` follows, if that is not known.

        The time is that of the last training in this window.
        """
        if self._found is None or self._found[0] != _folder_key(request):
            self._to_check = request
            self._say(CHECKING)
            self._later.start()
            return None
        found = self._found[1]
        seconds = self._seconds_per_step
        if seconds is None or not found.description:
            return found
        duration = format_duration(seconds * (request.config.steps or 0))
        return found._replace(description=f"{found.description} It takes about {duration}.")

    def _start_check(self) -> None:
        request = self._to_check
        if request is not None and not self.busy:
            self._checked_key = _folder_key(request)  # as it is before it is read
            self._checking.start(CHECKING, lambda: check_folder_job(request))

    def _on_checked(self, found: FolderCheck) -> None:
        self._found = self._checked_key, found
        self.checked.emit()

    def start(
        self,
        request: TrainRequest,
        images: Sequence[LabeledImage],
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
        if (run := self._claim(request.name)) is not None:
            self._begin(request, CurveHistory())
            self._enter("preparing", "Preparing")
            self._preparing.start("Writing the layers", lambda: run.prepare_job(request, images))

    def resume(self, name: str) -> None:
        """Continue an interrupted run."""
        if (run := self._claim(name)) is None:
            return
        try:
            request = run.request()
        except (ValueError, OSError) as error:
            self._fail(NOT_RESUMED.format(name, error))
            return
        self._begin(request, run.history())
        self._launch()

    def stop(self) -> None:
        """Stop and keep the best checkpoint; a second call kills the process."""
        if self.state == "preparing":
            for job in (self._preparing, self._keeping):
                job.stop()
            self._say("Canceling")
        elif self.state in ("starting", "stopping"):
            self._kill()
        elif self.state in ("training", "comparing"):
            try:
                self._run.request_stop()
            except OSError:  # the disk is full: kill it, what it saved last is kept
                self._kill()
            else:
                self._enter("stopping", "Stopping, the best checkpoint is kept")

    def keep_best(self, name: str) -> None:
        """Turn the best checkpoint of an interrupted run into a model."""
        if (run := self._claim(name)) is not None:
            self.history = run.history()
            self._enter("preparing", f"Keeping the best checkpoint of {name}")
            self._keeping.start("Keeping the best", run.keep_best_job)

    def discard(self, name: str) -> None:
        """Delete an interrupted run with everything it saved."""
        if (run := self._claim(name)) is not None:
            run.clear()
            self.history, self.metrics, self.total = CurveHistory(), None, 0
            self.plotted.emit()
            self._rest(Status("canceled", DISCARDED.format(name)))

    def close(self) -> None:
        """End thread and process without a signal; another window can resume the run."""
        self._later.stop()
        super().close()
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

    def _begin(self, request: TrainRequest, history: CurveHistory) -> None:
        self._request, self.base = request, request.base
        self.history, self.metrics, self._measured = history, None, {}
        self.total = 0
        self._step = history.step
        self._first_step = None
        self._note = ""
        self._begun = time.monotonic()
        self.plotted.emit()

    def _launch(self, _: object = None) -> None:
        self._enter("starting", "Starting")
        self.process.start(self._run.arguments(self._request), self._run.messages)

    def _on_event(self, event: JobEvent) -> None:
        if event.is_last:
            groups = event.metrics or {}
            self._measured = {n: each for n, each in groups.items() if isinstance(each, Mapping)}
        elif event.figures is not None:
            self._on_step(event.done, event.total, event.figures)
        else:  # something else than a training step: before the first, or after the last
            if self.state == "training" and self._step >= self.total:
                self._enter("comparing")
            if self.state == "starting":
                self._say(event.message[:1].upper() + event.message[1:])
            elif self.state == "comparing":
                self._say("Comparing with the base on the validation images")

    def _on_step(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        self._step, self.total = done, total
        now = time.monotonic()
        # A resumed run begins at a later step; validations count into the time of the steps.
        self._first_step = self._first_step or (now, done)
        since, begun = self._first_step
        if self.state == "starting":
            self._enter("training")
        if self.history.add(figures):
            self.plotted.emit()
        if self.state == "training":
            if done > begun:
                self._seconds_per_step = (now - since) / (done - begun)
            left = time_left(now - since, done - begun, total - done)
            self._say(f"Step {done} of {total}", done / max(1, total), left)

    # ---------------------------------------------------------------------- ends

    def _on_canceled(self) -> None:
        if not self._run.best.exists():
            self._run.clear()  # the job may have written files before it saw the cancellation
        self._rest(Status("canceled", CANCELED_BEFORE))

    def _on_kept(self, _: object) -> None:
        self._run.clear()
        self.trained.emit(self.name)
        self._rest(Status("done", ADDED.format(self.name), offer=USE_MODEL))

    def _on_ended(self, ending: Ending) -> None:
        killed = self.state == "killing"
        if ending.kind == "done":
            self.metrics = self._measured
            self._run.clear()
            self.trained.emit(self.name)
            self._rest(self._outcome())
        elif not self._run.best.exists():
            self._run.clear()
            text = STOPPED_BEFORE if killed else ending.text or CRASHED_BEFORE
            self._rest(Status("canceled" if killed else "failed", text))
        else:
            best = self.history.best
            reached = "" if best is None else f" (step {best[0]:.0f}, {best[1]:.1f} % IoU)"
            crashed = ending.text or CRASHED_AT.format(self._step)
            reason = STOPPED_AT.format(self._step) if killed else crashed
            text = f"{reason} {BEST_SAVED.format(reached)}"
            self._rest(Status("canceled" if killed else "failed", text))

    def _outcome(self) -> Status:
        """The model is made: whether it is better than its base, and which to use."""
        early = f" (stopped at step {self._step} of {self.total})"
        early = early if self._step < self.total else ""
        seconds = time.monotonic() - self._begun
        if not self.is_worse:
            best = self.history.best
            at = "" if best is None else f", best at step {best[0]:.0f}"
            note = f" {self._note}" if self._note else ""
            text = TRAINED.format(name=self.name, best=at, early=early, note=note)
            return Status("done", text, offer=USE_MODEL, seconds=seconds)
        before, after = (mean_iou(self.metrics, when) for when in ("before", "after"))
        text = WORSE.format(name=f"{self.name}{early}", base=self.base, before=before, after=after)
        parts = [text, self._note, LABELS_FAVOR_BASE if self._clicked_labels else ""]
        use_base = USE_THIS_MODEL.format(self.base)
        return Status(
            "done", " ".join(filter(None, parts)), offer=use_base, other=USE_MODEL, seconds=seconds
        )

    def _rest(self, status: Status) -> None:
        self._run.release()
        super()._rest(status)


def mean_iou(metrics: Metrics, when: str) -> float:
    """Mean over the kinds of prompts, in percent; NaN if nothing was measured."""
    values = list(metrics.get(when, {}).values())
    return sum(values) / len(values) if values else math.nan
