"""Training runs: request, events, folders.

What a training tells line by line, and what follows from it: curves, time left.

No Qt, no napari, no torch.

What is asked of a training, as a value: a form shows it, a command line carries it out.

The folder of each training of the window: its data, its state, what it was asked for.

Plain files, no Qt, no napari, no torch. A folder with a request in it is a training that runs,
or that can go on.
"""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_simmat.checkpoints import registry
from napari_simmat.io.files import atomic_write, copy_job, models_folder, trainings_folder
from napari_simmat.progress import Job
from napari_simmat.training.config import EMBEDDED_SETTINGS, PRACTICAL_SETTINGS, TrainConfig

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
        Of optimiser steps where `is_step`, else of what `message` says.
    message
        In words.
    is_step
        Whether this is a step or a validation of the network that is trained.
    figures
        What was measured, see `training.run_folder.LOG_COLUMNS`; often nothing.
    metrics
        Of the last line alone: the checkpoint is written.
    """

    done: int = 0
    total: int = 0
    message: str = ""
    is_step: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    metrics: Metrics | None = None


def read_event(line: str) -> TrainEvent | None:
    """The event of a line; None if it is none, as a library may print what it likes."""
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
    """The curves of a training; a step that is done again replaces what was there.

    Attributes
    ----------
    loss, iou
        Of the training, and of the validation in percent.
    """

    def __init__(self) -> None:
        self.loss: Points = []
        self.iou: Points = []

    def add(self, figures: Mapping[str, float]) -> bool:
        """Take up what was measured; whether it was something that the curves show."""
        step = figures.get("step")
        if step is None:
            return False
        shown = False
        for name, points in (("loss", self.loss), ("validation_iou", self.iou)):
            value = figures.get(name)
            if value is not None and math.isfinite(value):
                # A training that goes on starts from its last saving, so steps come again.
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
        """The last step that the curves show; 0 before the first."""
        return int(max((points[-1][0] for points in (self.loss, self.iou) if points), default=0))

    @classmethod
    def of(cls, log: Path) -> CurveHistory:
        """From a training's table; nothing if there is none, or only its whole lines."""
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
    """How long a training takes from its steps so far, validations included."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._left: float | None = None

    def update(self, now: float, done: int, total: int) -> None:
        """At `now`, in seconds, `done` of `total` steps are over."""
        if self._first is None:
            self._first = (now, done)
        since, begun = self._first
        if done > begun:
            self._left = (now - since) / (done - begun) * (total - done)

    @property
    def left(self) -> str:
        """Words such as ``about 4 min left``; empty while nothing is known."""
        return "" if self._left is None else f"about {format_duration(self._left)} left"


def format_duration(seconds: float) -> str:
    """Time as one says it: ``40 s``, ``4 min``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


