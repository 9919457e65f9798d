"""The summary of a batch run: a CSV and an HTML page."""

from __future__ import annotations

import os
import platform
import re
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from html import escape
from itertools import islice
from pathlib import Path
from typing import Literal

from napari_simmat import __version__
from napari_simmat._text import format_list, pluralize
from napari_simmat.batch.earlier import pictures_on, result_of, results_in
from napari_simmat.batch.inputs import shown_name
from napari_simmat.batch.outputs import about_table
from napari_simmat.batch.plan import Plan, SegmentConfig, SegmentTask
from napari_simmat.batch.record import read_record
from napari_simmat.batch.segment_image import TaskOutcome
from napari_simmat.engine.files.tables import TABLE_FORMATS
from napari_simmat.engine.measuring.histogram import Histogram
from napari_simmat.engine.measuring.measurements import with_shares
from napari_simmat.engine.measuring.size_distribution import SizeDistribution
from napari_simmat.engine.measuring.time_course import TimeCourse, plot_svg
from napari_simmat.io.files import (
    atomic_outputs,
    partial_paths,
    read_table_file,
    remove,
    write_table,
    write_text,
)

SUMMARY_TABLE, SUMMARY_PAGE = "simmat-summary.csv", "simmat-report.html"
ALL_OBJECTS = "simmat-objects.csv"
"""The tables of objects of all images, one below the other, with a column for the image."""
COLUMNS = ("image", "state", "objects", "hidden", "labels", "message")
MOST_SHOWN = 100_000
"""Objects that a histogram on the page is of."""
MOST_SERIES = 20
"""Time series that are drawn on the page."""
MAX_PICTURES = 2000
"""Thumbnails on the page; with more it would open slowly."""
STAYS = "What an earlier run made of it stays."
EARLIER = "Of an earlier run."
CORRECTED = "Corrected since; the picture shows what was found."
"""Stands on the page beside an image whose objects are others now."""
_NUMBER = '<td class="number">'


@dataclass(frozen=True)
class SummaryRow:
    """One image of a summary."""

    image: str
    state: Literal["done", "failed", "skipped"]
    objects: int | None = None
    hidden: int | None = None
    labels: str = ""
    message: str = ""
    seconds: float | None = None
    note: str = ""
    picture: bytes = b""


def write_summary(plan: Plan, outcomes: Sequence[TaskOutcome], config: SegmentConfig) -> None:
    """Write the files of `summary_files` into the output folder: of all that lies there.

    What an earlier run made of an image that failed in this one, or that is none of it, still
    counts. Where this run made nothing, earlier files stay as they are.

    The tables depend only on inputs and outputs: they hold no times, and kept outputs look like
    new ones. No other run may write them; what one left that was killed is removed.
    """
    files = summary_files(plan)
    for path in files:
        for part in partial_paths(path):
            remove(part)
    made_nothing = all(outcome.status == "failed" for outcome in outcomes)
    if made_nothing and files[0].exists():
        return
    rows, done = _with_earlier(summary_rows(plan, outcomes), outcomes, files)
    tables = {row.image: task.files.objects for row, task in done}
    # Images may have other channels, axes and units than others.
    columns = dict.fromkeys(name for path in tables.values() for name in read_table_file(path)[0])
    columns_of_all = list(columns)
    shown = _ShownColumns(columns_of_all, _frame_counts(done))
    cells = (
        {"image": image, **with_shares(shown.seen(image, row), columns_of_all)}
        for image, path in tables.items()
        for row in read_table_file(path)[1]
    )
    with atomic_outputs(*files) as (table, page, objects, *others):
        write_table(objects, ["image", *columns], cells)
        for path, kind in zip(others, _table_kinds(plan), strict=True):
            about = about_table(indices=_indices(task for _, task in done))
            _, lines = read_table_file(objects)
            TABLE_FORMATS[kind].write(path, ["image", *columns], lines, about)
        write_table(
            table, COLUMNS, [{name: getattr(row, name) for name in COLUMNS} for row in rows]
        )
        write_text(page, "".join(_page(rows, config, shown.pictures())))


