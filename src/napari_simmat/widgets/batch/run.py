"""A batch run of the window: its request, its files, and the process that segments."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

from napari_simmat._text import is_or_are, pluralize
from napari_simmat.annotation.channel_choice import LayerChannel, LayerInfo
from napari_simmat.batch.plan import (
    AUTO,
    EXTRA_ENDINGS,
    TRACKS,
    Plan,
    SegmentTask,
    find_inputs,
    plan,
)
from napari_simmat.batch.record import read_record
from napari_simmat.engine.channel_matching import match_channels
from napari_simmat.engine.linking import LAPTRACK_MISSING
from napari_simmat.engine.settings import AutomaticSettings, parse_channels
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.io.image_file import ImageFile, same_except_singletons
from napari_simmat.io.plain import from_plain, to_plain
from napari_simmat.io.readers import read_image, read_labels, stem_of
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import GO, PAUSE, STOP, Job, JobEvent, Progress
from napari_simmat.widgets.controls import Status, StatusKind, Tone, tone_color
from napari_simmat.widgets.forms import command_words
from napari_simmat.widgets.subprocess import Ending, JobController
from napari_simmat.widgets.worker import BackgroundJob, later

log = logging.getLogger(__name__)

CHOOSE_IMAGES = "Choose a folder of images, or drop it here."
CHOOSE_RESULTS = "Choose a folder for the results."
CHOOSE_PROMPTS = "Choose a file with prompts, or segment everything."
EXTRAS = "Additional outputs are {}."
TIME_AXIS_NUMBER = "The time axis is a number, counted from 0 without channels."
TIME_OR_DEPTH = "Objects are linked over time or joined in 3D: choose one of them."
NO_SCHEDULER = (
    "{} is not the address of a scheduler: it looks like tcp://10.0.0.1:8786, or is the path of "
    "its .json file."
)
NOT_SAVED = "The settings of the batch could not be saved: %s"
SCANNING = "Scanning files"
STOPPED = "Stopped."
TO_RESUME = "Stopped. {}; start to resume."
CRASHED = (
    "The batch process stopped unexpectedly, possibly out of memory. Start it again to resume."
)
TRIAL_DONE = "Tried on {}; nothing was kept."
TRIAL_CRASHED = "The process stopped unexpectedly, possibly out of memory."
SOME_FAILED = " {} could not be segmented: click its row to see why."
MAX_CHANNELS = 1024
"""More channels than this are not listed."""
OPENABLE_STATES = ("written", "kept")
"""States of files that can be opened."""
TABLE_COLUMNS = ("File", "State", "Objects", "Time", "Message")
_TONES: dict[str, Tone] = {
    "reading": "warning", "segmenting": "warning", "writing": "warning",
    "written": "good", "kept": "good", "failed": "error",
}  # fmt: skip
_WORDS = {"written": "done", "kept": "kept", "waiting": ""}
_UNFINISHED = ("reading", "segmenting", "writing")
_FILE = "batch.json"
_PLANNED = ("images", "pattern", "output", "prompts", "extras", "existing", "link")
"""Fields that decide which files are read and written."""
_SCAN_DELAY = 300
"""Milliseconds without a change of the form before the files are scanned."""


# ---------------------------------------------------------------------- the request


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """A batch run of the window.

    Parameters
    ----------
    images
        A folder, a file, a pattern or a manifest.
    pattern
        Which files of a folder are images, e.g. *.tif; empty for all image files.
    output
        Folder for the results.
    model
        By name or file.
    channels
        Names or numbers separated by commas; empty to match them to the model.
    channel_axis
        Axis of the channels; empty if the file says it.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    prompts
        ``auto``, ``same-stem`` or a file.
    extras
        Kinds of optional outputs.
    existing
        What to do with existing results: resume keeps those that were made the same way and refuses
        others.
    scheduler
        Address of a Dask scheduler, e.g. tcp://10.0.0.1:8786; empty for this machine. It can run
        code on its workers, and they on what they receive: use one that you trust.
    propagate
        Propagate prompted objects through stacks: from the planes with prompts through all others,
        until the object ends.
    link
        Link objects over time: each keeps its id from frame to frame; a dividing object gets two
        daughters. Also writes STEM_res_track.txt.
    objects
        With ``auto``: an object for each plane of a stack, or objects in 3D that go on from plane
        to plane, each with one id, one row and one volume.
    link_axis
        Number of the time axis, counted from 0 without channels; empty if the file says which it
        is.
    automatic
        Settings for ``auto``.
    """

    images: str = ""
    pattern: Annotated[str, {"label": "Pattern"}] = ""
    output: str = ""
    model: str = "tiny"
    channels: str = ""
    channel_axis: str = ""
    pixel_ratio: float = 1.0
    prompts: str = AUTO
    extras: tuple[str, ...] = ()
    existing: Annotated[
        Literal["resume", "refuse", "overwrite"],
        {
            "label": "Existing results",
            "choices": [
                ("Keep them and resume", "resume"),
                ("Stop with an error", "refuse"),
                ("Overwrite", "overwrite"),
            ],
        },
    ] = "resume"
    scheduler: Annotated[str, {"label": "Scheduler"}] = ""
    propagate: Annotated[bool, {"label": "Propagate objects through stacks"}] = False
    link: Annotated[bool, {"label": "Link objects over time"}] = False
    objects: Annotated[
        Literal["planes", "3d"],
        {"label": "Stacks", "choices": [("Objects of each plane", "planes"), ("3D objects", "3d")]},
    ] = "planes"
    link_axis: Annotated[str, {"label": "Time axis"}] = ""
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)

    def __post_init__(self) -> None:
        if not set(self.extras) <= set(EXTRA_ENDINGS):
            raise ValueError(EXTRAS.format(", ".join(EXTRA_ENDINGS)))

    def arguments(self) -> list[str]:
        """What follows ``simmat`` on the command line."""
        is_auto = self.prompts == AUTO
        return [
            "segment",
            self.images,
            *command_words(
                self,
                always=("model", "output", "prompts"),
                omit=(
                    "images",
                    "extras",
                    "existing",
                    "automatic",
                    *["propagate"] * is_auto,
                    *["objects"] * (not is_auto),
                    *["link_axis"] * (not self.link),
                ),
            ),
            *[f"--{kind}" for kind in self.extras],
            *[f"--{self.existing}"] * (self.existing != "refuse"),
            *(command_words(self.automatic, prefix="--auto.") if is_auto else ()),
        ]

    def problem(self) -> str | None:
        """What is wrong with the request itself, one sentence; files are not read."""
        if not self.images:
            return CHOOSE_IMAGES
        if not self.output:
            return CHOOSE_RESULTS
        if not self.prompts:
            return CHOOSE_PROMPTS
        if (self.link or self.objects == "3d") and find_spec("laptrack") is None:
            return LAPTRACK_MISSING
        if self.link and self.objects == "3d":
            return TIME_OR_DEPTH
        if self.link and self.link_axis and not self.link_axis.isdecimal():
            return TIME_AXIS_NUMBER
        if self.scheduler and not re.fullmatch(r"\w+://\S+|\S+\.json", self.scheduler):
            return NO_SCHEDULER.format(self.scheduler)
        return None

    def planned(self) -> Plan:
        """What would be read and written.

        Raises
        ------
        ValueError, OSError
            As `batch.plan.find_inputs` and `batch.plan.plan`.
        """
        inputs = find_inputs([Path(self.images)], pattern=self.pattern)
        return plan(
            inputs,
            output=Path(self.output),
            prompts=self.prompts,
            existing=self.existing,
            extras=[*self.extras, *[TRACKS] * self.link],
        )


def load_request() -> BatchRequest:
    """The settings of the last run; the defaults before the first."""
    try:
        return from_plain(BatchRequest, json.loads((user_folder() / _FILE).read_text("utf-8")))
    except (OSError, ValueError):
        return BatchRequest()


def save_request(request: BatchRequest) -> None:
    """Save the settings for next time; a full disk does not stop a run."""
    try:
        with atomic_write(user_folder() / _FILE) as path:
            text = json.dumps(to_plain(request), indent=1, allow_nan=False)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        log.warning(NOT_SAVED, error)


def single_task_request(request: BatchRequest, task: SegmentTask, output: Path) -> BatchRequest:
    """The request for a single task of a plan, with another output folder."""
    channels, axis = task.selection.channels, task.selection.channel_axis
    return replace(
        request,
        images=str(task.image),
        pattern="",
        output=str(output),
        channels=request.channels if channels is None else ",".join(map(str, channels)),
        channel_axis=request.channel_axis if axis is None else str(axis),
        prompts=AUTO if task.prompts is None else str(task.prompts),
        extras=(),
        existing="overwrite",
        scheduler="",
    )


# ------------------------------------------------------------- the files before a run


@dataclass(frozen=True)
class FirstFile:
    """The channels of a run's first file."""

    name: str
    """Of the file."""
    count: int
    """Number of channels."""
    names: tuple[str, ...] | None
    """Of the channels; None if the file has none."""
    shape: tuple[int, ...]
    """Without the channel axis."""
    rgb: bool = False
    """Whether the channels are red, green and blue."""

    def layers(self) -> list[LayerInfo]:
        """One entry per channel for the channels form."""
        names = self.names or tuple(f"channel {n}" for n in range(self.count))
        if self.count == 1:
            names = (self.name,)
        return [LayerInfo(str(n), names[n], self.shape) for n in range(self.count)][:MAX_CHANNELS]

    def chosen(self, sources: Sequence[LayerChannel | None], spec: ModelSpec) -> str:
        """The value of ``--channels`` for a choice; empty if the model chooses the same."""
        if any(source is None for source in sources):
            return ""
        numbers = tuple(int(source.layer) for source in sources if source is not None)
        try:
            usual = match_channels(self.count, spec.inputs, names=self.names, rgba=self.rgb)
        except ValueError:
            usual = ()
        if numbers == usual:
            return ""
        return ",".join(map(self._word, numbers))

    def sources(self, channels: str, spec: ModelSpec) -> tuple[LayerChannel, ...] | None:
        """The choice that ``--channels`` stands for; None if it does not fit this file."""
        if not channels:
            return None
        try:
            words = parse_channels(channels, ",")
            numbers = match_channels(self.count, spec.inputs, names=self.names, channels=words)
        except (ValueError, TypeError):
            return None
        return tuple(LayerChannel(str(number)) for number in numbers)

    def _word(self, number: int) -> str:
        """A channel's name, or its number where ``--channels`` could not read the name."""
        if self.names is None:
            return str(number)
        plain = [name.strip().casefold() for name in self.names]
        name = self.names[number].strip()
        is_clear = name and "," not in name and not name.isdecimal()
        return name if is_clear and plain.count(name.casefold()) == 1 else str(number)


