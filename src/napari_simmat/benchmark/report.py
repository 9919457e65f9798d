"""Run an experiment and write its table in Markdown and its plot, like figures 4 and 5."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_simmat.benchmark.experiments import (
    ARMS,
    EXPERIMENTS,
    GENERATED,
    SCRATCH,
    SIMMAT,
    ZERO_SHOT,
    BenchmarkConfig,
    ExperimentName,
    ResultRow,
    check_experiment,
    make_runs,
)
from napari_simmat.benchmark.panels import PANEL_ARMS, draw_panels_job, stamp_quick
from napari_simmat.benchmark.runner import run_all_job
from napari_simmat.datasets.aims import from_aims
from napari_simmat.datasets.dataset import Dataset, GeneratedConfig, generate_job
from napari_simmat.io.files import atomic_write
from napari_simmat.models.spec import Model
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
        The foundation. On generated data one that saw photographs only, ``tiny-rgb``.
    config
        Modalities, seeds, budget.
    output
        Folder that gets EXPERIMENT.csv (a row for each run, to resume from), .md and .png.
    device
        Where to compute.
    """
    check_experiment(experiment)
    config = config.on(base.spec)
    modalities = config.modalities_of(experiment, data)
    datasets = {}
    for modality in modalities:
        datasets[modality] = yield from _read_dataset_job(modality, data, config)
    rows_of: ExperimentName = "transfer" if experiment == "panels" else experiment
    runs = make_runs(rows_of, modalities, config.seeds_of(experiment), config)
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
    document = output / f"{prefix}{experiment}.md"
    document.write_text(text, encoding="utf-8")
    return ExperimentReport(text, tuple(rows), (table, document, picture))


def _read_dataset_job(modality: str, data: str, config: BenchmarkConfig) -> Job[Dataset]:
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


ARM_COLOURS = {
    ZERO_SHOT: "#9aa0a6",
    SCRATCH: "#e8a33d",
    "baseline A": "#8ab6d6",
    "baseline B": "#4f86b8",
    SIMMAT: "#1b4f72",
    "lora": "#1b4f72",
    "lora_conv": "#1b4f72",
    "full": "#c0392b",
    "scratch": "#e8a33d",
}


def draw_plot(experiment: str, rows: Sequence[ResultRow], path: Path, quick: bool = False) -> None:
    """Write the plot of an experiment as PNG.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "Plots need matplotlib; run `pip install 'napari-simmat[train]'`."
        ) from None
    figure = Figure(figsize=(8.5, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylabel("mean IoU on the test images, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.5, alpha=0.4)
    axes.set_axisbelow(True)
    {
        "transfer": _bars,
        "pseudo": _bars,
        "strategies": _strategies,
        "lr": _lines,
        "size": _lines,
    }[experiment](experiment, rows, axes)
    if quick:
        stamp_quick(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _bars(experiment: str, rows: Sequence[ResultRow], axes: Axes) -> None:
    """A group of bars for each modality; whiskers span one standard deviation over seeds."""
    del experiment
    lines, columns, cells = pivot(rows, lambda r: r.run.modality, lambda r: r.run.arm)
    columns = [name for name in ARMS if name in columns]
    width = 0.8 / len(columns)
    for number, arm in enumerate(columns):
        there = [k for k, name in enumerate(lines) if (name, arm) in cells]
        found = [cells[lines[k], arm] for k in there]
        axes.bar(
            [k + (number - (len(columns) - 1) / 2) * width for k in there],
            [each.mean for each in found],
            width * 0.92,
            yerr=[each.deviation for each in found] if any(f.seeds > 1 for f in found) else None,
            error_kw={"elinewidth": 0.8},
            color=ARM_COLOURS[arm],
            label=arm,
        )
    axes.set_xticks(range(len(lines)), [name.replace("_", "\n") for name in lines], fontsize=9)
    axes.set_ylim(0, None)
    axes.legend(ncols=len(columns), frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12))


def _strategies(experiment: str, rows: Sequence[ResultRow], axes: Axes) -> None:
    """Mean IoU over trained parameters: a colour for each strategy, a mark for each modality."""
    del experiment
    modalities = dict.fromkeys(row.run.modality for row in rows)
    strategies = list(dict.fromkeys(row.run.strategy for row in rows))
    for marker, modality in zip("os^Dv*X", modalities, strict=False):
        for row in rows:
            if row.run.modality == modality:
                colour = f"C{strategies.index(row.run.strategy)}"
                axes.plot(row.parameters, row.test_iou, marker, color=colour, markersize=7)
        axes.plot([], [], marker, color="#5d6d7e", label=modality.replace("_", " "))
    for number, strategy in enumerate(strategies):
        axes.plot([], [], "-", linewidth=5, color=f"C{number}", label=strategy)
    axes.set_xscale("log")
    axes.set_xlabel("trained parameters")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _lines(experiment: str, rows: Sequence[ResultRow], axes: Axes) -> None:
    """A line for each strategy and modality over the varied setting."""
    styles = dict(zip(dict.fromkeys(r.run.modality for r in rows), ("-", "--", ":"), strict=False))
    for modality, strategy in dict.fromkeys((r.run.modality, r.run.strategy) for r in rows):
        own = [r for r in rows if (r.run.modality, r.run.strategy) == (modality, strategy)]
        places, _, cells = pivot(own, lambda r: varied_setting(experiment, r), lambda _: "")
        places = sorted(places, key=float)
        axes.errorbar(
            [float(place) for place in places],
            [cells[place, ""].mean for place in places],
            [cells[place, ""].deviation for place in places],
            fmt="o" + styles.get(modality, "-"),
            markersize=4,
            color=ARM_COLOURS.get(strategy),
            label=f"{strategy}, {modality}",
        )
    places = sorted({varied_setting(experiment, row) for row in rows}, key=float)
    axes.set_xscale("log")
    axes.set_xticks([float(place) for place in places], places)
    axes.minorticks_off()
    axes.set_xlabel({"lr": "learning rate", "size": "training images"}[experiment])
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


QUICK_NOTE = "**Quick form: too few steps for a result.**"


class TableCell(NamedTuple):
    """Mean and standard deviation of test mIoU in percent over so many seeds."""

    mean: float
    deviation: float
    seeds: int

    def __str__(self) -> str:
        """Such as ``53.9 ± 0.4``."""
        if self.seeds < 2:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} ± {self.deviation:.1f}"


def summarize(rows: Iterable[ResultRow]) -> TableCell | None:
    """Summarize rows that differ only in their seed; None if there is no row."""
    values = [row.test_iou for row in rows]
    if not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return TableCell(float(np.mean(values)), deviation, len(values))


def pivot(
    rows: Sequence[ResultRow], line: Callable[[ResultRow], str], column: Callable[[ResultRow], str]
) -> tuple[list[str], list[str], dict[tuple[str, str], TableCell]]:
    """Lines and columns in the order of their first row, and the cells where there are rows."""
    lines, columns = _unique(map(line, rows)), _unique(map(column, rows))
    cells = {}
    for name in lines:
        for other in columns:
            found = summarize(row for row in rows if line(row) == name and column(row) == other)
            if found is not None:
                cells[name, other] = found
    return lines, columns, cells


def markdown_table(experiment: str, rows: Sequence[ResultRow], quick: bool = False) -> str:
    """The table of one of the `EXPERIMENTS`."""
    if not rows:
        return "No run is done yet.\n"
    if experiment in ("transfer", "pseudo"):
        text = _by_modality(rows)
    elif experiment == "strategies":
        text = _by_strategy(rows)
    else:
        text = _by_setting(experiment, rows)
    return f"{QUICK_NOTE}\n\n{text}" if quick else text


def gain_over_scratch(rows: Sequence[ResultRow]) -> float | None:
    """SimMAT's average mIoU over that of training from scratch; None if one is missing."""
    averages = _averages(rows)
    if SIMMAT not in averages or SCRATCH not in averages:
        return None
    return averages[SIMMAT] / averages[SCRATCH]


