"""Run an experiment: do the runs that its table of results lacks, and report."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from napari_simmat._text import format_list, pluralize
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.engine.device import choose_device, tf32_job
from napari_simmat.models.spec import Model
from napari_simmat.progress import Job, as_part
from napari_simmat.training.batches import round_up
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.devices import Devices
from napari_simmat.training.finetune import train_job
from napari_simmat.training.labeled_planes import LabeledPlanes
from napari_simmat.training.run_folder import BEST_FILE
from napari_simmat.training.trainable import check_foundation
from napari_simmat.training.validation import validate_network_job
from simmat_research.aims import AIMS, from_aims, keys_in
from simmat_research.experiments import (
    EXPERIMENTS,
    GENERATED,
    SCRATCH,
    ZERO_SHOT,
    BenchmarkConfig,
    ExperimentName,
    ExperimentRun,
    ResultRow,
    Shard,
    append_row,
    make_runs,
    read_rows,
    tables_of,
)
from simmat_research.generated import GeneratedConfig, generate_job
from simmat_research.report import draw_panels_job, draw_plot, markdown_table
from simmat_research.schedule import Clock, RunWork, seconds_to_encode

logger = logging.getLogger(__name__)


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
    places: Devices | None = None,
    shard: Shard | None = None,
    say: Callable[[str], object] = logger.info,
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
        Folder that gets EXPERIMENT.csv (a row for each run, to resume from), .md and .png, see
        `BenchmarkConfig.stem_of`.
    places
        Where to compute: one device.
    shard
        Does a part of the runs alone and writes its rows into a table of its own; several processes
        divide an experiment so. A call without takes over their rows, and does what is left.
    say
        Told how long it will take, and which sensors are not there.
    """
    rows_of: ExperimentName = "transfer" if experiment == "panels" else experiment
    if experiment == "panels" and shard is not None:
        raise ValueError("Panels are drawn by one process; leave --shard out.")
    check_foundation(base.spec)
    config = config.on(base.spec, data)
    if experiment == "panels":
        config = replace(config, arms=(ZERO_SHOT, SCRATCH, config.ours))
    modalities = sensors_there(experiment, data, config, say)
    datasets = yield from _datasets_job(modalities, data, config)
    images = {name: len(dataset.train) for name, dataset in datasets.items()}
    runs = make_runs(rows_of, modalities, config.seeds_of(experiment), config, images)
    stem = config.stem_of(rows_of, base.spec)
    table, state = output / f"{stem}.csv", output / config.folder
    plan = RunPlan(runs, datasets, base, config, table, state, places or Devices(), shard)
    rows = yield from run_all_job(plan, say)
    if shard is not None:
        return ExperimentReport(_said_of_part(plan, rows), tuple(rows), plan.written)
    picture = output / f"{config.stem_of(experiment, base.spec)}.png"
    text = markdown_table(rows_of, rows, config.quick)
    if experiment == "panels":
        yield from draw_panels_job(runs, datasets, base, config, state, picture)
        return ExperimentReport(text, tuple(rows), (picture,))
    draw_plot(experiment, rows, picture, config.quick)
    if config.protocol == "paper":
        text += f"\n{config.describe()}"
    document = output / f"{stem}.md"
    document.write_text(text, encoding="utf-8")
    return ExperimentReport(text, tuple(rows), (table, document, picture))


def sensors_there(
    experiment: ExperimentName, data: str, config: BenchmarkConfig, say: Callable[[str], object]
) -> tuple[str, ...]:
    """The modalities of an experiment; of those of AIMS that nobody named, those in its folder.

    Raises
    ------
    ValueError, OSError
        If none of them is there; the message names those that are.
    """
    wanted = config.modalities_of(experiment, data)
    if data == GENERATED or config.modalities:
        return wanted
    there = keys_in(data, wanted)
    if not there:
        others = format_list(keys_in(data)) or "none"
        folders = format_list(dict.fromkeys(AIMS[key] for key in wanted))
        raise ValueError(
            f"{data} has no folder {folders}, which {experiment} reads; of the benchmark's sensors "
            f"it has {others}. Download it, or name others with --modalities."
        )
    if missing := [f"{key} ({AIMS[key]})" for key in wanted if key not in there]:
        say(
            f"{data} holds {format_list(there)}; left out, as their folders are not there: "
            f"{format_list(missing)}."
        )
    return there[:2] if config.quick else there


def _datasets_job(
    modalities: Sequence[str], data: str, config: BenchmarkConfig
) -> Job[dict[str, Dataset]]:
    planes = {"train": config.images, "validation": config.validation, "test": config.test}
    datasets = {}
    for modality in modalities:
        if data == GENERATED:
            drawn = GeneratedConfig(sensor=modality, kind="benchmark", side=config.side, **planes)
            datasets[modality] = yield from generate_job(drawn)
        else:
            datasets[modality] = from_aims(data, modality)
    return datasets


