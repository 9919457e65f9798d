"""The table and the figure of the measurements of `speed.py`, from its CSV."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

OURS = ("exact", "fast")


class Measured(NamedTuple):
    """One number: of which run and round, and of what."""

    run: str
    threads: int
    row: str
    who: str
    round: int
    quantity: str
    value: float


def read(path: Path) -> list[Measured]:
    """All numbers of a CSV."""
    with path.open(newline="") as file:
        return [
            Measured(
                row["run"],
                int(row["threads"]),
                row["row"],
                row["who"],
                int(row["round"]),
                row["quantity"],
                float(row["value"]),
            )
            for row in csv.DictReader(file)
        ]


def table(numbers: list[Measured], threads: int) -> Iterator[str]:
    """Rows compared with stock, those alone, and the peaks of matrix products, as Markdown."""
    numbers = [each for each in numbers if each.threads == threads]
    heads = "stock", "micro-sam", "exact", "times as fast", "fast", "times as fast"
    yield f"| | {' | '.join(heads)} | peak MB: stock, exact, fast | rounds |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for title in rows_of(numbers):
        cells = [title]
        for who in ("stock", "micro-sam", *OURS):
            times = seconds(numbers, title, who)
            cells.append(f"{1000 * median(times.values()):.0f} ms" if times else "")
            if who in OURS:
                cells.append(
                    "{:.2f} ({:.2f}-{:.2f})".format(*ratio(numbers, title, who)) if times else ""
                )
        peaks = (
            [
                each.value
                for each in numbers
                if (each.row, each.who, each.quantity) == (title, who, "MB")
            ]
            for who in ("stock", *OURS)
        )
        cells.append(", ".join(f"{max(each):.0f}" for each in peaks if each))
        cells.append(str(len(seconds(numbers, title, "stock"))))
        yield "| " + " | ".join(cells) + " |"
    yield ""
    yield "| | | median | least | most | count |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for each in numbers:
        if each.quantity not in ("cpu s", "wall s", "MB"):
            found[each.row, each.who, each.quantity].append(each.value)
    for (row, who, quantity), values in found.items():
        middle = (f"{value:.4g}" for value in (median(values), min(values), max(values)))
        yield f"| {row} | {who}, {quantity} | {' | '.join(middle)} | {len(values)} |"


def rows_of(numbers: list[Measured]) -> list[str]:
    """The rows that stock has too, in the order in which they were measured."""
    return list(dict.fromkeys(each.row for each in numbers if each.who == "stock"))


def seconds(numbers: list[Measured], row: str, who: str) -> dict[tuple[str, int], float]:
    """(Run, round) -> seconds: CPU time for one thread, else wall-clock time."""
    return {
        (each.run, each.round): each.value
        for each in numbers
        if each.row == row
        and each.who == who
        and each.quantity == ("cpu s" if each.threads == 1 else "wall s")
    }


def ratio(numbers: list[Measured], row: str, who: str) -> tuple[float, float, float]:
    """How many times as fast as stock in the same round: median, least and most."""
    stock, ours = seconds(numbers, row, "stock"), seconds(numbers, row, who)
    each = [stock[key] / ours[key] for key in stock if key in ours]
    return (median(each), min(each), max(each)) if each else (float("nan"),) * 3


def draw(path: Path, numbers: list[Measured]) -> None:
    """Ratios as bars, with their range over the rounds; a panel for each number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    threads = sorted({each.threads for each in numbers if each.who == "stock"})
    panels = [[each for each in numbers if each.threads == count] for count in threads]
    most = max(len(rows_of(panel)) for panel in panels)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5 + 4 * len(panels), 0.9 + 0.7 * most), squeeze=False, sharex=True,
        constrained_layout=True,
    )  # fmt: skip
    for axis, count, panel in zip(axes[0], threads, panels, strict=True):
        rows = rows_of(panel)
        for index, row in enumerate(rows):
            for shift, who, color in ((-0.2, "exact", "C0"), (0.2, "fast", "C1")):
                middle, low, high = ratio(panel, row, who)
                label = who if index == 0 else None
                axis.barh(index + shift, middle, 0.36, color=color, label=label)
                axis.plot([low, high], [index + shift] * 2, color="black", lw=1.2)
        axis.axvline(1, color="gray", lw=0.8)
        axis.set_yticks(range(len(rows)), rows)
        axis.invert_yaxis()
        axis.set_title(f"{count} thread{'s' if count > 1 else ''}")
    figure.supxlabel("times as fast as stock segment_anything (line: range of the rounds)")
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=100)
