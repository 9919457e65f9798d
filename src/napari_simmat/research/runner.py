"""Run an experiment: read the data, do the runs that its table of results lacks, and report."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from napari_simmat.datasets.aims import from_aims
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.models.network import Network
from napari_simmat.models.spec import Model, ModelSpec
from napari_simmat.progress import Job, Progress, map_progress
from napari_simmat.research.experiments import (
    EXPERIMENTS,
    GENERATED,
    BenchmarkConfig,
    ExperimentName,
    ExperimentRun,
    ResultRow,
    append_row,
    make_runs,
    read_rows,
)
from napari_simmat.research.generated import GeneratedConfig, generate_job
from napari_simmat.research.report import PANEL_ARMS, draw_panels_job, draw_plot, markdown_table
from napari_simmat.training.batches import LabeledPlanes
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.finetune import ValidationScores, train_job, validate_network_job
from napari_simmat.training.trainer import BEST_FILE, Devices


@dataclass(frozen=True)
class ExperimentReport:
    """An experiment's table in Markdown, its rows, and the files written (table, plot, rows)."""

    text: str
    rows: tuple[ResultRow, ...]
    files: tuple[Path, ...]


def run_experiment_job(
    experiment: ExperimentName,
    data: str,
    base: Model,
    config: BenchmarkConfig,
    output: Path,
    device: str = "auto",
) -> Job[ExperimentReport]:
    """Do the remaining runs of an experiment, and write its table and plot.

    Parameters
    ----------
    experiment
        A name in `EXPERIMENTS`, or ``"panels"``: the qualitative figure, from the runs of
        ``"transfer"`` with the first seed.
    data
        ``"generated"``, or a folder with the AIMS benchmark.
    base
        The foundation. On generated data one that saw photographs only, `RGB_BASE`.
    config
        Modalities, seeds, budget.
    output
        Folder that gets EXPERIMENT.csv (a row for each run, to resume from), .md and .png.
    device
        Where to compute.
    """
    if experiment not in get_args(ExperimentName):
        known = ", ".join(get_args(ExperimentName))
        raise ValueError(f"Experiment {experiment!r} is unknown; use one of {known}.")
    config = config.on(base.spec, data)
    modalities = config.modalities_of(experiment, data)
    datasets = {}
    for modality in modalities:
        datasets[modality] = yield from _read_dataset_job(modality, data, config)
    rows_of: ExperimentName = "transfer" if experiment == "panels" else experiment
    images = {name: len(dataset.train) for name, dataset in datasets.items()}
    runs = make_runs(rows_of, modalities, config.seeds_of(experiment), config, images)
    if experiment == "panels":
        runs = [run for run in runs if run.arm in PANEL_ARMS]
    prefix = "quick-" if config.quick else ""
    table, state = output / f"{prefix}{rows_of}.csv", output / f"{prefix}runs"
    other_tables = [output / f"{prefix}{name}.csv" for name in EXPERIMENTS if name != rows_of]
    rows = yield from run_all_job(runs, datasets, base, config, table, state, device, other_tables)
    picture = output / f"{prefix}{experiment}.png"
    if experiment == "panels":
        yield from draw_panels_job(runs, datasets, base, config, state, picture)
        return ExperimentReport(
            markdown_table(rows_of, rows, config.quick), tuple(rows), (picture,)
        )
    draw_plot(experiment, rows, picture, config.quick)
    text = markdown_table(experiment, rows, config.quick)
    if config.protocol == "paper":
        text += f"\n{config.describe()}"
    document = output / f"{prefix}{experiment}.md"
    document.write_text(text, encoding="utf-8")
    return ExperimentReport(text, tuple(rows), (table, document, picture))


def _read_dataset_job(modality: str, data: str, config: BenchmarkConfig) -> Job[Dataset]:
    """The samples of a modality: drawn, or from the folder `data` with the AIMS benchmark."""
    if data != GENERATED:
        return from_aims(data, modality)
    drawn = GeneratedConfig(
        sensor=modality,
        kind="benchmark",
        side=config.side,
        train=config.images,
        validation=config.validation,
        test=config.test,
    )
    return (yield from generate_job(drawn))


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
        if run.training in known and not run.is_kept:
            done[run.key] = replace(known[run.training], run=run)
            append_row(table, done[run.key])
            continue
        job = _run_one_job(
            run, datasets[run.modality], base, config, folder / run.path_name, device
        )
        words = f"{run.modality}, {run.arm}, seed {run.seed}"
        row = yield from map_progress(job, partial(_overall, words, number, len(runs)))
        append_row(table, row)
        done[run.key] = row
    return [done[run.key] for run in runs]


def _overall(words: str, number: int, total: int, part: Progress) -> Progress:
    """The progress of run `number` of `total` in thousandths of a run."""
    share = min(0.99, part.done / max(1, part.total))
    return Progress(int(1000 * (number + share)), 1000 * total, f"{words}: {part.message}")


def _run_one_job(
    run: ExperimentRun,
    dataset: Dataset,
    base: Model,
    config: BenchmarkConfig,
    folder: Path,
    device: str,
) -> Job[ResultRow]:
    started = time.process_time()
    if run.share < 1:  # the first images: a larger share holds a smaller one
        count = max(1, round(run.share * len(dataset.train)))
        dataset = replace(dataset, train=dataset.train[:count])
    if not run.steps:
        side = TrainConfig().side_for(base.spec)
        reached = yield from _test_job(base.network, base.spec, dataset, side, config)
        parameters, images, validated = 0, 0, math.nan
    else:
        how, places = run.config(config), Devices(device=device)
        trained = yield from train_job(base, dataset, how, run.arm, folder, places)
        student = trained.student
        side = how.side_for(base.spec)
        reached = yield from _test_job(student.network, student.spec, dataset, side, config)
        parameters = sum(p.numel() for p in student.network.parameters() if p.requires_grad)
        images = len(dataset.train)
        validated = trained.spec.metrics["validation"]["click"]
        if run.is_kept:
            kept = run.checkpoint(folder.parent)
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / BEST_FILE, kept)
        shutil.rmtree(folder)
    return ResultRow(
        run,
        parameters,
        images,
        validated,
        test_iou=round(100 * reached.iou, 3),
        test_dice=round(100 * float(np.mean(reached.dices)), 3),
        seconds=round(time.process_time() - started, 1),
        base=base.spec.name,
    )


def _test_job(
    network: Network, spec: ModelSpec, dataset: Dataset, side: int, config: BenchmarkConfig
) -> Job[ValidationScores]:
    planes = LabeledPlanes(dataset, dataset.test, spec, side)
    yield from planes.scan_job("test on")
    objects = config.value("test_objects")
    return (yield from validate_network_job(network, planes, side, objects))
