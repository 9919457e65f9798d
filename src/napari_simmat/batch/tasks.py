"""Segment the images of a plan one after the other, and what became of each."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from napari_simmat.batch.folder_lock import POLL, WAITING
from napari_simmat.batch.loaded_image import LoadedImage, load_task
from napari_simmat.batch.outputs import recover_partial, with_kept_thumbnail, write_result
from napari_simmat.batch.plan import SegmentConfig, SegmentTask
from napari_simmat.batch.segment_image import SegmentedImage, TaskOutcome, segment_loaded_job
from napari_simmat.batch.sharing import Claim, Share
from napari_simmat.io.files import DiskFullError
from napari_simmat.progress import Job, Progress, Steps, map_progress, time_left

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.models.spec import ModelSpec

logger = logging.getLogger(__name__)
READ_AHEAD = 1
"""Images that are read ahead; each is held in memory."""
WRITE_BEHIND = 1
"""Results that may wait to be written, besides the one being written."""
T = TypeVar("T")
WRITING_SHARE = 0.05
"""The part of a file's work that measuring and writing count for."""
_SHARE_TO_ESTIMATE = 0.1
"""From which part of a file's work on the time left is estimated."""
NOT_STARTED = "Not started because the disk is full. Free some space and continue with --resume."
TaskState = Literal["reading", "segmenting", "writing", "written", "kept", "failed"]


@dataclass(frozen=True)
class BatchProgress(Progress):
    """Progress of a run; `done` and `total` count files, `fraction` also the work within them."""

    share: float = 0.0
    """The completed part of the whole run, 0 to 1; it never decreases."""
    number: int = 0
    """Index of the task that this is about."""
    state: TaskState = "reading"
    """The state of that task."""
    outcome: TaskOutcome | None = None
    """Its outcome, once known."""
    left: str = ""
    """The estimate at the end of the message; empty without one."""

    @property
    def fraction(self) -> float:
        """The completed part of the run."""
        return self.share


def run_tasks_job(
    tasks: Sequence[SegmentTask],
    config: SegmentConfig,
    *,
    resume: bool = False,
    share: Share | None = None,
) -> Job[list[TaskOutcome]]:
    """Run tasks with one model; a task that fails does not stop the others.

    While one image is segmented, one thread reads the next and another writes the previous; at
    most three are in memory, plus one that waits to be written. Closing the job cancels the
    current segmentation; finished results are still written.

    Parameters
    ----------
    tasks
        From `plan`.
    config
        How to segment.
    resume
        Keep outputs whose record has the same input, model, prompts and settings; fail the task
        if they were made differently.
    share
        By which other runs in the output folder are left what they have, and waited for; it knows
        whether to resume. None if no other process writes these outputs.
    """
    from napari_simmat.checkpoints.loading import load_model_job
    from napari_simmat.engine.predictor import Predictor

    def before(step: Progress) -> Progress:  # no part of the progress of the run
        percent = "" if step.fraction is None else f", {step.fraction:.0%}"
        return Progress(0, len(tasks), f"{step.message}{percent}")

    model = yield from map_progress(load_model_job(config.model), before)
    predictor = Predictor(model, **asdict(config.compute))
    yield from map_progress(predictor.connect_job(), before)
    if any(task.prompts is None for task in tasks):
        config.automatic.check_model(model.spec)
    return (yield from _TaskRunner(tasks, predictor, config, resume, share).run_job())


class _Loading(NamedTuple):
    """An image that is being read, or waits for it."""

    number: int
    """Index of its task."""
    image: Future[LoadedImage]


class _Writing(NamedTuple):
    """A result that is being written, or waits for it."""

    number: int
    """Index of its task."""
    outcome: Future[TaskOutcome]