@dataclass(frozen=True)
class RunPlan:
    """The runs of an experiment, and what all of them share.

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
    places
        Where to compute: one device.
    shard
        The part of the runs to do; all by default.
    """

    runs: Sequence[ExperimentRun]
    datasets: Mapping[str, Dataset]
    base: Model
    config: BenchmarkConfig
    table: Path
    folder: Path
    places: Devices = field(default_factory=Devices)
    shard: Shard | None = None

    @property
    def own_table(self) -> Path:
        """The table that this process writes."""
        return self.table if self.shard is None else self.shard.table(self.table)

    @property
    def written(self) -> tuple[Path, ...]:
        """The same, if it is there: a part may hold no run."""
        return (self.own_table,) if self.own_table.exists() else ()

    def rows_of(self, table: Path) -> list[ResultRow]:
        """The rows of a table; ValueError if they are of another foundation."""
        rows = read_rows(table)
        for row in rows:
            if row.base != self.base.spec.name:
                raise ValueError(
                    f"{table} holds runs on {row.base}, not {self.base.spec.name}; choose another "
                    "folder."
                )
        return rows

    def other_rows(self) -> Iterator[ResultRow]:
        """Rows of other experiments in the same folder whose trainings are the same."""
        prefix, own = "quick-" if self.config.quick else "", tables_of(self.table)
        names = [f"{prefix}{name}{rest}" for name in EXPERIMENTS for rest in OTHER_TABLES]
        found = (path for name in names for path in sorted(self.table.parent.glob(name)))
        for path in dict.fromkeys(found):
            if path not in own and ("-uniform" in path.stem) == self.config.uniform_init:
                yield from self.rows_of(path)


OTHER_TABLES = (".csv", "-*.csv", ".*of*.csv")
"""What follows the name of an experiment in that of a table."""


def run_all_job(plan: RunPlan, say: Callable[[str], object] = logger.info) -> Job[list[ResultRow]]:
    """Do all runs that the tables lack, in their order; returns the rows of those that are done.

    A training that another experiment has done is not repeated, unless its checkpoint is kept. How
    long it takes is told before the first training, and after its first steps.
    """
    runs, config, datasets = plan.runs, plan.config, plan.datasets
    done = {row.run.key: row for path in tables_of(plan.table) for row in plan.rows_of(path)}
    if plan.shard is None:
        _take_over(plan.table, [done[run.key] for run in runs if run.key in done])
    known = {row.run.training: row for row in plan.other_rows()}
    left = []
    for number, run in enumerate(runs):
        if run.key in done or (plan.shard is not None and not plan.shard.holds(number)):
            continue
        if run.training in known and not run.is_kept:
            done[run.key] = replace(known[run.training], run=run)
            append_row(plan.own_table, done[run.key])
        else:
            left.append(run)
    works = [RunWork(run, config, datasets[run.modality]) for run in left]
    clock = Clock(works, say)
    if left:
        device = choose_device(plan.places.device)
        side = min(TrainConfig().side_for(plan.base.spec), _largest_side(plan))
        clock.begin(seconds_to_encode(plan.base.network, side, device), str(device))
    for number, (run, work) in enumerate(zip(left, works, strict=True)):
        job = clock.watch_job(_run_one_job(run, plan), work)
        words = f"{run.modality}, {run.arm}, seed {run.seed}: "
        row = yield from as_part(job, number / len(left), (number + 1) / len(left), before=words)
        append_row(plan.own_table, row)
        done[run.key] = row
    return [done[run.key] for run in runs if run.key in done]


def _largest_side(plan: RunPlan) -> int:
    """Longer side of the input that an embedded foundation sees of a plane."""
    if not plan.base.spec.base.embedded:
        return plan.base.spec.input_size.size
    _, labels = plan.datasets[plan.runs[0].modality].test[0].load()
    return round_up(max(labels.shape))


def _take_over(table: Path, rows: Sequence[ResultRow]) -> None:
    """Add rows of processes with a part of the runs to the table of all."""
    there = {row.run.key for row in read_rows(table)}
    for row in rows:
        if row.run.key not in there:
            append_row(table, row)


def _said_of_part(plan: RunPlan, rows: Sequence[ResultRow]) -> str:
    """What one of several processes tells at its end."""
    assert plan.shard is not None
    number, count = plan.shard
    return (
        f"Part {number} of {count} is done; of all {pluralize(len(plan.runs), 'run')} "
        f"{len(rows)} are. Once all are, the same command without --shard writes table and figure."
    )


def _run_one_job(run: ExperimentRun, plan: RunPlan) -> Job[ResultRow]:
    """Train and test in TF32 where the protocol says so."""
    device, allowed = choose_device(plan.places.device), plan.config.value("tf32")
    return (yield from tf32_job(_train_and_test_job(run, plan), device, allowed))


def _train_and_test_job(run: ExperimentRun, plan: RunPlan) -> Job[ResultRow]:
    started, config, base = time.process_time(), plan.config, plan.base
    dataset, folder = plan.datasets[run.modality], plan.folder / run.path_name
    if run.share < 1:  # the first images: a larger share holds a smaller one
        count = max(1, round(run.share * len(dataset.train)))
        dataset = replace(dataset, train=dataset.train[:count])
    how = run.config(config) if run.steps else TrainConfig()
    parameters, images, validated = 0, 0, math.nan
    if run.steps:
        trained = yield from train_job(base, dataset, how, run.arm, folder, plan.places)
        network, spec = trained.student.network, trained.student.spec
        parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
        images, validated = len(dataset.train), trained.spec.metrics["validation"]["click"]
    else:
        network, spec = base.network, base.spec
        network.to(choose_device(plan.places.device))
    side = how.side_for(base.spec)
    planes = LabeledPlanes(dataset, dataset.test, spec, side, config.value("as_published"))
    yield from planes.scan_job("test on")
    tested = config.value("test_objects")
    reached = yield from validate_network_job(network, planes, side, tested)
    if run.is_kept:
        kept = run.checkpoint(plan.folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / BEST_FILE, kept)
    if run.steps:
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
