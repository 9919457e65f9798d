"""Carry out a plan: the output folder is locked meanwhile, and a summary ends it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_simmat.batch.plans import Plan
from napari_simmat.batch.running import running
from napari_simmat.batch.summary import write_summary
from napari_simmat.engine.files import OutputError
from napari_simmat.engine.jobs.tasks import Outcome, SegmentConfig
from napari_simmat.progress import Job, Progress

LOCK = ".simmat.lock"
"""The file that a run holds in its output folder."""


def carrying_out(
    plan: Plan, config: SegmentConfig, *, scheduler: str | None = None
) -> Job[list[Outcome]]:
    """Do what was planned; several images get a summary in the output folder.

    Parameters
    ----------
    plan
        From `plan`.
    config
        How to segment.
    scheduler
        Address of a `dask.distributed` scheduler whose workers do the tasks; None: here.

    Returns
    -------
    list of Outcome
        One for each task, in their order.

    Raises
    ------
    ValueError, OSError
        If another run writes into the folder, or the model cannot be used.
    """
    resume = plan.existing == "resume"
    with locked(plan.output):
        plan.check_existing()  # another run may have ended meanwhile
        if scheduler is None:
            outcomes = yield from running(plan.tasks, config, resume=resume)
        else:
            from napari_simmat.batch.cluster import running_on

            outcomes = yield from running_on(scheduler, plan.tasks, config, resume=resume)
        if plan.several:
            yield Progress(len(outcomes), len(outcomes), "writing the summary")
            write_summary(plan, outcomes, config)
    return outcomes


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; a run that is killed keeps nobody out.

    The folder is made for it; when nothing was written into it, it goes again.

    Raises
    ------
    OutputError
        If another run is at work there, or the folder cannot be written.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
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
        with suppress(OSError):  # Windows removes it later, with nobody holding it
            os.unlink(folder / LOCK)
        lock.release()
        with suppress(OSError):
            for each in made:
                each.rmdir()
