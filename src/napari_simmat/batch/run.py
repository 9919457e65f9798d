"""Carry out a plan with the output folder locked, and write a summary: a CSV and an HTML page.

Run tasks with one model: one by one in this process, or on the workers of a Dask cluster.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import platform
import re
import threading
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from filelock import FileLock, Timeout

from napari_simmat import __version__
from napari_simmat._text import format_list, pluralize
from napari_simmat.batch.outputs import recover_partial, with_kept_thumbnail, write_result
from napari_simmat.batch.plan import OutputFiles, Plan, SegmentConfig, SegmentTask
from napari_simmat.batch.segment_image import (
    LoadedImage,
    SegmentedImage,
    TaskOutcome,
    check_task,
    load_task,
    segment_loaded_job,
)
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.engine import remote
from napari_simmat.engine.settings import Compute, Shard
from napari_simmat.io.files import (
    DiskFullError,
    OutputError,
    atomic_outputs,
    write_table,
    write_text,
)
from napari_simmat.progress import Job, Progress, Steps, finish, map_progress, time_left

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
_POLL, _CLUSTER_POLL = 0.1, 0.2
"""Seconds between two steps of a waiting job, here and on a cluster; each can be canceled."""
_WORKER_LOCK = threading.Lock()
REMOVED = "{} was written, but removed before the run ended. Run it again with --resume."
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
    tasks: Sequence[SegmentTask], config: SegmentConfig, *, resume: bool = False
) -> Job[list[TaskOutcome]]:
    """Run tasks with one model; a task that fails does not stop the others.

    While one image is segmented, one thread reads the next and another writes the previous; at
    most three are in memory, plus one that waits to be written. Closing the job cancels the
    current segmentation; finished results are still written.

    Parameters
    ----------
    tasks
        From `plan`; no other process may be writing their outputs.
    config
        How to segment.
    resume
        Keep outputs whose record has the same input, model, prompts and settings; fail the task
        if they were made differently.
    """
    from napari_simmat.checkpoints.loading import load_model_job
    from napari_simmat.engine.predictor import Predictor

    def before(step: Progress) -> Progress:  # no part of the progress of the run
        percent = "" if step.fraction is None else f", {step.fraction:.0%}"
        return Progress(0, len(tasks), f"{step.message}{percent}")

    model = yield from map_progress(load_model_job(config.model), before)
    predictor = Predictor(model, **asdict(config.compute))
    yield from map_progress(predictor.connect_job(), before)
    return (yield from _TaskRunner(tasks, predictor, config, resume).run_job())


class _TaskRunner:
    def __init__(
        self,
        tasks: Sequence[SegmentTask],
        predictor: Predictor,
        config: SegmentConfig,
        resume: bool,
    ) -> None:
        self.tasks, self.predictor, self.config, self.resume = tasks, predictor, config, resume
        self.writing: deque[tuple[int, Future[TaskOutcome]]] = deque()
        self.run = RunStatus(tasks)
        self.disk_full = False

    def run_job(self) -> Job[list[TaskOutcome]]:
        reader = ThreadPoolExecutor(1, "simmat-reader")
        writer = ThreadPoolExecutor(1, "simmat-writer")
        try:
            ahead: deque[Future[LoadedImage]] = deque()
            for number in range(len(self.tasks)):
                if self.disk_full:
                    ahead.clear()
                    yield self._failed(number, DiskFullError(NOT_STARTED), 0.0)
                    continue
                for each in self.tasks[number + len(ahead) : number + 1 + READ_AHEAD]:
                    ahead.append(reader.submit(recover_and_load, each, self.config, self.resume))
                yield from self._run_task_job(number, ahead.popleft(), writer)
            while self.writing:
                yield from self._write_job(self.writing[0][0])
        finally:
            reader.shutdown(cancel_futures=True)
            writer.shutdown()
        return self.run.outcomes()

    def _run_task_job(
        self, number: int, loading: Future[LoadedImage], writer: ThreadPoolExecutor
    ) -> Job[None]:
        """Segment an image that is being read, and queue the result for writing."""
        start = time.monotonic()
        try:
            yield from self._with_written_job(self._wait_job(loading, number, "reading"))
            loaded = loading.result()
            job = segment_loaded_job(loaded, self.predictor, resume=self.resume)
            job = map_progress(job, partial(self.run.progress, number, "segmenting"))
            result = yield from self._with_written_job(job)
        except Exception as error:
            yield self._failed(number, error, time.monotonic() - start)
            return
        finally:
            self.predictor.cache.clear()  # the next image needs none of its embeddings
        # Submitted before the next yield, where the run may be canceled: results are written.
        spec = self.predictor.model.spec
        self.writing.append((number, writer.submit(finish_task, result, loaded, spec)))
        yield self.run.progress(number, "writing", Progress(0, 0, "writing"))
        while len(self.writing) > WRITE_BEHIND + 1 or (self.writing and self.writing[0][1].done()):
            yield from self._write_job(number)

    def _with_written_job(self, job: Job[T]) -> Job[T]:
        """A job of one task; what is written meanwhile of tasks before it ends at once."""
        steps = Steps(job)
        with closing(job):
            for step in steps:
                yield step
                while self.writing and self.writing[0][1].done():
                    yield from self._write_job(self.writing[0][0])
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
        while not wait([future], timeout=_POLL).done:
            yield self.run.progress(number, state, Progress(0, 0, state))

    def _failed(self, number: int, error: Exception, seconds: float) -> BatchProgress:
        self.disk_full = self.disk_full or isinstance(error, DiskFullError)
        return self.run.ended(number, failed_outcome(self.tasks[number], error, seconds))


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
        name, total = self.tasks[number].name, len(self.tasks)
        message = f"{name}: {step.message.removeprefix(f'{name}: ')}"
        ended, done, left = len(self._outcomes), sum(self._shares), ""
        if total > 1:
            failed = sum(one.status == "failed" for one in self._outcomes.values())
            counted = f"{ended - failed}/{total}" + (f" ({failed} failed)" if failed else "")
            message = f"{counted} {message}"
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
    name, text = task.name, " ".join(str(error).split())
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


# ------------------------------------------------------------------ on a Dask cluster


def run_on_cluster_job(
    address: str, tasks: Sequence[SegmentTask], config: SegmentConfig, *, resume: bool = False
) -> Job[list[TaskOutcome]]:
    """Run tasks like `run_tasks_job`, on a cluster; the outputs are the same.

    Each worker process loads the model once and runs one task at a time. Dask reassigns the task
    of a lost worker to another, which writes the same files. The workers need this version of this
    package, and images, model and output folder under the same paths. Closing the job cancels
    tasks that have not started.

    Parameters
    ----------
    address
        Of the scheduler, e.g. ``tcp://10.0.0.1:8786``; or the path of a scheduler file.
    tasks, config, resume
        As in `run_tasks_job`.

    Raises
    ------
    OSError
        If the scheduler cannot be reached, or has no suitable workers.
    """
    yield Progress(0, 0, f"connecting to {address}")
    model = Path(config.model).expanduser()
    if model.is_file():
        config = replace(config, model=str(model.absolute()))
    with remote.client(address) as client:
        run = RunStatus(tasks)
        waiting = {
            client.submit(_segment_on_worker, _absolute(task), config, resume, pure=False): number
            for number, task in enumerate(tasks)
        }
        futures = list(waiting)
        try:
            while waiting:
                done = [future for future in waiting if future.done()]
                for future in done:
                    number = waiting.pop(future)
                    yield run.ended(number, _outcome(future, tasks[number]))
                if not done:  # workers finish in any order: report the first unfinished task
                    workers = len(client.scheduler_info(n_workers=-1)["workers"])
                    step = Progress(0, 0, f"on {pluralize(workers, 'worker')}")
                    yield run.progress(next(iter(waiting.values())), "segmenting", step)
                    time.sleep(_CLUSTER_POLL)
        finally:
            client.cancel(futures, force=True)
    return run.outcomes()


def _segment_on_worker(task: SegmentTask, config: SegmentConfig, resume: bool) -> TaskOutcome:
    """Run one task on a worker."""
    start = time.monotonic()
    with _WORKER_LOCK:  # one task at a time, even if the worker has several threads
        try:
            if not task.image.exists():
                raise FileNotFoundError(
                    f"There is no file {task.image} where this worker runs; the folders need to be "
                    "shared with the cluster under the same paths."
                )
            predictor = _worker_predictor(config.model, config.compute)
            loaded = recover_and_load(task, config, resume)
            predictor.cache.clear()  # of the image before
            result = finish(segment_loaded_job(loaded, predictor, resume=resume))
            return finish_task(result, loaded, predictor.model.spec)
        except Exception as error:
            return failed_outcome(task, error, time.monotonic() - start)


@lru_cache(maxsize=1)
def _worker_predictor(model: str, compute: Compute) -> Predictor:
    """The predictor of this worker process, created for its first task."""
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.engine.predictor import Predictor

    return Predictor(load_model(model), **asdict(compute))


def _outcome(future: Any, task: SegmentTask) -> TaskOutcome:
    """The outcome from a worker, with the task's original paths."""
    try:
        outcome: TaskOutcome = future.result()
    except Exception as error:
        killed = type(error).__name__ == "KilledWorker"
        words = (
            "Its worker was lost several times at this file (perhaps the memory was full); try it "
            "alone."
            if killed
            else f"The cluster could not do it ({type(error).__name__}: {error})."
        )
        return failed_outcome(task, OSError(words), 0.0)
    if outcome.task.files.are_in_zarr:
        task = replace(task, files=task.files.in_zarr())
    return replace(outcome, task=task)


