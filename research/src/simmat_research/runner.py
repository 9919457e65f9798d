"""Run an experiment: do the runs that its table of results lacks, and report.

The report is a table in Markdown and a plot, like figures 2, 4 and 5.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.checkpoints.checkpoint import read_tensors
from napari_simmat.datasets.aims import from_aims
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.engine.masks import iou
from napari_simmat.engine.normalization import stretch_percentiles
from napari_simmat.io.files import atomic_write
from napari_simmat.models.network import Network
from napari_simmat.models.spec import Model
from napari_simmat.progress import Job, Progress, as_part
from napari_simmat.training.batches import LabeledPlanes
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.finetune import train_job
from napari_simmat.training.trainable import make_trainable
from napari_simmat.training.trainer import BEST_FILE, Devices
from napari_simmat.training.validation import protocol_mask, validate_network_job
from simmat_research.experiments import (
    ARMS,
    EXPERIMENTS,
    GENERATED,
    SCRATCH,
    SIMMAT,
    ZERO_SHOT,
    BenchmarkConfig,
    ExperimentName,
    ExperimentRun,
    ResultRow,
    append_row,
    make_runs,
    read_rows,
)
from simmat_research.generated import GeneratedConfig, generate_job

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    config = config.on(base.spec, data)
    modalities = config.modalities_of(experiment, data)
    datasets = {}
    planes = {"train": config.images, "validation": config.validation, "test": config.test}
    for modality in modalities:
        if data == GENERATED:
            drawn = GeneratedConfig(sensor=modality, kind="benchmark", side=config.side, **planes)
            datasets[modality] = yield from generate_job(drawn)
        else:
            datasets[modality] = from_aims(data, modality)
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
    text = markdown_table(rows_of, rows, config.quick)
    if experiment == "panels":
        yield from draw_panels_job(runs, datasets, base, config, state, picture)
        return ExperimentReport(text, tuple(rows), (picture,))
    draw_plot(experiment, rows, picture, config.quick)
    if config.protocol == "paper":
        text += f"\n{config.describe()}"
    document = output / f"{prefix}{experiment}.md"
    document.write_text(text, encoding="utf-8")
    return ExperimentReport(text, tuple(rows), (table, document, picture))


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
        dataset, place = datasets[run.modality], folder / run.path_name
        job = _run_one_job(run, dataset, base, config, place, device)
        words = f"{run.modality}, {run.arm}, seed {run.seed}: "
        row = yield from as_part(job, number / len(runs), (number + 1) / len(runs), before=words)
        append_row(table, row)
        done[run.key] = row
    return [done[run.key] for run in runs]


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
    network, spec = base.network, base.spec
    how = run.config(config) if run.steps else TrainConfig()
    parameters, images, validated = 0, 0, math.nan
    if run.steps:
        places = Devices(device=device)
        trained = yield from train_job(base, dataset, how, run.arm, folder, places)
        network, spec = trained.student.network, trained.student.spec
        parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
        images, validated = len(dataset.train), trained.spec.metrics["validation"]["click"]
    side = how.side_for(base.spec)
    planes = LabeledPlanes(dataset, dataset.test, spec, side)
    yield from planes.scan_job("test on")
    tested = config.value("test_objects")
    reached = yield from validate_network_job(network, planes, side, tested)
    if run.is_kept:
        kept = run.checkpoint(folder.parent)
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


PANEL_ARMS = (ZERO_SHOT, SCRATCH, SIMMAT)
PER_MODALITY = 2
"""Objects of each modality, of different test planes."""
QUICK_STAMP = "quick, no result"
QUICK_NOTE = "**Quick form: too few steps for a result.**"
COMPARED = {"strategies": "strategy", "layers": "transfer"}
"""What an experiment compares by its size: an attribute of `ExperimentRun`."""


# ------------------------------------------------------------------- plot

ARM_COLORS = {
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
    """Write the plot of an experiment as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylabel("mean IoU on the test images, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.5, alpha=0.4)
    axes.set_axisbelow(True)
    if experiment in ("transfer", "pseudo"):
        _bars(rows, axes)
    elif experiment in COMPARED:
        _by_size(rows, axes, COMPARED[experiment])
    else:
        _lines(experiment, rows, axes)
    _save(figure, path, quick)


def _bars(rows: Sequence[ResultRow], axes: Axes) -> None:
    """A group of bars for each modality; whiskers span one standard deviation over seeds."""
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
            color=ARM_COLORS[arm],
            label=arm,
        )
    axes.set_xticks(range(len(lines)), [name.replace("_", "\n") for name in lines], fontsize=9)
    axes.set_ylim(0, None)
    axes.legend(ncols=len(columns), frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12))


