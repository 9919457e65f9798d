"""Long work as generators that yield `Progress` and return their result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """`done` of `total` steps (0: unknown), and what the job is doing."""

    done: int
    total: int
    message: str = ""


Job = Generator[Progress, None, T]
"""Yields `Progress` and returns a ``T``; closing it cancels the work."""


def finish(job: Job[T], on_progress: Callable[[Progress], object] | None = None) -> T:
    """Run `job` to its end and return its result.

    Parameters
    ----------
    job
        The generator to exhaust.
    on_progress
        Called with each `Progress` that the job yields.
    """
    while True:
        try:
            progress = next(job)
        except StopIteration as end:
            result: T = end.value
            return result
        if on_progress is not None:
            on_progress(progress)


def with_progress(job: Job[T], progress: Progress) -> Job[T]:
    """`job` with every step reported as the same `progress`: one part of a longer job."""
    return map_progress(job, lambda _: progress)


def map_progress(job: Job[T], change: Callable[[Progress], Progress]) -> Job[T]:
    """`job` with each step reported as ``change(step)``; closed together with this one."""
    try:
        while True:
            try:
                progress = next(job)
            except StopIteration as end:
                result: T = end.value
                return result
            yield change(progress)
    finally:
        job.close()