class RunPreflight(NamedTuple):
    """What scanning a request's files found: a plan or a `problem`.

    The `remark` says why the first file cannot be read.
    """

    request: BatchRequest
    plan: Plan | None = None
    problem: str = ""
    first: FirstFile | None = None
    remark: str = ""


def preflight_job(request: BatchRequest) -> Job[RunPreflight]:
    """Find the files, and read the header of the first."""
    yield Progress(0, 0, "Scanning files")
    try:
        plan = request.planned()
    except (ValueError, OSError) as error:
        return RunPreflight(request, problem=str(error))
    yield Progress(0, 0, "Reading the first file")
    try:
        file = read_image(plan.tasks[0].image, lazy_above=0)
    except (ValueError, OSError, MemoryError) as error:
        return RunPreflight(request, plan, remark=str(error))
    count = 1 if file.channel_axis is None else int(file.data.shape[file.channel_axis])
    first = FirstFile(file.path.name, count, file.channel_names, file.shape, file.rgb)
    return RunPreflight(request, plan, first=first)


class OpenedResult(NamedTuple):
    """An image and its labels (..., Y, X), ready to be shown; `made` is from their record."""

    name: str
    image: ImageFile
    labels: Any
    made: Mapping[str, Any]


def open_result_job(image: Path, labels: Path) -> Job[OpenedResult]:
    """Read an image and its labels; large ones stay on disk."""
    yield Progress(0, 0, f"Opening {image.name}")
    file = read_image(image)
    yield Progress(0, 0, f"Opening {labels.name}")
    values = read_labels(labels).data
    if values.shape != file.shape and same_except_singletons(values.shape, file.shape):
        values = np.asarray(values).reshape(file.shape)  # TIFF drops axes of length one
    made: Mapping[str, Any] = {}
    with suppress(ValueError, OSError):
        made = read_record(labels.with_name(f"{stem_of(image)}.json")).provenance()
    return OpenedResult(image.name, file, values, made)


