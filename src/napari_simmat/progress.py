"""Long work as a generator that yields `Progress` and returns its result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """How far a job is: `done` of `total` steps, and what it is doing in words."""

    done: int
    total: int
    message: str = ""


Job = Generator[Progress, None, T]
"""A job that reports `Progress` and returns a ``T``; closing it cancels the work."""


def finish(job: Job[T], report: Callable[[Progress], object] | None = None) -> T:
    """Run `job` to its end and return what it returns.

    Parameters
    ----------
    job
        The generator to exhaust.
    report
        Called with each `Progress` the job yields.
    """
    while True:
        try:
            progress = next(job)
        except StopIteration as end:
            result: T = end.value
            return result
        if report is not None:
            report(progress)


def retold(job: Job[T], progress: Progress) -> Job[T]:
    """`job`, each of its steps reported as `progress`: one part of a longer way."""
    return relayed(job, lambda _: progress)


def relayed(job: Job[T], told: Callable[[Progress], Progress]) -> Job[T]:
    """`job`, each of its steps reported as what `told` makes of it."""
    try:
        while True:
            try:
                progress = next(job)
            except StopIteration as end:
                result: T = end.value
                return result
            yield told(progress)
    finally:
        job.close()
