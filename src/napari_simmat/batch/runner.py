"""Do tasks one by one with one model; the next is read and the last is written meanwhile."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from napari_simmat.batch.exports import draw_thumbnail, with_kept_thumbnail
from napari_simmat.batch.outputs import recover_partial
from napari_simmat.batch.plan import (
    LoadedImage,
    SegmentConfig,
    SegmentedImage,
    SegmentTask,
    TaskOutcome,
)
from napari_simmat.batch.segment_image import load_task, segment_loaded_job, write_segmented
from napari_simmat.io.files import DiskFullError
from napari_simmat.progress import Job, Progress, map_progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor


logger = logging.getLogger(__name__)

READ_AHEAD = 1
"""How many images are read before their turn: each is held in memory."""
WRITE_BEHIND = 1
"""How many results may wait to be written, beside the one that is being written."""
_POLL = 0.1
"""Seconds between two steps of a job that waits; it can be cancelled at each."""

_FULL = "It was not begun, as the disk is full. Free some space and go on with --resume."

TaskState = Literal["reading", "segmenting", "writing", "written", "kept", "failed"]


@dataclass(frozen=True)
class BatchProgress(Progress):
    """How far a run is; `done` and `total` count files, or steps where there is one file.

    Parameters
    ----------
    number
        Which task this is about.
    state
        What it is at.
    outcome
        What became of it, once that is known.
    seconds_left
        For the whole run, from the files so far; None before the first is done.
    """

    number: int = 0
    state: TaskState = "reading"
    outcome: TaskOutcome | None = None
    seconds_left: float | None = None


def run_tasks_job(
    tasks: Sequence[SegmentTask], config: SegmentConfig, *, resume: bool = False
) -> Job[list[TaskOutcome]]:
    """Run tasks with one model; a task that fails does not stop the others.

    While one image is computed, the next is read and the one before is written, each by a thread
    of its own; so three are in memory at most, beside one that waits to be written. Closing the
    job cancels what is computed and lets what is computed already be written.

    Parameters
    ----------
    tasks
        From `plan`; nobody else may be writing their outputs.
    config
        How to segment.
    resume
        Keep outputs whose record says that they were made from the same input, model, prompts
        and settings; fail the task if they were made otherwise.
    """
    from napari_simmat.checkpoints.loading import load_model_job
    from napari_simmat.engine.predictor import Predictor

    model = yield from load_model_job(config.model)
    predictor = Predictor(model, device=config.device, precision=config.precision)
    return (yield from _TaskRunner(tasks, predictor, config, resume).run_job())


class _TaskRunner:
    """One run's lanes, and what is known so far."""

    def __init__(
        self,
        tasks: Sequence[SegmentTask],
        predictor: Predictor,
        config: SegmentConfig,
        resume: bool,
    ) -> None:
        self.tasks = tasks
        self.predictor = predictor
        self.config = config
        self.resume = resume
        self.outcomes: dict[int, TaskOutcome] = {}
        self.writing: deque[tuple[int, Future[TaskOutcome]]] = deque()
        self.clock = TimeEstimate(len(tasks))
        self.full = False

    def run_job(self) -> Job[list[TaskOutcome]]:
        reader = ThreadPoolExecutor(1, "simmat-reader")
        writer = ThreadPoolExecutor(1, "simmat-writer")
        try:
            ahead: deque[Future[LoadedImage]] = deque()
            for number in range(len(self.tasks)):
                if self.full:
                    ahead.clear()
                    yield self._end(
                        number, failed_outcome(self.tasks[number], DiskFullError(_FULL), 0.0)
                    )
                    continue
                for task in self.tasks[number + len(ahead) : number + 1 + READ_AHEAD]:
                    ahead.append(reader.submit(recover_and_load, task, self.config, self.resume))
                yield from self._run_task_job(number, ahead.popleft(), writer)
            while self.writing:
                yield from self._write_job(self.writing[0][0])
        finally:
            reader.shutdown(cancel_futures=True)
            writer.shutdown()
        return [self.outcomes[number] for number in range(len(self.tasks))]

    def _run_task_job(
        self, number: int, loading: Future[LoadedImage], writer: ThreadPoolExecutor
    ) -> Job[None]:
        """From a file that is being read to one that waits to be written."""
        task, start = self.tasks[number], time.monotonic()
        try:
            yield from self._wait_job(loading, number, "reading")
            loaded = loading.result()
            for_it = segment_loaded_job(loaded, self.predictor, self.config, resume=self.resume)
            result = yield from map_progress(
                for_it, lambda step: self._progress(number, "segmenting", step)
            )
        except Exception as error:
            self.full = self.full or isinstance(error, DiskFullError)
            yield self._end(number, failed_outcome(task, error, time.monotonic() - start))
            return
        work: Callable[[], TaskOutcome]
        if isinstance(result, TaskOutcome):
            spec = self.predictor.model.spec
            channels = loaded.task.settings(self.config).channels
            work = partial(with_kept_thumbnail, result, loaded, spec, channels)
        else:
            work = partial(write_with_thumbnail, result)
        # Before the wait, during which the run may be cancelled: what is computed is written.
        self.writing.append((number, writer.submit(work)))
        yield self._progress(number, "writing", Progress(0, 0, "writing"))
        while len(self.writing) > WRITE_BEHIND + 1 or (self.writing and self.writing[0][1].done()):
            yield from self._write_job(number)

    def _write_job(self, waiting: int) -> Job[None]:
        """Wait until the oldest result is written; task `waiting` is the one that waits for it."""
        number, future = self.writing[0]
        yield from self._wait_job(future, waiting, "writing")
        self.writing.popleft()
        try:
            outcome = future.result()
        except Exception as error:
            outcome = failed_outcome(self.tasks[number], error, 0.0)
            self.full = self.full or isinstance(error, DiskFullError)
        yield self._end(number, outcome)

    def _wait_job(self, future: Future[Any], number: int, state: TaskState) -> Job[None]:
        while not wait([future], timeout=_POLL).done:
            words = "reading" if state == "reading" else "writing"
            yield self._progress(number, state, Progress(0, 0, words))

    def _end(self, number: int, outcome: TaskOutcome) -> BatchProgress:
        self.outcomes[number] = outcome
        self.clock.count(outcome)
        return self._progress(number, outcome.status, Progress(1, 1, outcome.status), outcome)

    def _progress(
        self, number: int, state: TaskState, step: Progress, outcome: TaskOutcome | None = None
    ) -> BatchProgress:
        return task_progress(self.tasks, number, state, step, self.clock, outcome)