# ------------------------------------------------------------------ the table of a run


class FileRow(NamedTuple):
    """One file of the table; the paths of one that is skipped are None."""

    name: str
    state: str = "waiting"
    """``waiting``, a state of `batch.run`, or ``skipped``."""
    objects: int | None = None
    seconds: float | None = None
    message: str = ""
    """A remark, or the reason of a failure."""
    image: Path | None = None
    labels: Path | None = None

    def texts(self) -> tuple[str, str, str, str, str]:
        """The texts of its cells."""
        return (
            self.name,
            _WORDS.get(self.state, self.state),
            "" if self.objects is None else str(self.objects),
            "" if self.seconds is None else f"{self.seconds:.1f} s",
            self.message,
        )


def rows_of(plan: Mapping[str, Any]) -> list[FileRow]:
    """The files of a run, as `Plan.to_plain` has them; those that are skipped come last."""
    output, rows = Path(plan["output"]), []
    for file in plan["files"]:
        image, labels = Path(file["image"]), Path(file["labels_file"])
        folder = labels.parent
        below = folder.relative_to(output) if folder.is_relative_to(output) else folder
        rows.append(FileRow((below / image.name).as_posix(), image=image, labels=labels))
    for skipped in plan["skipped"]:
        state = "failed" if skipped["failed"] else "skipped"
        rows.append(FileRow(Path(skipped["image"]).name, state, message=skipped["why"]))
    return rows