DEFAULT_STEPS = 500
"""A matter of minutes with the embedded foundation; it can be stopped at any time."""
DEFAULT_CONFIG = TrainConfig(steps=DEFAULT_STEPS, **PRACTICAL_SETTINGS, **EMBEDDED_SETTINGS)
"""What ``simmat train --practical`` does on an embedded base, spelled out: said word for word, a
training that was interrupted goes on with the same settings whatever the defaults have become."""
FORM_SETTINGS = ("strategy", "steps", "batch", "learning_rate", "seed")
"""The settings of a form; a command line always says them."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A training of the window.

    Parameters
    ----------
    name
        Of the new model.
    base
        The foundation, by name or file.
    modality
        What the sensor measures; the model's name if left out.
    folder
        Of labelled images; empty for open layers.
    channels
        Of the folder's images, names or numbers with commas between; empty for all.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    config
        How it is trained.
    """

    name: str = ""
    base: str = "tiny"
    modality: str = ""
    folder: str = ""
    channels: str = ""
    pixel_ratio: float = 1.0
    config: TrainConfig = field(default=DEFAULT_CONFIG)

    def arguments(self, data: Path, output: Path, folder: Path) -> list[str]:
        """What follows ``simmat`` on the command line.

        Parameters
        ----------
        data, output, folder
            The labelled images, the checkpoint's file and the training's own folder.
        """
        words = ["train", str(data), "--output", str(output), "--base", self.base]
        # With "=", as words of the user's own may start with a dash.
        words.append(f"--modality={self.modality or self.name}")
        if self.channels:
            words.append(f"--channels={self.channels}")
        if self.pixel_ratio != 1:
            words.append(f"--pixel-ratio={self.pixel_ratio}")
        for each in fields(TrainConfig):
            value = getattr(self.config, each.name)
            if each.name in FORM_SETTINGS or value != each.default:
                words += _option(each.name, value)
        return [*words, "--folder", str(folder)]

    def to_json(self) -> str:
        """As text; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> TrainRequest:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If it is something else.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            config = values.pop("config")
            tuples = {n: tuple(v) if isinstance(v, list) else v for n, v in config.items()}
            request = cls(**values, config=TrainConfig(**tuples))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"This is no training's request ({error}).") from None
        texts = [getattr(request, each.name) for each in fields(cls) if each.type == "str"]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("This is no training's request (a word is a number).")
        if not isinstance(request.pixel_ratio, (int, float)):
            raise ValueError("This is no training's request (a number is a word).")
        return request


def with_settings(config: TrainConfig, **shown: Any) -> TrainConfig:
    """A configuration with some of `FORM_SETTINGS` changed; ValueError says what is wrong with them."""
    return replace(config, **shown)


def _option(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if value is None or value is MISSING or value is False:
        return []
    if value is True:
        return [option]
    values = value if isinstance(value, tuple) else (value,)
    return [word for each in values for word in (option, str(each))]


_REQUEST = "request.json"
# Names of `training.run_folder`, which loads torch.
_LOG, _BEST, _STOP = "log.csv", "best.safetensors", "stop"


class WindowRun:
    """One training's folder, in use by one window at a time.

    Parameters
    ----------
    name
        Of the model.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = trainings_folder().absolute() / name
        self._lock = FileLock(self.folder.with_name(f".{name}.lock"))

    @property
    def data(self) -> Path:
        """What was written of open layers."""
        return self.folder / "layers"

    @property
    def work(self) -> Path:
        """The folder that `simmat train` keeps."""
        return self.folder / "run"

    @property
    def messages(self) -> Path:
        """What the training's process had to say beside its figures; stays when it is over."""
        return self.folder.with_name(f"{self.name}.txt")

    @property
    def log(self) -> Path:
        """The table of a training that is over."""
        return self.folder.with_name(f"{self.name}.csv")

    @property
    def output(self) -> Path:
        """Where the checkpoint will be: among the user's models."""
        return models_folder().absolute() / f"{self.name}.safetensors"

    @property
    def best(self) -> Path:
        """The best checkpoint so far."""
        return self.work / _BEST

    @property
    def can_go_on(self) -> bool:
        """Whether it was prepared and is not finished."""
        return (self.folder / _REQUEST).is_file()

    def arguments(self, request: TrainRequest) -> list[str]:
        """What follows ``simmat`` on the command line, equal each time it goes on."""
        data = Path(request.folder).expanduser().absolute() if request.folder else self.data
        return request.arguments(data, self.output, self.work)

    def claim(self) -> None:
        """Take it for this window.

        Raises
        ------
        ValueError
            If another one has it.
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
        """Leave it to others."""
        self._lock.release(force=True)

    def clear(self) -> None:
        """Remove data and state; table and words stay, and so does the checkpoint."""
        # The request first: what is left of a folder that was not removed wholly never goes on.
        with suppress(FileNotFoundError):
            (self.folder / _REQUEST).unlink()
        with suppress(OSError):
            os.replace(self.work / _LOG, self.log)
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> None:
        """Remove what an earlier training of this name left."""
        self.clear()
        for path in (self.log, self.messages):
            path.unlink(missing_ok=True)

    def prepared(self, request: TrainRequest) -> None:
        """All that is needed is there: write down what was asked for."""
        with atomic_write(self.folder / _REQUEST) as temporary:
            temporary.write_text(request.to_json(), "utf-8")

    def request(self) -> TrainRequest:
        """What was asked for; ValueError or OSError if that cannot be read any more."""
        return TrainRequest.from_json((self.folder / _REQUEST).read_text("utf-8"))

    def ask_to_stop(self) -> None:
        """Have the training end after its next step, with the best checkpoint kept."""
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / _STOP).touch()

    def history(self) -> CurveHistory:
        """The curves so far."""
        return CurveHistory.of(self.work / _LOG)

    def keep_best_job(self) -> Job[Path]:
        """Make the best checkpoint so far one of the user's models; returns its file.

        Raises
        ------
        ValueError
            If there is a model of that name, as one may have been imported meanwhile.
        """
        if self.output.exists():
            raise ValueError(
                f"There is a model called {self.name} already, which stays as it is: remove it or "
                "give its file another name, or discard the training."
            )
        yield from copy_job(self.best, self.output)
        return self.output


def unfinished_runs() -> list[str]:
    """Names of trainings that can go on, unless another window has them."""
    return [run.name for run in _free(_all()) if run.can_go_on]


def remove_leftovers() -> None:
    """Remove what a window left that was closed while it wrote its layers."""
    for run in _free(_all()):
        if not run.can_go_on:
            run.clear()


def name_problem(name: str) -> str | None:
    """Why no new training can have this name, in one sentence; None if it can."""
    if not name.strip():
        return "Give the new model a name."
    if problem := registry.name_problem(name):
        return problem
    folded = name.casefold()
    if folded in {entry.name.casefold() for entry in registry.own_models()}:
        return f"There is a model called {name} already; choose another name."
    if folded in {each.casefold() for each in unfinished_runs()}:
        return (
            f"A training of {name} is not finished: resume or discard it, or choose another name."
        )
    return None


def free_name(name: str) -> str:
    """`name`, with a number behind it if there is one of that name."""
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
    """Those that no window has."""
    free = []
    for run in runs:
        with suppress(ValueError, OSError):
            run.claim()
            run.release()
            free.append(run)
    return free
