"""An experiment from its data to its table, its plot and its rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_simmat.engine.checkpoints.loading import Model
from napari_simmat.learn.benchmark import plots, tables
from napari_simmat.learn.benchmark.config import (
    GENERATED,
    BenchmarkConfig,
    ExperimentName,
    check_experiment,
)
from napari_simmat.learn.benchmark.experiments import (
    EXPERIMENTS,
    SCRATCH,
    SIMMAT,
    ZERO_SHOT,
)
from napari_simmat.learn.benchmark.panels import drawing_panels
from napari_simmat.learn.benchmark.running import Row, running
from napari_simmat.learn.datasets import Dataset, GeneratedConfig, from_aims, generating
from napari_simmat.progress import Job


@dataclass(frozen=True)
class Report:
    """What an experiment wrote.

    Parameters
    ----------
    text
        The table in Markdown.
    rows
        All of them.
    files
        Table, plot, rows.
    """

    text: str
    rows: tuple[Row, ...]
    files: tuple[Path, ...]


def benchmarking(
    experiment: ExperimentName,
    data: str,
    base: Model,
    config: BenchmarkConfig,
    output: Path,
    device: str = "auto",
) -> Job[Report]:
    """Run an experiment, or what is left of it, and write what it says.

    Parameters
    ----------
    experiment
        A name in `EXPERIMENTS`, or ``"panels"``: the qualitative figure, from the runs of
        ``"transfer"`` with the first seed.
    data
        ``"generated"``, or a folder with the AIMS benchmark.
    base
        The foundation. On generated data one that saw photographs only, ``tiny-rgb``.
    config
        Modalities, seeds, budget.
    output
        Folder that gets EXPERIMENT.csv (each run a row, from which it goes on), .md and .png.
    device
        Where to compute.
    """
    check_experiment(experiment)
    config = config.on(base.spec)
    modalities = config.modalities_of(experiment, data)
    datasets = {}
    for modality in modalities:
        datasets[modality] = yield from _reading(modality, data, config)
    rows_of: ExperimentName = "transfer" if experiment == "panels" else experiment
    runs = EXPERIMENTS[rows_of](modalities, config.seeds_of(experiment), config)
    if experiment == "panels":
        runs = [run for run in runs if run.arm in (ZERO_SHOT, SCRATCH, SIMMAT)]
    prefix = "quick-" if config.quick else ""
    table, state = output / f"{prefix}{rows_of}.csv", output / f"{prefix}runs"
    beside = [output / f"{prefix}{name}.csv" for name in EXPERIMENTS if name != rows_of]
    rows = yield from running(runs, datasets, base, config, table, state, device, beside)
    picture = output / f"{prefix}{experiment}.png"
    if experiment == "panels":
        yield from drawing_panels(runs, datasets, base, config, state, picture)
        return Report(tables.markdown(rows_of, rows, config.quick), tuple(rows), (picture,))
    plots.draw(experiment, rows, picture, config.quick)
    text = tables.markdown(experiment, rows, config.quick)
    document = output / f"{prefix}{experiment}.md"
    document.write_text(text, encoding="utf-8")
    return Report(text, tuple(rows), (table, document, picture))


def _reading(modality: str, data: str, config: BenchmarkConfig) -> Job[Dataset]:
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
    return (yield from generating(drawn))