def _by_size(rows: Sequence[ResultRow], axes: Axes, compared: str) -> None:
    """Mean IoU over trained parameters: a color for what is compared, a mark for a modality."""
    modalities = dict.fromkeys(row.run.modality for row in rows)
    names = list(dict.fromkeys(getattr(row.run, compared) for row in rows))
    for marker, modality in zip("os^Dv*X", modalities, strict=False):
        for row in rows:
            if row.run.modality == modality:
                color = f"C{names.index(getattr(row.run, compared))}"
                axes.plot(row.parameters, row.test_iou, marker, color=color, markersize=7)
        axes.plot([], [], marker, color="#5d6d7e", label=modality.replace("_", " "))
    for number, name in enumerate(names):
        axes.plot([], [], "-", linewidth=5, color=f"C{number}", label=name)
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
            color=ARM_COLORS.get(strategy),
            label=f"{strategy}, {modality}",
        )
    places = sorted({varied_setting(experiment, row) for row in rows}, key=float)
    axes.set_xscale("log")
    axes.set_xticks([float(place) for place in places], places)
    axes.minorticks_off()
    axes.set_xlabel({"lr": "learning rate", "size": "training images"}[experiment])
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


# ------------------------------------------------------------------ table


class TableCell(NamedTuple):
    """Mean and standard deviation of test mIoU in percent over so many seeds."""

    mean: float
    deviation: float
    seeds: int

    def __str__(self) -> str:
        """Such as ``53.9 ± 0.4``."""
        spread = f" ± {self.deviation:.1f}" if self.seeds > 1 else ""
        return f"{self.mean:.1f}{spread}"


def summarize(rows: Sequence[ResultRow]) -> TableCell:
    """Summarize rows, one or more, that differ only in their seed."""
    values = [row.test_iou for row in rows]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return TableCell(float(np.mean(values)), deviation, len(values))


def pivot(
    rows: Sequence[ResultRow], line: Callable[[ResultRow], str], column: Callable[[ResultRow], str]
) -> tuple[list[str], list[str], dict[tuple[str, str], TableCell]]:
    """Lines and columns in the order of their first row, and the cells where there are rows."""
    cells: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        cells.setdefault((line(row), column(row)), []).append(row)
    lines, columns = (list(dict.fromkeys(place[n] for place in cells)) for n in (0, 1))
    return lines, columns, {place: summarize(own) for place, own in cells.items()}


def markdown_table(experiment: str, rows: Sequence[ResultRow], quick: bool = False) -> str:
    """The table of one of the `EXPERIMENTS`."""
    if not rows:
        return "No run is done yet.\n"
    if experiment in ("transfer", "pseudo"):
        text = _by_modality(rows)
    elif experiment in COMPARED:
        text = _by_compared(rows, COMPARED[experiment])
    else:
        text = _by_setting(experiment, rows)
    return f"{QUICK_NOTE}\n\n{text}" if quick else text


def _by_modality(rows: Sequence[ResultRow]) -> str:
    lines, columns, cells = pivot(rows, lambda r: r.run.modality, lambda r: r.run.arm)
    columns = [name for name in ARMS if name in columns]
    body = [[name, *(str(cells.get((name, c), "")) for c in columns)] for name in lines]
    averages = _averages(rows)
    body.append(["**average**", *(f"**{averages[c]:.1f}**" for c in columns)])
    text = _table(["modality", *columns], body)
    if {SIMMAT, SCRATCH} <= averages.keys():
        gain = averages[SIMMAT] - averages[ZERO_SHOT]
        text += f"\nSimMAT over scratch: {averages[SIMMAT] / averages[SCRATCH]:.2f}."
        text += f" SimMAT above zero-shot: {gain:+.1f} points on average.\n"
    return text


