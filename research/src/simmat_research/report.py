"""The report of an experiment: its table in Markdown, and plots like figures 2, 4 and 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat.checkpoints.checkpoint import read_tensors
from napari_simmat.datasets.dataset import Dataset
from napari_simmat.engine.masks import iou
from napari_simmat.engine.normalization import stretch_percentiles
from napari_simmat.io.files import atomic_write
from napari_simmat.models.network import Network
from napari_simmat.models.spec import Model
from napari_simmat.progress import Job, Progress
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.labeled_planes import LabeledPlanes
from napari_simmat.training.trainable import make_trainable
from napari_simmat.training.validation import protocol_mask
from simmat_research.experiments import (
    BASELINE_A,
    BASELINE_B,
    FULL,
    SCRATCH,
    SIMMAT,
    WITH_ARMS,
    ZERO_SHOT,
    BenchmarkConfig,
    ExperimentRun,
    ResultRow,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OTHERS = (ZERO_SHOT, SCRATCH, BASELINE_A, BASELINE_B)
"""Arms beside the one that a comparison is about."""
PER_MODALITY = 2
"""Objects of each modality, of different test planes."""
QUICK_STAMP = "quick, no result"
QUICK_NOTE = "**Quick form: too few steps for a result.**"
COMPARED = {"strategies": "strategy", "layers": "transfer", "grid": "transfer"}
"""What an experiment compares by its size: an attribute of `ExperimentRun`."""


# ------------------------------------------------------------------- plot

ARM_COLORS = {
    ZERO_SHOT: "#9aa0a6",
    SCRATCH: "#e8a33d",
    BASELINE_A: "#8ab6d6",
    BASELINE_B: "#4f86b8",
    SIMMAT: "#1b4f72",
    f"{BASELINE_A}{FULL}": "#e6b0aa",
    f"{SIMMAT}{FULL}": "#c0392b",
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
    if experiment in WITH_ARMS:
        _bars(rows, axes)
    elif experiment in COMPARED:
        _by_size(rows, axes, COMPARED[experiment])
    else:
        _lines(experiment, rows, axes)
    _save(figure, path, quick)


def _bars(rows: Sequence[ResultRow], axes: Axes) -> None:
    """A group of bars for each modality; whiskers span one standard deviation over seeds."""
    lines, columns, cells = pivot(rows, lambda r: r.run.modality, lambda r: r.run.arm)
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
            color=ARM_COLORS.get(arm, ARM_COLORS[SIMMAT]),
            label=arm,
        )
    axes.set_xticks(range(len(lines)), [name.replace("_", "\n") for name in lines], fontsize=9)
    axes.set_ylim(0, None)
    axes.legend(ncols=len(columns), frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12))


def _by_size(rows: Sequence[ResultRow], axes: Axes, compared: str) -> None:
    """Mean IoU over trained parameters: a color for what is compared, a mark for a modality."""
    from matplotlib import colormaps

    modalities = dict.fromkeys(row.run.modality for row in rows)
    names = list(dict.fromkeys(getattr(row.run, compared) for row in rows))
    look = colormaps["tab10" if len(names) <= 10 else "tab20"]
    colors = {name: look(number % look.N) for number, name in enumerate(names)}
    for marker, modality in zip("os^Dv*X", modalities, strict=False):
        for row in rows:
            if row.run.modality == modality:
                color = colors[getattr(row.run, compared)]
                axes.plot(row.parameters, row.test_iou, marker, color=color, markersize=7)
        axes.plot([], [], marker, color="#5d6d7e", label=modality.replace("_", " "))
    for name in names:
        axes.plot([], [], "-", linewidth=5, color=colors[name], label=name)
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
    if experiment in WITH_ARMS:
        text = _by_modality(rows)
    elif experiment in COMPARED:
        text = _by_compared(rows, COMPARED[experiment])
    else:
        text = _by_setting(experiment, rows)
    return f"{QUICK_NOTE}\n\n{text}" if quick else text


def _by_modality(rows: Sequence[ResultRow]) -> str:
    lines, columns, cells = pivot(rows, lambda r: r.run.modality, lambda r: r.run.arm)
    body = [[name, *(str(cells.get((name, c), "")) for c in columns)] for name in lines]
    averages = _averages(rows)
    body.append(["**average**", *(f"**{averages[c]:.1f}**" for c in columns)])
    text = _table(["modality", *columns], body)
    ours = next((name for name in columns if name not in OTHERS and FULL not in name), "")
    if {ours, SCRATCH, ZERO_SHOT} <= averages.keys():
        gain = averages[ours] - averages[ZERO_SHOT]
        text += f"\n{ours} over scratch: {averages[ours] / averages[SCRATCH]:.2f}."
        text += f" {ours} above zero-shot: {gain:+.1f} points on average.\n"
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
    as_published = config.value("as_published")
    for arm, run in runs.items():
        network, spec = base.network, base.spec
        how = run.config(config) if run.steps else TrainConfig()
        if run.steps:
            trained = make_trainable(base, dataset, how, run.arm)
            network, spec = trained.network, trained.spec
            tensors = read_tensors(run.checkpoint(folder))
            network.load_state_dict({**network.state_dict(), **tensors})
            network.eval()
        side = how.side_for(base.spec)
        planes = LabeledPlanes(dataset, dataset.test, spec, side, as_published)
        compared[arm] = network, planes, side
    panels = []
    for index in range(len(dataset.test)):
        plane = compared[config.ours][1][index]
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

    titles = ("image and click", "truth", *panels[0].masks)
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