class TimeEstimate:
    """Says how long a run will take, from the files that are done."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._computed = 0
        self._begun = time.monotonic()

    def count(self, outcome: TaskOutcome) -> None:
        """A file is done; one that was kept says nothing about the others."""
        self.done += 1
        if outcome.status == "kept":
            if not self._computed:
                self._begun = time.monotonic()
        else:
            self._computed += 1

    def seconds_left(self) -> float | None:
        """For the files that are left; None before the first is computed."""
        if not self._computed:
            return None
        return (time.monotonic() - self._begun) / self._computed * (self.total - self.done)


def task_progress(
    tasks: Sequence[SegmentTask],
    number: int,
    state: TaskState,
    step: Progress,
    clock: TimeEstimate,
    outcome: TaskOutcome | None = None,
) -> BatchProgress:
    """A step of one task as progress of the run."""
    name = tasks[number].name
    words = step.message.removeprefix(f"{name}: ")
    left = clock.seconds_left()
    about = (
        f", about {format_duration(left)} left"
        if left is not None and clock.done < clock.total
        else ""
    )
    if len(tasks) == 1:
        done, total, message = step.done, step.total, f"{name}: {words}"
    else:
        done, total = clock.done, clock.total
        message = f"{done}/{total} {name}: {words}{about}"
    return BatchProgress(done, total, message, number, state, outcome, left)


def format_duration(seconds: float) -> str:
    """As a person says it: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def recover_and_load(task: SegmentTask, config: SegmentConfig, resume: bool) -> LoadedImage:
    """Tidy up what a killed run left of a task, then read it."""
    recover_partial(task.files, finish=resume)
    return load_task(task, config)


def write_with_thumbnail(segmented: SegmentedImage) -> TaskOutcome:
    """Write a result, and draw the small picture of it."""
    start = time.monotonic()
    picture = draw_thumbnail(segmented)  # first: labels in a file move when they are written
    outcome = write_segmented(segmented)
    seconds = segmented.seconds + time.monotonic() - start
    return replace(outcome, thumbnail=picture, seconds=seconds)


def failed_outcome(task: SegmentTask, error: Exception, seconds: float) -> TaskOutcome:
    """A task's end that was an error, in a sentence that names the file."""
    logger.debug("%s failed", task.image, exc_info=error)
    name = task.name
    if isinstance(error, (ValueError, TypeError, OSError, MemoryError)):
        words = " ".join(str(error).split()) or type(error).__name__
        if words.startswith(f"{task.image.name} "):
            words = f"{name}{words.removeprefix(task.image.name)}"
    else:  # torch and readers raise anything; the other files are still to be done
        said = " ".join(str(error).split())[:300]
        words = f"Something unexpected went wrong ({type(error).__name__}: {said})."
    return TaskOutcome(
        task, "failed", seconds=seconds, note=words if name in words else f"{name}: {words}"
    )
