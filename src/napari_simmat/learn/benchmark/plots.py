"""The experiments' plots, like the paper's figures 4 and 5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.engine.files import writing
from napari_simmat.learn.benchmark.experiments import ARMS, SCRATCH, SIMMAT, ZERO_SHOT
from napari_simmat.learn.benchmark.running import Row
from napari_simmat.learn.benchmark.tables import pivot, setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
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
QUICK = "quick, no result"


def draw(experiment: str, rows: Sequence[Row], path: Path, quick: bool = False) -> None:
    """Write the plot of an experiment as PNG.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the sentence says how to get it.
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
        mark(figure)
    with writing(path) as temporary:
        figure.savefig(temporary, format="png")


def _bars(experiment: str, rows: Sequence[Row], axes: Axes) -> None:
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
            color=COLOURS[arm],
            label=arm,
        )
    axes.set_xticks(range(len(lines)), [name.replace("_", "\n") for name in lines], fontsize=9)
    axes.set_ylim(0, None)
    axes.legend(ncols=len(columns), frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12))


def _strategies(experiment: str, rows: Sequence[Row], axes: Axes) -> None:
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


def _lines(experiment: str, rows: Sequence[Row], axes: Axes) -> None:
    """A line for each strategy and modality over what is varied."""
    styles = dict(zip(dict.fromkeys(r.run.modality for r in rows), ("-", "--", ":"), strict=False))
    for modality, strategy in dict.fromkeys((r.run.modality, r.run.strategy) for r in rows):
        own = [r for r in rows if (r.run.modality, r.run.strategy) == (modality, strategy)]
        places, _, cells = pivot(own, lambda r: setting(experiment, r), lambda _: "")
        places = sorted(places, key=float)
        axes.errorbar(
            [float(place) for place in places],
            [cells[place, ""].mean for place in places],
            [cells[place, ""].deviation for place in places],
            fmt="o" + styles.get(modality, "-"),
            markersize=4,
            color=COLOURS.get(strategy),
            label=f"{strategy}, {modality}",
        )
    places = sorted({setting(experiment, row) for row in rows}, key=float)
    axes.set_xscale("log")
    axes.set_xticks([float(place) for place in places], places)
    axes.minorticks_off()
    axes.set_xlabel({"lr": "learning rate", "size": "training images"}[experiment])
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def mark(figure: Figure) -> None:
    """Say across the plot that it shows nothing."""
    figure.text(0.5, 0.5, QUICK, fontsize=34, color="#c0392b", alpha=0.35, rotation=20, ha="center")