def summary_files(plan: Plan) -> list[Path]:
    """Table and page of a run, and the objects of all images; each shard has its own.

    The objects of all are in the formats that those of one are in.
    """
    endings = (TABLE_FORMATS[kind].ending for kind in _table_kinds(plan))
    others = (Path(ALL_OBJECTS).with_suffix(ending) for ending in endings)
    names = (Path(SUMMARY_TABLE), Path(SUMMARY_PAGE), Path(ALL_OBJECTS), *others)
    part = "" if plan.shard is None else f"-{plan.shard}"
    return [plan.output / f"{name.stem}{part}{name.suffix}" for name in names]


def _table_kinds(plan: Plan) -> list[str]:
    """The formats besides CSV that tables are written in."""
    asked = {kind for task in plan.tasks for kind in task.files.extras}
    return [kind for kind in TABLE_FORMATS if kind in asked]


def _with_earlier(
    rows: Sequence[SummaryRow], outcomes: Sequence[TaskOutcome], files: Sequence[Path]
) -> tuple[list[SummaryRow], list[tuple[SummaryRow, SegmentTask]]]:
    """The rows with what earlier runs left, and the row and files of each image that has objects.

    Parameters
    ----------
    rows, outcomes
        Of this run; there are more rows, of images that were skipped.
    files
        Table and page of the earlier summary come first.
    """
    pictures = pictures_on(files[1])
    all_rows: list[SummaryRow] = []
    done = []
    for row, outcome in zip(rows, outcomes, strict=False):
        task = outcome.task
        if outcome.status == "failed" and (left := result_of(row.image, task.files.record)):
            labels = (Path(row.image).parent / left.task.files.labels.name).as_posix()
            picture = pictures.get(row.image, b"")
            message = f"{row.message} {STAYS}"
            row = replace(
                row, objects=left.objects, labels=labels, message=message, picture=picture
            )
            task = left.task
        all_rows.append(row)
        if row.labels:
            done.append((row, task))
    all_rows += rows[len(outcomes) :]
    for left in results_in(files[0], {row.image for row in rows}):
        labels = (Path(left.image).parent / left.task.files.labels.name).as_posix()
        row = SummaryRow(left.image, "done", left.objects, left.hidden, labels, note=EARLIER)
        all_rows.append(replace(row, picture=pictures.get(left.image, b"")))
        done.append((all_rows[-1], left.task))
    return all_rows, done


def _indices(tasks: Iterable[SegmentTask]) -> list[str]:
    """The indices of all tables; those of a replayed record are its own."""
    records = (read_record(task.files.record) for task in tasks)
    return [index for record in records for index in record.request.settings.table.indices]


def _frame_counts(done: Iterable[tuple[SummaryRow, SegmentTask]]) -> dict[str, int]:
    """How many time points each series of a run has, of `MOST_SERIES` at most."""
    inputs = ((row.image, read_record(task.files.record).request.input) for row, task in done)
    series = (
        (name, dict(zip(one.axes, one.shape, strict=True)).get("T", 0)) for name, one in inputs
    )
    return dict(islice(((name, count) for name, count in series if count > 1), MOST_SERIES))


def summary_rows(plan: Plan, outcomes: Sequence[TaskOutcome]) -> list[SummaryRow]:
    """A row for each input image, skipped ones last."""
    rows = []
    for outcome in outcomes:
        labels = outcome.task.files.labels
        inside = labels.is_relative_to(plan.output)
        labels = labels.relative_to(plan.output) if inside else Path(labels.name)
        image = (labels.parent / shown_name(outcome.task.image)).as_posix()
        seconds = outcome.seconds
        if outcome.status == "failed":
            message = without_folder(outcome.note, plan.output)
            rows.append(SummaryRow(image, "failed", message=message, seconds=seconds))
            continue
        row = SummaryRow(
            image,
            "done",
            outcome.objects,
            len(outcome.hidden),
            labels.as_posix(),
            seconds=seconds,
            note=("Kept from an earlier run. " if outcome.status == "kept" else "") + outcome.note,
            picture=outcome.thumbnail,
        )
        rows.append(row)
    for one in plan.skipped:
        message = without_folder(one.why, plan.output)
        row = SummaryRow(one.image.name, "failed" if one.failed else "skipped", message=message)
        rows.append(row)
    return rows