class _TaskRunner:
    """Runs tasks one by one, while the next images are read and the last results are written.

    Attributes
    ----------
    share
        What tells which images other runs have; None if this run has the folder alone.
    claims
        By number of a task, the right to write its outputs, from its reading on.
    left, loading, writing
        Numbers of tasks not begun, images that are read ahead, results on their way to the disk,
        each in order.
    disk_full
        Whether a result found no room: no further task is begun then.
    """

    def __init__(
        self,
        tasks: Sequence[SegmentTask],
        predictor: Predictor,
        config: SegmentConfig,
        resume: bool,
        share: Share | None,
    ) -> None:
        self.tasks = tasks
        self.predictor = predictor
        self.config = config
        self.resume = resume
        self.share = share
        self.claims: dict[int, Claim] = {}
        self.left = deque(range(len(tasks)))
        self.loading: deque[_Loading] = deque()
        self.writing: deque[_Writing] = deque()
        self.run = RunStatus(tasks)
        self.disk_full = False

    def run_job(self) -> Job[list[TaskOutcome]]:
        """Run all; returns their outcomes in the order of the tasks."""
        reader = ThreadPoolExecutor(1, "simmat-reader")
        writer = ThreadPoolExecutor(1, "simmat-writer")
        try:
            while (self.left or self.loading) and not self.disk_full:
                yield from self._take_job(reader)
                if self.loading:
                    yield from self._run_task_job(*self.loading.popleft(), writer)
                elif self.left:  # other runs have them
                    yield from self._wait_for_others_job()
            for number in sorted([*self.left, *(one.number for one in self.loading)]):
                failed = failed_outcome(self.tasks[number], DiskFullError(NOT_STARTED), 0.0)
                yield self.run.ended(number, failed)
            while self.writing:
                yield from self._write_job(self.writing[0].number)
        finally:
            reader.shutdown(cancel_futures=True)
            writer.shutdown()
            for claim in self.claims.values():
                claim.give_back()
        return self.run.outcomes()

    def _take_job(self, reader: ThreadPoolExecutor) -> Job[None]:
        """Have images read ahead that no other run has; those that others did have ended."""
        for number in list(self.left):
            # The last images are left to others, instead of being read ahead.
            others = 0 if self.share is None else self.share.others
            if len(self.loading) > (READ_AHEAD if len(self.left) > others else 0):
                return
            task = self.tasks[number]
            found = Claim(self.resume) if self.share is None else self.share.take(task)
            if found is None:
                continue
            self.left.remove(number)
            if isinstance(found, TaskOutcome):
                yield self.run.ended(number, found)
            else:
                self.claims[number] = found
                loading = reader.submit(recover_and_load, task, self.config, found.resume)
                self.loading.append(_Loading(number, loading))

    def _wait_for_others_job(self) -> Job[None]:
        """Write what is ready, then wait a moment for what other runs have."""
        while self._has_written:
            yield from self._write_job(self.writing[0].number)
        yield self.run.progress(self.left[0], "reading", Progress(0, 0, WAITING))
        time.sleep(POLL)

    def _run_task_job(
        self, number: int, loading: Future[LoadedImage], writer: ThreadPoolExecutor
    ) -> Job[None]:
        """Segment an image that is being read, and queue the result for writing."""
        claim = self.claims[number]
        start = time.monotonic()
        try:
            yield from self._with_written_job(self._wait_job(loading, number, "reading"))
            loaded = loading.result()
            job = segment_loaded_job(loaded, self.predictor, resume=claim.resume)
            job = map_progress(job, partial(self.run.progress, number, "segmenting"))
            result = yield from self._with_written_job(job)
        except Exception as error:
            yield self._failed(number, error, time.monotonic() - start)
            return
        finally:
            self.predictor.cache.clear()  # the next image needs none of its embeddings
        # Submitted before the next yield, where the run may be canceled: results are written.
        outcome = writer.submit(self._finish, claim, result, loaded)
        self.writing.append(_Writing(number, outcome))
        yield self.run.progress(number, "writing", Progress(0, 0, "writing"))
        while self._has_written or len(self.writing) > WRITE_BEHIND + 1:
            yield from self._write_job(number)

    def _finish(
        self, claim: Claim, result: SegmentedImage | TaskOutcome, loaded: LoadedImage
    ) -> TaskOutcome:
        """Write a result, in the writer's thread."""
        outcome = finish_task(result, loaded, self.predictor.model.spec)
        claim.end(outcome)
        return outcome

    @property
    def _has_written(self) -> bool:
        """Whether the oldest result is written."""
        return bool(self.writing) and self.writing[0].outcome.done()

    def _with_written_job(self, job: Job[T]) -> Job[T]:
        """A job of one task; what is written meanwhile of tasks before it ends at once."""
        steps = Steps(job)
        with closing(job):
            for step in steps:
                yield step
                while self._has_written:
                    yield from self._write_job(self.writing[0].number)
        return steps.result

    def _write_job(self, waiting: int) -> Job[None]:
        """Wait until the oldest result is written, on behalf of task `waiting`."""
        number, future = self.writing[0]
        yield from self._wait_job(future, waiting, "writing")
        self.writing.popleft()
        try:
            outcome = future.result()
        except Exception as error:
            yield self._failed(number, error, 0.0)
        else:
            yield self.run.ended(number, outcome)

    def _wait_job(
        self, future: Future[Any], number: int, state: Literal["reading", "writing"]
    ) -> Job[None]:
        while not wait([future], timeout=POLL).done:
            yield self.run.progress(number, state, Progress(0, 0, state))

    def _failed(self, number: int, error: Exception, seconds: float) -> BatchProgress:
        self.disk_full = self.disk_full or isinstance(error, DiskFullError)
        outcome = failed_outcome(self.tasks[number], error, seconds)
        self.claims[number].end(outcome)
        return self.run.ended(number, outcome)