class FilesModel(QAbstractTableModel):
    """The rows as a Qt model; `view` decides on colors for a dark or a light theme."""

    def __init__(self, view: QWidget | None = None) -> None:
        super().__init__(view)
        self._view = view
        self.rows: list[FileRow] = []

    def set_rows(self, rows: Sequence[FileRow]) -> None:
        """Replace all rows."""
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def update(self, number: int, state: str, file: Mapping[str, Any] | None = None) -> None:
        """Change the state of a file, and set its outcome if known."""
        row = self.rows[number]._replace(state=state)
        if file is not None:
            labels = file.get("labels_file")  # large images get another format than planned
            row = row._replace(
                labels=row.labels if labels is None else Path(labels),
                objects=file.get("objects"),
                seconds=file.get("seconds"),
                message=str(file.get("error") or file.get("note") or ""),
            )
        if row != self.rows[number]:
            self.rows[number] = row
            last = len(TABLE_COLUMNS) - 1
            self.dataChanged.emit(self.index(number, 0), self.index(number, last))

    def end_run(self, begun: float) -> None:
        """Show what became of the files that a run was at when it ended.

        Parameters
        ----------
        begun
            When the run was started, in seconds since the epoch. Results that were segmented are
            still written after a stop; others are to be done again.
        """
        for number, row in enumerate(self.rows):
            if row.state in _UNFINISHED:
                labels = row.labels
                made = labels is not None and labels.exists() and labels.stat().st_mtime >= begun
                self.update(number, "written" if made else "waiting")

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Number of files."""
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Number of columns."""
        return 0 if parent is not None and parent.isValid() else len(TABLE_COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:  # noqa: N802
        """Titles of the columns."""
        horizontal = orientation == Qt.Orientation.Horizontal
        shown = role == Qt.ItemDataRole.DisplayRole
        return TABLE_COLUMNS[section] if horizontal and shown else None

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Text, color and tooltip of a cell."""
        row = self.rows[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return row.texts()[index.column()]
        if role == Qt.ItemDataRole.ForegroundRole and index.column() == 1 and self._view:
            return QColor(tone_color(_TONES.get(row.state, "muted"), self._view))
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() in (2, 3):
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None


# ------------------------------------------------------------------------- the process


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
        self._trial_outcome: Mapping[str, Any] = {}
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
        return all(getattr(request, name) == getattr(before, name) for name in _PLANNED)

    def scan(self, request: BatchRequest) -> None:
        """Scan the request's files as soon as it stops changing."""
        self._request, self.preflight = request, None
        self._later.start()

    def _start_scan(self) -> None:
        request = self._request
        if request is not None and not self.busy:
            self._say(SCANNING)
            self._job.start(SCANNING, lambda: preflight_job(request))

    def open(self, image: Path, labels: Path) -> None:
        """Open an image and its labels."""
        self._job.start("Opening", lambda: open_result_job(image, labels))

    def _on_returned(self, result: Any) -> None:
        if isinstance(result, OpenedResult):
            self.opened.emit(result)
        elif result.request == self._request and not self.busy:
            self.preflight, self._has_run = result, False
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
        self._trial, self._trial_outcome = Path(tempfile.mkdtemp(prefix="simmat-")), {}
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
            self._trial_outcome = event.file or self._trial_outcome
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
            self._rest(Status(kind, self._summary(), seconds=seconds))
        elif ending.kind == "failed":
            self._fail(ending.text)
        elif ending.kind == "canceled" or self.state in ("stopping", "killing"):
            self._rest(Status("canceled", TO_RESUME.format(self._counted()), seconds=seconds))
        else:
            self._fail(CRASHED)

    def _end_trial(self, ending: Ending) -> None:
        outcome, reason = self._trial_outcome, self._trial_outcome.get("error", "")
        if ending.kind == "done" and outcome and not reason:
            image = Path(outcome["image"])
            self._rest(Status("done", TRIAL_DONE.format(image.name)))
            self.open(image, Path(outcome["labels_file"]))
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
