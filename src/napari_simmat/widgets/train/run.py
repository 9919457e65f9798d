"""A training run of the window: its request, its folder, and the process that trains."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

from filelock import FileLock, Timeout
from qtpy.QtCore import Signal

from napari_simmat._text import format_duration, format_list, pluralize
from napari_simmat.checkpoints import registry
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.io.files import atomic_write, copy_job, user_folder
from napari_simmat.io.plain import from_plain, to_plain
from napari_simmat.progress import Job, JobEvent, Progress, time_left, with_progress
from napari_simmat.training.config import EMBEDDED_SETTINGS, PRACTICAL_SETTINGS, TrainConfig
from napari_simmat.widgets.controls import Status
from napari_simmat.widgets.forms import command_words, shown_fields
from napari_simmat.widgets.layer_data import LabeledValue, write_layers_job
from napari_simmat.widgets.subprocess import Ending, JobController
from napari_simmat.widgets.worker import BackgroundJob, later

DEFAULT_STEPS = 500
"""Some minutes with the embedded foundation."""
DEFAULT_CONFIG = TrainConfig(steps=DEFAULT_STEPS, **PRACTICAL_SETTINGS, **EMBEDDED_SETTINGS)
"""What ``simmat train --practical`` does on an embedded base. It is written out option by option,
so that a resumed run keeps its settings even if defaults have changed."""
FORM_SETTINGS = shown_fields(TrainConfig)
"""Settings with a control; the command line always states them."""
_CHECK_DELAY = 300
"""Milliseconds without a change of the form before its folder is checked."""
_REQUEST = "request.json"
# Names from `training.trainer`, which imports torch.
_LOG, _BEST, _STOP = "log.csv", "best.safetensors", "stop"

NO_NAME = "Give the new model a name."
NAME_TAKEN = "There is a model called {} already; choose another name."
NOT_FINISHED = "The training of {} is not finished: resume or discard it, or choose another name."
OTHER_WINDOW = "{} is being trained in another window; choose another name, or wait."
MODEL_EXISTS = (
    "There is a model called {} already, which stays unchanged: remove it or give its file another "
    "name, or discard the training."
)
NO_REQUEST = "Its request.json is not a training request ({})."
NOT_RESUMED = "{} cannot be resumed: {} Discard it."
DISCARDED = "The training of {} is discarded."
ADDED = "{} is among your models."
TRAINED = "{name} is among your models{best}{early}.{note}"
WORSE = (
    "{name} is among your models, but worse than {base} on the validation images (mean IoU "
    "{after:.1f} instead of {before:.1f} %): keep {base}, or label more images."
)
LABELS_FAVOR_BASE = "Labels that were made by clicks on a model favor that model."
CHECKING = "Checking the folder"
READY = "Ready to train."
READY_ON = (
    "Ready to train: {train} to train on and {validation} to validate on, {objects}, {channels}."
)
_EXAMPLES = 64
"""Planes whose objects are counted; of more, the number is estimated."""
CANCELED_BEFORE = "Canceled before training started."
STOPPED_BEFORE = "Stopped before the first checkpoint; nothing was saved."
STOPPED_AT = "Stopped at once at step {}."
CRASHED_BEFORE = "The training process stopped unexpectedly; try again."
CRASHED_AT = "The training process stopped unexpectedly at step {}, possibly out of memory."
BEST_SAVED = "The best checkpoint so far{} is saved: resume, keep it, or discard it."
USE_MODEL, USE_THIS_MODEL = "Segment with it", "Segment with {}"

Points = list[tuple[float, float]]
"""Step and value."""
Metrics = Mapping[str, Mapping[str, float]]
"""Mean IoU in percent by prompt (click, box), ``before`` and ``after``."""


class CurveHistory:
    """The curves of a training run; a repeated step replaces the earlier one.

    Attributes
    ----------
    loss, iou
        Training loss, and validation IoU in percent.
    """

    def __init__(self) -> None:
        self.loss: Points = []
        self.iou: Points = []

    def add(self, figures: Mapping[str, float]) -> bool:
        """Add measured values; returns whether a curve has changed."""
        step = figures.get("step")
        if step is None:
            return False
        has_changed = False
        for name, points in (("loss", self.loss), ("validation_iou", self.iou)):
            value = figures.get(name)
            if value is not None and math.isfinite(value):
                # A resumed run starts from its last saved state, so it repeats steps.
                while points and points[-1][0] >= step:
                    points.pop()
                points.append((step, value))
                has_changed = True
        return has_changed

    @property
    def best(self) -> tuple[float, float] | None:
        """Step and value of the best validation."""
        return max(self.iou, key=lambda point: point[1], default=None)

    @property
    def step(self) -> int:
        """The last step of either curve; 0 before the first."""
        return int(max((points[-1][0] for points in (self.loss, self.iou) if points), default=0))

    @classmethod
    def of(cls, log: Path) -> CurveHistory:
        """Read a run's CSV; incomplete lines are skipped, a missing file gives no curves."""
        history = cls()
        try:
            with log.open(newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError:
            return history
        for row in rows:
            with suppress(TypeError, ValueError):
                history.add({name: float(value) for name, value in row.items() if name and value})
        return history


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A training run of the window.

    Parameters
    ----------
    name
        Name of the new model in the list.
    base
        The foundation, by name or file.
    modality
        What the sensor measures; by default the model's name.
    folder
        Of labeled images; empty for open layers.
    channels
        Channels of the folder's images: names, or numbers from 0, separated by commas; empty for
        all.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    config
        How it is trained.
    """

    name: Annotated[str, {"label": "Name"}] = ""
    base: str = "tiny"
    modality: Annotated[str, {"label": "Modality"}] = ""
    folder: str = ""
    channels: Annotated[str, {"label": "Channels"}] = ""
    pixel_ratio: float = 1.0
    config: TrainConfig = DEFAULT_CONFIG


class FolderCheck(NamedTuple):
    """What `check_folder_job` found: what is in the folder, or why training would refuse it."""

    description: str = ""
    problem: str = ""


def check_folder_job(request: TrainRequest) -> Job[FolderCheck]:
    """Read a request's folder as the training will."""
    from napari_simmat.datasets.dataset import DataConfig
    from napari_simmat.datasets.folder import read_folder_job
    from napari_simmat.engine.settings import parse_channels

    yield Progress(0, 0, CHECKING)
    try:
        channels = parse_channels(request.channels, ",") if request.channels else None
        selection = ChannelSelection(channels=channels, pixel_ratio=request.pixel_ratio)
        config = DataConfig(selection=selection, seed=request.config.seed)
        folder = Path(request.folder).expanduser()
        dataset = yield from with_progress(
            read_folder_job(folder, config), Progress(0, 0, CHECKING)
        )
        samples = (*dataset.train, *dataset.validation)
        examples = samples[:: -(-len(samples) // _EXAMPLES)]
        objects = 0
        for done, sample in enumerate(examples):
            yield Progress(done, len(examples), "Counting objects")
            objects += len(dataset.regions(sample.load()[1]))
    except (ValueError, TypeError, OSError, MemoryError) as error:
        return FolderCheck(problem=str(error))
    about = "" if len(examples) == len(samples) else "about "
    counted = pluralize(round(objects * len(samples) / len(examples)), "object")
    names = dataset.channel_names
    text = READY_ON.format(
        train=pluralize(len(dataset.train), "image"),
        validation=len(dataset.validation),
        objects=f"{about}{counted}",
        channels=f"{'channel' if len(names) == 1 else 'channels'} {format_list(names)}",
    )
    return FolderCheck(text)


class WindowRun:
    """The folder of one run, locked by one window at a time.

    Parameters
    ----------
    name
        Of the model.

    Attributes
    ----------
    data, work, best
        Files written from open layers, the folder of `simmat train`, the best checkpoint so far.
    messages, log
        Output of the process other than events, and the CSV of a finished run; both outlive it.
    output
        The checkpoint to write, among the user's models.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = user_folder("trainings").absolute() / name
        self.data = self.folder / "layers"
        self.work = self.folder / "run"
        self.best = self.work / _BEST
        self.messages = self.folder.with_name(f"{name}.txt")
        self.log = self.folder.with_name(f"{name}.csv")
        self.output = user_folder("models").absolute() / f"{name}.safetensors"
        self._lock = FileLock(self.folder.with_name(f".{name}.lock"))

    @property
    def is_prepared(self) -> bool:
        """Whether the run was prepared and is not finished, so that it can be resumed."""
        return (self.folder / _REQUEST).is_file()

    def arguments(self, request: TrainRequest) -> list[str]:
        """What follows ``simmat`` on the command line; the same each time the run is resumed."""
        data = Path(request.folder).expanduser().absolute() if request.folder else self.data
        return [
            "train",
            str(data),
            f"--output={self.output}",
            *command_words(
                replace(request, modality=request.modality or request.name),
                always=("base", "modality"),
                omit=("name", "folder", "config"),
            ),
            *command_words(request.config, always=FORM_SETTINGS),
            f"--folder={self.work}",
        ]

    def claim(self) -> None:
        """Lock the run for this window.

        Raises
        ------
        ValueError
            If another window has it.
        OSError
            If the user's folder cannot be written.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(OTHER_WINDOW.format(self.name)) from None

    def release(self) -> None:
        """Unlock the run."""
        self._lock.release(force=True)

    def clear(self) -> None:
        """Delete data and state; the CSV, the messages and the checkpoint stay."""
        # The request first: without it a partly deleted folder is never resumed.
        with suppress(FileNotFoundError):
            (self.folder / _REQUEST).unlink()
        with suppress(OSError):
            os.replace(self.work / _LOG, self.log)
        shutil.rmtree(self.folder, ignore_errors=True)

    def prepare_job(self, request: TrainRequest, images: Sequence[LabeledValue]) -> Job[None]:
        """Write the layers, then the request, into an empty folder; on failure leave nothing."""
        yield Progress(0, 1, "Preparing")
        try:
            self.clear()
            for path in (self.log, self.messages):  # of an earlier run of this name
                path.unlink(missing_ok=True)
            if images:
                yield from write_layers_job(images, self.data)
            self.write_request(request)
        except BaseException:
            self.clear()
            raise

    def write_request(self, request: TrainRequest) -> None:
        """Write the request, after all data."""
        with atomic_write(self.folder / _REQUEST) as temporary:
            text = json.dumps(to_plain(request), indent=1, allow_nan=False)
            temporary.write_text(text, "utf-8")

    def request(self) -> TrainRequest:
        """Read the request; ValueError or OSError if that fails."""
        text = (self.folder / _REQUEST).read_text("utf-8")
        try:
            return from_plain(TrainRequest, json.loads(text))
        except ValueError as error:
            raise ValueError(NO_REQUEST.format(error)) from None

    def request_stop(self) -> None:
        """Make `simmat train` stop after its next step and keep the best checkpoint."""
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / _STOP).touch()

    def history(self) -> CurveHistory:
        """The curves so far."""
        return CurveHistory.of(self.work / _LOG)

    def keep_best_job(self) -> Job[None]:
        """Copy the best checkpoint to the user's models.

        Raises
        ------
        ValueError
            If a model of that name exists, as one may have been imported meanwhile.
        """
        if self.output.exists():
            raise ValueError(MODEL_EXISTS.format(self.name))
        yield from copy_job(self.best, self.output)


def _folder_key(request: TrainRequest | None) -> object:
    """What a check of a request's folder depends on, also which files are in it."""
    if request is None:
        return None
    top, changed = Path(request.folder).expanduser(), []
    for part in ("", "train", "validation", "val", "test"):
        for folder in (top / part, top / part / "images", top / part / "labels"):
            with suppress(OSError):
                changed.append(folder.stat().st_mtime_ns)
    return request.folder, request.channels, request.pixel_ratio, request.config.seed, *changed


def unfinished_runs() -> list[str]:
    """Names of runs that can be resumed here."""
    return [run.name for run in _unlocked_runs() if run.is_prepared]


def remove_leftovers() -> None:
    """Delete folders of windows that were closed while they wrote layers."""
    for run in _unlocked_runs():
        if not run.is_prepared:
            run.clear()


def run_names() -> list[str]:
    """Names of all runs that are under way or can be resumed, in this window or another."""
    try:
        return sorted(path.name for path in user_folder("trainings").iterdir() if path.is_dir())
    except OSError:
        return []


def _unlocked_runs() -> list[WindowRun]:
    """The runs that no window holds; each is locked for a moment."""
    runs = []
    for run in map(WindowRun, run_names()):
        with suppress(ValueError, OSError):
            run.claim()
            run.release()
            runs.append(run)
    return runs


def name_problem(name: str) -> str | None:
    """Why no new run can have this name, one sentence; None if it can."""
    if not name.strip():
        return NO_NAME
    if problem := registry.name_problem(name):
        return problem
    folded = name.casefold()
    if folded in {entry.name.casefold() for entry in registry.own_models()}:
        return NAME_TAKEN.format(name)
    if folded in {each.casefold() for each in run_names()}:
        return NOT_FINISHED.format(name)
    return None


def free_name(name: str) -> str:
    """`name`, or the first of ``name-2``, ``name-3``, ... that is free."""
    candidate, number = name, 2
    while name_problem(candidate) is not None and number < 1000:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


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
        """Of the current or last run; empty before the first."""
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
        found, seconds = self._found[1], self._seconds_per_step
        if seconds is None or not found.description:
            return found
        duration = format_duration(seconds * (request.config.steps or 0))
        return FolderCheck(f"{found.description} It takes about {duration}.")

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
        self.total, self._step, self._first_step, self._note = 0, history.step, None, ""
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