def _absolute(task: SegmentTask) -> SegmentTask:
    image, folder = task.image.absolute(), task.files.record.parent.absolute()
    prompts = None if task.prompts is None else task.prompts.absolute()
    files = OutputFiles.of(image, folder, list(task.files.extras))
    more = tuple(each.absolute() for each in task.channel_files)
    return replace(task, image=image, prompts=prompts, files=files, channel_files=more)


LOCK = ".simmat.lock"
"""The file that a run locks in its output folder."""
SUMMARY_TABLE, SUMMARY_PAGE = "simmat-summary.csv", "simmat-report.html"
ALL_OBJECTS = "simmat-objects.csv"
"""The tables of objects of all images, one below the other, with a column for the image."""
COLUMNS = ("image", "state", "objects", "hidden", "labels", "message")
MAX_PICTURES = 2000
"""Thumbnails on the page; with more it would open slowly."""


def run_plan_job(
    plan: Plan, config: SegmentConfig, *, scheduler: str | None = None
) -> Job[list[TaskOutcome]]:
    """Carry out a plan; for several images, also write a summary into the output folder.

    Parameters
    ----------
    plan
        From `plan`.
    config
        How to segment.
    scheduler
        Address of a `dask.distributed` scheduler whose workers run the tasks; None: this process.

    Returns
    -------
    list of TaskOutcome
        One for each task, in their order.

    Raises
    ------
    ValueError, OSError
        If another run writes into the folder, or the model cannot be used.
    """
    resume = plan.existing == "resume"
    with locked(plan.output, plan.shard):
        plan.check_existing()  # another run may have ended since the plan was made
        if scheduler is None:
            outcomes = yield from run_tasks_job(plan.tasks, config, resume=resume)
        else:
            outcomes = yield from run_on_cluster_job(scheduler, plan.tasks, config, resume=resume)
        outcomes = [_still_there(each) for each in outcomes]
        if plan.several:
            yield Progress(len(outcomes), len(outcomes), "writing the summary")
            write_summary(plan, outcomes, config)
    return outcomes