class RunStatus:
    """Keeps the outcomes, and turns steps of single tasks into progress of the run.

    All files count the same: how much work is in them is not known before they are read.
    """

    def __init__(self, tasks: Sequence[SegmentTask]) -> None:
        self.tasks = tasks
        self._outcomes: dict[int, TaskOutcome] = {}
        self._shares = [0.0] * len(tasks)
        self._begun = time.monotonic()

    def ended(self, number: int, outcome: TaskOutcome) -> BatchProgress:
        """Note the outcome of a task; kept outputs do not enter the time estimate."""
        self._outcomes[number] = outcome
        self._shares[number] = 1.0
        if outcome.status == "kept" and self._computed() < _SHARE_TO_ESTIMATE:
            self._begun = time.monotonic()
        return self.progress(number, outcome.status, Progress(1, 1, outcome.status), outcome)

    def progress(
        self, number: int, state: TaskState, step: Progress, outcome: TaskOutcome | None = None
    ) -> BatchProgress:
        """A step of task `number` as progress of the run."""
        if state == "segmenting":
            share = (1 - WRITING_SHARE) * (step.fraction or 0.0)
            self._shares[number] = max(self._shares[number], share)
        total = len(self.tasks)
        ended = len(self._outcomes)
        done = sum(self._shares)
        name = self.tasks[number].name
        message = f"{name}: {step.message.removeprefix(f'{name}: ')}"
        if total > 1:
            failed = sum(one.status == "failed" for one in self._outcomes.values())
            counted = f"{ended - failed}/{total}"
            if failed:
                counted += f" ({failed} failed)"
            message = f"{counted} {message}"
        left = ""
        if self._computed() >= _SHARE_TO_ESTIMATE and ended < total:
            seconds = time.monotonic() - self._begun
            left = time_left(seconds, self._computed(), total - done)
            message += f", {left}"
        share = 1.0 if ended == total else done / total
        return BatchProgress(ended, total, message, share, number, state, outcome, left)

    def outcomes(self) -> list[TaskOutcome]:
        """The outcomes in the order of the tasks, which all have ended."""
        return [self._outcomes[number] for number in range(len(self.tasks))]

    def _computed(self) -> float:
        """How many files' worth of work was done in this run."""
        kept = sum(outcome.status == "kept" for outcome in self._outcomes.values())
        return sum(self._shares) - kept


def recover_and_load(task: SegmentTask, config: SegmentConfig, resume: bool) -> LoadedImage:
    """Clean up after a killed run of this task, then read its files."""
    recover_partial(task.files, finish=resume)
    return load_task(task, config)


def finish_task(
    result: SegmentedImage | TaskOutcome, loaded: LoadedImage, spec: ModelSpec
) -> TaskOutcome:
    """Write a result unless its outputs were kept, which only get a thumbnail."""
    if isinstance(result, TaskOutcome):
        return with_kept_thumbnail(result, loaded, spec)
    return write_result(result)


def failed_outcome(task: SegmentTask, error: Exception, seconds: float) -> TaskOutcome:
    """The outcome of a task that raised `error`, with a message that names the file."""
    logger.debug("%s failed", task.image, exc_info=error)
    name = task.name
    text = " ".join(str(error).split())
    if isinstance(error, (ValueError, TypeError, OSError, MemoryError)):
        words = text or type(error).__name__
        for start in ("", "Cannot read "):  # with the folder, in a run over many
            if words.startswith(f"{start}{task.image.name}"):
                words = f"{start}{name}{words.removeprefix(f'{start}{task.image.name}')}"
                break
    else:  # torch and readers raise anything, and the other files must still be done
        words = f"Something unexpected went wrong ({type(error).__name__}: {text[:300]})."
    note = words if name in words else f"{name}: {words}"
    return TaskOutcome(task, "failed", seconds=seconds, note=note)
