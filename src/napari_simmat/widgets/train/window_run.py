"""The folder of a training that the window started."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from napari_simmat.checkpoints import registry
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.io.files import atomic_write, copy_job, user_folder
from napari_simmat.io.plain import from_plain, to_plain
from napari_simmat.progress import Job, Progress
from napari_simmat.training.config import TrainConfig
from napari_simmat.widgets.forms import command_words, shown_fields
from napari_simmat.widgets.train.curve_history import CurveHistory
from napari_simmat.widgets.train.request import TrainRequest
from napari_simmat.widgets.train.training_layers import write_layers_job

FORM_SETTINGS = shown_fields(TrainConfig)
"""Settings with a control."""
STATED = tuple(name for name in FORM_SETTINGS if name != "complete")
"""Those that the command line always states: a flag is there or not."""
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
            *command_words(request.config, always=STATED),
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

    def prepare_job(self, request: TrainRequest, images: Sequence[LabeledImage]) -> Job[None]:
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
    candidate = name
    number = 2
    while name_problem(candidate) is not None and number < 1000:
        candidate, number = f"{name}-{number}", number + 1
    return candidate