def _still_there(outcome: TaskOutcome) -> TaskOutcome:
    """The outcome, failed if its files were removed while the run went on."""
    files = outcome.task.files
    gone = [each for each in (files.labels, files.objects, files.record) if not each.exists()]
    if outcome.status == "failed" or not gone:
        return outcome
    return failed_outcome(outcome.task, OSError(REMOVED.format(gone[0])), outcome.seconds)


@contextmanager
def locked(folder: Path, shard: Shard | None = None) -> Iterator[None]:
    """Lock a folder against other runs; the lock of a killed run does not count.

    The other shards of one division write into it at the same time.

    The folder is created if needed, and removed again if nothing was written into it.

    Raises OutputError if another run is using it, or the folder cannot be written.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    name = LOCK if shard is None else f".simmat.{shard}.lock"
    lock = FileLock(folder / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        for other in folder.glob(".simmat*.lock"):
            if other.name != name and not (
                shard is not None and other.name.endswith(f"-of-{shard.count}.lock")
            ):
                with FileLock(other, timeout=0):
                    pass  # of a killed run
    except Timeout:
        lock.release()
        raise OutputError(
            f"Another run is writing into {folder}. Wait until it has ended, or choose another "
            "output folder."
        ) from None
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror}). Change its permissions or choose "
            "another output folder."
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes an open file only when it is closed
            os.unlink(folder / name)
        lock.release()
        with suppress(OSError):
            for each in made:
                each.rmdir()


@dataclass(frozen=True)
class SummaryRow:
    """One image of a summary."""

    image: str
    state: Literal["done", "failed", "skipped"]
    objects: int | None = None
    hidden: int | None = None
    labels: str = ""
    message: str = ""
    seconds: float | None = None
    note: str = ""
    picture: bytes = b""


def write_summary(plan: Plan, outcomes: Sequence[TaskOutcome], config: SegmentConfig) -> None:
    """Write the files of `summary_files` into the output folder, replacing earlier ones.

    The tables depend only on inputs and outputs: they hold no times, and kept outputs look like
    new ones.
    """
    rows = summary_rows(plan, outcomes)
    done = [each for each in zip(rows, outcomes, strict=False) if each[1].status != "failed"]
    tables = {row.image: outcome.task.files.objects for row, outcome in done}
    # Images may have other channels, axes and units than others.
    columns = dict.fromkeys(name for path in tables.values() for name in _read_table(path)[0])
    cells = (
        {"image": image, **row} for image, path in tables.items() for row in _read_table(path)[1]
    )
    with atomic_outputs(*summary_files(plan)) as (table, page, objects):
        write_table(objects, ["image", *columns], cells)
        write_table(
            table, COLUMNS, [{name: getattr(row, name) for name in COLUMNS} for row in rows]
        )
        write_text(page, "".join(_page(rows, config)))


def check_plan_job(plan: Plan, config: SegmentConfig) -> Job[dict[str, str]]:
    """What a run of the plan would refuse, by image.

    Pixels are read of small images, and of those whose channels are in several files.

    Raises ValueError if there is no such model.
    """
    spec = find_model(config.model).spec
    problems = {}
    for number, task in enumerate(plan.tasks):
        yield Progress(number, len(plan.tasks), f"checking {task.name}")
        try:
            check_task(task, config, None if spec is None else spec.inputs)
        except Exception as error:  # as in a run, readers raise anything
            problems[str(task.image)] = failed_outcome(task, error, 0.0).note
    return problems


def summary_files(plan: Plan) -> list[Path]:
    """Table and page of a run, and the objects of all images; each shard has its own."""
    names = map(Path, (SUMMARY_TABLE, SUMMARY_PAGE, ALL_OBJECTS))
    part = "" if plan.shard is None else f"-{plan.shard}"
    return [plan.output / f"{name.stem}{part}{name.suffix}" for name in names]


def _read_table(path: Path) -> tuple[Sequence[str], Iterator[dict[str, str]]]:
    """Columns and rows of a table of objects; the rows are read one by one."""
    lines = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    return lines.fieldnames or (), lines


def summary_rows(plan: Plan, outcomes: Sequence[TaskOutcome]) -> list[SummaryRow]:
    """A row for each input image, skipped ones last."""
    rows = []
    for outcome in outcomes:
        labels = outcome.task.files.labels
        inside = labels.is_relative_to(plan.output)
        labels = labels.relative_to(plan.output) if inside else Path(labels.name)
        image, seconds = (labels.parent / outcome.task.image.name).as_posix(), outcome.seconds
        if outcome.status == "failed":
            message = _without_folder(outcome.note, plan.output)
            rows.append(SummaryRow(image, "failed", message=message, seconds=seconds))
            continue
        row = SummaryRow(
            image,
            "done",
            outcome.objects,
            len(outcome.hidden),
            labels.as_posix(),
            seconds=seconds,
            note=("Kept from an earlier run. " if outcome.status == "kept" else "") + outcome.note,
            picture=outcome.thumbnail,
        )
        rows.append(row)
    for one in plan.skipped:
        message = _without_folder(one.why, plan.output)
        row = SummaryRow(one.image.name, "failed" if one.failed else "skipped", message=message)
        rows.append(row)
    return rows


def _without_folder(sentence: str, folder: Path) -> str:
    """Remove the output folder from paths in a sentence, so that it does not depend on it."""
    # Only at the start of a path: it may also be the end of another one.
    return re.sub(rf"(?<!\S){re.escape(f'{folder}{os.sep}')}", "", sentence)


_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; color: #222;
  padding: 0 1em; background: #fff; }
h1 { font-size: 1.4em; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .4em .7em; border-top: 1px solid #ddd; vertical-align: middle; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td img { display: block; image-rendering: pixelated; }
.failed { color: #a1260d; } .skipped { color: #777; }
"""


