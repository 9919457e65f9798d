"""Long work as generators that yield `Progress` and return their result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TypeVar

T = TypeVar("T")


_PARTS = 100
"""Into how many parts a step is divided by the job that is one."""


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


def within_step(job: Job[T], step: Progress) -> Job[T]:
    """`job` as one step of a longer job: its own progress counts as a part of that step."""

    def change(part: Progress) -> Progress:
        done = round(_PARTS * (step.done + (part.fraction or 0.0)))
        return replace(step, done=done, total=_PARTS * step.total)

    return map_progress(job, change)


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