def _by_modality(rows: Sequence[ResultRow]) -> str:
    lines, columns, cells = pivot(rows, lambda r: r.run.modality, lambda r: r.run.arm)
    columns = [name for name in ARMS if name in columns]
    body = [[name, *(_text(cells.get((name, c))) for c in columns)] for name in lines]
    averages = _averages(rows)
    body.append(["**average**", *(f"**{averages[c]:.1f}**" for c in columns)])
    text = _table(["modality", *columns], body)
    found = gain_over_scratch(rows)
    if found is not None:
        text += f"\nSimMAT over scratch: {found:.2f}."
        gain = averages[SIMMAT] - averages[ZERO_SHOT]
        text += f" SimMAT above zero-shot: {gain:+.1f} points on average.\n"
    return text


def _averages(rows: Sequence[ResultRow]) -> dict[str, float]:
    """Mean of each arm over the modalities that all arms have."""
    lines, columns, cells = pivot(rows, lambda r: r.run.modality, lambda r: r.run.arm)
    complete = [name for name in lines if all((name, c) in cells for c in columns)]
    return {
        c: float(np.mean([cells[name, c].mean for name in complete])) if complete else float("nan")
        for c in columns
    }


def _by_strategy(rows: Sequence[ResultRow]) -> str:
    lines, columns, cells = pivot(rows, lambda r: r.run.strategy, lambda r: r.run.modality)
    body = []
    for name in lines:
        numbers = sorted({row.parameters for row in rows if row.run.strategy == name})
        few = f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
        body.append([name, few, *(_text(cells.get((name, c))) for c in columns)])
    return _table(["strategy", "trained parameters", *columns], body)


def _by_setting(experiment: str, rows: Sequence[ResultRow]) -> str:
    """A line for each modality and strategy, a column for each rate or number of images."""
    lines, columns, cells = pivot(
        rows,
        lambda r: f"{r.run.modality}, {r.run.strategy}",
        lambda r: varied_setting(experiment, r),
    )
    columns = sorted(columns, key=float)
    body = [[name, *(_text(cells.get((name, c))) for c in columns)] for name in lines]
    return _table([{"lr": "learning rate", "size": "images"}[experiment], *columns], body)


def varied_setting(experiment: str, row: ResultRow) -> str:
    """The setting that an experiment varies: the learning rate, or the number of images."""
    if experiment != "lr":
        return str(row.images)
    rate = row.run.learning_rate
    return np.format_float_scientific(rate, trim="-", exp_digits=1)  # 3e-4


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *body))


def _text(found: TableCell | None) -> str:
    return "" if found is None else str(found)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
