"""Segment the images of a plan on the workers of a Dask cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_simmat._text import pluralize
from napari_simmat.batch.plan import OutputFiles, SegmentConfig, SegmentTask
from napari_simmat.batch.segment_image import (
    TaskOutcome,
    segment_loaded_job,
)
from napari_simmat.batch.tasks import RunStatus, failed_outcome, finish_task, recover_and_load
from napari_simmat.engine import remote
from napari_simmat.engine.everything.tissue import AUTO
from napari_simmat.engine.settings import Compute
from napari_simmat.progress import Job, Progress, finish

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

_CLUSTER_POLL = 0.2
"""The same while workers of a cluster are waited for."""
_WORKER_LOCK = threading.Lock()


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
    if config.tissue not in ("", AUTO):
        config = replace(config, tissue=str(Path(config.tissue).expanduser().absolute()))
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
            if not all(path.exists() for path in task.read):
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
