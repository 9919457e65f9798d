"""The runs of an experiment, one after the other, each a row of a table that is resumed."""

from __future__ import annotations

import csv
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.learn.benchmark.config import BenchmarkConfig
from napari_simmat.learn.benchmark.experiments import SCRATCH, SIMMAT, Run
from napari_simmat.learn.datasets.dataset import Dataset
from napari_simmat.learn.training import Devices, TrainConfig, training
from napari_simmat.learn.training.folder import BEST
from napari_simmat.learn.training.planes import Planes
from napari_simmat.learn.training.validating import Reached, validating
from napari_simmat.model.network import Network
from napari_simmat.model.spec import ModelSpec
from napari_simmat.progress import Job, Progress, relayed

MOST = 1000
"""Objects of the test planes that are prompted."""
MEASURED = ("parameters", "images", "validation_iou", "test_iou", "test_dice", "seconds", "base")
RUN_COLUMNS = tuple(each.name for each in fields(Run))
COLUMNS = (*RUN_COLUMNS, *MEASURED)
_NUMBERS = ("steps", "seed", "parameters", "images")
_FRACTIONS = ("learning_rate", "share", "validation_iou", "test_iou", "test_dice", "seconds")
_TYPES: dict[str, Callable[[str], Any]] = (
    dict.fromkeys(COLUMNS, str) | dict.fromkeys(_NUMBERS, int) | dict.fromkeys(_FRACTIONS, float)
)


@dataclass(frozen=True)
class Row:
    """A run and what it reached.

    Parameters
    ----------
    run
        Which.
    parameters
        Trained numbers.
    images
        Planes that were trained on.
    validation_iou, test_iou, test_dice
        Mean over objects in percent; the validation's is the best of the training.
    seconds
        It took.
    base
        The foundation's name.
    """

    run: Run
    parameters: int
    images: int
    validation_iou: float
    test_iou: float
    test_dice: float
    seconds: float
    base: str


def running(
    runs: Sequence[Run],
    datasets: Mapping[str, Dataset],
    base: Model,
    config: BenchmarkConfig,
    table: Path,
    folder: Path,
    device: str = "auto",
    beside: Sequence[Path] = (),
) -> Job[list[Row]]:
    """Do all runs that the table does not hold yet; returns the rows of all.

    A training that another experiment has done already is not done again, unless its checkpoint is
    to be kept.

    Parameters
    ----------
    runs
        In this order.
    datasets
        By modality; tested on their test planes.
    base
        A foundation.
    config
        What the runs have alike.
    table
        CSV file: one row each, added when its run is done.
    folder
        Where the training of the moment keeps its state, so that it can go on as well.
    device
        Where to compute.
    beside
        Tables of other experiments on the same data, if they exist.
    """
    done = {row.run.key: row for row in read_rows(table)}
    known = {row.run.training: row for path in beside for row in read_rows(path)}
    for number, run in enumerate(runs):
        if run.key in done:
            continue
        if run.training in known and not is_kept(run):
            done[run.key] = replace(known[run.training], run=run)
            append_row(table, done[run.key])
            continue
        job = _one(run, datasets[run.modality], base, config, folder / _name(run), device)
        row = yield from relayed(job, partial(_overall, run, number, len(runs)))
        append_row(table, row)
        done[run.key] = row
    return [done[run.key] for run in runs]


def _overall(run: Run, number: int, total: int, part: Progress) -> Progress:
    """The progress of run `number` of `total` in thousandths of a run."""
    share = min(0.99, part.done / max(1, part.total))
    words = f"{run.modality}, {run.arm}, seed {run.seed}: {part.message}"
    return Progress(int(1000 * (number + share)), 1000 * total, words)


def _one(
    run: Run, dataset: Dataset, base: Model, config: BenchmarkConfig, folder: Path, device: str
) -> Job[Row]:
    started = time.monotonic()
    if run.share < 1:  # the first images: a larger share holds a smaller one
        count = max(1, round(run.share * len(dataset.train)))
        dataset = replace(dataset, train=dataset.train[:count])
    if not run.steps:
        side = TrainConfig().side_for(base.spec)
        reached = yield from _testing(base.network, base.spec, dataset, side)
        return _row(run, 0, 0, math.nan, reached, started, base)
    how, places = run.config(config), Devices(device=device)
    trained = yield from training(base, dataset, how, run.arm, folder, places)
    student = trained.student
    side = how.side_for(base.spec)
    reached = yield from _testing(student.network, student.spec, dataset, side)
    parameters = sum(p.numel() for p in student.network.parameters() if p.requires_grad)
    validated = trained.spec.metrics["validation"]["click"]
    if is_kept(run):
        kept = checkpoint_of(run, folder.parent)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / BEST, kept)
    shutil.rmtree(folder)
    return _row(run, parameters, len(dataset.train), validated, reached, started, base)


def _testing(network: Network, spec: ModelSpec, dataset: Dataset, side: int) -> Job[Reached]:
    planes = Planes(dataset, dataset.test, spec, side)
    yield from planes.finding("test on")
    return (yield from validating(network, planes, side, MOST))


def _row(
    run: Run,
    parameters: int,
    images: int,
    validated: float,
    reached: Reached,
    started: float,
    base: Model,
) -> Row:
    return Row(
        run,
        parameters,
        images,
        validated,
        round(100 * reached.iou, 3),
        round(100 * reached.dice, 3),
        round(time.monotonic() - started, 1),
        base.spec.name,
    )


def is_kept(run: Run) -> bool:
    """Whether a run's best checkpoint is kept, for the qualitative figure."""
    return run.experiment == "transfer" and run.arm in (SCRATCH, SIMMAT)


def checkpoint_of(run: Run, folder: Path) -> Path:
    """Where the best checkpoint of a run lies, if it `is_kept`."""
    return folder / "checkpoints" / f"{_name(run)}.safetensors"


def _name(run: Run) -> str:
    return "-".join(run.key).replace(" ", "")


def read_rows(table: Path) -> list[Row]:
    """The rows of a table, in its order; none if there is no file.

    Raises
    ------
    ValueError
        If it is another table, or damaged.
    """
    if not table.exists():
        return []
    rows = []
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{table} is no table of this benchmark, or of another version; its columns are "
                f"{', '.join(reader.fieldnames or ['none'])}. Choose another folder."
            )
        for line in reader:
            try:
                values = {name: _TYPES[name](line[name].strip()) for name in COLUMNS}
            except (AttributeError, ValueError):  # cut off, or edited
                raise ValueError(
                    f"Line {reader.line_num} of {table} is damaged; delete it, and its run is done "
                    "again."
                ) from None
            run = Run(**{name: values.pop(name) for name in RUN_COLUMNS})
            rows.append(Row(run, **values))
    return rows


def append_row(table: Path, row: Row) -> None:
    """Add a row, at once and safe on the disk."""
    table.parent.mkdir(parents=True, exist_ok=True)
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        run = [getattr(row.run, name) for name in RUN_COLUMNS]
        writer.writerow([*run, *(getattr(row, name) for name in MEASURED)])
        file.flush()
        os.fsync(file.fileno())