def _page(lines: Sequence[SummaryRow], config: SegmentConfig) -> Iterable[str]:
    """The page, with escaped texts and embedded pictures."""
    count = Counter(line.state for line in lines)
    objects = sum(line.objects or 0 for line in lines)
    time = datetime.now().astimezone()
    channels = format_list(config.selection.channels) or "all"
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<title>Segmentation report</title>\n"
        f"<style>{_STYLE}</style></head><body>\n<h1>Segmentation report</h1>\n<p>"
        f"{count['done']} of {pluralize(len(lines), 'image')} segmented, "
        f"{pluralize(objects, 'object')}; "
        f"{count['failed']} failed, {count['skipped']} skipped.</p>\n<p>"
        f"Model {escape(config.model)}, channels {escape(channels)}; napari-simmat "
        f"{escape(__version__)} on {escape(platform.node())}, {time:%Y-%m-%d %H:%M %Z}.</p>\n"
        "<table><thead><tr><th></th><th>image</th><th>state</th>"
        '<th class="number">objects</th><th class="number">seconds</th><th>message</th>'
        "</tr></thead><tbody>\n"
    )
    for number, line in enumerate(lines):
        picture = ""
        if line.picture and number < MAX_PICTURES:
            coded = b64encode(line.picture).decode("ascii")
            picture = f'<img alt="" src="data:image/png;base64,{coded}">'
        hidden = f"{line.hidden} hidden by others. " if line.hidden else ""
        cells = (
            f"<td>{picture}</td>",
            f"<td>{escape(line.image)}</td>",
            f'<td class="{line.state}">{line.state}</td>',
            f'<td class="number">{"" if line.objects is None else line.objects}</td>',
            f'<td class="number">{"" if line.seconds is None else f"{line.seconds:.1f}"}</td>',
            f"<td>{escape(hidden + line.note + line.message)}</td>",
        )
        yield f"<tr>{''.join(cells)}</tr>\n"
    yield "</tbody></table></body></html>\n"
