"""How long the runs of an experiment will take, told before the first and after some steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

from napari_simmat._text import format_duration, pluralize
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.models.network import Network
from napari_simmat.progress import Job, Progress, map_progress
from napari_simmat.training.trainer import TrainProgress
from simmat_research.experiments import BenchmarkConfig, ExperimentRun

T = TypeVar("T")
TRAINED = 3
"""A forward and a backward pass take about three times a forward pass."""
WATCHED_STEPS = 2
"""After so many steps the time is told again, by the fastest: the first one warms up."""


class RunWork:
    """What a run has the encoder compute, in images.

    Parameters
    ----------
    run, config
        The run, and the settings of all.
    dataset
        Of the run's modality.

    Attributes
    ----------
    steps
        Optimizer steps.
    in_a_step, others
        Images of a step, each counted `TRAINED` times; of validations and test.
    """

    def __init__(self, run: ExperimentRun, config: BenchmarkConfig, dataset: Dataset) -> None:
        self.steps, self.in_a_step, self.others = run.steps, 0, len(dataset.test)
        if run.steps:
            how = run.config(config)
            self.in_a_step = TRAINED * how.batch
            validated = len(how.validations(run.steps)) + 1  # the first one is before the steps
            self.others += validated * len(dataset.validation)

    @property
    def images(self) -> int:
        """In all."""
        return self.steps * self.in_a_step + self.others


class Clock:
    """Tells how long runs take.

    Parameters
    ----------
    works
        Of the runs that are left.
    say
        Told each sentence.
    """

    def __init__(self, works: Iterable[RunWork], say: Callable[[str], object]) -> None:
        works = list(works)
        self._runs, self._steps = len(works), sum(work.steps for work in works)
        self._left = sum(work.images for work in works)
        self._say = say
        self._told = False

    def begin(self, seconds: float, device: str) -> None:
        """Tell how long all runs take if the encoder takes so many seconds for an image."""
        self._say(
            f"{pluralize(self._runs, 'run')} with {self._steps:,} steps in all: about "
            f"{format_duration(self._left * seconds)} on {device}, where one image is encoded in "
            f"{_short(seconds)}."
        )

    def watch_job(self, job: Job[T], work: RunWork) -> Job[T]:
        """A run's job; once its first steps are done, the time that is left is told."""
        last: tuple[float, float] = (math.inf, 0.0)
        took: list[float] = []

        def see(progress: Progress) -> Progress:
            nonlocal last
            if not self._told and isinstance(progress, TrainProgress):
                now = time.monotonic()
                if progress.done == last[0] + 1:  # else it is a validation
                    took.append(now - last[1])
                last = progress.done, now
                if len(took) == WATCHED_STEPS:
                    self._tell(min(took), progress.done, work)
            return progress

        result = yield from map_progress(job, see)
        self._left -= work.images
        return result

    def _tell(self, seconds: float, done: int, work: RunWork) -> None:
        left = self._left - done * work.in_a_step
        self._told = True
        self._say(
            f"A step takes {_short(seconds)}, so about "
            f"{format_duration(left * seconds / work.in_a_step)} are left."
        )


def _short(seconds: float) -> str:
    """``0.25 s``, ``34 s``, ``11 min``."""
    return f"{seconds:.2g} s" if seconds < 10 else format_duration(seconds)


def seconds_to_encode(network: Network, side: int, device: torch.device) -> float:
    """Seconds that a network's encoder takes for an image (1, 3, side, side) on a device.

    The network stays on the device.
    """
    network.to(device)
    image = torch.zeros(1, 3, side, side, device=device)
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        started = time.monotonic()
        with torch.no_grad():
            network.encode(image).embedding.cpu()  # waits for a GPU
        seconds = time.monotonic() - started
        if seconds > 1 and device.type == "cpu":
            break
    return seconds