def without_folder(sentence: str, folder: Path) -> str:
    """Remove the output folder from paths in a sentence, so that it does not depend on it."""
    # Only at the start of a path: it may also be the end of another one.
    return re.sub(rf"(?<!\S){re.escape(f'{folder}{os.sep}')}", "", sentence)


_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 70em; color: #222;
  padding: 0 1em; background: #fff; }
h1 { font-size: 1.4em; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .4em .7em; border-top: 1px solid #ddd; vertical-align: middle; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td img { display: block; image-rendering: pixelated; }
h2 { font-size: 1.1em; } .histogram rect { fill: #3b6ea5; } .histogram text { font-size: 11px; }
.course { margin: .5em 1.5em .5em 0; fill: #3b6ea5; font-size: 11px; }
.course polyline { fill: none; stroke: #3b6ea5; } .course text { fill: #222; }
.histogram { margin: .5em 1.5em .5em 0; }
.failed { color: #a1260d; } .skipped { color: #777; }
"""


_NOT_SHOWN = re.compile(r"label|parent|bbox_|centroid_|[a-z]$|t_")
"""Columns whose histogram says nothing: numbers, and places."""
_SIZES = re.compile(r"(area|volume)_")
_DIAMETER = "equivalent_diameter_"


_EACH_FRAME = (
    "The number of objects on each frame and the means of their columns, a line for each series "
    f"(the first {MOST_SERIES}); the ends of the vertical axis stand below."
)


class _ShownColumns:
    """The numbers of a table that is written, which the page shows.

    Parameters
    ----------
    columns
        Of the table.
    frames
        How many time points each image has that is a series.
    """

    def __init__(self, columns: Sequence[str], frames: Mapping[str, int]) -> None:
        names = [name for name in columns if name != "class" and not _NOT_SHOWN.match(name)]
        # Sizes with a unit come before those in pixels.
        names.sort(key=lambda name: (not _SIZES.match(name), name.endswith(("_px", "_voxels"))))
        self._values: dict[str, array[float]] = {name: array("d") for name in names}
        self._diameters: dict[tuple[str, int], array[float]] = {
            (name, axes): array("d")
            for name in names
            if name.startswith(_DIAMETER)
            for axes in (2, 3)
        }
        self._courses = {image: TimeCourse(count, names) for image, count in frames.items()}

    def seen(self, image: str, row: dict[str, str]) -> dict[str, str]:
        """The row, whose numbers are kept: for histograms of `MOST_SHOWN` objects at most."""
        if image in self._courses:
            self._courses[image].add(row)
        for name, values in self._values.items():
            if len(values) < MOST_SHOWN and (cell := row.get(name)):
                values.append(float(cell))
        axes = 3 if row.get("volume_voxels") else 2
        for (name, number), diameters in self._diameters.items():
            if number == axes and len(diameters) < MOST_SHOWN and (cell := row.get(name)):
                diameters.append(float(cell))
        return row

    def pictures(self) -> Iterator[str]:
        """Of series what changes, and of all a histogram of the sizes; other columns are folded."""
        yield from self._plots()
        pictures = [
            found.svg(name)
            for name, values in self._values.items()
            if (found := Histogram.of(values)) is not None
        ]
        if pictures:
            of = f" of the first {MOST_SHOWN:,} objects" if self._is_full else ""
            yield f"<h2>Sizes{of}</h2>\n{pictures[0]}\n"
            yield from (f"<p>{escape(each.sentence)}.</p>\n" for each in self._distributions())
            yield "<details><summary>Other columns</summary>\n"
            yield from pictures[1:]
            yield "</details>\n"

    def _distributions(self) -> Iterator[SizeDistribution]:
        """D10, D50 and D90 in each unit; of flat objects and of volumes, if there are both.

        In pixels only if some objects have no other unit.
        """
        for (name, axes), diameters in self._diameters.items():
            unit = name.removeprefix(_DIAMETER)
            with_unit = sum(
                len(each)
                for (other, number), each in self._diameters.items()
                if number == axes and not other.endswith("_px")
            )
            if unit == "px" and with_unit >= len(diameters):
                continue
            found = SizeDistribution.of(diameters, unit, axes)
            if found is not None:
                yield found

    def _plots(self) -> Iterator[str]:
        """Number, mean size and mean intensities on each frame, and the other columns folded."""
        if not self._courses:
            return
        courses = self._courses.items()
        yield f"<h2>Over time</h2>\n<p>{_EACH_FRAME}</p>\n"
        yield plot_svg("objects", [(name, one.counts.astype(float)) for name, one in courses])
        plots = {
            column: plot_svg(column, [(name, one.mean(column)) for name, one in courses])
            for column in self._values
        }
        sizes = list(plots)[:1]
        first = [*sizes, *(name for name in plots if name.startswith("mean_"))]
        yield from (plots.pop(name) for name in first)
        yield "\n<details><summary>Other columns</summary>\n"
        yield from plots.values()
        yield "</details>\n"

    @property
    def _is_full(self) -> bool:
        return any(len(values) == MOST_SHOWN for values in self._values.values())


def _page(
    lines: Sequence[SummaryRow], config: SegmentConfig, histograms: Iterable[str] = ()
) -> Iterable[str]:
    """The page, with escaped texts and embedded pictures."""
    count = Counter(line.state for line in lines)
    objects = sum(line.objects or 0 for line in lines)
    time = datetime.now().astimezone()
    channels = format_list(config.selection.channels) or "all"
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<title>Segmentation report</title>\n"
        f"<style>{_STYLE}</style></head><body>\n<h1>Segmentation report</h1>\n<p>"
        f"{count['done']} of {pluralize(len(lines), 'image')} segmented, "
        f"{pluralize(objects, 'object')}; "
        f"{count['failed']} failed, {count['skipped']} skipped.</p>\n<p>"
        f"Model {escape(config.model)}, channels {escape(channels)}; napari-simmat "
        f"{escape(__version__)} on {escape(platform.node())}, {time:%Y-%m-%d %H:%M %Z}.</p>\n"
        "<table><thead><tr><th></th><th>image</th><th>state</th>"
        '<th class="number">objects</th><th class="number">seconds</th><th>message</th>'
        "</tr></thead><tbody>\n"
    )
    for number, line in enumerate(lines):
        picture = ""
        if line.picture and number < MAX_PICTURES:
            coded = b64encode(line.picture).decode("ascii")
            picture = f'<img alt="" src="data:image/png;base64,{coded}">'
        hidden = f"{line.hidden} hidden by others. " if line.hidden else ""
        cells = (
            f"<td>{picture}</td>",
            f"<td>{escape(line.image)}</td>",
            f'<td class="{line.state}">{line.state}</td>',
            f"{_NUMBER}{'' if line.objects is None else line.objects}</td>",
            f"{_NUMBER}{'' if line.seconds is None else f'{line.seconds:.1f}'}</td>",
            f"<td>{escape(hidden + line.note + line.message)}</td>",
        )
        yield f"<tr>{''.join(cells)}</tr>\n"
    yield "</tbody></table>\n"
    yield from histograms
    yield "</body></html>\n"


def corrected_page(page: str, image: str, count: int) -> str:
    """A page of `write_summary` with another number of objects of an image, and that of all.

    Its pictures and times are in no other file, so it is changed, not written anew.

    Raises
    ------
    ValueError
        If the image is not on the page.
    """
    row = re.compile(
        rf'(<td>{re.escape(escape(image))}</td><td class="done">done</td>{_NUMBER})(\d*)'
        rf"(</td>{_NUMBER}[^<]*</td><td>)([^<]*)(</td></tr>)"
    )
    found = row.search(page)
    total = re.search(r"segmented, (\d+) objects?;", page)
    if found is None or total is None:
        raise ValueError(f"{image} is not on it")
    before = int(found[2] or 0)
    message = found[4].replace(CORRECTED, "").strip()
    new = f"{found[1]}{count}{found[3]}{CORRECTED} {message}".rstrip() + found[5]
    page = f"{page[: found.start()]}{new}{page[found.end() :]}"
    objects = pluralize(int(total[1]) + count - before, "object")
    return f"{page[: total.start()]}segmented, {objects};{page[total.end() :]}"
