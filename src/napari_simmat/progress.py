"""Long work as generators that yield `Progress` and return their result."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from napari_simmat._text import format_duration

T = TypeVar("T")


_KNOWN_FROM = 3
"""Things that must have been gone over before the time left is told."""
_PARTS = 1000
"""Into how many parts a job is divided whose steps are jobs."""


@dataclass(frozen=True)
class Progress:
    """`done` of `total` steps (0: unknown), and what the job is doing."""

    done: int
    total: int
    message: str = ""

    @property
    def fraction(self) -> float | None:
        """The completed part, 0 to 1; None if unknown."""
        return self.done / self.total if self.total else None


def time_left(seconds: float, done: float, left: float) -> str:
    """``about 4 min left``, if `done` took so many `seconds`; empty if nothing is done."""
    return f"about {format_duration(seconds / done * left)} left" if done > 0 else ""


class Pace:
    """How fast things are gone over, and how long the rest takes."""

    def __init__(self) -> None:
        self._begun, self._here = time.monotonic(), 0

    def add(self, count: int = 1) -> None:
        """So many more were gone over."""
        self._here += count

    def left(self, rest: int) -> str:
        """How long the rest takes at the pace so far, such as ``about 4 min left``; or empty."""
        if self._here < _KNOWN_FROM or rest <= 0:
            return ""
        return time_left(time.monotonic() - self._begun, self._here, rest)


PAUSE, GO, STOP = "pause", "go", "stop"
"""Words that a command with ``--events`` reads on stdin, one a line."""


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """One line of JSON of a command with ``--events``, which writes only some of the fields.

    Parameters
    ----------
    done, total, message
        Of a step, as in `Progress`.
    fraction
        The completed part of a batch run; null if unknown.
    left
        How long the batch run will still take, in words.
    figures
        What was measured at a training step, named as in `training.run_folder.LOG_COLUMNS`.
    number, state, file
        Index of the batch task, its state, and its outcome once it is known.
    plan
        What a batch run will read and write: the first line.
    finished
        Number of files, in the last line of a batch run.
    output, metrics, sentence
        The checkpoint, null if none was written; its scores; what learning gained: the last line
        of a training.

    Raises
    ------
    ValueError
        If it is neither a step nor a first or last line.
    """

    done: int | None = None
    total: int | None = None
    message: str | None = None
    fraction: float | None = None
    left: str | None = None
    figures: Mapping[str, Any] | None = None
    number: int | None = None
    state: str | None = None
    file: Mapping[str, Any] | None = None
    plan: Mapping[str, Any] | None = None
    finished: int | None = None
    output: str | None = None
    metrics: Mapping[str, Any] | None = None
    sentence: str | None = None

    def __post_init__(self) -> None:
        is_step = None not in (self.done, self.total, self.message)
        if not is_step and not self.is_last and self.plan is None:
            raise ValueError("An event is a step with done, total and message, a plan, or the end.")

    @property
    def is_last(self) -> bool:
        """Whether everything is written."""
        return self.finished is not None or self.metrics is not None


Job = Generator[Progress, None, T]
"""Yields `Progress` and returns a ``T``; closing it cancels the work."""


class Steps(Generic[T]):
    """The steps of a job for a ``for`` loop; after its end the job's `result`."""

    result: T

    def __init__(self, job: Job[T]) -> None:
        self._job = job

    def __iter__(self) -> Iterator[Progress]:
        self.result = yield from self._job


def finish(job: Job[T], on_progress: Callable[[Progress], object] | None = None) -> T:
    """Run `job` to its end and return its result.

    Parameters
    ----------
    job
        The generator to exhaust.
    on_progress
        Called with each `Progress` that the job yields.
    """
    steps = Steps(job)
    for progress in steps:
        if on_progress is not None:
            on_progress(progress)
    return steps.result


def with_progress(job: Job[T], progress: Progress) -> Job[T]:
    """`job` with every step reported as the same `progress`: one part of a longer job."""
    return map_progress(job, lambda _: progress)


def within_step(job: Job[T], step: Progress) -> Job[T]:
    """`job` as one step of a longer job: its own progress counts as a part of that step."""

    def change(part: Progress) -> Progress:
        done = round(_PARTS * (step.done + (part.fraction or 0.0)))
        return replace(step, done=done, total=_PARTS * step.total)

    return map_progress(job, change)


def as_part(
    job: Job[T],
    start: float,
    end: float,
    *,
    before: str = "",
    after: str = "",
    default: str = "encoding",
) -> Job[T]:
    """`job` as the part `start` to `end`, 0 to 1, of a longer job.

    Its messages, or `default` for an empty one, stand between `before` and `after`.
    """

    def change(step: Progress) -> Progress:
        done = start + (end - start) * (step.fraction or 0.0)
        message = f"{before}{step.message or default}{after}"
        return Progress(round(_PARTS * done), _PARTS, message)

    return map_progress(job, change)


def map_progress(job: Job[T], change: Callable[[Progress], Progress]) -> Job[T]:
    """`job` with each step reported as ``change(step)``; closed together with this one."""
    steps = Steps(job)
    with closing(job):
        for progress in steps:
            yield change(progress)
    return steps.result
