"""A training run of the window: its request, its events and its folder.

Plain values and files: no napari, no torch.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from filelock import FileLock, Timeout

from napari_simmat._text import format_duration
from napari_simmat.checkpoints import registry
from napari_simmat.io.files import atomic_write, copy_job, models_folder, trainings_folder
from napari_simmat.io.plain import from_plain
from napari_simmat.progress import Job
from napari_simmat.training.config import EMBEDDED_SETTINGS, PRACTICAL_SETTINGS, TrainConfig
from napari_simmat.widgets.forms import command_words, shown_fields

Points = list[tuple[float, float]]
"""Step and value."""
Metrics = Mapping[str, Mapping[str, float]]
"""Mean IoU in percent by prompt (click, box), ``before`` and ``after``."""


@dataclass(frozen=True)
class TrainEvent:
    """One line of ``simmat train --events``.

    Parameters
    ----------
    done, total
        Optimizer steps if `is_step`, else the progress of what `message` names.
    message
        What happens, in words.
    is_step
        Whether this is a training step or a validation.
    figures
        Measured values, named as in `training.trainer.LOG_COLUMNS`; often empty.
    metrics
        Only in the last event, after the checkpoint was written.
    """

    done: int = 0
    total: int = 0
    message: str = ""
    is_step: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    metrics: Metrics | None = None

    @property
    def is_last(self) -> bool:
        """Whether the checkpoint is written."""
        return self.metrics is not None


def read_event(line: str) -> TrainEvent | None:
    """Parse a line; None for anything else, since libraries print to stdout too."""
    try:
        values = json.loads(line)
        if "output" in values:
            groups = {n: v for n, v in values["metrics"].items() if isinstance(v, dict)}
            return TrainEvent(metrics=groups)
        figures = {name: float(value) for name, value in values.get("figures", {}).items()}
        return TrainEvent(
            int(values["done"]),
            int(values["total"]),
            str(values["message"]),
            "figures" in values,
            figures,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


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
        shown = False
        for name, points in (("loss", self.loss), ("validation_iou", self.iou)):
            value = figures.get(name)
            if value is not None and math.isfinite(value):
                # A resumed run starts from its last saved state, so it repeats steps.
                while points and points[-1][0] >= step:
                    points.pop()
                points.append((step, value))
                shown = True
        return shown

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
            try:
                figures = {name: float(value) for name, value in row.items() if name and value}
            except (TypeError, ValueError):
                continue
            history.add(figures)
        return history


class TimeEstimator:
    """Estimates the remaining time from the steps so far, validations included."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._left: float | None = None

    def add(self, now: float, done: int, total: int) -> None:
        """At `now`, in seconds, `done` of `total` steps are complete."""
        if self._first is None:
            self._first = (now, done)
        since, begun = self._first
        if done > begun:
            self._left = (now - since) / (done - begun) * (total - done)

    @property
    def left(self) -> str:
        """For example ``about 4 min left``; empty before the second step."""
        return "" if self._left is None else f"about {format_duration(self._left)} left"


