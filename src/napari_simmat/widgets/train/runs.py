"""The folder of each training of the window: its data, its state, what it was asked for.

Plain files, no Qt, no napari, no torch. A folder with a request in it is a training that runs,
or that can go on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_simmat.engine.checkpoints import catalog
from napari_simmat.engine.files import copying, writing
from napari_simmat.engine.folders import models_folder, trainings_folder
from napari_simmat.progress import Job
from napari_simmat.widgets.train.events import History
from napari_simmat.widgets.train.request import TrainRequest

_REQUEST = "request.json"
# Names of `learn.training.folder`, which loads torch.
_LOG, _BEST, _STOP = "log.csv", "best.safetensors", "stop"


class Run:
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
        with writing(self.folder / _REQUEST) as temporary:
            temporary.write_text(request.to_json(), "utf-8")

    def request(self) -> TrainRequest:
        """What was asked for; ValueError or OSError if that cannot be read any more."""
        return TrainRequest.from_json((self.folder / _REQUEST).read_text("utf-8"))

    def ask_to_stop(self) -> None:
        """Have the training end after its next step, with the best checkpoint kept."""
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / _STOP).touch()

    def history(self) -> History:
        """The curves so far."""
        return History.of(self.work / _LOG)

    def keeping_best(self) -> Job[Path]:
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
        yield from copying(self.best, self.output)
        return self.output


def unfinished() -> list[str]:
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
    if problem := catalog.name_problem(name):
        return problem
    folded = name.casefold()
    if folded in {entry.name.casefold() for entry in catalog.own()}:
        return f"There is a model called {name} already; choose another name."
    if folded in {each.casefold() for each in unfinished()}:
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


def _all() -> list[Run]:
    try:
        folders = sorted(trainings_folder().iterdir())
    except OSError:
        return []
    return [Run(path.name) for path in folders if path.is_dir()]


def _free(runs: Iterable[Run]) -> list[Run]:
    """Those that no window has."""
    free = []
    for run in runs:
        with suppress(ValueError, OSError):
            run.claim()
            run.release()
            free.append(run)
    return free
