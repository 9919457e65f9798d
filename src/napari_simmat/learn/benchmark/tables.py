"""What the runs of an experiment say, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from napari_simmat.learn.benchmark.experiments import ARMS, SCRATCH, SIMMAT, ZERO_SHOT
from napari_simmat.learn.benchmark.running import Row

QUICK = "**Quick form: too few steps for a result.**"


class Cell(NamedTuple):
    """Mean and standard deviation of test mIoU in percent over so many seeds."""

    mean: float
    deviation: float
    seeds: int

    def __str__(self) -> str:
        """Such as ``53.9 ± 0.4``."""
        if self.seeds < 2:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} ± {self.deviation:.1f}"


def cell(rows: Iterable[Row]) -> Cell | None:
    """What rows that differ in their seed only reached; None if there is no row."""
    values = [row.test_iou for row in rows]
    if not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Cell(float(np.mean(values)), deviation, len(values))


def pivot(
    rows: Sequence[Row], line: Callable[[Row], str], column: Callable[[Row], str]
) -> tuple[list[str], list[str], dict[tuple[str, str], Cell]]:
    """Lines and columns in the order of their first row, and the cells where there are rows."""
    lines, columns = _unique(map(line, rows)), _unique(map(column, rows))
    cells = {}
    for name in lines:
        for other in columns:
            found = cell(row for row in rows if line(row) == name and column(row) == other)
            if found is not None:
                cells[name, other] = found
    return lines, columns, cells


def markdown(experiment: str, rows: Sequence[Row], quick: bool = False) -> str:
    """The table of an experiment; lower-case names are those of `EXPERIMENTS`."""
    if not rows:
        return "No run is done yet.\n"
    if experiment in ("transfer", "pseudo"):
        text = _by_modality(rows)
    elif experiment == "strategies":
        text = _by_strategy(rows)
    else:
        text = _by_setting(experiment, rows)
    return f"{QUICK}\n\n{text}" if quick else text


def ratio(rows: Sequence[Row]) -> float | None:
    """SimMAT's average mIoU over that of training from scratch; None where one is missing."""
    averages = _averages(rows)
    if SIMMAT not in averages or SCRATCH not in averages:
        return None
    return averages[SIMMAT] / averages[SCRATCH]


def _by_modality(rows: Sequence[Row]) -> str:
    lines, columns, cells = pivot(rows, lambda r: r.run.modality, lambda r: r.run.arm)
    columns = [name for name in ARMS if name in columns]
    body = [[name, *(_text(cells.get((name, c))) for c in columns)] for name in lines]
    averages = _averages(rows)
    body.append(["**average**", *(f"**{averages[c]:.1f}**" for c in columns)])
    text = _table(["modality", *columns], body)
    found = ratio(rows)
    if found is not None:
        text += f"\nSimMAT over scratch: {found:.2f}."
        gain = averages[SIMMAT] - averages[ZERO_SHOT]
        text += f" SimMAT above zero-shot: {gain:+.1f} points on average.\n"
    return text


def _averages(rows: Sequence[Row]) -> dict[str, float]:
    """Of each arm, over the modalities that all arms have."""
    lines, columns, cells = pivot(rows, lambda r: r.run.modality, lambda r: r.run.arm)
    complete = [name for name in lines if all((name, c) in cells for c in columns)]
    return {
        c: float(np.mean([cells[name, c].mean for name in complete])) if complete else float("nan")
        for c in columns
    }


def _by_strategy(rows: Sequence[Row]) -> str:
    lines, columns, cells = pivot(rows, lambda r: r.run.strategy, lambda r: r.run.modality)
    body = []
    for name in lines:
        numbers = sorted({row.parameters for row in rows if row.run.strategy == name})
        few = f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
        body.append([name, few, *(_text(cells.get((name, c))) for c in columns)])
    return _table(["strategy", "trained parameters", *columns], body)


def _by_setting(experiment: str, rows: Sequence[Row]) -> str:
    """A line for each modality and strategy, a column for each rate or number of images."""
    lines, columns, cells = pivot(
        rows, lambda r: f"{r.run.modality}, {r.run.strategy}", lambda r: setting(experiment, r)
    )
    columns = sorted(columns, key=float)
    body = [[name, *(_text(cells.get((name, c))) for c in columns)] for name in lines]
    return _table([{"lr": "learning rate", "size": "images"}[experiment], *columns], body)


def setting(experiment: str, row: Row) -> str:
    """What an experiment varies: the learning rate, or the number of images."""
    if experiment != "lr":
        return str(row.images)
    rate = row.run.learning_rate
    return np.format_float_scientific(rate, trim="-", exp_digits=1)  # 3e-4


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *body))


def _text(found: Cell | None) -> str:
    return "" if found is None else str(found)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