def _averages(rows: Sequence[ResultRow], column: str = "arm") -> dict[str, float]:
    """Mean of each arm over the modalities that all arms have."""
    lines, columns, cells = pivot(rows, lambda r: r.run.modality, lambda r: getattr(r.run, column))
    complete = [name for name in lines if all((name, c) in cells for c in columns)]
    return {
        c: float(np.mean([cells[name, c].mean for name in complete])) if complete else float("nan")
        for c in columns
    }


def _by_compared(rows: Sequence[ResultRow], compared: str) -> str:
    """A line for each strategy or layer with its size, a column for each modality."""
    lines, columns, cells = pivot(
        rows, lambda r: getattr(r.run, compared), lambda r: r.run.modality
    )
    header = [compared.removesuffix("s"), "trained parameters", *columns]
    is_layer = compared == "transfer"
    body = []
    for name in lines:
        own = [row for row in rows if getattr(row.run, compared) == name]
        numbers = sorted({row.parameters for row in own})
        few = f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
        body.append([name, few, *(str(cells.get((name, c), "")) for c in columns)])
        if is_layer:
            seconds = np.mean([row.seconds for row in own])
            body[-1] += [f"{_averages(own, compared)[name]:.1f}", f"{seconds:.0f}"]
    return _table([*header, *(["average", "processor seconds"] if is_layer else [])], body)


def _by_setting(experiment: str, rows: Sequence[ResultRow]) -> str:
    """A line for each modality and strategy, a column for each rate or number of images."""
    lines, columns, cells = pivot(
        rows,
        lambda r: f"{r.run.modality}, {r.run.strategy}",
        lambda r: varied_setting(experiment, r),
    )
    columns = sorted(columns, key=float)
    body = [[name, *(str(cells.get((name, c), "")) for c in columns)] for name in lines]
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


# ------------------------------------------------- the qualitative figure


class FigurePanel(NamedTuple):
    """One object: picture (H, W, 3) in 0..1, click (y, x), truth and the arms' masks (H, W)."""

    title: str
    picture: NDArray[np.float32]
    click: tuple[float, float]
    truth: NDArray[np.bool_]
    masks: Mapping[str, NDArray[np.bool_]]


def draw_panels_job(
    runs: Sequence[ExperimentRun],
    datasets: Mapping[str, Dataset],
    base: Model,
    config: BenchmarkConfig,
    folder: Path,
    path: Path,
) -> Job[None]:
    """Draw the figure as PNG from the checkpoints that `run_all_job` kept in `folder`.

    It shows the object of median size, so that nobody chose it, on the first test planes, and the
    part of the plane around it; the IoU is that of the whole plane. `runs` are those of the first
    seed: zero-shot, scratch and SimMAT on every modality.
    """
    panels = []
    modalities = list(dict.fromkeys(run.modality for run in runs))
    for number, modality in enumerate(modalities):
        own = {run.arm: run for run in runs if run.modality == modality}
        panels += _panels(modality, own, datasets[modality], base, config, folder)
        yield Progress(number + 1, len(modalities), f"drawing {modality}")
    _draw(panels, path, config.quick)