DEFAULT_STEPS = 500
"""Some minutes with the embedded foundation."""
DEFAULT_CONFIG = TrainConfig(steps=DEFAULT_STEPS, **PRACTICAL_SETTINGS, **EMBEDDED_SETTINGS)
"""What ``simmat train --practical`` does on an embedded base. It is written out option by option,
so that a resumed run keeps its settings even if defaults have changed."""
FORM_SETTINGS = shown_fields(TrainConfig)
"""Settings with a control; the command line always states them."""


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

    def arguments(self, data: Path, output: Path, folder: Path) -> list[str]:
        """What follows ``simmat`` on the command line.

        Parameters
        ----------
        data, output, folder
            The labeled images, the checkpoint to write, and the folder of the run.
        """
        return [
            "train",
            str(data),
            f"--output={output}",
            *command_words(
                replace(self, modality=self.modality or self.name),
                always=("base", "modality"),
                omit=("name", "folder", "config"),
            ),
            *command_words(self.config, always=FORM_SETTINGS),
            f"--folder={folder}",
        ]

    def to_json(self) -> str:
        """As text; `from_json` reads it."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> TrainRequest:
        """Read what `to_json` wrote; ValueError if it is something else."""
        try:
            values = json.loads(text)
            values["config"]  # a request always has one
            return from_plain(cls, values)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"This is no training's request ({error}).") from None


_REQUEST = "request.json"
# Names from `training.trainer`, which imports torch.
_LOG, _BEST, _STOP = "log.csv", "best.safetensors", "stop"


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
        self.folder = trainings_folder().absolute() / name
        self.data = self.folder / "layers"
        self.work = self.folder / "run"
        self.best = self.work / _BEST
        self.messages = self.folder.with_name(f"{name}.txt")
        self.log = self.folder.with_name(f"{name}.csv")
        self.output = models_folder().absolute() / f"{name}.safetensors"
        self._lock = FileLock(self.folder.with_name(f".{name}.lock"))

    @property
    def can_go_on(self) -> bool:
        """Whether the run was prepared and is not finished."""
        return (self.folder / _REQUEST).is_file()

    def arguments(self, request: TrainRequest) -> list[str]:
        """What follows ``simmat`` on the command line; the same each time the run is resumed."""
        data = Path(request.folder).expanduser().absolute() if request.folder else self.data
        return request.arguments(data, self.output, self.work)

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
            raise ValueError(
                f"{self.name} is being trained in another window; choose another name, or wait."
            ) from None

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

    def begin(self) -> None:
        """Delete what an earlier run of this name left."""
        self.clear()
        for path in (self.log, self.messages):
            path.unlink(missing_ok=True)

    def prepared(self, request: TrainRequest) -> None:
        """Write the request, after all data."""
        with atomic_write(self.folder / _REQUEST) as temporary:
            temporary.write_text(request.to_json(), "utf-8")

    def request(self) -> TrainRequest:
        """Read the request; ValueError or OSError if that fails."""
        return TrainRequest.from_json((self.folder / _REQUEST).read_text("utf-8"))

    def request_stop(self) -> None:
        """Make `simmat train` stop after its next step and keep the best checkpoint."""
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / _STOP).touch()

    def history(self) -> CurveHistory:
        """The curves so far."""
        return CurveHistory.of(self.work / _LOG)

    def keep_best_job(self) -> Job[Path]:
        """Copy the best checkpoint to the user's models; returns its file.

        Raises
        ------
        ValueError
            If a model of that name exists, as one may have been imported meanwhile.
        """
        if self.output.exists():
            raise ValueError(
                f"There is a model called {self.name} already, which stays unchanged: remove it or "
                "give its file another name, or discard the training."
            )
        yield from copy_job(self.best, self.output)
        return self.output


def unfinished_runs() -> list[str]:
    """Names of runs that can be resumed here."""
    return [run.name for run in _free(_all()) if run.can_go_on]


def remove_leftovers() -> None:
    """Delete folders of windows that were closed while they wrote layers."""
    for run in _free(_all()):
        if not run.can_go_on:
            run.clear()


def name_problem(name: str) -> str | None:
    """Why no new run can have this name, one sentence; None if it can."""
    if not name.strip():
        return "Give the new model a name."
    if problem := registry.name_problem(name):
        return problem
    folded = name.casefold()
    if folded in {entry.name.casefold() for entry in registry.own_models()}:
        return f"There is a model called {name} already; choose another name."
    if folded in {each.casefold() for each in unfinished_runs()}:
        return (
            f"The training of {name} is not finished: resume or discard it, or choose another name."
        )
    return None


def free_name(name: str) -> str:
    """`name`, or the first of ``name-2``, ``name-3``, ... that is free."""
    tried = name
    number = 2
    while name_problem(tried) is not None and number < 1000:
        tried, number = f"{name}-{number}", number + 1
    return tried


def _all() -> list[WindowRun]:
    try:
        folders = sorted(trainings_folder().iterdir())
    except OSError:
        return []
    return [WindowRun(path.name) for path in folders if path.is_dir()]


def _free(runs: Iterable[WindowRun]) -> list[WindowRun]:
    """Runs that no window has locked."""
    free = []
    for run in runs:
        with suppress(ValueError, OSError):
            run.claim()
            run.release()
            free.append(run)
    return free
