"""Run tasks on the workers of a `dask.distributed` scheduler.

Each worker process loads the model once and runs one task at a time. Dask reassigns the task of a
lost worker to another, which writes the same files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_simmat._text import __version__, pluralize
from napari_simmat.batch.plan import OutputFiles, SegmentConfig, SegmentTask, TaskOutcome
from napari_simmat.batch.runner import RunStatus, failed_outcome, finish_task, recover_and_load
from napari_simmat.batch.segment_image import segment_loaded_job
from napari_simmat.progress import Job, Progress, finish

SCHEDULER_TIMEOUT = 15
"""Seconds to wait for a scheduler."""
_POLL = 0.2
"""Seconds between two steps of the job; it can be cancelled at each."""
_LOCK = threading.Lock()
_MODELS = "simmat-predictors"


def run_on_cluster_job(
    address: str, tasks: Sequence[SegmentTask], config: SegmentConfig, *, resume: bool = False
) -> Job[list[TaskOutcome]]:
    """Run tasks like `run_tasks_job`, on a cluster; the outputs are the same.

    The workers need this version of this package, and images, model and output folder under the
    same paths. Closing the job cancels tasks that have not started.

    Parameters
    ----------
    address
        Of the scheduler, e.g. ``tcp://10.0.0.1:8786``; or the path of a scheduler file.
    tasks, config, resume
        As in `run_tasks_job`.

    Raises
    ------
    ValueError, OSError
        If the scheduler cannot be reached, or has no suitable workers.
    """
    distributed = _distributed()
    yield Progress(0, 0, f"connecting to {address}")
    config = replace(config, model=_reference(config.model))
    with _client(distributed, address) as client:
        _check_workers(client, address)
        run = RunStatus(tasks)
        outcomes: dict[int, TaskOutcome] = {}
        futures = {
            client.submit(_segment_on_worker, _absolute(task), config, resume, pure=False): number
            for number, task in enumerate(tasks)
        }
        try:
            waiting = set(futures)
            while waiting:
                done = {future for future in waiting if future.done()}
                waiting -= done
                for future in sorted(done, key=futures.__getitem__):
                    number = futures[future]
                    outcomes[number] = _outcome(future, tasks[number])
                    yield run.ended(number, outcomes[number])
                if not done:  # workers finish in any order: report the first unfinished task
                    workers = len(client.scheduler_info(n_workers=-1)["workers"])
                    words = f"on {pluralize(workers, 'worker')}"
                    number = min(futures[each] for each in waiting)
                    yield run.progress(number, "segmenting", Progress(0, 0, words))
                    time.sleep(_POLL)
        finally:
            client.cancel(list(futures), force=True)
    return [outcomes[number] for number in range(len(tasks))]


def _segment_on_worker(task: SegmentTask, config: SegmentConfig, resume: bool) -> TaskOutcome:
    """Run one task on a worker."""
    start = time.monotonic()
    with _LOCK:  # one task at a time, even if the worker has several threads
        try:
            if not task.image.exists():
                raise FileNotFoundError(
                    f"There is no file {task.image} where this worker runs; the folders need to be "
                    "shared with the cluster under the same paths."
                )
            predictor = _predictor(config)
            loaded = recover_and_load(task, config, resume)
            result = finish(segment_loaded_job(loaded, predictor, config, resume=resume))
            return finish_task(result, loaded, predictor.model.spec, config)
        except Exception as error:
            return failed_outcome(task, error, time.monotonic() - start)


def _predictor(config: SegmentConfig) -> Any:
    """The predictor of this worker process, created for its first task."""
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.engine.predictor import Predictor

    worker = import_module("distributed").get_worker()
    kept: dict[Any, Any] = worker.__dict__.setdefault(_MODELS, {})
    key = (config.model, config.device, config.precision)
    if key not in kept:
        kept.clear()  # one model in memory
        kept[key] = Predictor(
            load_model(config.model), device=config.device, precision=config.precision
        )
    return kept[key]


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


@contextmanager
def _client(distributed: Any, address: str) -> Iterator[Any]:
    file = Path(address).expanduser()
    where = {"scheduler_file": str(file)} if file.is_file() else {"address": address}
    try:
        client = distributed.Client(**where, timeout=SCHEDULER_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise OSError(
            f"No Dask scheduler answers at {address} ({said}). Check the address, and that it runs."
        ) from None
    try:
        yield client
    finally:
        client.close()


def _check_workers(client: Any, address: str) -> None:
    """Refuse workers without this version of this package."""
    try:
        client.wait_for_workers(1, timeout=SCHEDULER_TIMEOUT)
        versions = client.run(_version)
    except TimeoutError:
        raise OSError(
            f"The Dask scheduler at {address} has no workers. Start some: dask worker {address}."
        ) from None
    except ModuleNotFoundError:
        raise ValueError(
            f"The workers of {address} have no napari-simmat. Install {__version__} there as well."
        ) from None
    other = sorted({version for version in versions.values() if version != __version__})
    if other:
        raise ValueError(
            f"The workers of {address} have napari-simmat {', '.join(other)}, but here is "
            f"{__version__}. Install the same version there."
        )


def _version() -> str:
    return __version__


def _absolute(task: SegmentTask) -> SegmentTask:
    """The task with absolute paths."""
    files = task.files
    return replace(
        task,
        image=task.image.absolute(),
        prompts=None if task.prompts is None else task.prompts.absolute(),
        files=OutputFiles(
            labels=files.labels.absolute(),
            objects=files.objects.absolute(),
            record=files.record.absolute(),
            extras={kind: path.absolute() for kind, path in files.extras.items()},
        ),
    )


def _reference(model: str) -> str:
    """The absolute path of a model file; a name is unchanged."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.is_file() else model


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ImportError:
        raise ValueError(
            "A cluster needs the package distributed; install it (pip install "
            '"napari-simmat[cluster]").'
        ) from None