def _panels(
    modality: str,
    runs: Mapping[str, ExperimentRun],
    dataset: Dataset,
    base: Model,
    config: BenchmarkConfig,
    folder: Path,
) -> list[FigurePanel]:
    compared: dict[str, tuple[Network, LabeledPlanes, int]] = {}
    for arm in PANEL_ARMS:
        run, network, spec = runs[arm], base.network, base.spec
        how = run.config(config) if run.steps else TrainConfig()
        if run.steps:
            trained = make_trainable(base, dataset, how, run.arm)
            network, spec = trained.network, trained.spec
            tensors = read_tensors(run.checkpoint(folder))
            network.load_state_dict({**network.state_dict(), **tensors})
            network.eval()
        side = how.side_for(base.spec)
        compared[arm] = network, LabeledPlanes(dataset, dataset.test, spec, side), side
    panels = []
    for index in range(len(dataset.test)):
        plane = compared[SIMMAT][1][index]
        if not plane.objects:
            continue
        areas = [(int((plane.labels == label).sum()), label) for label in plane.objects]
        label = sorted(areas)[len(areas) // 2][1]  # of median size
        masks, click = {}, (0.0, 0.0)
        for arm, (network, seen, side) in compared.items():
            masks[arm], click = protocol_mask(network, seen[index], label, side, seen.native)
        values, labels = dataset.test[index].load()
        # A picture (H, W, 3), 0..1, of the first, middle and last channel.
        count = len(values)
        three = (
            values[[0, count // 2, count - 1]] if count > 2 else np.repeat(values[:1], 3, axis=0)
        )
        unit = stretch_percentiles(three, 0.5, 99.5, axes=(1, 2), scale=1.0, minimum=1e-6)
        picture = np.asarray(np.moveaxis(unit, 0, -1), np.float32)
        panels.append(FigurePanel(modality, picture, click, labels == label, masks))
        if len(panels) == PER_MODALITY:
            break
    return panels


def square_around(truth: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The square of a plane that shows an object (H, W) and its surroundings.

    Its side is four times the object's longer side, at least a third of the plane's shorter side
    and at most all of it; it is moved into the plane.

    Returns
    -------
    top, bottom, left, right
        Edges in pixels; the first pixel begins at 0.
    """
    rows, columns = np.nonzero(truth)
    shorter = min(truth.shape)
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    side = min(max(4 * longest, shorter // 3), shorter)
    top = np.clip((rows.min() + rows.max() + 1 - side) / 2, 0, truth.shape[0] - side)
    left = np.clip((columns.min() + columns.max() + 1 - side) / 2, 0, truth.shape[1] - side)
    return float(top), float(top + side), float(left), float(left + side)


def _draw(panels: Sequence[FigurePanel], path: Path, quick: bool) -> None:
    from matplotlib.figure import Figure

    titles = ("image and click", "truth", *PANEL_ARMS)
    modalities = list(dict.fromkeys(panel.title for panel in panels))
    size = (1.25 * len(titles) * PER_MODALITY, 1.4 * len(modalities) + 0.2)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    columns = figure.subplots(len(modalities), len(titles) * PER_MODALITY, squeeze=False)
    for axes in columns.flat:
        axes.set_axis_off()
    for number, modality in enumerate(modalities):
        own = [panel for panel in panels if panel.title == modality]
        for panel, row in zip(own, np.split(columns[number], PER_MODALITY), strict=False):
            for axes, title in zip(row, titles, strict=True):
                axes.set_axis_on()
                if number == 0:
                    axes.set_title(title, fontsize=9)
                _fill(axes, panel, title)
        columns[number][0].set_ylabel(modality.replace("_", " "), fontsize=9)
    _save(figure, path, quick)


def _fill(axes: Axes, panel: FigurePanel, title: str) -> None:
    axes.imshow(panel.picture, interpolation="nearest")
    mask = panel.truth if title == "truth" else panel.masks.get(title)
    if mask is not None:
        tint = np.zeros((*mask.shape, 4), np.float32)
        tint[mask] = (1.0, 0.55, 0.0, 0.45)
        axes.imshow(tint, interpolation="nearest")
        if mask.any() and not mask.all():
            axes.contour(mask, [0.5], colors="#ff8c00", linewidths=1.0)
    if title in panel.masks:
        axes.set_xlabel(f"IoU {iou(panel.masks[title], panel.truth):.2f}", fontsize=8)
    else:
        axes.plot(panel.click[1], panel.click[0], "o", color="#2ecc40", mec="w", markersize=5)
    top, bottom, left, right = square_around(panel.truth)
    edges = {"xlim": (left - 0.5, right - 0.5), "ylim": (bottom - 0.5, top - 0.5)}
    axes.set(xticks=[], yticks=[], **edges)


def _save(figure: Figure, path: Path, quick: bool) -> None:
    """Write a plot as PNG; across that of a quick form, that it is no result."""
    if quick:
        look: dict[str, Any] = {"fontsize": 34, "color": "#c0392b", "alpha": 0.35, "rotation": 20}
        figure.text(0.5, 0.5, QUICK_STAMP, ha="center", **look)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
