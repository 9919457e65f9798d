"""Do the runs of an experiment one after the other; a table holds the results and is resumed."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from napari_simmat.benchmark.experiments import (
    SCRATCH,
    SIMMAT,
    BenchmarkConfig,
    ExperimentRun,
    ResultRow,
    append_row,
    read_rows,
)
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.models.network import Network
from napari_simmat.models.spec import Model, ModelSpec
from napari_simmat.progress import Job, Progress, map_progress
from napari_simmat.training.batches import LabelledPlanes
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.devices import Devices
from napari_simmat.training.finetune import train_job
from napari_simmat.training.run_folder import BEST_FILE
from napari_simmat.training.validation import ValidationScores, validate_network_job

MAX_TEST_OBJECTS = 1000
"""Maximum number of prompted objects of the test planes."""


def run_all_job(
    runs: Sequence[ExperimentRun],
    datasets: Mapping[str, Dataset],
    base: Model,
    config: BenchmarkConfig,
    table: Path,
    folder: Path,
    device: str = "auto",
    other_tables: Sequence[Path] = (),
) -> Job[list[ResultRow]]:
    """Do all runs that the table lacks, in their order; returns the rows of all.

    A training that another experiment has done is not repeated, unless its checkpoint is kept.

    Parameters
    ----------
    runs, config
        The runs, and their common settings.
    datasets
        By modality; the runs are tested on their test planes.
    base
        A foundation.
    table
        CSV file that gets a row when a run is done.
    folder
        Holds the state of the current training, so that it can be resumed, too.
    device
        Where to compute.
    other_tables
        Of other experiments on the same data, if they exist.
    """
    done = {row.run.key: row for row in read_rows(table)}
    known = {row.run.training: row for path in other_tables for row in read_rows(path)}
    for number, run in enumerate(runs):
        if run.key in done:
            continue
        if run.training in known and not is_kept(run):
            done[run.key] = replace(known[run.training], run=run)
            append_row(table, done[run.key])
            continue
        job = _run_one_job(
            run, datasets[run.modality], base, config, folder / _run_name(run), device
        )
        row = yield from map_progress(job, partial(_overall, run, number, len(runs)))
        append_row(table, row)
        done[run.key] = row
    return [done[run.key] for run in runs]


def _overall(run: ExperimentRun, number: int, total: int, part: Progress) -> Progress:
    """The progress of run `number` of `total` in thousandths of a run."""
    share = min(0.99, part.done / max(1, part.total))
    words = f"{run.modality}, {run.arm}, seed {run.seed}: {part.message}"
    return Progress(int(1000 * (number + share)), 1000 * total, words)


def _run_one_job(
    run: ExperimentRun,
    dataset: Dataset,
    base: Model,
    config: BenchmarkConfig,
    folder: Path,
    device: str,
) -> Job[ResultRow]:
    started = time.monotonic()
    if run.share < 1:  # the first images: a larger share holds a smaller one
        count = max(1, round(run.share * len(dataset.train)))
        dataset = replace(dataset, train=dataset.train[:count])
    if not run.steps:
        side = TrainConfig().side_for(base.spec)
        reached = yield from _test_job(base.network, base.spec, dataset, side)
        parameters, images, validated = 0, 0, math.nan
    else:
        how, places = run.config(config), Devices(device=device)
        trained = yield from train_job(base, dataset, how, run.arm, folder, places)
        student = trained.student
        side = how.side_for(base.spec)
        reached = yield from _test_job(student.network, student.spec, dataset, side)
        parameters = sum(p.numel() for p in student.network.parameters() if p.requires_grad)
        images = len(dataset.train)
        validated = trained.spec.metrics["validation"]["click"]
        if is_kept(run):
            kept = checkpoint_of(run, folder.parent)
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / BEST_FILE, kept)
        shutil.rmtree(folder)
    return ResultRow(
        run,
        parameters,
        images,
        validated,
        test_iou=round(100 * reached.iou, 3),
        test_dice=round(100 * reached.dice, 3),
        seconds=round(time.monotonic() - started, 1),
        base=base.spec.name,
    )


def _test_job(
    network: Network, spec: ModelSpec, dataset: Dataset, side: int
) -> Job[ValidationScores]:
    planes = LabelledPlanes(dataset, dataset.test, spec, side)
    yield from planes.scan_job("test on")
    return (yield from validate_network_job(network, planes, side, MAX_TEST_OBJECTS))


def is_kept(run: ExperimentRun) -> bool:
    """Whether a run's best checkpoint is kept, for the qualitative figure."""
    return run.experiment == "transfer" and run.arm in (SCRATCH, SIMMAT)


def checkpoint_of(run: ExperimentRun, folder: Path) -> Path:
    """Path of a run's best checkpoint, if it `is_kept`."""
    return folder / "checkpoints" / f"{_run_name(run)}.safetensors"


def _run_name(run: ExperimentRun) -> str:
    return "-".join(run.key).replace(" ", "")
